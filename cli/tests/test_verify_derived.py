"""Derived views against their inputs: facts that a new month changes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from uuid import UUID

import pytest
from chassis.clock import SystemClock
from chassis.messaging.broker import Kafka
from chassis.read.derived_following import DerivedFeed, live_inputs
from chassis.read.documents import ID, SEQUENCE, Change
from chassis.read.generations import Generations
from chassis.read.mongo import Mongo
from crm_cli.verify_derived import check_derived
from crm_cli.verify_report import Report
from customer.derived.customer_facts import FACTS, VIEW
from customer.views import VIEWS, customers

CLOCK = SystemClock()
CUSTOMER = str(UUID(int=1))
JANUARY, FEBRUARY = date(2026, 1, 31), date(2026, 2, 1)


@pytest.fixture
async def mongo(mongo_url: str) -> AsyncIterator[Mongo]:
    mongo = Mongo.connect(mongo_url, database="verify_derived")
    yield mongo
    await mongo.drop_database()
    await mongo.close()


async def unused(_: str) -> bool:
    return False


async def derived(mongo: Mongo, today: date) -> Generations:
    """The facts of one customer, derived on a day and shown."""
    if await Generations(mongo, customers.VIEW, "customer", CLOCK).live() is None:
        for view in VIEWS:
            generations = Generations(mongo, view, "customer", CLOCK)
            generation = await generations.begin(unused)
            await generations.switch(generation)
            if view is customers.VIEW:
                named = {"kind": "person", "origin": "staff", "branch": None, "questions": [], "parties": []}
                documents = generations.documents(generation)
                frozen = documents.freeze({ID: CUSTOMER, SEQUENCE: 1, **named})
                await documents.write(customers.CUSTOMERS, [Change(CUSTOMER, None, 1, frozen)])
    generations = Generations(mongo, VIEW, "customer", CLOCK)
    generation = await generations.begin(unused, await live_inputs(generations))
    feed = await DerivedFeed.of(generations, generation, Kafka("127.0.0.1:9"), CLOCK, lambda: today)
    await feed.derive_all(asyncio.Event())
    await generations.switch(generation)
    return generations


async def checked(generations: Generations, today: date) -> Report:
    report = Report()
    await check_derived(generations, lambda: today, report, CLOCK, 0.0)
    return report


async def test_facts_that_a_new_month_changes_are_said_to_wait_for_it(mongo: Mongo) -> None:
    generations = await derived(mongo, JANUARY)
    assert (await checked(generations, JANUARY)).green
    report = await checked(generations, FEBRUARY)
    assert "customer_facts: documents that change on this day or before are not derived anew yet" in str(
        report.as_json()
    )
    generations = await derived(mongo, FEBRUARY)
    assert (await checked(generations, FEBRUARY)).green
    live = await generations.live()
    assert live is not None
    [facts] = await mongo.find(live.prefix + FACTS)
    assert sorted(facts["aum_month_end"])[-1] == "2026-01"
