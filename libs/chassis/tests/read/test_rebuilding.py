"""A view is rebuilt beside the live one: compared, switched, gone on with after an interruption, equal to the fold."""

import asyncio
from dataclasses import replace

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from chassis.clock import SystemClock
from chassis.messaging.broker import Kafka
from chassis.messaging.transport import TopicDiffers
from chassis.read.rebuilding import Differs, Incomplete, Interrupted, compare, documents_hash, rebuild

from tests.support.lists import SUBJECTS, folded, lists
from tests.support.waiting import comes, until

from .test_viewing import Bank, bank

__all__ = ["bank"]
CLOCK = SystemClock()


async def rebuilt(bank: Bank, **options):
    return await rebuild(
        bank.generations(), broker=Kafka(bank.kafka_url), publisher=bank.publisher, clock=CLOCK, **options
    )


@pytest.mark.requirement("M21")
async def test_a_rebuild_beside_the_live_view_gives_the_same_and_the_runner_follows(bank):
    async with bank.running() as runner:
        await bank.tell((0, "a"), (1, "bb"), (0, "gone"), (0, "ccc"))
        assert await bank.catches_up()
        live = await bank.generations().live()
        before = await documents_hash(bank.mongo, bank.view, live)
        told = []
        result = await rebuilt(bank, progress=told.append)
        assert (result.generation.number, result.replaced, result.resumed) == (2, live, False)
        assert result.comparison.equal
        assert result.comparison.documents == 6
        assert result.hash == before
        assert [told[0].step, told[-1].step] == ["catching up", "switching"]
        assert told[-1].left == 0
        await bank.tell((0, "more"), (4, "e"))
        assert await bank.catches_up()
        assert await bank.shown() == folded(bank.view, bank.words.all())
        await until(lambda: runner.not_ready() == [], what=runner.not_ready)


@pytest.mark.requirement("D04")
async def test_a_dropped_database_is_rebuilt_to_an_equal_hash(bank):
    async with bank.running():
        await bank.tell((0, "a"), (1, "bb"), (0, "gone"), (0, "ccc"))
        assert await bank.catches_up()
    before = await documents_hash(bank.mongo, bank.view, await bank.generations().live())
    await bank.mongo.drop_database()
    result = await rebuilt(bank)
    assert (result.hash, result.replaced, result.comparison) == (before, None, None)
    assert await bank.shown() == folded(bank.view, bank.words.all())


async def test_differences_are_named_and_the_fold_of_the_log_wins(bank):
    async with bank.running():
        await bank.tell((0, "a"), (1, "bb"), (2, "ccc"))
        assert await bank.catches_up()
    live = await bank.generations().live()
    changed, extra, missing = (str(subject) for subject in SUBJECTS[:3])
    await bank.mongo.update(f"{live.prefix}lists", {"_id": changed}, {"$set": {"length": 99}})
    await bank.mongo.insert_new(f"{live.prefix}lists", {"_id": "extra", "_seq": 1})
    await bank.mongo.delete(f"{live.prefix}lists", {"_id": missing})
    with pytest.raises(Differs, match="1 documents that differ"):
        await rebuilt(bank, compare_rounds_max=2)
    assert await bank.generations().live() == live
    result = await rebuilt(bank, accept_differences=True, compare_rounds_max=2)
    assert result.resumed
    assert (result.comparison.differences, result.comparison.unsettled) == (1, 2)
    assert set(result.comparison.named) == {f"lists/{changed}", "lists/extra", f"lists/{missing}"}
    assert await bank.shown() == folded(bank.view, bank.words.all())
    assert extra in (await bank.shown())["lists"]


async def test_an_interrupted_rebuild_goes_on(bank):
    await bank.tell(*[(number % 5, f"{number}") for number in range(2_000)])
    stopping = asyncio.Event()

    def stop(progress) -> None:
        if progress.applied:
            stopping.set()

    with pytest.raises(Interrupted):
        await rebuilt(bank, stopping=stopping, progress=stop, batch_records=5, caught_up_records_max=0)
    [begun] = await bank.generations().all()
    assert begun.state == "building"
    reached = sum(at.offset for at in (await bank.generations().checkpoints(begun).positions()).values())
    assert 0 < reached < 2_002
    result = await rebuilt(bank, caught_up_records_max=0)
    assert (result.resumed, result.generation.number) == (True, 1)
    assert result.records <= 2_002 - reached + 2 * 5
    assert await bank.shown() == folded(bank.view, bank.words.all())


@pytest.mark.requirement("M21")
async def test_views_are_compared_and_read_while_they_move(bank):
    async with bank.running():
        await bank.tell((0, "a"), (1, "bb"))
        assert await bank.catches_up()
        working, reads, before = True, [], await bank.shown()

        async def read() -> None:
            while working:
                shown = await bank.shown()
                assert all(shown[name].keys() >= before[name].keys() for name in before)
                reads.append(await bank.generations().live())
                await asyncio.sleep(0.01)

        async def talk() -> None:
            number = 0
            while working:
                number += 1
                await bank.tell((number % 5, f"{number}"))

        talking, reading = asyncio.create_task(talk()), asyncio.create_task(read())
        result = await rebuilt(bank)
        enough = len(reads) + 3
        while len(reads) < enough and not reading.done():  # noqa: ASYNC110 - until it read after the switch
            await asyncio.sleep(0.01)
        working = False
        await asyncio.gather(talking, reading)
        assert result.comparison.equal
        assert {generation.number for generation in reads} == {1, 2}, "before and after the switch"
        assert await bank.catches_up()
        assert await bank.shown() == folded(bank.view, bank.words.all())


async def test_a_generation_that_stays_behind_is_not_called_equal(bank):
    async with bank.running():
        await bank.tell((0, "a"))
        assert await bank.catches_up()
    await bank.tell((0, "bb"))
    result = await rebuilt(bank, accept_differences=True, compare_rounds_max=2)
    assert not result.comparison.equal
    assert result.comparison.differences == 0
    one, other = await bank.generations().all()
    assert not (await compare(bank.generations(), one, other, rounds_max=2)).equal


async def test_a_view_over_a_topic_whose_first_records_are_gone_is_neither_built_nor_shown(bank):
    async with bank.running():
        await bank.tell(*[(number % 5, f"{number}") for number in range(40)])
        assert await bank.catches_up()
    live = await bank.generations().live()
    admin = AIOKafkaAdminClient(bootstrap_servers=bank.kafka_url)
    await admin.start()
    await admin.delete_records({TopicPartition(bank.view.sources[0], 0): RecordsToDelete(before_offset=10)})
    await admin.close()
    with pytest.raises(TopicDiffers, match="begins at offset 10"):
        await rebuilt(bank)
    assert await bank.generations().all() == [live]


async def test_a_topic_that_holds_only_a_tail_is_neither_shown_by_the_role_nor_by_a_rebuild(bank):
    """It was made anew, so it begins at its first offset, and nothing is live to compare with."""
    for number in range(10):
        bank.words.say(number % 5, f"{number}")
    bank.skips_what_was_not_told()
    await bank.tell((0, "tail"), (1, "tail"))
    async with bank.running() as runner:

        async def said() -> bool:
            return any("10 published events are not in the topic" in each for each in runner.not_ready())

        assert await comes(said)
    assert await bank.generations().live() is None
    with pytest.raises(Incomplete, match="10 published events are not in the topic"):
        await rebuilt(bank)
    assert await bank.generations().live() is None
    result = await rebuilt(bank, accept_differences=True)
    assert (result.missing, result.resumed) == (10, True)
    async with bank.running() as runner:
        assert await comes(said), "what was accepted is still said"


async def test_newer_code_that_shows_fewer_documents_waits_for_a_person(bank):
    async with bank.running():
        await bank.tell((0, "a"), (1, "bb"), (2, "ccc"))
        assert await bank.catches_up()
    live = await bank.generations().live()
    newer = lists(version=2, topic=bank.view.sources[0])
    bank.view = replace(newer, keys=lambda event: [key for key in newer.keys(event) if event.position > 1])
    async with bank.running() as runner:

        async def said() -> bool:
            return any("1 documents fewer in lists" in reason for reason in runner.not_ready())

        assert await comes(said)
    assert await bank.generations().live() == live
    with pytest.raises(Differs, match="lacks 2"):
        await rebuilt(bank)
    result = await rebuilt(bank, accept_differences=True)
    assert (result.comparison.fewer, result.resumed) == (2, True)
    assert (await bank.generations().live()).code == 2


async def test_newer_code_is_compared_with_older_by_numbers_alone(bank):
    async with bank.running():
        await bank.tell((0, "a"))
        assert await bank.catches_up()
    bank.view = lists(version=2, topic=bank.view.sources[0])
    result = await rebuilt(bank)
    assert result.comparison.equal
    assert result.comparison.documents == 0
    assert result.replaced.code == 1


async def test_the_hash_is_of_what_is_there_and_of_nothing_else(bank):
    async with bank.running():
        await bank.tell((0, "a"), (1, "bb"))
        assert await bank.catches_up()
    live = await bank.generations().live()
    before = await documents_hash(bank.mongo, bank.view, live)
    where = {"_id": str(SUBJECTS[0])}
    [document] = await bank.mongo.find(f"{live.prefix}lists", where)
    await bank.mongo.delete(f"{live.prefix}lists", where)
    assert await documents_hash(bank.mongo, bank.view, live) != before
    await bank.mongo.insert_new(f"{live.prefix}lists", dict(reversed(document.items())))
    assert await documents_hash(bank.mongo, bank.view, live) == before
    await bank.mongo.update(f"{live.prefix}lists", where, {"$set": {"length": 2}})
    assert await documents_hash(bank.mongo, bank.view, live) != before
