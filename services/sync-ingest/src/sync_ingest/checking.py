"""Checks the control totals of a feed, and keeps contradictions until they are resolved or acknowledged.

What is of accounts is checked some accounts at a time, and then what is of whole files and of branches.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from sync_ingest.archive.archive import Archive
from sync_ingest.archive.contradictions import Contradiction, Contradictions
from sync_ingest.domain.certificate import Problem
from sync_ingest.domain.controls import (
    Counted,
    FeedRead,
    FileRead,
    NumberSeries,
    Scope,
    differences,
    numbers_differ,
    read_under,
    scopes_of,
    shared,
    summed,
    unchecked,
)
from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX, PartialSums
from sync_ingest.domain.records import ControlRecord, shown
from sync_ingest.domain.totals import AccountCurrency, AccountTotal, ControlTotals, Flow
from sync_ingest.folding import OPENING_MISSING, Movements, contradiction_id, is_printed

CHECKED_SERIES: Final = "series"
"""The kind of partial sums that hold the running numbers to be kept with the certificate."""
CONTROL: Final = "control-total"
SERIES: Final = "running-number"
REPEATED: Final = "running-number-again"
"""Only a person resolves these: no later feed says which of two postings is right."""
LEDGER: Final = "ledger"
TOTAL_DIFFERS: Final = "control-total-differs"
NUMBER_GAP: Final = "running-number-gap"
NUMBER_REPEATED: Final = "running-number-repeated"
ACCOUNTS_AT_ONCE: Final = 1_000
CONTROLS_AT_ONCE: Final = 1_000
GAPS_NAMED_MAX: Final = 1_000

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_pack: Final = msgspec.msgpack.Encoder().encode
_series: Final = msgspec.msgpack.Decoder(NumberSeries)


class Stated(NamedTuple):
    """A control record, and where it stands: its intake and its line, or neither.

    A file's name may be personal.
    """

    control: ControlRecord
    place: str


class _Found(NamedTuple):
    figure: str
    expected: int
    found: int
    code: str = TOTAL_DIFFERS


class _CheckedSeries(msgspec.Struct, array_like=True):
    scope: str
    body: bytes


_checked: Final = msgspec.json.Decoder(_CheckedSeries)


@dataclass(slots=True)
class Checking:
    """Checks one booking of a source; the caller holds the source's lock, and everything is folded."""

    archive: Archive
    ledger: Movements
    source: str
    partial_sums: PartialSums
    kept_max: int = ACCOUNTS_KEPT_MAX
    unchecked: bool = False
    _series_now: dict[str, bytes] = field(default_factory=dict)
    _series_stored: bool = False
    _read_so_far: dict[Scope, bytes] = field(default_factory=dict)
    _lacking: dict[str, list[Contradiction]] = field(default_factory=dict)
    """Contradictions of control totals that stand, by their statement, until it is looked at."""
    _lacking_read: dict[tuple[str, str], Counted] = field(default_factory=dict)
    """What was read of their accounts."""

    def check(
        self,
        read: FeedRead,
        intakes: Sequence[UUID],
        contents: Sequence[UUID],
        beside: Sequence[ControlRecord],
        totals: ControlTotals,
        *,
        as_one: bool,
    ) -> None:
        """Checks what was read of `intakes`; `beside`: controls of all together; `as_one`: a stream is one
        file.

        `contents` are the bytes of each; those of a repair are the bytes that it repairs.
        """
        read.beside += beside
        for each in self.archive.contradictions.standing_of(self.source, CONTROL, CONTROLS_AT_ONCE):
            self._lacking.setdefault(each.scope.partition("|")[0], []).append(each)
        feed = _Feed(read, intakes, contents, as_one)
        for part in read.by_account(ACCOUNTS_AT_ONCE):
            self._check(part, feed)
            self._silent(part, feed)
            self._sum_up(part, feed)
        self._check(read, feed)
        self._brought_later(feed, totals)

    @property
    def any_series(self) -> bool:
        """Whether running numbers changed, which are to be kept with the certificate."""
        return self._series_stored or bool(self._series_now)

    def series(self) -> Iterator[Mapping[str, bytes]]:
        """The running numbers that changed, some scopes at a time."""
        if not self._series_stored:
            yield self._series_now
            return
        self._store_series()
        rows = self.partial_sums.stored(CHECKED_SERIES)
        while some := list(islice(rows, ACCOUNTS_AT_ONCE)):
            yield {checked.scope: checked.body for checked in (_checked.decode(body) for _, body in some)}

    def _store_series(self) -> None:
        """Stores the running numbers that changed and forgets them. Which account they are of does not matter."""
        rows = [
            (contradiction_id(self.source, SERIES, scope), _encode(_CheckedSeries(scope, body)))
            for scope, body in self._series_now.items()
        ]
        self.partial_sums.store(CHECKED_SERIES, rows)
        self._series_now.clear()
        self._series_stored = True

    def _check(self, read: FeedRead, feed: "_Feed") -> None:
        """Checks what was read of some accounts, or what was read and is of none."""
        self._read_so_far.clear()
        self._numbers(read)
        beside = [Stated(control, "stated beside the feed") for control in read.beside]
        for part, some in [
            (feed.every(read), beside),
            *(
                (
                    part,
                    [
                        Stated(control, f"line {line} of intake {feed.intakes[at]}")
                        for at in files
                        for line, control in read.files[at].controls
                    ],
                )
                for part, files in feed.of_files(read)
            ),
        ]:
            for statement in self._controls(part, some):
                self._lacking.pop(statement, None)

    def _silent(self, part: FeedRead, feed: "_Feed") -> None:
        """Looks for an account of a part in which a posting could be missing unseen."""
        for _, files in feed.of_files(part):
            controls = [*part.beside, *(control for at in files for _, control in part.files[at].controls)]
            for at in files:
                if not self.unchecked:
                    self._unchecked(part.files[at], [*controls, *feed.controls(at)], feed.read.files[at])

    def _sum_up(self, part: FeedRead, feed: "_Feed") -> None:
        """Adds up what the checks of whole files need of the accounts of a part."""
        places: dict[AccountCurrency, list[_Held]] = {}
        for at, reads in [(None, [*part.files.values()]), *((at, [read]) for at, read in part.files.items())]:
            for currency, held in feed.balances(at).items():
                for name in {name for read in reads for name, of in read.accounts if of == currency}:
                    places.setdefault(AccountCurrency(UUID(name), currency), []).append(held)
        if places:
            totals = self.archive.totals.of([account_currency.account for account_currency in places])
            for account_currency, every in places.items():
                for held in every:
                    held.add(account_currency, totals.get(account_currency))
        wanted = {
            (str(each.account), each.currency)
            for some in self._lacking.values()
            for each in some
            if each.account
        }
        for read in part.files.values() if wanted else ():
            for key in read.accounts.keys() & wanted:
                held_read = self._lacking_read.get(key, Counted())
                self._lacking_read[key] = summed([held_read, read.accounts[key]])

    def faults(self, problems: Sequence[Problem], intakes: Sequence[UUID]) -> None:
        """Keeps the differences between the ledger and the counts, which are faults of this system."""
        found = [
            Contradiction(
                contradiction_id(self.source, LEDGER, p.code, p.account_id, p.currency, *intakes),
                LEDGER,
                "",
                p.code,
                p.account_id,
                p.currency,
                p.expected,
                p.found,
                p.detail,
            )
            for p in problems
        ]
        if found:
            self.archive.contradictions.note(self.source, Contradictions(found))

    # control totals

    def _controls(self, part: "_Bytes", stated: Sequence[Stated]) -> Iterator[str]:
        """Compares controls with what was read under them; yields the statements that were looked at."""
        reads = part.reads
        of_file = summed(counted for read in reads for counted in read.whole()) if stated else Counted()
        for at in range(0, len(stated), CONTROLS_AT_ONCE):
            some = stated[at : at + CONTROLS_AT_ONCE]
            found: dict[UUID, Contradiction] = {}
            days: dict[str, list[Counted]] = {}
            for each in some:
                counted = read_under(reads, each.control) if each.control.account else of_file
                days.setdefault(self._statement(each.control), []).append(counted)
                for difference in self._differences(part, each.control):
                    one = self._contradiction(each, difference, counted, part)
                    found[one.id] = one
            standing = self.archive.contradictions.standing_among(self.source, CONTROL, sorted(days))
            gone = [
                identity
                for identity, scope in standing.items()
                if identity not in found
                and any(_is_of(scope, c, part.same) for c in days[scope.partition("|")[0]])
            ]
            if found or gone:
                self.archive.contradictions.note(self.source, Contradictions(list(found.values()), gone))
            yield from days

    def _differences(self, part: "_Bytes", control: ControlRecord) -> Iterator[_Found]:
        reads = part.reads
        for each in differences(reads, [(0, 0, control)]):
            yield _Found(each.figure, each.stated, each.found)
        if control.opening_minor is not None or control.closing_minor is not None:
            yield from self._balances(part, control)
        if control.first_number is not None or control.last_number is not None:
            for numbers in numbers_differ(reads, control, self._held(reads, control)):
                yield _Found(numbers.figure, numbers.stated, numbers.found)

    def _held(self, reads: Sequence[FileRead], control: ControlRecord) -> dict[Scope, NumberSeries]:
        """The series that a control record speaks of, with what was read now."""
        return {scope: _series.decode(self._read_so_far[scope]) for scope in scopes_of(reads, control)}

    def _balances(self, part: "_Bytes", control: ControlRecord) -> Iterator[_Found]:
        """Opening and closing against the ledger, at the end of the last day that the file has of these
        accounts."""
        counted, currency = read_under(part.reads, control), control.currency or ""
        held = part.held.get(currency, _Held())
        if control.account is not None:
            account_currency = AccountCurrency(UUID(control.account), currency)
            held = _Held()
            held.add(
                account_currency, self.archive.totals.of([account_currency.account]).get(account_currency)
            )
        closings = {held.balance_minor}
        if held.last_on and counted.last_on and held.last_on > counted.last_on:
            if held.account_currencies > 1 or held.first is None:
                return
            closings = self._closings(held.first, counted)
        net = counted.credits_minor - counted.debits_minor
        opening, closing = control.opening_minor, control.closing_minor
        likely = max(closings, key=lambda balance: (balance == closing, balance - net == opening, balance))
        fresh = held.postings <= counted.postings
        if opening is not None and opening + net not in closings:
            yield _Found("opening_minor", opening, likely - net, OPENING_MISSING if fresh else TOTAL_DIFFERS)
            if closing is not None and closing - opening == net:
                return
        if closing is not None and closing not in closings:
            yield _Found("closing_minor", closing, likely)

    def _closings(self, account_currency: AccountCurrency, counted: Counted) -> set[int]:
        """Balances with which the last day that was read may have closed, when later days are in the ledger
        already.

        At the end of that day, or at any time while that day was the last that was stored: a file of the
        morning that comes again after the one of the afternoon closes as it did.
        """
        balance, closings = 0, set[int]()
        for row in self.ledger.movements({account_currency.account: 0}):
            if (
                row.currency == account_currency.currency
                and counted.last_on
                and row.booked_on <= counted.last_on
            ):
                balance += row.amount_minor
                if row.booked_on == counted.last_on:
                    closings.add(balance)
        return closings | {balance}

    def _statement(self, control: ControlRecord) -> str:
        """What a control record says, with the account's id for its number: said again, it is the same statement."""
        return blake2b(_encode(msgspec.structs.replace(control, source=None)), digest_size=16).hexdigest()

    def _contradiction(
        self, stated: Stated, difference: _Found, counted: Counted, part: "_Bytes"
    ) -> Contradiction:
        control, statement = stated.control, self._statement(stated.control)
        account = UUID(control.account) if control.account else None
        of_branch = f" of branch {shown(control.branch)}" if control.branch else ""
        days = f"{counted.first_on}|{counted.last_on}" if counted.first_on else f"{_BYTES}|{part.same}"
        return Contradiction(
            contradiction_id(self.source, CONTROL, statement, difference.figure, difference.found, days),
            CONTROL,
            f"{statement}|{difference.figure}|{days}",
            difference.code,
            account,
            control.currency,
            difference.expected,
            difference.found,
            f"{difference.figure}{of_branch}, {stated.place}",
        )

    def _brought_later(self, feed: "_Feed", totals: ControlTotals) -> None:
        """A run that brings exactly what an earlier feed stated and lacked, of its days or bytes, resolves
        it."""
        lacking: dict[tuple[str, ...], dict[str, Contradiction]] = {}
        for each in (each for some in self._lacking.values() for each in some):
            statement, figure, *days = each.scope.split("|")
            lacking.setdefault((statement, *days), {})[figure] = each
        if not lacking:
            return
        sums = totals.posted_by_currency()
        accounts = {each.account for of in lacking.values() for each in of.values() if each.account}
        run_totals = totals.run_totals_of(list(accounts))
        gone: list[UUID] = []
        for figures in lacking.values():
            one = next(iter(figures.values()))
            if one.currency is None or not figures.keys() & {
                "credits_minor",
                "debits_minor",
                "closing_minor",
            }:
                continue
            run_total = run_totals.get(AccountCurrency(one.account, one.currency)) if one.account else None
            flow = (
                run_total.movement if run_total else Flow() if one.account else sums.get(one.currency, Flow())
            )
            brought = {
                "records": flow.postings,
                "credits_minor": flow.credits_minor,
                "debits_minor": flow.debits_minor,
                "closing_minor": flow.credits_minor - flow.debits_minor,
            }
            if not self._within(feed, one):
                continue
            if all(c.expected - c.found == brought.get(figure) for figure, c in figures.items()):
                gone += [c.id for c in figures.values()]
        if gone:
            self.archive.contradictions.note(self.source, Contradictions((), gone))

    def _within(self, feed: "_Feed", lacking: Contradiction) -> bool:
        """Whether what was read is all of the days, or of the bytes, that a contradiction was found in."""
        _, _, *days = lacking.scope.split("|")
        if len(days) < 2 or days[0] == _BYTES:
            return days[1:] == [feed.same]
        if lacking.account is None:
            counted = summed(of for read in feed.read.files.values() for of in read.whole())
        else:
            counted = self._lacking_read.get((str(lacking.account), lacking.currency or ""), Counted())
        return (
            counted.first_on is not None
            and counted.last_on is not None
            and date.fromisoformat(days[0]) <= counted.first_on
            and counted.last_on <= date.fromisoformat(days[1])
        )

    def _unchecked(self, file: FileRead, controls: Sequence[ControlRecord], of_file: FileRead) -> None:
        """Whether an account of this file is neither covered by a control total nor printing running
        balances.

        A balance that the ledger has printed on the last day of the account in this file, or later, speaks
        for it too.
        """
        left = iter(sorted(unchecked(file, controls, of_file)))
        while not self.unchecked and (some := list(islice(left, ACCOUNTS_AT_ONCE))):
            silent = {
                AccountCurrency(UUID(name), currency): last_on
                for name, currency in some
                if not (counted := file.accounts[name, currency]).printed and (last_on := counted.last_on)
            }
            held = self.archive.totals.days(silent) if silent else {}
            self.unchecked = any(
                not any(
                    day >= last_on and is_printed(body)
                    for day, body in held.get(account_currency, {}).items()
                )
                for account_currency, last_on in silent.items()
            )

    # running numbers

    def _numbers(self, read: FeedRead) -> None:
        every = read.series()
        scopes = list(every)
        for at in range(0, len(scopes), ACCOUNTS_AT_ONCE):
            self._series({scope: every[scope] for scope in scopes[at : at + ACCOUNTS_AT_ONCE]}, read)
        if len(self._series_now) >= self.kept_max:
            self._store_series()

    def _scope(self, scope: Scope) -> str:
        on = "" if scope.day is None else f"{scope.day}:"
        if scope.account is not None:
            return f"account:{on}{scope.account}"
        # Counted before it is refused: a database cannot store the character.
        branch = (scope.branch or "").replace("\0", "\ufffd")
        return f"branch:{on}{branch}"

    def _series(self, some: Mapping[Scope, NumberSeries], read: FeedRead) -> None:
        names = {scope: self._scope(scope) for scope in some}
        held = self.archive.series.of(self.source, list(names.values()))
        found: dict[UUID, Contradiction] = {}
        repeats: dict[UUID, Contradiction] = {}
        for scope, numbers in some.items():
            name = names[scope]
            series = _series.decode(held[name]) if name in held else NumberSeries([])
            booked, twice = read.booked.get(scope), read.repeated.get(scope)
            again = [
                *(shared(booked.booked, series.booked) if booked else ()),
                *(twice.intervals if twice else ()),
            ]
            series.include(numbers)
            self._read_so_far[scope] = body = _pack(series)
            if body != held.get(name):
                self._series_now[name] = body
            for each, kind, code, intervals, how in (
                (found, SERIES, NUMBER_GAP, series.gaps(), "missing"),
                (repeats, REPEATED, NUMBER_REPEATED, again, "used by another posting before"),
            ):
                named = islice(self._told(scope, name, kind, code, intervals, how), GAPS_NAMED_MAX)
                each |= {one.id: one for one in named}
        standing = self.archive.contradictions.standing(self.source, SERIES, scopes=list(names.values()))
        gone = [identity for identity in standing if identity not in found]
        if found or repeats or gone:
            self.archive.contradictions.note(
                self.source, Contradictions([*found.values(), *repeats.values()], gone)
            )

    def _told(
        self,
        scope: Scope,
        name: str,
        kind: str,
        code: str,
        intervals: Iterable[tuple[int, int]],
        how: str,
    ) -> Iterator[Contradiction]:
        of_branch = f"branch {shown(scope.branch or '')}: " if scope.account is None else ""
        on = f" on {scope.day}" if scope.day else ""
        account = UUID(scope.account) if scope.account is not None else None
        for first, last in intervals:
            identity = contradiction_id(self.source, kind, name, first, last)
            numbers = f"number {first}" if first == last else f"numbers {first} to {last}"
            detail = f"{of_branch}{numbers}{on} {how}"
            yield Contradiction(identity, kind, name, code, account, None, first, last, detail)


_BYTES: Final = "bytes"
"""Stands in a scope for days, where no row could be read that has one."""


@dataclass(slots=True)
class _Held:
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


class _Bytes(NamedTuple):
    """Files that were read, a digest that is the same for the same bytes, and what the ledger holds by currency.

    `held` is of all accounts of the files; of some accounts it is not asked for.
    """

    reads: Sequence[FileRead]
    same: str
    held: Mapping[str, "_Held"]


class _Feed:
    """A feed that is checked. `read` is all of it that is of no account."""

    def __init__(
        self, read: FeedRead, intakes: Sequence[UUID], contents: Sequence[UUID], as_one: bool
    ) -> None:
        self.read = read
        self.intakes = intakes
        self.same = _same_bytes(contents)
        self._contents = contents
        self._as_one = as_one
        self._balances: dict[int | None, dict[str, _Held]] = {}
        self._of_all: list[ControlRecord] | None = None

    def every(self, read: FeedRead) -> _Bytes:
        """All files, with what `read` has of them."""
        return _Bytes(list(read.files.values()), self.same, self.balances(None))

    def of_files(self, read: FeedRead) -> Iterator[tuple[_Bytes, Sequence[int]]]:
        """The files of which `read` has anything, one by one or as one."""
        if self._as_one:
            yield self.every(read), list(read.files)
            return
        for at, file in read.files.items():
            yield _Bytes([file], _same_bytes([self._contents[at]]), self.balances(at)), [at]

    def controls(self, at: int) -> list[ControlRecord]:
        """The control records that speak of a file and of no account."""
        if not self._as_one:
            return [*self.read.beside, *(control for _, control in self.read.files[at].controls)]
        if self._of_all is None:
            of_files = (control for read in self.read.files.values() for _, control in read.controls)
            self._of_all = [*self.read.beside, *of_files]
        return self._of_all

    def balances(self, at: int | None) -> dict[str, _Held]:
        """What the ledger holds of the accounts of a file, or of all files, where a control record states a balance."""
        held = self._balances.get(at)
        if held is None:
            if at is None:
                stating = [*self.read.beside, *(self.controls(0) if self._as_one and self.read.files else ())]
            else:
                stating = [control for _, control in self.read.files[at].controls]
            held = self._balances[at] = {
                control.currency or "": _Held()
                for control in stating
                if (control.opening_minor, control.closing_minor) != (None, None) and control.account is None
            }
        return held


def _same_bytes(contents: Iterable[UUID]) -> str:
    parts = sorted({content.bytes for content in contents})
    return blake2b(b"".join(parts), digest_size=16).hexdigest()


def _is_of(scope: str, counted: Counted, same: str) -> bool:
    """Whether what was read has all days of what a contradiction was found in: another day may state equal
    figures.

    What was found in bytes of which no row was read is of these bytes alone: nothing says which day they
    are of.
    """
    _, _, *days = scope.split("|")
    if len(days) < 2 or days[0] == _BYTES:
        return days[1:] == [same]
    first, last = date.fromisoformat(days[0]), date.fromisoformat(days[1])
    return (
        counted.first_on is not None
        and counted.last_on is not None
        and counted.first_on <= first
        and last <= counted.last_on
    )
