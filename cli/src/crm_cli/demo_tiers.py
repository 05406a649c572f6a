"""The tiers of the demo bank: one customer's is overridden by one person, and those of others in a run that two persons start."""

import asyncio
from datetime import timedelta
from typing import Final, NamedTuple

from chassis.bulk import listed, propose_start
from chassis.clock import Clock
from chassis.privacy.tokens import Caller
from chassis.write.deciding import CommandContext
from customer.connections import both_sides
from customer.domain.state import TierOverride
from customer.permissions import BULK_APPROVERS
from customer.settings import CustomerSettings
from msgspec import structs

from crm_cli.demo_bank import DemoBank
from crm_cli.demo_tags import REASON, registered
from crm_cli.person import commanding

STANDS: Final = timedelta(days=90)
SECOND: Final = Caller("demo:compliance", post="development")
"""Who approves: another person than the one at the terminal."""


class Overridden(NamedTuple):
    """How many customers one person put into another tier, and how many a run."""

    alone: int
    in_run: int


async def override(settings: CustomerSettings, bank: DemoBank, caller: Caller, clock: Clock) -> Overridden:
    """Puts the first of the tagged customers into 大众, and the others into 财富潜力; once more on the same day changes nothing."""

    def context(what: str, by: Caller = caller) -> CommandContext:
        found = commanding(by, clock.now(), REASON)
        return structs.replace(found, idempotency_key=f"demo:{what}:{until}")

    async with both_sides(settings, clock) as (service, _, _):
        until = service.today() + STANDS
        found = [customer async for customer, _ in registered(service, bank, clock)]
        if not found:
            return Overridden(0, 0)
        first, *others = found
        version = (await service.handler.load(first)).version
        await service.overrides.override(first, "mass", until, context("override"), version)
        wanted, asked = TierOverride("potential", until), list(map(str, others))
        run = await service.overrides.prepare(
            service.bulk, wanted, listed(others), context("run"), asked=asked, selection=""
        )
        if run.needs_approval:
            waiting = await propose_start(service.bulk, service.eyes, run.run_id, context("start"))
            approving = context("approve", SECOND)
            await service.eyes.approve(waiting.proposal_id, waiting.digest, approving, BULK_APPROVERS)
        await service.bulk.run(run.run_id)
        return Overridden(1, (await service.bulk.shown(run.run_id)).done)


def overridden(settings: CustomerSettings, bank: DemoBank, caller: Caller, clock: Clock) -> Overridden:
    """As `override`, to its end."""
    return asyncio.run(override(settings, bank, caller, clock))
