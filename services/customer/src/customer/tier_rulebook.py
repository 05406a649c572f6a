"""The rules of tiers (客户层级规则) in the write side: proposed by one person, adopted by the approval of another, and listed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, NamedTuple, cast
from uuid import UUID

import msgspec
from chassis.proposals import FourEyes, Proposable, ProposalShown
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Outcome, VersionMismatch
from chassis.write.events import Metadata
from chassis.write.handling import CommandHandler
from chassis.write.snapshots import Loaded
from chassis.write.store import EventStore
from msgspec import structs

from customer.domain.tier_rules import (
    RULES,
    STREAM,
    AdoptTierRules,
    TierRules,
    TierRulesAdopted,
    TierRuleVersions,
    decide,
    tier_rules_decider,
)

ADOPT_TIER_RULES: Final = "adopt-tier-rules"
"""The kind of proposal."""


class ProposedRules(msgspec.Struct, frozen=True):
    """The version that is proposed. Its number says that no other one was adopted since."""

    rules: TierRules


class AdoptedRules(NamedTuple):
    """A version, whether the running month is assessed by it, and who adopted it, when and why; None of the built-in one."""

    rules: TierRules
    in_force: bool
    metadata: Metadata | None


@dataclass(frozen=True, slots=True)
class TierRulebook:
    """The versions of the rules of tiers."""

    handler: CommandHandler[AdoptTierRules, TierRuleVersions, TierRulesAdopted]
    store: EventStore
    catalogue: Catalogue
    today: Callable[[], date]

    def proposable(self, approvers: frozenset[str], lives: timedelta) -> Proposable:
        """The proposals of rules, for the `FourEyes` of the context."""
        return Proposable(ProposedRules, approvers, lives, self._adopt_as_approved, "调整客户层级规则")

    async def versions(self) -> TierRuleVersions:
        """All versions, as a process knows them that read them some minutes ago: none is adopted for a month that has begun, so those of
        a whole month are among them."""
        return (await self.handler.load(STREAM)).state

    async def propose(
        self, eyes: FourEyes, rules: TierRules, context: CommandContext, version: int
    ) -> ProposalShown:
        """Proposes the version that follows those which the caller saw; another person approves it.

        `version` is that of their stream. Raises what would refuse it now, VersionMismatch, TierRulesOutdated, TierRulesNotAhead,
        TierRulesInvalid, TooManyTierRules.
        """
        wanted = structs.replace(rules, version=RULES.version + version + 1)
        if (await self.store.commands([context.key])).get(context.key) is None:
            loaded = await self._now()
            if version != loaded.version:
                raise VersionMismatch(version, loaded.version)
            decide(AdoptTierRules(wanted, self.today()), loaded.state)
        return await eyes.propose(ADOPT_TIER_RULES, STREAM, ProposedRules(wanted), context)

    async def listed(self) -> tuple[list[AdoptedRules], int]:
        """All versions, the newest first, and the version of their stream."""
        stored = await self.store.read_stream(STREAM)
        recorded = [self.catalogue.open(one, None) for one in stored]
        adopted = [cast(TierRulesAdopted, one.event) for one in recorded]
        known = tier_rules_decider.fold(adopted)
        now = known.of(self.today().isoformat()[:7])
        by = [None, *(one.metadata for one in recorded)]
        found = [
            AdoptedRules(rules, rules == now, metadata)
            for rules, metadata in zip(known.versions, by, strict=True)
        ]
        return found[::-1], len(stored)

    async def _adopt_as_approved(
        self, _: UUID, wanted: ProposedRules, context: CommandContext
    ) -> Outcome[TierRulesAdopted]:
        command = AdoptTierRules(wanted.rules, self.today())
        return await self.handler.handle(STREAM, command, context, asked=wanted)

    async def _now(self) -> Loaded[TierRuleVersions]:
        self.handler.forget(STREAM)
        return await self.handler.load(STREAM)
