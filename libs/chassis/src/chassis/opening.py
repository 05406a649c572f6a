"""Opens what a service works with, over the servers that its settings name, and closes it again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from chassis.clock import Clock
from chassis.connections.migrating import Tables, require
from chassis.connections.settings import Settings
from chassis.privacy.keys import KeyRing
from chassis.read.generations import Kept, ViewReader
from chassis.read.mongo import Mongo
from chassis.write.store import EventStore


@asynccontextmanager
async def opened_keys(settings: Settings, clock: Clock) -> AsyncIterator[KeyRing]:
    """The data keys."""
    ring = await asyncio.to_thread(KeyRing.of, settings, clock.monotonic)
    try:
        yield ring
    finally:
        await asyncio.to_thread(ring.close)


@asynccontextmanager
async def opened_store(
    settings: Settings, schema: str, tables: Sequence[Tables], clock: Clock
) -> AsyncIterator[tuple[EventStore, KeyRing]]:
    """The event store with its keys; raises SchemaBehind where `tables` were not migrated yet."""
    await asyncio.to_thread(require, settings.postgres_url, tables)
    async with opened_keys(settings, clock) as ring:
        store = EventStore(settings.postgres_url, schema, clock=clock)
        try:
            yield store, ring
        finally:
            await store.close()


@asynccontextmanager
async def opened_views(
    settings: Settings, views: Sequence[Kept], clock: Clock, derived: Sequence[Kept] = ()
) -> AsyncIterator[tuple[Mongo, ViewReader]]:
    """The database of the views, and the reader of their live generations."""
    mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
    try:
        yield mongo, ViewReader(mongo, clock, views, derived)
    finally:
        await mongo.close()
