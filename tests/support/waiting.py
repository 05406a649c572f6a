"""Waiting for a condition, with a limit, and with words for what did not come."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import cast

from chassis.clock import SystemClock

WITHIN_SECONDS = 100.0
_CLOCK = SystemClock()

Condition = Callable[[], object] | Callable[[], Awaitable[object]]


async def comes(condition: Callable[[], Awaitable[bool]]) -> bool:
    """Whether a condition becomes true within `WITHIN_SECONDS`."""
    until = _CLOCK.monotonic() + WITHIN_SECONDS
    while not await condition():
        if _CLOCK.monotonic() > until:
            return False
        await asyncio.sleep(0.05)
    return True


async def until(
    condition: Condition, *, what: Callable[[], object] | str = "", seconds_max: float = WITHIN_SECONDS
) -> None:
    """Waits until a condition is true.

    Where it does not become true in time, the error shows the condition and `what`: a text, or what a function
    finds at the end.
    """
    end = _CLOCK.monotonic() + seconds_max
    while not await _true(condition):
        if _CLOCK.monotonic() > end:
            found = what() if callable(what) else what
            raise AssertionError(f"not within {seconds_max:g} s: {_text(condition)} {found}".rstrip())
        await asyncio.sleep(0.02)


async def _true(condition: Condition) -> bool:
    found = condition()
    return bool(await cast("Awaitable[object]", found) if inspect.isawaitable(found) else found)


def _text(condition: Condition) -> str:
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):
        return repr(condition)
