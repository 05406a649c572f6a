"""Compares control totals with what was read, and keeps contradictions until they are resolved or acknowledged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import blake2b
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from sync_ingest.archive.archive import Archive
from sync_ingest.archive.contradictions import Contradiction, Contradictions
from sync_ingest.checking.feed import BYTES, CheckedFeed, FilesRead, Held, is_of
from sync_ingest.checking.running_numbers import RunningNumbers
from sync_ingest.domain.controls.differences import differences, numbers_differ
from sync_ingest.domain.controls.feed_read import FeedRead
from sync_ingest.domain.controls.file_read import Counted, read_under, summed
from sync_ingest.domain.records import ControlRecord, shown
from sync_ingest.domain.totals import AccountCurrency, ControlTotals, Flow
from sync_ingest.folding import OPENING_MISSING, Movements, contradiction_id

CONTROL: Final = "control-total"
TOTAL_DIFFERS: Final = "control-total-differs"
CONTROLS_AT_ONCE: Final = 1_000

_encode: Final = msgspec.json.Encoder(order="deterministic").encode


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
class StatedTotals:
    """The control totals of one booking of a source."""

    archive: Archive
    ledger: Movements
    source: str
    numbers: RunningNumbers
    _lacking: dict[str, list[Contradiction]] = field(default_factory=dict)
    """Contradictions of control totals that stand, by their statement, until it is looked at."""
    _lacking_read: dict[tuple[str, str], Counted] = field(default_factory=dict)
    """What was read of their accounts."""

    def begin(self) -> None:
        """Remembers what stands, to find what resolves it."""
        for each in self.archive.contradictions.standing_of(self.source, CONTROL, CONTROLS_AT_ONCE):
            self._lacking.setdefault(each.scope.partition("|")[0], []).append(each)

    def check(self, part: FilesRead, stated: Sequence[Stated]) -> None:
        """Compares controls with what was read under them."""
        for statement in self._controls(part, stated):
            self._lacking.pop(statement, None)

    def note_read(self, part: FeedRead) -> None:
        """Adds up what was read of the accounts of which contradictions stand."""
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

    def _controls(self, part: FilesRead, stated: Sequence[Stated]) -> Iterator[str]:
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
                and any(is_of(scope, c, part.same) for c in days[scope.partition("|")[0]])
            ]
            if found or gone:
                self.archive.contradictions.note(self.source, Contradictions(list(found.values()), gone))
            yield from days

    def _differences(self, part: FilesRead, control: ControlRecord) -> Iterator[_Found]:
        reads = part.reads
        for each in differences(reads, [(0, 0, control)]):
            yield _Found(each.figure, each.stated, each.found)
        if control.opening_minor is not None or control.closing_minor is not None:
            yield from self._balances(part, control)
        if control.first_number is not None or control.last_number is not None:
            for numbers in numbers_differ(reads, control, self.numbers.read_so_far(reads, control)):
                yield _Found(numbers.figure, numbers.stated, numbers.found)

    def _balances(self, part: FilesRead, control: ControlRecord) -> Iterator[_Found]:
        """Opening and closing against the ledger, at the end of the last day that the file has of these
        accounts."""
        counted, currency = read_under(part.reads, control), control.currency or ""
        held = part.held.get(currency, Held())
        if control.account is not None:
            account_currency = AccountCurrency(UUID(control.account), currency)
            held = Held()
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
        self, stated: Stated, difference: _Found, counted: Counted, part: FilesRead
    ) -> Contradiction:
        control, statement = stated.control, self._statement(stated.control)
        account = UUID(control.account) if control.account else None
        of_branch = f" of branch {shown(control.branch)}" if control.branch else ""
        days = f"{counted.first_on}|{counted.last_on}" if counted.first_on else f"{BYTES}|{part.same}"
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

    def brought_later(self, feed: CheckedFeed, totals: ControlTotals) -> None:
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

    def _within(self, feed: CheckedFeed, lacking: Contradiction) -> bool:
        """Whether what was read is all of the days, or of the bytes, that a contradiction was found in."""
        _, _, *days = lacking.scope.split("|")
        if len(days) < 2 or days[0] == BYTES:
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
