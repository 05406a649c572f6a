"""The extended profiles of the demo bank: what staff learned of its tagged customers, of whom one has retired since."""

import asyncio
from collections.abc import Mapping
from typing import Final

from chassis.clock import Clock
from chassis.privacy.tokens import Caller
from customer.connections import both_sides
from customer.domain.events import ProfileField
from customer.domain.refusals import ProfileOfCompany
from customer.settings import CustomerSettings
from msgspec import structs

from crm_cli.demo_bank import DemoBank
from crm_cli.demo_tags import REASON, registered
from crm_cli.person import commanding

PROFILES: Final[tuple[Mapping[ProfileField, str], ...]] = (
    {"occupation": "teacher", "family_structure": "nuclear", "children": "one", "education": "master"},
    {"occupation": "engineer", "marital_status": "unmarried", "family_structure": "alone"},
    {"occupation": "business-owner", "marital_status": "married", "children": "two"},
)
RETIRED: Final[Mapping[ProfileField, str]] = {"occupation": "retired"}


async def extend(settings: CustomerSettings, bank: DemoBank, caller: Caller, clock: Clock) -> int:
    """Extends the profile of each tagged person; once more changes nothing. Returns how many have one."""
    extended = 0
    async with both_sides(settings, clock) as (service, _, _):
        async for customer, _ in registered(service, bank, clock):
            context = structs.replace(
                commanding(caller, clock.now(), REASON), idempotency_key=f"demo:profile:{customer}"
            )
            profile = PROFILES[extended % len(PROFILES)]
            try:
                await service.profiles.extend(
                    customer, profile, "counter", context, (await service.handler.load(customer)).version
                )
            except ProfileOfCompany:
                continue
            if extended == 0:
                retiring = structs.replace(context, idempotency_key=f"demo:retired:{customer}")
                version = (await service.handler.load(customer)).version
                await service.profiles.extend(customer, RETIRED, "phone", retiring, version)
            extended += 1
    return extended


def extended(settings: CustomerSettings, bank: DemoBank, caller: Caller, clock: Clock) -> int:
    """As `extend`, to its end."""
    return asyncio.run(extend(settings, bank, caller, clock))
