"""Runs what was started: in every process that follows, again after a crash, until it is finished or paused."""

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar
from uuid import UUID

import structlog

from chassis.bulk.running import Bulk
from chassis.clock import Clock
from chassis.process.looking import attempted, looking

LOOK_SECONDS: Final = 1.0

T = TypeVar("T")

_log = structlog.get_logger()


def following(
    bulk: Bulk, clock: Clock, *, look_seconds: float = LOOK_SECONDS
) -> AbstractAsyncContextManager[None]:
    """Does the items of every run that was started, some of each run in turn: no run waits for the end of another.

    Several processes may follow at once. That costs work, and changes no result.
    """

    async def look() -> bool:
        runs = await _done(None, bulk.started()) or []
        status = [await _done(run, bulk.run(run, chunks_max=1)) for run in runs]
        return "running" in status

    return looking(look, clock, look_seconds)


async def _done(run: UUID | None, work: Awaitable[T]) -> T | None:
    return await attempted(work, _log.bind(run=str(run)), waits="bulk runs wait", broke="a bulk run broke")
