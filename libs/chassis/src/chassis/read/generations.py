"""Generations of a view. A generation is the collections of one fold of the log; several exist side by side.

`views` says which one is live; collection `c` of generation 3 of `orders` is `orders_v3_c`, its consumer
group `<service>.orders.v3`. A reader looks up the live generation. A rebuild makes another one and
switches.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Generic, Literal, Protocol

from contracts.topics import CONSUMERS, EVENTS, dead_letters
from typing_extensions import TypeVar

from chassis.clock import Clock
from chassis.messaging.transport import Partition
from chassis.read.checkpoints import Position
from chassis.read.documents import ID, Document
from chassis.read.mongo import Mongo, MongoDocuments
from chassis.read.mongo_checkpoints import POSITIONS, MongoCheckpoints, positions_of, prepare_checkpoints
from chassis.read.projecting import Collection, View

VIEWS: Final = "views"
GENERATIONS: Final = "view_generations"
VIEWS_MAX: Final = 1_000
RETIRED_SECONDS: Final = 60
"""How long the collections of a retired generation are kept for readers that still use them, once the live one
shows all that they show."""
BEGIN_TRIES_MAX: Final = 100
LIVE_CACHED_SECONDS: Final = 1.0
WAIT_SECONDS_FIRST: Final = 0.005
WAIT_SECONDS_MAX: Final = 0.1
WAIT_FACTOR: Final = 1.6
_OWNED: Final = re.compile(r"(?P<view>.+?)_v(?P<number>[0-9]+)_.+", re.ASCII)

State = Literal["building", "live", "retired"]


class Kept(Protocol):
    """What generations are kept of: a view, or a derived view."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def version(self) -> int:
        """The version of its code."""
        ...

    @property
    def sources(self) -> tuple[str, ...]:
        """The topics that it reads."""
        ...

    @property
    def collections(self) -> tuple[Collection, ...]:
        """Its collections."""
        ...

    @property
    def fingerprint(self) -> str:
        """A digest of the declaration."""
        ...


KeptT = TypeVar("KeptT", bound=Kept, default=View)


class NotBuilt(LookupError):
    """The view has no live generation yet."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One fold of the log.

    `code` is the version of the view that folded it, `fingerprint` a digest of its declaration. `inputs`: of a
    derived view, the number of the generation of each input that it is derived from.
    """

    view: str
    number: int
    code: int
    group: str
    state: State
    changed_at: datetime
    fingerprint: str = ""
    inputs: Mapping[str, int] = field(default_factory=dict)

    def is_of(self, view: Kept) -> bool:
        """Whether the code of this view folded it, so that this code can read its documents."""
        return self.code == view.version and self.fingerprint in {"", view.fingerprint}

    @property
    def prefix(self) -> str:
        """The prefix of the names of its collections. To find them again, read whole names with `owner_of`."""
        return f"{self.view}_v{self.number}_"


class Generations(Generic[KeptT]):
    """The generations of one view of a service."""

    def __init__(self, mongo: Mongo, view: KeptT, service: str, clock: Clock) -> None:
        self.mongo = mongo
        self.view = view
        self.service = service
        self._clock = clock

    @property
    def dead_letters(self) -> str:
        """The topic of the view's dead letters, the same for every generation."""
        name = f"{self.service}.{self.view.name}"
        registered = (group.dead_letters.name for group in CONSUMERS if group.view == name)
        return next(registered, dead_letters(f"{name}.v1").name)

    def checkpoints(self, generation: Generation) -> MongoCheckpoints:
        """The checkpoints of a generation's group."""
        return MongoCheckpoints(self.mongo, generation.group, self.view.name)

    def documents(self, generation: Generation) -> MongoDocuments:
        """The documents of a generation."""
        return MongoDocuments(self.mongo, generation.prefix)

    async def live(self) -> Generation | None:
        """The generation that readers see."""
        return await live_generation(self.mongo, self.view.name)

    async def all(self) -> list[Generation]:
        """All generations that are not dropped, in order."""
        found = await self.mongo.find(GENERATIONS, {"view": self.view.name}, order=[("number", 1)])
        return [_generation(one) for one in found]

    async def begin(
        self,
        used: Callable[[str], Awaitable[bool]] | None = None,
        inputs: Mapping[str, int] | None = None,
    ) -> Generation:
        """Makes a new generation, empty and with its indexes.

        `used` says whether a consumer group ever read a record; it is left out where no group reads for the generation,
        whose documents the caller writes. One that is derived from `inputs` is not prepared yet: its feed knows where it
        starts.

        After the database was dropped, Kafka still has the offsets of groups whose documents are gone. The
        number of such a group is not used again.
        """
        await prepare_checkpoints(self.mongo)
        number = max([one.number for one in await self.all()], default=0)
        for _ in range(BEGIN_TRIES_MAX):
            number += 1
            group = f"{self.service}.{self.view.name}.v{number}"
            if used is not None and await used(group):
                continue
            generation = Generation(
                self.view.name,
                number,
                self.view.version,
                group,
                "building",
                self._clock.now(),
                self.view.fingerprint,
                inputs or {},
            )
            if await self.mongo.insert_new(GENERATIONS, _document(generation)):
                if inputs is None:
                    await self.prepare(generation)
                return generation
        raise RuntimeError(f"{self.view.name}: no free number of a generation up to {number}")

    async def prepare(
        self, generation: Generation, starts: Mapping[Partition, Position] | None = None
    ) -> None:
        """Makes collections, indexes and checkpoints of a generation. Safe to repeat.

        An index that is declared no more is dropped. Its checkpoints open at the first record, or where it `starts`.
        """
        for collection in self.view.collections:
            name = generation.prefix + collection.name
            await self.mongo.ensure(name)
            wanted = [
                {"fields": index.fields, "unique": index.unique, "partial": index.partial}
                for index in collection.indexes
            ]
            await self.mongo.settle_indexes(name, wanted)
        await self.checkpoints(generation).begin(partitions_of(self.view.sources), starts)

    async def switch(self, to: Generation) -> bool:
        """Makes a generation live, unless it or a later one is; the one before is retired."""
        now = self._clock.now()
        newer = {ID: self.view.name, "live": {"$lt": to.number}}
        await self.mongo.insert_new(VIEWS, {ID: self.view.name, "live": 0})
        if not await self.mongo.update(VIEWS, newer, {"$set": {"live": to.number}}):
            return False
        await self.mongo.update(GENERATIONS, {ID: _id(to)}, {"$set": {"state": "live", "changed_at": now}})
        for other in await self.all():
            if other.number < to.number and other.state != "retired":
                change = {"$set": {"state": "retired", "changed_at": now}}
                await self.mongo.update(GENERATIONS, {ID: _id(other)}, change)
        return True

    async def drop(self, generation: Generation) -> None:
        """Drops a generation that is not live: its collections, its checkpoints and its entry."""
        live = await self.live()
        if live is not None and live.number == generation.number:
            raise ValueError(f"{generation.prefix} is live")
        for name in await self.mongo.collections():
            if owner_of(name) == (generation.view, generation.number):
                await self.mongo.drop(name)
        await self.checkpoints(generation).forget()
        await self.mongo.delete(GENERATIONS, {ID: _id(generation)})

    async def sweep(self) -> list[Generation]:
        """Drops generations that readers left long enough ago, and collections without a generation.

        Readers stay with a retired generation as long as the live one does not show everything that it shows.
        """
        generations = await self.all()
        live, now = await self.live(), self._clock.now()
        gone = list[Generation]()
        for one in generations:
            if one.state != "retired":
                continue
            if live is not None and not await shows_all_of(self.mongo, one, live):
                await self.mongo.update(GENERATIONS, {ID: _id(one)}, {"$set": {"changed_at": now}})
            elif one.changed_at < now - timedelta(seconds=RETIRED_SECONDS):
                gone.append(one)
        for generation in gone:
            await self.drop(generation)
        kept = {one.number for one in generations if one not in gone}
        if kept:
            for name in await self.mongo.collections():
                view, number = owner_of(name)
                if view == self.view.name and number not in kept:
                    await self.mongo.drop(name)
        return gone

    async def still(self, generation: Generation) -> bool:
        """Whether the generation exists and no later one is live."""
        live = await self.live()
        if live is not None and live.number > generation.number:
            return False
        return await self.mongo.find_one(GENERATIONS, {ID: _id(generation)}) is not None


class ViewReader:
    """Finds the live collections for a process that serves readers, and waits until a view has reached a
    position."""

    def __init__(
        self, mongo: Mongo, clock: Clock, views: Sequence[Kept], derived: Sequence[Kept] = ()
    ) -> None:
        self.mongo = mongo
        self._clock = clock
        self._waited = tuple(views)
        self._views = {view.name: view for view in (*views, *derived)}
        self._known: dict[str, tuple[float, Generation]] = {}

    async def live(self, view: str) -> Generation:
        """The generation to read, remembered for at most `LIVE_CACHED_SECONDS`; raises NotBuilt.

        It is the live one if this process's code folded it. While two versions of a service run side by
        side, the older one reads its own generation for as long as that is kept. The newer one waits for
        its own generation.

        A reader moves to a later generation once that shows every event that the one before shows. What a
        caller has seen, or was told of, is therefore not taken back by a switch.
        """
        now = self._clock.monotonic()
        known = self._known.get(view)
        if known is not None and now - known[0] < LIVE_CACHED_SECONDS:
            return known[1]
        generation = await known_generation(self.mongo, self._views[view])
        if generation is None:
            raise NotBuilt(view)
        if (
            known is not None
            and known[1].number < generation.number
            and not await shows_all_of(self.mongo, known[1], generation)
        ):
            generation = known[1]
        self._known[view] = (now, generation)
        return generation

    async def collection(self, view: str, name: str) -> str:
        """The name of a live collection; raises NotBuilt."""
        return (await self.live(view)).prefix + name

    async def applied(self, view: str, context: str) -> int:
        """Returns the position of a context up to which a view shows every event; 0 where it shows none yet."""
        with suppress(NotBuilt):
            generation = await self.live(view)
            positions = await _positions(self.mongo, generation)
            of_context = [at.position for at in positions.values() if at.context == context]
            return min(of_context, default=0)
        return 0

    async def wait_for(
        self, context: str, position: int, timeout_seconds: float, views: Sequence[str] | None = None
    ) -> bool:
        """Waits until the views show every event of a context up to a position; False where they do not in
        time.

        By default it waits for all views that take this context, and for no derived view. It does not wait for
        parked events.
        """
        topic = EVENTS[context].name
        names = views or [view.name for view in self._waited if topic in view.sources]
        until = self._clock.monotonic() + timeout_seconds
        pause = WAIT_SECONDS_FIRST
        for name in names:
            while await self.applied(name, context) < position:
                left = until - self._clock.monotonic()
                if left <= 0:
                    return False
                await self._clock.sleep(min(pause, left))
                pause = min(pause * WAIT_FACTOR, WAIT_SECONDS_MAX)
        return True


async def shows_all_of(mongo: Mongo, one: Generation, later: Generation) -> bool:
    """Whether a later generation has reached the last event that the one before may show. A generation that
    was dropped shows none.

    Documents are written before their checkpoint is saved, so checkpoints alone do not say what the one
    before shows.
    """
    reached = await _positions(mongo, later)
    nowhere = Position(0, "", 0, None)
    shown = await MongoCheckpoints(mongo, one.group, one.view).shown()
    return all(reached.get(place, nowhere).position >= at for place, at in shown.items())


async def _positions(mongo: Mongo, generation: Generation) -> dict[Partition, Position]:
    return positions_of(await mongo.find(POSITIONS, {"group": generation.group}))


async def live_generation(mongo: Mongo, view: str) -> Generation | None:
    """The live generation of a view."""
    pointer = await mongo.find_one(VIEWS, {ID: view})
    if pointer is None:
        return None
    found = await mongo.find_one(GENERATIONS, {ID: f"{view}|{pointer['live']}"})
    return None if found is None else _generation(found)


async def shown_views(mongo: Mongo) -> list[str]:
    """The names of all views that were ever shown from this database, of any version of the code."""
    found = await mongo.find(VIEWS, {}, order=[(ID, 1)], limit=VIEWS_MAX)
    return [str(one[ID]) for one in found]


async def known_generation(mongo: Mongo, view: Kept) -> Generation | None:
    """The live generation of a view if this code folded it, else the latest earlier live one that this code
    folded."""
    live = await live_generation(mongo, view.name)
    if live is None or live.is_of(view):
        return live
    where = {"view": view.name, "code": view.version, "state": {"$in": ["live", "retired"]}}
    for one in await mongo.find(GENERATIONS, where, order=[("number", -1)]):
        generation = _generation(one)
        if generation.is_of(view):
            return generation
    return None


def partitions_of(topics: Sequence[str]) -> dict[Partition, str]:
    """The partitions of event topics, each with the context that publishes there."""
    return {
        (topic.name, number): context
        for context, topic in EVENTS.items()
        if topic.name in topics
        for number in range(topic.partitions)
    }


def owner_of(collection: str) -> tuple[str, int]:
    """The view and the number of the generation that a collection belongs to; ("", 0) where it belongs to
    none.

    The whole name is read: `campaign` does not own the collections of `campaign_visits`. No name of a view
    looks like that of a generation (see `View`), so there is one way to read it.
    """
    found = _OWNED.fullmatch(collection)
    return ("", 0) if found is None else (found["view"], int(found["number"]))


def _id(generation: Generation) -> str:
    return f"{generation.view}|{generation.number}"


def _document(generation: Generation) -> Document:
    return {
        ID: _id(generation),
        "view": generation.view,
        "number": generation.number,
        "code": generation.code,
        "group": generation.group,
        "state": generation.state,
        "changed_at": generation.changed_at,
        "fingerprint": generation.fingerprint,
        "inputs": dict(generation.inputs),
    }


def _generation(one: Document) -> Generation:
    return Generation(
        one["view"],
        one["number"],
        one["code"],
        one["group"],
        one["state"],
        one["changed_at"],
        one.get("fingerprint", ""),
        one.get("inputs", {}),
    )
