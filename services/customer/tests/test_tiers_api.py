"""Tiers over HTTP: in the customer's document, in its facts and in conditions."""

from uuid import UUID, uuid5

import pytest
from chassis.write.deciding import CommandContext
from customer.domain.commands import AssessTier, EraseCustomer
from customer.tiers import assessing

from .test_api import CLOCK, api
from .test_lists import acting
from .test_queries import NOW, bank, queries
from .test_tags_api import found, once, registered, shown

__all__ = ["api", "bank", "once", "queries", "shown"]


def by_timer(customer, month):
    id = uuid5(UUID(customer), month)
    return CommandContext(actor="timer:customer-tier", now=CLOCK.now(), command_id=id)


async def assessed(api, customer, month, average, before=None):
    command = AssessTier(month, average, before)
    return await api.service.handler.handle(UUID(customer), command, by_timer(customer, month))


async def tier_of(api, customer):
    return (await api.get(f"/customers/{customer}")).json()["tier"]


@pytest.mark.requirement("R021", "M06")
async def test_a_tier_is_shown_with_its_reason_and_since_when_it_stands(api, shown):
    customer = await registered(api)
    await shown()
    assert await tier_of(api, customer) is None
    await assessed(api, customer, "2025-11", None)
    await shown()
    assert await tier_of(api, customer) is None, "nothing is known of the month"
    await assessed(api, customer, "2025-12", 50_000_000)
    await shown()
    first = await tier_of(api, customer)
    await assessed(api, customer, "2026-01", 7, 50_000_000)
    await shown()
    grace = await tier_of(api, customer)
    assert (first["tier"], first["because"], first["month"], first["rules"]) == (
        "wealth",
        "met",
        "2025-12",
        1,
    )
    assert grace == first | {"because": "grace", "month": "2026-01"}
    await assessed(api, customer, "2026-02", 7, 7)
    await shown()
    left = await tier_of(api, customer)
    assert (left["tier"], left["because"]) == ("mass", "met")
    assert left["since"] > first["since"]


@pytest.mark.requirement("R021", "M06")
async def test_conditions_ask_for_the_tier_in_scope_and_an_erased_customer_has_none(api, shown):
    rich, poor, other = [await registered(api, branch) for branch in ("浦东", "浦东", "徐汇")]
    new = await registered(api, "浦东")
    for customer, average in ((rich, 600_000_000), (poor, 0), (other, 600_000_000)):
        await assessed(api, customer, "2025-12", average)
    await shown()
    assert await found(api, "tier is private") == {rich, other}
    assert await found(api, "tier is private or tier is mass") == {rich, poor, other}
    assert await found(api, "not tier is known") >= {new}
    acting(api, "relationship-manager", "浦东/RM-1")
    assert await found(api, "tier is private") == {rich}
    acting(api, "administrator")
    await api.service.handler.handle(UUID(rich), EraseCustomer((), (), NOW.date()), by_timer(rich, "erased"))
    await shown()
    assert await found(api, "tier is private") == {other}
    assert await tier_of(api, rich) is None


@pytest.mark.requirement("R021")
async def test_the_facts_that_are_derived_are_what_is_assessed(api, shown):
    customer = await registered(api)
    assert await api.service.facts_now(UUID(customer)) is None
    await shown()
    facts = await api.service.facts_now(UUID(customer))
    day = NOW.date()
    month = max(facts["aum_month_average"])
    assert month < day.isoformat()[:7]
    assert assessing(facts, day.isoformat()) == AssessTier(month, 0, 0)
