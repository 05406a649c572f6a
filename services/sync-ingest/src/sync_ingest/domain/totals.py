"""Totals: the counts and sums of a run, and of the ledger for an account in one currency."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from operator import itemgetter
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX, PartialSums

COUNTED: Final = "counted"
"""The kind of partial sums that `ControlTotals` stores."""


class Purse(NamedTuple):
    """One currency of one account: money is never summed across purses without saying so."""

    account: UUID
    currency: str


class Flow(msgspec.Struct, gc=False, array_like=True):
    """Counted movements of a purse, in minor units; debits are positive here."""

    postings: int = 0
    credits_minor: int = 0
    debits_minor: int = 0

    def count(self, amount_minor: int) -> None:
        """Adds one movement by its sign."""
        self.postings += 1
        if amount_minor >= 0:
            self.credits_minor += amount_minor
        else:
            self.debits_minor -= amount_minor

    def include(self, other: "Flow") -> None:
        """Adds the counts of another."""
        self.postings += other.postings
        self.credits_minor += other.credits_minor
        self.debits_minor += other.debits_minor


class Tally(msgspec.Struct, gc=False):
    """The tally of one purse: the postings of this run, the other postings that the feed states, and the
    ledger's balance.

    `before` are distinct postings of the feed that were there already, and None where there are none: a
    run keeps many tallies, so what most of them lack takes no room.
    `balance_minor` and `turnover_minor` count what is planned too, so that a limit holds with batches
    under way.
    """

    purse: Purse
    movement: Flow = msgspec.field(default_factory=Flow)
    before: Flow | None = None
    balance_minor: int = 0
    turnover_minor: int = 0

    @property
    def stated_postings(self) -> int:
        """How many distinct postings the feed states."""
        return self.movement.postings + (self.before.postings if self.before else 0)

    def count_before(self, amount_minor: int) -> None:
        """A posting that the feed states and that was there already."""
        if self.before is None:
            self.before = Flow()
        self.before.count(amount_minor)


class _PartialTally(msgspec.Struct, gc=False, array_like=True):
    """A tally as it is stored."""

    currency: str
    movement: Flow
    before: Flow | None


_pack: Final = msgspec.json.Encoder().encode  # whose integers have no limit
_tally: Final = msgspec.json.Decoder(_PartialTally)


class AccountTotal(msgspec.Struct):
    """The ledger's total of one purse: folded from its stream up to `version`, a posting at a time.

    `certified_*` is the part that certificates cover. Balances that postings print are judged day by day
    (`domain.balances`); here are the sums over all days.
    """

    version: int = 0
    postings: int = 0
    credits_minor: int = 0
    debits_minor: int = 0
    certified_postings: int = 0
    certified_credits_minor: int = 0
    certified_debits_minor: int = 0
    last_on: date | None = None
    printed: int = 0
    within: int = 0
    beyond: int = 0
    uncompared: int = 0
    drift_minor: int = 0
    off_minor: int = 0
    largest_minor: int = 0

    @property
    def balance_minor(self) -> int:
        """Credits less debits."""
        return self.credits_minor - self.debits_minor

    @property
    def turnover_minor(self) -> int:
        """The sum of absolute amounts."""
        return self.credits_minor + self.debits_minor

    @property
    def movement(self) -> Flow:
        """The movement that no certificate covers yet."""
        return Flow(
            self.postings - self.certified_postings,
            self.credits_minor - self.certified_credits_minor,
            self.debits_minor - self.certified_debits_minor,
        )

    def add(self, amount_minor: int, booked_on: date, *, certified: bool) -> None:
        """Folds one stored posting."""
        self.postings += 1
        self.certified_postings += certified
        if amount_minor >= 0:
            self.credits_minor += amount_minor
            self.certified_credits_minor += amount_minor * certified
        else:
            self.debits_minor -= amount_minor
            self.certified_debits_minor -= amount_minor * certified
        if self.last_on is None or booked_on > self.last_on:
            self.last_on = booked_on


@dataclass(slots=True)
class ControlTotals:
    """Of one run: every record read is posted, a duplicate, or quarantined.

    `movements` holds what this run posted; what is stated is every distinct posting the feed holds, posted
    now or before, so that reading a feed again states the same sums.
    """

    posted: int = 0
    duplicates: int = 0
    quarantined: int = 0
    records: int = 0
    master_records: int = 0
    late: int = 0
    back_dated: int = 0
    booked_through: date | None = None
    business_date: date | None = None
    """The bank's date when the run began: a later booking date does not move `booked_through`."""
    coverage_unstated: int = 0
    """Records whose meaning hangs on whether the source sends whole days or parts, which nobody stated."""
    differing: int = 0
    """Duplicates that describe their posting differently than it was booked."""
    differing_fields: Counter[str] = field(default_factory=Counter)
    tallies: dict[Purse, Tally] = field(default_factory=dict)
    """Those in memory. Without `partial_sums` they are all."""
    partial_sums: PartialSums | None = None
    kept_max: int = ACCOUNTS_KEPT_MAX
    _stored: dict[str, tuple[Flow, Flow]] | None = None
    """What the stored tallies posted and what they state, by currency; None where none is stored."""

    def tally(self, purse: Purse) -> Tally:
        """The tally of a purse, made when it is first asked for."""
        tally = self.tallies.get(purse)
        if tally is None:
            tally = self.tallies[purse] = Tally(purse)
        return tally

    def count_posted(self, amounts: Sequence[tuple[Tally, int]]) -> None:
        """Postings that this run added, each with the tally that its amount in minor units belongs to."""
        self.records += len(amounts)
        self.posted += len(amounts)
        for tally, amount_minor in amounts:
            movement = tally.movement
            movement.postings += 1
            if amount_minor >= 0:
                movement.credits_minor += amount_minor
            else:
                movement.debits_minor -= amount_minor

    def count_days(self, days: Sequence[tuple[date, date | None]], certified_through: date | None) -> None:
        """The booking and value dates of postings.

        Late: booked on a day that a certificate has closed. Back-dated: valued before it was booked.
        """
        if not days:
            return
        if certified_through is not None:
            self.late += sum([booked_on < certified_through for booked_on, _ in days])
        self.back_dated += sum([value_on < booked_on for booked_on, value_on in days if value_on is not None])
        day = max([booked_on for booked_on, _ in days])
        if self.business_date is not None:
            day = min(day, self.business_date)
        if self.booked_through is None or day > self.booked_through:
            self.booked_through = day

    def count_differing(self, fields: Iterable[str]) -> None:
        """A duplicate that differs from its posting in these fields, none of which is money."""
        self.differing += 1
        self.differing_fields.update(fields)

    def count_duplicate(self, tally: Tally, amount_minor: int, *, first_in_feed: bool) -> None:
        """A posting that was there before, or a repetition within the feed."""
        self.records += 1
        self.duplicates += 1
        if first_in_feed:
            tally.count_before(amount_minor)

    def count_released(self) -> None:
        """A record that was quarantined before and has been repaired since: nothing new."""
        self.records += 1
        self.duplicates += 1

    def count_quarantined(self) -> None:
        """A record that could not be posted."""
        self.records += 1
        self.quarantined += 1

    @property
    def read(self) -> int:
        """The number of records that were read, master data included."""
        return self.records + self.master_records

    @property
    def full(self) -> bool:
        """Whether as many tallies are in memory as may be."""
        return len(self.tallies) >= self.kept_max

    def store(self) -> None:
        """Stores the tallies, if there is a place for them, and forgets them. Nobody may count in one of them later."""
        if self.partial_sums is None:
            return
        stored = self._stored = self._stored or {}
        for purse, tally in self.tallies.items():
            posted, stated = stored.setdefault(purse.currency, (Flow(), Flow()))
            _include(tally, posted, stated)
        self.partial_sums.store(
            COUNTED,
            [
                (purse.account, _pack(_PartialTally(purse.currency, tally.movement, tally.before)))
                for purse, tally in self.tallies.items()
                if tally.stated_postings
            ],
        )
        self.tallies.clear()

    def by_account(self, accounts_max: int) -> Iterator[dict[Purse, Tally]]:
        """The tallies of the accounts that the feed moves, in the order of accounts, so many accounts at a time."""
        some: dict[Purse, Tally] = {}
        account, accounts = None, 0
        for of, partial in self._partial_tallies():
            if of != account:
                account, accounts = of, accounts + 1
                if accounts > accounts_max:
                    yield some
                    some, accounts = {}, 1
            _add(some, of, partial)
        if some:
            yield some

    def tallies_of(self, accounts: Sequence[UUID]) -> dict[Purse, Tally]:
        """The tallies of some accounts."""
        found: dict[Purse, Tally] = {}
        if self._stored is None or self.partial_sums is None:
            wanted = set(accounts)
            return {purse: tally for purse, tally in self.tallies.items() if purse.account in wanted}
        self.store()
        for account, body in self.partial_sums.stored_of(COUNTED, accounts):
            _add(found, account, _tally.decode(body))
        return found

    def _partial_tallies(self) -> Iterator[tuple[UUID, _PartialTally]]:
        if self._stored is None or self.partial_sums is None:
            moved = [
                (purse.account, _PartialTally(purse.currency, tally.movement, tally.before))
                for purse, tally in self.tallies.items()
                if tally.stated_postings
            ]
            yield from sorted(moved, key=itemgetter(0))
            return
        self.store()
        for account, body in self.partial_sums.stored(COUNTED):
            yield account, _tally.decode(body)

    @property
    def accounts(self) -> int:
        """How many accounts the feed moves."""
        if self._stored is None or self.partial_sums is None:
            return len({purse.account for purse, tally in self.tallies.items() if tally.stated_postings})
        self.store()
        return self.partial_sums.accounts(COUNTED)

    def posted_by_currency(self) -> dict[str, Flow]:
        """What this run posted, one sum per currency."""
        return {currency: posted for currency, (posted, _) in self._by_currency().items()}

    def stated_by_currency(self) -> dict[str, Flow]:
        """The feed's sums, one per currency."""
        return {currency: stated for currency, (_, stated) in self._by_currency().items()}

    def _by_currency(self) -> dict[str, tuple[Flow, Flow]]:
        sums: dict[str, tuple[Flow, Flow]] = {}
        for currency, stored in (self._stored or {}).items():
            for flow, more in zip(sums.setdefault(currency, (Flow(), Flow())), stored, strict=True):
                flow.include(more)
        for purse, tally in self.tallies.items():
            _include(tally, *sums.setdefault(purse.currency, (Flow(), Flow())))
        return sums


def _include(tally: Tally, posted: Flow, stated: Flow) -> None:
    posted.include(tally.movement)
    stated.include(tally.movement)
    if tally.before is not None:
        stated.include(tally.before)


def _add(tallies: dict[Purse, Tally], account: UUID, partial: _PartialTally) -> None:
    purse = Purse(account, partial.currency)
    tally = tallies.get(purse)
    if tally is None:
        tallies[purse] = Tally(purse, partial.movement, partial.before)
        return
    tally.movement.include(partial.movement)
    if partial.before is not None:
        tally.before = tally.before or Flow()
        tally.before.include(partial.before)
