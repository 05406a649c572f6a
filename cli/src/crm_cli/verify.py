"""`crm verify`: whether the invariants hold over the real stores, and if not, where."""

import asyncio
import json
import sys
from functools import partial
from typing import Annotated, Final

import psycopg
import typer
from chassis.clock import Clock, SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import StoreUnavailable, why
from chassis.files import FilesSettings, StorageUnavailable
from chassis.messaging.transport import BrokerUnavailable, end_offsets, group_lag
from chassis.reactions.policies import CHECKPOINTS_DATABASE
from chassis.read.blind import BlindIndex
from chassis.read.documents import DocumentsUnavailable
from chassis.read.generations import Generations, ViewReader, live_generation, shown_views
from chassis.read.mongo import Mongo
from chassis.read.mongo_checkpoints import parked_of
from chassis.read.projecting import View
from contracts.topics import CONSUMERS, EVENTS, ConsumerGroup
from customer.views import asset_panorama

from crm_cli.answers import Json
from crm_cli.contexts import (
    CONTEXTS,
    DERIVED,
    KEPT,
    SERVICE_OF,
    VIEWS,
    Context,
    reading_settings,
    settings_of_service,
    timers_of,
)
from crm_cli.exits import USAGE, WRONG
from crm_cli.verify_bulk import check_bulk
from crm_cli.verify_checkpoints import Checkpoints
from crm_cli.verify_derived import check_derived
from crm_cli.verify_exports import check_exports
from crm_cli.verify_files import check_files
from crm_cli.verify_keys import ring_of_login
from crm_cli.verify_notices import check_notices
from crm_cli.verify_parts import Say, WorkerLost, all_checked, parts_of
from crm_cli.verify_proposals import check_proposals
from crm_cli.verify_report import Report
from crm_cli.verify_sagas import check_sagas
from crm_cli.verify_store import Store, check_money
from crm_cli.verify_timers import check_timers
from crm_cli.verify_views import check_parked, conclude

WAIT_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.1


async def verified(
    settings: Settings,
    *,
    wait_seconds: float = WAIT_SECONDS,
    say: Say = lambda _: None,
    processes: int | None = None,
) -> Report:
    """Checks every context and what is made of it.

    Waits a bounded time for relays and views to be where the stores are now. A long log is checked by `processes`, by
    default as many as there are processors. Raises psycopg.Error, StoreUnavailable, BrokerUnavailable,
    DocumentsUnavailable, StorageUnavailable, WorkerLost.
    """
    report, clock = Report(), SystemClock()
    report.figures["contexts"] = {}
    mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
    try:
        with report.reading("I4", "which views are shown"):
            await _all_known(mongo, report)
        for context in CONTEXTS.values():
            store = await asyncio.to_thread(Store, settings.postgres_url, context, report)
            try:
                if store.exists("events"):
                    await _context(
                        settings, context, store, mongo, report, clock, wait_seconds, say, processes
                    )
            finally:
                store.close()
        await _derived(settings, mongo, report, clock, wait_seconds, say)
    finally:
        await mongo.close()
    return report


async def _all_known(mongo: Mongo, report: Report) -> None:
    """Checks that every live view, and every topic of a context, is known here: what is not checked is not
    known to hold."""
    folded = {view.name for view in KEPT}
    for name in await shown_views(mongo):
        report.compare("I4", f"the view {name}: known to this command", True, name in folded)
    for name in EVENTS:
        report.compare("I1", f"the context {name}: known to this command", True, name in CONTEXTS)


async def _derived(
    settings: Settings, mongo: Mongo, report: Report, clock: Clock, wait_seconds: float, say: Say
) -> None:
    ring = None
    if any(derived.digests for derived in DERIVED):
        ring = await asyncio.to_thread(ring_of_login, settings, clock)
    try:
        blind = None if ring is None else BlindIndex(ring, create=False)
        for derived in DERIVED:
            say(f"{derived.name}: every document against its inputs")
            generations = Generations(mongo, derived, SERVICE_OF[derived.name], clock)
            today = partial(settings.business_date, clock)
            with report.reading("I4", f"the derived view {derived.name}"):
                await check_derived(generations, today, report, clock, wait_seconds, blind)
    finally:
        if ring is not None:
            ring.close()


_BY_STREAM: Final = (
    ("I11", "the exports", check_exports),
    ("I12", "the bulk runs", check_bulk),
    ("I13", "the proposals", check_proposals),
)


async def _context(
    settings: Settings,
    context: Context,
    store: Store,
    mongo: Mongo,
    report: Report,
    clock: Clock,
    wait_seconds: float,
    say: Say,
    processes: int | None,
) -> None:
    head = store.head()
    say(f"{context.name}: {head} positions; waiting for relay and views")
    epoch, published = await _relayed(store, head, clock, wait_seconds)
    views = ViewReader(mongo, clock, VIEWS)
    with report.reading("I1", f"{context.name}: how far the views are"):
        if not await views.wait_for(context.name, head, wait_seconds):
            report.broken("I1", f"{context.name}: not every view has reached position {head}")
    for view in views_of(context) if head else ():  # of nothing that is stored nothing is missing
        with report.reading("I4", f"{view.name}: what is parked"):
            await check_parked(view, mongo, report)
    with report.reading("I10", f"{context.name}: the sagas"):
        await check_sagas(settings.postgres_url, context, store, report, clock, wait_seconds)
    rules, generation = timers_of(context, settings)
    with report.reading("I4", f"{context.name}: the timers"):
        await check_timers(
            context,
            rules,
            generation,
            store,
            head,
            report,
            clock,
            wait_seconds,
            commands_kept_days=settings.commands_kept_days,
        )
    if isinstance(own := settings_of_service(context, settings), FilesSettings):
        with report.reading("I11", f"{context.name}: the files"):
            await check_files(own, context, store, report, clock)
    for invariant, what, check in _BY_STREAM:
        with report.reading(invariant, f"{context.name}: {what}"):
            await asyncio.to_thread(check, settings.postgres_url, context, store, report)
    with report.reading("I10", f"{context.name}: the notices"):
        await check_notices(context, store, head, report, clock, wait_seconds)
    held = {one.subject: one for one in await asyncio.to_thread(store.held)}
    for one in held.values():
        report.broken(
            "I1",
            f"{context.name}: subject {one.subject} is held by the relay since its event at position {one.position}"
            f" ({one.name}): {one.reason}",
        )
    since = {subject: one.position for subject, one in held.items()}
    inside, before, money, policies = Report(), Report(), Report(), Report()
    checkpoints = Checkpoints(settings.data / "verified", context.name, before)
    found, *_ = await asyncio.gather(
        all_checked(parts_of(settings, context, head, published, since, processes), say, checkpoints),
        asyncio.to_thread(_checked_inside, settings, context, inside),
        _money(settings, context, head, mongo, money),
        _policies(settings, context, mongo, policies, clock, wait_seconds),
    )
    checkpoints.finish()
    for each in (inside, before, money, policies, *(part.report for part in found)):
        report.plus(each)
        report.figures |= each.figures
    for view in views_of(context):
        folded = [part.folded[view.name] for part in found if view.name in part.folded]
        if folded:
            with report.reading("I4", f"{view.name}: the documents"):
                await conclude(view, mongo, folded, head, report)
    report.figures["contexts"][context.name] = {
        "head": head,
        "events": sum(part.events for part in found),
        "published": published,
        "epoch": epoch,
        "repeated_records": sum(part.repeated for part in found),
    }


def _checked_inside(settings: Settings, context: Context, report: Report) -> None:
    """Checks a store by itself."""
    store = Store(settings.postgres_url, context, report)
    try:
        store.check()
        store.check_guards()
    finally:
        store.close()


async def _money(settings: Settings, context: Context, head: int, mongo: Mongo, report: Report) -> None:
    view = asset_panorama.VIEW
    with report.reading("I5", f"{context.name}: the money"):
        generation = await live_generation(mongo, view.name)
        if generation is not None and view in views_of(context):
            await check_money(settings.postgres_url, context, mongo, generation.prefix, head, report)


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
    """Checks that policies have read everything that is there now and that no subject is parked in one."""
    views = tuple(f".{view.name}." for view in KEPT)
    until = clock.monotonic() + wait_seconds

    async def read(group: ConsumerGroup) -> None:
        ends = await end_offsets(settings.kafka_url, group.topics)
        while left := sum((await group_lag(settings.kafka_url, group.name, group.topics, ends)).values()):
            if clock.monotonic() >= until:
                break
            await clock.sleep(POLL_SECONDS)
        report.compare("I1", f"{group.name}: records not read", 0, left)
        with report.reading("I1", f"{group.name}: what is parked"):
            for parked in await parked_of(mongo.beside(CHECKPOINTS_DATABASE), group.name):
                report.broken(
                    "I1",
                    f"{group.name}: subject {parked.subject} is parked since its event {parked.sequence}",
                )

    policies = (
        group
        for group in CONSUMERS
        if context.topic.name in group.topics and not any(view in group.name for view in views)
    )
    await asyncio.gather(*map(read, policies))


def views_of(context: Context) -> list[View]:
    """The views that follow a context."""
    return [view for view in VIEWS if context.topic.name in view.sources]


def verify(
    as_json: Json = False,
    wait_seconds: Annotated[
        float, typer.Option("--wait", min=0, help="seconds to wait for relays and views to catch up")
    ] = WAIT_SECONDS,
) -> None:
    """Checks store against topics against views; 1 unless all of it holds.

    What is wrong is named.
    """
    clock = SystemClock()
    began = clock.monotonic()
    try:
        report = asyncio.run(
            verified(
                reading_settings(),
                wait_seconds=wait_seconds,
                say=lambda text: print(f"verify: {text}", file=sys.stderr),
            )
        )
    except (
        psycopg.Error,
        StoreUnavailable,
        BrokerUnavailable,
        DocumentsUnavailable,
        StorageUnavailable,
        WorkerLost,
    ) as error:
        print(f"crm verify: {why(error)}", file=sys.stderr)
        raise typer.Exit(code=USAGE) from None
    report.figures["seconds"] = round(clock.monotonic() - began, 3)
    print(json.dumps(report.as_json()) if as_json else report.readable())
    if not report.green:
        raise typer.Exit(code=WRONG)


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("verify")(verify)
