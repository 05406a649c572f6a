"""Sums in buckets on a real database: no document is left out, and what is read late replaces nothing newer."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest
from chassis.read.documents import GONE, ID, SEQUENCE, Change, Document, Written
from chassis.read.mongo import Mongo, MongoDocuments
from chassis.read.summing import BUCKET, GROUPS, SUMMED_AT_ONCE, Marks, Summing, Sums, SumsReader, Waits
from typing_extensions import override

PREFIX, SIGNS = "signs_v1_", "signs"
DAY, LATER = "2026-01-05", "2026-02-01"


def summands(sign: Document) -> Iterable[tuple[str | None, Mapping[str, int]]]:
    yield sign["colour"], {"signs": 1, "lamps": sign["lamps"]}


SUMS = Sums("colours", 3, ("colour", "lamps"), summands)


async def still() -> bool:
    return True


class Late(MongoDocuments):
    """Documents of a summer that has read them, and waits before it writes its sums."""

    def __init__(self, mongo: Mongo) -> None:
        super().__init__(mongo, PREFIX)
        self.read, self.going_on = asyncio.Event(), asyncio.Event()

    @override
    async def write(self, collection: str, changes: Sequence[Change]) -> Written:
        self.read.set()
        await self.going_on.wait()
        return await super().write(collection, changes)


class Signs:
    """Signs that somebody writes and marks, and what they add up to."""

    def __init__(self, mongo: Mongo, sums: Sums = SUMS) -> None:
        self.mongo = mongo
        self.sums = sums
        self.documents = MongoDocuments(mongo, PREFIX)
        self.summing = Summing(sums, self.documents, SIGNS, "changes_on")

    async def put(self, *numbers: int, marked: bool = True, **fields: Any) -> None:
        """Writes signs anew, and marks their buckets."""
        ids = [str(UUID(int=number)) for number in numbers]
        there = await self.documents.load(SIGNS, ids)
        changes = []
        for id in ids:
            before = there[id][SEQUENCE] if id in there else None
            document = {"colour": "red", "lamps": 1, "changes_on": None, **fields}
            placed = {**document, BUCKET: self.sums.bucket_of(id), ID: id, SEQUENCE: (before or 0) + 1}
            changes.append(Change(id, before, (before or 0) + 1, self.documents.freeze(placed)))
        assert not (await self.documents.write(SIGNS, changes)).conflicts
        if marked:
            await self.summing.mark(ids)

    async def shown(self) -> dict[str | None, dict[str, int]]:
        found = await self.reader().read(lambda _: True)
        return {group: dict(of) for group, of in found.groups.items()}

    def reader(self) -> SumsReader:
        return SumsReader("signs", self.sums, SIGNS, self.mongo, self)

    async def collection(self, view: str, name: str) -> str:
        return f"{view}_v1_{name}"

    async def settled(self) -> bool:
        return (await self.reader().read(lambda _: True)).settled


@pytest.fixture
async def signs(mongo: Mongo) -> Signs:
    return Signs(mongo)


async def test_ten_thousand_documents_and_more_are_all_counted(signs: Signs) -> None:
    await signs.put(*range(10_500))
    assert not await signs.settled()
    assert await signs.summing.sum_marked(still) == SUMS.buckets
    assert await signs.shown() == {"red": {"signs": 10_500, "lamps": 10_500}}
    assert await signs.settled()


async def test_one_change_reads_one_bucket_and_many_changes_of_it_read_it_once(signs: Signs) -> None:
    await signs.put(*range(30))
    await signs.summing.sum_marked(still)
    for lamps in range(5):
        await signs.put(7, lamps=lamps)
    assert await signs.summing.sum_marked(still) == 1
    assert await signs.summing.sum_marked(still) == 0
    assert await signs.shown() == {"red": {"signs": 30, "lamps": 29 + 4}}


async def test_a_document_that_goes_or_moves_to_another_group_is_counted_there_alone(signs: Signs) -> None:
    await signs.put(1, 2, 3)
    await signs.summing.sum_marked(still)
    await signs.put(1, colour=None)
    await signs.put(2, **{GONE: True})
    await signs.summing.sum_marked(still)
    assert await signs.shown() == {None: {"signs": 1, "lamps": 1}, "red": {"signs": 1, "lamps": 1}}
    await signs.put(1, 3, **{GONE: True})
    await signs.summing.sum_marked(still)
    assert await signs.shown() == {}


async def test_names_are_any_text_and_sums_are_larger_than_what_the_database_counts_in(signs: Signs) -> None:
    names = ['a.b$c"', "$where", "line\nend", "支行007", ""]
    for number, colour in enumerate(names):
        await signs.put(*range(number * 10, number * 10 + 10), colour=colour, lamps=9 * 10**18)
    await signs.summing.sum_marked(still)
    assert await signs.shown() == {colour: {"signs": 10, "lamps": 9 * 10**19} for colour in names}
    some = await signs.reader().read(lambda colour: colour == "$where")
    assert set(some.groups) == {"$where"}


async def test_a_reader_that_goes_on_shows_what_buckets_are_and_not_what_they_were(signs: Signs) -> None:
    reader = signs.reader()
    assert (await reader.read(lambda _: True)).groups == {}
    await signs.put(*range(20))
    await signs.summing.sum_marked(still)
    assert (await reader.read(lambda _: True)).groups == {"red": {"signs": 20, "lamps": 20}}
    await signs.put(1, 2, colour="blue", lamps=9)
    await signs.put(3, lamps=0)
    await signs.summing.sum_marked(still)
    both = await asyncio.gather(reader.read(lambda _: True), reader.read(lambda colour: colour == "blue"))
    assert both[0].groups == {"red": {"signs": 18, "lamps": 17}, "blue": {"signs": 2, "lamps": 18}}
    assert both[1].groups == {"blue": {"signs": 2, "lamps": 18}}


async def test_amounts_that_cancel_out_are_no_sum(signs: Signs) -> None:
    await signs.put(1, lamps=5)
    await signs.put(2, lamps=-5)
    await signs.summing.sum_marked(still)
    assert await signs.shown() == {"red": {"signs": 2}}


async def test_who_read_a_bucket_late_reads_it_again(signs: Signs) -> None:
    await signs.put(1)
    late = Late(signs.mongo)
    summing = asyncio.create_task(Summing(SUMS, late, SIGNS).sum_marked(still))
    await late.read.wait()
    await signs.put(1, lamps=7)
    assert await signs.summing.sum_marked(still) == 1
    late.going_on.set()
    await summing
    assert await signs.shown() == {"red": {"signs": 1, "lamps": 7}}
    [bucket] = await signs.mongo.find(PREFIX + SUMS.name)
    assert bucket[SEQUENCE] == 2, "both wrote, one after the other"


async def test_what_is_marked_while_its_bucket_is_summed_waits_to_be_summed_again(signs: Signs) -> None:
    await signs.put(1)
    late = Late(signs.mongo)
    summing = asyncio.create_task(Summing(SUMS, late, SIGNS).sum_marked(still))
    await late.read.wait()
    await signs.put(1, lamps=7)
    late.going_on.set()
    await summing
    assert await signs.shown() == {"red": {"signs": 1, "lamps": 1}}
    assert not await signs.settled()
    await signs.summing.sum_marked(still)
    assert await signs.shown() == {"red": {"signs": 1, "lamps": 7}}
    assert await signs.settled()


async def test_a_bucket_waits_until_none_of_its_documents_is_due(signs: Signs) -> None:
    await signs.put(1, changes_on=DAY)
    await signs.summing.sum_marked(still)
    assert await signs.settled()
    # The day comes: somebody marks what is due, writes it, and ends before it marks it again.
    await signs.summing.mark([str(UUID(int=1))], due_on=DAY)
    await signs.summing.sum_marked(still)
    assert not await signs.settled(), "what is due is not derived anew yet"
    await signs.put(1, lamps=3, changes_on=LATER, marked=False)
    await signs.summing.sum_marked(still)
    assert await signs.settled()
    assert await signs.shown() == {"red": {"signs": 1, "lamps": 3}}


async def test_who_may_sum_no_more_stops_and_another_one_sums_the_rest(mongo: Mongo) -> None:
    signs = Signs(mongo, Sums("colours", 50, SUMS.fields, summands))
    await signs.put(*range(500))
    turns = iter([True, False])

    async def once() -> bool:
        return next(turns)

    assert await signs.summing.sum_marked(once) == SUMMED_AT_ONCE
    assert not await signs.settled()
    assert await signs.summing.sum_marked(still) == 50 - SUMMED_AT_ONCE
    assert await signs.settled()
    assert await signs.shown() == {"red": {"signs": 500, "lamps": 500}}


async def test_every_bucket_of_a_new_generation_is_there(signs: Signs) -> None:
    assert await signs.summing.sum_all(still)
    assert [one[GROUPS] for one in await signs.mongo.find(PREFIX + SUMS.name)] == [[]] * SUMS.buckets


def test_a_change_waits_from_when_it_is_seen_until_it_is_summed() -> None:
    waits = Waits()

    def longest(changed: Mapping[int, int], summed: Mapping[int, int], now_seconds: float) -> float:
        return waits.longest_seconds(Marks(changed, summed), now_seconds)

    assert longest({1: 3, 2: 5}, {1: 3, 2: 5}, 10.0) == 0.0
    assert longest({1: 4, 2: 5}, {1: 3, 2: 5}, 20.0) == 0.0
    assert longest({1: 5, 2: 6}, {1: 3, 2: 5}, 30.0) == 10.0
    # What bucket 1 waited for is summed, though it changed again; bucket 2 has waited since.
    assert longest({1: 6, 2: 6}, {1: 5, 2: 5}, 50.0) == 20.0
    assert longest({1: 6, 2: 6}, {1: 5, 2: 6}, 60.0) == 10.0
    assert longest({1: 6, 2: 6}, {1: 6, 2: 6}, 70.0) == 0.0
    assert longest({1: 7, 2: 6}, {1: 6, 2: 6}, 80.0) == 0.0


def test_a_bucket_is_the_same_in_every_process() -> None:
    sums = Sums("colours", 256, (), summands)
    ids = [UUID(int=number) for number in range(4_096)]
    assert [sums.bucket_of(id) for id in ids] == [sums.bucket_of(str(id)) for id in ids]
    sizes = [0] * 256
    for id in ids:
        sizes[sums.bucket_of(id)] += 1
    assert max(sizes) < 3 * 16
    for buckets in (0, 10_001):
        with pytest.raises(ValueError, match="buckets"):
            Sums("colours", buckets, (), summands)
