"""[bulk] a bulk run against single commands, on one PostgreSQL in one run: two lines of JSON.

Each item is one event with a sealed personal value for a stream of its own that exists already. The limit is single commands
through the same `CommandHandler` for the same streams, 200 in flight, each stream once as in the bulk run. The second figure
is what the process has grown by in memory from a fifth of the run to its end.

    python benchmarks/bulk.py [--items N] [--in-flight N]
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

import msgspec
import psycopg
import uvloop
from chassis.bulk import BULK_RUNS, Bulk, Bulkable, listed
from chassis.clock import SystemClock, uuid7
from chassis.connections.migrating import migrate
from chassis.privacy.key_encryption import FileKeyEncryption
from chassis.privacy.keys import KEYS, KeyRing
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Decider, Outcome
from chassis.write.events import Event, Personal
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore, prepare
from devservers import servers

LIMIT_RATIO: Final = 0.5
GROWN_MB_MAX: Final = 64.0
NAMESPACE: Final = UUID(int=12)
PREPARED: Final = 500
LOOK_SECONDS: Final = 0.05


class NoteTaken(Event, frozen=True):
    """What one command does."""

    text: Personal
    number: int


class Notes(msgspec.Struct, frozen=True):
    """How many notes there are."""

    number: int = 0


class TakeNote(msgspec.Struct, frozen=True):
    """Writes a note down."""

    text: str


def decide(command: TakeNote, notes: Notes) -> Sequence[NoteTaken]:
    """One note more."""
    return [NoteTaken(command.text, notes.number + 1)]


def evolve(_: Notes, taken: NoteTaken) -> Notes:
    """The last number."""
    return Notes(taken.number)


class Side:
    """A store with a handler and bulk runs."""

    def __init__(self, url: str, folder: Path) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create database crm_keys")
        self.clock = SystemClock()
        keys_url = psycopg.conninfo.make_conninfo(url, dbname="crm_keys")
        migrate(keys_url, [KEYS])
        prepare(url, "notes")
        self.keys = KeyRing.open(
            keys_url, FileKeyEncryption.at(folder / "kek", create=True), self.clock.monotonic
        )
        self.store = EventStore(url, "notes")
        catalogue = Catalogue(store="notes", entries={"note-taken": NoteTaken, **BULK_RUNS})
        self.notes = CommandHandler(
            Decider(Notes(), decide, evolve, NoteTaken), self.store, catalogue, self.keys
        )
        kind = Bulkable(TakeNote, self.take, self.takes, self.notes.read)
        self.bulk = Bulk(self.store, catalogue, self.keys, {"note": kind}, self.clock)

    async def take(self, stream: UUID, command: TakeNote, context: CommandContext) -> Outcome[NoteTaken]:
        """One command."""
        return await self.notes.handle(stream, command, context)

    async def takes(self, stream: UUID, command: TakeNote) -> bool:
        """Every command does something."""
        return True

    def context(self, key: str | None = None) -> CommandContext:
        """Of a teller."""
        now = self.clock.now()
        return CommandContext(actor="teller-7", now=now, command_id=uuid7(now), idempotency_key=key)

    async def single(self, streams: Sequence[UUID], in_flight: int) -> float:
        """Single commands per second, each stream once; loaded by the handler as they come."""
        waiting: Iterator[UUID] = iter(streams)

        async def several() -> None:
            for stream in waiting:
                await self.take(stream, TakeNote("called back"), self.context(str(stream)))

        began = time.perf_counter()
        await asyncio.gather(*(several() for _ in range(in_flight)))
        return len(streams) / (time.perf_counter() - began)

    async def many(self, streams: Sequence[UUID]) -> tuple[float, float]:
        """Items per second of a bulk run, and the megabytes that the process grew by in its last four fifths."""
        run = (
            await self.bulk.prepare("note", TakeNote("called back"), listed(streams), self.context("r"))
        ).run_id
        await self.bulk.start(run, self.context("s"))
        early: list[float] = []

        async def look() -> AsyncIterator[float]:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                yield resident_mb()

        async def remember() -> None:
            async for size in look():
                if not early and (await self.bulk.shown(run)).settled >= len(streams) // 5:
                    early.append(size)
                    return

        looking = asyncio.create_task(remember())
        began = time.perf_counter()
        await self.bulk.run(run)
        seconds = time.perf_counter() - began
        looking.cancel()
        shown = await self.bulk.shown(run)
        if shown.done != len(streams):
            raise RuntimeError(f"{shown} of {len(streams)}")
        return len(streams) / seconds, resident_mb() - (early[0] if early else 0.0)

    async def close(self) -> None:
        """Lets everything go."""
        await self.store.close()
        self.keys.close()


def resident_mb() -> float:
    """The memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1_000_000


async def measured(items: int, in_flight: int) -> tuple[float, float, float]:
    """Items and single commands per second, and how much memory the bulk run took more."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder), {"postgres"}, lambda _: None) as running,
    ):
        side = Side(running.urls["POSTGRES_URL"], Path(folder))
        try:
            streams = [uuid5(NAMESPACE, str(number)) for number in range(items)]
            for at in range(0, items, PREPARED):
                some = streams[at : at + PREPARED]
                await side.notes.prepare(some)
                await asyncio.gather(*(side.take(each, TakeNote("first"), side.context()) for each in some))
            single = await side.single(streams[: max(items // 5, 1)], in_flight)
            many, grown = await side.many(streams)
        finally:
            await side.close()
    return many, single, grown


def main() -> int:
    """Prints the figures; 1 where one misses its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--in-flight", type=int, default=200)
    asked = parser.parse_args()
    many, single, grown = uvloop.run(measured(asked.items, asked.in_flight))
    rate = {
        "name": "bulk",
        "value": round(many, 2),
        "unit": "items/s",
        "limit": round(single, 2),
        "ratio": round(many / single, 3),
    }
    memory = {
        "name": "bulk_memory",
        "value": round(grown, 1),
        "unit": "MB",
        "limit": GROWN_MB_MAX,
        "ratio": round(grown / GROWN_MB_MAX, 3),
    }
    print(json.dumps(rate), json.dumps(memory), sep="\n", flush=True)
    return 0 if many / single >= LIMIT_RATIO and grown <= GROWN_MB_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
