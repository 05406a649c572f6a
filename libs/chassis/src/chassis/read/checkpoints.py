"""What a consumer group remembers beside its effects: how far it is, and what it had to set aside.

A port: MongoDB in production, dictionaries in the simulation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple, Protocol
from uuid import UUID

from chassis.messaging.delivered import Stream
from chassis.messaging.transport import Partition, Record

Wanted = Literal["release", "skip"]

REASON_CHARACTERS_MAX: Final = 500


class GenerationLost(Exception):
    """What this group writes to is gone or was replaced: nothing that it knows may be written any more."""


class Position(NamedTuple):
    """How far a partition is: the next offset, the context, the position up to which nothing of it is missing, and
    when what was last seen had been recorded.

    `events` is how many events up to the position were read, each counted once; None where it was not counted from the
    beginning. `missing` is how many more the relay had published up to there.
    """

    offset: int
    context: str
    position: int
    at: datetime | None
    events: int | None = None
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Parked:
    """A subject of a context that waits: since the event at `sequence`, none of its events has had an effect.

    `held` of them are kept beside it, the first included. `revision` changes with everything that is laid to them.
    """

    subject: UUID
    context: str
    type: str
    sequence: int
    position: int
    reason: str
    parked_at: datetime
    held: int = 0
    revision: int = 0
    wanted: Wanted | None = None

    @property
    def stream(self) -> Stream:
        """The context and the subject: what waits. The same subject of another context goes on."""
        return (self.context, self.subject)


class Held(NamedTuple):
    """An event that waits."""

    sequence: int
    record: Record


class Checkpoints(Protocol):
    """The checkpoints of one group. Every call raises DocumentsUnavailable where the database does not answer."""

    async def positions(self) -> dict[Partition, Position]:
        """How far each partition is that was ever advanced."""
        ...

    async def advance(self, positions: Mapping[Partition, Position]) -> None:
        """Saves how far partitions are; one that is further already stays. Raises GenerationLost."""
        ...

    async def parked(self) -> dict[Stream, Parked]:
        """The subjects that wait."""
        ...

    async def skipped(self) -> frozenset[tuple[Stream, int]]:
        """Stream and sequence of events that were passed over on purpose."""
        ...

    async def park(self, parked: Parked, first: Held) -> None:
        """Parks a subject with the event that could not be digested. A subject that is parked already stays so."""
        ...

    async def hold(self, stream: Stream, events: Sequence[Held]) -> bool:
        """Keeps later events of a parked subject; twice is once. False where it is not parked: they are not held."""
        ...

    async def held(self, stream: Stream, after: int, limit: int) -> list[Held]:
        """Kept events with a sequence above `after`, in order."""
        ...

    async def stuck(self, parked: Parked, first: Held, type: str, reason: str) -> None:
        """A release of this wait came to a halt at an event: all before it had their effect. Nothing is changed where
        something was laid to it since, or the subject waits anew."""
        ...

    async def skip(self, stream: Stream, sequence: int) -> None:
        """Remembers that an event is passed over for ever."""
        ...

    async def unpark(self, parked: Parked, up_to: int) -> bool:
        """Ends this wait, if nothing was laid to it since, and forgets what was kept up to a sequence.

        A wait is the one that was read where both sequence and revision are the same: a subject that was released and
        parked again meanwhile begins at its first revision, but at a later event.
        """
        ...
