"""The rules of tiers (客户层级规则): versions, each in force from a month on. One stream for the bank.

A version is adopted for a month that has not begun. So what a month comes to is settled before it ends, whenever it is assessed.
"""

from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Final
from uuid import UUID, uuid5

import msgspec
from chassis.money import AMOUNT_MINOR_MAX, is_currency
from chassis.write.deciding import Decider, Refusal
from chassis.write.events import Event
from contracts.identity import CRM_NAMESPACE

from customer.domain.events import Tier

STREAM: Final[UUID] = uuid5(CRM_NAMESPACE, "customer:tier-rules")
TIERS: Final[tuple[Tier, ...]] = ("mass", "potential", "wealth", "private")
"""From the lowest to the highest."""
GRACE_MONTHS_MAX: Final = 11
"""The facts know 13 months: that of the assessment, and no fewer than these before it."""
AHEAD_MONTHS_MAX: Final = 24
"""So many months after the running one a version may begin."""
MONTHS_CACHED_MAX: Final = 1_024
VERSIONS_MAX: Final = 200
"""They fit into one page."""


class Threshold(msgspec.Struct, frozen=True):
    """The average daily AUM of a month from which on a customer is in a tier. Inclusive."""

    tier: Tier
    at_least_minor: int


class TierRules(msgspec.Struct, frozen=True):
    """A version of the rules: in which currency AUM is compared, and the tiers above the lowest, the highest first.

    A tier without a threshold is given by no rule. `grace_months`: months below a tier that do not leave it yet. `from_month`,
    YYYY-MM: the first month that is assessed by it; None for the version that is built in.
    """

    version: int
    currency: str
    thresholds: tuple[Threshold, ...]
    grace_months: int = 1
    from_month: str | None = None

    def tier_of(self, average_minor: int) -> Tier:
        """The highest tier that an average reaches."""
        reached = (one.tier for one in self.thresholds if average_minor >= one.at_least_minor)
        return next(reached, TIERS[0])


RULES: Final = TierRules(1, "CNY", (Threshold("private", 600_000_000), Threshold("wealth", 50_000_000)))
"""The rules that are built in: 私行 from 6,000,000.00, 财富 from 500,000.00, 大众 below."""


class TierRuleVersions(msgspec.Struct, frozen=True):
    """All versions of the rules, in the order in which they were adopted."""

    versions: tuple[TierRules, ...] = (RULES,)

    def of(self, month: str) -> TierRules:
        """The version that a month, YYYY-MM, is assessed by: the one that begins last of those that have begun, and of several that
        begin in one month the one that was adopted last."""
        found, begins = self.versions[0], ""
        for one in self.versions:
            its = one.from_month or ""
            if begins <= its <= month and (its > begins or one.version > found.version):
                found, begins = one, its
        return found


class TierRulesAdopted(Event, frozen=True):
    """The bank has another version of the rules of tiers, by which months from `from_month` on are assessed (R021)."""

    version: int
    from_month: str
    currency: str
    thresholds: tuple[Threshold, ...]
    grace_months: int


TIER_RULES: Final[dict[str, type[Event]]] = {"tier-rules-adopted": TierRulesAdopted}
"""Stored names. They are not published: who reads the topic is told the tier, and the version that gave it."""


class AdoptTierRules(msgspec.Struct, frozen=True):
    """A version of the rules is adopted on the business date `on`. Its number has to be the next one."""

    rules: TierRules
    on: date


class TierRulesOutdated(Refusal):
    """Another version was adopted since this one was proposed."""

    code: ClassVar[str] = "tier-rules-outdated"
    title: ClassVar[str] = "Another version of the rules of tiers was adopted since"
    title_zh: ClassVar[str] = "客户层级规则此后已更新"


class TierRulesNotAhead(Refusal):
    """The month has begun already, or lies too far ahead."""

    code: ClassVar[str] = "tier-rules-not-ahead"
    status: ClassVar[int] = 422
    title: ClassVar[str] = f"Rules of tiers begin with a later month, at most {AHEAD_MONTHS_MAX} ahead"
    title_zh: ClassVar[str] = f"客户层级规则须自以后月份起生效，且不超过 {AHEAD_MONTHS_MAX} 个月"


class TierRulesInvalid(Refusal):
    """The thresholds or the grace are none that a customer can be assessed by. The text says why."""

    code: ClassVar[str] = "tier-rules-invalid"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "These are no rules of tiers"
    title_zh: ClassVar[str] = "客户层级规则无效"


class TooManyTierRules(Refusal):
    """There is a bounded number of versions."""

    code: ClassVar[str] = "too-many-tier-rules"
    title: ClassVar[str] = f"There are at most {VERSIONS_MAX} versions of the rules of tiers"
    title_zh: ClassVar[str] = f"客户层级规则最多 {VERSIONS_MAX} 个版本"


def decide(command: AdoptTierRules, known: TierRuleVersions) -> Sequence[TierRulesAdopted]:
    """The event of a command; raises the refusals above."""
    rules, begins = command.rules, command.rules.from_month
    if rules.version != known.versions[-1].version + 1:
        raise TierRulesOutdated
    if len(known.versions) >= VERSIONS_MAX:
        raise TooManyTierRules
    if (
        begins is None
        or not 1 <= month_number(begins) - month_number(command.on.isoformat()) <= AHEAD_MONTHS_MAX
    ):
        raise TierRulesNotAhead
    require_rules(rules)
    return [TierRulesAdopted(rules.version, begins, rules.currency, rules.thresholds, rules.grace_months)]


def evolve(known: TierRuleVersions, event: TierRulesAdopted) -> TierRuleVersions:
    """All versions after an event."""
    adopted = TierRules(event.version, event.currency, event.thresholds, event.grace_months, event.from_month)
    return TierRuleVersions((*known.versions, adopted))


@lru_cache(MONTHS_CACHED_MAX)
def month_before(month: str) -> str:
    """The month before a month, YYYY-MM."""
    year, number = int(month[:4]), int(month[5:7])
    return f"{year:04d}-{number - 1:02d}" if number > 1 else f"{year - 1:04d}-12"


def month_number(day: str) -> int:
    """Counts months: that of a day or of a month, YYYY-MM, is one more than that of the month before."""
    return 12 * int(day[:4]) + int(day[5:7])


def require_rules(rules: TierRules) -> None:
    """Raises TierRulesInvalid where no customer can be assessed by these rules."""
    amounts = [one.at_least_minor for one in rules.thresholds]
    places = [TIERS.index(one.tier) for one in rules.thresholds]
    if not is_currency(rules.currency):
        raise TierRulesInvalid(f"{rules.currency} is no currency")
    if not places or 0 in places:
        raise TierRulesInvalid(f"every tier but {TIERS[0]} may have a threshold, and one of them has")
    if any(lower >= higher for higher, lower in pairwise(places)):
        raise TierRulesInvalid("the thresholds are not of tiers from the highest to the lowest, each once")
    if any(lower >= higher for higher, lower in pairwise(amounts)):
        raise TierRulesInvalid("a higher tier does not begin at a larger amount")
    if not all(1 <= amount <= AMOUNT_MINOR_MAX for amount in amounts):
        raise TierRulesInvalid(f"a threshold is 1 to {AMOUNT_MINOR_MAX} minor units")
    if not 0 <= rules.grace_months <= GRACE_MONTHS_MAX:
        raise TierRulesInvalid(f"the grace is 0 to {GRACE_MONTHS_MAX} months")


tier_rules_decider: Final = Decider[AdoptTierRules, TierRuleVersions, TierRulesAdopted](
    initial=TierRuleVersions(), decide=decide, evolve=evolve, events=TierRulesAdopted
)
