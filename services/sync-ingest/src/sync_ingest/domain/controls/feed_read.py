"""What was read in a feed, file by file. What is of accounts leaves the process where there are many of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Final
from uuid import UUID

import msgspec
from msgspec import structs

from sync_ingest.domain.controls.file_read import Counted, FileRead, Scope, numbered_as, scopes_of, summed
from sync_ingest.domain.controls.running_numbers import NumberSeries, first_of, shared
from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX, PartialSums
from sync_ingest.domain.records import AnyRecord, ControlRecord, Posting, Unreadable

CONTROLS_PER_FILE_MAX: Final = 1_000_000
"""More are refused."""
READ: Final = "read"
"""The kind of partial sums that `FeedRead` stores."""


class _AccountRead(msgspec.Struct, array_like=True):
    """What was read of one account in one file, or, with `BESIDE`, was stated and stored of it in no file."""

    file: int
    counted: dict[str, Counted] = {}
    controls: list[tuple[int, ControlRecord]] = []
    series: list[tuple[date | None, NumberSeries]] = []
    booked: list[tuple[date | None, NumberSeries]] = []
    repeated: list[tuple[date | None, NumberSeries]] = []


BESIDE: Final = -1
_pack: Final = msgspec.json.Encoder().encode  # whose integers have no limit
_account_read: Final = msgspec.json.Decoder(_AccountRead)


class FeedRead:
    """What was read in a feed, file by file, and the running numbers of what was stored of it.

    `beside` are control records of all files together. `repeated` are numbers that two postings of this feed have.
    `account_name` is what an account is called in what is stored and compared: its id, where a source's number is
    personal.
    """

    def __init__(
        self,
        account_id: Callable[[str], UUID] | None = None,
        partial_sums: PartialSums | None = None,
        kept_max: int = ACCOUNTS_KEPT_MAX,
        controls_per_file_max: int = CONTROLS_PER_FILE_MAX,
    ) -> None:
        self.files: dict[int, FileRead] = {}
        self.beside: list[ControlRecord] = []
        self.booked: dict[Scope, NumberSeries] = {}
        self.repeated: dict[Scope, NumberSeries] = {}
        self._account_id = account_id
        self._partial_sums = partial_sums
        self._kept_max = kept_max
        self.controls_per_file_max = controls_per_file_max
        self._stored = False
        self._kept = 0

    def count(self, file: int, line: int, content: AnyRecord | Unreadable) -> bool:
        """Counts one record. Returns whether it could be: a control record beyond the bound of its file is not kept."""
        read = self._file(file)
        if isinstance(content, Posting):
            self._postings(read, [content])
        elif isinstance(content, Unreadable):
            read.records += 1
            read.unreadable += 1
        elif isinstance(content, ControlRecord):
            return self._control(read, line, content)
        return True

    def count_postings(self, file: int, postings: Sequence[Posting]) -> None:
        """Counts postings of one file."""
        self._postings(self._file(file), postings)

    def count_booked(self, postings: Iterable[Posting]) -> None:
        """Counts the running numbers of postings that this feed, and no other one, had stored."""
        for posting in postings:
            number = posting.sequence_number
            if number is not None:
                scope = numbered_as(posting)
                booked = self.booked.get(scope)
                if booked is None:
                    booked = self.booked[scope] = NumberSeries([])
                    self._kept += 1
                if not booked.book(number):
                    self.repeated.setdefault(scope, NumberSeries([])).add(number, number)

    def series(self) -> dict[Scope, NumberSeries]:
        """All running numbers that were read, with what control records in the files and beside them state."""
        found: dict[Scope, NumberSeries] = {}
        for read in self.files.values():
            for scope, numbers in read.series.items():
                found.setdefault(scope, NumberSeries([])).include(numbers)
        for scope, numbers in self.booked.items():
            found.setdefault(scope, NumberSeries([])).include(numbers)
        for reads, controls in [
            ([read], [control for _, control in read.controls]) for read in self.files.values()
        ] + [([*self.files.values()], self.beside)]:
            stating = [c for c in controls if (c.first_number, c.last_number) != (None, None)]
            for control in stating:
                for scope in scopes_of(reads, control):
                    numbers = found.setdefault(scope, NumberSeries([]))
                    numbers.state(control.first_number, control.last_number)
        return found

    # by account

    @property
    def full(self) -> bool:
        """Whether as much is in memory by account as may be."""
        return self._kept >= self._kept_max

    def store(self) -> None:
        """Stores what was counted by account, if there is a place for it, and forgets it."""
        if self._partial_sums is not None:
            self._partial_sums.store(READ, ((account, _pack(read)) for account, read in self._taken()))
            self._stored = True
            self._kept = 0

    def by_account(self, accounts_max: int) -> Iterator["FeedRead"]:
        """What was read of each account, in the order of accounts, so many at a time; accounts are named by id.

        What is left here is of no account. It is not in the parts.
        """
        part, account, accounts = FeedRead(), None, 0
        for of, read in self._account_reads():
            if of != account:
                account, accounts = of, accounts + 1
                if accounts > accounts_max:
                    yield part._in_order()
                    part, accounts = FeedRead(), 1
            part._include(str(of), read, self.files)
        if accounts:
            yield part._in_order()

    def _in_order(self) -> "FeedRead":
        """The same, in the order in which it was read: partial sums come in any order."""
        self.files = dict(sorted(self.files.items()))
        for read in self.files.values():
            read.controls.sort(key=first_of)
        return self

    def _account_reads(self) -> Iterator[tuple[UUID, _AccountRead]]:
        if not self._stored or self._partial_sums is None:
            yield from sorted(self._taken(), key=first_of)
            return
        self.store()
        for account, body in self._partial_sums.stored(READ):
            yield account, _account_read.decode(body)

    def _taken(self) -> Iterator[tuple[UUID, _AccountRead]]:
        """What was counted by account, which is forgotten here; its sums are kept."""
        for file, read in self.files.items():
            yield from self._named(read_by_account(file, read))
            for (_, currency), counted in read.accounts.items():
                read.sums[currency] = summed([read.sums.get(currency, Counted()), counted])
            read.accounts.clear()
            read.controls = [each for each in read.controls if each[1].account is None]
            _drop_accounts(read.series)
            read.scopes = {of: scopes for of, scopes in read.scopes.items() if of[0] is None}
        beside: dict[str, _AccountRead] = {}
        for control in self.beside:
            if control.account is not None:
                _of(beside, BESIDE, control.account).controls.append((0, control))
        for scope, numbers in self.booked.items():
            if scope.account is not None:
                _of(beside, BESIDE, scope.account).booked.append((scope.day, numbers))
        for scope, numbers in self.repeated.items():
            if scope.account is not None:
                _of(beside, BESIDE, scope.account).repeated.append((scope.day, numbers))
        yield from self._named(beside)
        self.beside = [control for control in self.beside if control.account is None]
        _drop_accounts(self.booked)
        _drop_accounts(self.repeated)

    def _named(self, reads: Mapping[str, _AccountRead]) -> Iterator[tuple[UUID, _AccountRead]]:
        if self._account_id is None:
            raise TypeError("what is read by account needs the ids of accounts")
        for name, read in reads.items():
            account = self._account_id(name)
            read.controls = [
                (line, structs.replace(control, account=str(account))) for line, control in read.controls
            ]
            yield account, read

    def _include(self, account: str, more: _AccountRead, files: Mapping[int, FileRead]) -> None:
        """Adds what was read of an account to a part; `files` are those that it was read in."""
        for day, numbers in more.booked:
            scope = Scope(account, None, day)
            held = self.booked.setdefault(scope, NumberSeries([]))
            for first, last in shared(held.booked, numbers.booked):
                self.repeated.setdefault(scope, NumberSeries([])).add(first, last)
            held.include(numbers)
        for day, numbers in more.repeated:
            self.repeated.setdefault(Scope(account, None, day), NumberSeries([])).include(numbers)
        if more.file == BESIDE:
            self.beside += [control for _, control in more.controls]
            return
        read = self.files.get(more.file)
        if read is None:
            read = self.files[more.file] = FileRead(currencies=files[more.file].currencies)
        for currency, counted in more.counted.items():
            held_of = read.accounts.get((account, currency))
            read.accounts[account, currency] = summed([held_of, counted]) if held_of else counted
        for day, numbers in more.series:
            read.series_of(Scope(account, None, day)).include(numbers)
        read.controls += more.controls

    def _file(self, file: int) -> FileRead:
        read = self.files.get(file)
        if read is None:
            read = self.files[file] = FileRead()
        return read

    def _control(self, read: FileRead, line: int, control: ControlRecord) -> bool:
        if read.controls_total >= self.controls_per_file_max:
            return False
        read.controls_total += 1
        self._kept += 1
        read.controls.append((line, control))
        return True

    def _postings(self, read: FileRead, postings: Sequence[Posting]) -> None:
        """In one loop without a call in it, because every posting there is comes through here."""
        read.records += len(postings)
        accounts, branches, accounts_before = read.accounts, read.branches, len(read.accounts)
        of_branch, branch_before, currency_before = Counted(), "", ""
        for posting in postings:
            amount_minor, currency, booked_on = posting.amount_minor, posting.currency, posting.booked_on
            key = posting.account, currency
            counted = accounts.get(key)
            if counted is None:
                counted = accounts[key] = Counted()
                read.currencies.add(currency)
            counted.postings += 1
            if amount_minor >= 0:
                counted.credits_minor += amount_minor
            else:
                counted.debits_minor -= amount_minor
            if posting.balance_after_minor is not None:
                counted.printed = True
            last_on, first_on = counted.last_on, counted.first_on
            if last_on is None or booked_on > last_on:
                counted.last_on = booked_on
            if first_on is None or booked_on < first_on:
                counted.first_on = booked_on
            branch = posting.branch
            if branch:
                if branch != branch_before or currency != currency_before:
                    branch_before, currency_before = branch, currency
                    of_branch = branches.setdefault((branch, currency), Counted())
                of_branch.postings += 1
                if amount_minor >= 0:
                    of_branch.credits_minor += amount_minor
                else:
                    of_branch.debits_minor -= amount_minor
            if posting.sequence_number is not None:
                before = len(read.series)
                read.series_of(numbered_as(posting)).add(posting.sequence_number, posting.sequence_number)
                self._kept += len(read.series) - before
        self._kept += len(accounts) - accounts_before


def read_by_account(file: int, read: FileRead) -> dict[str, _AccountRead]:
    """What is of an account in a file, by the account."""
    found: dict[str, _AccountRead] = {}
    for (account, currency), counted in read.accounts.items():
        _of(found, file, account).counted[currency] = counted
    for line, control in read.controls:
        if control.account is not None:
            _of(found, file, control.account).controls.append((line, control))
    for scope, numbers in read.series.items():
        if scope.account is not None:
            _of(found, file, scope.account).series.append((scope.day, numbers))
    return found


def _of(reads: dict[str, _AccountRead], file: int, account: str) -> _AccountRead:
    read = reads.get(account)
    if read is None:
        read = reads[account] = _AccountRead(file, {}, [], [], [], [])
    return read


def _drop_accounts(series: dict[Scope, NumberSeries]) -> None:
    for scope in [scope for scope in series if scope.account is not None]:
        del series[scope]
