"""What a service gives a web process: its routes, and what stands behind them, looked at now and then."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from fastapi import APIRouter

from chassis.clock import Clock
from chassis.connections.transient import why
from chassis.observability.metrics import Measure

CHECK_SECONDS: Final = 2.0

ReadinessCheck = Callable[[], Awaitable[object]]
"""Raises where something does not answer."""


class Routes(NamedTuple):
    """A router, bytes by path beyond the usual, why the service is not ready, if so, and what refreshes its gauges."""

    router: APIRouter
    body_limits: Mapping[str, int]
    not_ready: Callable[[], list[str]]
    measures: Sequence[Measure] = ()


@asynccontextmanager
async def checking_readiness(
    checks: Mapping[str, ReadinessCheck], clock: Clock
) -> AsyncIterator[Callable[[], list[str]]]:
    """Looks every `CHECK_SECONDS`; gives what tells why a service is not ready, as the last checks said.

    `checks` are by what is to be said where one raises.
    """
    reasons = [f"{said}: not looked yet" for said in checks]

    async def look() -> None:
        while True:
            reasons[:] = [reason for said, ask in checks.items() for reason in await _reason(said, ask)]
            await clock.sleep(CHECK_SECONDS)

    task = asyncio.create_task(look())
    try:
        yield lambda: list(reasons)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _reason(said: str, ask: ReadinessCheck) -> list[str]:
    try:
        await ask()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is why)
        return [f"{said}: {why(error)}"]
    return []
