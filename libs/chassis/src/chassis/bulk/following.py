"""Runs what was started: in every process that follows, again after a crash, until it is finished or paused."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final, TypeVar
from uuid import UUID

import structlog

from chassis.bulk.running import Bulk
from chassis.clock import Clock
from chassis.connections.transient import is_transient, why
from chassis.ending import ended

LOOK_SECONDS: Final = 1.0

T = TypeVar("T")

_log = structlog.get_logger()


@asynccontextmanager
async def following(bulk: Bulk, clock: Clock, *, look_seconds: float = LOOK_SECONDS) -> AsyncIterator[None]:
    """Does the items of every run that was started, some of each run in turn: no run waits for the end of another.

    Several processes may follow at once. That costs work, and changes no result.
    """

    async def follow() -> None:
        while True:
            runs = await _done(None, bulk.started()) or []
            status = [await _done(run, bulk.run(run, chunks_max=1)) for run in runs]
            if "running" not in status:
                await clock.sleep(look_seconds)

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        await ended(task)


async def _done(run: UUID | None, work: Awaitable[T]) -> T | None:
    """The result; None where it failed. The next look tries again, and no run stops another."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 (it is told, and tried again)
        if is_transient(error):
            _log.warning("bulk runs wait", run=str(run), reason=why(error))
        else:
            _log.exception("a bulk run broke", run=str(run))
        return None
