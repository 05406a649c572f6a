"""The tier of a customer (客户分层): what a month of it comes to under the rules, and the decision on it.

A tier is reached at once, and left after two months below it. Amounts are integer minor units.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec import structs

from customer.domain.commands import AssessTier
from customer.domain.events import Tier, TierAssessed
from customer.domain.state import Customer


class Threshold(msgspec.Struct, frozen=True):
    """The average daily AUM of a month from which on a customer is in a tier. Inclusive."""

    tier: Tier
    at_least_minor: int


class TierRules(msgspec.Struct, frozen=True):
    """A version of the rules: in which currency AUM is compared, and the tiers above the lowest, the highest first."""

    version: int
    currency: str
    thresholds: tuple[Threshold, ...]

    def tier_of(self, average_minor: int) -> Tier:
        """The highest tier that an average reaches."""
        reached = (one.tier for one in self.thresholds if average_minor >= one.at_least_minor)
        return next(reached, TIERS[0])


TIERS: Final[tuple[Tier, ...]] = ("mass", "potential", "wealth", "private")
"""From the lowest to the highest."""
RULES: Final = TierRules(1, "CNY", (Threshold("private", 600_000_000), Threshold("wealth", 50_000_000)))
"""The rules that are built in: 私行 from 6,000,000.00, 财富 from 500,000.00, 大众 below."""


def decide_tier(command: AssessTier, customer: Customer, rules: TierRules = RULES) -> Sequence[TierAssessed]:
    """The assessment of a month; none where that month, or a later one, is assessed already."""
    if customer.tier_month is not None and command.month <= customer.tier_month:
        return []
    average, before, now = command.average_minor, command.average_before_minor, customer.tier
    because: Literal["met", "grace", "unknown"] = "met"
    tier: Tier | None
    if average is None:
        tier, because = now, "unknown"
    else:
        met = tier = rules.tier_of(average)
        if now is not None:
            kept = now if before is None else min(now, rules.tier_of(before), key=TIERS.index)
            tier = max(met, kept, key=TIERS.index)
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
            average_before_minor=before,
        )
    ]


def evolve_tier(customer: Customer, event: TierAssessed) -> Customer:
    """The customer after an assessment."""
    return structs.replace(customer, tier=event.tier, tier_month=event.month)
