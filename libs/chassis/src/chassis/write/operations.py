"""What a person did to a running system from the outside, as an event of the context whose views or subjects it touched.

It is nobody else's business, so it is not published; the store is the record of who did what.
"""

from typing import Final
from uuid import UUID, uuid5

from chassis.write.catalogue import Catalogue, NewEvent
from chassis.write.deciding import CommandContext
from chassis.write.events import Event
from chassis.write.store import Recorder, VersionConflict

_NAMESPACE: Final = UUID("5d5a8a0e-4d0c-5d4e-8f0b-6d0c8f2c7a11")
RETRIES_MAX: Final = 10


class OperatorActed(Event, frozen=True):
    """`action` is what was asked (`view-rebuilt`, `parked-released`, `parked-skipped`), `target` of what."""

    action: str
    target: str


OPERATIONS: Final[dict[str, type[Event]]] = {"operator-acted": OperatorActed}
"""Their stored names, for the catalogue of a context."""


def operations_stream(store: str) -> UUID:
    """The stream of all operations on one context."""
    return uuid5(_NAMESPACE, f"operations:{store}")


def note_operation(
    recorder: Recorder, catalogue: Catalogue, store: str, operation: OperatorActed, context: CommandContext
) -> int:
    """Stores who did it, when and why; returns the position. Raises VersionConflict where others are faster each time."""
    stream = operations_stream(store)
    for attempt in range(RETRIES_MAX):
        version = recorder.stream_heads([stream]).get(stream, 0) + 1
        event = NewEvent(stream, version, operation, context.metadata())
        try:
            return recorder.append_bulk(catalogue.stored([event], {}))[-1]
        except VersionConflict:
            if attempt + 1 == RETRIES_MAX:
                raise
    raise AssertionError("unreachable")
