"""A database that freezes instead of dying: a process says so, ends in time, and goes on when it answers again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from chassis.clock import SystemClock
from chassis.process.leading import LeasedLoop
from chassis.process.leases import Lease, PostgresLease
from chassis.write.store import EventStore
from typing_extensions import override

from tests.support.freezing import frozen_postgres

CLOCK = SystemClock()
LEASE_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
"""On a machine that does other things too."""
CLOSED_SECONDS_MAX = 15.0
"""`STOP_SECONDS_MAX`; the client of the database would wait for 35."""


class Reading(LeasedLoop):
    """Reads how far the store is, again and again."""

    def __init__(self, store: EventStore, lease: Lease) -> None:
        super().__init__("a role", "readings", lease, CLOCK, None)
        self.store = store
        self.turns = 0

    @override
    async def _lead(self, epoch: int, stopping: asyncio.Event) -> None:
        self.leading = True
        while not stopping.is_set():
            await self.store.head_position()
            self.turns += 1
            self._succeeded()
            await self._pause(0.01)


@pytest.fixture
async def leased(postgres_url: str, schema: str) -> AsyncIterator[Reading]:
    store, row = EventStore(postgres_url, schema), PostgresLease(postgres_url, schema, "reading")
    yield Reading(store, Lease(row, CLOCK, seconds=LEASE_SECONDS, renewed_seconds=0.3, margin_seconds=0.2))
    await row.close()
    await store.close()


async def _until(condition: Any) -> float:
    began = CLOCK.monotonic()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await CLOCK.sleep(0.02)
    return CLOCK.monotonic() - began


async def test_a_role_whose_database_freezes_is_not_ready_and_goes_on_when_it_answers_again(
    leased: Reading, postgres_url: str
) -> None:
    stopping = asyncio.Event()
    running = asyncio.create_task(leased.run(stopping))
    await _until(lambda: leased.turns and not leased.not_ready())
    with frozen_postgres(postgres_url):
        await _until(leased.not_ready)
        assert leased.not_ready() == ["a role: the lease was not renewed in time"], (
            "before any statement ends"
        )
    turns = leased.turns
    await _until(lambda: leased.turns > turns and not leased.not_ready())
    stopping.set()
    await asyncio.wait_for(running, PATIENCE_SECONDS)


async def test_a_store_is_closed_in_time_where_one_of_its_threads_waits_for_a_frozen_server(
    postgres_url: str, schema: str
) -> None:
    """The other threads are idle: they answer for themselves alone."""
    store = EventStore(postgres_url, schema)
    await store.head_position()
    with frozen_postgres(postgres_url):
        reading = asyncio.create_task(store.head_position())
        await CLOCK.sleep(0.1)
        reading.cancel()
        began = CLOCK.monotonic()
        await store.close()
        assert CLOCK.monotonic() - began < CLOSED_SECONDS_MAX
