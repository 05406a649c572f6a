"""The log of a context against topic and views, in one pass over some of its partitions; several parts go on at once.

A subject is in one partition, so a part needs nothing of another. Each has a process of its own where the log is long.
"""

import asyncio
import multiprocessing
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from chassis import heap
from chassis.connections.settings import Settings
from chassis.ending import ended
from chassis.read.mongo import Mongo
from chassis.relay import StoreLog
from chassis.write.events import StoredEvent
from chassis.write.store import Recorder
from contracts.topics import place_of

from crm_cli.contexts import CONTEXTS, VIEWS, Context
from crm_cli.verify_checkpoints import Checkpoints
from crm_cli.verify_keys import SealedKeys
from crm_cli.verify_log import PAGE_EVENTS, Reader, Topic
from crm_cli.verify_report import Report
from crm_cli.verify_views import Fold, Folded

EVENTS_ALONE_MAX: Final = 50_000
"""A log of so many positions is checked by this process: others would take longer to start."""
PROCESSES_MAX: Final = 4
EVENTS_AT_ONCE: Final = 50
"""What is made of so many events is still in the processor's cache when it is compared: thousands take a third longer."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """Some partitions of a context, up to a position of its store."""

    settings: Settings
    context: str
    partitions: frozenset[int]
    head: int
    published: int
    held: Mapping[UUID, int]
    """Subjects that the relay holds, with the position since which nothing of them is published."""


class WorkerLost(Exception):
    """A process that checked a part ended before it was done."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The findings of a part; `folded` is by view."""

    report: Report
    events: int
    repeated: int
    folded: dict[str, Folded]


def parts_of(
    settings: Settings,
    context: Context,
    head: int,
    published: int,
    held: Mapping[UUID, int],
    processes: int | None,
) -> list[Part]:
    """The parts of a context: as many as `processes`, by default as its log is worth."""
    if processes is None:
        processes = min(os.cpu_count() or 1, PROCESSES_MAX) if head > EVENTS_ALONE_MAX else 1
    count = context.topic.partitions
    shares = [frozenset(range(at, count, processes)) for at in range(min(processes, count))]
    return [Part(settings, context.name, share, head, published, held) for share in shares]


async def all_checked(
    parts: Sequence[Part],
    say: Say,
    checkpoints: Checkpoints | None = None,
    check: Callable[[Part], Checked] | None = None,
) -> list[Checked]:
    """Checks parts at once, the first in this process, because another takes more than a second to start; `checkpoints`
    take the log there. What one of them raises is raised.

    Raises WorkerLost where a process ends before its part is checked: killed, out of memory, or not able to start.
    """
    own = asyncio.ensure_future(checked(parts[0], say, checkpoints))
    if len(parts) == 1:
        return [await own]
    loop, forking = asyncio.get_running_loop(), multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["__main__", __name__])  # read once, not by each process
    pool = ProcessPoolExecutor(len(parts) - 1, mp_context=forking)
    try:
        working = [loop.run_in_executor(pool, check or in_process, part) for part in parts[1:]]
        return list(await asyncio.gather(own, *working))
    except BrokenProcessPool:
        raise WorkerLost("a process that checked a part ended before it was done") from None
    finally:
        await ended(own)
        await asyncio.to_thread(pool.shutdown, cancel_futures=True)


def in_process(part: Part) -> Checked:
    """`checked`, in a process of its own."""
    heap.for_batches()
    return asyncio.run(checked(part, lambda _: None))


async def checked(
    part: Part, say: Say, checkpoints: Checkpoints | None = None, progress_events: int = 100_000
) -> Checked:
    """Checks a part; `checkpoints` take the whole log.

    Raises psycopg.Error, StoreUnavailable, BrokerUnavailable, DocumentsUnavailable.
    """
    settings, context, report = part.settings, CONTEXTS[part.context], Report()
    async with AsyncExitStack() as stack:
        mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
        stack.push_async_callback(mongo.close)
        log = StoreLog(settings.postgres_url, context.schema, as_login=True)
        stack.callback(log.close)
        recorder = Recorder(settings.postgres_url, context.schema, as_login=True)
        stack.callback(recorder.close)
        keys = await asyncio.to_thread(SealedKeys, settings, context, report)
        stack.callback(keys.close)
        reader = Reader(context, report)
        topic = Topic(
            context, settings.kafka_url, log, reader, report, part.published, part.partitions, part.held
        )
        stack.push_async_callback(topic.close)
        views = [view for view in VIEWS if context.topic.name in view.sources]
        folds: list[Fold] = []
        for view in views:
            with report.reading("I4", f"{view.name}: its live generation"):
                if (fold := await Fold.of(view, context.name, mongo, report)) is not None:
                    folds.append(fold)
        events, partitions = 0, context.topic.partitions
        async for page in pages(log, part.head):
            if checkpoints is not None:
                checkpoints.take(page)
            own = [
                event
                for event in page
                if place_of(event.stream_id.int, partitions).partition in part.partitions
            ]
            readable: list[StoredEvent] = []
            for at in range(0, len(own), EVENTS_AT_ONCE):
                read = reader.all(own[at : at + EVENTS_AT_ONCE])
                readable += [each.stored for each in read]
                wanted = [each.wanted for each in read if each.wanted is not None]
                await topic.match(wanted)
                for fold in folds:
                    await fold.take(wanted)
            with report.reading("I10", f"{context.name}: the keys of some events"):
                await asyncio.to_thread(keys.take, readable)
            events += len(own)
            if events % progress_events < len(own):
                say(f"{context.name}: {events} events checked")
        await topic.finish(part.head)
        folded: dict[str, Folded] = {}
        for fold in folds:
            with report.reading("I4", f"{fold.view.name}: the documents"):
                folded[fold.view.name] = await fold.finish(context, recorder, part.head)
        return Checked(report, events, topic.repeated, folded)


async def pages(log: StoreLog, head: int) -> AsyncIterator[Sequence[StoredEvent]]:
    """The log up to `head`; the next page is read while this one is looked at."""
    after = 0
    reading = asyncio.ensure_future(log.read_after(after, PAGE_EVENTS))
    try:
        while page := [event for event in await reading if (event.position or 0) <= head]:
            after = page[-1].position or head
            reading = asyncio.ensure_future(log.read_after(after, PAGE_EVENTS))
            yield page
    finally:
        await ended(reading)
