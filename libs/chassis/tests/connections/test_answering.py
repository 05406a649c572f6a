"""Readiness checks: what is reported of a server that answers, fails, or freezes."""

import asyncio

from chassis.clock import SystemClock
from chassis.connections.answering import checking_readiness
from chassis.connections.transient import StoreUnavailable

CLOCK = SystemClock()
PATIENCE_SECONDS = 60.0


async def test_a_server_that_freezes_is_reported_in_time_and_holds_up_no_other_check() -> None:
    thawed, asked, fails = asyncio.Event(), {"frozen": 0, "other": 0}, True

    async def frozen() -> None:
        asked["frozen"] += 1
        await thawed.wait()

    async def other() -> None:
        asked["other"] += 1
        if fails:
            raise StoreUnavailable("it is away")

    checks = {"the frozen one does not answer": frozen, "the other one does not answer": other}
    async with (
        checking_readiness(checks, CLOCK, check_seconds=0.01, check_seconds_max=0.05) as not_ready,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        while asked["other"] < 3:
            await CLOCK.sleep(0.01)
        silent = "the frozen one does not answer: no answer within 0.05 s"
        assert not_ready() == [silent, "the other one does not answer: StoreUnavailable: it is away"]
        fails = False
        while not_ready() != [silent]:
            await CLOCK.sleep(0.01)
        assert asked["frozen"] == 1, "it is not asked again while it owes an answer"
        thawed.set()
        while not_ready():
            await CLOCK.sleep(0.01)
        while asked["frozen"] < 2:
            await CLOCK.sleep(0.01)
