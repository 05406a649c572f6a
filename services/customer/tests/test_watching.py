"""What a caller is told of changes of customers over HTTP: of those in its scope, and of no others."""

import asyncio
import json

import pytest
from chassis.clock import SystemClock
from chassis.read.documents import Change
from chassis.read.generations import Generations, ViewReader
from chassis.watching import Hub, hearing
from customer.connections import WATCHED
from customer.derived.customer_facts import FACTS, VIEW
from customer.views import VIEWS

from tests.support.generations import shown_generation
from tests.support.waiting import until

from .showing import show
from .test_api import api
from .test_lists import ZHANGS, acting, asking, branches
from .test_queries import LI, NOW, ZHANG, bank, queries
from .test_tags_api import HOUSE, RICH, WHY, defined, registered, tagged
from .test_tags_api import changed as tag_changed

__all__ = ["api", "asking", "bank", "branches", "queries"]

CLOCK = SystemClock()
SECONDS_MAX = 40


@pytest.fixture
async def hub(mongo):
    """A hub that runs, over the first generation of the facts and of the views that they are derived of."""
    for view in (*VIEWS, VIEW):
        await shown_generation(Generations(mongo, view, "customer", CLOCK))
    hub = Hub(WATCHED, ViewReader(mongo, CLOCK, (*VIEWS, VIEW)), CLOCK, NOW.date, settle_seconds=0.0)
    async with hearing(hub):
        yield hub


async def changed(mongo, *customers):
    """Writes the facts of customers again, as after a posting."""
    generations = Generations(mongo, VIEW, "customer", CLOCK)
    live = generations.documents(await generations.live())
    names = [str(customer) for customer in customers]
    for name, before in (await live.load(FACTS, names)).items():
        after = {**before, "accounts": before["accounts"] + 1, "_seq": before["_seq"] + 1}
        change = Change(name, before["_seq"], after["_seq"], live.freeze(after))
        assert not (await live.write(FACTS, [change])).conflicts


async def told(api, where):
    """The ids that a stream of a second tells."""
    answer = await api.get("/customers/changes", params={"where": where, "seconds": 1})
    assert answer.status_code == 200, answer.text
    data = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    return {id for one in data for kind in ("changed", "entered", "left") for id in one.get(kind, ())}


async def test_a_condition_tells_of_customers_in_scope_alone(asking, mongo):
    for role, post, seen in (
        ("relationship-manager", f"{ZHANGS}/客户经理", {str(ZHANG)}),
        ("administrator", None, {str(ZHANG), str(LI)}),
    ):
        acting(asking, role, post)
        named = set()
        async with asyncio.timeout(SECONDS_MAX):
            while not named >= seen:
                stream = asyncio.create_task(told(asking, "accounts >= 0"))
                while not stream.done():
                    await changed(mongo, LI, ZHANG)
                    await asyncio.sleep(0.05)
                named |= await stream
        assert named == seen


@pytest.mark.requirement("R025")
async def test_a_stream_on_a_tag_ends_when_the_tag_is_merged_and_who_asks_again_reads_everything(
    api, store, mongo
):
    """The facts of its members name the other tag from then on: a stream that asked for this one was silent for an hour."""
    ring = api.service.handler.keys
    api.views_stand = True
    house, _ = await defined(api, HOUSE), await defined(api, RICH)
    customer = await registered(api)
    await tagged(api, customer, HOUSE)
    await show(store, mongo, ring, NOW.date)
    asked = {"where": f"tags has {HOUSE}", "seconds": 2 * SECONDS_MAX}
    async with asyncio.timeout(SECONDS_MAX):
        stream = asyncio.create_task(api.get("/customers/changes", params=asked))
        await until(lambda: bool(api.service.hub._groups))
        assert (await tag_changed(api, house, "merge", WHY | {"into": RICH})).status_code == 200
        await show(store, mongo, ring, NOW.date)
        answer = await stream
        assert 'data: {"code":"condition-means-another"}' in answer.text
        last = [line[4:] for line in answer.text.splitlines() if line.startswith("id: ")][-1]
        again = await api.get(
            "/customers/changes", params=asked | {"seconds": 0}, headers={"Last-Event-ID": last}
        )
    assert "event: reset" in again.text
