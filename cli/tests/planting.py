"""A store of customer and events that no command would store, for tests of what looks at a store from outside."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from chassis.clock import SystemClock, uuid7
from chassis.write.deciding import CommandContext
from chassis.write.events import Event, StoredEvent
from chassis.write.store import Append, Appended, Command
from customer.catalogue import catalogue
from customer.connections import Write, write_side
from customer.settings import CustomerSettings

from .stores import Bank, new_database

CLOCK = SystemClock()


def by(actor: str = "chen", **also: Any) -> CommandContext:
    """The context of a command that a person gives now."""
    now = CLOCK.now()
    given = {"actor": actor, "now": now, "command_id": uuid7(now), "reason": "asked for"}
    return CommandContext(**(given | also))


@asynccontextmanager
async def new_write_side(postgres_url: str, data: Path) -> AsyncIterator[Write]:
    """The write side of customer over a database of its own."""
    bank = Bank(new_database(postgres_url), "", "", data)
    settings = CustomerSettings(
        postgres_url=bank.postgres_url, keys_url=bank.keys_url, data=data, environment="development"
    )
    async with write_side(settings, CLOCK) as write:
        yield write


async def planted(write: Write, stream: UUID, context: CommandContext, *events: Event) -> None:
    """Stores events at the end of a stream of customer, as a command of that context would."""
    head = (await write.store.stream_heads([stream])).get(stream, 0)
    known, metadata = catalogue(), context.metadata()
    stored = tuple(
        StoredEvent(
            stream,
            version,
            known.name_of(event),
            known.encode(event, metadata, stream_id=stream, version=version, key=None),
        )
        for version, event in enumerate(events, head + 1)
    )
    remembered = Command(str(uuid7(context.now)), b"planted")
    result = await write.store.append_one(Append(stream, stored, remembered, head))
    assert isinstance(result, Appended)


def spoiled(postgres_url: str, stream: UUID, body: bytes) -> None:
    """Replaces the first event of a stream of customer by something else, past the guards of the store."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("alter table store_customer.events disable trigger all")
        changed = connection.execute(
            "update store_customer.events set body = %s where stream_id = %s and version = 1", (body, stream)
        )
        assert changed.rowcount == 1
