"""Readiness checks: whether the servers that a process needs answer, asked at an interval.

A server that freezes raises nothing: it keeps its connections, and whoever asks it waits. So it is asked for this alone,
and is reported where it does not answer in time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from chassis.clock import Clock
from chassis.connections.transient import why
from chassis.ending import ended

CHECK_SECONDS: Final = 2.0
CHECK_SECONDS_MAX: Final = 5.0
"""A server that has not answered a check within this time is frozen, or as good as that."""

ReadinessCheck = Callable[[], Awaitable[object]]
"""A readiness check. Raises where a server does not answer."""


@asynccontextmanager
async def checking_readiness(
    checks: Mapping[str, ReadinessCheck],
    clock: Clock,
    *,
    check_seconds: float = CHECK_SECONDS,
    check_seconds_max: float = CHECK_SECONDS_MAX,
) -> AsyncIterator[Callable[[], list[str]]]:
    """Runs the checks at once, `check_seconds` after those before.

    Yields a function that returns why a service is not ready, by the last checks. The key of a check is the text that is
    reported where it raises, or has no answer within `check_seconds_max`. One that waits for a frozen server is not asked
    again meanwhile, and holds up no other.
    """
    reasons = [f"{text}: not checked yet" for text in checks]
    asking: dict[str, asyncio.Task[str | None]] = {}

    async def look() -> None:
        while True:
            for text, ask in checks.items():
                if text not in asking:
                    asking[text] = asyncio.create_task(_reason(ask))
            if asking:
                await asyncio.wait(asking.values(), timeout=check_seconds_max)
            answers = {
                text: asking.pop(text).result()
                if asking[text].done()
                else f"no answer within {check_seconds_max:g} s"
                for text in checks
            }
            reasons[:] = [f"{text}: {reason}" for text, reason in answers.items() if reason is not None]
            await clock.sleep(check_seconds)

    task = asyncio.create_task(look())
    try:
        yield lambda: list(reasons)
    finally:
        await ended(task)
        await ended(*asking.values())


async def _reason(ask: ReadinessCheck) -> str | None:
    """Why a server does not answer; None where it does."""
    try:
        await ask()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is why)
        return why(error)
    return None
