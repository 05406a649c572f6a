"""The tags of the demo bank: a dictionary, and the customers to whom staff give them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from chassis.clock import Clock
from chassis.privacy.tokens import Caller
from customer.application import CustomerService
from customer.connections import both_sides
from customer.domain.tag import TagNameTaken
from customer.settings import CustomerSettings

from crm_cli.demo_bank import TAGS, DemoBank
from crm_cli.person import commanding

REGISTERED_WITHIN: Final = timedelta(seconds=60)
"""So long it waits until the policy has registered a customer for a party."""
LOOK_SECONDS: Final = 0.2
REASON: Final = "demo bank"


async def tag(settings: CustomerSettings, bank: DemoBank, caller: Caller, clock: Clock) -> int:
    """Defines the tags and gives them; once more changes nothing. Returns how many customers have them."""
    async with both_sides(settings, clock) as (service, _, _):
        for name in TAGS:
            try:
                await service.tagging.tags.define(name, "dictionary", commanding(caller, clock.now(), REASON))
            except TagNameTaken:
                continue
        given = 0
        async for customer, tags in registered(service, bank, clock):
            await service.tagging.change(customer, tags, (), commanding(caller, clock.now(), REASON))
            given += 1
        return given


async def registered(
    service: CustomerService, bank: DemoBank, clock: Clock
) -> AsyncIterator[tuple[UUID, Sequence[str]]]:
    """The customers of the bank's tagged parties that are registered within `REGISTERED_WITHIN`, with their tags."""
    until = clock.now() + REGISTERED_WITHIN
    for key, tags in bank.tagged:
        customer = await _customer(service, bank.plan.source, key)
        while customer is None and clock.now() < until:
            await clock.sleep(LOOK_SECONDS)
            customer = await _customer(service, bank.plan.source, key)
        if customer is not None:
            yield customer, tags


async def _customer(service: CustomerService, source: str, key: str) -> UUID | None:
    return (await service.claims.of_party(service.ids.party(source, key), service.today())).holder


def tagged(settings: CustomerSettings, bank: DemoBank, caller: Caller, clock: Clock) -> int:
    """As `tag`, to its end."""
    return asyncio.run(tag(settings, bank, caller, clock))
