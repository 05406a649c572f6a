"""Work that a process looks for beside its own: it is tried again at the next look until it is done."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from chassis.clock import Clock
from chassis.connections.transient import is_transient, why
from chassis.ending import ended

T = TypeVar("T")


@asynccontextmanager
async def looking(look: Callable[[], Awaitable[bool]], clock: Clock, seconds: float) -> AsyncIterator[None]:
    """Looks meanwhile, every so many seconds; again at once where `look` returns that more is to be done."""

    async def follow() -> None:
        while True:
            if not await look():
                await clock.sleep(seconds)

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        await ended(task)


async def attempted(work: Awaitable[T], log: Any, *, waits: str, broke: str) -> T | None:
    """The result; None where the work failed, which `log` is told in these words. No work stops another."""
    try:
        return await work
    except Exception as error:
        if is_transient(error):
            log.warning(waits, reason=why(error))
        else:
            log.exception(broke)
        return None
