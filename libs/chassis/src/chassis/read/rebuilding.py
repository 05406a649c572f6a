"""Rebuilding a view beside the live one: fold the whole log again, compare, switch, drop the old generation.

An interrupted rebuild goes on when it is called again. The comparison does not stop the consumers:
documents are compared where both generations have applied the same events, and compared later where one is
ahead of the other.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from chassis.clock import Clock
from chassis.ending import ended, set_within
from chassis.messaging.broker import Broker
from chassis.messaging.transport import Publisher
from chassis.read.documents import ID, SEQUENCE, Document, DocumentId, DocumentsHash
from chassis.read.generations import Generation, Generations, Kept
from chassis.read.mongo import PAGE_DOCUMENTS, Frozen, Mongo
from chassis.read.viewing import BATCH_RECORDS_MAX, CAUGHT_UP_RECORDS_MAX, Feed, fewer, lacking, unfinished

LOOK_SECONDS: Final = 0.5
COMPARE_ROUNDS_MAX: Final = 40
COMPARE_PAUSE_SECONDS: Final = 0.25
UNSETTLED_DOCUMENTS_MAX: Final = 100_000
WAITING_DOCUMENTS_MAX: Final = 2 * PAGE_DOCUMENTS
"""Documents of a page that the other generation has not shown yet; what waits longer is looked up by its id."""
NAMED_DIFFERENCES_MAX: Final = 20

T = TypeVar("T")
Step = Literal["catching up", "comparing", "switching"]


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a rebuild: records applied and left, since it was begun or resumed."""

    step: Step
    generation: Generation
    resumed: bool
    applied: int
    left: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Records a second."""
        return self.applied / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated; None while there is nothing to estimate from."""
        return self.left / self.per_second if self.per_second > 0 else None


@dataclass(slots=True)
class Comparison:
    """The result of comparing two generations: unequal documents, and documents that never were at the same
    event."""

    documents: int = 0
    differences: int = 0
    unsettled: int = 0
    fewer: int = 0
    """The number of documents that the new generation lacks, over all collections that both have."""
    named: list[str] = field(default_factory=list)
    """Some of both, by collection and id."""

    @property
    def equal(self) -> bool:
        """Whether both generations are equal."""
        return self.differences == 0 and self.unsettled == 0 and self.fewer == 0

    def name(self, collection: str, id: DocumentId) -> None:
        """Names a document, if not too many are named."""
        if len(self.named) < NAMED_DIFFERENCES_MAX:
            self.named.append(f"{collection}/{id}")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What came of it.

    `comparison` is None where nothing was live, or another process made the generation live; it is of numbers
    alone where other code was live. `hash` is of the new generation's documents.
    """

    generation: Generation
    replaced: Generation | None
    comparison: Comparison | None
    hash: str
    records: int
    seconds: float
    resumed: bool
    missing: int = 0
    """How many published events were not in the topics."""


class Incomplete(Exception):
    """The topics hold fewer events than were published. Nothing was shown, and what was built is kept."""


class Differs(Exception):
    """The new generation is not what is live and was not shown; both are kept. Says in which way."""

    def __init__(self, comparison: Comparison, replaced: Generation, generation: Generation) -> None:
        super().__init__(
            f"generation {generation.number} has {comparison.differences} documents that differ from generation"
            f" {replaced.number}, {comparison.unsettled} that only one of them has or that were never at the same"
            f" event, and lacks {comparison.fewer}"
        )
        self.comparison = comparison
        self.replaced = replaced
        self.generation = generation


class Interrupted(Exception):
    """The rebuild was told to stop before its end. The next one goes on from here."""


async def rebuild(
    generations: Generations,
    *,
    broker: Broker,
    publisher: Publisher,
    clock: Clock,
    progress: Callable[[Progress], None] = lambda _: None,
    stopping: asyncio.Event | None = None,
    batch_records: int = BATCH_RECORDS_MAX,
    accept_differences: bool = False,
    caught_up_records_max: int = CAUGHT_UP_RECORDS_MAX,
    compare_rounds_max: int = COMPARE_ROUNDS_MAX,
) -> Rebuilt:
    """Builds a new generation of a view, or goes on with one that was begun, and makes it live.

    A generation is not shown where it differs from the one that the same code folded before, or has fewer
    documents than the one that other code folded. One of the two is then wrong, and it is not known which.
    Differs is raised, both are kept, and a later call goes on from there. Where the fold has seen fewer
    events than were published, Incomplete is raised. With `accept_differences` the result has the
    differences and the missing events, and the new generation is live. Raises TopicDiffers where the first
    records of a topic are gone, Interrupted, ConnectionError.
    """
    await broker.begin_at_the_first(generations.view.sources)
    stopping = stopping or asyncio.Event()
    live = await generations.live()
    begun = await unfinished(generations, 0 if live is None else live.number)
    generation = begun or await generations.begin(_used(broker))
    await generations.prepare(generation)
    feed = Feed(generations, generation, broker, publisher, clock, batch_records=batch_records)
    await feed.open()
    leaving = asyncio.Event()
    consuming = asyncio.create_task(feed.run(leaving))
    began = clock.monotonic()

    async def report(step: Step) -> Progress:
        left = await feed.left()
        seconds = clock.monotonic() - began
        told = Progress(step, generation, begun is not None, feed.records_applied, left, seconds)
        progress(told)
        return told

    async def complete() -> None:
        """Missing events are looked up in the checkpoints, because other members may have some of the
        partitions."""
        short = lacking(await feed.checkpoints.positions())
        if short and not accept_differences:
            raise Incomplete(short)

    try:
        while (await report("catching up")).left > caught_up_records_max or not feed.complete:
            await look_again(consuming, stopping)
        await complete()
        comparison = None
        shown = live
        # What another rebuild replaced meanwhile is not kept up to date any more: what it lacks says nothing.
        while shown is not None and shown.number < generation.number:
            await report("comparing")
            same_code = shown.code == generation.code
            comparison = await with_consuming(
                consuming,
                compare(generations, shown, generation, stopping, rounds_max=compare_rounds_max)
                if same_code
                else count(generations, shown, generation),
            )
            before, shown = shown, await generations.live()
            if comparison.equal or accept_differences:
                break
            if shown is not None and shown.number == before.number:
                raise Differs(comparison, before, generation)
            comparison = None
        while (await report("switching")).left > caught_up_records_max:
            await look_again(consuming, stopping)
        await complete()
        digest = await made_live(generations, generation, consuming)
    finally:
        leaving.set()
        await asyncio.gather(consuming, return_exceptions=True)
    seconds = clock.monotonic() - began
    applied = feed.records_applied
    missing = sum(at.missing for at in feed.positions.values())
    return Rebuilt(generation, live, comparison, digest, applied, seconds, begun is not None, missing)


async def made_live(
    generations: Generations[Any], generation: Generation, consuming: "asyncio.Task[None]"
) -> str:
    """Switches to a generation while it is consumed; the digest of its documents."""
    digest = await with_consuming(consuming, documents_hash(generations.mongo, generations.view, generation))
    await generations.switch(generation)
    return digest


async def documents_hash(mongo: Mongo, view: Kept, generation: Generation) -> str:
    """A hash over all documents of a generation, whatever their order: equal for equal folds."""
    found = DocumentsHash()
    for collection in view.collections:
        async for page in mongo.pages(generation.prefix + collection.name):
            for document in page:
                found.add(collection.name, document)
            await asyncio.sleep(0)
    return found.hexdigest()


async def count(generations: Generations, one: Generation, other: Generation) -> Comparison:
    """Compares how many documents two generations of different code have."""
    short = await fewer(generations, one, other)
    named = [f"{name}: {number} fewer" for name, number in sorted(short.items())]
    return Comparison(fewer=sum(short.values()), named=named)


async def compare(
    generations: Generations,
    one: Generation,
    other: Generation,
    stopping: asyncio.Event | None = None,
    *,
    rounds_max: int = COMPARE_ROUNDS_MAX,
) -> Comparison:
    """Compares two generations that are being kept up to date. Raises Interrupted."""
    stopping = stopping or asyncio.Event()
    mongo, comparison = generations.mongo, Comparison()
    for collection in generations.view.collections:
        pair = _Pair(mongo, collection.name, one.prefix + collection.name, other.prefix + collection.name)
        unsettled: set[DocumentId] = set()
        async for documents, others in pair.unlike(comparison):
            if stopping.is_set():
                raise Interrupted
            if documents:
                unsettled |= await pair.compare(documents, comparison)
            if others:
                unsettled |= await pair.missing([document[ID] for document in others])
            if len(unsettled) > UNSETTLED_DOCUMENTS_MAX:
                break
        for _ in range(rounds_max):
            if not unsettled or not await generations.still(one):
                break
            await pause(stopping, COMPARE_PAUSE_SECONDS)
            unsettled = await pair.settle(sorted(unsettled, key=str), comparison)
        comparison.unsettled += len(unsettled)
        for id in sorted(unsettled, key=str):
            comparison.name(collection.name, id)
    return comparison


@dataclass(frozen=True, slots=True)
class _Pair:
    """One collection of a view in two generations.

    The ids returned are of documents that one of them is ahead in.
    """

    mongo: Mongo
    name: str
    one: str
    other: str

    async def unlike(self, comparison: Comparison) -> AsyncIterator[tuple[list[Document], list[Document]]]:
        """The documents of each that the other has not with the same bytes; all others are the same.

        One answer for each page, mostly of nothing.

        Both are read in order of their ids, so a document is in about the same page of both, and few wait
        for theirs.
        """
        left: tuple[set[bytes], set[bytes]] = (set(), set())
        async with (
            aclosing(self.mongo.raw_pages(self.one)) as ones,
            aclosing(self.mongo.raw_pages(self.other)) as others,
        ):
            while True:
                pages = [await anext(ones, None), await anext(others, None)]
                comparison.documents += len(pages[0] or ())
                for kept, page in zip(left, pages, strict=True):
                    kept.update(page or ())
                same = left[0] & left[1]
                for kept in left:
                    kept.difference_update(same)
                ended = pages == [None, None]
                if ended or max(map(len, left)) > WAITING_DOCUMENTS_MAX:
                    unlike = [[Frozen(raw).thawed() for raw in kept] for kept in left]
                    left = (set(), set())
                    yield unlike[0], unlike[1]
                else:
                    yield [], []
                if ended:
                    return

    async def compare(self, documents: Sequence[Document], comparison: Comparison) -> set[DocumentId]:
        others = await self._load(self.other, [document[ID] for document in documents])
        ahead: set[DocumentId] = set()
        for document in documents:
            other = others.get(document[ID])
            if other is None or other[SEQUENCE] != document[SEQUENCE]:
                ahead.add(document[ID])
            elif other != document:
                comparison.differences += 1
                comparison.name(self.name, document[ID])
        return ahead

    async def missing(self, ids: Sequence[DocumentId]) -> set[DocumentId]:
        return set(ids) - set(await self._load(self.one, ids, {ID: 1}))

    async def settle(self, ids: Sequence[DocumentId], comparison: Comparison) -> set[DocumentId]:
        ahead: set[DocumentId] = set()
        for at in range(0, len(ids), PAGE_DOCUMENTS):
            some = ids[at : at + PAGE_DOCUMENTS]
            there = await self._load(self.one, some)
            ahead |= set(some) - set(there)
            ahead |= await self.compare(list(there.values()), comparison)
        return ahead

    async def _load(
        self, collection: str, ids: Sequence[DocumentId], fields: dict[str, int] | None = None
    ) -> dict[DocumentId, Document]:
        found = await self.mongo.find(collection, {ID: {"$in": list(ids)}}, fields=fields)
        return {document[ID]: document for document in found}


def _used(broker: Broker) -> Callable[[str], Awaitable[bool]]:
    async def used(group: str) -> bool:
        return bool(await broker.group_offsets(group))

    return used


async def look_again(consuming: "asyncio.Task[None]", stopping: asyncio.Event) -> None:
    """Waits a moment while records are consumed. Raises Interrupted, or the error that ended the consuming."""
    await with_consuming(consuming, pause(stopping, LOOK_SECONDS))


async def with_consuming(consuming: "asyncio.Task[None]", work: Coroutine[Any, Any, T]) -> T:
    """Runs work while records are consumed. Raises the error that ended the consuming."""
    task = asyncio.create_task(work)
    await asyncio.wait([consuming, task], return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        await ended(task)
        await consuming
        raise ConnectionError("the consumer ended by itself")
    return await task


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Waits. Raises Interrupted."""
    if await set_within(stopping, seconds):
        raise Interrupted
