"""Makes the files that were released: in every process that follows, again after a crash, until they are made or have failed."""

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar
from uuid import UUID

import structlog

from chassis.clock import Clock
from chassis.exports.running import Exports
from chassis.process.looking import attempted, looking

LOOK_SECONDS: Final = 1.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


def making(
    exports: Exports, clock: Clock, *, look_seconds: float = LOOK_SECONDS
) -> AbstractAsyncContextManager[None]:
    """Makes the file of every export that is due, one after the other. Several processes may follow at once."""

    async def look() -> bool:
        for export in await _done(None, exports.due()) or []:
            await _done(export, exports.make(export))
        return False

    return looking(look, clock, look_seconds)


async def _done(export: UUID | None, work: Awaitable[T]) -> T | None:
    return await attempted(work, _log.bind(export=str(export)), waits="exports wait", broke="an export broke")
