"""The needs of the demo bank: what its tagged customers ask for at the counter, one of which is fulfilled."""

import asyncio
from typing import Final

from chassis.clock import Clock
from chassis.privacy.tokens import Caller
from customer.connections import both_sides
from customer.domain.state import Need
from customer.needs import need_of
from customer.settings import CustomerSettings
from msgspec import structs

from crm_cli.demo_bank import DemoBank
from crm_cli.demo_tags import REASON, registered
from crm_cli.person import commanding

NEEDS: Final = (
    Need("study-abroad", None, "咨询留学汇款：每年两次，每次约2万美元"),
    Need("wealth", None, "想了解低风险理财"),
    Need(None, "古董鉴定", "想出售家中古董，问可否推荐鉴定机构"),
)


async def note(settings: CustomerSettings, bank: DemoBank, caller: Caller, clock: Clock) -> int:
    """Records a need of each tagged customer, and closes that of the first; once more changes nothing. Returns how many have one."""
    noted = 0
    async with both_sides(settings, clock) as (service, _, _):
        async for customer, _ in registered(service, bank, clock):
            context = structs.replace(
                commanding(caller, clock.now(), REASON), idempotency_key=f"demo:need:{customer}"
            )
            stated = NEEDS[noted % len(NEEDS)]
            await service.needs.record(customer, stated, "counter", None, context)
            if noted == 0:
                closing = structs.replace(context, idempotency_key=f"demo:fulfilled:{customer}")
                need = need_of(customer, context)
                await service.needs.close(customer, need, "fulfilled", "已办理", closing)
            noted += 1
    return noted


def noted(settings: CustomerSettings, bank: DemoBank, caller: Caller, clock: Clock) -> int:
    """As `note`, to its end."""
    return asyncio.run(note(settings, bank, caller, clock))
