"""The consents of the demo bank: what its tagged customers signed at the counter, one of whom withdrew by SMS."""

import asyncio
from typing import Final

from chassis.clock import Clock
from chassis.privacy.tokens import Caller
from customer.connections import both_sides
from customer.domain.consenting import Pair
from customer.settings import CustomerSettings
from msgspec import structs

from crm_cli.demo_bank import DemoBank
from crm_cli.demo_tags import REASON, registered
from crm_cli.person import commanding

CONSENTS: Final[tuple[Pair, ...]] = (("sms", "marketing"), ("phone", "marketing"), ("email", "profiling"))
EVIDENCE: Final = "柜台签署授权书"


async def consent(settings: CustomerSettings, bank: DemoBank, caller: Caller, clock: Clock) -> int:
    """Each tagged customer consents to one channel and purpose, and the first withdraws it; once more changes nothing. Returns how
    many have said something."""
    said = 0
    async with both_sides(settings, clock) as (service, _, _):
        async for customer, _ in registered(service, bank, clock):
            context = structs.replace(
                commanding(caller, clock.now(), REASON), idempotency_key=f"demo:consent:{customer}"
            )
            pair = CONSENTS[said % len(CONSENTS)]
            await service.consents.give(customer, pair, EVIDENCE, None, context)
            if said == 0:
                withdrawing = structs.replace(
                    commanding(caller, clock.now(), REASON), idempotency_key=f"demo:withdrawal:{customer}"
                )
                await service.consents.withdraw(customer, pair, "短信回复 TD", withdrawing)
            said += 1
    return said


def consented(settings: CustomerSettings, bank: DemoBank, caller: Caller, clock: Clock) -> int:
    """As `consent`, to its end."""
    return asyncio.run(consent(settings, bank, caller, clock))
