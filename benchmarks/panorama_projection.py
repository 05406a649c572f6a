"""[panorama_projection] from Kafka to the panorama, sustained, and how far behind it is at half that rate.

A feed is booked; then the relay publishes it and the views follow, each in a process of its own, and the time runs
while they catch up, without the first tenth. The limit is a bulk upsert of the very same documents into the same
MongoDB by one client that has nothing else to do. Then events flow into the store at half the rate: the lag of a
batch is the time from its commit until its last posting is in the panorama.

    python benchmarks/panorama_projection.py [--postings N] [--paced-seconds S]
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg
from chassis.clock import SystemClock
from chassis.read.generations import ViewReader
from chassis.read.mongo import Mongo
from chassis.read.projecting import View
from chassis.write.events import StoredEvent
from chassis.write.store import Recorder
from crm_cli.migrate import migrated
from customer.views import VIEWS, asset_panorama
from devservers import servers
from ingest import MadeFeed
from pymongo import MongoClient, ReplaceOne
from sync_ingest.bootstrap import opened
from sync_ingest.ledger import SCHEMA
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings

SUSTAINED_WANTED = 0.85
LAG_SECONDS_WANTED = 0.8
BULK_DOCUMENTS = 1_000
WARM_POSTINGS = 2_000
BATCH_SECONDS = 0.1
LOOK_SECONDS = 0.02
COUNT_SECONDS = 0.05
PATIENCE_SECONDS = 300.0
CLOCK = SystemClock()


@contextmanager
def system() -> Iterator[SyncIngestSettings]:
    """Servers of its own with all tables, as the settings of ingest name them."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder), {"postgres", "mongo", "kafka"}, lambda _: None) as running,
    ):
        urls = running.urls
        settings = SyncIngestSettings(
            postgres_url=urls["POSTGRES_URL"],
            mongo_url=urls["MONGO_URL"],
            kafka_url=urls["KAFKA_URL"],
            data=Path(folder),
            environment="development",
        )
        migrated(settings)
        yield settings


@contextmanager
def roles(settings: SyncIngestSettings, *wanted: tuple[str, str]) -> Iterator[None]:
    """Roles in processes of their own."""
    environment = os.environ | {
        "POSTGRES_URL": settings.postgres_url,
        "MONGO_URL": settings.mongo_url,
        "KAFKA_URL": settings.kafka_url,
        "CRM_DATA": str(settings.data),
        "CRM_PORT": "0",
        "CRM_LOG_LEVEL": "warning",
    }
    children = [
        subprocess.Popen([sys.executable, "-m", package, role], env=environment) for package, role in wanted
    ]
    try:
        yield
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(30)


def take_in(settings: SyncIngestSettings, feeds: list[bytes]) -> None:
    """Books feeds one after the other."""
    with opened(settings) as ingest:
        for number, feed in enumerate(feeds):
            ingest.keep("bench", FeedContent(f"feed-{number}", partial(BytesIO, feed)), format="canonical")


def head(settings: SyncIngestSettings) -> int:
    """The last position of ingest."""
    recorder = Recorder(settings.postgres_url, SCHEMA)
    try:
        return recorder.head_position()
    finally:
        recorder.close()


async def shown(settings: SyncIngestSettings, position: int) -> None:
    """Waits until the panorama shows everything up to a position."""
    mongo = Mongo.connect(settings.mongo_url)
    views = ViewReader(mongo, CLOCK, VIEWS)
    if not await views.wait_for("ingest", position, PATIENCE_SECONDS, [asset_panorama.VIEW.name]):
        raise RuntimeError("the panorama does not catch up")
    await mongo.close()


async def passing(settings: SyncIngestSettings, first: int, last: int) -> float:
    """Movements per second between the moment when there are `first` of them and the one when there are `last`."""
    mongo = Mongo.connect(settings.mongo_url)
    views = ViewReader(mongo, CLOCK, VIEWS)
    counted = {"count": await views.collection(asset_panorama.VIEW.name, asset_panorama.MOVEMENTS)}
    seen: list[tuple[float, int]] = []
    until = CLOCK.monotonic() + PATIENCE_SECONDS
    while not seen or seen[-1][1] < last:
        found = int((await mongo.command(counted))["n"])
        if found >= first:
            seen.append((CLOCK.monotonic(), found))
        if CLOCK.monotonic() > until:
            raise RuntimeError("the panorama does not catch up")
        await CLOCK.sleep(COUNT_SECONDS)
    await mongo.close()
    return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])


def sustained(settings: SyncIngestSettings, postings: int) -> float:
    """Postings per second from the store over Kafka to the panorama, without the first tenth."""
    warm, feed = MadeFeed(WARM_POSTINGS, 10**8).read(1 << 40), MadeFeed(postings).read(1 << 40)
    relay, views = ("sync_ingest", "relay"), ("customer", "views")
    take_in(settings, [warm])
    with roles(settings, views):
        with roles(settings, relay):
            asyncio.run(shown(settings, head(settings)))
        take_in(settings, [feed])
        with roles(settings, relay):
            return asyncio.run(passing(settings, WARM_POSTINGS + postings // 10, WARM_POSTINGS + postings))


def raw_limit(url: str, postings: int) -> float:
    """Postings per second of a bulk upsert of the documents that the panorama made of them."""
    counts, seconds = bulk_written(url, asset_panorama.VIEW)
    moved = counts[asset_panorama.MOVEMENTS]
    assert moved >= postings, (moved, postings)
    return moved / seconds


def bulk_written(url: str, *views: View) -> tuple[dict[str, int], float]:
    """Documents by collection of these views (of all where none is given), and the seconds of a bulk upsert of them."""
    client: MongoClient[dict[str, Any]] = MongoClient(url, w="majority")
    database = client.get_default_database("crm")
    places = [(f"{view.name}_v1_", each) for view in views or VIEWS for each in view.collections]
    documents = {prefix + each.name: list(database[prefix + each.name].find()) for prefix, each in places}
    for prefix, each in places:
        for index in each.indexes:
            options = {} if index.partial is None else {"partialFilterExpression": index.partial}
            raw = database[f"raw_{prefix}{each.name}"]
            raw.create_index(list(index.fields), unique=index.unique, **options)
    began = CLOCK.monotonic()
    for name, found in documents.items():
        for at in range(0, len(found), BULK_DOCUMENTS):
            some = [
                ReplaceOne({"_id": one["_id"]}, one, upsert=True) for one in found[at : at + BULK_DOCUMENTS]
            ]
            database[f"raw_{name}"].bulk_write(some, ordered=False)
    seconds = CLOCK.monotonic() - began
    client.close()
    return {each.name: len(documents[prefix + each.name]) for prefix, each in places}, seconds


def booked_elsewhere(settings: SyncIngestSettings, feed: MadeFeed) -> list[StoredEvent]:
    """Events of a feed as ingest makes them, from a store of its own: what they cost to make is measured elsewhere."""
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        connection.execute("create database crm_source")
    url = psycopg.conninfo.make_conninfo(settings.postgres_url, dbname="crm_source")
    source = settings.model_copy(update={"postgres_url": url, "postgres_owner_url": url})
    migrated(source)
    with opened(source) as ingest:
        content = FeedContent("paced", partial(BytesIO, feed.read(1 << 40)))
        ingest.keep("paced", content, format="canonical")
    recorder = Recorder(url, SCHEMA)
    found: list[StoredEvent] = []
    while page := recorder.read_after(found[-1].position or 0 if found else 0, 10_000):
        found += page
    recorder.close()
    return found


async def lags(settings: SyncIngestSettings, rate: float, seconds: float) -> list[float]:
    """Seconds from the storing of each batch of a flow until its last posting is in the panorama."""
    mongo = Mongo.connect(settings.mongo_url)
    views = ViewReader(mongo, CLOCK, VIEWS)
    events = await asyncio.to_thread(booked_elsewhere, settings, MadeFeed(int(rate * seconds), 10**9))
    size = max(1, int(rate * BATCH_SECONDS))
    batches = [events[at : at + size] for at in range(0, len(events), size)]
    waiting: asyncio.Queue[tuple[float, str]] = asyncio.Queue(maxsize=len(batches) + 1)
    await asyncio.to_thread(take_in, settings, [MadeFeed(500, 2 * 10**9).read(1 << 40)])
    await shown(settings, await asyncio.to_thread(head, settings))
    movements = await views.collection(asset_panorama.VIEW.name, asset_panorama.MOVEMENTS)

    def flow(loop: asyncio.AbstractEventLoop) -> None:
        recorder = Recorder(settings.postgres_url, SCHEMA)
        due = CLOCK.monotonic()
        for batch in batches:
            _sleep_until(due)
            recorder.append_bulk(batch)
            last = next((one for one in reversed(batch) if one.name == "posting-booked"), None)
            if last is not None:
                movement = asset_panorama.movement_id(str(last.stream_id), last.version)
                loop.call_soon_threadsafe(waiting.put_nowait, (CLOCK.monotonic(), movement))
            due += BATCH_SECONDS
        loop.call_soon_threadsafe(waiting.put_nowait, (0.0, ""))

    flowing = asyncio.create_task(asyncio.to_thread(flow, asyncio.get_running_loop()))
    found: list[float] = []
    while (told := await waiting.get())[1]:
        stored, movement = told
        while await mongo.find_one(movements, {"_id": movement}, fields={"_id": 1}) is None:
            await CLOCK.sleep(LOOK_SECONDS)
        found.append(CLOCK.monotonic() - stored)
    await flowing
    await mongo.close()
    return found


def _sleep_until(due: float) -> None:
    import time

    time.sleep(max(0.0, due - CLOCK.monotonic()))


def say(name: str, value: float, unit: str, limit: float, ratio: float) -> None:
    """One figure."""
    figure = {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "limit": round(limit, 3),
        "ratio": round(ratio, 3),
    }
    print(json.dumps(figure), flush=True)


def main() -> int:
    """Measures and prints; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postings", type=int, default=120_000)
    parser.add_argument("--paced-seconds", type=float, default=20.0)
    given = parser.parse_args()
    with system() as settings:
        rate = sustained(settings, given.postings)
        with roles(settings, ("sync_ingest", "relay"), ("customer", "views")):
            found = asyncio.run(lags(settings, rate / 2, given.paced_seconds))
        limit = raw_limit(settings.mongo_url, given.postings)
    say("panorama_projection", rate, "postings/s", limit, rate / limit)
    p99 = statistics.quantiles(found, n=100)[98]
    say("panorama_projection_lag_p99", p99, "s", LAG_SECONDS_WANTED, p99 / LAG_SECONDS_WANTED)
    return 0 if rate / limit >= SUSTAINED_WANTED and p99 <= LAG_SECONDS_WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
