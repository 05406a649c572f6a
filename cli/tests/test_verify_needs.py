"""`crm verify` over needs that staff recorded, and over consents."""

from uuid import UUID

import pytest
from chassis.lists import Scope
from customer.connections import both_sides
from customer.domain.commands import Details, RegisterCustomer
from customer.domain.state import Need
from customer.needs import need_of

from .planting import by
from .test_verify import WAIT_SECONDS, World, bank, problems

__all__ = ["bank"]

ZHANG = UUID(int=1)
SMS = ("sms", "marketing")


@pytest.mark.requirement("R065", "M36")
async def test_needs_and_consents_are_verified_and_what_was_changed_in_a_view_is_found(bank):
    world = World(bank)
    async with both_sides(world.settings) as (service, _, _):
        await service.handler.handle(ZHANG, RegisterCustomer(Details(name="张伟")), by())
        noting = by()
        need = need_of(ZHANG, noting)
        await service.needs.record(ZHANG, Need("fund", None, '想了解"基金"'), "visit", "北京", noting)
        await service.needs.correct(ZHANG, need, Need(None, "古董鉴定", "想出售\n古董"), 0, by())
        await service.needs.close(ZHANG, need, "dropped", None, by())
        await service.needs.record(ZHANG, Need("deposit", None, "存款"), "counter", None, by())
        await service.consents.give(ZHANG, SMS, "S-1", None, by())
        await service.consents.withdraw(ZHANG, SMS, None, by())
        await service.consents.give(ZHANG, ("phone", "sharing"), "S-2", None, by())
        await world.settle()
        assert len(await service.needs.page(Scope.all(), ZHANG, None, 10)) == 2
    report = await world.verified(WAIT_SECONDS)
    assert problems(report) == {}
    assert report.green
    for view, of, change in (("needs", need, {"closed": None}), ("customers", ZHANG, {"consents": []})):
        await world.mongo.update(f"{await world.prefix(view)}{view}", {"_id": str(of)}, {"$set": change})
    found = problems(await world.verified())
    assert any(f"needs {need} differs from its fold in closed" in each for each in found["I4"])
    assert any(f"customers {ZHANG} differs from its fold in consents" in each for each in found["I4"])
    await world.mongo.drop_database()
    await world.close()
