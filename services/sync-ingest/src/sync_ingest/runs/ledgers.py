"""Ledgers that read as the event store does, and store otherwise."""

from collections.abc import Sequence

from chassis.write.events import StoredEvent

from sync_ingest.runs.ports import Ledger


class _Beside:
    """A ledger that reads as the ledger does."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.postings = ledger.postings
        self.known = ledger.known
        self.stored_under = ledger.stored_under
        self.heads = ledger.heads
        self.digest_keys = ledger.digest_keys
        self.differences = ledger.differences
        self.sealed = ledger.sealed


class Bookable(Exception):
    """Everything was planned, and would be stored now."""


class Dry(_Beside):
    """A ledger that stores nothing: whoever comes as far as storing could be booked."""

    def append(self, sealed: Sequence[StoredEvent]) -> list[int]:
        """Raises Bookable."""
        raise Bookable


class Releasing(_Beside):
    """A ledger that stores the events of a release in the transaction of the repair that it books."""

    def __init__(self, ledger: Ledger, releases: Sequence[StoredEvent]) -> None:
        super().__init__(ledger)
        self._releases = releases

    def append(self, sealed: Sequence[StoredEvent]) -> list[int]:
        """As the ledger's; the releases go with what is stored first."""
        positions = self._ledger.append([*sealed, *self._releases])
        self._releases = ()
        return positions[: len(sealed)]

    def finish(self) -> None:
        """Stores the releases alone where the repair held nothing that was not there before."""
        if self._releases:
            self.append([])
