"""Builds the processes of ingest from their settings."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from chassis.clock import Clock, SystemClock
from chassis.connections.answering import checking_readiness
from chassis.connections.migrating import require
from chassis.messaging.dead_letters import KeyCustody
from chassis.process.roles import Role, WebRole
from chassis.relay import RelayRole
from chassis.web import Routes, create_app, dependencies
from starlette.types import ASGIApp

from sync_ingest import permissions
from sync_ingest.api import BATCHES_PATH, create_router
from sync_ingest.batches import IngestService
from sync_ingest.ledger import CATALOGUE, SCHEMA, STORE
from sync_ingest.listening import GROUP, BranchFeed, FeedRole
from sync_ingest.measuring import measuring
from sync_ingest.opening import TABLES, IngestPool, opened, opened_keys
from sync_ingest.publishing import published
from sync_ingest.settings import SyncIngestSettings

__all__ = ["TABLES", "feed_role", "opened", "roles", "routes", "web_app"]

TITLE: Final = "CRM ingest"


@asynccontextmanager
async def routes(settings: SyncIngestSettings, clock: Clock | None = None) -> AsyncIterator[Routes]:
    """The routes of ingest with the connections behind them."""
    await asyncio.to_thread(require, settings.postgres_url, TABLES)
    clock, pool = clock or SystemClock(), IngestPool(settings)
    service = IngestService(pool.opened)
    checks = {"the store or the keys cannot be reached": lambda: asyncio.to_thread(pool.look)}
    try:
        async with checking_readiness(checks, clock) as not_ready:
            yield Routes(
                create_router(
                    service,
                    dependencies(_nothing_to_wait_for, permissions.ROUTES, high=permissions.HIGH_PRIVILEGE),
                    batch_bytes_max=settings.batch_bytes_max,
                ),
                {BATCHES_PATH: settings.batch_bytes_max},
                not_ready,
                [measuring(settings)],
            )
    finally:
        await asyncio.to_thread(service.close)
        await asyncio.to_thread(pool.close)


async def _nothing_to_wait_for(context: str, position: int, seconds_max: float) -> bool:
    """Ingest answers from its store, which has everything that was answered before."""
    return True


@asynccontextmanager
async def web_app(settings: SyncIngestSettings) -> AsyncIterator[ASGIApp]:
    """The application of a process that serves ingest alone."""
    async with routes(settings) as served:
        yield create_app(
            TITLE,
            [served.router],
            settings,
            body_limits=served.body_limits,
            readiness=[served.not_ready],
            measures=served.measures,
        )


def feed_role(settings: SyncIngestSettings, clock: Clock | None = None) -> FeedRole:
    """The role that follows the branch topic."""
    clock = clock or SystemClock()
    pool = IngestPool(settings)
    feed = BranchFeed(
        pool.opened, default_source=settings.topic_source, window=settings.window, now=clock.now
    )
    custody = KeyCustody(GROUP, partial(opened_keys, settings, clock))

    def close() -> None:
        pool.close()
        custody.close()

    return FeedRole(feed, settings.kafka_url, clock, custody, instance=settings.feed_instance, close=close)


def roles(settings: SyncIngestSettings) -> dict[str, Callable[[], Role]]:
    """The roles of this service by name. It has no views and no policies."""
    return {
        "api": lambda: WebRole("sync-ingest-api", lambda: web_app(settings)),
        "relay": lambda: RelayRole(
            STORE,
            SCHEMA,
            published,
            CATALOGUE,
            postgres_url=settings.postgres_url,
            kafka_url=settings.kafka_url,
            commands_kept_days=settings.commands_kept_days,
        ),
        "feed": lambda: feed_role(settings),
    }
