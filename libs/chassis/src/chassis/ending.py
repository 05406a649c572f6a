"""Ending tasks whose outcome no longer matters."""

import asyncio
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
