"""Tasks that run and end together, and the ending of what nobody waits for any more: tasks, calls in threads, connections."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final, TypeVar

Value = TypeVar("Value")

CANCELLED_AGAIN_SECONDS: Final = 5.0
CLOSING_SECONDS_MAX: Final = 5


async def ended(
    *tasks: "asyncio.Future[Any]", cancelled_again_seconds: float = CANCELLED_AGAIN_SECONDS
) -> None:
    """Cancels tasks and waits until all are done. What they return or raise is dropped.

    A task that is not done after some seconds is cancelled again. A library may lose a cancellation:
    `asyncio.wait_for` of Python 3.11 returns a result that arrives in the same turn of the loop, and a task
    that loops then goes on for ever.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=cancelled_again_seconds)
    for task in tasks:
        if not task.cancelled():
            task.exception()


async def together(
    stopping: asyncio.Event, *runs: Callable[[asyncio.Event], Coroutine[Any, Any, None]]
) -> None:
    """Runs all until `stopping`; when one returns or raises, the others are told to end too.

    Each is given the event that tells it to end. Returns when all have ended, and raises the error of the first
    in order that raised one.
    """
    done = asyncio.Event()
    tasks = [asyncio.create_task(run(done)) for run in runs]
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([*tasks, told], return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
        done.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def set_within(event: asyncio.Event, seconds_max: float) -> bool:
    """Waits until an event is set, so long at most. Returns whether it is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds_max)
    return event.is_set()


class Threads:
    """Blocking calls of a role, in threads of its own. A call goes on when the task that waits for it is cancelled.

    Whoever closes what the calls use waits for their end first.
    """

    def __init__(self, name: str, threads_max: int) -> None:
        self._executor = ThreadPoolExecutor(threads_max, thread_name_prefix=name)
        self._calls: set[Future[Any]] = set()

    async def run(self, call: Callable[..., Value], *arguments: Any) -> Value:
        """As `asyncio.to_thread`. Raises RuntimeError after `ended`."""
        future = self._executor.submit(copy_context().run, call, *arguments)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return await asyncio.wrap_future(future)

    async def ended(self, seconds_max: float) -> bool:
        """Waits for the calls that go on, and lets no other begin. Returns whether all have ended in time."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        calls = [asyncio.wrap_future(call) for call in list(self._calls)]
        if not calls:
            return True
        done, left = await asyncio.wait(calls, timeout=seconds_max)
        for call in done:
            if not call.cancelled():
                call.exception()
        return not left


async def closed(close: Callable[[], Awaitable[None]], seconds_max: float = CLOSING_SECONDS_MAX) -> None:
    """Closes a connection; raises TimeoutError where that takes longer."""
    async with asyncio.timeout(seconds_max):
        await close()
