"""The port to a broker for those who consume: views, policies and rebuilds. `Kafka` is the one of production."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from chassis.messaging import transport
from chassis.messaging.records import Record
from chassis.messaging.transport import Consumer, DeadLetter, Handle, Partition


class Member(Protocol):
    """A member of a consumer group, as `transport.Consumer` is one."""

    group: str
    failing: str | None
    """Why the last batch failed, until one succeeds."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Consumes until `stopping` is set. Raises BrokerUnavailable."""
        ...

    async def lag(self) -> dict[Partition, int]:
        """Records not handled yet in each partition of this member."""
        ...


class Broker(Protocol):
    """What consumers ask of a broker; all calls raise BrokerUnavailable."""

    def member(
        self,
        topics: Sequence[str],
        group: str,
        handle: Handle,
        *,
        batch_max: int,
        instance: str | None = None,
        dead_letter: DeadLetter | None = None,
    ) -> Member:
        """A member that does not run yet: see `transport.Consumer`."""
        ...

    async def end_offsets(self, topics: Sequence[str]) -> dict[Partition, int]:
        """The offset that the next record of each partition will have; nothing for a topic that is not there."""
        ...

    async def group_offsets(self, group: str) -> dict[Partition, int]:
        """The offsets that a group has acknowledged; nothing for a group that never did."""
        ...

    async def begin_at_the_first(self, topics: Sequence[str]) -> None:
        """Raises TopicDiffers where the first records of a topic are gone."""
        ...

    def read_from(self, place: Partition, offset: int) -> AsyncIterator[list[Record]]:
        """What one partition holds now from an offset on, in pages; joins no group."""
        ...


@dataclass(frozen=True, slots=True)
class Kafka(Broker):
    """The broker at a URL."""

    url: str

    @override
    def member(
        self,
        topics: Sequence[str],
        group: str,
        handle: Handle,
        *,
        batch_max: int,
        instance: str | None = None,
        dead_letter: DeadLetter | None = None,
    ) -> Consumer:
        return Consumer(
            self.url, topics, group, handle, batch_max=batch_max, instance=instance, dead_letter=dead_letter
        )

    @override
    async def end_offsets(self, topics: Sequence[str]) -> dict[Partition, int]:
        return await transport.end_offsets(self.url, topics)

    @override
    async def group_offsets(self, group: str) -> dict[Partition, int]:
        return await transport.group_offsets(self.url, group)

    @override
    async def begin_at_the_first(self, topics: Sequence[str]) -> None:
        await transport.begin_at_the_first(self.url, topics)

    @override
    def read_from(self, place: Partition, offset: int) -> AsyncIterator[list[Record]]:
        return transport.read_from(self.url, place, offset)
