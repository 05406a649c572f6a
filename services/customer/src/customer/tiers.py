"""Assessing tiers (客户分层): what the facts of a customer say of the last whole month."""

from collections.abc import Mapping
from typing import Any

from chassis.timers import NotReady

from customer.derived.customer_facts import CHANGES_ON
from customer.domain.commands import AssessTier
from customer.domain.tiering import RULES, TierRules
from customer.months import whole_months


def assessing(facts: Mapping[str, Any] | None, day: str, rules: TierRules = RULES) -> AssessTier:
    """The command that assesses the last whole month before a business date; raises NotReady where the facts
    are not those of that day yet.

    A month that the facts do not know is unknown. A currency that a known month lacks is zero.
    """
    if facts is None or facts[CHANGES_ON] <= day:
        raise NotReady(f"the facts are not those of {day}")
    averages = facts["aum_month_average"]
    (month, _), (before, _) = whole_months(day)[:2]

    def average(of: str) -> int | None:
        return averages[of].get(rules.currency, 0) if of in averages else None

    return AssessTier(month, average(month), average(before))
