"""The tier of a customer (客户分层): what a month of it comes to under the rules, and the decision on it.

A tier is reached at once, and left after more months below it than the rules give grace. Amounts are integer minor units.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import structs

from customer.domain.commands import AssessTier
from customer.domain.events import Tier, TierAssessed
from customer.domain.state import Customer
from customer.domain.tier_rules import TIERS, TierRules, month_before


def decide_tier(command: AssessTier, customer: Customer) -> Sequence[TierAssessed]:
    """The assessment of a month; none where that month, or a later one, is assessed already."""
    if customer.tier_month is not None and command.month <= customer.tier_month:
        return []
    rules, average, now = command.rules.of(command.month), command.average_minor, customer.tier
    because: Literal["met", "grace", "unknown"] = "met"
    tier: Tier | None
    if average is None:
        tier, because = now, "unknown"
    else:
        met = tier = rules.tier_of(average)
        if now is not None and rules.grace_months:
            tier = max(met, _kept(now, command, rules), key=TIERS.index)
        if tier != met:
            because = "grace"
    return [
        TierAssessed(
            month=command.month,
            tier=tier,
            because=because,
            rules=rules.version,
            currency=rules.currency,
            average_minor=average,
            average_before_minor=command.average_before_minor,
            averages_earlier_minor=command.earlier_minor,
        )
    ]


def _kept(now: Tier, command: AssessTier, rules: TierRules) -> Tier:
    """The tier that the months of grace keep: what the best of them reached by the rules of its own, and no more than what is now. Where
    one is unknown, nobody knows of so many months below."""
    reached, month = list[Tier](), command.month
    for average in (command.average_before_minor, *command.earlier_minor)[: rules.grace_months]:
        month = month_before(month)
        if average is None:
            return now
        reached.append(command.rules.of(month).tier_of(average))
    if len(reached) < rules.grace_months:
        return now
    return min(now, max(reached, key=TIERS.index), key=TIERS.index)


def evolve_tier(customer: Customer, event: TierAssessed) -> Customer:
    """The customer after an assessment."""
    return structs.replace(customer, tier=event.tier, tier_month=event.month)
