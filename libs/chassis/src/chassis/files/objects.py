"""Where the content of files lies: objects, each written once, whole or not at all, and never changed. The port and its errors.

An object's name is never used again, so deleting one that no file refers to is harmless at any time.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from chassis.connections.transient import ServerLost


class StorageUnavailable(ServerLost):
    """The storage of files does not answer, or cannot do its work just now: it is full, not mounted, or refuses us."""


class ObjectMissing(Exception):
    """The storage answers, and has no such object."""

    own_words = True


class Name(NamedTuple):
    """The name of an object: the stream of events that refers to it, and its own id."""

    stream: UUID
    object: UUID


def name_of(stream: str, object: str) -> Name | None:
    """The name that these two words are, as storages write it; None where they are nothing of ours."""
    try:
        name = Name(UUID(stream), UUID(object))
    except ValueError:
        return None
    return name if (name.stream.hex, name.object.hex) == (stream, object) else None


class Found(NamedTuple):
    """An object that is there, and when it was written, by the clock of the storage."""

    name: Name
    written_at: datetime


class Writing(Protocol):
    """An object that is being written. It is there, and lasts, once `commit` has returned. Calls block, and raise
    StorageUnavailable."""

    def write(self, part: bytes) -> None:
        """Adds bytes."""
        ...

    def commit(self) -> None:
        """Makes the object whole. It is on the disk when this returns."""
        ...

    def abandon(self) -> None:
        """Leaves nothing of it, where it is not whole yet. It raises nothing: the sweep comes later."""
        ...


class Reading(Protocol):
    """An object that is being read. Calls block, and raise StorageUnavailable."""

    def read(self, size: int) -> bytes:
        """The next bytes; fewer than `size` at the end alone."""
        ...

    def close(self) -> None:
        """Lets it go."""
        ...


class Objects(Protocol):
    """The objects of one context. Calls block, and raise StorageUnavailable."""

    def write(self, name: Name) -> Writing:
        """Begins an object of a name that was never used."""
        ...

    def read(self, name: Name) -> Reading:
        """Opens an object; raises ObjectMissing."""
        ...

    def delete(self, name: Name) -> None:
        """Deletes an object; nothing where it is not there."""
        ...

    def found(self) -> Iterator[Found]:
        """All objects, those of a stream together. One that is written or deleted meanwhile may be among them."""
        ...

    def forget_unfinished(self, before: datetime) -> int:
        """Leaves nothing of objects that were begun before then and never became whole; how many there were."""
        ...
