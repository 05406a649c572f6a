"""[watching] a thousand watchers of one API process: how late they are told, beside how late a bare change stream hears
the same writes, and the memory that they take. One line of JSON each.

A process serves the routes of customer over loopback; clients in another one watch, most of them customers by id, some
of them a condition. Facts of customers are written to MongoDB as the deriver writes them, at a steady rate.

    python benchmarks/watching.py [--watchers N] [--seconds S] [--writes-per-second N]
"""

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import uvloop
from chassis.clock import SystemClock
from chassis.privacy.tokens import development_token
from chassis.process.roles import begun
from chassis.read.changes import MongoChangeLog
from chassis.read.documents import ID, SEQUENCE, Change
from chassis.read.generations import Generations
from chassis.read.mongo import Mongo
from chassis.web import create_app, listening_socket
from chassis.web import serve as serve_app
from customer.bootstrap import routes
from customer.derived import DERIVED
from customer.derived.customer_facts import FACTS
from customer.settings import CustomerSettings
from customer.views import VIEWS
from devservers import servers
from panorama_read import settings_for, until_open

CLOCK = SystemClock()
LAG_SECONDS_WANTED = 1.0
MEMORY_MEGABYTES_WANTED = 128.0
"""Of the 512 that a pod is given, beyond what the process takes without watchers."""
CUSTOMERS = 2_000
WRITTEN_AT_ONCE = 10
CONDITIONS = 50
BY_CONDITION_SHARE = 10
"""Every so manieth watcher watches a condition."""
WATCHERS_OF_CALLER = 10
JOIN_AT_ONCE = 50
Told = Callable[[list[str]], None]


def customer_of(number: int) -> str:
    """The id of a customer."""
    return str(UUID(int=number + 1))


def facts_of(number: int, count: int) -> dict[str, Any]:
    """The facts of a customer after so many writes; of a size as they have."""
    minor = (number * 7_919 + count * 104_729) % 2_000_000
    return {
        ID: customer_of(number),
        SEQUENCE: count,
        "kind": "person",
        "origin": "master-data",
        "branch": f"支行{number % 200:03d}",
        "questions": [],
        "aum": {"CNY": minor},
        "products": ["deposit", "wealth"],
        "currencies": ["CNY"],
        "accounts": number % CONDITIONS,
        "relations": [{"action": "opened", "object": "deposit", "on": "2026-01-05", "times": 1}] * 5,
        "changes_on": None,
    }


class Writer:
    """Writes facts as the deriver does, and remembers when each write was sent."""

    def __init__(self, mongo: Mongo, generation: Any, generations: Generations[Any]) -> None:
        self.documents = generations.documents(generation)
        self.collection = generation.prefix + FACTS
        self.mongo = mongo
        self.counts = [0] * CUSTOMERS
        self.written_at: dict[str, float] = {}

    async def write(self, numbers: range) -> None:
        """Writes the facts of some customers once more."""
        changes = []
        for number in numbers:
            before = self.counts[number]
            self.counts[number] = before + 1
            document = self.documents.freeze(facts_of(number, before + 1))
            changes.append(Change(customer_of(number), before or None, before + 1, document))
        # A change may be told before the write is acknowledged.
        now = CLOCK.monotonic()
        self.written_at |= {customer_of(number): now for number in numbers}
        await self.documents.write(FACTS, changes)


class Lags:
    """Seconds from the sending of a write to the moment when it is told, or heard."""

    def __init__(self, written_at: Mapping[str, float]) -> None:
        self.written_at = written_at
        self.seconds: list[float] = []
        self.counting = False

    def told(self, ids: list[str]) -> None:
        """These changed. Of writes that were told as one, the last counts."""
        if self.counting:
            now = CLOCK.monotonic()
            self.seconds += [now - self.written_at[id] for id in ids if id in self.written_at]

    def percentile(self, of_hundred: float) -> float:
        """So many of a hundred were told within this time."""
        return percentile(self.seconds, of_hundred)


def percentile(seconds: list[float], of_hundred: float) -> float:
    """So many of a hundred took this time at most."""
    found = sorted(seconds)
    return found[min(len(found) - 1, int(len(found) * of_hundred / 100))]


async def watch(
    client: httpx.AsyncClient, token: str, parameters: dict[str, str], told: Told, begun: asyncio.Event
) -> None:
    """One watcher."""
    headers = {"Authorization": f"Bearer {token}"}
    async with client.stream("GET", "/customers/changes", params=parameters, headers=headers) as answer:
        answer.raise_for_status()
        event = ""
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "data" and event == "reset":
                begun.set()
            elif name == "data":
                data = json.loads(value)
                told([*data["changed"], *data["entered"], *data["left"]])


async def joined(
    client: httpx.AsyncClient, settings: CustomerSettings, watchers: Sequence[tuple[dict[str, str], Told]]
) -> list[asyncio.Task[None]]:
    """The tasks of watchers that are all told from now on; of each what it watches, and who is told."""
    tasks = []
    for first in range(0, len(watchers), JOIN_AT_ONCE):
        joining = []
        for number, (parameters, told) in enumerate(watchers[first : first + JOIN_AT_ONCE], first):
            token = development_token(settings, CLOCK.now(), subject=f"w{number // WATCHERS_OF_CALLER}")
            begun = asyncio.Event()
            tasks.append(asyncio.create_task(watch(client, token, parameters, told, begun)))
            joining.append(begun)
        await asyncio.wait_for(asyncio.gather(*(one.wait() for one in joining)), 60)
    return tasks


async def left(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Ends watchers; raises where one of them has failed."""
    for task in tasks:
        task.cancel()
    failed = [
        one for one in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(one, Exception)
    ]
    if failed:
        raise failed[0]


async def heard(writer: Writer, lags: Lags) -> None:
    """A bare change stream of the same collection."""
    changes = await MongoChangeLog(writer.mongo).opened(writer.collection)
    try:
        while True:
            lags.told([str(id) for id in (await changes.next(0.5)).ids])
    finally:
        await changes.close()


async def memory(client: httpx.AsyncClient) -> float:
    """Megabytes of the serving process."""
    page = (await client.get("/metrics")).text
    [line] = [line for line in page.splitlines() if line.startswith("process_resident_memory_bytes ")]
    return float(line.split()[1]) / (1 << 20)


async def measured(
    settings: CustomerSettings, watchers: int, seconds: float, rate: int, writer: Writer
) -> tuple[Lags, Lags, float]:
    """The lags of watchers and of a bare stream, and the megabytes that the watchers took."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    url = f"http://127.0.0.1:{settings.port}"
    lags, bare = Lags(writer.written_at), Lags(writer.written_at)
    watched = [
        {"customer": customer_of(number % CUSTOMERS)}
        if number % BY_CONDITION_SHARE
        else {"where": f"accounts >= {number // BY_CONDITION_SHARE % CONDITIONS}"}
        for number in range(watchers)
    ]
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=None) as client:  # noqa: S113 (streams last)
        before = await memory(client)
        tasks = [asyncio.create_task(heard(writer, bare))]
        tasks += await joined(client, settings, [(one, lags.told) for one in watched])
        lags.counting = bare.counting = True
        began, number = CLOCK.monotonic(), 0
        while (now := CLOCK.monotonic()) < began + seconds:
            await writer.write(range(number, number + WRITTEN_AT_ONCE))
            number = (number + WRITTEN_AT_ONCE) % CUSTOMERS
            await asyncio.sleep(max(0.0, now + WRITTEN_AT_ONCE / rate - CLOCK.monotonic()))
        await asyncio.sleep(2 * LAG_SECONDS_WANTED)
        took = await memory(client) - before
        await left(tasks)
    return lags, bare, took


async def filled(settings: CustomerSettings) -> tuple[Mongo, Writer]:
    """All views live and empty, and the facts of the customers."""
    mongo = Mongo.connect(settings.mongo_url)
    for view in VIEWS:
        kept = Generations(mongo, view, "customer", CLOCK)
        await kept.switch(await kept.begin())
    derived = Generations(mongo, DERIVED[0], "customer", CLOCK)
    generation = await derived.begin()
    await derived.switch(generation)
    writer = Writer(mongo, generation, derived)
    for first in range(0, CUSTOMERS, 500):
        await writer.write(range(first, first + 500))
    return mongo, writer


def serve(settings: CustomerSettings) -> None:
    """Serves customer until it is terminated."""

    async def served() -> None:
        async with routes(settings, CLOCK) as found:
            app = create_app("customer", [found.router], settings, clock=CLOCK)
            await serve_app(app, listening_socket(settings.host, settings.port), asyncio.Event())

    with begun("watching", settings):
        uvloop.run(served())


@contextmanager
def serving(settings: CustomerSettings) -> Iterator[None]:
    """A process that serves customer."""
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(settings,))
    server.start()
    try:
        until_open(settings.port)
        yield
    finally:
        server.terminate()
        server.join(20)


async def run(settings: CustomerSettings, watchers: int, seconds: float, rate: int) -> int:
    """Prints the figures; 1 where one is beyond its limit."""
    mongo, writer = await filled(settings)
    try:
        lags, bare, took = await measured(settings, watchers, seconds, rate, writer)
    finally:
        await mongo.close()
    late = lags.percentile(99)
    figure = {"name": "watching_lag_p99", "value": round(late, 3), "unit": "s", "limit": LAG_SECONDS_WANTED}
    more = {"p50": round(lags.percentile(50), 3), "bare_change_stream_p99": round(bare.percentile(99), 3)}
    counts = {"watchers": watchers, "told": len(lags.seconds), "writes_per_second": rate}
    print(json.dumps({**figure, **more, **counts}))
    size = {
        "name": "watching_memory",
        "value": round(took, 1),
        "unit": "MB",
        "limit": MEMORY_MEGABYTES_WANTED,
    }
    print(json.dumps({**size, "watchers": watchers, "each_kilobytes": round(took * 1024 / watchers, 1)}))
    return int(late > LAG_SECONDS_WANTED or took > MEMORY_MEGABYTES_WANTED)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--writes-per-second", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with servers(data, {"mongo", "postgres"}, lambda _: None, durable=False) as running:
            settings = settings_for(running.urls, data)
            with serving(settings):
                return uvloop.run(run(settings, given.watchers, given.seconds, given.writes_per_second))


if __name__ == "__main__":
    sys.exit(main())
