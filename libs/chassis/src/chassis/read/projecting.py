"""Views, and how a batch of events becomes writes.

A view is pure: `keys` names the documents that an event changes, `project` returns each document after the
event. The runtime folds a batch document by document, records how far the documents will reach, writes
each collection once, and saves its checkpoint last.
"""

import asyncio
import re
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import UUID

from contracts.topics import EVENTS

from chassis.ending import ended
from chassis.messaging.delivered import Delivered, Stream
from chassis.messaging.records import Record
from chassis.messaging.transport import Partition
from chassis.observability import telemetry
from chassis.observability.reasons import reason_of
from chassis.read.arrivals import NOWHERE, Arrivals, continues, first_offsets, further
from chassis.read.checkpoints import Position
from chassis.read.documents import (
    GONE,
    ID,
    SEQUENCE,
    Change,
    Document,
    DocumentId,
    DocumentKey,
    Documents,
    Mark,
    Unwritable,
)
from chassis.read.parking import Parking, PoisonEvent, is_of_the_record

__all__ = ["Collection", "Delivered", "Document", "DocumentKey", "Index", "View"]


T = TypeVar("T")

_VIEW_NAME: Final = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_LIKE_A_GENERATION: Final = re.compile(r"_v[0-9]+(_|$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Index:
    """An index: fields with 1 or -1; `partial` is a filter expression."""

    fields: tuple[tuple[str, int], ...]
    unique: bool = False
    partial: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of a view.

    In an `insert_only` one every document is made by one event and never changed again.

    Insert-only collections are written before the others of the same batch, so that a reader of a document
    of the others finds the inserted documents up to its `_seq`.
    """

    name: str
    indexes: tuple[Index, ...] = ()
    insert_only: bool = False

    @property
    def folds(self) -> tuple[Any, ...]:
        """What of it decides which documents there are. Other indexes than unique ones are altered in place."""
        return self.name, tuple(index for index in self.indexes if index.unique), self.insert_only


def check_name(name: str) -> None:
    """Raises ValueError where a name would make names of collections that can be read in two ways."""
    if not _VIEW_NAME.fullmatch(name) or _LIKE_A_GENERATION.search(name):
        raise ValueError(f"{name!r} is no name of a view: a-z, 0-9 and _, and no _v with a number")


@dataclass(frozen=True, slots=True)
class View:
    """A read model.

    `sources` are topics; `events` are the types that it takes, others are passed over unread.
    `keys(event)` names the documents that the event changes, each of which belongs to the event's subject
    alone, whichever of the view's contexts speak of it: there is order within each context, and none
    between two. `project(key, document, event)` gives the document after the event, None for none; the
    document given is the view's to change. `_id` and `_seq` are the runtime's. Whatever the two raise
    parks the subject. Raise `version` when the same events give other documents than before: the view is
    then built anew beside the old one.
    """

    name: str
    version: int
    sources: tuple[str, ...]
    events: frozenset[str]
    collections: tuple[Collection, ...]
    keys: Callable[[Delivered], Sequence[DocumentKey]]
    project: Callable[[DocumentKey, Document | None, Delivered], Document | None]

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def fingerprint(self) -> str:
        """A digest of the declaration. Another declaration may fold other documents."""
        collections = [collection.folds for collection in self.collections]
        declared = repr((self.name, self.version, self.sources, sorted(self.events), collections))
        return blake2b(declared.encode(), digest_size=8).hexdigest()

    @property
    def contexts(self) -> frozenset[str]:
        """The contexts whose events it takes."""
        return frozenset(context for context, topic in EVENTS.items() if topic.name in self.sources)

    def collection(self, name: str) -> Collection:
        """The collection of that name."""
        return next(collection for collection in self.collections if collection.name == name)


CHUNK_RECORDS: Final = 5_000
"""Records that are folded and written together. The more, the fewer writes of a document that many events
change: with 2,000 documents, 1,000 records cost the server 101 us each, 5,000 cost 42 us."""
SLICE_RECORDS: Final = 100
"""Records that are read, or folded, before the loop has its turn. While a chunk of 5,000 is folded at once, the database
has the one command that went out before, and idles (40 us a record; 33 us in slices)."""
SLICE_TURNS: Final = 3
"""Turns of the loop between two slices: an answer takes several to be read, and the next command one to be sent."""
CACHED_DOCUMENTS_MAX: Final = 10_000
CONFLICT_ROUNDS_MAX: Final = 10
TRACES_MAX: Final = 20
"""A batch of an import has one trace. A batch of commands has thousands; at most this many of them are told of."""


class Contended(ConnectionError):
    """Other consumers wrote the same documents in every try. The batch should be delivered again."""


class _Prepared:
    """A chunk, folded and frozen: the changes to write, and the events that cannot be processed."""

    __slots__ = ("arrivals", "changes", "events", "held", "troubled")

    def __init__(self) -> None:
        self.events: list[tuple[Delivered, Sequence[DocumentKey]]] = []
        self.arrivals = Arrivals()
        self.held: dict[Stream, list[Delivered]] = {}
        self.troubled: set[UUID] = set()
        self.changes: dict[str, list[Change]] = {}

    def traces(self) -> list[str]:
        """Trace contexts under which the events were recorded, `TRACES_MAX` at most."""
        found = {event.traceparent: None for event, _ in self.events if event.traceparent is not None}
        return list(islice(found, TRACES_MAX))

    def owners(self, collection: str) -> dict[DocumentId, UUID]:
        """The subject of each document of a collection that the events change."""
        return {
            key.id: event.subject
            for event, keys in self.events
            for key in keys
            if key.collection == collection
        }

    def of(self, subjects: Iterable[UUID]) -> dict[UUID, list[Delivered]]:
        """The events of these subjects, in order."""
        found: dict[UUID, list[Delivered]] = {subject: [] for subject in subjects}
        for event, _ in self.events:
            if event.subject in found:
                found[event.subject].append(event)
        return found


class _Folded:
    """What the events of a chunk make of documents, each with its subject: of those that change the mark before it,
    and the change itself of those that are inserted only."""

    __slots__ = ("guards", "made")

    def __init__(self) -> None:
        self.guards: dict[DocumentKey, tuple[Mark | None, UUID]] = {}
        self.made: dict[DocumentKey, tuple[Change, UUID]] = {}


class _State:
    """A stored or future document, and its `_seq`, which is 0 or {} where there is none."""

    __slots__ = ("document", "mark")

    def __init__(self, document: Document | None, mark: Any) -> None:
        self.document = document
        self.mark = mark

    def projected(self, view: View, key: DocumentKey, event: Delivered, mark: Mark) -> bool:
        """Brings the document to its state after an event; False where there is none before and after."""
        document = view.project(key, self.document, event)
        if document is not None:
            document[ID], document[SEQUENCE] = key.id, mark
        elif self.document is None:
            return False
        self.document, self.mark = document, mark
        return True


class Projector:
    """Folds records into the documents of one generation of a view.

    `apply` processes or parks every event, then saves the positions, then returns. It raises where a
    server does not answer; the same records, or more, must then be delivered again. Records may come
    twice, from an earlier offset, and through several projectors at once.
    """

    def __init__(
        self,
        view: View,
        documents: Documents,
        parking: Parking,
        *,
        chunk_records: int = CHUNK_RECORDS,
        slice_records: int = SLICE_RECORDS,
        cached_documents: int = CACHED_DOCUMENTS_MAX,
    ) -> None:
        self.view = view
        self.parking = parking
        self.positions: dict[Partition, Position] = {}
        """The checkpoint to which this process brought each partition."""
        self.events_applied = 0
        self.records_applied = 0
        self._documents = documents
        self._chunk_records = chunk_records
        self._slice_records = slice_records
        self._cached_max = cached_documents
        self._cache: OrderedDict[DocumentKey, _State] = OrderedDict()
        self._insert_only = {collection.name: collection.insert_only for collection in view.collections}
        self._order = sorted(self._insert_only, key=lambda name: not self._insert_only[name])
        self._contexts = view.contexts
        self._several = len(self._contexts) > 1
        self._reaching: dict[Partition, int] = {}
        """The position of each partition up to which this process recorded that documents may show events."""
        self._turn = asyncio.Lock()
        self._said = {"view": view.name, "group": parking.group}

    async def apply(self, records: Sequence[Record]) -> None:
        """Processes records."""
        async with self._turn:
            try:
                await self._apply(records)
            except BaseException:
                # The folded documents may not have been written: the cache is no longer valid.
                self._cache.clear()
                raise

    async def tick(self) -> list[UUID]:
        """Releases the subjects whose release was requested, and those whose documents show the event that
        parked them.

        Returns the released subjects.
        """
        async with self._turn:
            await self.parking.refresh()
            released = await self.parking.release_wanted(self._give_alone)
            return released + await self.parking.release_processed(self._shows, self._give_alone)

    async def _apply(self, records: Sequence[Record]) -> None:
        positions: dict[Partition, Position] = {}
        before = await self._before(records)
        chunks = _even(records, self._chunk_records)
        following: _Prepared | None = None
        for number, chunk in enumerate(chunks):
            prepared = following or await self._prepare(chunk)
            following = None
            # Setting aside what is held may release the subject, or park it again.
            settled = not prepared.troubled and not prepared.held
            if number + 1 < len(chunks) and settled:
                following, (conflicts, rejected) = await self._overlapped(prepared, chunks[number + 1])
            else:
                conflicts, rejected = await self._write(prepared)
            if conflicts or rejected or prepared.troubled:
                following = None  # it was folded on top of documents that are not valid
                await self._settle(prepared, conflicts, rejected)
            await self._set_aside(prepared)
            reached = prepared.arrivals.counted(before)
            further(positions, reached)
            further(before, reached)
            self.events_applied += len(prepared.events)
            for traceparent in prepared.traces():
                with telemetry.span("view written", {"traceparent": traceparent}, attributes=self._said):
                    pass
            self._evict(following)
        await self.parking.checkpoints.advance(positions)
        self.records_applied += len(records)
        further(self.positions, positions)

    async def _before(self, records: Sequence[Record]) -> dict[Partition, Position]:
        """Returns the positions of a batch's partitions before it.

        Where the batch does not continue this process's positions, another process had the partition
        meanwhile. The parked subjects and the positions are then read from the checkpoints, and the cache is
        cleared. A guard refuses the write of a stale document. No guard protects an event that changes nothing
        because its document is missing from the cache.
        """
        first = first_offsets(records)
        known = self.positions
        if not continues(known, first):
            self._cache.clear()
            await self.parking.refresh()
            known = await self.parking.checkpoints.positions()
        return {place: known.get(place, NOWHERE) for place in first}

    async def _overlapped(
        self, prepared: _Prepared, chunk: Sequence[Record]
    ) -> tuple[_Prepared, tuple[set[UUID], set[UUID]]]:
        """Writes one chunk while the next is folded."""
        await self._record_reaching(prepared)
        writing = asyncio.create_task(self._write(prepared))
        try:
            # The first command goes out before the folding keeps the loop busy: it has documents for the database.
            await asyncio.sleep(0)
            following = await self._prepare(chunk)
            await self._record_reaching(following)
        except BaseException:
            await ended(writing)
            raise
        return following, await writing

    # folding

    async def _prepare(self, records: Sequence[Record], *, again: bool = False) -> _Prepared:
        """Folds records. `again`: documents of a subject are loaded also where its first event is among the records."""
        prepared = _Prepared()
        missing: dict[str, dict[DocumentId, None]] = {}
        async for some in _slices(records, self._slice_records):
            self._read(some, prepared, missing, again=again)
        for collection, ids in missing.items():
            loaded = await self._documents.load(collection, list(ids))
            for id in ids:
                self._cache[DocumentKey(collection, id)] = self._state(loaded.get(id))
        folded = _Folded()
        async for events in _slices(prepared.events, self._slice_records):
            self._fold(events, prepared.troubled, folded)
        self._freeze(prepared, folded)
        return prepared

    def _read(
        self,
        records: Sequence[Record],
        prepared: _Prepared,
        missing: dict[str, dict[DocumentId, None]],
        *,
        again: bool,
    ) -> None:
        """Reads records into `prepared`, and the ids of documents that must be loaded into `missing`, by collection.

        A subject has no document before its first event, unless that comes again: the guard then refuses the insert.
        """
        taken, cache, insert_only, keys_of = self.view.events, self._cache, self._insert_only, self.view.keys
        parking, troubled, events = self.parking, prepared.troubled, prepared.events
        contexts = self._contexts
        set_aside = bool(parking.parked or parking.skipped)
        first = 0 if again or self._several else 1
        for event in prepared.arrivals.events(records):
            if event.type not in taken:
                continue
            if event.context not in contexts:
                # The sequences of another context cannot be compared with those of the topics' contexts.
                prepared.arrivals.broken.append((event.record, "an event of a context of another topic"))
                continue
            if set_aside:
                if parking.holds(event):
                    prepared.held.setdefault(event.stream, []).append(event)
                    continue
                if parking.skips(event):
                    continue
            try:
                keys = keys_of(event)
                for key in keys:
                    if insert_only[key[0]] or key in cache:
                        continue
                    if event.sequence == first:
                        cache[key] = self._state(None)
                    else:
                        missing.setdefault(key[0], {})[key[1]] = None
            except Exception as error:
                if not is_of_the_record(error):
                    raise
                troubled.add(event.subject)
                keys = ()
            events.append((event, keys))

    def _fold(
        self,
        events: Sequence[tuple[Delivered, Sequence[DocumentKey]]],
        troubled: set[UUID],
        folded: _Folded,
    ) -> None:
        """Folds events into the cached documents, and freezes what is inserted only."""
        cache, insert_only, view = self._cache, self._insert_only, self.view
        several, freeze, guards, made = self._several, self._documents.freeze, folded.guards, folded.made
        for event, keys in events:
            subject, sequence = event.subject, event.sequence
            mark: Any
            if troubled and subject in troubled:
                continue
            try:
                for key in keys:
                    if insert_only[key[0]]:
                        mark = {event.context: sequence} if several else sequence
                        if key in made:
                            _same_event(made[key][0], mark, key)
                            continue
                        document = view.project(key, None, event)
                        if document is not None:
                            document[ID], document[SEQUENCE] = key[1], mark
                            made[key] = (Change(key[1], None, mark, freeze(document)), subject)
                        continue
                    state = cache[key]
                    before = state.mark
                    mark = _advanced(before, event) if several else sequence
                    if mark is None or (not several and sequence <= before):
                        continue
                    if state.projected(view, key, event, mark) and key not in guards:
                        guards[key] = (before or None, subject)
                        cache.move_to_end(key)
            except Exception as error:
                if not is_of_the_record(error):
                    raise
                troubled.add(subject)

    def _freeze(self, prepared: _Prepared, folded: _Folded) -> None:
        """Freezes the documents that the events of a chunk changed."""
        freeze, cache, troubled = self._documents.freeze, self._cache, prepared.troubled
        changed: list[tuple[DocumentKey, Change, UUID]] = []
        for key, (expected, subject) in folded.guards.items():
            state = cache[key]
            try:
                frozen = freeze(_stone(state.document, key, state.mark))
                changed.append((key, Change(key[1], expected, state.mark, frozen), subject))
            except Unwritable:
                troubled.add(subject)
        changes: dict[str, list[Change]] = defaultdict(list)
        for key, (change, subject) in folded.made.items():
            if not troubled or subject not in troubled:
                changes[key[0]].append(change)
        for key, change, subject in changed:
            if not troubled or subject not in troubled:
                changes[key[0]].append(change)
        prepared.changes = changes

    # writing

    async def _write(self, prepared: _Prepared) -> tuple[set[UUID], set[UUID]]:
        """Writes a chunk.

        Returns the subjects whose guard did not hold, and those of which a document was refused.
        """
        await self._record_reaching(prepared)
        conflicts: set[UUID] = set()
        rejected: set[UUID] = set()
        for collection in self._order:
            changes = prepared.changes.get(collection, [])
            if rejected:
                owners = prepared.owners(collection)
                changes = [one for one in changes if owners[one.id] not in rejected]
            if not changes:
                continue
            written = await self._documents.write(collection, changes)
            if not written.conflicts and not written.rejected:
                continue
            owners = prepared.owners(collection)
            refused = set(written.rejected)
            if self._insert_only[collection]:
                refused |= await self._made_by_others(collection, changes, written.conflicts)
            else:
                conflicts |= {owners[id] for id in written.conflicts}
            rejected |= {owners[id] for id in refused}
        return conflicts - rejected, rejected

    async def _record_reaching(self, prepared: _Prepared) -> None:
        """Records how far documents may show events from now on, if a chunk has an event for them.

        Kept events count too: another process may release their subject before this one saves its checkpoint.
        """
        if not prepared.events and not prepared.held:
            return
        higher = {
            place: at.position
            for place, at in prepared.arrivals.positions.items()
            if at.position > self._reaching.get(place, 0)
        }
        if higher:
            await self.parking.checkpoints.reaching(higher)
            self._reaching |= higher

    async def _made_by_others(
        self, collection: str, changes: Sequence[Change], conflicts: Iterable[DocumentId]
    ) -> set[DocumentId]:
        """Returns the documents of an insert-only collection that exist already and come from another event."""
        sequences = {change.id: change.sequence for change in changes}
        there = await self._documents.load(collection, list(conflicts))
        return {id for id, document in there.items() if document[SEQUENCE] != sequences[id]}

    # events that cannot be written as a batch

    async def _settle(self, prepared: _Prepared, conflicts: set[UUID], rejected: set[UUID]) -> None:
        """Processes the subjects of a written chunk that were left out, or parks them.

        The cached documents are not those of the database, so they are read again.
        """
        alone = prepared.troubled | rejected
        again = conflicts - alone
        for _ in range(CONFLICT_ROUNDS_MAX):
            if not again:
                break
            records = [event.record for events in prepared.of(again).values() for event in events]
            self._cache.clear()
            retry = await self._prepare(records, again=True)
            again, refused = await self._write(retry)
            alone |= retry.troubled | refused
            again -= alone
        if again:
            raise Contended(f"{self.view.name}: {len(again)} subjects are written by others all the time")
        self._cache.clear()
        for events in prepared.of(alone).values():
            await self.parking.give(events, self._give_alone)

    async def _set_aside(self, prepared: _Prepared) -> None:
        for record, reason in prepared.arrivals.broken:
            await self.parking.dead_letter(record, reason)
        for events in prepared.held.values():
            await self.parking.keep(events, self._give_alone)

    async def _give_alone(self, event: Delivered) -> None:
        """Applies one event to its documents as the database has them; raises PoisonEvent."""
        if event.type not in self.view.events:
            return
        for _ in range(CONFLICT_ROUNDS_MAX):
            prepared = await self._prepare_alone(event)
            conflicts, rejected = await self._write(prepared)
            if rejected:
                raise PoisonEvent("a document was refused by the database")
            if not conflicts:
                return
        raise Contended(f"{self.view.name}: {event.subject} is written by others all the time")

    async def _shows(self, event: Delivered) -> bool:
        """Whether a document of an event, other than an inserted one, shows it or a later one of its subject."""
        try:
            _, guarded = self._keys(event)
        except PoisonEvent:
            return False
        for key in guarded:
            mark = self._state((await self._documents.load(key.collection, [key.id])).get(key.id)).mark
            if (mark.get(event.context, 0) if self._several else mark) >= event.sequence:
                return True
        return False

    def _keys(self, event: Delivered) -> tuple[list[DocumentKey], list[DocumentKey]]:
        """The keys of an event's documents, and those that are guarded; raises PoisonEvent."""
        try:
            keys = [DocumentKey(*key) for key in self.view.keys(event)]
            return keys, [key for key in keys if not self._insert_only[key.collection]]
        except Exception as error:
            if not is_of_the_record(error):
                raise
            raise PoisonEvent(reason_of(error)) from error

    async def _prepare_alone(self, event: Delivered) -> _Prepared:
        keys, guarded = self._keys(event)
        prepared = _Prepared()
        prepared.events.append((event, keys))
        states: dict[DocumentKey, _State] = {}
        for key in guarded:
            self._cache.pop(key, None)
            states[key] = self._state((await self._documents.load(key.collection, [key.id])).get(key.id))
        try:
            for key in keys:
                state = states.get(key) or self._state(None)
                before = state.mark
                mark: Any = _advanced(before, event) if self._several else event.sequence
                if mark is None or (not self._several and mark <= before):
                    continue
                if state.projected(self.view, key, event, mark):
                    frozen = self._documents.freeze(_stone(state.document, key, mark))
                    change = Change(key.id, before or None, mark, frozen)
                    prepared.changes.setdefault(key.collection, []).append(change)
        except Exception as error:
            if not is_of_the_record(error):
                raise
            raise PoisonEvent(reason_of(error)) from error
        return prepared

    def _state(self, document: Document | None) -> _State:
        if document is None:
            return _State(None, {} if self._several else 0)
        return _State(None if GONE in document else document, document[SEQUENCE])

    def _evict(self, following: _Prepared | None) -> None:
        """The newest documents are those that the following chunk changed; the database does not have them yet."""
        changed = following.changes if following is not None else {}
        kept = sum(len(of) for name, of in changed.items() if not self._insert_only[name])
        while len(self._cache) > max(self._cached_max, kept):
            self._cache.popitem(last=False)


async def _slices(many: Sequence[T], size: int) -> AsyncIterator[Sequence[T]]:
    """The same in slices; between two of them the loop has its turns."""
    for at in range(0, len(many), size):
        if at:
            for _ in range(SLICE_TURNS):
                await asyncio.sleep(0)
        yield many[at : at + size]


def _even(records: Sequence[Record], size: int) -> list[Sequence[Record]]:
    """Chunks of about that size, at most half as large again: a small rest would cost as many round trips."""
    count = max(1, round(len(records) / size))
    length = max(1, -(-len(records) // count))
    return [records[at : at + length] for at in range(0, len(records), length)]


def _advanced(mark: Mapping[str, int], event: Delivered) -> dict[str, int] | None:
    """The marks of a document after an event of one of its contexts; None where it was applied before."""
    if event.sequence <= mark.get(event.context, 0):
        return None
    return dict(sorted({**mark, event.context: event.sequence}.items()))


def _stone(document: Document | None, key: DocumentKey, mark: Mark) -> Document:
    return {ID: key[1], SEQUENCE: mark, GONE: True} if document is None else document


def _same_event(change: Change, mark: Mark, key: DocumentKey) -> None:
    if change.sequence != mark:
        raise ValueError(f"{key[0]} takes one event for a document")
