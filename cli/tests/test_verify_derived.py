"""Derived views against their inputs: facts that a new month changes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from chassis.clock import SystemClock
from chassis.lists.declaring import BLIND
from chassis.messaging.broker import Kafka
from chassis.privacy.key_encryption import FileKeyEncryption
from chassis.privacy.keys import KeyRing, Origin, seal
from chassis.read.blind import BlindIndex
from chassis.read.derived_following import DerivedFeed, live_inputs
from chassis.read.documents import ID, SEQUENCE, Change
from chassis.read.generations import Generations
from chassis.read.mongo import Mongo
from chassis.read.summing import GROUPS, add_stored, bucket_id, no_totals
from crm_cli.verify_derived import check_derived
from crm_cli.verify_report import PROBLEMS_NAMED_MAX, Report
from customer.branches import SUMS
from customer.catalogue import CONTEXT
from customer.derived.customer_facts import FACTS, VIEW
from customer.views import VIEWS, customers

from tests.support.fixtures import empty_keys
from tests.support.generations import shown_generation

CLOCK = SystemClock()
CUSTOMER = str(UUID(int=1))
JANUARY, FEBRUARY = date(2026, 1, 31), date(2026, 2, 1)


@pytest.fixture
async def mongo(mongo_url: str) -> AsyncIterator[Mongo]:
    mongo = Mongo.connect(mongo_url, database="verify_derived")
    yield mongo
    await mongo.drop_database()
    await mongo.close()


@pytest.fixture
def ring(postgres_url: str, tmp_path: Path) -> Iterator[KeyRing]:
    kek = FileKeyEncryption.at(tmp_path / "kek", create=True)
    opened = KeyRing.open(empty_keys(postgres_url), kek, CLOCK.monotonic)
    yield opened
    opened.close()


async def derived(mongo: Mongo, today: date, ring: KeyRing | None = None) -> Generations:
    """The facts of one customer, derived on a day and shown."""
    if await Generations(mongo, customers.VIEW, "customer", CLOCK).live() is None:
        for view in VIEWS:
            generations = Generations(mongo, view, "customer", CLOCK)
            generation = await shown_generation(generations)
            if view is customers.VIEW:
                named: dict[str, Any] = {
                    "kind": "person",
                    "origin": "staff",
                    "branch": None,
                    "questions": [],
                    "parties": [],
                }
                if ring is not None:
                    named["phone"] = sealed_phone(ring)
                documents = generations.documents(generation)
                frozen = documents.freeze({ID: CUSTOMER, SEQUENCE: 1, **named})
                await documents.write(customers.CUSTOMERS, [Change(CUSTOMER, None, 1, frozen)])
    generations = Generations(mongo, VIEW, "customer", CLOCK)
    generation = await generations.begin(inputs=await live_inputs(generations))
    feed = await DerivedFeed.of(
        generations,
        generation,
        Kafka("127.0.0.1:9"),
        CLOCK,
        lambda: today,
        None if ring is None else BlindIndex(ring),
    )
    await feed.derive_all(asyncio.Event())
    await generations.switch(generation)
    return generations


def sealed_phone(ring: KeyRing) -> dict[str, Any]:
    """As the view keeps it."""
    subject = UUID(CUSTOMER)
    key = ring.keys_for([subject])[subject]
    origin = Origin(CONTEXT, subject, 1, "customer-registered")
    return {"t": seal(key, origin.aad("phone", key), "13800138000"), "v": 1, "n": "customer-registered"}


async def checked(generations: Generations, today: date, blind: BlindIndex | None = None) -> Report:
    report = Report()
    await check_derived(generations, lambda: today, report, CLOCK, 0.0, blind)
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


async def test_a_digest_that_is_not_of_the_value_is_found_where_the_login_may_have_the_keys(
    mongo: Mongo, ring: KeyRing
) -> None:
    generations, blind = await derived(mongo, JANUARY, ring), BlindIndex(ring, create=False)
    report = await checked(generations, JANUARY, blind)
    assert report.green, report.readable()
    assert report.figures["views"][VIEW.name]["digests_compared"] is True
    live = await generations.live()
    assert live is not None
    [facts] = await mongo.find(live.prefix + FACTS)
    assert facts[BLIND]["phone"] is not None
    await mongo.update(live.prefix + FACTS, {ID: CUSTOMER}, {"$set": {f"{BLIND}.phone": "0" * 32}})
    assert (
        f"{CUSTOMER} is not what its inputs give" in (await checked(generations, JANUARY, blind)).readable()
    )
    auditor = await checked(generations, JANUARY)
    assert auditor.green
    assert auditor.figures["views"][VIEW.name]["digests_compared"] is False


async def test_a_bucket_that_is_not_the_sum_of_its_documents_is_found(mongo: Mongo) -> None:
    generations = await derived(mongo, JANUARY)
    report = await checked(generations, JANUARY)
    assert report.green, report.readable()
    assert report.figures["views"][VIEW.name]["buckets"] == SUMS.buckets
    live = await generations.live()
    assert live is not None
    buckets, totals = live.prefix + SUMS.name, no_totals()
    for bucket in await mongo.find(buckets):
        add_stored(totals, bucket)
    assert totals[None] == {"customers": 1}
    [summed] = [bucket for bucket in await mongo.find(buckets) if bucket[GROUPS]]
    await mongo.update(buckets, {ID: summed[ID]}, {"$set": {GROUPS: []}})
    report = await checked(generations, JANUARY)
    assert f"{SUMS.name}/{summed[ID]} is not the sum of its documents" in report.readable()
    assert report.figures["views"][VIEW.name]["buckets_differing"] == 1
    wrong = {GROUPS: [{"group": None, "sums": [["customers", "7"]]}]}
    for bucket in await mongo.find(buckets):
        await mongo.update(buckets, {ID: bucket[ID]}, {"$set": wrong})
    report = await checked(generations, JANUARY)
    assert f"and {SUMS.buckets - PROBLEMS_NAMED_MAX} more" in report.readable()


async def test_a_document_that_is_no_bucket_and_a_mark_that_is_ahead_are_found(mongo: Mongo) -> None:
    generations = await derived(mongo, JANUARY)
    live = await generations.live()
    assert live is not None
    buckets, marks = live.prefix + SUMS.name, live.prefix + SUMS.marks
    none = bucket_id(SUMS.buckets)
    await mongo.insert_new(
        buckets, {ID: none, SEQUENCE: 1, GROUPS: [{"group": None, "sums": [["customers", "7"]]}]}
    )
    report = await checked(generations, JANUARY)
    assert f"{SUMS.name}/{none} is not the sum of its documents" in report.readable()
    assert report.figures["views"][VIEW.name]["buckets_differing"] == 1
    summed = SUMS.bucket_of(CUSTOMER)
    await mongo.update(marks, {ID: "marks"}, {"$set": {f"summed.{summed}": 1_000_000}})
    report = await checked(generations, JANUARY)
    assert f"{SUMS.marks}/{bucket_id(summed)} says that more was summed than changed" in report.readable()
    assert report.figures["views"][VIEW.name]["buckets_differing"] == 2
