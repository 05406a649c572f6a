"""Opens the connections of customer to the servers in the settings: store, keys, views."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Final

from chassis.clock import Clock, SystemClock
from chassis.ending import closed
from chassis.files import Storage, objects_of
from chassis.messaging.delivered import Delivered
from chassis.notices import Inboxes, InboxTable, Notices, Opened, receipt_secrets
from chassis.opening import opened_store, opened_views
from chassis.privacy.keys import KeyRing
from chassis.reactions.policies import React
from chassis.read.generations import ViewReader
from chassis.read.mongo import Mongo
from chassis.watching import Hub, Watched
from chassis.write.handling import CommandHandler
from chassis.write.secret_checks import secret_of
from chassis.write.store import EventStore, tables
from contracts.identity import EXTERNAL_IDS, ExternalIds
from contracts.purposes import CONTACT

from customer.application import CustomerService, Handler
from customer.catalogue import CONTEXT, SCHEMA, catalogue
from customer.derived import DERIVED, customer_facts
from customer.domain.customer import customer_decider
from customer.facts import FIELDS
from customer.files import LIMITS
from customer.notices import TEMPLATES
from customer.queries import Queries
from customer.settings import CustomerSettings
from customer.views import VIEWS

WATCHED: Final = Watched(customer_facts.VIEW, customer_facts.FACTS, FIELDS)
"""A customer's facts are written anew whenever its panorama may have changed."""

TABLES: Final = (tables(SCHEMA),)
"""The tables of this service, for `migrate`."""


@dataclass(frozen=True, slots=True)
class Write:
    """The write side: store, keys and the handler of commands, with the settings and the clock of the process."""

    store: EventStore
    ring: KeyRing
    handler: Handler
    ids: ExternalIds
    settings: CustomerSettings
    clock: Clock

    def today(self) -> date:
        """The bank's business date now."""
        return self.settings.business_date(self.clock)


def notices_of(write: Write) -> Notices:
    """The notices of this context."""
    reached = write.settings.reached
    return Notices(write.store, catalogue(), write.ring, TEMPLATES, purpose=CONTACT, reached=reached)


def inboxes_of(write: Write, table: InboxTable) -> Inboxes:
    """The inboxes of staff, and the receipts of providers."""
    return Inboxes(notices_of(write), table, receipt_secrets(write.settings), write.clock)


def reaching(react: React, reached: Callable[[str], None]) -> React:
    """As `react`, with a named point after it: its effect is stored, its checkpoint is not."""

    async def reacting(event: Delivered) -> None:
        await react(event)
        reached("after-reaction")

    return reacting


@dataclass(frozen=True, slots=True)
class Read:
    """The read side: the live generations of the views, and the queries of them."""

    mongo: Mongo
    views: ViewReader
    queries: Queries


async def outside_ids(settings: CustomerSettings, ring: KeyRing, *, create: bool = True) -> ExternalIds:
    """Derives ids from external ids, under the same secret as every other service and as the store was
    written with."""
    ask = partial(secret_of, ring, settings.postgres_url, SCHEMA, EXTERNAL_IDS, create=create)
    return ExternalIds(await asyncio.to_thread(ask))


@asynccontextmanager
async def write_side(settings: CustomerSettings, clock: Clock) -> AsyncIterator[Write]:
    """Opens the store with its keys; raises SchemaBehind where it was not migrated yet."""
    async with opened_store(settings, SCHEMA, TABLES, clock) as (store, ring):
        handler = CommandHandler(customer_decider, store, catalogue(), ring, reached=settings.reached)
        yield Write(store, ring, handler, await outside_ids(settings, ring), settings, clock)


@asynccontextmanager
async def opened_notices(settings: CustomerSettings, clock: Clock) -> AsyncIterator[Opened]:
    """The notices as the role has them that hands them over."""
    async with write_side(settings, clock) as write:
        yield Opened(notices_of(write), write.store, catalogue())


@asynccontextmanager
async def read_side(settings: CustomerSettings, ring: KeyRing, clock: Clock) -> AsyncIterator[Read]:
    """The views of this service."""
    async with opened_views(settings, VIEWS, clock, DERIVED) as (mongo, views):
        today = partial(settings.business_date, clock)
        queries = Queries(mongo, views, ring, settings.stale_after_minutes * 60, today=today)
        yield Read(mongo, views, queries)


@asynccontextmanager
async def both_sides(
    settings: CustomerSettings, clock: Clock | None = None
) -> AsyncIterator[tuple[CustomerService, Write, Read]]:
    """The write side and the read side together."""
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        write = await stack.enter_async_context(write_side(settings, clock))
        read = await stack.enter_async_context(read_side(settings, write.ring, clock))
        inbox = InboxTable(settings.postgres_url, SCHEMA)
        stack.push_async_callback(closed, inbox.close)
        storage = Storage(objects_of(settings, CONTEXT))
        stack.push_async_callback(storage.close)
        limits = LIMITS._replace(size_bytes_max=settings.files_bytes_max)
        service = service_of(write, read)
        hub = Hub(WATCHED, read.views, clock, service.today)
        yield (
            replace(service, hub=hub, storage=storage, file_limits=limits, inboxes=inboxes_of(write, inbox)),
            write,
            read,
        )


@asynccontextmanager
async def timers_side(
    settings: CustomerSettings, clock: Clock
) -> AsyncIterator[tuple[CustomerService, Write]]:
    """The write side and the read side as timers have them: without files, watchers and inboxes."""
    async with write_side(settings, clock) as write, read_side(settings, write.ring, clock) as read:
        yield service_of(write, read), write


def service_of(write: Write, read: Read) -> CustomerService:
    """The application service, with what every process of it has."""
    settings = write.settings
    return CustomerService(
        write.handler,
        write.store,
        catalogue(),
        read.queries,
        write.ids,
        write.clock,
        partial(settings.business_date, write.clock),
        read.views.wait_for,
        settings.calendar.business_date,
        settings.retention,
        settings.claims_max,
        partial(settings.calendar_date, write.clock),
        override_days_max=settings.tier_override_days_max,
        need_days_max=settings.need_days_max,
    )
