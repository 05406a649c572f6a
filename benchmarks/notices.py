"""[notices] notices handed over to a provider that answers at once, against their requests, on one PostgreSQL in one run.

The limit is how many notices are requested, 200 in flight: a command each, as the answer of a provider is one. The second
figure is how many a limit of 50 a second lets through in 5 s, against those that it allows.

    python benchmarks/notices.py [--notices N] [--in-flight N]
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

import psycopg
import uvloop
from chassis.clock import SystemClock
from chassis.connections.migrating import migrate
from chassis.notices import NOTICES, Notices, Template, Wanted
from chassis.notices.loop import NoticeLoop
from chassis.notices.providers import Accepted, Answer, Message, Provider
from chassis.notices.table import NOTICES_LEASE, Limit, PostgresNotices
from chassis.privacy.key_encryption import FileKeyEncryption
from chassis.privacy.keys import KEYS, KeyRing
from chassis.process.leases import Lease, PostgresLease
from chassis.relay.postgres import Listening
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext
from chassis.write.store import EventStore, prepare
from devservers import servers
from typing_extensions import override

LIMIT_RATIO: Final = 0.1
LIMITED: Final = Limit(50, 1.0)
LIMITED_SECONDS: Final = 5.0
FREELY: Final = Limit(1_000_000, 1.0)
SUBJECTS: Final = 1_000
NAMESPACE: Final = UUID(int=13)
SCHEMA: Final = "told"
CATALOGUE: Final = Catalogue(store="told", entries=NOTICES)
TEMPLATE: Final = Template("told", 1, "sms", "This is ${number}.", {"number": 9})


class Prompt(Provider):
    """Answers at once."""

    name = "prompt"

    def __init__(self) -> None:
        self.taken = 0
        self._more = asyncio.Condition()

    async def has(self, count: int) -> None:
        """Returns when it has so many."""
        async with self._more:
            await self._more.wait_for(lambda: self.taken >= count)

    @override
    async def hand_over(self, message: Message) -> Answer:
        async with self._more:
            self.taken += 1
            self._more.notify_all()
        return Accepted(None, "queued")


class Side:
    """A store with notices."""

    def __init__(self, url: str, folder: Path) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create database crm_keys")
        self.url, self.clock = url, SystemClock()
        keys_url = psycopg.conninfo.make_conninfo(url, dbname="crm_keys")
        migrate(keys_url, [KEYS])
        prepare(url, SCHEMA)
        encryption = FileKeyEncryption.at(folder / "kek", create=True)
        self.keys = KeyRing.open(keys_url, encryption, self.clock.monotonic)
        self.store = EventStore(url, SCHEMA)
        self.notices = Notices(self.store, CATALOGUE, self.keys, [TEMPLATE])

    async def requested(self, first: int, count: int, in_flight: int) -> float:
        """Requests per second."""
        waiting: Iterator[int] = iter(range(first, first + count))

        async def several() -> None:
            for number in waiting:
                subject, id = uuid5(NAMESPACE, str(number % SUBJECTS)), uuid5(NAMESPACE, f"notice {number}")
                context = CommandContext(
                    actor="policy", now=self.clock.now(), command_id=uuid5(id, "request")
                )
                wanted = Wanted(subject, "+8613800001234", TEMPLATE.name, {"number": str(number)})
                await self.notices.request(id, wanted, context)

        began = time.perf_counter()
        await asyncio.gather(*(several() for _ in range(in_flight)))
        return count / (time.perf_counter() - began)

    async def handed_over(self, count: int, limit: Limit, seconds_max: float) -> float:
        """Notices per second until all are handed over, or that long."""
        provider, stopping = Prompt(), asyncio.Event()
        row, table = PostgresLease(self.url, SCHEMA, NOTICES_LEASE), PostgresNotices(self.url, SCHEMA)
        hint = Listening(self.url, SCHEMA, self.clock)
        loop = NoticeLoop(
            "told",
            self.notices,
            self.store,
            CATALOGUE,
            table,
            {"sms": provider},
            Lease(row, self.clock),
            self.clock,
            limits={"sms": limit},
            to_each=FREELY,
            hint=hint,
        )
        began = time.perf_counter()
        running = asyncio.create_task(loop.run(stopping))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await provider.has(count)
        rate = provider.taken / (time.perf_counter() - began)
        stopping.set()
        await running
        for each in (row, table, hint):
            await each.close()
        return rate

    async def close(self) -> None:
        """Lets everything go."""
        await self.store.close()
        self.keys.close()


async def measured(notices: int, in_flight: int) -> tuple[float, float, float]:
    """Notices handed over and requested per second, and those that a limit let through per second."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder), {"postgres"}, lambda _: None) as running,
    ):
        side = Side(running.urls["POSTGRES_URL"], Path(folder))
        try:
            requested = await side.requested(0, notices, in_flight)
            handed_over = await side.handed_over(notices, FREELY, 600.0)
            limited = int(LIMITED.most * LIMITED_SECONDS * 3)
            await side.requested(notices, limited, in_flight)
            allowed = await side.handed_over(limited, LIMITED, LIMITED_SECONDS)
        finally:
            await side.close()
    return handed_over, requested, allowed


def main() -> int:
    """Prints the figures; 1 where one misses its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--notices", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=200)
    asked = parser.parse_args()
    handed_over, requested, limited = uvloop.run(measured(asked.notices, asked.in_flight))
    # A full limit lets its burst through at once, and then its rate.
    allowed = LIMITED.most / LIMITED.seconds + LIMITED.most / LIMITED_SECONDS
    for name, value, limit in (
        ("notices", handed_over, requested),
        ("notices_limited", limited, allowed),
    ):
        figure = {"name": name, "value": round(value, 2), "unit": "notices/s", "limit": round(limit, 2)}
        print(json.dumps({**figure, "ratio": round(value / limit, 3)}), flush=True)
    return 0 if handed_over / requested >= LIMIT_RATIO and 0.5 <= limited / allowed <= 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
