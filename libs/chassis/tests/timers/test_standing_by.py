"""A process that stands by for a lease is ready again once the database answers."""

import asyncio
from typing import Any

from chassis.clock import SystemClock
from chassis.connections.transient import StoreUnavailable
from chassis.process.leases import Lease, LeaseRow
from chassis.relay import Relay
from chassis.timers import TimerLoop
from contracts.topics import EVENTS
from typing_extensions import override

from tests.support.jars import catalogue


class Taken(LeaseRow):
    """A lease that another process has, in a database that does not answer at first."""

    def __init__(self) -> None:
        self.asked = 0

    @override
    async def take(self, seconds: float) -> int | None:
        self.asked += 1
        if self.asked == 1:
            raise StoreUnavailable("starting up")
        return None

    @override
    async def renew(self, epoch: int, seconds: float) -> bool:
        return False

    @override
    async def release(self, epoch: int) -> None:
        return


async def was_ready_again(loop: Any, row: Taken) -> list[list[str]]:
    """What it says while the database does not answer, and after that."""
    stopping, said = asyncio.Event(), []
    running = asyncio.create_task(loop.run(stopping))
    while row.asked < 3:
        if not said and loop.not_ready():
            said.append(loop.not_ready())
        await asyncio.sleep(0.001)
    said.append(loop.not_ready())
    stopping.set()
    await running
    return said


async def test_timers_that_stand_by_are_ready_once_the_database_answers() -> None:
    row, unused = Taken(), object()
    lease = Lease(row, SystemClock(), asked_seconds=0.01)
    parts: Any = [[], unused, catalogue().decode, unused]
    loop = TimerLoop("jars-timers", *parts, lease, SystemClock(), generation="1")
    assert await was_ready_again(loop, row) == [["jars-timers: StoreUnavailable: starting up"], []]


async def test_a_relay_that_stands_by_is_ready_once_the_database_answers() -> None:
    row, unused = Taken(), object()
    lease = Lease(row, SystemClock(), asked_seconds=0.01)
    parts: Any = [EVENTS["customer"], unused, unused]
    rest: Any = [unused, lambda _: None, SystemClock()]
    relay = Relay("customer", *parts, lease, *rest)
    assert await was_ready_again(relay, row) == [["customer-relay: StoreUnavailable: starting up"], []]
