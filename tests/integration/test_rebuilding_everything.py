"""D04: the read database is dropped, and what comes back by itself is equal in every document."""

from typing import Any

import pytest
from chassis.clock import SystemClock
from chassis.read.generations import Generations
from chassis.read.rebuilding import documents_hash
from crm_cli.demo_bank import DemoBank
from customer.views import VIEWS

from tests.integration.conftest import PLAN, System
from tests.support.waiting import until

CLOCK = SystemClock()


async def hashes(system: System) -> dict[str, str]:
    """The hash of the live documents of every view."""
    found = {}
    for view in VIEWS:
        generations = Generations(system.mongo, view, "customer", CLOCK)
        live = await generations.live()
        assert live is not None
        found[view.name] = await documents_hash(system.mongo, view, live)
    return found


@pytest.mark.requirement("D04", "M21")
async def test_the_read_database_is_dropped_and_comes_back_equal(system: System, bank: DemoBank) -> None:
    await system.caught_up()
    before, heads = await hashes(system), system.heads()
    counts = {name: int(hash.partition("-")[0]) for name, hash in before.items()}
    assert counts["customers"] >= bank.expected.parties
    assert counts["asset_panorama"] > bank.expected.postings
    shown = await system.panorama(f"{PLAN.source}:P000001")

    await system.mongo.drop_database()
    await until(lambda: built(system))
    await system.caught_up()

    assert await hashes(system) == before
    assert figures(await system.panorama(f"{PLAN.source}:P000001")) == figures(shown)
    assert system.heads() == heads, "a policy reacted again"


async def test_the_hash_sees_one_changed_document(system: System) -> None:
    await system.caught_up()
    before = await hashes(system)
    view = next(view for view in VIEWS if view.name == "asset_panorama")
    live = await Generations(system.mongo, view, "customer", CLOCK).live()
    assert live is not None
    collection = live.prefix + "movements"
    [one] = await system.mongo.find(collection, limit=1)
    try:
        await system.mongo.update(collection, {"_id": one["_id"]}, {"$set": {"planted": 1}})
        changed = await hashes(system)
    finally:
        await system.mongo.update(collection, {"_id": one["_id"]}, {"$unset": {"planted": 1}})
    assert changed["asset_panorama"] != before["asset_panorama"]
    assert changed["customers"] == before["customers"]
    assert await hashes(system) == before


async def built(system: System) -> bool:
    """Whether every view is live."""
    generations = [Generations(system.mongo, view, "customer", CLOCK) for view in VIEWS]
    return all([await each.live() is not None for each in generations])


def figures(shown: Any) -> Any:
    """A panorama but for how old it is."""
    if isinstance(shown, dict):
        return {name: figures(value) for name, value in shown.items() if name != "freshness_seconds"}
    return [figures(value) for value in shown] if isinstance(shown, list) else shown
