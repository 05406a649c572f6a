"""[command] single commands against the library's own save, on one PostgreSQL in one run: one line of JSON.

Each command is one event with a sealed personal value for a stream whose state is at hand, 200 in flight, through
`CommandHandler` and `EventStore`: decided, sealed, remembered under its idempotency key, durable. The limit is
`Application.save` of the library's PostgreSQL recorder in 16 threads, one plain event per save, 200 in flight. Rounds of
the two take turns; the figures are medians.

    python benchmarks/command.py [--rounds N] [--seconds S] [--in-flight N]
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import msgspec
import psycopg
import uvloop
from chassis.clock import SystemClock, uuid7
from chassis.connections.migrating import migrate
from chassis.privacy.key_encryption import FileKeyEncryption
from chassis.privacy.keys import KEYS, KeyRing
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Decider
from chassis.write.events import Event, Personal
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore, prepare
from devservers import servers
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from psycopg.conninfo import conninfo_to_dict

LIMIT_RATIO = 20.0
STREAMS = 2_000
LIBRARY_THREADS = 16
NAMESPACE = UUID(int=11)


class NoteTaken(Event, frozen=True):
    """What one command does."""

    text: Personal
    number: int


class Notes(msgspec.Struct, frozen=True):
    """How many notes there are."""

    number: int = 0


@dataclass(frozen=True, slots=True)
class TakeNote:
    """Writes a note down."""

    text: str


def decide(command: TakeNote, notes: Notes) -> Sequence[NoteTaken]:
    """One note more."""
    return [NoteTaken(command.text, notes.number + 1)]


def evolve(_: Notes, taken: NoteTaken) -> Notes:
    """The last number."""
    return Notes(taken.number)


class LibraryNotes(Aggregate):
    """The same for the library: an aggregate with one kind of event."""

    @event("Started")
    def __init__(self) -> None:
        self.number = 0

    @event("Taken")
    def take(self, text: str) -> None:
        """One note more."""
        self.number += 1


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL of its own, with fsync as it comes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder), {"postgres"}, lambda _: None) as running,
    ):
        yield running.urls["POSTGRES_URL"]


async def rate(one: Callable[[], Awaitable[Any]], seconds: float, in_flight: int) -> float:
    """How often `one` ended per second, with so many in flight all the time."""
    done = 0
    began = time.perf_counter()
    until = began + seconds

    async def again() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await one()
            done += 1

    await asyncio.gather(*[again() for _ in range(in_flight)])
    return done / (time.perf_counter() - began)


class Ours:
    """Commands through the handler."""

    def __init__(self, url: str, folder: Path) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create database crm_keys")
        self._clock = SystemClock()
        keys_url = psycopg.conninfo.make_conninfo(url, dbname="crm_keys")
        migrate(keys_url, [KEYS])
        prepare(url, "notes")
        self._keys = KeyRing.open(
            keys_url, FileKeyEncryption.at(folder / "kek", create=True), self._clock.monotonic
        )
        self._store = EventStore(url, "notes")
        catalogue = Catalogue(store="notes", entries={"note-taken": NoteTaken})
        self._handler = CommandHandler(
            Decider(Notes(), decide, evolve, NoteTaken), self._store, catalogue, self._keys
        )
        self._streams = [uuid5(NAMESPACE, str(number)) for number in range(STREAMS)]
        self._numbers = count()

    async def one(self) -> None:
        """One command, acknowledged."""
        number = next(self._numbers)
        now = self._clock.now()
        await self._handler.handle(
            self._streams[number % STREAMS],
            TakeNote("called back, wants to talk about her savings"),
            CommandContext(actor="teller-7", now=now, command_id=uuid7(now), idempotency_key=f"key-{number}"),
        )

    async def close(self) -> None:
        """Lets everything go."""
        await self._store.close()
        self._keys.close()


class Library:
    """Saves of the library, in threads."""

    def __init__(self, url: str) -> None:
        parts = conninfo_to_dict(url)
        self._application: Application[UUID] = Application(
            env={
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_DBNAME": str(parts.get("dbname") or "postgres"),
                "POSTGRES_HOST": str(parts.get("host") or "127.0.0.1"),
                "POSTGRES_PORT": str(parts.get("port") or "5432"),
                "POSTGRES_USER": str(parts.get("user") or "postgres"),
                "POSTGRES_PASSWORD": str(parts.get("password") or "none"),
                "POSTGRES_POOL_SIZE": str(LIBRARY_THREADS),
                "POSTGRES_MAX_OVERFLOW": "0",
            }
        )
        self._notes = [LibraryNotes() for _ in range(STREAMS)]
        self._application.save(*self._notes)
        self._idle = list(self._notes)

    async def one(self) -> None:
        """One event, saved."""
        notes = self._idle.pop()
        try:
            await asyncio.to_thread(self._save, notes)
        finally:
            self._idle.append(notes)

    def _save(self, notes: LibraryNotes) -> None:
        notes.take("called back, wants to talk about her savings")
        self._application.save(notes)

    def close(self) -> None:
        """Lets everything go."""
        self._application.close()


async def measured(rounds: int, seconds: float, in_flight: int) -> tuple[float, float]:
    """Commands and saves per second, medians of the rounds."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(LIBRARY_THREADS))
    with postgres() as url, tempfile.TemporaryDirectory() as folder:
        ours, library = Ours(url, Path(folder)), Library(url)
        try:
            await rate(ours.one, min(seconds, 2.0), in_flight)
            await rate(library.one, min(seconds, 1.0), in_flight)
            commands, saves = [], []
            for _ in range(rounds):
                commands.append(await rate(ours.one, seconds, in_flight))
                saves.append(await rate(library.one, seconds, in_flight))
        finally:
            await ours.close()
            library.close()
    return statistics.median(commands), statistics.median(saves)


def main() -> int:
    """Prints the figure; 1 where it misses its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--in-flight", type=int, default=200)
    asked = parser.parse_args()
    commands, saves = uvloop.run(measured(asked.rounds, asked.seconds, asked.in_flight))
    figure = {
        "name": "command",
        "value": round(commands, 2),
        "unit": "commands/s",
        "limit": round(saves, 2),
        "ratio": round(commands / saves, 3),
    }
    print(json.dumps(figure), flush=True)
    return 0 if commands / saves >= LIMIT_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
