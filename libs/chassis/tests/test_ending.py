"""Tasks whose outcome no longer matters end, whatever becomes of their cancellation."""

import asyncio
import threading
from contextlib import suppress

import pytest
from chassis.ending import Threads, ended, set_within, together
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=4))
async def test_a_task_that_loses_cancellations_is_cancelled_until_it_ends(lost):
    async def losing(times: int) -> None:
        for _ in range(times):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        await asyncio.sleep(60)

    tasks = [asyncio.create_task(losing(times)) for times in lost]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await ended(*tasks, cancelled_again_seconds=0.001)
    assert all(task.cancelled() for task in tasks)


async def test_a_result_and_an_error_are_dropped():
    async def failing() -> None:
        raise ValueError

    async def answering() -> int:
        return 1

    tasks = [asyncio.create_task(failing()), asyncio.create_task(answering())]
    await asyncio.sleep(0)
    await ended(*tasks)
    assert [task.done() for task in tasks] == [True, True]


async def test_whoever_ends_tasks_can_be_cancelled():
    leaving = asyncio.Event()

    async def deaf() -> None:
        while not leaving.is_set():
            with suppress(asyncio.CancelledError):
                await leaving.wait()

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ended(task)
    leaving.set()
    await task


async def test_when_one_cannot_go_on_the_others_are_told_and_its_error_is_raised():
    finished = []

    async def working(stopping: asyncio.Event) -> None:
        await stopping.wait()
        finished.append("working")

    async def failing(stopping: asyncio.Event) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        await together(asyncio.Event(), working, failing, working)
    assert finished == ["working", "working"]


async def test_all_finish_their_work_when_they_are_told_to_stop():
    stopping, finished = asyncio.Event(), []

    async def working(told: asyncio.Event) -> None:
        await told.wait()
        finished.append(told is stopping)

    running = asyncio.create_task(together(stopping, working, working))
    await asyncio.sleep(0)
    stopping.set()
    await running
    assert finished == [False, False]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_whose_caller_was_cancelled_is_waited_for_and_only_for_so_long(fails):
    goes_on, begun, ends = threading.Event(), threading.Event(), []

    def call():
        begun.set()
        goes_on.wait(60)
        ends.append(1)
        if fails:
            raise ValueError

    threads = Threads("test", 1)
    callers = [asyncio.create_task(threads.run(call)) for _ in range(2)]
    async with asyncio.timeout(60):
        while not begun.is_set():  # noqa: ASYNC110 - a thread says it
            await asyncio.sleep(0.001)
        await ended(*callers)
        assert not await threads.ended(0.001)
        goes_on.set()
        assert await threads.ended(60)
    assert ends == [1], "what had not begun does not begin"
    with pytest.raises(RuntimeError):
        await threads.run(call)


async def test_a_call_in_a_thread_returns_or_raises_to_its_caller():
    threads = Threads("test", 2)
    assert await threads.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 7, 0)
    assert await threads.ended(60)


async def test_an_event_is_waited_for_so_long_at_most():
    event = asyncio.Event()
    assert not await set_within(event, 0.01)
    setting = asyncio.create_task(_set_soon(event))
    async with asyncio.timeout(30):
        assert await set_within(event, 60)
        assert await set_within(event, 60)
    await setting


async def _set_soon(event: asyncio.Event) -> None:
    await asyncio.sleep(0.01)
    event.set()
