"""Acts of operators on a running system, as events of the context whose views or subjects they changed.

These events are not published: other contexts do not need them. The store is the audit log.
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
    """`action` is the act (`view-rebuilt`, `parked-released`, `parked-skipped`), `target` its object."""

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
    """Stores the actor, the time and the reason; returns the position.

    Raises VersionConflict after too many conflicts.
    """
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
