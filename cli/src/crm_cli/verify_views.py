"""Views against the log: every document is folded again in memory by the view's pure functions, and compared (I1, I4).

Documents of an insert-only collection are compared page by page and forgotten; the others are kept until the log is
through. A view that went on meanwhile is met where it is: a document is folded up to its own `_seq`.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from chassis.messaging.delivered import Delivered, Stream
from chassis.observability.reasons import reason_of
from chassis.read.documents import (
    GONE,
    ID,
    SEQUENCE,
    Document,
    DocumentId,
    DocumentKey,
    DocumentsHash,
)
from chassis.read.generations import Generation, live_generation
from chassis.read.mongo import Frozen, Mongo, MongoDocuments
from chassis.read.mongo_checkpoints import MongoCheckpoints
from chassis.read.projecting import View
from chassis.write.store import Recorder

from crm_cli.contexts import Context
from crm_cli.verify_log import Expected, expected
from crm_cli.verify_report import Report

POSITION: Final = "position"
LOOKED_UP_AT_ONCE: Final = 1_000
"""Documents of an insert-only collection."""

_canonical: Final = msgspec.json.Encoder(order="deterministic", uuid_format="hex").encode


class Inserted(NamedTuple):
    """A document of an insert-only collection, as the database must hold it, with its part of the hash."""

    raw: bytes
    digest: int


@dataclass(frozen=True, slots=True)
class Folded:
    """What came of a fold of some subjects: how many documents of each insert-only collection there must be, which
    documents come from none of those subjects, and the documents that were compared."""

    generation: Generation
    made: dict[str, int]
    strangers: frozenset[DocumentKey]
    hash: DocumentsHash
    differing: int


class Fold:
    """One view, folded again beside the log of its context."""

    def __init__(
        self, view: View, context: str, generation: Generation, mongo: Mongo, report: Report
    ) -> None:
        self.view = view
        self._context = context
        self.generation = generation
        self._mongo = mongo
        self._report = report
        self._documents: dict[DocumentKey, tuple[Document | None, UUID, int]] = {}
        """With the subject and the sequence of the last event: the event itself would keep its record in memory."""
        self._inserted: dict[str, dict[DocumentId, Inserted]] = {
            each.name: {} for each in view.collections if each.insert_only
        }
        self._made = dict.fromkeys(self._inserted, 0)
        self._parked: Mapping[Stream, Any] = {}
        self._skipped: frozenset[tuple[Stream, int]] = frozenset()
        self._hash = DocumentsHash()
        self._differing = 0
        self._strangers: set[DocumentKey] = set()
        self._stored = MongoDocuments(mongo, generation.prefix)
        self._looked_up: tuple[str, dict[DocumentId, Inserted], asyncio.Future[list[bytes]]] | None = None

    @classmethod
    async def of(cls, view: View, context: str, mongo: Mongo, report: Report) -> "Fold | None":
        """The fold of a context's events in a view's live generation; None where there is none."""
        generation = await live_generation(mongo, view.name)
        if generation is None:
            return None
        fold = cls(view, context, generation, mongo, report)
        checkpoints = MongoCheckpoints(mongo, generation.group, view.name)
        with report.reading("I4", f"{view.name}: which events are not in it"):
            fold._parked, fold._skipped = await checkpoints.parked(), await checkpoints.skipped()
        return fold

    async def take(self, page: Sequence[Expected]) -> None:
        """Folds the next events of the log."""
        for each in page:
            event = _delivered(each, self._context)
            if self._takes(event):
                try:
                    self._fold(event)
                except Exception as error:  # noqa: BLE001 - whatever a view raises, it is what is wrong
                    self._report.broken(
                        "I4", f"{self.view.name}: {event!r} cannot be folded: {reason_of(error)}"
                    )
        for collection, documents in self._inserted.items():
            if len(documents) >= LOOKED_UP_AT_ONCE:
                await self._look_up(collection)

    def _takes(self, event: Delivered) -> bool:
        if event.type not in self.view.events:
            return False
        if self._skipped and (event.stream, event.sequence) in self._skipped:
            return False
        parked = self._parked.get(event.stream) if self._parked else None
        return parked is None or event.sequence < parked.sequence

    def _fold(self, event: Delivered) -> None:
        for key in self.view.keys(event):
            inserted = self._inserted.get(key.collection)
            if inserted is not None:
                made = _projected(self.view, key, None, event)
                if made is not None:
                    frozen = self._stored.freeze(made)
                    inserted[key.id] = Inserted(frozen.raw, self._hash.digest(key.collection, made))
                    self._made[key.collection] += 1
                continue
            before = self._documents.get(key)
            self._documents[key] = (
                _projected(self.view, key, None if before is None else before[0], event),
                event.subject,
                event.sequence,
            )

    async def _look_up(self, collection: str) -> None:
        """Asks for the documents that were made last; what was asked for before is compared."""
        await self._compare_inserted()
        documents, self._inserted[collection] = self._inserted[collection], {}
        found = self._stored.load_raw(collection, list(documents))
        self._looked_up = (collection, documents, asyncio.ensure_future(found))

    async def _compare_inserted(self) -> None:
        """Compares what was looked up last: the database was busy with it while the log went on.

        What has the same bytes is the same document. Only others are decoded, and looked at field by field.
        """
        if self._looked_up is None:
            return
        collection, documents, found = self._looked_up
        self._looked_up = None
        raw = set(await found)
        differing = []
        for id, made in documents.items():
            if made.raw in raw:
                raw.remove(made.raw)
                self._hash.plus_digest(made.digest)
            else:
                differing.append((id, Frozen(made.raw).thawed()))
        self._report.passed("I4", len(documents) - len(differing))
        there = {document[ID]: document for document in self._thawed(collection, raw)}
        for id, document in differing:
            with self._reading(collection, id):
                self._same(collection, id, document, there.get(id))

    async def finish(self, context: Context, recorder: Recorder, head: int) -> Folded:
        """Compares the documents that are left."""
        for collection in self._inserted:
            await self._look_up(collection)
        await self._compare_inserted()
        for collection in (each.name for each in self.view.collections if not each.insert_only):
            async for page in self._mongo.raw_pages(self.generation.prefix + collection):
                for document in self._thawed(collection, page):
                    with self._reading(collection, document[ID]):
                        self._compare_folded(collection, document, context, recorder, head)
        for key, (left, _, _) in self._documents.items():
            if left is not None:
                self._same(key.collection, key.id, left, None)
        return Folded(self.generation, self._made, frozenset(self._strangers), self._hash, self._differing)

    def _thawed(self, collection: str, raw: Iterable[bytes]) -> Iterator[Document]:
        """Those that can be decoded. Of another one the id is unknown: the document is missing too."""
        for each in raw:
            with self._report.reading("I4", f"{self.view.name}: a document in {collection}"):
                yield Frozen(each).thawed()

    def _reading(self, collection: str, id: object) -> AbstractContextManager[None]:
        return self._report.reading("I4", f"{self.view.name}: {collection} {id}")

    def _compare_folded(
        self, collection: str, document: Document, context: Context, recorder: Recorder, head: int
    ) -> None:
        key = DocumentKey(collection, document[ID])
        folded = self._documents.pop(key, None)
        if folded is None:
            if document.get(POSITION, 0) <= head:
                self._strangers.add(key)
            return
        after: Document | None
        after, subject, last = folded
        if document[SEQUENCE] > last:
            after = self._onward(key, after, subject, last, document[SEQUENCE], context, recorder)
        if after is None:
            after = {ID: key.id, SEQUENCE: document[SEQUENCE], GONE: True}
        self._same(collection, key.id, after, document)

    def _onward(
        self,
        key: DocumentKey,
        document: Document | None,
        subject: UUID,
        last: int,
        sequence: int,
        context: Context,
        recorder: Recorder,
    ) -> Document | None:
        """The document folded further, up to where the view is."""
        for stored in recorder.read_stream(subject, last):
            wanted = expected(context, stored)
            if stored.version > sequence or wanted is None:
                continue
            event = _delivered(wanted, context.name)
            if self._takes(event) and key in self.view.keys(event):
                document = _projected(self.view, key, document, event)
        return document

    def _same(self, collection: str, id: DocumentId, folded: Document, found: Document | None) -> None:
        report, name = self._report, f"{self.view.name}: {collection} {id}"
        report.passed("I4")
        if found is not None:
            self._hash.add(collection, found)
        if found == folded:
            return
        self._differing += 1
        if found is None:
            report.broken("I4", f"{name} is missing")
            report.broken("I1", f"{name}: what was stored has not reached the view")
            return
        fields = sorted(
            field
            for field in folded.keys() | found.keys()
            if _canonical(folded.get(field)) != _canonical(found.get(field))
        )
        if found[SEQUENCE] < folded[SEQUENCE]:
            report.broken("I1", f"{name} is at {found[SEQUENCE]}, its subject at {folded[SEQUENCE]}")
        report.broken("I4", f"{name} differs from its fold in {', '.join(fields)}")


async def check_parked(view: View, mongo: Mongo, report: Report) -> None:
    """Checks that the view is built and that no subject of it is parked."""
    generation = await live_generation(mongo, view.name)
    if generation is None:
        report.broken("I1", f"the view {view.name} is not built")
        return
    for parked in (await MongoCheckpoints(mongo, generation.group, view.name).parked()).values():
        report.broken(
            "I4",
            f"{view.name}: subject {parked.subject} is parked since its event {parked.sequence}: {parked.reason}",
        )


async def conclude(
    view: View, mongo: Mongo, folded: Sequence[Folded], head: int, report: Report
) -> Generation:
    """Counts what should not be there, over the folds of all subjects of a view; the generation that was compared."""
    generation, together, differing = folded[0].generation, DocumentsHash(), 0
    for collection in folded[0].made:
        found = await mongo.count(generation.prefix + collection, {POSITION: {"$lte": head}})
        made = sum(each.made[collection] for each in folded)
        report.compare("I4", f"{view.name}: documents in {collection}", made, found)
    for key in sorted(frozenset.intersection(*(each.strangers for each in folded)), key=str):
        report.broken("I4", f"{view.name}: {key.collection} {key.id} comes from no event")
    for each in folded:
        together.plus(each.hash)
        differing += each.differing
    report.figures.setdefault("views", {})[view.name] = {
        "generation": generation.number,
        "documents": together.count,
        "hash": together.hexdigest(),
        "differing": differing,
    }
    return generation


def _delivered(wanted: Expected, context: str) -> Delivered:
    """The event as a reader gets it. Its record was made here, so its headers need no check."""
    position, type, record, version, stored = wanted
    headers = dict(record.headers)
    return Delivered(record, headers, type, version, context, stored.stream_id, stored.version, position)


def _projected(view: View, key: DocumentKey, document: Document | None, event: Delivered) -> Document | None:
    after = view.project(key, document, event)
    if after is not None:
        after[ID], after[SEQUENCE] = key.id, event.sequence
    return after
