"""What the pipeline asks of the event store and of the quarantine, and what it is given."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

import msgspec
from chassis.write.events import Event, RecordedEvent, StoredEvent

from sync_ingest.domain.descriptions import Described, Description
from sync_ingest.domain.events import FeedRecordQuarantined
from sync_ingest.domain.identities import QuarantineId
from sync_ingest.domain.records import Covers, Posting, Unreadable
from sync_ingest.domain.repeats import FeedPlace
from sync_ingest.domain.totals import AccountCurrency, AccountTotal


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event on its way into the store."""

    stream_id: UUID
    version: int
    event: Event
    identity: UUID | None
    effective_at: datetime
    intake: UUID
    trace: str | None = None


class StoredPosting(NamedTuple):
    """What the store says about a posting that it holds."""

    position: int
    amount_minor: int
    currency: str
    booked_on: date
    digest: str
    intake: UUID
    line: int
    reversal: bool
    kind: str | None


class AppendConflict(Exception):
    """Somebody else appended to a stream or used an identity first: read again and decide again."""


CONFLICT_RETRIES_MAX: Final = 5
T = TypeVar("T")


def tried_anew(appended: Callable[[], T]) -> T:
    """What `appended` returns, which reads and decides again where others were faster; raises AppendConflict."""
    for _ in range(CONFLICT_RETRIES_MAX - 1):
        with suppress(AppendConflict):
            return appended()
    return appended()


class NotBookable(Exception):
    """Records that were to be booked as a whole or not at all, and one of them cannot be: the reason and the detail."""

    def __init__(self, unreadable: Unreadable) -> None:
        super().__init__(f"{unreadable.reason}: {unreadable.detail}")


class LedgerPort(Protocol):
    """What the pipeline asks of the event store. Every call is one bounded batch."""

    def postings(self, identities: Sequence[UUID]) -> dict[UUID, StoredPosting]:
        """The postings among `identities` that are stored."""
        ...

    def known(self, identities: Sequence[UUID]) -> set[UUID]:
        """The identities that are taken."""
        ...

    def stored_under(self, identities: Sequence[UUID]) -> dict[UUID, RecordedEvent]:
        """The events that took these identities, without what is personal in them."""
        ...

    def heads(self, streams: Sequence[UUID]) -> dict[UUID, int]:
        """Version of the last event of each stream that has one."""
        ...

    def digest_keys(self, subjects: Sequence[UUID], parties: Sequence[UUID] = ()) -> dict[UUID, bytes]:
        """A secret per subject under which contents are digested; none where the subject was erased.

        `parties` are the subjects that are parties.
        """
        ...

    def differences(self, postings: Mapping[UUID, Posting]) -> list[frozenset[str]]:
        """Of each stored posting, by identity, the fields in which it is described differently; none where erased."""
        ...

    def sealed(self, entries: Sequence[Entry]) -> list[StoredEvent]:
        """The entries as they will be stored, personal fields sealed."""
        ...

    def append(self, sealed: Sequence[StoredEvent]) -> list[int]:
        """Stores in one transaction; returns the positions or raises AppendConflict. Another thread may call it."""
        ...


class QuarantineBook(Protocol):
    """Where quarantine entries are listed beside their events."""

    def resolved_among(self, rows: Mapping[QuarantineId, UUID | None]) -> set[QuarantineId]:
        """Entries that were released or dismissed since, or whose row (by `row_id`) was, in another file."""
        ...

    def enter(self, entries: Sequence[tuple[FeedRecordQuarantined, bytes, UUID | None]]) -> None:
        """Lists entries with their records and rows; a second time changes nothing."""
        ...

    def descriptions(self, subjects: Sequence[UUID]) -> dict[UUID, Description]:
        """The last description of each subject that has one."""
        ...

    def describe(self, described: Described, before: Mapping[UUID, Description]) -> None:
        """Notes what is described next, and what stood before: it is put back where the events are not stored."""
        ...

    def note_early_closings(self, found: Mapping[UUID, FeedPlace], others: Sequence[UUID]) -> None:
        """Notes accounts that stand with a closing before their opening, each with its last record; `others` do not."""
        ...

    def await_originals(self, source: str, originals: Mapping[QuarantineId, UUID]) -> None:
        """Remembers for which postings quarantined reversals wait; a second time changes nothing."""
        ...

    def ledger_totals(self, accounts: Sequence[UUID]) -> Mapping[AccountCurrency, AccountTotal]:
        """What the ledger holds of these accounts, everything that is stored included."""
        ...

    def turnovers(self) -> dict[str, int]:
        """The sum of absolute amounts of the source by currency."""
        ...


@dataclass(frozen=True, slots=True)
class FeedIntake:
    """The intake that a file of the feed came from.

    `open`: what it posted before counts as this run's. `closed`: a certificate covers it, so nothing new comes of it.
    `covers`: what the file has of a source without transaction ids, where that is stated. `readings`: all intakes of the
    same bytes.
    """

    intake: UUID
    file: str
    open: bool
    closed: bool = False
    covers: Covers | None = None
    readings: frozenset[UUID] = frozenset()
    kind: str | None = None
    """What every record of its format is, where that is known."""
    waited: frozenset[int] | None = None
    """Of an intake that is read once more, the lines that waited: other master data are as they were."""
    described_line: int = 0
    """Up to this line its master data were described when it was read before."""
    kept: bool = True
    """Whether there is such an intake: of what is only tried nothing is noted."""
