"""The role that derives, on real servers: a derived view is built, kept, built anew with its inputs, and rebuilt."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Any

import pytest
from chassis.clock import SystemClock
from chassis.messaging.broker import Kafka
from chassis.observability import metrics
from chassis.read.derived_following import DerivedFeed, DerivedFollower, pinned
from chassis.read.derived_rebuilding import compare_sums, compare_with_inputs, rebuild_derived
from chassis.read.deriving import DerivedView, Inputs, Touched
from chassis.read.documents import GONE, ID, Document, DocumentId
from chassis.read.generations import Generations, live_generation
from chassis.read.projecting import Collection
from chassis.read.rebuilding import Differs, rebuild
from chassis.read.summing import GROUPS, Sums, add_stored, bucket_id, no_totals

from tests.support.lists import SUBJECTS
from tests.support.specification import ManualClock
from tests.support.waiting import comes

from .test_viewing import Bank, bank

__all__ = ["bank"]

CLOCK = SystemClock()
COUNTS, LISTS = "counts", "lists"
SUMS = Sums("totals", 4, ("words",), lambda one: [("all", {"lists": 1, "words": one["words"]})])


class Counts:
    """A derived view of how many words each list has, which is not a pure function when a test says so."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.today = date(2026, 1, 5)
        self.wrong = 0
        self.unanswered = False
        view = DerivedView(
            COUNTS,
            1,
            (bank.view,),
            Collection(COUNTS),
            self.depending,
            self.derive,
            self.everything,
            changes_on="changes_on",
            sums=SUMS,
        )
        self.generations = Generations(bank.mongo, view, bank.service, CLOCK)

    async def depending(self, _: Inputs, touched: Touched) -> Iterable[DocumentId]:
        return touched.get((LISTS, LISTS), ())

    async def derive(self, inputs: Inputs, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Document]:
        if self.unanswered:
            raise ConnectionError("a server does not answer")
        day = inputs.day()
        following = (date.fromisoformat(day) + timedelta(days=1)).isoformat()
        found = await inputs.by_id(LISTS, LISTS, ids)
        return {
            id: {"words": len(one["words"]) + self.wrong, "on": day, "changes_on": following}
            for id, one in found.items()
        }

    async def everything(self, inputs: Inputs, after: DocumentId | None, limit: int) -> Sequence[DocumentId]:
        return await inputs.ids(LISTS, LISTS, after, min(limit, 2))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[DerivedFollower]:
        follower = DerivedFollower(self.generations, Kafka(self.bank.kafka_url), CLOCK, lambda: self.today)
        stopping = asyncio.Event()
        task = asyncio.create_task(follower.run(stopping))
        try:
            yield follower
        finally:
            stopping.set()
            await task

    async def shown(self) -> dict[Any, int]:
        live = await self.generations.live()
        if live is None:
            return {}
        found = await self.bank.mongo.find(live.prefix + COUNTS)
        return {one[ID]: one["words"] for one in found if GONE not in one}

    async def comes_to(self, *counts: int) -> bool:
        wanted = {str(SUBJECTS[number]): count for number, count in enumerate(counts) if count}

        async def shown() -> bool:
            return await self.shown() == wanted

        return await comes(shown)

    async def add_up_to(self, lists: int, words: int) -> bool:
        """Whether the buckets come to add up to this."""

        async def summed() -> bool:
            live, totals = await self.generations.live(), no_totals()
            if live is not None:
                for bucket in await self.bank.mongo.find(live.prefix + SUMS.name):
                    add_stored(totals, bucket)
            return {name: value for name, value in totals["all"].items() if value} == {
                "lists": lists,
                "words": words,
            }

        return await comes(summed)

    async def rebuilt(self, **named: Any) -> Any:
        return await rebuild_derived(
            self.generations,
            broker=Kafka(self.bank.kafka_url),
            clock=CLOCK,
            today=lambda: self.today,
            **named,
        )


@pytest.fixture
def counts(bank: Bank) -> Counts:
    return Counts(bank)


async def test_a_derived_view_is_built_from_what_is_there_and_kept_up_to_date(bank, counts):
    await bank.tell((0, "a"), (1, "bb"), (0, "ccc"), (2, "d"))
    async with bank.running():
        assert await bank.catches_up()
        async with counts.kept():
            assert await counts.comes_to(2, 1, 1)
            await bank.tell((1, "e"), (3, "f"), (2, "gone"))
            assert await counts.comes_to(2, 2, 0, 1)


async def test_sums_are_there_when_a_view_is_shown_and_follow_its_documents(bank, counts):
    await bank.tell((0, "a"), (1, "bb"), (0, "ccc"), (2, "d"))
    async with bank.running():
        assert await bank.catches_up()
        async with counts.kept():
            assert await counts.comes_to(2, 1, 1)
            live = await counts.generations.live()
            assert len(await bank.mongo.find(live.prefix + SUMS.name)) == SUMS.buckets
            assert await counts.add_up_to(3, 4)
            await bank.tell((1, "e"), (3, "f"), (2, "gone"))
            assert await counts.add_up_to(3, 5)
        assert (await compare_sums(counts.generations, live, rounds_max=1)).equal
        wrong = {GROUPS: [{"group": "all", "sums": [["words", "7"]]}]}
        await bank.mongo.update(live.prefix + SUMS.name, {ID: bucket_id(2)}, {"$set": wrong})
        await bank.mongo.delete(live.prefix + SUMS.name, {ID: bucket_id(3)})
        found = await compare_sums(counts.generations, live, rounds_max=1)
        assert (found.documents, found.differences) == (4, 2)
        assert found.named == [f"totals/{bucket_id(2)}", f"totals/{bucket_id(3)}"]
        marks = {ID: "marks"}
        await bank.mongo.update(live.prefix + SUMS.marks, marks, {"$inc": {"changed.2": 1}})
        found = await compare_sums(counts.generations, live, rounds_max=1)
        assert (found.differences, found.unsettled) == (1, 1), "one waits to be summed, and nobody sums"
        assert found.named == [f"totals/{bucket_id(3)}"]


async def test_it_is_measured_how_many_buckets_wait_to_be_summed_and_for_how_long(bank, counts):
    await bank.tell((0, "a"), (1, "bb"))
    async with bank.running():
        assert await bank.catches_up()
        async with counts.kept():
            assert await counts.add_up_to(2, 2)
        live, clock = await counts.generations.live(), ManualClock()
        feed = await DerivedFeed.of(
            counts.generations, live, Kafka(bank.kafka_url), clock, lambda: counts.today
        )

        async def measured() -> tuple[float, float]:
            await feed.measure()
            gauges = metrics.BUCKETS_WAITING, metrics.BUCKETS_AGE_SECONDS
            return tuple(gauge.labels(live.group)._value.get() for gauge in gauges)

        assert await measured() == (0, 0)
        await feed.deriver.summing.mark(SUBJECTS)
        marked = len({SUMS.bucket_of(one) for one in SUBJECTS})
        assert await measured() == (marked, 0)
        clock.advance(90)
        assert await measured() == (marked, 90)
        leaving = asyncio.Event()
        leaving.set()
        await feed.run(leaving)
        gauges = metrics.BUCKETS_WAITING, metrics.BUCKETS_AGE_SECONDS
        assert [gauge.labels(live.group)._value.get() for gauge in gauges] == [0, 0]


async def test_what_a_day_changes_is_marked_before_it_is_derived_and_waits_until_it_is(bank, counts):
    async def still() -> bool:
        return True

    await bank.tell((0, "a"), (1, "bb"))
    async with bank.running():
        assert await bank.catches_up()
        async with counts.kept():
            assert await counts.add_up_to(2, 2)
    live = await counts.generations.live()
    feed = await DerivedFeed.of(counts.generations, live, Kafka(bank.kafka_url), CLOCK, lambda: counts.today)
    summing = feed.deriver.summing
    await summing.sum_marked(still)
    assert (await summing.marks()).waiting() == []
    counts.today += timedelta(days=1)
    counts.unanswered = True
    with pytest.raises(ConnectionError):
        await feed.tick()
    marked = sorted({SUMS.bucket_of(one) for one in SUBJECTS[:2]})
    await summing.sum_marked(still)
    assert (await summing.marks()).waiting() == marked
    counts.unanswered = False
    await feed.tick()
    await summing.sum_marked(still)
    assert (await summing.marks()).waiting() == []


async def test_a_document_is_derived_again_on_the_day_on_which_it_changes(bank, counts):
    await bank.tell((0, "a"))
    async with bank.running(), counts.kept():
        assert await counts.comes_to(1)
        counts.today = date(2026, 2, 1)

        async def on_that_day() -> bool:
            live = await counts.generations.live()
            found = await bank.mongo.find(live.prefix + COUNTS)
            return [one["on"] for one in found] == ["2026-02-01"]

        assert await comes(on_that_day)


async def test_when_an_input_is_switched_all_is_derived_from_the_new_one(bank, counts):
    await bank.tell((0, "a"), (1, "bb"))
    async with bank.running(), counts.kept():
        assert await counts.comes_to(1, 1)
        before = await counts.generations.live()
        await rebuild(bank.generations(), broker=Kafka(bank.kafka_url), publisher=bank.publisher, clock=CLOCK)
        await bank.tell((1, "c"))
        assert await counts.comes_to(1, 2)
        after = await counts.generations.live()
    live = await live_generation(bank.mongo, LISTS)
    assert (before.inputs, after.inputs) == ({LISTS: 1}, {LISTS: live.number})
    assert after.number > before.number


async def test_a_rebuild_compares_and_shows_only_what_is_equal(bank, counts):
    await bank.tell((0, "a"), (1, "bb"), (2, "gone"))
    async with bank.running(), counts.kept():
        assert await counts.comes_to(1, 1)
        done = await counts.rebuilt()
        assert done.comparison.equal
        assert done.comparison.documents >= 2
        counts.wrong = 1
        with pytest.raises(Differs):
            await counts.rebuilt(compare_rounds_max=1)
        assert (await counts.generations.live()).number == done.generation.number


async def test_a_document_that_is_not_what_its_inputs_give_is_found(bank, counts):
    await bank.tell((0, "a"), (1, "bb"), (2, "c"))
    async with bank.running(), counts.kept():
        assert await counts.comes_to(1, 1, 1)
        live = await counts.generations.live()
    name = live.prefix + COUNTS
    inputs = await pinned(counts.generations, live, lambda: counts.today)

    async def compared() -> set[str]:
        found = await compare_with_inputs(counts.generations, live, inputs, rounds_max=1)
        assert found.differences == len(found.named)
        return {one.removeprefix(f"{COUNTS}/") for one in found.named}

    assert await compared() == set()
    await bank.mongo.update(name, {ID: str(SUBJECTS[0])}, {"$set": {"words": 7}})
    await bank.mongo.delete(name, {ID: str(SUBJECTS[1])})
    await bank.mongo.insert_new(name, {ID: "zzz", "_seq": 1, "words": 1})
    assert await compared() == {str(SUBJECTS[0]), str(SUBJECTS[1]), "zzz"}
