"""A view of boxes that a test writes itself, and readers of what its hub tells."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

from chassis.clock import SystemClock
from chassis.conditions import DataClass, Field, Fields, Label, Type
from chassis.messaging.transport import Partition
from chassis.read.checkpoints import Position
from chassis.read.documents import GONE, ID, SEQUENCE, Change
from chassis.read.generations import Generation, Generations, ViewReader, partitions_of
from chassis.read.mongo import Mongo
from chassis.read.projecting import Collection, View
from chassis.watching import Hub, Wanted, Watched, Watcher
from chassis.watching.routes import DocumentsChanged, ReadAgain
from chassis.web.streams import Sent
from contracts.topics import EVENTS

CLOCK = SystemClock()
TOPIC = EVENTS["customer"].name
FIELDS = Fields(
    [
        Field("weight", Type.NUMBER, Label("重量", "weight"), "weight", DataClass.INTERNAL),
        Field("room", Type.CHOICE, Label("房间", "room"), "room", DataClass.INTERNAL),
    ]
)
WITHIN_SECONDS = 60.0


def view() -> View:
    """A view whose documents nobody folds: the test writes them."""
    return View(
        "boxes", 1, (TOPIC,), frozenset({"customer.renamed"}), (Collection("boxes"),), lambda _: (), _none
    )


def _none(*_: Any) -> None:
    return None


class Boxes:
    """The boxes of the live generation."""

    def __init__(self, mongo: Mongo, **options: Any) -> None:
        self.mongo = mongo
        self.today = date(2026, 1, 5)
        self.generations = Generations(mongo, view(), "test", CLOCK)
        self.reader = ViewReader(mongo, CLOCK, [view()])
        self.options = {"settle_seconds": 0.0, **options}
        self.hub = self.another()
        self.live: Generation
        self._sequences: dict[tuple[int, str], int] = {}

    def another(self) -> Hub:
        """The hub of another process."""
        reader = ViewReader(self.mongo, CLOCK, [view()])
        return Hub(Watched(view(), "boxes", FIELDS), reader, CLOCK, lambda: self.today, **self.options)

    async def begin(self) -> Generation:
        """A generation that is not live yet."""
        return await self.generations.begin()

    async def switch(self, to: Generation) -> None:
        """Makes a generation live."""
        await self.generations.switch(to)
        self.live = to

    async def put(
        self, *names: str, weight: int | None = 1, room: str = "here", into: Generation | None = None
    ) -> None:
        """Writes boxes; without a weight they are gone."""
        generation = into or self.live
        documents = self.generations.documents(generation)
        changes = []
        for name in names:
            before = self._sequences.get((generation.number, name))
            after = self._sequences[generation.number, name] = (before or 0) + 1
            content = {GONE: True} if weight is None else {"weight": weight, "room": room}
            changes.append(
                Change(name, before, after, documents.freeze({ID: name, SEQUENCE: after, **content}))
            )
        written = await documents.write("boxes", changes)
        assert not written.conflicts

    async def reach(self, position: int, generation: Generation | None = None) -> None:
        """The view has read all events up to a position."""
        places: dict[Partition, Position] = {
            place: Position(position, context, position, None)
            for place, context in partitions_of((TOPIC,)).items()
        }
        await self.generations.checkpoints(generation or self.live).advance(places)


class Reader:
    """What one watcher is told."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.watcher: Watcher
        self.last: str | None = None

    async def told(self) -> Sent:
        """The next event."""
        async with asyncio.timeout(WITHIN_SECONDS):
            while (sent := self.watcher.next()) is None:
                self.woken.clear()
                await self.woken.wait()
        self.last = sent.id
        shape = DocumentsChanged if sent.event == "changed" else ReadAgain
        assert shape.model_validate(sent.data).model_dump() == sent.data
        return sent

    async def changes(self) -> dict[str, set[str]]:
        """What changed, of the next event, without empty lists."""
        sent = await self.told()
        assert sent.event == "changed", sent
        return {kind: set(sent.data[kind]) for kind in ("changed", "entered", "left") if sent.data[kind]}

    async def hears(self, *ids: str) -> set[str]:
        """All that is told until each of these was told once or more."""
        found: set[str] = set()
        while not found.issuperset(ids):
            found |= (await self.changes())["changed"]
        return found

    async def kinds(self, *ids: str) -> dict[str, list[str]]:
        """What is told of each document, in order, until each of these was told once or more."""
        found: dict[str, list[str]] = {}
        while not found.keys() >= set(ids):
            for kind, told in (await self.changes()).items():
                for id in told:
                    found.setdefault(id, []).append(kind)
        return found

    async def is_reset(self) -> str:
        """The reason of the next event."""
        sent = await self.told()
        assert sent.event == "reset", sent
        return str(sent.data["reason"])


@asynccontextmanager
async def reading(hub: Hub, wanted: Wanted, after: str | None = None) -> AsyncIterator[Reader]:
    """A reader, which is told that it begins where it does not go on."""
    reader = Reader()
    async with hub.watching(wanted, after, reader.woken.set) as watcher:
        reader.watcher = watcher
        yield reader


def some(*ids: str) -> Wanted:
    """Boxes by their names."""
    return Wanted(frozenset(ids))
