"""Derived views: documents that are functions of the documents of other views.

A generation of a derived view is pinned to one generation of each input. When an input is switched, a new generation
of the derived view is built from what is live then: all of its documents are derived. The one before stays as it is:
whoever derives looks, after it has read the inputs, whether they are still live, and writes nothing where they are
not. An input is kept for a while after it is replaced, so what was read before that look was whole.

A deriver is one more consumer of the topics of its inputs. It waits until the inputs show a batch of events, and takes
after a while what they show of it. It learns which documents of the inputs these events change, finds the derived
documents that depend on these, and derives each of them anew from the inputs as they are then. Only then it saves its
checkpoint, and takes what the inputs show of the rest.

Derivers may overlap, lag and repeat. A derived document counts its writes in `_seq`. A deriver reads the count
before it reads the inputs, and its write is refused where another one wrote meanwhile; it then derives again. A
write that took place has therefore read the inputs after every write before it, and nothing older replaces it.
A write is made also where the document stays the same: it is what refuses those that read older inputs.

An event that an input parked is not in the input's documents when the batch is derived. It is noted as owed, and
what depends on it is derived when its subject is released.

Sums over many documents of a derived view are kept in buckets beside them (`chassis.read.summing`).
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from hashlib import blake2b
from itertools import product
from typing import Any, Final, Protocol

from typing_extensions import override

from chassis.clock import Clock
from chassis.ending import ended
from chassis.messaging.delivered import Delivered, Stream, read
from chassis.messaging.records import Record
from chassis.messaging.transport import Partition
from chassis.read import projecting
from chassis.read.arrivals import NOWHERE, Arrivals, further
from chassis.read.blind import BlindIndex, SealedAt
from chassis.read.checkpoints import GenerationLost, Position
from chassis.read.documents import GONE, ID, SEQUENCE, Change, Document, DocumentId, DocumentKey
from chassis.read.generations import VIEWS, Generation
from chassis.read.mongo import Mongo, MongoDocuments
from chassis.read.mongo_checkpoints import MongoCheckpoints, parked_of
from chassis.read.parking import is_of_the_record
from chassis.read.projecting import Contended, View
from chassis.read.summing import BUCKET, INDEX, Summing, Sums

DERIVED_AT_ONCE: Final = 250
"""Documents of one part of a batch. A document is shown when its part is written: the smaller a part, the sooner after its
inputs were read."""
DERIVED_ABREAST: Final = 2
"""Of these parts of a batch: while one is written, the inputs of the next are read."""
CONFLICT_ROUNDS_MAX: Final = 20
WAIT_SECONDS_MAX: Final = 5.0
WHOLE_SECONDS_MAX: Final = 0.5
"""So long the inputs may take to show a whole batch, of which each document is then derived once."""
WAIT_PAUSE_SECONDS: Final = 0.02
HELD_AT_ONCE: Final = 500
DUE_AT_ONCE: Final = 2_000
OWED: Final = "derived_owed"
SETTLED_AT_ONCE: Final = 1_000
"""There are as many that are owed as subjects that the inputs park, which is bounded."""
_COUNT: Final = {SEQUENCE: 1}
"""What is read of a document that is derived anew."""

Touched = Mapping[tuple[str, str], Collection[DocumentId]]
"""Documents of inputs, by the view and its collection."""


class InputsBehind(ConnectionError):
    """The inputs do not show the batch yet. It should be delivered again."""


class InputReplaced(GenerationLost):
    """Another generation of an input is live: the generation that is derived from this one is kept no more."""


class Inputs(Protocol):
    """The documents of the input views, as the live generation of each has them, and the business date."""

    def day(self) -> str:
        """The business date, in ISO 8601. Whoever derives asks once."""
        ...

    async def by_id(
        self, view: str, collection: str, ids: Iterable[DocumentId], fields: Sequence[str] = ()
    ) -> dict[DocumentId, Document]:
        """The documents that exist; with `fields`, these of them and the ids."""
        ...

    async def having(
        self, view: str, collection: str, field: str, values: Iterable[Any], fields: Sequence[str] = ()
    ) -> list[Document]:
        """The documents with one of the values in a field, which has an index; with `fields`, these of them and the
        ids."""
        ...

    async def ids(self, view: str, collection: str, after: DocumentId | None, limit: int) -> list[DocumentId]:
        """The next ids of a collection in order, also of documents that are gone."""
        ...

    async def digests(self, values: Sequence[SealedAt]) -> list[str | None]:
        """The digests of sealed values, by which they are found (`chassis.read.blind`)."""
        ...


@dataclass(frozen=True, slots=True)
class DerivedView:
    """A read model whose documents are functions of documents of other views.

    `depending(inputs, touched)`: the ids of the derived documents that may depend on these documents of the
    inputs. A document of an input that once named another document goes on naming it, or whoever depended on it
    would not be found. `derive(inputs, ids)`: the documents of these ids; an id that is missing has none. It
    reads the inputs and nothing else, and gives the same document for the same inputs on the same day. Where
    days matter, the field `changes_on` of a document is the first day on which the same inputs give another
    document, or null; the document is derived anew on that day, and the field has an index.
    `everything(inputs, after, limit)`: the ids of all documents that there may be, in order; the next ones.
    Raise `version` when the same inputs give other documents than before.

    `digests`: the field of its documents that holds digests of sealed values, where there is one. The role is then
    given keys. Who has none cannot derive this field.

    `sums`: what is summed over its documents, in buckets.
    """

    name: str
    version: int
    inputs: tuple[View, ...]
    collection: projecting.Collection
    depending: Callable[[Inputs, Touched], Awaitable[Iterable[DocumentId]]]
    derive: Callable[[Inputs, Sequence[DocumentId]], Awaitable[Mapping[DocumentId, Document]]]
    everything: Callable[[Inputs, DocumentId | None, int], Awaitable[Sequence[DocumentId]]]
    changes_on: str | None = None
    digests: str | None = None
    sums: Sums | None = None

    def __post_init__(self) -> None:
        projecting.check_name(self.name)
        if self.sums is not None and self.collection.name in {self.sums.name, self.sums.marks}:
            raise ValueError(f"{self.collection.name}: documents are in one collection with buckets or marks")

    @property
    def sources(self) -> tuple[str, ...]:
        """The topics of its inputs."""
        return tuple(dict.fromkeys(source for view in self.inputs for source in view.sources))

    @property
    def collections(self) -> tuple[projecting.Collection, ...]:
        """That of its documents, and that of the buckets where there are sums."""
        if self.sums is None:
            return (self.collection,)
        placed = replace(self.collection, indexes=(*self.collection.indexes, INDEX))
        return (placed, projecting.Collection(self.sums.name))

    def placed(self, id: DocumentId, document: Document) -> Document:
        """A document as it is stored: with its bucket, where there are sums."""
        return document if self.sums is None else {**document, BUCKET: self.sums.bucket_of(id)}

    @property
    def fingerprint(self) -> str:
        """A digest of the declaration. Another declaration may derive other documents."""
        declared = repr(
            (
                self.name,
                self.version,
                [view.name for view in self.inputs],
                self.collection.folds,
                self.changes_on,
                *([] if self.sums is None else [(self.sums.name, self.sums.buckets, self.sums.fields)]),
            )
        )
        return blake2b(declared.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class InputGeneration:
    """The generation of an input that is read: the prefix of its collections, its consumer group and its number,
    which is 0 where it never was switched to."""

    view: View
    prefix: str
    group: str
    number: int = 0

    @classmethod
    def of(cls, view: View, generation: Generation) -> "InputGeneration":
        """A generation as an input."""
        return cls(view, generation.prefix, generation.group, generation.number)


class MongoInputs(Inputs):
    """The documents of pinned generations of the inputs."""

    def __init__(
        self,
        mongo: Mongo,
        pinned: Sequence[InputGeneration],
        today: Callable[[], date],
        blind: BlindIndex | None = None,
    ) -> None:
        """Without `blind` there are no digests."""
        self.mongo = mongo
        self.blind = blind
        self.pinned = {one.view.name: one for one in pinned}
        self._today = today

    @override
    def day(self) -> str:
        return self._today().isoformat()

    @override
    async def by_id(
        self, view: str, collection: str, ids: Iterable[DocumentId], fields: Sequence[str] = ()
    ) -> dict[DocumentId, Document]:
        documents = MongoDocuments(self.mongo, self.pinned[view].prefix)
        found = await documents.load(collection, list(ids), _shown(fields))
        return {id: document for id, document in found.items() if GONE not in document}

    @override
    async def having(
        self, view: str, collection: str, field: str, values: Iterable[Any], fields: Sequence[str] = ()
    ) -> list[Document]:
        name = self.pinned[view].prefix + collection
        found = await self.mongo.find(name, {field: {"$in": list(values)}}, fields=_shown(fields))
        return [document for document in found if GONE not in document]

    @override
    async def ids(self, view: str, collection: str, after: DocumentId | None, limit: int) -> list[DocumentId]:
        name = self.pinned[view].prefix + collection
        where = {} if after is None else {ID: {"$gt": after}}
        found = await self.mongo.find(name, where, fields={ID: 1}, order=[(ID, 1)], limit=limit)
        return [one[ID] for one in found]

    @override
    async def digests(self, values: Sequence[SealedAt]) -> list[str | None]:
        return [None] * len(values) if self.blind is None else await self.blind.digests(values)

    async def check(self) -> None:
        """Raises InputReplaced where another generation of an input is live."""
        found = await self.mongo.find(VIEWS, {ID: {"$in": list(self.pinned)}})
        live = {one[ID]: one["live"] for one in found}
        for name, one in self.pinned.items():
            if live.get(name, 0) != one.number:
                raise InputReplaced(f"generation {one.number} of {name} is not live")

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
        whole_seconds_max: float = WHOLE_SECONDS_MAX,
    ) -> None:
        self.view = view
        self.positions: dict[Partition, Position] = {}
        self.documents_derived = 0
        self.records_applied = 0
        self.summing = (
            None
            if view.sums is None
            else Summing(view.sums, documents, view.collection.name, view.changes_on)
        )
        self._documents = documents
        self._checkpoints = checkpoints
        self._inputs = inputs
        self._clock = clock
        self._at_once = at_once
        self._wait_seconds_max = wait_seconds_max
        self._whole_seconds_max = whole_seconds_max
        self._turn = asyncio.Lock()
        self._taking = defaultdict[tuple[str, str], list[View]](list)
        for one in view.inputs:
            for taken in product(one.contexts, one.events):
                self._taking[taken].append(one)

    async def apply(self, records: Sequence[Record]) -> None:
        """Derives what depends on the records; in parts where the inputs do not show all of them soon."""
        async with self._turn:
            left = records
            while left:
                shown = await self.wait_for(left)
                await self._apply_shown([one for one in left if _is_before(one, shown)])
                left = [one for one in left if not _is_before(one, shown)]
            self.records_applied += len(records)

    async def _apply_shown(self, records: Sequence[Record]) -> None:
        arrivals = Arrivals()
        stored = await self._checkpoints.positions()
        # A generation starts where its inputs were, and its group at the first record.
        new = [one for one in records if (one.offset or 0) >= stored.get(one[0:2], NOWHERE).offset]
        changes = self._changes(arrivals.events(new))
        before = {place: stored.get(place, NOWHERE) for place in arrivals.positions}
        reached = arrivals.counted(before)
        await self._owe(changes)
        await self._derive_from((view, *key) for view, _, keys in changes for key in keys)
        # What depends was asked of the inputs too.
        await self._inputs.check()
        await self._checkpoints.advance(reached)
        further(self.positions, reached)

    async def tick(self) -> int:
        """Derives what was owed to events that are parked no more, and what the day changes.

        Returns how many subjects were parked no more.
        """
        async with self._turn:
            await self._derive_due()
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

    async def _derive_due(self) -> None:
        """Derives the documents that change on the day of today or before."""
        if self.view.changes_on is None:
            return
        day = self._inputs.day()
        found = await self._inputs.mongo.find(
            self._documents.prefix + self.view.collection.name,
            {self.view.changes_on: {"$lte": day}},
            fields={ID: 1},
            limit=DUE_AT_ONCE,
        )
        due = [one[ID] for one in found]
        if self.summing is not None:
            await self.summing.mark(due, due_on=day)
        await self.derive(due)

    async def owe_parked(self) -> None:
        """Notes what the inputs have parked already. Called before all documents of a new generation are derived."""
        for view, streams in (await self._inputs.parked()).items():
            one = self._inputs.pinned[view]
            checkpoints = MongoCheckpoints(self._inputs.mongo, one.group, view)
            for stream, sequence in streams.items():
                after = sequence - 1
                while some := await checkpoints.held(stream, after, HELD_AT_ONCE):
                    events = [event for held in some if isinstance(event := read(held.record), Delivered)]
                    await self._owe([each for each in self._changes(events) if each[0] == view])
                    after = some[-1].sequence

    async def derive(self, ids: Iterable[DocumentId]) -> None:
        """Derives documents from the inputs as they are from now on; raises Contended."""
        wanted = sorted(set(ids), key=str)
        parts = iter([wanted[at : at + self._at_once] for at in range(0, len(wanted), self._at_once)])
        tasks = [asyncio.create_task(self._derive_parts(parts)) for _ in range(DERIVED_ABREAST)]
        try:
            await asyncio.gather(*tasks)
        finally:
            await ended(*tasks)
        if self.summing is not None:
            await self.summing.mark(wanted)

    async def _derive_parts(self, parts: Iterator[Sequence[DocumentId]]) -> None:
        """Derives one part after the other, each until nobody else writes its documents meanwhile."""
        for part in parts:
            left = part
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

    async def wait_for(self, records: Sequence[Record]) -> dict[Partition, int]:
        """Waits until the inputs show the records, or parked them; after a while one of them is enough. Returns the offset of
        each partition before which they show everything; raises InputsBehind."""
        first: dict[Partition, int] = {}
        for record in records:
            first.setdefault(record[0:2], record.offset or 0)
        last = {record[0:2]: record.offset or 0 for record in records}
        since = self._clock.monotonic()
        while True:
            positions = await self._inputs.positions()
            shown = {place: self._shown(positions, place) for place in first}
            waited_seconds = self._clock.monotonic() - since
            if all(shown[place] > offset for place, offset in last.items()):
                return shown
            a_while = waited_seconds >= self._whole_seconds_max
            if a_while and any(shown[place] > offset for place, offset in first.items()):
                return shown
            if waited_seconds > self._wait_seconds_max:
                short = self._short(positions, first)
                raise InputsBehind(f"{self.view.name} waits for {', '.join(short)}")
            await self._clock.sleep(WAIT_PAUSE_SECONDS)

    def _shown(self, positions: Mapping[str, Mapping[Partition, Position]], place: Partition) -> int:
        """The offset before which every input that reads a partition shows everything."""
        return min(
            positions[view.name].get(place, NOWHERE).offset
            for view in self.view.inputs
            if place[0] in view.sources
        )

    def _short(
        self, positions: Mapping[str, Mapping[Partition, Position]], first: Mapping[Partition, int]
    ) -> list[str]:
        """The inputs that show none of what comes first in each partition."""
        return [
            view.name
            for view in self.view.inputs
            if any(
                positions[view.name].get(place, NOWHERE).offset <= offset
                for place, offset in first.items()
                if place[0] in view.sources
            )
        ]

    def _changes(self, events: Iterable[Delivered]) -> list[tuple[str, Delivered, Sequence[DocumentKey]]]:
        """The input, the event and the documents that it changes. What an input parks for its keys changes none."""
        found = []
        for event in events:
            for view in self._taking.get((event.context, event.type), ()):
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
        there = await self._documents.load(name, ids, _COUNT)
        found = await self.view.derive(self._inputs, ids)
        await self._inputs.check()
        changes = []
        for id in ids:
            expected = there[id][SEQUENCE] if id in there else None
            sequence = (expected or 0) + 1
            document = found.get(id)
            content = self.view.placed(id, {GONE: True} if document is None else document)
            frozen = self._documents.freeze({**content, ID: id, SEQUENCE: sequence})
            changes.append(Change(id, expected, sequence, frozen))
        written = await self._documents.write(name, changes)
        self.documents_derived += len(changes) - len(written.conflicts)
        return list(written.conflicts)


def _is_before(record: Record, offsets: Mapping[Partition, int]) -> bool:
    return (record.offset or 0) < offsets[record[0:2]]


def _shown(fields: Sequence[str]) -> dict[str, int] | None:
    """What the database returns of a document: these fields, and whether it is gone; all of it where there are none."""
    return dict.fromkeys((*fields, GONE), 1) if fields else None
