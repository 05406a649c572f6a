"""The port of consumers over the simulated Kafka: members of groups, whose partitions nobody keeps apart."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from chassis.messaging.broker import Broker
from chassis.messaging.records import Record
from chassis.messaging.transport import BrokerUnavailable, DeadLetter, Handle, Partition, TopicDiffers
from chassis.read.generations import partitions_of
from typing_extensions import override

from tests.simulation.kernel import Injected
from tests.simulation.servers import BrokerServer

T = TypeVar("T")
FETCH_MAX = 6
REASSIGNED = 0.1
"""Chance per round that a member gets other partitions."""
PAUSE_SECONDS = 0.02
PAGE_RECORDS = 5


class BrokerClient(Broker):
    """The broker as one process has it."""

    def __init__(self, server: BrokerServer) -> None:
        self.server = server

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
    ) -> "SimulatedMember":
        return SimulatedMember(self.server, list(partitions_of(topics)), group, handle)

    @override
    async def end_offsets(self, topics: Sequence[str]) -> dict[Partition, int]:
        return await self._ask(
            "end offsets", lambda: {place: self.server.end(place) for place in partitions_of(topics)}
        )

    @override
    async def group_offsets(self, group: str) -> dict[Partition, int]:
        return await self._ask(
            "group offsets",
            lambda: {place: at for (of, place), at in self.server.committed.items() if of == group},
        )

    @override
    async def begin_at_the_first(self, topics: Sequence[str]) -> None:
        def begin() -> list[Partition]:
            logs = self.server.logs
            return [place for place in partitions_of(topics) if logs.get(place) and logs[place][0].offset]

        for place in await self._ask("beginning offsets", begin):
            raise TopicDiffers(f"{place} begins later")

    @override
    async def read_from(self, place: Partition, offset: int) -> AsyncIterator[list[Record]]:
        end = (await self.end_offsets([place[0]]))[place]
        while offset < end:
            at = offset
            page = await self._ask("read", lambda: self.server.logs[place][at : at + PAGE_RECORDS])  # noqa: B023
            offset += len(page)
            yield page

    async def _ask(self, point: str, effect: Callable[[], T]) -> T:
        try:
            return await self.server.kernel.call(point, effect)
        except Injected as error:
            raise BrokerUnavailable(point) from error


class SimulatedMember:
    """A member of a group. A batch that fails comes again, from the offsets that the group has committed."""

    def __init__(self, server: BrokerServer, places: list[Partition], group: str, handle: Handle) -> None:
        self.group = group
        self.failing: str | None = None
        self._server = server
        self._places = places
        self._handle = handle

    async def run(self, stopping: asyncio.Event) -> None:
        """Consumes until `stopping`."""
        offsets: dict[Partition, int] = {}
        chance = self._server.kernel.chance
        while not stopping.is_set():
            try:
                if not offsets or chance.random() < REASSIGNED:
                    offsets = await self._assigned()
                slow_seconds = self._server.kernel.draw_delay()
                if slow_seconds:
                    await self._server.kernel.sleep(slow_seconds)
                records = self._interleaved(await self._server.fetch_all(offsets, FETCH_MAX))
                if not records:
                    await self._server.kernel.sleep(PAUSE_SECONDS)
                    continue
                await self._handle(records)
                after = {(record.topic, record.partition): (record.offset or 0) + 1 for record in records}
                for place, offset in after.items():
                    await self._server.commit(self.group, place, offset)
                offsets.update(after)
                self.failing = None
            except Exception as error:  # noqa: BLE001 (as the consumer of the chassis does)
                self.failing, offsets = repr(error), {}
                await self._server.kernel.sleep(PAUSE_SECONDS)

    async def lag(self) -> dict[Partition, int]:
        """Nothing is known."""
        return {}

    async def _assigned(self) -> dict[Partition, int]:
        kernel = self._server.kernel
        least = len(self._places) if kernel.healed else 1
        places = kernel.chance.sample(self._places, kernel.chance.randrange(least, len(self._places) + 1))
        return {place: await self._server.offset(self.group, place) for place in places}

    def _interleaved(self, partitions: list[list[Record]]) -> list[Record]:
        chance, left = self._server.kernel.chance, [list(records) for records in partitions if records]
        found = []
        while left:
            records = left[chance.randrange(len(left))]
            found.append(records.pop(0))
            left = [records for records in left if records]
        return found
