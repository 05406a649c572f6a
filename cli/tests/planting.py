"""Events that no command would store, for tests of what looks at a store from outside."""

from uuid import UUID

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
