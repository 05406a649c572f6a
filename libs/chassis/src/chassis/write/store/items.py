"""What goes into the store and what comes back."""

from collections.abc import Iterable
from typing import Final, Protocol
from uuid import UUID

import msgspec

from chassis.connections.transient import Transient
from chassis.write.deciding import EventOversized
from chassis.write.events import StoredEvent

EVENT_BYTES_MAX: Final = 512 * 1024
"""Of a stored event's body. The broker takes a record of 1 MiB (its `message.max.bytes`, and the topic's), so that the
public words of any event go out, with their headers."""


class VersionConflict(Exception):
    """A stream is not where the writer thought. `actual` is its head, where the store could tell."""

    def __init__(self, stream_id: UUID | None = None, actual: int | None = None) -> None:
        super().__init__(f"stream {stream_id} is at version {actual}")
        self.stream_id = stream_id
        self.actual = actual


class IdentityConflict(Exception):
    """An identity is taken: what it names has been recorded before."""


class Fenced(Transient):
    """A lease or lock is over, or somebody else has it: what its holder of before wants to save is not accepted."""


class Fence(Protocol):
    """One taking of a lock: what is stored under its epoch is refused from when somebody else took the lock."""

    name: str
    epoch: int

    def check(self) -> None:
        """Raises Fenced where the lock may be lost, by this process's own clock."""
        ...


class Command(msgspec.Struct, frozen=True):
    """Under which key an outcome is remembered, and a digest that tells one command from another."""

    key: str
    fingerprint: bytes


class Append(msgspec.Struct, frozen=True):
    """Events of one stream, stored together or not at all.

    They carry their versions, and the first one continues the stream. A command may have no events: its outcome is
    remembered all the same, and `expected` then is the version that it was decided on.
    """

    stream_id: UUID
    events: tuple[StoredEvent, ...] = ()
    command: Command | None = None
    expected: int = 0

    @property
    def first(self) -> int:
        """The version that the next event of the stream must have."""
        return self.events[0].version if self.events else self.expected + 1


class Appended(msgspec.Struct, frozen=True):
    """Stored; one position per event."""

    positions: tuple[int, ...]


class CommandSeen(msgspec.Struct, frozen=True):
    """The command key was used before: what was remembered then. Nothing was stored now."""

    key: str
    fingerprint: bytes
    stream_id: UUID
    version: int
    event_count: int


def checked_sizes(events: Iterable[StoredEvent]) -> None:
    """Raises EventOversized where one of them is larger than `EVENT_BYTES_MAX`."""
    for event in events:
        if len(event.body) > EVENT_BYTES_MAX:
            raise EventOversized(f"{event.name}: {len(event.body)} of {EVENT_BYTES_MAX} bytes")


AppendResult = Appended | CommandSeen | VersionConflict | IdentityConflict
"""Conflicts are values here, because one member of a batch must not fail the others."""
