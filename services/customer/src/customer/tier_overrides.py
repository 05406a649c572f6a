"""Overrides of tiers (人工调整层级): given by one person, or proposed by one and approved by another."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final
from uuid import UUID

import msgspec
from chassis.proposals import FourEyes, Proposable, ProposalShown
from chassis.write.deciding import CommandContext, Outcome, VersionMismatch
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

from customer.domain.commands import CustomerCommand, EndTierOverride, OverrideTier
from customer.domain.deciding import decide
from customer.domain.events import CustomerEvent, Tier
from customer.domain.refusals import CustomerNotRegistered
from customer.domain.state import Customer, TierOverride

OVERRIDE_TIER: Final = "override-tier"
"""The kind of proposal."""
OVERRIDE_DAYS_MAX: Final = 366
"""So long an override stands at most, where the bank has not chosen otherwise."""


class ProposedOverride(msgspec.Struct, frozen=True):
    """The override that is proposed, and the one that it replaces: another one must not have come until it is approved."""

    tier: Tier
    valid_until: date
    replaces: TierOverride | None


@dataclass(frozen=True, slots=True)
class TierOverrides:
    """Commands that override the tiers of customers. An override stands for at most `days_max` days."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    store: EventStore
    today: Callable[[], date]
    days_max: int = OVERRIDE_DAYS_MAX

    def proposable(self, approvers: frozenset[str], lives: timedelta) -> Proposable:
        """The proposals of overrides, for the `FourEyes` of the context."""
        return Proposable(ProposedOverride, approvers, lives, self._override_as_approved, "人工调整客户层级")

    async def override(
        self, customer: UUID, tier: Tier, valid_until: date, context: CommandContext, version: int
    ) -> Outcome[CustomerEvent]:
        """Puts a customer into a tier before a business date.

        Raises CustomerNotRegistered, CustomerIsErased, VersionMismatch, TierOverrideTermInvalid, TierOverrideNeedsApproval.
        """
        command, asked = self._command(tier, valid_until), (OVERRIDE_TIER, tier, valid_until)
        await self._require_known(customer)
        return await self.handler.handle(customer, command, context, version, asked=asked)

    async def end(self, customer: UUID, context: CommandContext, version: int) -> Outcome[CustomerEvent]:
        """Withdraws the override that stands; nothing where there is none. Raises as `override`."""
        await self._require_known(customer)
        return await self.handler.handle(customer, EndTierOverride("withdrawn"), context, version)

    async def propose(
        self,
        eyes: FourEyes,
        customer: UUID,
        tier: Tier,
        valid_until: date,
        context: CommandContext,
        version: int,
    ) -> ProposalShown:
        """Proposes an override; another person approves it. Raises what would refuse it now."""
        self.handler.forget(customer)
        loaded = await self.handler.load(customer)
        if (await self.store.commands([context.key])).get(context.key) is None:
            decide(self._command(tier, valid_until, approved=True), loaded.state)
            if version != loaded.version:
                raise VersionMismatch(version, loaded.version)
        # Of the version that the caller saw, so that the same key again proposes the same.
        replaces = (await self.handler.state_at(customer, min(version, loaded.version))).tier_override
        wanted = ProposedOverride(tier, valid_until, replaces)
        return await eyes.propose(OVERRIDE_TIER, customer, wanted, context)

    async def _override_as_approved(
        self, customer: UUID, wanted: ProposedOverride, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        command = self._command(wanted.tier, wanted.valid_until, approved=True, replaces=wanted.replaces)
        return await self.handler.handle(customer, command, context, asked=wanted)

    def _command(
        self,
        tier: Tier,
        valid_until: date,
        *,
        approved: bool = False,
        replaces: TierOverride | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> OverrideTier:
        today = self.today()
        latest = today + timedelta(days=self.days_max)
        return OverrideTier(tier, valid_until, today, latest, approved, replaces)

    async def _require_known(self, customer: UUID) -> None:
        if not await self.store.stream_heads([customer]):
            raise CustomerNotRegistered
