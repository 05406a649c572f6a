"""Makes the files that were released: in every process that follows, again after a crash, until they are made or have failed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final, TypeVar
from uuid import UUID

import structlog

from chassis.clock import Clock
from chassis.connections.transient import is_transient, why
from chassis.ending import ended
from chassis.exports.running import Exports

LOOK_SECONDS: Final = 1.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def making(
    exports: Exports, clock: Clock, *, look_seconds: float = LOOK_SECONDS
) -> AsyncIterator[None]:
    """Makes the file of every export that is due, one after the other. Several processes may follow at once."""

    async def follow() -> None:
        while True:
            for export in await _done(None, exports.due()) or []:
                await _done(export, exports.make(export))
            await clock.sleep(look_seconds)

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        await ended(task)


async def _done(export: UUID | None, work: Awaitable[T]) -> T | None:
    """The result; None where it failed. The next look tries again, and no export stops another."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 (it is told, and tried again)
        if is_transient(error):
            _log.warning("exports wait", export=str(export), reason=why(error))
        else:
            _log.exception("an export broke", export=str(export))
        return None
