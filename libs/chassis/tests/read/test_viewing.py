"""The role on real servers: views follow the topic, survive the loss of their database, and say how far they are."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from chassis.clock import SystemClock
from chassis.messaging.broker import Kafka
from chassis.messaging.transport import KafkaPublisher, ensure_topics
from chassis.observability import metrics
from chassis.read.checkpoints import Position
from chassis.read.generations import (
    GENERATIONS,
    LIVE_CACHED_SECONDS,
    Generations,
    NotBuilt,
    ViewReader,
    owner_of,
)
from chassis.read.mongo import Mongo
from chassis.read.mongo_checkpoints import parked_of, want
from chassis.read.projecting import View
from chassis.read.viewing import ViewRunner
from contracts import topics
from contracts.topics import EVENTS, Topic, dead_letters
from prometheus_client import generate_latest

from tests.support.generations import shown_generation
from tests.support.lists import SUBJECTS, Repairs, Words, folded, lists
from tests.support.waiting import WITHIN_SECONDS, comes, until

_NUMBERS = count(1)
CLOCK = SystemClock()


class Bank:
    """A topic of its own with words on it, and a view of them."""

    def __init__(self, kafka_url: str, mongo: Mongo, publisher: KafkaPublisher, topic: Topic) -> None:
        self.kafka_url = kafka_url
        self.mongo = mongo
        self.publisher = publisher
        self.words = Words(topic.partitions, topic.name)
        self.repairs = Repairs()
        self.service = f"test{topic.name.rpartition('.')[2]}"
        self.view = lists(self.repairs, topic=topic.name)
        self._told = [0] * topic.partitions

    async def tell(self, *words: tuple[int, str]) -> None:
        """Publishes words and a watermark, as a relay does."""
        for subject, word in words:
            self.words.say(subject, word)
        self.words.mark()
        for partition, records in enumerate(self.words.records):
            fresh = records[self._told[partition] :]
            self._told[partition] = len(records)
            await self.publisher.publish([record._replace(offset=None) for record in fresh])

    def skips_what_was_not_told(self) -> None:
        """What was said and not published is never on the topic."""
        self._told = [len(records) for records in self.words.records]

    def generations(self, view: View | None = None) -> Generations:
        return Generations(self.mongo, view or self.view, self.service, CLOCK)

    def reader(self) -> ViewReader:
        return ViewReader(self.mongo, CLOCK, [self.view])

    def runner(self, view: View | None = None) -> ViewRunner:
        return ViewRunner(
            "test-views",
            [view or self.view],
            service=self.service,
            mongo=self.mongo,
            broker=Kafka(self.kafka_url),
            publisher=self.publisher,
            clock=CLOCK,
        )

    @asynccontextmanager
    async def running(self, view: View | None = None) -> AsyncIterator[ViewRunner]:
        runner = self.runner(view)
        stopping = asyncio.Event()
        task = asyncio.create_task(runner.run(stopping))
        try:
            yield runner
        finally:
            stopping.set()
            await task

    async def shown(self) -> dict[str, Any]:
        """All documents of the live generation."""
        found = {}
        for name in ("lists", "entries"):
            collection = await self.reader().collection("lists", name)
            documents = await self.mongo.find(collection)
            if documents:
                found[name] = {document["_id"]: document for document in documents}
        return found

    async def catches_up(self) -> bool:
        return await self.reader().wait_for("customer", self.words.position, WITHIN_SECONDS)


@pytest.fixture
async def bank(kafka_url: str, mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bank]:
    topic = Topic(f"test.words.{next(_NUMBERS)}", 2, "subject id", "words")
    monkeypatch.setitem(EVENTS, "customer", topic)
    publisher = KafkaPublisher(kafka_url)
    bank = Bank(kafka_url, mongo, publisher, topic)
    await ensure_topics(kafka_url, [topic, dead_letters(f"{bank.service}.lists.v1")])
    yield bank
    await publisher.close()


async def test_a_view_is_built_shown_and_kept_up_to_date(bank):
    with pytest.raises(NotBuilt):
        await bank.shown()
    assert not await bank.reader().wait_for("customer", 1, 0.05)
    await bank.tell((0, "a"), (1, "bb"), (0, "ccc"))
    runner = bank.runner()
    assert runner.not_ready() == ["lists: not started"]
    stopping = asyncio.Event()
    task = asyncio.create_task(runner.run(stopping))
    assert await bank.catches_up()
    assert await bank.shown() == folded(bank.view, bank.words.all())
    await until(lambda: runner.not_ready() == [], what=runner.not_ready)
    await bank.tell((0, "gone"), (3, "a"))
    assert not await bank.reader().wait_for("customer", bank.words.position + 1, 0.05)
    assert await bank.catches_up()
    assert await bank.shown() == folded(bank.view, bank.words.all())
    live = await bank.generations().live()
    assert await comes(
        _async(lambda: f'crm_lag_events{{context="customer",group="{live.group}"}} 0.0' in _page())
    )
    assert f'crm_parked_subjects{{group="{live.group}"}} 0.0' in _page()
    assert 'crm_freshness_seconds{name="lists/customer"}' in _page()
    stopping.set()
    await task


async def test_a_runner_that_comes_back_goes_on_where_it_was(bank):
    async with bank.running():
        await bank.tell((0, "a"), (1, "bb"))
        assert await bank.catches_up()
    await bank.tell((0, "ccc"))
    async with bank.running():
        assert await bank.catches_up()
    assert await bank.shown() == folded(bank.view, bank.words.all())
    assert [one.number for one in await bank.generations().all()] == [1]


async def test_a_dropped_database_is_filled_again_by_itself(bank):
    async with bank.running():
        await bank.tell((0, "a"), (1, "bb"), (0, "ccc"))
        assert await bank.catches_up()
        before = await bank.shown()
        await bank.mongo.drop_database()
        await bank.tell((2, "late"))
        assert await bank.catches_up()
        assert await bank.shown() == folded(bank.view, bank.words.all())
        assert before["lists"].items() <= (await bank.shown())["lists"].items()
    assert [one.number for one in await bank.generations().all()] == [2]


async def test_a_database_that_was_dropped_while_nobody_looked_is_filled_again(bank):
    async with bank.running():
        await bank.tell((0, "a"), (1, "bb"))
        assert await bank.catches_up()
    await bank.mongo.drop_database()
    async with bank.running():
        assert await bank.catches_up()
    assert await bank.shown() == folded(bank.view, bank.words.all())


async def test_newer_code_is_built_beside_the_old_and_older_code_leaves_it_alone(bank):
    async with bank.running():
        await bank.tell((0, "a"), (1, "bb"))
        assert await bank.catches_up()
    newer = lists(version=2, topic=bank.view.sources[0])
    async with bank.running(newer):
        assert await comes(lambda: _live_code(bank, 2))
        assert await bank.catches_up()
    async with bank.running() as runner:
        assert await comes(_async(lambda: runner.not_ready() == ["lists: was built by newer code"]))
    assert [(one.number, one.code, one.state) for one in await bank.generations().all()] == [
        (1, 1, "retired"),
        (2, 2, "live"),
    ]


def _page() -> str:
    return generate_latest(metrics.REGISTRY).decode()


async def _live_code(bank: Bank, code: int) -> bool:
    live = await bank.generations().live()
    return live is not None and live.code == code


def _async(what: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return what()

    return asked


async def test_poison_is_seen_released_on_request_and_everything_in_between_is_in_order(bank):
    async with bank.running():
        await bank.tell((0, "a"), (0, "poison"), (1, "bb"), (0, "ccc"))
        assert await bank.catches_up()
        [parked] = await parked_of(bank.mongo)
        live = await bank.generations().live()
        assert (parked.subject, parked.sequence, parked.held) == (SUBJECTS[0], 2, 2)
        assert (await bank.shown())["lists"][str(SUBJECTS[0])]["words"] == ["a"]
        bank.repairs.done = True
        assert await want(bank.mongo, live.group, ("customer", SUBJECTS[0]), "release")
        assert await comes(_nobody_waits(bank))
        assert await bank.shown() == folded(bank.view, bank.words.all())


def _nobody_waits(bank: Bank) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return not await parked_of(bank.mongo)

    return asked


async def test_two_runners_share_a_view(bank):
    async with bank.running():
        await bank.tell((0, "a"), (1, "bb"))
        assert await bank.catches_up()
        async with bank.running():
            for number in range(20):
                await bank.tell((number % 5, f"{number}"))
            assert await bank.catches_up()
        await bank.tell((0, "z"))
        assert await bank.catches_up()
    assert await bank.shown() == folded(bank.view, bank.words.all())


async def test_what_was_retired_is_dropped_after_a_while_and_strangers_at_once(bank):
    generations = bank.generations()
    old, new = await generations.begin(), await generations.begin()
    assert await generations.switch(old)
    assert await generations.switch(new)
    assert not await generations.switch(old)
    assert await generations.live() == (await generations.all())[1]
    await bank.mongo.insert_new("lists_v9_lists", {"_id": 1})
    assert await generations.sweep() == []
    assert await owned(bank) == [
        "lists_v1_entries", "lists_v1_lists", "lists_v2_entries", "lists_v2_lists",
    ]  # fmt: skip
    long_ago = CLOCK.now().replace(year=2020)
    await bank.mongo.update(GENERATIONS, {"number": 1}, {"$set": {"changed_at": long_ago}})
    assert [one.number for one in await generations.sweep()] == [1]
    assert await owned(bank) == ["lists_v2_entries", "lists_v2_lists"]
    with pytest.raises(ValueError, match="live"):
        await generations.drop(new)


async def test_what_was_retired_is_kept_as_long_as_the_live_one_lacks_something_of_it(bank):
    """Readers stay with it until then; were it dropped before, they would read nothing."""
    generations, reader = bank.generations(), bank.reader()
    old, new = await generations.begin(), await generations.begin()
    assert await generations.switch(old)
    place = (bank.view.sources[0], 0)
    await generations.checkpoints(old).advance({place: Position(4, "customer", 4, None)})
    await generations.checkpoints(old).reaching(
        {place: 5}
    )  # its consumer ended before it saved its checkpoint
    assert (await reader.live("lists")).number == 1
    assert await generations.switch(new)
    long_ago = {"$set": {"changed_at": CLOCK.now().replace(year=2020)}}
    await bank.mongo.update(GENERATIONS, {"_id": "lists|1"}, long_ago)
    await asyncio.sleep(LIVE_CACHED_SECONDS)
    assert await generations.sweep() == []
    assert (await reader.live("lists")).number == 1
    await generations.checkpoints(new).advance({place: Position(4, "customer", 4, None)})
    assert await generations.sweep() == []
    await asyncio.sleep(LIVE_CACHED_SECONDS)
    assert (await reader.live("lists")).number == 1
    await generations.checkpoints(new).advance({place: Position(5, "customer", 5, None)})
    assert await generations.sweep() == []
    await asyncio.sleep(LIVE_CACHED_SECONDS)
    assert (await reader.live("lists")).number == 2
    await bank.mongo.update(GENERATIONS, {"_id": "lists|1"}, long_ago)
    assert [one.number for one in await generations.sweep()] == [1]


async def test_readers_of_two_versions_side_by_side_read_what_their_own_code_folded(bank):
    newer = lists(bank.repairs, version=2, topic=bank.view.sources[0])
    older_reads, newer_reads = bank.reader(), ViewReader(bank.mongo, CLOCK, [newer])
    async with bank.running():
        await bank.tell((0, "a"), (1, "bb"))
        assert await bank.catches_up()
        with pytest.raises(NotBuilt):
            await newer_reads.live("lists")
        assert not await newer_reads.wait_for("customer", 1, 0.05)
        async with bank.running(newer):
            assert await newer_reads.wait_for("customer", bank.words.position, WITHIN_SECONDS)
            assert (await newer_reads.live("lists")).code == 2
            assert (await bank.reader().live("lists")).code == 1
            assert (await older_reads.live("lists")).code == 1
            await bank.mongo.update(
                GENERATIONS, {"_id": "lists|1"}, {"$set": {"changed_at": CLOCK.now().replace(year=2020)}}
            )
            await bank.generations(newer).sweep()
            with pytest.raises(NotBuilt):
                await bank.reader().live("lists")


async def test_a_view_that_changed_under_its_version_is_not_taken_for_the_same(bank):
    async with bank.running():
        await bank.tell((0, "a"))
        assert await bank.catches_up()
    other = replace(bank.view, events=frozenset({*bank.view.events, "customer.registered"}))
    async with bank.running(other) as runner:

        async def said() -> bool:
            return any("raise the version" in reason for reason in runner.not_ready())

        assert await comes(said)
    with pytest.raises(NotBuilt):
        await ViewReader(bank.mongo, CLOCK, [other]).live("lists")


async def owned(bank: Bank) -> list[str]:
    return [name for name in await bank.mongo.collections() if owner_of(name)[0] == "lists"]


@pytest.mark.parametrize("other", ["lists_visits", "lists_v", "lists_visits_of_2026", "lists_vx1_y"])
async def test_sweeping_and_dropping_leave_a_view_alone_whose_name_begins_alike(bank, other):
    generations = bank.generations()
    neighbour = bank.generations(replace(bank.view, name=other))
    await shown_generation(neighbour)
    old, new = await generations.begin(), await generations.begin()
    assert await generations.switch(old)
    assert await generations.switch(new)
    long_ago = CLOCK.now().replace(year=2020)
    await bank.mongo.update(GENERATIONS, {"_id": "lists|1"}, {"$set": {"changed_at": long_ago}})
    for _ in range(2):
        await generations.sweep()
        await neighbour.sweep()
    names = await bank.mongo.collections()
    assert {f"{other}_v1_lists", f"{other}_v1_entries"} <= set(names)
    assert await owned(bank) == ["lists_v2_entries", "lists_v2_lists"]
    await neighbour.drop(await neighbour.begin())
    assert {f"{other}_v1_lists", "lists_v2_lists"} <= set(await bank.mongo.collections())


@pytest.mark.parametrize("name", ["lists_v1", "lists_v1_old", "Lists", "", "a.b", "1st", "lists\n"])
def test_a_view_whose_name_could_be_a_generation_of_another_is_refused(bank, name):
    with pytest.raises(ValueError, match="name of a view"):
        replace(bank.view, name=name)


async def test_the_number_of_a_group_that_read_before_is_not_taken_again(bank):
    generations = bank.generations()

    async def used(group: str) -> bool:
        return group.endswith((".v1", ".v2"))

    assert (await generations.begin(used)).number == 3


def test_dead_letters_go_where_the_registry_has_a_topic(bank):
    assert bank.generations().dead_letters == f"{bank.service}.lists.v1.dead-letters"
    known = topics.CONSUMERS[0]
    service, view, _ = known.name.split(".")
    named = View(view, 7, (), frozenset(), (), lambda _: (), lambda *_: None)
    assert Generations(bank.mongo, named, service, CLOCK).dead_letters == known.dead_letters.name


@pytest.mark.requirement("D10")
async def test_the_other_driver_carries_a_view_too(bank, mongo_url):
    other = bank.mongo = Mongo.connect(mongo_url, "motor", bank.mongo.name)
    async with bank.running():
        await bank.tell((0, "a"), (1, "poison"), (1, "bb"), (0, "gone"))
        assert await bank.catches_up()
        assert await bank.shown() == folded(bank.view, bank.words.all(), until_poison=True)
        [parked] = await parked_of(other)
        assert parked.held == 2
    await other.close()


@pytest.mark.parametrize("server", ["mongo", "kafka"])
async def test_a_server_that_is_killed_under_load_and_comes_back_leaves_the_plain_fold(
    bank, devservers, server
):
    stopping, working = asyncio.Event(), True
    lost = 0

    async def role() -> None:
        """As the process that hosts it does: begins again when a server was lost."""
        nonlocal lost
        while not stopping.is_set():
            try:
                await bank.runner().run(stopping)
            except ConnectionError:
                lost += 1
                await asyncio.sleep(0.1)

    async def talk() -> None:
        number = 0
        while working:
            number += 1
            await bank.tell(*[(number % 5, f"{number}") for _ in range(20)])
            await asyncio.sleep(0.01)

    running = asyncio.create_task(role())
    await bank.tell((0, "a"))
    assert await bank.catches_up()
    talking = asyncio.create_task(talk())
    try:
        await asyncio.sleep(0.3)
        working = server == "mongo"
        if not working:
            await talking
        servers = devservers.one(server)
        os.kill(servers.pids[server], signal.SIGKILL)
        await asyncio.sleep(0.5)
        servers.restart(server)
        await asyncio.sleep(0.3)
    finally:
        working = False
        await talking
    await bank.tell((1, "last"))
    assert await comes(lambda: _caught_up(bank))
    stopping.set()
    await running
    assert await bank.shown() == folded(bank.view, bank.words.all())
    assert not await parked_of(bank.mongo)


async def _caught_up(bank: Bank) -> bool:
    with suppress(ConnectionError):
        return await bank.reader().applied("lists", "customer") >= bank.words.position
    return False
