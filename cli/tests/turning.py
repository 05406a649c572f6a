"""The role that folds timers, as a test turns it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.clock import SystemClock
from chassis.process.leases import Lease, PostgresLease
from chassis.timers import PostgresTimers, TimerLoop
from chassis.timers.table import TIMERS_LEASE
from crm_cli.contexts import CONTEXTS, timers_of
from customer.catalogue import SCHEMA, catalogue
from customer.settings import CustomerSettings
from customer.timers import timers

CLOCK = SystemClock()


@asynccontextmanager
async def role(settings: CustomerSettings) -> AsyncIterator[TimerLoop]:
    """The loop of the role `timers`, which gives nothing before it is asked to."""
    row, table = (
        PostgresLease(settings.postgres_url, SCHEMA, TIMERS_LEASE),
        PostgresTimers(settings.postgres_url, SCHEMA),
    )
    async with timers(settings, CLOCK) as opened:
        _, generation = timers_of(CONTEXTS["customer"], settings)
        loop = TimerLoop(
            "timers",
            opened.timers,
            opened.store,
            catalogue().decode,
            table,
            Lease(row, CLOCK),
            CLOCK,
            generation=generation,
        )
        try:
            yield loop
        finally:
            await row.close()
            await table.close()


async def turned(settings: CustomerSettings) -> None:
    """The role folds what is stored and gives what is due."""
    async with role(settings) as loop:
        await loop.begin()
        await loop.turn(await loop._lease.acquire())
        await loop._lease.release()
