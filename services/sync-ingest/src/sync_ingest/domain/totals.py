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
from sync_ingest.domain.repeats import FeedPlace

COUNTED: Final = "counted"
"""The kind of partial sums that `ControlTotals` stores."""


class AccountCurrency(NamedTuple):
    """One currency of one account: money is never summed across currencies without saying so."""

    account: UUID
    currency: str


class Flow(msgspec.Struct, gc=False, array_like=True):
    """Counted movements of an account in one currency, in minor units; debits are positive here."""

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


class RunTotal(msgspec.Struct, gc=False):
    """The run total of one account in one currency: the postings of this run, the other postings that the feed states, and the
    ledger's balance.

    `before` are distinct postings of the feed that were there already, and None where there are none: a
    run keeps many run totals, so what most of them lack takes no room.
    `balance_minor` and `turnover_minor` count what is planned too, so that a limit holds with batches
    under way.
    """

    account_currency: AccountCurrency
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


class _PartialRunTotal(msgspec.Struct, gc=False, array_like=True):
    """A run total as it is stored."""

    currency: str
    movement: Flow
    before: Flow | None


_pack: Final = msgspec.json.Encoder().encode  # whose integers have no limit
_run_total: Final = msgspec.json.Decoder(_PartialRunTotal)


class AccountTotal(msgspec.Struct):
    """The ledger's total of one account in one currency: folded from its stream up to `version`, a posting at a time.

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
    repeats_older: int = 0
    """Subjects of master data whose last record is of bytes that were read before and differs from what stands."""
    repeats_older_at: tuple[FeedPlace, ...] = ()
    """The first places of these records."""
    differing: int = 0
    """Duplicates that describe their posting differently than it was booked."""
    differing_fields: Counter[str] = field(default_factory=Counter)
    run_totals: dict[AccountCurrency, RunTotal] = field(default_factory=dict)
    """Those in memory. Without `partial_sums` they are all."""
    partial_sums: PartialSums | None = None
    kept_max: int = ACCOUNTS_KEPT_MAX
    _stored: dict[str, tuple[Flow, Flow]] | None = None
    """What the stored run totals posted and what they state, by currency; None where none is stored."""

    def run_total(self, account_currency: AccountCurrency) -> RunTotal:
        """The run total of an account in one currency, made when it is first asked for."""
        run_total = self.run_totals.get(account_currency)
        if run_total is None:
            run_total = self.run_totals[account_currency] = RunTotal(account_currency)
        return run_total

    def count_posted(self, amounts: Sequence[tuple[RunTotal, int]]) -> None:
        """Postings that this run added, each with the run total that its amount in minor units belongs to."""
        self.records += len(amounts)
        self.posted += len(amounts)
        for run_total, amount_minor in amounts:
            movement = run_total.movement
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

    def count_duplicate(self, run_total: RunTotal, amount_minor: int, *, first_in_feed: bool) -> None:
        """A posting that was there before, or a repetition within the feed."""
        self.records += 1
        self.duplicates += 1
        if first_in_feed:
            run_total.count_before(amount_minor)

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
        """Whether as many run totals are in memory as may be."""
        return len(self.run_totals) >= self.kept_max

    def store(self) -> None:
        """Stores the run totals, if there is a place for them, and forgets them. Nobody may count in one of them later."""
        if self.partial_sums is None:
            return
        stored = self._stored = self._stored or {}
        for account_currency, run_total in self.run_totals.items():
            posted, stated = stored.setdefault(account_currency.currency, (Flow(), Flow()))
            _include(run_total, posted, stated)
        self.partial_sums.store(
            COUNTED,
            [
                (
                    account_currency.account,
                    _pack(_PartialRunTotal(account_currency.currency, run_total.movement, run_total.before)),
                )
                for account_currency, run_total in self.run_totals.items()
                if run_total.stated_postings
            ],
        )
        self.run_totals.clear()

    def by_account(self, accounts_max: int) -> Iterator[dict[AccountCurrency, RunTotal]]:
        """The run totals of the accounts that the feed moves, in the order of accounts, so many accounts at a time."""
        some: dict[AccountCurrency, RunTotal] = {}
        account, accounts = None, 0
        for of, partial in self._partial_run_totals():
            if of != account:
                account, accounts = of, accounts + 1
                if accounts > accounts_max:
                    yield some
                    some, accounts = {}, 1
            _add(some, of, partial)
        if some:
            yield some

    def run_totals_of(self, accounts: Sequence[UUID]) -> dict[AccountCurrency, RunTotal]:
        """The run totals of some accounts."""
        found: dict[AccountCurrency, RunTotal] = {}
        if self._stored is None or self.partial_sums is None:
            wanted = set(accounts)
            return {
                account_currency: run_total
                for account_currency, run_total in self.run_totals.items()
                if account_currency.account in wanted
            }
        self.store()
        for account, body in self.partial_sums.stored_of(COUNTED, accounts):
            _add(found, account, _run_total.decode(body))
        return found

    def _partial_run_totals(self) -> Iterator[tuple[UUID, _PartialRunTotal]]:
        if self._stored is None or self.partial_sums is None:
            moved = [
                (
                    account_currency.account,
                    _PartialRunTotal(account_currency.currency, run_total.movement, run_total.before),
                )
                for account_currency, run_total in self.run_totals.items()
                if run_total.stated_postings
            ]
            yield from sorted(moved, key=itemgetter(0))
            return
        self.store()
        for account, body in self.partial_sums.stored(COUNTED):
            yield account, _run_total.decode(body)

    @property
    def accounts(self) -> int:
        """How many accounts the feed moves."""
        if self._stored is None or self.partial_sums is None:
            return len(
                {
                    account_currency.account
                    for account_currency, run_total in self.run_totals.items()
                    if run_total.stated_postings
                }
            )
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
        for account_currency, run_total in self.run_totals.items():
            _include(run_total, *sums.setdefault(account_currency.currency, (Flow(), Flow())))
        return sums


def _include(run_total: RunTotal, posted: Flow, stated: Flow) -> None:
    posted.include(run_total.movement)
    stated.include(run_total.movement)
    if run_total.before is not None:
        stated.include(run_total.before)


def _add(run_totals: dict[AccountCurrency, RunTotal], account: UUID, partial: _PartialRunTotal) -> None:
    account_currency = AccountCurrency(account, partial.currency)
    run_total = run_totals.get(account_currency)
    if run_total is None:
        run_totals[account_currency] = RunTotal(account_currency, partial.movement, partial.before)
        return
    run_total.movement.include(partial.movement)
    if partial.before is not None:
        run_total.before = run_total.before or Flow()
        run_total.before.include(partial.before)
