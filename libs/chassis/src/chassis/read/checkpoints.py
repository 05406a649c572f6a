"""The checkpoints of a consumer group: the position of each partition, and the parked subjects.

A port: MongoDB in production, dictionaries in the simulation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple, Protocol
from uuid import UUID

from chassis.messaging.delivered import Stream
from chassis.messaging.records import Record
from chassis.messaging.transport import Partition

Wanted = Literal["release", "skip"]

REASON_CHARACTERS_MAX: Final = 500


class GenerationLost(Exception):
    """The generation of this group was dropped or replaced. The group may not write to it any more."""


class Position(NamedTuple):
    """The checkpoint of a partition: the next offset, the context, the position up to which no event of it is
    missing, and when the last event read was recorded.

    `events` is the number of events up to the position that were read, each counted once; None where they
    were not counted from the beginning. `missing` is how many more events the relay had published up to
    there.
    """

    offset: int
    context: str
    position: int
    at: datetime | None
    events: int | None = None
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked subject of a context: none of its events from the one at `sequence` on was processed.

    `held` is the number of its kept events, the first included. `revision` changes with each event that is
    kept.
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
        """The context and the subject. The same subject of another context is not parked."""
        return (self.context, self.subject)


class Held(NamedTuple):
    """A kept event of a parked subject."""

    sequence: int
    record: Record


class Checkpoints(Protocol):
    """The checkpoints of one group.

    Every call raises DocumentsUnavailable where the database does not answer.
    """

    async def positions(self) -> dict[Partition, Position]:
        """Returns the checkpoint of each partition that was ever advanced."""
        ...

    async def advance(self, positions: Mapping[Partition, Position]) -> None:
        """Saves checkpoints of partitions. A checkpoint that is higher already is not changed.

        Raises GenerationLost.
        """
        ...

    async def reaching(self, positions: Mapping[Partition, int]) -> None:
        """Records up to which position of each partition documents may show events from now on.

        Called before the first document of a batch is written. A position that is higher already is not
        changed. Raises GenerationLost.
        """
        ...

    async def shown(self) -> dict[Partition, int]:
        """Returns the position of each partition after which documents show no event.

        It is higher than the checkpoint while a batch is written, and stays so where its consumer ended
        before it saved its checkpoint.
        """
        ...

    async def parked(self) -> dict[Stream, Parked]:
        """Returns the parked subjects."""
        ...

    async def skipped(self) -> frozenset[tuple[Stream, int]]:
        """Returns stream and sequence of events that an operator skipped."""
        ...

    async def park(self, parked: Parked, first: Held) -> None:
        """Parks a subject with the event that could not be processed.

        A subject that is parked already is not changed.
        """
        ...

    async def hold(self, stream: Stream, events: Sequence[Held]) -> bool:
        """Keeps later events of a parked subject; idempotent.

        Returns False, and keeps none, where it is not parked.
        """
        ...

    async def held(self, stream: Stream, after: int, limit: int) -> list[Held]:
        """Returns kept events with a sequence above `after`, in order."""
        ...

    async def stuck(self, parked: Parked, first: Held, type: str, reason: str) -> None:
        """Records that a release stopped at an event: all events before it were processed.

        Changes nothing where another event was kept since, or the subject was released and parked again.
        """
        ...

    async def skip(self, stream: Stream, sequence: int) -> None:
        """Records that an event is skipped for ever."""
        ...

    async def unpark(self, parked: Parked, up_to: int) -> bool:
        """Releases this parked subject, if no event was kept since, and deletes the events kept up to a
        sequence.

        It is the parked subject that was read only where sequence, revision and time are the same. A
        subject that was released and parked again meanwhile begins at its first revision, and at the same
        event where a process parked it that did not know of the release.
        """
        ...
