"""What-if (规则试算) of the rules of tiers: the months of a customer that were assessed, assessed once more by a candidate. Pure.

The candidate (候选规则) takes the place of all versions from its first month on. The months before it stay as they were assessed. What is
compared is what each assessment recorded, and `decide_tier` decides as it does for a timer. So rules that were in force
give the history that there is.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from typing import Final, NamedTuple, cast

from chassis.write.events import Event, RecordedEvent

from customer.domain.commands import AssessTier
from customer.domain.events import (
    BranchAssigned,
    ContradictionResolved,
    CustomerContactErased,
    CustomerErased,
    CustomerRegistered,
    DetailsContradicted,
    Tier,
    TierAssessed,
    TierOverridden,
    TierOverrideEnded,
)
from customer.domain.evolving import evolve
from customer.domain.overriding import TierEvent, evolve_tiers
from customer.domain.state import Customer
from customer.domain.tier_rules import TierRules, TierRuleVersions, month_before
from customer.domain.tiering import decide_tier

BusinessDate = Callable[[datetime], date]
REPLAYED: Final[frozenset[type[Event]]] = frozenset(
    {
        *(TierAssessed, TierOverridden, TierOverrideEnded, CustomerErased, CustomerContactErased),
        *(CustomerRegistered, BranchAssigned, DetailsContradicted, ContradictionResolved),
    }
)
"""The events that a customer is replayed from: those of its tier and of its branch, and its erasure."""


def as_if(adopted: TierRuleVersions, candidate: TierRules) -> TierRuleVersions:
    """All versions as if a candidate had been adopted, and none that begins with its first month or a later one."""
    begins = candidate.from_month or ""
    earlier = [one for one in adopted.versions if (one.from_month or "") < begins]
    return TierRuleVersions((*earlier, candidate))


class Trial:
    """What is tried: other versions of the rules for the months from `from_month` on, YYYY-MM, beside those that were adopted."""

    def __init__(self, adopted: TierRuleVersions, versions: TierRuleVersions, from_month: str) -> None:
        self.adopted = adopted
        self.versions = versions
        self.from_month = from_month
        self._comparable: dict[str, bool] = {}
        self._compared: dict[str, tuple[str | None, ...]] = {}

    def comparable(self, month: str) -> bool:
        """Whether a month was compared in the currency of the candidate. In another one nothing is known of it."""
        found = self._comparable.get(month)
        if found is None:
            found = self.adopted.of(month).currency == self.versions.of(month).currency
            self._comparable[month] = found
        return found

    def assessed(
        self, month: str, averages: dict[str | None, int | None], customer: Customer
    ) -> TierAssessed:
        """The assessment of a month by the candidate. `averages`: what the assessments until then recorded, by month."""
        known = [averages.get(one) for one in self._of(month)]
        command = AssessTier(month, known[0], known[1], tuple(known[2:]), self.versions)
        [event] = decide_tier(command, customer)
        return event

    def _of(self, month: str) -> tuple[str | None, ...]:
        """A month and those before it that its assessment compares, None for those that are not comparable."""
        found = self._compared.get(month)
        if found is None:
            months = [month]
            for _ in range(max(1, self.versions.of(month).grace_months)):
                months.append(month_before(months[-1]))
            found = tuple(one if self.comparable(one) else None for one in months)
            self._compared[month] = found
        return found


class Assessed(NamedTuple):
    """A month that was assessed, and its assessment by the candidate: since when both are effective, and the tiers in force after them."""

    at: datetime
    real: TierAssessed
    candidate: TierAssessed
    tier: Tier | None
    candidate_tier: Tier | None


class Move(NamedTuple):
    """From `since` on and before `until`, both business dates, a customer is in `tier`, and by the candidate it is in another one. `until`
    is None where that goes on."""

    since: date
    until: date | None
    tier: Tier | None
    candidate_tier: Tier | None


class Replayed(NamedTuple):
    """A customer replayed: the months from the first one of the candidate on, where the candidate differs, and the customer at the end, as
    it is and by the candidate. Of both states only the branch and the tiers are known."""

    months: list[Assessed]
    moves: list[Move]
    real: Customer
    candidate: Customer


def replayed(history: Iterable[RecordedEvent], trial: Trial, business_date: BusinessDate) -> Replayed | None:
    """Replays a customer; None where no month was assessed that the candidate is for, and where the customer is erased.

    `history`: its events of the classes in `REPLAYED` in the order of its stream; others are passed over. An override stands as it stood:
    while it does, the tier in force is that of the override by the candidate too.
    """
    real, of_tiers, ordered = Customer(), list[RecordedEvent](), True
    for one in history:
        event = one.event
        if isinstance(event, TierAssessed | TierOverridden | TierOverrideEnded):
            of_tiers.append(one)
            ordered = ordered and isinstance(event, TierAssessed)
        elif isinstance(event, CustomerErased | CustomerContactErased):
            return None
        elif isinstance(
            event, CustomerRegistered | BranchAssigned | DetailsContradicted | ContradictionResolved
        ):
            real = evolve(real, event)
    if not ordered:
        # An assessment that came late is effective before an override that was given meanwhile.
        of_tiers.sort(key=lambda one: one.metadata.effective_at)
    return _replayed(real, of_tiers, trial, business_date)


def _replayed(
    real: Customer, of_tiers: Sequence[RecordedEvent], trial: Trial, business_date: BusinessDate
) -> Replayed | None:
    candidate, averages = real, dict[str | None, int | None]()
    months, moves = list[Assessed](), list[Move]()
    before = real.tier_in_force, candidate.tier_in_force
    for one in of_tiers:
        event = cast(TierEvent, one.event)
        at = one.metadata.effective_at
        if isinstance(event, TierAssessed):
            _remember(event, averages)
        if isinstance(event, TierAssessed) and event.month >= trial.from_month:
            tried = trial.assessed(event.month, averages, candidate)
            real, candidate = evolve_tiers(real, event), evolve_tiers(candidate, tried)
            months.append(Assessed(at, event, tried, real.tier_in_force, candidate.tier_in_force))
        else:
            real, candidate = evolve_tiers(real, event), evolve_tiers(candidate, event)
        now = real.tier_in_force, candidate.tier_in_force
        if now != before:
            _move(moves, business_date(at), *now)
            before = now
    return Replayed(months, moves, real, candidate) if months else None


def _move(moves: list[Move], on: date, tier: Tier | None, candidate: Tier | None) -> None:
    """Ends the move that goes on, where one does, and begins another one where the tiers differ. One that ends on the day on which it
    began was never seen at the end of a day."""
    if moves and moves[-1].until is None:
        last = moves.pop()
        if last.since < on:
            moves.append(last._replace(until=on))
    if tier != candidate:
        moves.append(Move(on, None, tier, candidate))


def _remember(event: TierAssessed, averages: dict[str | None, int | None]) -> None:
    """Keeps what an assessment recorded of its month and of those before it."""
    month = event.month
    averages[month] = event.average_minor
    for average in (event.average_before_minor, *event.averages_earlier_minor):
        month = month_before(month)
        averages[month] = average
