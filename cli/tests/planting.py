"""Events that no command would store, for tests of what looks at a store from outside."""

from uuid import UUID

import psycopg
from chassis.clock import uuid7
from chassis.write.deciding import CommandContext
from chassis.write.events import Event, StoredEvent
from chassis.write.store import Append, Appended, Command
from customer.catalogue import catalogue
from customer.connections import Write


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
