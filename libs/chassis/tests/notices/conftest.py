"""A store with its notices, a provider that a test instructs, and a clock that it moves."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.clock import Clock
from chassis.notices import NOTICES, Notices, Template, Wanted
from chassis.notices.deciding import Channel, Notice
from chassis.notices.loop import NoticeLoop
from chassis.notices.providers import Accepted, Answer, Message, Provider
from chassis.notices.table import NOTICES_LEASE, Limit, PostgresNotices
from chassis.privacy.keys import KeyRing
from chassis.process.leases import Lease, PostgresLease
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext
from chassis.write.store import EventStore
from typing_extensions import override

from tests.support.jars import NOW, jar
from tests.support.specification import ManualClock

FULL = Template("jar-full", 1, "sms", "The jar of ${owner} is full.", {"owner": 20})
LETTER = Template(
    "jar-letter", 1, "email", "The jar of ${owner} is full.", {"owner": 20}, title="Full: ${owner}"
)
CHECK = Template("jar-check", 1, "inbox", "Please look at ${owner}.", {"owner": 20}, title="A jar")
PUSH = Template("jar-push", 1, "push", "The jar of ${owner} is full.", {"owner": 20}, title="A full jar")
TEMPLATES = (FULL, LETTER, CHECK, PUSH)
FREELY = Limit(1_000, 1.0)


def catalogue() -> Catalogue:
    """The events of notices."""
    return Catalogue(store="jars", entries=NOTICES)


@dataclass
class Instructed(Provider):
    """A provider outside of the house: notes what it gets, and answers as it is told."""

    name: str = "gateway"
    got: list[Message] = field(default_factory=list)
    answers: Callable[[Message], Answer] = lambda message: Accepted(f"p-{message.id}", "queued for Li")

    @override
    async def hand_over(self, message: Message) -> Answer:
        self.got.append(message)
        return self.answers(message)


class Bench:
    """The notices of a store."""

    catalogue = staticmethod(catalogue)

    def __init__(self, url: str, schema: str, store: EventStore, ring: KeyRing) -> None:
        self.url, self.schema, self.store, self.ring = url, schema, store, ring
        self.clock: Clock = ManualClock(NOW)
        self.provider = Instructed()
        self.notices = Notices(store, catalogue(), ring, TEMPLATES)

    async def request(
        self,
        cause: str,
        template: str = "jar-full",
        to: str = "+8613800001234",
        owner: str = "Li",
        of: str = "a",
    ) -> UUID:
        """Requests a notice because of something that happened; its id."""
        id = uuid5(jar(of), cause)
        context = CommandContext(actor="policy", now=self.clock.now(), command_id=uuid5(id, "request"))
        await self.notices.request(id, Wanted(jar(of), to, template, {"owner": owner}), context)
        return id

    async def notice(self, id: UUID) -> Notice:
        """A notice as it is."""
        return await self.notices.current(id)

    async def names(self, id: UUID) -> list[str]:
        """What is stored of a notice."""
        return [one.name for one in await self.store.read_stream(id)]

    @asynccontextmanager
    async def process(
        self, limits: dict[Channel, Limit] | None = None, to_each: Limit = FREELY, **more: Any
    ) -> AsyncIterator[Callable[[], Any]]:
        """A process that has the lease; gives what works until nothing is left to do now."""
        row, table = (
            PostgresLease(self.url, self.schema, NOTICES_LEASE),
            PostgresNotices(self.url, self.schema),
        )
        lease = Lease(row, self.clock)
        providers = dict.fromkeys(("sms", "email", "push"), self.provider)
        loop = NoticeLoop(
            "jars",
            self.notices,
            self.store,
            catalogue(),
            table,
            more.pop("providers", providers),
            lease,
            self.clock,
            limits=limits or {},
            to_each=to_each,
            **more,
        )
        self.loop = loop
        try:
            await loop.begin()

            async def work() -> None:
                epoch = await lease.acquire()
                while await loop.turn(epoch):
                    await loop.under_way()

            yield work
        finally:
            await lease.release()
            await row.close()
            await table.close()

    def rows(self, what: str = "id", table: str = "notices") -> list[tuple[Any, ...]]:
        """What a table of the notices holds."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(f"select {what} from {self.schema}.{table}").fetchall()


@pytest.fixture
def bench(postgres_url: str, schema: str, store: EventStore, key_ring: KeyRing) -> Bench:
    return Bench(postgres_url, schema, store, key_ring)
