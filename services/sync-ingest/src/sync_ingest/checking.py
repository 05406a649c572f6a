"""Checks the control totals of a feed, and keeps contradictions until they are resolved or acknowledged."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from contracts.identity import ExternalIds

from sync_ingest.archive import Archive, Contradiction, Contradictions
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
from sync_ingest.domain.records import ControlRecord
from sync_ingest.domain.totals import AccountTotal, ControlTotals, Flow, Purse
from sync_ingest.folding import OPENING_MISSING, Movements, contradiction_id, is_printed

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


@dataclass(slots=True)
class Checking:
    """Checks one booking of a source; the caller holds the source's lock, and everything is folded."""

    archive: Archive
    ledger: Movements
    ids: ExternalIds
    source: str
    unchecked: bool = False
    series: dict[str, bytes] = field(default_factory=dict)
    """The running numbers that changed, to be kept with the certificate."""
    _read_so_far: dict[Scope, bytes] = field(default_factory=dict)

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
        files = dict(read.files)
        every = _Bytes(list(files.values()), _same_bytes(contents))
        stated: list[tuple[_Bytes, list[Stated]]] = [
            (every, [Stated(control, "stated beside the feed") for control in beside])
        ]
        of_files = [
            (
                _Bytes([file], _same_bytes([contents[at]])),
                [Stated(control, f"line {line} of intake {intakes[at]}") for line, control in file.controls],
            )
            for at, file in files.items()
        ]
        if as_one:
            of_files = [(every, [each for _, some in of_files for each in some])]
        stated += of_files
        self._numbers(read, beside)
        agreed = {scope for part, some in stated for scope in self._controls(part, some)}
        self._brought_later(every, totals, agreed)
        for part, some in of_files:
            controls = [*beside, *(each.control for each in some)]
            for file in part.reads:
                self._unchecked(file, controls)

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
            self.archive.contradict(self.source, Contradictions(found))

    # control totals

    def _controls(self, part: "_Bytes", stated: Sequence[Stated]) -> Iterator[str]:
        """Compares controls with what was read under them; yields the statements that were looked at."""
        reads = part.reads
        of_file = (
            summed(counted for read in reads for counted in read.accounts.values()) if stated else Counted()
        )
        for at in range(0, len(stated), CONTROLS_AT_ONCE):
            some = stated[at : at + CONTROLS_AT_ONCE]
            found: dict[UUID, Contradiction] = {}
            days: dict[str, list[Counted]] = {}
            for each in some:
                counted = read_under(reads, each.control) if each.control.account else of_file
                days.setdefault(self._statement(each.control), []).append(counted)
                for difference in self._differences(reads, each.control):
                    one = self._contradiction(each, difference, counted, part)
                    found[one.id] = one
            standing = self.archive.standing_among(self.source, CONTROL, sorted(days))
            gone = [
                identity
                for identity, scope in standing.items()
                if identity not in found
                and any(_is_of(scope, c, part.same) for c in days[scope.partition("|")[0]])
            ]
            if found or gone:
                self.archive.contradict(self.source, Contradictions(list(found.values()), gone))
            yield from days

    def _differences(self, reads: Sequence[FileRead], control: ControlRecord) -> Iterator[_Found]:
        for each in differences(reads, [(0, 0, control)]):
            yield _Found(each.figure, each.stated, each.found)
        if control.opening_minor is not None or control.closing_minor is not None:
            yield from self._balances(reads, control)
        if control.first_number is not None or control.last_number is not None:
            for numbers in numbers_differ(reads, control, self._held(reads, control)):
                yield _Found(numbers.figure, numbers.stated, numbers.found)

    def _held(self, reads: Sequence[FileRead], control: ControlRecord) -> dict[Scope, NumberSeries]:
        """The series that a control record speaks of, with what was read now."""
        return {scope: _series.decode(self._read_so_far[scope]) for scope in scopes_of(reads, control)}

    def _balances(self, reads: Sequence[FileRead], control: ControlRecord) -> Iterator[_Found]:
        """Opening and closing against the ledger, at the end of the last day that the file has of these
        accounts."""
        counted, currency = read_under(reads, control), control.currency or ""
        names = (
            {control.account}
            if control.account
            else {name for file in reads for name, of in file.accounts if of == currency}
        )
        purses = [Purse(self.ids.account(self.source, name), currency) for name in names if name]
        held: dict[Purse, AccountTotal] = {}
        for at in range(0, len(purses), ACCOUNTS_AT_ONCE):
            held |= self.archive.totals([p.account for p in purses[at : at + ACCOUNTS_AT_ONCE]])
        totals = [held[purse] for purse in purses if purse in held]
        closings = {sum(total.balance_minor for total in totals)}
        if any(t.last_on and counted.last_on and t.last_on > counted.last_on for t in totals):
            if len(purses) > 1:
                return
            closings = self._closings(purses[0], counted)
        net = counted.credits_minor - counted.debits_minor
        opening, closing = control.opening_minor, control.closing_minor
        likely = max(closings, key=lambda balance: (balance == closing, balance - net == opening, balance))
        fresh = sum(total.postings for total in totals) <= counted.postings
        if opening is not None and opening + net not in closings:
            yield _Found("opening_minor", opening, likely - net, OPENING_MISSING if fresh else TOTAL_DIFFERS)
            if closing is not None and closing - opening == net:
                return
        if closing is not None and closing not in closings:
            yield _Found("closing_minor", closing, likely)

    def _closings(self, purse: Purse, counted: Counted) -> set[int]:
        """Balances with which the last day that was read may have closed, when later days are in the ledger
        already.

        At the end of that day, or at any time while that day was the last that was stored: a file of the
        morning that comes again after the one of the afternoon closes as it did.
        """
        balance, closings = 0, set[int]()
        for row in self.ledger.movements({purse.account: 0}):
            if row.currency == purse.currency and counted.last_on and row.booked_on <= counted.last_on:
                balance += row.amount_minor
                if row.booked_on == counted.last_on:
                    closings.add(balance)
        return closings | {balance}

    def _statement(self, control: ControlRecord) -> str:
        """What a control record says, without the account's number: said again, it is the same statement."""
        account = self.ids.account(self.source, control.account) if control.account else None
        return blake2b(
            _encode(msgspec.structs.replace(control, account=str(account) if account else None, source=None)),
            digest_size=16,
        ).hexdigest()

    def _contradiction(
        self, stated: Stated, difference: _Found, counted: Counted, part: "_Bytes"
    ) -> Contradiction:
        control, statement = stated.control, self._statement(stated.control)
        account = self.ids.account(self.source, control.account) if control.account else None
        of_branch = f" of branch {control.branch}" if control.branch else ""
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

    def _brought_later(self, part: "_Bytes", totals: ControlTotals, looked_at: set[str]) -> None:
        """A run that brings exactly what an earlier feed stated and lacked, of its days or bytes, resolves
        it."""
        lacking: dict[tuple[str, ...], dict[str, Contradiction]] = {}
        for each in self.archive.standing_of(self.source, CONTROL, CONTROLS_AT_ONCE):
            statement, figure, *days = each.scope.split("|")
            if statement not in looked_at:
                lacking.setdefault((statement, *days), {})[figure] = each
        if not lacking:
            return
        sums = totals.posted_by_currency()
        gone: list[UUID] = []
        for figures in lacking.values():
            one = next(iter(figures.values()))
            if one.currency is None or not figures.keys() & {
                "credits_minor",
                "debits_minor",
                "closing_minor",
            }:
                continue
            tally = totals.tallies.get(Purse(one.account, one.currency)) if one.account else None
            flow = tally.movement if tally else Flow() if one.account else sums.get(one.currency, Flow())
            brought = {
                "records": flow.postings,
                "credits_minor": flow.credits_minor,
                "debits_minor": flow.debits_minor,
                "closing_minor": flow.credits_minor - flow.debits_minor,
            }
            if not self._within(part, one):
                continue
            if all(c.expected - c.found == brought.get(figure) for figure, c in figures.items()):
                gone += [c.id for c in figures.values()]
        if gone:
            self.archive.contradict(self.source, Contradictions((), gone))

    def _within(self, part: "_Bytes", lacking: Contradiction) -> bool:
        """Whether what was read is all of the days, or of the bytes, that a contradiction was found in."""
        _, _, *days = lacking.scope.split("|")
        if len(days) < 2 or days[0] == _BYTES:
            return days[1:] == [part.same]
        counted = summed(
            of
            for read in part.reads
            for (name, currency), of in read.accounts.items()
            if lacking.account is None or (currency == lacking.currency and self._is(name, lacking.account))
        )
        return (
            counted.first_on is not None
            and counted.last_on is not None
            and date.fromisoformat(days[0]) <= counted.first_on
            and counted.last_on <= date.fromisoformat(days[1])
        )

    def _is(self, name: str, account: UUID) -> bool:
        return self.ids.account(self.source, name) == account

    def _unchecked(self, file: FileRead, controls: Sequence[ControlRecord]) -> None:
        """Whether an account of this file is neither covered by a control total nor printing running
        balances.

        A balance that the ledger has printed on the last day of the account in this file, or later, speaks
        for it too.
        """
        left = iter(sorted(unchecked(file, controls)))
        while not self.unchecked and (some := list(islice(left, ACCOUNTS_AT_ONCE))):
            silent = {
                Purse(self.ids.account(self.source, name), currency): last_on
                for name, currency in some
                if not (counted := file.accounts[name, currency]).printed and (last_on := counted.last_on)
            }
            held = self.archive.days(silent) if silent else {}
            self.unchecked = any(
                not any(day >= last_on and is_printed(body) for day, body in held.get(purse, {}).items())
                for purse, last_on in silent.items()
            )

    # running numbers

    def _numbers(self, read: FeedRead, beside: Sequence[ControlRecord]) -> None:
        every = read.series(beside)
        scopes = list(every)
        for at in range(0, len(scopes), ACCOUNTS_AT_ONCE):
            self._series({scope: every[scope] for scope in scopes[at : at + ACCOUNTS_AT_ONCE]}, read)

    def _scope(self, scope: Scope) -> str:
        on = "" if scope.day is None else f"{scope.day}:"
        if scope.account is not None:
            return f"account:{on}{self.ids.account(self.source, scope.account)}"
        return f"branch:{on}{scope.branch}"

    def _series(self, some: Mapping[Scope, NumberSeries], read: FeedRead) -> None:
        names = {scope: self._scope(scope) for scope in some}
        held = self.archive.series(self.source, list(names.values()))
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
                self.series[name] = body
            for each, kind, code, intervals, how in (
                (found, SERIES, NUMBER_GAP, series.gaps(), "missing"),
                (repeats, REPEATED, NUMBER_REPEATED, again, "used by another posting before"),
            ):
                named = islice(self._told(scope, name, kind, code, intervals, how), GAPS_NAMED_MAX)
                each |= {one.id: one for one in named}
        standing = self.archive.standing(self.source, SERIES, scopes=list(names.values()))
        gone = [identity for identity in standing if identity not in found]
        if found or repeats or gone:
            self.archive.contradict(self.source, Contradictions([*found.values(), *repeats.values()], gone))

    def _told(
        self,
        scope: Scope,
        name: str,
        kind: str,
        code: str,
        intervals: Iterable[tuple[int, int]],
        how: str,
    ) -> Iterator[Contradiction]:
        of_branch = f"branch {scope.branch}: " if scope.account is None else ""
        on = f" on {scope.day}" if scope.day else ""
        account = self.ids.account(self.source, scope.account) if scope.account is not None else None
        for first, last in intervals:
            identity = contradiction_id(self.source, kind, name, first, last)
            numbers = f"number {first}" if first == last else f"numbers {first} to {last}"
            detail = f"{of_branch}{numbers}{on} {how}"
            yield Contradiction(identity, kind, name, code, account, None, first, last, detail)


_BYTES: Final = "bytes"
"""Stands in a scope for days, where no row could be read that has one."""


class _Bytes(NamedTuple):
    """Files that were read, and a digest that is the same for the same bytes."""

    reads: Sequence[FileRead]
    same: str


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
