"""`crm verify`: whether the invariants hold over the real stores, and if not, where."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Final

import psycopg
import typer
from chassis.clock import Clock, SystemClock
from chassis.documents import DocumentsUnavailable
from chassis.events import StoredEvent
from chassis.generations import ViewReader
from chassis.mongo import Mongo
from chassis.mongo_books import parked_of
from chassis.reacting import BOOKS
from chassis.relay import StoreLog
from chassis.settings import Settings
from chassis.store import Recorder, StoreUnavailable
from chassis.transport import BrokerUnavailable, group_lag
from contracts.topics import CONSUMERS
from customer.views import VIEWS, asset_panorama

from crm_cli.contexts import CONTEXTS, Context, settings
from crm_cli.verify_log import PAGE_EVENTS, Topic, expected
from crm_cli.verify_report import Report
from crm_cli.verify_store import Checkpoints, Store, check_money
from crm_cli.verify_views import Fold

WAIT_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.1
PROGRESS_EVENTS: Final = 100_000

Say = Callable[[str], None]


async def verified(
    settings: Settings, *, wait_seconds: float = WAIT_SECONDS, say: Say = lambda _: None
) -> Report:
    """Checks every context and what is made of it. Waits a bounded time for relays and views to be where the stores
    are now. Raises psycopg.Error, StoreUnavailable, BrokerUnavailable, DocumentsUnavailable."""
    report, clock = Report(), SystemClock()
    report.figures["contexts"] = {}
    mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
    try:
        for context in CONTEXTS.values():
            store = await asyncio.to_thread(Store, settings.postgres_url, context, report)
            try:
                if store.exists("events"):
                    await _context(settings, context, store, mongo, report, clock, wait_seconds, say)
            finally:
                store.close()
    finally:
        await mongo.close()
    return report


async def _context(
    settings: Settings,
    context: Context,
    store: Store,
    mongo: Mongo,
    report: Report,
    clock: Clock,
    wait_seconds: float,
    say: Say,
) -> None:
    head = store.head()
    say(f"{context.name}: {head} positions; waiting for relay and views")
    epoch, published = await _relayed(store, head, clock, wait_seconds)
    views = ViewReader(mongo, clock, VIEWS)
    reached = await views.wait_for(context.name, head, wait_seconds)
    if not reached:
        report.broken("I1", f"{context.name}: not every view has reached position {head}")
    await _policies(settings, context, mongo, report, clock, wait_seconds)
    await asyncio.to_thread(store.check)
    await asyncio.to_thread(store.check_guards)
    async with AsyncExitStack() as stack:
        log = StoreLog(settings.postgres_url, context.schema)
        stack.callback(log.close)
        recorder = Recorder(settings.postgres_url, context.schema)
        stack.callback(recorder.close)
        topic = Topic(context, settings.kafka_url, log, report, published)
        checkpoints = Checkpoints(settings.data / "verified", context, report)
        folds = await _folds(context, mongo, report)
        events = 0
        async for page in _pages(log, head):
            checkpoints.take(page)
            wanted = [each for event in page if (each := expected(context, event)) is not None]
            await topic.match(wanted)
            for fold in folds:
                await fold.take([each.record for each in wanted])
            events += len(page)
            if events % PROGRESS_EVENTS < len(page):
                say(f"{context.name}: {events} events checked")
        await topic.finish(head)
        checkpoints.finish()
        for fold in folds:
            await fold.finish(context, recorder, head)
            if fold.view is asset_panorama.VIEW:
                await check_money(store, mongo, fold.generation.prefix, head, report)
    report.figures["contexts"][context.name] = {
        "head": head,
        "events": events,
        "published": published,
        "epoch": epoch,
        "repeated_records": topic.repeated,
    }


async def _relayed(store: Store, head: int, clock: Clock, wait_seconds: float) -> tuple[int, int]:
    until = clock.monotonic() + wait_seconds
    while True:
        epoch, published = store.relay()
        if published >= head or clock.monotonic() >= until:
            return epoch, published
        await clock.sleep(POLL_SECONDS)


async def _policies(
    settings: Settings, context: Context, mongo: Mongo, report: Report, clock: Clock, wait_seconds: float
) -> None:
    """Policies have read everything, and nobody waits in one."""
    views = tuple(f".{view.name}." for view in VIEWS)
    until = clock.monotonic() + wait_seconds
    for group in CONSUMERS:
        if context.topic.name not in group.topics or any(view in group.name for view in views):
            continue
        while left := sum((await group_lag(settings.kafka_url, group.name, group.topics)).values()):
            if clock.monotonic() >= until:
                break
            await clock.sleep(POLL_SECONDS)
        report.compare("I1", f"{group.name}: records not read", 0, left)
        for parked in await parked_of(mongo.beside(BOOKS), group.name):
            report.broken(
                "I1", f"{group.name}: subject {parked.subject} is parked since its event {parked.sequence}"
            )


async def _folds(context: Context, mongo: Mongo, report: Report) -> list[Fold]:
    found = [await Fold.of(view, mongo, report) for view in VIEWS if context.topic.name in view.sources]
    return [fold for fold in found if fold is not None]


async def _pages(log: StoreLog, head: int) -> AsyncIterator[Sequence[StoredEvent]]:
    """The log up to `head`; the next page is read while this one is looked at."""
    after = 0
    reading = asyncio.ensure_future(log.read_after(after, PAGE_EVENTS))
    try:
        while page := [event for event in await reading if (event.position or 0) <= head]:
            after = page[-1].position or head
            reading = asyncio.ensure_future(log.read_after(after, PAGE_EVENTS))
            yield page
    finally:
        reading.cancel()


def verify(
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    wait_seconds: Annotated[
        float, typer.Option("--wait", min=0, help="seconds to wait for relays and views to catch up")
    ] = WAIT_SECONDS,
) -> None:
    """Checks store against topics against views; ends with 1, and names what is wrong, unless all of it holds."""
    clock = SystemClock()
    began = clock.monotonic()
    try:
        report = asyncio.run(
            verified(
                settings(),
                wait_seconds=wait_seconds,
                say=lambda text: print(f"verify: {text}", file=sys.stderr),
            )
        )
    except (psycopg.Error, StoreUnavailable, BrokerUnavailable, DocumentsUnavailable) as error:
        print(f"crm verify: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(code=2) from None
    report.figures["seconds"] = round(clock.monotonic() - began, 3)
    print(json.dumps(report.as_json()) if as_json else report.readable())
    if not report.green:
        raise typer.Exit(code=1)


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("verify")(verify)
