"""Tasks that run and end together, and the ending of tasks whose outcome no longer matters."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

CANCELLED_AGAIN_SECONDS: Final = 5.0


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
