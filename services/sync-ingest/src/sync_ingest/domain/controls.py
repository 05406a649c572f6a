"""Compares the control totals and running numbers that a feed states with the records that were read.

Records are counted as they are read, before any decision about them, so that no later step can hide a record.
What is counted by account is compared some accounts at a time, the rest of a file once.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from operator import itemgetter
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec import structs

from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX, PartialSums
from sync_ingest.domain.records import AnyRecord, ControlRecord, Posting, Unreadable

CONTROLS_PER_FILE_MAX: Final = 1_000_000
"""More are refused."""
READ: Final = "read"
"""The kind of partial sums that `FeedRead` stores."""
INTERVALS_PER_SERIES_MAX: Final = 1_000
"""Gaps that one series remembers; the oldest are forgotten first, and stay contradictions until acknowledged."""


def _add(held: list[tuple[int, int]], first: int, last: int) -> None:
    """Adds the numbers from `first` to `last` to intervals."""
    if held and held[-1][0] <= first <= held[-1][1] + 1:
        if last > held[-1][1]:
            held[-1] = (held[-1][0], last)
        return
    at = bisect_right(held, (first, last))
    if at and held[at - 1][1] >= first - 1:
        at -= 1
        first = held[at][0]
    end = at
    while end < len(held) and held[end][0] <= last + 1:
        last = max(last, held[end][1])
        end += 1
    held[at:end] = [(first, last)]
    if len(held) > INTERVALS_PER_SERIES_MAX:
        del held[0]


def shared(some: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The numbers that are in both, as intervals; both are in order."""
    found, at = list[tuple[int, int]](), 0
    for first, last in some:
        while at < len(others) and others[at][1] < first:
            at += 1
        each = at
        while each < len(others) and others[each][0] <= last:
            found.append((max(first, others[each][0]), min(last, others[each][1])))
            each += 1
    return found


_first: Final = itemgetter(0)


def _many(intervals: Iterable[tuple[int, int]]) -> int:
    return sum(last - first + 1 for first, last in intervals)


class NumberSeries(msgspec.Struct, array_like=True):
    """The running numbers of one account or branch that were read so far, as intervals, and what was stated
    of them.

    `booked` are those of postings that are stored: another posting under one of them is a contradiction.
    """

    intervals: list[tuple[int, int]] = []
    first: int | None = None
    last: int | None = None
    booked: list[tuple[int, int]] = []

    def state(self, first: int | None, last: int | None) -> None:
        """Notes between which numbers a control record says that they run."""
        if first is not None:
            self.first = first if self.first is None else min(self.first, first)
        if last is not None:
            self.last = last if self.last is None else max(self.last, last)

    def include(self, other: "NumberSeries") -> None:
        """Adds all that another knows."""
        for first, last in other.intervals:
            self.add(first, last)
        for first, last in other.booked:
            _add(self.booked, first, last)
        self.state(other.first, other.last)

    def add(self, first: int, last: int) -> None:
        """Adds the numbers from `first` to `last`."""
        _add(self.intervals, first, last)

    def book(self, number: int) -> bool:
        """Adds the number of a posting that was stored; whether no other one had it."""
        at = bisect_right(self.booked, number, key=_first)
        if at and self.booked[at - 1][1] >= number:
            return False
        _add(self.booked, number, number)
        return True

    def gaps(self) -> list[tuple[int, int]]:
        """First and last number of each run of numbers that is missing."""
        held = list(self.intervals)
        if self.first is not None and (not held or self.first < held[0][0]):
            held.insert(0, (self.first, self.first - 1))
        if self.last is not None and held and self.last > held[-1][1]:
            held.append((self.last + 1, self.last))
        return [(before[1] + 1, after[0] - 1) for before, after in pairwise(held)]


class Scope(NamedTuple):
    """Of what a running number or a control total is: an account as the source names it, a branch, or a whole
    file."""

    account: str | None = None
    branch: str | None = None
    day: date | None = None
    """Where numbers begin anew each day."""


class Counted(msgspec.Struct, gc=False, array_like=True):
    """Postings that were read of one account, branch or file in one currency; debits are positive here."""

    postings: int = 0
    credits_minor: int = 0
    debits_minor: int = 0
    printed: bool = False
    first_on: date | None = None
    last_on: date | None = None


@dataclass(slots=True)
class FileRead:
    """What was read in one file: all of it, or all that is not of an account, or what is of some accounts.

    `sums` are of the accounts that are not in `accounts`, by currency. Of `controls` some are of an account.
    """

    records: int = 0
    unreadable: int = 0
    accounts: dict[tuple[str, str], Counted] = field(default_factory=dict)
    sums: dict[str, Counted] = field(default_factory=dict)
    branches: dict[tuple[str, str], Counted] = field(default_factory=dict)
    controls: list[tuple[int, ControlRecord]] = field(default_factory=list)
    series: dict[Scope, NumberSeries] = field(default_factory=dict)
    currencies: set[str] = field(default_factory=set)
    scopes: dict[tuple[str | None, str | None], list[Scope]] = field(default_factory=dict)
    """What of an account or of a branch is numbered: once, or once for each day."""
    controls_total: int = 0

    def of(self, account: str | None, branch: str | None) -> Iterator[Counted]:
        """What was counted of an account or of a branch, currency by currency."""
        held, name = (self.branches, branch) if branch is not None else (self.accounts, account)
        for currency in self.currencies:
            if name is not None and (name, currency) in held:
                yield held[name, currency]

    def whole(self, currency: str | None = None) -> Iterator[Counted]:
        """What was counted of all accounts, in one currency or in all."""
        yield from (counted for of, counted in self.sums.items() if currency in {None, of})
        yield from (counted for (_, of), counted in self.accounts.items() if currency in {None, of})

    def series_of(self, scope: Scope) -> NumberSeries:
        """The running numbers of a scope, made when they are first asked for."""
        series = self.series.get(scope)
        if series is None:
            series = self.series[scope] = NumberSeries([])
            self.scopes.setdefault((scope.account, scope.branch), []).append(scope)
        return series


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
            read.controls.sort(key=_first)
        return self

    def _account_reads(self) -> Iterator[tuple[UUID, _AccountRead]]:
        if not self._stored or self._partial_sums is None:
            yield from sorted(self._taken(), key=_first)
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


def numbered_as(posting: Posting) -> Scope:
    """Of what the running number of a posting is one."""
    by = posting.numbered_by
    day = posting.booked_on if by.endswith("-day") else None
    return (
        Scope(None, posting.branch or "", day)
        if by.startswith("branch")
        else Scope(posting.account, None, day)
    )


def scopes_of(reads: Sequence[FileRead], control: ControlRecord) -> list[Scope]:
    """What of the running numbers in these files a control record speaks of."""
    named = control.account, control.branch
    return list(dict.fromkeys(s for read in reads for s in read.scopes.get(named, ()))) or [Scope(*named)]


class NumbersDiffer(NamedTuple):
    """Running numbers that are stated and are not those of the files that state them."""

    figure: str
    stated: int
    found: int


def numbers_differ(
    reads: Sequence[FileRead], control: ControlRecord, held: Mapping[Scope, NumberSeries]
) -> Iterator[NumbersDiffer]:
    """Numbers that a control record states and `reads` lack, or hold beyond them.

    Those that are in no file at all, by `held`, are gaps, which are told apart. Where no number was read,
    one that is stated alone says how far they are.
    """
    for scope in scopes_of(reads, control):
        read = NumberSeries([])
        for file in reads:
            if scope in file.series:
                read.include(file.series[scope])
        lowest, highest = (read.intervals[0][0], read.intervals[-1][1]) if read.intervals else (None, None)
        first = lowest if control.first_number is None else control.first_number
        last = highest if control.last_number is None else control.last_number
        if first is None or last is None:
            continue
        if lowest is not None and lowest < first:
            yield NumbersDiffer("first_number", first, lowest)
        if highest is not None and highest > last:
            yield NumbersDiffer("last_number", last, highest)
        gaps = held[scope].gaps() if scope in held else []
        wanted = [(first, last)] if first <= last else []
        there = _many(shared(wanted, read.intervals)) + _many(shared(wanted, gaps))
        if there < _many(wanted):
            yield NumbersDiffer("numbers", _many(wanted), _many(shared(wanted, read.intervals)))


class ControlDifference(NamedTuple):
    """A control total that is not what was read: `line` is where the feed states it, 0 where no line does."""

    control: ControlRecord
    figure: str
    stated: int
    found: int
    file: int
    line: int


def summed(counted: Iterable[Counted]) -> Counted:
    """All of them together."""
    total = Counted()
    for each in counted:
        total.postings += each.postings
        total.credits_minor += each.credits_minor
        total.debits_minor += each.debits_minor
        total.printed |= each.printed
        if each.last_on and (total.last_on is None or each.last_on > total.last_on):
            total.last_on = each.last_on
        if each.first_on and (total.first_on is None or each.first_on < total.first_on):
            total.first_on = each.first_on
    return total


def read_under(reads: Sequence[FileRead], control: ControlRecord) -> Counted:
    """What was read of the things that a control record speaks of, in its currency where it names one."""
    currency = control.currency
    found: list[Counted] = []
    for read in reads:
        if control.account is not None:
            held: Mapping[tuple[str, str], Counted] = read.accounts
            name = control.account
        elif control.branch is not None:
            held, name = read.branches, control.branch
        else:
            found += read.whole(currency)
            continue
        if currency is not None:
            found += [held[name, currency]] if (name, currency) in held else []
        else:
            found += read.of(control.account, control.branch)
    return summed(found)


def differences(
    reads: Sequence[FileRead], controls: Iterable[tuple[int, int, ControlRecord]]
) -> Iterator[ControlDifference]:
    """Each figure that is stated (file, line, control) and differs from what was read in `reads`.

    `records` of a whole file counts every currency and what could not be read.
    """
    for file, line, control in controls:
        counted = read_under(reads, control)
        records = counted.postings
        if control.account is None and control.branch is None:
            records = sum(read.records for read in reads)
        for figure, stated, found in (
            ("records", control.records, records),
            ("credits_minor", control.credits_minor, counted.credits_minor),
            ("debits_minor", control.debits_minor, counted.debits_minor),
        ):
            if stated is not None and stated != found:
                yield ControlDifference(control, figure, stated, found, file, line)
        opening, closing = control.opening_minor, control.closing_minor
        if opening is not None and closing is not None:
            follows = opening + counted.credits_minor - counted.debits_minor
            if follows != closing:
                yield ControlDifference(control, "closing_minor", closing, follows, file, line)


def unchecked(
    read: FileRead, controls: Sequence[ControlRecord], of_file: FileRead | None = None
) -> set[tuple[str, str]]:
    """Accounts and currencies with postings in `read` in which one that is lost would not be seen.

    `of_file` is all of the file that is of no account, where `read` is some accounts of it.
    What sees it: a count of records; both sums; opening and closing; the closing of an account alone,
    which is compared with the ledger; the first and the last running number, where every posting has one.
    A sum of one side says nothing of the other side, and an opening nothing of the postings after it.
    """
    whole = of_file or read
    stated: dict[tuple[str | None, str | None, str | None], set[str]] = {}
    for control in controls:
        figures = stated.setdefault((control.account, control.branch, control.currency), set())
        figures |= {name for name in _FIGURES if getattr(control, name) is not None}
        if control.opening_minor is not None and control.closing_minor is not None:
            figures.add("movement")
        if None not in (control.first_number, control.last_number) and _all_numbered(
            read if control.account is not None else whole, control
        ):
            stated.setdefault((control.account, control.branch, None), set()).add("numbers")
    covered = {scope for scope, figures in stated.items() if any(figures >= some for some in _SEEING)}
    covered |= {
        scope for scope, figures in stated.items() if scope[0] is not None and "closing_minor" in figures
    }
    if any(
        control.records is not None for control in controls if (control.account, control.branch) == _WHOLE
    ):
        return set()
    branches = {branch for _, branch, _ in covered if branch is not None}
    of_branches = [
        counted.postings
        for (branch, currency), counted in whole.branches.items()
        if branch in branches and {(None, branch, currency), (None, branch, None)} & covered
    ]
    if of_branches and sum(of_branches) == whole.records - whole.unreadable:
        return set()
    return {
        (account, currency)
        for account, currency in read.accounts
        if not {(None, None, currency), (account, None, currency), (account, None, None)} & covered
    }


_WHOLE: Final = (None, None)
_FIGURES: Final = ("records", "credits_minor", "debits_minor", "closing_minor")
_SEEING: Final = ({"records"}, {"credits_minor", "debits_minor"}, {"movement"}, {"numbers"})


def _all_numbered(read: FileRead, control: ControlRecord) -> bool:
    postings = sum(counted.postings for counted in read.of(control.account, control.branch))
    scopes = read.scopes.get((control.account, control.branch), ())
    return postings == sum(_many(read.series[scope].intervals) for scope in scopes)
