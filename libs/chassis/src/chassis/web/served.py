"""The parts of a web process that a service provides: its routes, and readiness checks that run at an
interval."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from fastapi import APIRouter

from chassis.clock import Clock
from chassis.connections.transient import why
from chassis.ending import ended
from chassis.observability.metrics import Measure

CHECK_SECONDS: Final = 2.0

ReadinessCheck = Callable[[], Awaitable[object]]
"""A readiness check. Raises where a server does not answer."""


class Routes(NamedTuple):
    """A router, body limits by path above the default, the reasons for not being ready, and the refreshing of
    gauges."""

    router: APIRouter
    body_limits: Mapping[str, int]
    not_ready: Callable[[], list[str]]
    measures: Sequence[Measure] = ()


@asynccontextmanager
async def checking_readiness(
    checks: Mapping[str, ReadinessCheck], clock: Clock
) -> AsyncIterator[Callable[[], list[str]]]:
    """Runs the checks every `CHECK_SECONDS`.

    Yields a function that returns why a service is not ready, by the last checks.

    The key of a check is the text that is reported where it raises.
    """
    reasons = [f"{said}: not checked yet" for said in checks]

    async def look() -> None:
        while True:
            reasons[:] = [reason for said, ask in checks.items() for reason in await _reason(said, ask)]
            await clock.sleep(CHECK_SECONDS)

    task = asyncio.create_task(look())
    try:
        yield lambda: list(reasons)
    finally:
        await ended(task)


async def _reason(said: str, ask: ReadinessCheck) -> list[str]:
    try:
        await ask()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is why)
        return [f"{said}: {why(error)}"]
    return []
