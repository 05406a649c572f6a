"""Overrides of tiers (人工调整层级): given by one person, proposed by one and approved by another, and given to many at once."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from chassis.bulk import Approval, Bulk, Bulkable, BulkShown
from chassis.proposals import FourEyes, Proposable, ProposalShown
from chassis.write.deciding import CommandContext, Outcome, VersionMismatch
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

from customer.domain.commands import CustomerCommand, EndTierOverride, OverrideTier
from customer.domain.deciding import decide
from customer.domain.events import CustomerEvent, Tier
from customer.domain.overriding import require_term
from customer.domain.refusals import CustomerNotRegistered
from customer.domain.state import Customer, TierOverride

OVERRIDE_TIER: Final = "override-tier"
"""The kind of proposal, and of bulk run."""
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

    def of_many(self, approval: Approval) -> Bulkable:
        """Overrides of the tiers of many customers."""
        return Bulkable(
            TierOverride,
            self._override_one,
            self._overrides,
            self.handler.read,
            self._override_back,
            approval,
        )

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

    async def prepare(
        self,
        bulk: Bulk,
        wanted: TierOverride,
        customers: AsyncIterator[UUID],
        context: CommandContext,
        *,
        asked: Any,
        selection: str,
    ) -> BulkShown:
        """Lists customers whose tiers are to be overridden. The same key again gives the same run, also when its date has come. Raises
        TierOverrideTermInvalid."""
        if await bulk.prepared(OVERRIDE_TIER, context) is None:
            require_term(wanted.valid_until, self.today(), self._latest())
        return await bulk.prepare(OVERRIDE_TIER, wanted, customers, context, asked=asked, selection=selection)

    async def _override_one(
        self, customer: UUID, wanted: TierOverride, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        approved = context.approved is not None
        command = self._command(wanted.tier, wanted.valid_until, approved=approved)
        return await self.handler.handle(customer, command, context, asked=wanted)

    async def _overrides(self, customer: UUID, wanted: TierOverride) -> bool:
        command = self._command(wanted.tier, wanted.valid_until, approved=True)
        return bool(decide(command, (await self.handler.load(customer)).state))

    async def _override_back(
        self, customer: UUID, _: TierOverride, before: int, version: int, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        """Gives back the override that the customer had at version `before`; none where it had none, or where that would have lapsed by
        now."""
        then = (await self.handler.state_at(customer, before)).tier_override
        command: OverrideTier | EndTierOverride = EndTierOverride("withdrawn")
        if then is not None and then.valid_until > self.today():
            approved = context.approved is not None
            command = self._command(then.tier, then.valid_until, approved=approved)
        return await self.handler.handle(customer, command, context, version, asked=("tier-back", before))

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
        return OverrideTier(tier, valid_until, self.today(), self._latest(), approved, replaces)

    def _latest(self) -> date:
        return self.today() + timedelta(days=self.days_max)

    async def _require_known(self, customer: UUID) -> None:
        if not await self.store.stream_heads([customer]):
            raise CustomerNotRegistered
