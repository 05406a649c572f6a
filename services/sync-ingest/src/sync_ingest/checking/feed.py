"""A feed that is checked: its files, a digest of their bytes, and what the ledger holds of their accounts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from typing import Final, NamedTuple
from uuid import UUID

from sync_ingest.domain.controls.feed_read import FeedRead
from sync_ingest.domain.controls.file_read import Counted, FileRead
from sync_ingest.domain.records import ControlRecord
from sync_ingest.domain.totals import AccountCurrency, AccountTotal

ACCOUNTS_AT_ONCE: Final = 1_000
BYTES: Final = "bytes"
"""Stands in a scope for days, where no row could be read that has one."""


@dataclass(slots=True)
class Held:
    """What the ledger holds of some accounts in one currency: how many, the first one, and their totals."""

    account_currencies: int = 0
    first: AccountCurrency | None = None
    balance_minor: int = 0
    postings: int = 0
    last_on: date | None = None

    def add(self, account_currency: AccountCurrency, total: AccountTotal | None) -> None:
        """Adds an account; the ledger may hold nothing of it."""
        self.account_currencies += 1
        self.first = self.first or account_currency
        if total is not None:
            self.balance_minor += total.balance_minor
            self.postings += total.postings
            self.last_on = max(self.last_on or date.min, total.last_on or date.min)


class FilesRead(NamedTuple):
    """Files that were read, a digest that is the same for the same bytes, and what the ledger holds by currency.

    `held` is of all accounts of the files; of some accounts it is not asked for.
    """

    reads: Sequence[FileRead]
    same: str
    held: Mapping[str, "Held"]


class CheckedFeed:
    """A feed that is checked. `read` is all of it that is of no account."""

    def __init__(
        self, read: FeedRead, intakes: Sequence[UUID], contents: Sequence[UUID], as_one: bool
    ) -> None:
        self.read = read
        self.intakes = intakes
        self.same = _same_bytes(contents)
        self._contents = contents
        self._as_one = as_one
        self._balances: dict[int | None, dict[str, Held]] = {}
        self._of_all: list[ControlRecord] | None = None

    def every(self, read: FeedRead) -> FilesRead:
        """All files, with what `read` has of them."""
        return FilesRead(list(read.files.values()), self.same, self.balances(None))

    def of_files(self, read: FeedRead) -> Iterator[tuple[FilesRead, Sequence[int]]]:
        """The files of which `read` has anything, one by one or as one."""
        if self._as_one:
            yield self.every(read), list(read.files)
            return
        for at, file in read.files.items():
            yield FilesRead([file], _same_bytes([self._contents[at]]), self.balances(at)), [at]

    def controls(self, at: int) -> list[ControlRecord]:
        """The control records that speak of a file and of no account."""
        if not self._as_one:
            return [*self.read.beside, *(control for _, control in self.read.files[at].controls)]
        if self._of_all is None:
            of_files = (control for read in self.read.files.values() for _, control in read.controls)
            self._of_all = [*self.read.beside, *of_files]
        return self._of_all

    def balances(self, at: int | None) -> dict[str, Held]:
        """What the ledger holds of the accounts of a file, or of all files, where a control record states a balance."""
        held = self._balances.get(at)
        if held is None:
            if at is None:
                stating = [*self.read.beside, *(self.controls(0) if self._as_one and self.read.files else ())]
            else:
                stating = [control for _, control in self.read.files[at].controls]
            held = self._balances[at] = {
                control.currency or "": Held()
                for control in stating
                if (control.opening_minor, control.closing_minor) != (None, None) and control.account is None
            }
        return held


def _same_bytes(contents: Iterable[UUID]) -> str:
    parts = sorted({content.bytes for content in contents})
    return blake2b(b"".join(parts), digest_size=16).hexdigest()


def is_of(scope: str, counted: Counted, same: str) -> bool:
    """Whether what was read has all days of what a contradiction was found in: another day may state equal
    figures.

    What was found in bytes of which no row was read is of these bytes alone: nothing says which day they
    are of.
    """
    _, _, *days = scope.split("|")
    if len(days) < 2 or days[0] == BYTES:
        return days[1:] == [same]
    first, last = date.fromisoformat(days[0]), date.fromisoformat(days[1])
    return (
        counted.first_on is not None
        and counted.last_on is not None
        and counted.first_on <= first
        and last <= counted.last_on
    )
