"""Waiting for a condition, with a limit."""

import asyncio
from collections.abc import Awaitable, Callable

from chassis.clock import SystemClock

WITHIN_SECONDS = 100.0
_CLOCK = SystemClock()


async def comes(condition: Callable[[], Awaitable[bool]]) -> bool:
    """Whether a condition becomes true within `WITHIN_SECONDS`."""
    until = _CLOCK.monotonic() + WITHIN_SECONDS
    while not await condition():
        if _CLOCK.monotonic() > until:
            return False
        await asyncio.sleep(0.05)
    return True
