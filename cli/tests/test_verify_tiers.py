"""`crm verify` over tiers that staff set, alone, by two persons and in a run, and over rules of tiers that two persons adopted."""

from datetime import timedelta
from uuid import UUID

import pytest
from chassis.bulk import listed, propose_start
from chassis.lists import Scope
from customer.connections import both_sides
from customer.domain.commands import AssessTier, Details, RegisterCustomer
from customer.domain.state import TierOverride
from customer.domain.tier_rules import RULES
from customer.permissions import BULK_APPROVERS, TIER_APPROVERS
from msgspec import structs

from .planting import by
from .test_verify import WAIT_SECONDS, World, bank, problems

__all__ = ["bank"]

ZHANG, LI, WANG = UUID(int=1), UUID(int=2), UUID(int=3)


@pytest.mark.requirement("R022", "R024", "M06")
async def test_tiers_that_staff_set_and_rules_that_two_persons_adopted_are_verified(bank):
    world = World(bank)
    async with both_sides(world.settings) as (service, _, _):

        async def approved(proposal, roles):
            await service.eyes.approve(proposal.proposal_id, proposal.digest, by("wu"), roles)

        for customer in (ZHANG, LI, WANG):
            await service.handler.handle(customer, RegisterCustomer(Details(name="张伟")), by())
        until = service.today() + timedelta(days=90)
        await service.overrides.override(ZHANG, "mass", until, by(), 1)
        proposed = await service.overrides.propose(service.eyes, ZHANG, "private", until, by(), 2)
        await approved(proposed, TIER_APPROVERS)
        run = await service.overrides.prepare(
            service.bulk, TierOverride("wealth", until), listed([LI, WANG]), by(), asked=None, selection=""
        )
        await approved(await propose_start(service.bulk, service.eyes, run.run_id, by()), BULK_APPROVERS)
        assert await service.bulk.run(run.run_id) == "finished"
        await service.overrides.end(WANG, by(), 2)
        first = service.today().replace(day=1)
        last, later = ((first + timedelta(days=days)).isoformat()[:7] for days in (-1, 32))
        rules = structs.replace(RULES, from_month=later, grace_months=2)
        await approved(await service.rulebook.propose(service.eyes, rules, by(), 0), TIER_APPROVERS)
        await service.handler.handle(LI, AssessTier(last, 0), by())
        await world.settle()
        shown = [(await service.customer(Scope.all(), one))["tier"] for one in (ZHANG, LI, WANG)]
    assert [one and (one["tier"], one["assessed"]) for one in shown] == [
        ("private", None),
        ("wealth", "mass"),
        None,
    ]
    report = await world.verified(WAIT_SECONDS)
    assert problems(report) == {}
    assert report.green
    assert report.checked["I13"] >= 3
    assert report.figures["timers"]["customer"]["standing"] >= 5, (
        "two overrides lapse, and three tiers are assessed"
    )
    await world.mongo.drop_database()
    await world.close()
