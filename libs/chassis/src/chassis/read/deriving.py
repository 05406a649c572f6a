"""Derived views: documents that are functions of the documents of other views.

A deriver is one more consumer of the topics of its inputs. Of a batch of events it learns which documents of
the inputs they change, waits until the inputs show the batch, finds the derived documents that depend on these,
and derives each of them anew from the inputs as they are then. Only then it saves its checkpoint.

Derivers may overlap, lag and repeat. A derived document counts its writes in `_seq`. A deriver reads the count
before it reads the inputs, and its write is refused where another one wrote meanwhile; it then derives again. A
write that took place has therefore read the inputs after every write before it, and nothing older replaces it.
A write is made also where the document stays the same: it is what refuses those that read older inputs.

An event that an input parked is not in the input's documents when the batch is derived. It is noted as owed, and
what depends on it is derived when its subject is released.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from typing_extensions import override

from chassis.clock import Clock
from chassis.messaging.delivered import Delivered, Stream
from chassis.messaging.transport import Partition, Record
from chassis.read import projecting
from chassis.read.arrivals import NOWHERE, Arrivals, further
from chassis.read.checkpoints import Position
from chassis.read.documents import GONE, ID, SEQUENCE, Change, Document, DocumentId, DocumentKey
from chassis.read.mongo import Mongo, MongoDocuments
from chassis.read.mongo_checkpoints import MongoCheckpoints, parked_of
from chassis.read.parking import is_of_the_record
from chassis.read.projecting import Contended, View

DERIVED_AT_ONCE: Final = 500
CONFLICT_ROUNDS_MAX: Final = 20
WAIT_SECONDS_MAX: Final = 5.0
WAIT_PAUSE_SECONDS: Final = 0.02
OWED: Final = "derived_owed"
SETTLED_AT_ONCE: Final = 1_000
"""There are as many that are owed as subjects that the inputs park, which is bounded."""

Touched = Mapping[tuple[str, str], Collection[DocumentId]]
"""Documents of inputs, by the view and its collection."""


class InputsBehind(ConnectionError):
    """The inputs do not show the batch yet. It should be delivered again."""


class Inputs(Protocol):
    """The documents of the input views, as the live generation of each has them."""

    async def by_id(
        self, view: str, collection: str, ids: Iterable[DocumentId]
    ) -> dict[DocumentId, Document]:
        """The documents that exist."""
        ...

    async def having(self, view: str, collection: str, field: str, values: Iterable[Any]) -> list[Document]:
        """The documents with one of the values in a field, which has an index."""
        ...


@dataclass(frozen=True, slots=True)
class DerivedView:
    """A read model whose documents are functions of documents of other views.

    `depending(inputs, touched)`: the ids of the derived documents that may depend on these documents of the
    inputs. A document of an input that once named another document goes on naming it, or whoever depended on it
    would not be found. `derive(inputs, ids)`: the documents of these ids; an id that is missing has none. It
    reads the inputs and nothing else, and gives the same document for the same inputs.
    """

    name: str
    inputs: tuple[View, ...]
    collection: projecting.Collection
    depending: Callable[[Inputs, Touched], Awaitable[Iterable[DocumentId]]]
    derive: Callable[[Inputs, Sequence[DocumentId]], Awaitable[Mapping[DocumentId, Document]]]


@dataclass(frozen=True, slots=True)
class InputGeneration:
    """The generation of an input that is read: the prefix of its collections, and its consumer group."""

    view: View
    prefix: str
    group: str


class MongoInputs(Inputs):
    """The documents of pinned generations of the inputs."""

    def __init__(self, mongo: Mongo, pinned: Sequence[InputGeneration]) -> None:
        self.mongo = mongo
        self.pinned = {one.view.name: one for one in pinned}

    @override
    async def by_id(
        self, view: str, collection: str, ids: Iterable[DocumentId]
    ) -> dict[DocumentId, Document]:
        found = await MongoDocuments(self.mongo, self.pinned[view].prefix).load(collection, list(ids))
        return {id: document for id, document in found.items() if GONE not in document}

    @override
    async def having(self, view: str, collection: str, field: str, values: Iterable[Any]) -> list[Document]:
        name = self.pinned[view].prefix + collection
        return await self.mongo.find(name, {field: {"$in": list(values)}})

    async def positions(self) -> dict[str, dict[Partition, Position]]:
        """How far each input is."""
        return {
            name: await MongoCheckpoints(self.mongo, one.group, name).positions()
            for name, one in self.pinned.items()
        }

    async def parked(self) -> dict[str, dict[Stream, int]]:
        """The parked streams of each input, with the sequence from which on none of its events is shown."""
        return {
            name: {one.stream: one.sequence for one in await parked_of(self.mongo, one_input.group)}
            for name, one_input in self.pinned.items()
        }


class Deriver:
    """Derives the documents of one generation of a derived view from pinned generations of its inputs.

    `apply` derives what depends on the records, saves the positions, then returns. It raises where a server does
    not answer or an input lags; the same records, or more, must then be delivered again. `tick` derives what was
    owed.
    """

    def __init__(
        self,
        view: DerivedView,
        documents: MongoDocuments,
        checkpoints: MongoCheckpoints,
        inputs: MongoInputs,
        clock: Clock,
        *,
        at_once: int = DERIVED_AT_ONCE,
        wait_seconds_max: float = WAIT_SECONDS_MAX,
    ) -> None:
        self.view = view
        self.positions: dict[Partition, Position] = {}
        self.documents_derived = 0
        self._documents = documents
        self._checkpoints = checkpoints
        self._inputs = inputs
        self._clock = clock
        self._at_once = at_once
        self._wait_seconds_max = wait_seconds_max
        self._turn = asyncio.Lock()

    async def apply(self, records: Sequence[Record]) -> None:
        """Derives what depends on the records."""
        async with self._turn:
            arrivals = Arrivals()
            changes = self._changes(arrivals.events(records))
            stored = await self._checkpoints.positions()
            before = {place: stored.get(place, NOWHERE) for place in arrivals.positions}
            reached = arrivals.counted(before)
            await self.wait_for(reached)
            await self._owe(changes)
            await self._derive_from((view, *key) for view, _, keys in changes for key in keys)
            await self._checkpoints.advance(reached)
            further(self.positions, reached)

    async def tick(self) -> int:
        """Derives what was owed to events that are parked no more. Returns how many subjects that were."""
        async with self._turn:
            owed = await self._inputs.mongo.find(OWED, {"group": self._checkpoints.group}, order=[(ID, 1)])
            if not owed:
                return 0
            parked = await self._inputs.parked()
            settled = [
                one
                for one in owed
                if one["view"] in parked and (one["context"], one["subject"]) not in parked[one["view"]]
            ][:SETTLED_AT_ONCE]
            await self._derive_from((one["view"], *key) for one in settled for key in one["keys"])
            for one in settled:
                await self._inputs.mongo.delete(OWED, {ID: one[ID], "revision": one["revision"]})
            return len(settled)

    async def derive(self, ids: Iterable[DocumentId]) -> None:
        """Derives documents from the inputs as they are from now on; raises Contended."""
        wanted = sorted(set(ids), key=str)
        for at in range(0, len(wanted), self._at_once):
            left: Sequence[DocumentId] = wanted[at : at + self._at_once]
            for _ in range(CONFLICT_ROUNDS_MAX):
                left = await self._derived(left)
                if not left:
                    break
            else:
                raise Contended(f"{self.view.name}: {len(left)} documents are written by others all the time")

    async def _derive_from(self, changed: Iterable[tuple[str, str, DocumentId]]) -> None:
        """Derives what depends on documents of inputs; of each the view, the collection and the id."""
        touched = defaultdict[tuple[str, str], set[DocumentId]](set)
        for view, collection, id in changed:
            touched[view, collection].add(id)
        await self.derive(await self.view.depending(self._inputs, touched))

    async def wait_for(self, positions: Mapping[Partition, Position]) -> None:
        """Waits until the inputs show every event before these positions, or parked it; raises InputsBehind."""
        until = self._clock.monotonic() + self._wait_seconds_max
        while short := self._short(await self._inputs.positions(), positions):
            if self._clock.monotonic() > until:
                raise InputsBehind(f"{self.view.name} waits for {', '.join(short)}")
            await self._clock.sleep(WAIT_PAUSE_SECONDS)

    def _short(
        self, shown: Mapping[str, Mapping[Partition, Position]], wanted: Mapping[Partition, Position]
    ) -> list[str]:
        return [
            view.name
            for view in self.view.inputs
            if any(
                shown[view.name].get(place, NOWHERE).offset < position.offset
                for place, position in wanted.items()
                if place[0] in view.sources
            )
        ]

    def _changes(self, events: Iterable[Delivered]) -> list[tuple[str, Delivered, Sequence[DocumentKey]]]:
        """The input, the event and the documents that it changes. What an input parks for its keys changes none."""
        found = []
        for event in events:
            for view in self.view.inputs:
                if event.type in view.events and event.context in view.contexts:
                    try:
                        found.append((view.name, event, view.keys(event)))
                    except Exception as error:
                        if not is_of_the_record(error):
                            raise
        return found

    async def _owe(self, changes: Sequence[tuple[str, Delivered, Sequence[DocumentKey]]]) -> None:
        """Notes the changes that an input shows only when their subject is released."""
        parked = await self._inputs.parked()
        owed = defaultdict[tuple[str, Stream], dict[tuple[str, DocumentId], None]](dict)
        for view, event, keys in changes:
            if event.sequence >= parked[view].get(event.stream, event.sequence + 1):
                owed[view, event.stream] |= dict.fromkeys([(key.collection, key.id) for key in keys])
        for (view, (context, subject)), keys_owed in owed.items():
            group = self._checkpoints.group
            id = f"{group}|{view}|{context}|{subject.hex}"
            empty = {ID: id, "group": group, "view": view, "context": context, "subject": subject}
            await self._inputs.mongo.insert_new(OWED, {**empty, "keys": [], "revision": 0})
            added = [list(key) for key in keys_owed]
            change = {"$addToSet": {"keys": {"$each": added}}, "$inc": {"revision": 1}}
            if not await self._inputs.mongo.update(OWED, {ID: id}, change):
                raise InputsBehind(f"{self.view.name}: what {subject} is owed was settled meanwhile")

    async def _derived(self, ids: Sequence[DocumentId]) -> list[DocumentId]:
        """Derives documents once. Returns the ids of those that another deriver wrote meanwhile."""
        name = self.view.collection.name
        there = await self._documents.load(name, ids)
        found = await self.view.derive(self._inputs, ids)
        changes = []
        for id in ids:
            expected = there[id][SEQUENCE] if id in there else None
            sequence = (expected or 0) + 1
            document = found.get(id)
            content = {GONE: True} if document is None else document
            frozen = self._documents.freeze({**content, ID: id, SEQUENCE: sequence})
            changes.append(Change(id, expected, sequence, frozen))
        written = await self._documents.write(name, changes)
        self.documents_derived += len(changes) - len(written.conflicts)
        return list(written.conflicts)
