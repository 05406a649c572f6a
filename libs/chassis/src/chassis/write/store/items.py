"""The arguments and results of the event store."""

from collections.abc import Iterable
from typing import Final, Protocol
from uuid import UUID

import msgspec

from chassis.connections.transient import Transient
from chassis.write.deciding import EventOversized
from chassis.write.events import StoredEvent

EVENT_BYTES_MAX: Final = 512 * 1024
"""The limit of a stored event's body. The broker takes a record of 1 MiB (its `message.max.bytes`, and the
topic's), so that the public form of any event fits, with its headers."""


NIL: Final = UUID(int=0)
"""The id before all others."""


class VersionConflict(Exception):
    """A stream has another version than the writer expected. `actual` is its head, where the store knows it."""

    def __init__(self, stream_id: UUID | None = None, actual: int | None = None) -> None:
        super().__init__(f"stream {stream_id} is at version {actual}")
        self.stream_id = stream_id
        self.actual = actual


class IdentityConflict(Exception):
    """An identity is taken: its event has been recorded before."""


class Fenced(Transient):
    """A lease or lock has expired, or another holder has it. Writes of its earlier holder are refused."""


class Fence(Protocol):
    """One taking of a lock. Writes under its epoch are refused once another holder has taken the lock."""

    name: str
    epoch: int

    def check(self) -> None:
        """Raises Fenced where the lock may be lost, by this process's own clock."""
        ...


class Command(msgspec.Struct, frozen=True):
    """The key under which an outcome is remembered, and a digest that distinguishes commands under one key."""

    key: str
    fingerprint: bytes


class Append(msgspec.Struct, frozen=True):
    """Events of one stream, stored together or not at all.

    They carry their versions, and the first one continues the stream. A command may have no events: its
    outcome is remembered all the same, and `expected` then is the version that it was decided on.
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
    """The result of a stored item: one position per event."""

    positions: tuple[int, ...]


class CommandSeen(msgspec.Struct, frozen=True):
    """The command key was used before. Holds the remembered outcome; no event was stored now."""

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
