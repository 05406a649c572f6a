"""Reads that meet go out together, and nobody gets an answer from before its question."""

import asyncio

import pytest
from chassis.connections.coalescing import COALESCED_MAX, Coalesced, TooManyWaiting


class Source:
    """Loads when told to; remembers what was asked together."""

    def __init__(self):
        self.asked = []
        self.open = asyncio.Event()
        self.value = 0

    async def load(self, keys):
        self.asked.append(list(keys))
        value = self.value
        await self.open.wait()
        return dict.fromkeys(keys, value)


async def begun(*reads):
    tasks = [asyncio.create_task(read) for read in reads]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_is_asked_meanwhile_goes_out_together():
    source = Source()
    coalesced = Coalesced(source.load)
    first = await begun(coalesced.get("first"))
    rest = await begun(*(coalesced.get(f"k{n}") for n in range(COALESCED_MAX + 1)))
    source.open.set()
    assert [await task for task in first + rest] == [0] * (COALESCED_MAX + 2)
    assert [len(keys) for keys in source.asked] == [1, COALESCED_MAX, 1]


async def test_who_gets_no_answer_is_told_so():
    async def load(keys):
        return dict.fromkeys(keys[1:], 1)

    coalesced = Coalesced(load)
    for answer in await asyncio.gather(coalesced.get("a"), coalesced.get("b"), return_exceptions=True):
        assert isinstance(answer, KeyError)


async def test_a_read_is_never_answered_by_one_that_began_before_it():
    source = Source()
    coalesced = Coalesced(source.load)
    early = await begun(coalesced.get("k"))
    source.value = 1
    late = await begun(coalesced.get("k"))
    source.open.set()
    assert [await early[0], await late[0]] == [0, 1]


async def test_a_failure_is_told_to_everybody_who_waited_for_it_and_to_nobody_else():
    failing = True

    async def load(keys):
        if failing:
            raise ConnectionError(keys[0])
        return dict.fromkeys(keys, 1)

    coalesced = Coalesced(load)
    for answer in await asyncio.gather(coalesced.get("a"), coalesced.get("b"), return_exceptions=True):
        assert isinstance(answer, ConnectionError)
    failing = False
    assert await coalesced.get("a") == 1


async def test_what_is_wrong_with_one_key_is_told_to_who_asked_for_it():
    loads = []

    async def load(keys):
        loads.append(list(keys))
        if "b" in keys:
            raise ValueError("b")
        return dict.fromkeys(keys, 1)

    coalesced = Coalesced(load)
    a, b, c = await asyncio.gather(*map(coalesced.get, "abc"), return_exceptions=True)
    assert (a, str(b), c) == (1, "b", 1)
    assert loads == [["a", "b", "c"], ["a"], ["b"], ["c"]]


async def test_a_caller_who_leaves_takes_no_one_along():
    source = Source()
    coalesced = Coalesced(source.load)
    first, second = await begun(coalesced.get("k"), coalesced.get("k"))
    first.cancel()
    source.open.set()
    assert await second == 0


async def test_waiting_is_bounded():
    source = Source()
    coalesced = Coalesced(source.load, waiting_max=3)
    tasks = [task for n in range(1 + 3) for task in await begun(coalesced.get(f"k{n}"))]
    with pytest.raises(TooManyWaiting):
        await coalesced.get("one more")
    source.open.set()
    assert await asyncio.gather(*tasks) == [0] * len(tasks)
