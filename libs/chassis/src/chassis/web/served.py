"""What a service gives a web process: its routes, and what stands behind them, looked at now and then."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from fastapi import APIRouter

from chassis.clock import Clock
from chassis.metrics import Measure
from chassis.transient import why

LOOK_SECONDS: Final = 2.0

Look = Callable[[], Awaitable[object]]
"""Raises where something does not answer."""


class Routes(NamedTuple):
    """A router, bytes by path beyond the usual, why the service is not ready, if so, and what refreshes its gauges."""

    router: APIRouter
    body_limits: Mapping[str, int]
    not_ready: Callable[[], list[str]]
    measures: Sequence[Measure] = ()


@asynccontextmanager
async def looking(looks: Mapping[str, Look], clock: Clock) -> AsyncIterator[Callable[[], list[str]]]:
    """Looks every `LOOK_SECONDS`; gives what tells why a service is not ready, as the last looks said.

    `looks` are by what is to be said where one raises.
    """
    reasons = [f"{said}: not looked yet" for said in looks]

    async def look() -> None:
        while True:
            reasons[:] = [reason for said, ask in looks.items() for reason in await _reason(said, ask)]
            await clock.sleep(LOOK_SECONDS)

    task = asyncio.create_task(look())
    try:
        yield lambda: list(reasons)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _reason(said: str, ask: Look) -> list[str]:
    try:
        await ask()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is why)
        return [f"{said}: {why(error)}"]
    return []
