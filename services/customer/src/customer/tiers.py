"""Assessing tiers (客户分层): what the facts of a customer say of the last whole month."""

from collections.abc import Mapping
from typing import Any

from chassis.timers import NotReady

from customer.derived.customer_facts import CHANGES_ON
from customer.domain.commands import AssessTier
from customer.domain.tier_rules import TierRuleVersions
from customer.months import whole_months


def assessing(facts: Mapping[str, Any] | None, day: str, rules: TierRuleVersions | None = None) -> AssessTier:
    """The command that assesses the last whole month before a business date; raises NotReady where the facts
    are not those of that day yet.

    `rules`: by default the version that is built in alone. A month that the facts do not know is unknown. A currency that a known
    month lacks is zero.
    """
    if facts is None or facts[CHANGES_ON] <= day:
        raise NotReady(f"the facts are not those of {day}")
    rules = rules or TierRuleVersions()
    months, averages = [month for month, _ in whole_months(day)], facts["aum_month_average"]

    def average(of: str) -> int | None:
        return averages[of].get(rules.of(of).currency, 0) if of in averages else None

    month, before, *earlier = months[: 1 + max(1, rules.of(months[0]).grace_months)]
    return AssessTier(month, average(month), average(before), tuple(map(average, earlier)), rules)
