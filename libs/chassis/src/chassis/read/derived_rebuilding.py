"""Rebuilding a derived view beside the live one, and looking whether its documents are what the inputs give.

Both walk two sets of documents in the order of their ids. What differs is looked at again, because the inputs and the
deriver go on meanwhile; what differs to the end is named.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Final

from chassis.clock import Clock
from chassis.messaging.broker import Broker
from chassis.read.blind import BlindIndex
from chassis.read.derived_following import DerivedFeed, live_inputs
from chassis.read.deriving import DerivedView, MongoInputs
from chassis.read.documents import GONE, ID, SEQUENCE, Document, DocumentId
from chassis.read.generations import Generation, Generations
from chassis.read.mongo import MongoDocuments
from chassis.read.rebuilding import (
    COMPARE_PAUSE_SECONDS,
    COMPARE_ROUNDS_MAX,
    UNSETTLED_DOCUMENTS_MAX,
    Comparison,
    Differs,
    Interrupted,
    Progress,
    Rebuilt,
    Step,
    look_again,
    made_live,
    pause,
    with_consuming,
)
from chassis.read.summing import Summing, bucket_id
from chassis.read.viewing import CAUGHT_UP_RECORDS_MAX, unfinished

COMPARED_AT_ONCE: Final = 1_000

Contents = Mapping[DocumentId, Document]
Load = Callable[[Sequence[DocumentId]], Awaitable[Contents]]


async def rebuild_derived(
    generations: Generations[DerivedView],
    *,
    broker: Broker,
    clock: Clock,
    today: Callable[[], date],
    blind: BlindIndex | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    stopping: asyncio.Event | None = None,
    accept_differences: bool = False,
    caught_up_records_max: int = CAUGHT_UP_RECORDS_MAX,
    compare_rounds_max: int = COMPARE_ROUNDS_MAX,
) -> Rebuilt:
    """Derives all documents anew beside the live ones, compares, and makes the new generation live.

    A call that was interrupted is gone on with. Raises Differs, Interrupted, ConnectionError, InputReplaced where an
    input is switched meanwhile; the role then builds a new generation by itself.
    """
    stopping = stopping or asyncio.Event()
    inputs = await live_inputs(generations)
    live = await generations.live()
    begun = await unfinished(generations, 0 if live is None else live.number)
    if begun is not None and begun.inputs != inputs:
        begun = None

    async def used(group: str) -> bool:
        return bool(await broker.group_offsets(group))

    generation = begun or await generations.begin(used, inputs)
    feed = await DerivedFeed.of(generations, generation, broker, clock, today, blind)
    await feed.open()
    leaving = asyncio.Event()
    consuming = asyncio.create_task(feed.run(leaving))
    began = clock.monotonic()

    async def report(step: Step) -> Progress:
        seconds = clock.monotonic() - began
        told = Progress(
            step, generation, begun is not None, feed.deriver.documents_derived, await feed.left(), seconds
        )
        progress(told)
        return told

    try:
        while (await report("catching up")).left > caught_up_records_max or not feed.complete:
            await look_again(consuming, stopping)
        comparison = None
        if live is not None and live.is_of(generations.view) and live.inputs == inputs:
            await report("comparing")
            comparison = await with_consuming(
                consuming, compare_derived(generations, live, generation, stopping, compare_rounds_max)
            )
            if not comparison.equal and not accept_differences:
                raise Differs(comparison, live, generation)
        await report("switching")
        digest = await made_live(generations, generation, consuming)
    finally:
        leaving.set()
        await asyncio.gather(consuming, return_exceptions=True)
    seconds = clock.monotonic() - began
    derived = feed.deriver.documents_derived
    return Rebuilt(generation, live, comparison, digest, derived, seconds, begun is not None)


async def compare_derived(
    generations: Generations[DerivedView],
    one: Generation,
    other: Generation,
    stopping: asyncio.Event | None = None,
    rounds_max: int = COMPARE_ROUNDS_MAX,
) -> Comparison:
    """Compares two generations that are kept from the same inputs. Raises Interrupted."""
    name, comparison = generations.view.collection.name, Comparison()
    ones, others = generations.documents(one), generations.documents(other)

    async def load(of: MongoDocuments, ids: Sequence[DocumentId]) -> Contents:
        return await of.load(name, ids)

    async def next_ids(after: DocumentId | None) -> list[DocumentId]:
        return await _ids(others, name, after)

    differing = await differences(
        lambda ids: load(ones, ids),
        lambda ids: load(others, ids),
        _pages(next_ids, ones, name),
        comparison,
        stopping or asyncio.Event(),
        rounds_max,
    )
    comparison.differences = len(differing)
    for id in differing:
        comparison.name(name, id)
    return comparison


async def compare_with_inputs(
    generations: Generations[DerivedView],
    generation: Generation,
    inputs: MongoInputs,
    rounds_max: int = COMPARE_ROUNDS_MAX,
) -> Comparison:
    """Compares the documents of a generation with what the inputs give; without keys, all but digests."""
    view, comparison = generations.view, Comparison()
    stored = generations.documents(generation)
    aside = view.digests if inputs.blind is None else None

    async def derived(ids: Sequence[DocumentId]) -> Contents:
        return {id: view.placed(id, one) for id, one in (await view.derive(inputs, ids)).items()}

    async def next_ids(after: DocumentId | None) -> Sequence[DocumentId]:
        return await view.everything(inputs, after, COMPARED_AT_ONCE)

    differing = await differences(
        lambda ids: stored.load(view.collection.name, ids),
        derived,
        _pages(next_ids, stored, view.collection.name),
        comparison,
        asyncio.Event(),
        rounds_max,
        aside,
    )
    await inputs.check()
    comparison.differences = len(differing)
    for id in differing:
        comparison.name(view.collection.name, id)
    return comparison


async def compare_sums(
    generations: Generations[DerivedView], generation: Generation, rounds_max: int = COMPARE_ROUNDS_MAX
) -> Comparison:
    """Compares the buckets of a generation with the documents that they sum, until they agree.

    A bucket that was marked or summed meanwhile, or that waits to be summed, is unsettled where it does not agree: it is
    written anew, and readers are told that the sums are not settled. A document that is no bucket differs too: readers add it
    up. So does a mark that says that more was summed than changed: nobody would sum what changes next.
    """
    view, comparison = generations.view, Comparison()
    if view.sums is None:
        return comparison
    summing = Summing(view.sums, generations.documents(generation), view.collection.name, view.changes_on)
    left, first = list(range(view.sums.buckets)), await summing.marks()
    comparison.documents = len(left)
    for _ in range(rounds_max + 1):
        left = [bucket for bucket in left if await summing.shown(bucket) != await summing.computed(bucket)]
        if not left:
            break
        await asyncio.sleep(COMPARE_PAUSE_SECONDS)
    marks = await summing.marks()
    waiting = set(marks.waiting())
    unsettled = {bucket for bucket in left if bucket in waiting or marks.of(bucket) != first.of(bucket)}
    comparison.unsettled = len(unsettled)
    differing: list[DocumentId] = [bucket_id(bucket) for bucket in left if bucket not in unsettled]
    differing += await summing.strange()
    ahead = [bucket for bucket, count in marks.summed.items() if count > marks.changed.get(bucket, 0)]
    comparison.differences = len(differing) + len(ahead)
    for id in differing:
        comparison.name(view.sums.name, id)
    for bucket in ahead:
        comparison.name(view.sums.marks, bucket_id(bucket))
    return comparison


async def differences(
    one: Load,
    other: Load,
    pages: AsyncIterator[Sequence[DocumentId]],
    comparison: Comparison,
    stopping: asyncio.Event,
    rounds_max: int,
    aside: str | None = None,
) -> list[DocumentId]:
    """The ids whose documents differ in the end, in another field than the one that is left aside. Raises
    Interrupted."""
    left: list[DocumentId] = []
    async for ids in pages:
        if stopping.is_set():
            raise Interrupted
        comparison.documents += len(ids)
        left += await _unequal(one, other, ids, aside)
        if len(left) > UNSETTLED_DOCUMENTS_MAX:
            return left
    for _ in range(rounds_max):
        if not left:
            break
        await pause(stopping, COMPARE_PAUSE_SECONDS)
        again, left = left, []
        for at in range(0, len(again), COMPARED_AT_ONCE):
            left += await _unequal(one, other, again[at : at + COMPARED_AT_ONCE], aside)
    return left


async def _unequal(one: Load, other: Load, ids: Sequence[DocumentId], aside: str | None) -> list[DocumentId]:
    ones, others = await one(ids), await other(ids)
    return [id for id in ids if _content(ones.get(id), aside) != _content(others.get(id), aside)]


def _content(document: Document | None, aside: str | None) -> dict[str, Any] | None:
    """What a reader is shown of a document; None where there is none."""
    if document is None or GONE in document:
        return None
    return {field: value for field, value in document.items() if field not in {ID, SEQUENCE, aside}}


async def _pages(
    next_ids: Callable[[DocumentId | None], Awaitable[Sequence[DocumentId]]],
    there: MongoDocuments,
    name: str,
) -> AsyncIterator[Sequence[DocumentId]]:
    """The ids that there should be, page by page, and with each page those that are there up to its last one."""
    after: DocumentId | None = None
    while ids := await next_ids(after):
        yield _joined(ids, await _ids(there, name, after, ids[-1]))
        after = ids[-1]
    while ids := await _ids(there, name, after):
        yield ids
        after = ids[-1]


def _joined(ids: Iterable[DocumentId], others: Iterable[DocumentId]) -> list[DocumentId]:
    return list(dict.fromkeys([*ids, *others]))


async def _ids(
    documents: MongoDocuments, name: str, after: DocumentId | None, last: DocumentId | None = None
) -> list[DocumentId]:
    """Ids in order: the next ones, or all up to `last`."""
    bounds = {} if after is None else {"$gt": after}
    if last is not None:
        bounds["$lte"] = last
    found = await documents.mongo.find(
        documents.prefix + name,
        {ID: bounds} if bounds else {},
        fields={ID: 1},
        order=[(ID, 1)],
        limit=COMPARED_AT_ONCE if last is None else 0,
    )
    return [one[ID] for one in found]
