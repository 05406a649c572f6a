"""Overrides of the tier (人工调整层级): staff put a customer into a tier with a reason and an end (R022).

The assessment of each month goes on beside an override, and never ends it. When it ends, the assessed tier is in force again.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final, assert_never

from msgspec import UNSET, structs

from customer.domain.commands import AssessTier, EndTierOverride, OverrideTier
from customer.domain.events import Tier, TierAssessed, TierOverridden, TierOverrideEnded
from customer.domain.refusals import TierOverrideChanged, TierOverrideNeedsApproval, TierOverrideTermInvalid
from customer.domain.state import Customer, TierOverride
from customer.domain.tiering import decide_tier, evolve_tier

TierCommand = AssessTier | OverrideTier | EndTierOverride
TierEvent = TierAssessed | TierOverridden | TierOverrideEnded
PRIVILEGED: Final[frozenset[Tier]] = frozenset({"wealth", "private"})
"""The tiers that it takes two persons to put a customer into."""


def decide_tiers(command: TierCommand, customer: Customer) -> Sequence[TierEvent]:
    """The events of a command; raises TierOverrideTermInvalid, TierOverrideNeedsApproval, TierOverrideChanged."""
    stands = customer.tier_override
    match command:
        case AssessTier():
            return decide_tier(command, customer)
        case OverrideTier(tier, valid_until, on, valid_until_max, approved, replaces):
            require_term(valid_until, on, valid_until_max)
            if tier in PRIVILEGED and not approved:
                raise TierOverrideNeedsApproval(tier)
            if replaces is not UNSET and replaces != stands:
                raise TierOverrideChanged
            wanted = TierOverride(tier, valid_until)
            return [] if wanted == stands else [TierOverridden(tier, valid_until)]
        case EndTierOverride(because, valid_until):
            if stands is None or valid_until not in {None, stands.valid_until}:
                return []
            return [TierOverrideEnded(because, customer.tier)]
        case _:
            assert_never(command)


def require_term(valid_until: date, on: date, valid_until_max: date) -> None:
    """Raises TierOverrideTermInvalid where an override that is given on a business date would not stand, or stand too long."""
    if not on < valid_until <= valid_until_max:
        raise TierOverrideTermInvalid(f"after {on}, up to {valid_until_max}")


def evolve_tiers(customer: Customer, event: TierEvent) -> Customer:
    """The customer after an event."""
    match event:
        case TierAssessed():
            return evolve_tier(customer, event)
        case TierOverridden(tier, valid_until):
            return structs.replace(customer, tier_override=TierOverride(tier, valid_until))
        case TierOverrideEnded():
            return structs.replace(customer, tier_override=None)
        case _:
            assert_never(event)
