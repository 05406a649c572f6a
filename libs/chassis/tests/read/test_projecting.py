"""Whatever comes twice, late, from two projectors or between failures: the documents are the plain fold of the log."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar
from uuid import UUID

import pytest
from chassis.clock import SystemClock
from chassis.messaging.delivered import Delivered, WriterNewer
from chassis.messaging.transport import Partition
from chassis.observability import telemetry
from chassis.read.checkpoints import GenerationLost, Held, Parked
from chassis.read.documents import Change, DocumentKey, DocumentsUnavailable, Unwritable, Written
from chassis.read.mongo import Mongo, MongoDocuments
from chassis.read.parking import (
    HELD_EVENTS_MAX,
    LOOKED_AT_ONCE_MAX,
    PARKED_SUBJECTS_MAX,
    RELEASED_AT_ONCE_MAX,
    TRIES_MAX,
    GroupHeld,
    Parking,
)
from chassis.read.projecting import CONFLICT_ROUNDS_MAX, SLICE_TURNS, Contended, Projector
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typing_extensions import override

from tests.support.lists import OTHER, START, SUBJECTS, TOPIC, Repairs, Words, folded, lists
from tests.support.memory import MemoryCheckpoints, MemoryDocuments, MemoryPublisher

GROUP = "test.lists.v1"


class QuickClock(SystemClock):
    """Sleeps are counted, not slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    @override
    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


class Trying(MemoryDocuments):
    """Documents that answer late, or not at all: what is drawn decides what happens to each call."""

    def __init__(self, fates: Iterator[int]) -> None:
        super().__init__()
        self.fates = fates

    async def _fate(self) -> int:
        fate = next(self.fates, 0)
        for _ in range(fate % 4):
            await asyncio.sleep(0)
        return fate // 4

    @override
    async def load(self, collection: str, ids: Sequence[Any]) -> dict[Any, dict[str, Any]]:
        if await self._fate() == 1:
            raise DocumentsUnavailable("not read")
        return await super().load(collection, ids)

    @override
    async def write(self, collection: str, changes: Sequence[Change]) -> Written:
        fate = await self._fate()
        written = await super().write(collection, changes if fate != 1 else changes[: len(changes) // 2])
        await self._fate()
        if fate in {1, 2}:
            raise DocumentsUnavailable("written or not")
        return written


class World:
    """Two projectors over the same documents, as after a rebalance that one of them has not heard of."""

    def __init__(
        self,
        documents: Any,
        repairs: Repairs | None = None,
        *,
        chunk: int = 4,
        cached: int = 3,
        checkpoints: Any = None,
    ) -> None:
        self.documents = documents
        self.checkpoints = checkpoints or MemoryCheckpoints()
        self.letters = MemoryPublisher()
        self.clock = QuickClock()
        self.view = lists(repairs)
        self.projectors = [
            Projector(
                self.view,
                documents,
                Parking(GROUP, self.checkpoints, self.letters, self.clock),
                chunk_records=chunk,
                slice_records=2,
                cached_documents=cached,
            )
            for _ in range(2)
        ]

    @property
    def found(self) -> dict[str, Any]:
        return self.documents.collections

    async def deliver(self, who: int, records: Sequence[Any]) -> bool:
        """As the transport does: False where the batch must come again."""
        try:
            await self.projectors[who].apply(records)
        except (DocumentsUnavailable, Contended):
            return False
        return True


WORDS = st.sampled_from(["a", "bb", "ccc", "gone", "silent"])
LOGS = st.lists(st.tuples(st.integers(0, 4), WORDS), min_size=1, max_size=40)
STEPS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 12), st.integers(1, 15), st.booleans()),
    max_size=25,
)
FATES = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 8, 9]), max_size=60)


def written_down(log: Sequence[tuple[int, str]]) -> Words:
    words = Words()
    for subject, word in log:
        words.say(subject, word)
    words.mark()
    return words


async def run(world: World, words: Words, steps: Sequence[tuple[int, int, int, int, bool]]) -> None:
    """Deliveries as the steps say, some at the same time; then everything that was not acknowledged, to the end."""
    committed = [0] * words.partitions
    under_way: list[asyncio.Task[None]] = []

    async def deliver(who: int, partition: int, start: int, length: int) -> None:
        records = words.records[partition][start : start + length]
        if records and await world.deliver(who, records):
            committed[partition] = start + len(records)

    for who, partition, back, length, alone in steps:
        start = max(0, committed[partition] - back)
        under_way.append(asyncio.create_task(deliver(who, partition, start, length)))
        if alone:
            await asyncio.gather(*under_way)
            under_way = []
    await asyncio.gather(*under_way)
    for partition in range(words.partitions):
        while committed[partition] < len(words.records[partition]):
            await deliver(0, partition, committed[partition], 7)


@given(LOGS, STEPS, FATES)
@settings(max_examples=300, deadline=None)
@example([(0, "a"), (0, "bb"), (0, "ccc")], [(0, 0, 0, 2, False), (1, 0, 0, 3, False)], [1, 0, 3, 2])
@example(  # the first projector remembers a document as gone that the second made again
    [(0, "a"), (0, "gone"), (0, "a"), (0, "gone")], [(0, 0, 0, 2, True), (1, 0, 0, 1, True)], []
)
async def test_any_delivery_gives_the_plain_fold(log, steps, fates):
    words = written_down(log)
    world = World(Trying(iter(fates)))
    await run(world, words, steps)
    assert world.found == folded(world.view, words.all())
    assert {place: p.position for place, p in world.checkpoints.saved.items()} == dict.fromkeys(
        [(TOPIC, 0), (TOPIC, 1)], words.position
    )
    assert not world.letters.records


POISONED = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["a", "bb", "poison", "poison-key", "gone"])),
    min_size=1,
    max_size=40,
)


@given(POISONED, STEPS, FATES)
@settings(max_examples=300, deadline=None)
async def test_poison_stops_its_subject_alone_and_after_repair_all_goes_on_in_order(log, steps, fates):
    words = written_down(log)
    repairs = Repairs()
    world = World(Trying(iter(fates)), repairs)
    await run(world, words, steps)
    assert world.found == folded(world.view, words.all(), until_poison=True)
    stopped = {("customer", SUBJECTS[subject]) for subject, word in log if word.startswith("poison")}
    assert set(world.checkpoints.waiting) == stopped
    repairs.done = True
    for stream in stopped:
        world.checkpoints.want(stream, "release")
    for _ in range(len(fates) + 1):
        with suppress(DocumentsUnavailable):
            await world.projectors[1].tick()
    assert not world.checkpoints.waiting
    assert not any(world.checkpoints.kept.values())
    assert world.found == folded(world.view, words.all())


async def test_an_event_is_tried_three_times_with_growing_pauses_and_told_with_its_origin():
    words = written_down([(0, "a"), (0, "poison"), (0, "bb"), (1, "ccc")])
    world = World(MemoryDocuments())
    await world.projectors[0].apply(words.all())
    assert len(world.clock.slept) == TRIES_MAX - 1
    assert world.clock.slept == sorted(set(world.clock.slept))
    [letter] = world.letters.records
    headers = dict(letter.headers)
    assert letter.topic == f"{GROUP}.dead-letters"
    assert (letter.key, letter.value) == (b"", b"")  # the topic of the event keeps it
    assert headers["dl_reason"].startswith(b"Poison at lists.py:")
    assert b"poison" not in headers["dl_reason"], "the word is the event's"
    assert (headers["dl_topic"], headers["dl_partition"], headers["dl_offset"]) == (
        TOPIC.encode(),
        b"0",
        b"1",
    )
    assert (headers["dl_subject"], headers["dl_sequence"]) == (str(SUBJECTS[0]).encode(), b"2")
    assert not [name for name in headers if not name.startswith("dl_")]
    [parked] = world.checkpoints.waiting.values()
    assert (parked.subject, parked.sequence, parked.held) == (SUBJECTS[0], 2, 2)
    assert parked.reason.encode() == headers["dl_reason"]


async def test_a_release_that_fails_again_keeps_the_rest_and_what_was_repaired_stays():
    words = written_down([(0, "a"), (0, "poison"), (0, "bb"), (0, "poison"), (0, "ccc")])
    repairs = Repairs()
    world = World(MemoryDocuments(), repairs)
    [first, second] = world.projectors
    await first.apply(words.all())
    world.checkpoints.want(("customer", SUBJECTS[0]), "skip")
    await second.tick()
    [parked] = world.checkpoints.waiting.values()
    assert (parked.sequence, parked.wanted) == (4, None)
    assert world.found["lists"][str(SUBJECTS[0])]["words"] == ["a", "bb"]
    repairs.done = True
    world.checkpoints.want(("customer", SUBJECTS[0]), "release")
    await second.tick()
    assert world.found["lists"][str(SUBJECTS[0])]["words"] == ["a", "bb", "poison", "ccc"]
    repairs.done = False
    await first.apply(words.all())  # all of it again: the skipped event stays skipped
    assert world.found["lists"][str(SUBJECTS[0])]["words"] == ["a", "bb", "poison", "ccc"]
    assert not world.checkpoints.waiting


async def test_events_that_come_after_a_release_elsewhere_are_not_lost():
    """A projector that has not looked since the release lays an event aside when nobody will fetch it any more."""
    words = written_down([(0, "a"), (0, "poison"), (0, "bb")])
    repairs = Repairs()
    world = World(MemoryDocuments(), repairs)
    [first, second] = world.projectors
    await first.apply(words.all())
    late = words.say(0, "ccc")
    repairs.done = True
    world.checkpoints.want(("customer", SUBJECTS[0]), "release")
    await second.tick()
    assert first.parking.parked
    await first.apply([late])
    assert world.found == folded(world.view, words.all())
    assert not any(world.checkpoints.kept.values())


class Late(MemoryCheckpoints):
    """Others act between the last try of an event and the parking of its subject, as while a process is frozen."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    @override
    async def park(self, parked: Parked, first: Held) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        await super().park(parked, first)


@pytest.mark.parametrize("how", ["processed", "released", "skipped"])
async def test_a_process_that_parks_late_leaves_no_subject_parked_whose_event_was_processed(how):
    words = written_down([(0, "a"), (0, "poison"), (0, "bb")])
    repairs = Repairs()
    world = World(MemoryDocuments(), repairs, checkpoints=Late())
    [first, second] = world.projectors

    async def others() -> None:
        repairs.done = how == "processed"
        await second.apply(words.all())
        repairs.done = how != "skipped"
        if how != "processed":
            world.checkpoints.want(("customer", SUBJECTS[0]), "skip" if how == "skipped" else "release")
        await second.tick()
        assert not world.checkpoints.waiting

    world.checkpoints.meanwhile = others
    await first.apply(words.all())
    assert not world.checkpoints.waiting
    shown = ["a", "bb"] if how == "skipped" else ["a", "poison", "bb"]
    assert world.found["lists"][str(SUBJECTS[0])]["words"] == shown


async def test_a_parked_subject_whose_documents_show_its_event_is_released_by_itself():
    """A process that did not know yet that it is parked went on with it, after the repair."""
    words = written_down([(0, "a"), (0, "poison"), (0, "bb"), (1, "poison")])
    repairs = Repairs()
    world = World(MemoryDocuments(), repairs)
    [first, second] = world.projectors
    refresh = second.parking.refresh

    async def outdated() -> None:
        await refresh()
        await first.apply(words.all())
        repairs.done = True
        second.parking.refresh = refresh  # type: ignore[method-assign]

    second.parking.refresh = outdated  # type: ignore[method-assign]
    await second.apply(words.records[0])
    assert set(world.checkpoints.waiting) == {("customer", SUBJECTS[0]), ("customer", SUBJECTS[1])}
    words.say(0, "ccc")
    await first.apply(words.records[0][-1:])
    assert await second.tick() == [SUBJECTS[0]]
    assert world.found["lists"][str(SUBJECTS[0])]["words"] == ["a", "poison", "bb", "ccc"]
    assert set(world.checkpoints.waiting) == {("customer", SUBJECTS[1])}, "it waits for an operator"
    assert not any(world.checkpoints.kept.get(("customer", SUBJECTS[0]), {}))


async def test_each_parked_subject_is_looked_at_in_its_turn():
    parking = Parking(GROUP, MemoryCheckpoints(), MemoryPublisher(), QuickClock())
    words = Words()
    first = Held(1, words.say(0, "a"))
    subjects = [UUID(int=number) for number in range(LOOKED_AT_ONCE_MAX + 5)]
    for subject in subjects:
        await parking.checkpoints.park(Parked(subject, "customer", "", 1, 1, "", START), first)
    await parking.refresh()
    looked: list[int] = []

    async def look(_: Delivered) -> bool:
        looked[-1] += 1
        return False

    async def never(_: Delivered) -> None:
        raise AssertionError

    for _ in range(3):
        looked.append(0)
        assert await parking.release_processed(look, never) == []
    assert looked == [LOOKED_AT_ONCE_MAX] * 3
    assert parking._next_look == 3 * LOOKED_AT_ONCE_MAX % len(subjects)


async def test_what_is_no_event_goes_to_the_dead_letters_and_nobody_waits():
    words = Words()
    words.say(0, "a")
    words.add(0, [("ce_type", b"?")], b"rubbish")
    words.say(0, "bb")
    world = World(MemoryDocuments())
    await world.projectors[0].apply(words.all())
    [letter] = world.letters.records
    assert (letter.key, letter.value, dict(letter.headers)["dl_offset"]) == (b"", b"", b"1")
    assert world.found["lists"][str(SUBJECTS[0])]["words"] == ["a", "bb"]
    assert world.checkpoints.saved[TOPIC, 0][:3] == (3, "customer", 2)


async def test_types_that_a_view_does_not_take_are_not_even_read():
    words = Words()
    words.say(0, "", type=OTHER, body=b"{")
    words.say(0, "a")
    world = World(MemoryDocuments())
    await world.projectors[0].apply(words.all())
    assert world.found["lists"][str(SUBJECTS[0])]["_seq"] == 2
    words.say(0, "", body=b"{")
    await world.projectors[0].apply(words.all())
    assert "BodyInvalid" in world.checkpoints.waiting["customer", SUBJECTS[0]].reason


async def test_positions_come_last_and_a_lost_generation_is_never_written_off():
    words = written_down([(0, "a")])
    world = World(MemoryDocuments())
    world.checkpoints.lost = True
    with pytest.raises(GenerationLost):
        await world.projectors[0].apply(words.all())
    world = World(Trying(iter([8])))
    with pytest.raises(DocumentsUnavailable):
        await world.projectors[0].apply(words.all())
    assert world.checkpoints.saved == {}


@pytest.mark.parametrize("fate", [4, 8])
async def test_what_a_batch_without_a_checkpoint_wrote_is_recorded_before(fate):
    """A write that is lost in part, or whose answer is lost: the documents may be ahead of the checkpoint."""
    words = written_down([(0, "a"), (1, "b"), (2, "c")])
    world = World(Trying(iter([fate])), chunk=10)
    with pytest.raises(DocumentsUnavailable):
        await world.projectors[0].apply(words.all())
    assert world.checkpoints.saved == {}
    assert await world.checkpoints.shown() == {(TOPIC, 0): 3, (TOPIC, 1): 3}


async def test_a_chunk_is_folded_and_recorded_while_the_one_before_is_written():
    order: list[str] = []

    class Slow(MemoryDocuments):
        @override
        async def load(self, collection: str, ids: Sequence[Any]) -> dict[Any, dict[str, Any]]:
            order.append("folding")
            return await super().load(collection, ids)

        @override
        async def write(self, collection: str, changes: Sequence[Change]) -> Written:
            order.append("writing")
            for _ in range(20):
                await asyncio.sleep(0)
            order.append("written")
            return await super().write(collection, changes)

    class Recording(MemoryCheckpoints):
        @override
        async def reaching(self, positions: Mapping[Partition, int]) -> None:
            await asyncio.sleep(0)
            order.append("recorded")
            await super().reaching(positions)

    world = World(Slow(), chunk=2, checkpoints=Recording())
    log = [(0, "a"), (2, "bb"), (4, "a"), (1, "bb")]
    words = written_down(log)
    before = words.all()
    await world.projectors[0].apply(before)
    order.clear()
    for subject, word in log:
        words.say(subject, word)
    words.mark()
    await world.projectors[1].apply([record for record in words.all() if record not in before])
    first = ["folding", "recorded", "writing", "folding", "recorded", "written"]
    assert order[: len(first)] == first


async def test_a_document_that_is_folded_and_not_written_yet_stays_in_the_cache():
    """What is loaded in its place is older, and an event that changes nothing there has no guard."""

    class Slow(MemoryDocuments):
        @override
        async def write(self, collection: str, changes: Sequence[Change]) -> Written:
            for _ in range(20):
                await asyncio.sleep(0)
            return await super().write(collection, changes)

    words = written_down([(0, "a"), (2, "a"), (4, "a"), (0, "a"), (4, "gone"), (2, "a")])
    world = World(Slow(), chunk=2, cached=1)
    await world.projectors[0].apply(words.all())
    assert world.found == folded(world.view, words.all())


async def test_a_first_event_looks_for_no_document_until_it_comes_again():
    class Counting(MemoryDocuments):
        loads = 0

        @override
        async def load(self, collection: str, ids: Sequence[Any]) -> dict[Any, dict[str, Any]]:
            self.loads += 1
            return await super().load(collection, ids)

    words = written_down([(0, "a"), (2, "bb"), (0, "c"), (1, "d")])
    world = World(Counting(), chunk=10)
    await world.projectors[0].apply(words.all())
    assert world.documents.loads == 0
    await world.projectors[1].apply(words.all())
    assert world.documents.loads > 0
    assert world.found == folded(world.view, words.all())
    assert await world.checkpoints.shown() == {(TOPIC, 0): 4, (TOPIC, 1): 4}


async def test_a_batch_without_events_for_documents_records_nothing():
    words = Words()
    words.say(0, "", type=OTHER, body=b"{}")
    words.mark()
    world = World(MemoryDocuments())
    await world.projectors[0].apply(words.all())
    assert world.checkpoints.reached == {}
    assert world.checkpoints.saved[TOPIC, 0].position == 1


async def test_what_was_folded_and_not_written_is_forgotten():
    words = written_down([(0, "a"), (0, "bb")])
    world = World(Trying(iter([4])), chunk=10)
    with pytest.raises(DocumentsUnavailable):
        await world.projectors[0].apply(words.all())
    await world.projectors[0].apply(words.all())
    assert world.found == folded(world.view, words.all())


async def test_who_always_loses_gives_the_batch_back():
    class Lost(MemoryDocuments):
        rounds = 0

        @override
        async def write(self, collection: str, changes: Sequence[Change]) -> Written:
            self.rounds += collection == "lists"
            return Written([change.id for change in changes]) if collection == "lists" else Written()

    words = written_down([(0, "a")])
    world = World(Lost())
    with pytest.raises(Contended):
        await world.projectors[0].apply(words.all())
    assert world.documents.rounds == CONFLICT_ROUNDS_MAX + 1


async def test_who_wins_in_the_last_round_has_written():
    class Lost(MemoryDocuments):
        rounds = 0

        @override
        async def write(self, collection: str, changes: Sequence[Change]) -> Written:
            self.rounds += collection == "lists"
            if collection == "lists" and self.rounds <= CONFLICT_ROUNDS_MAX:
                return Written([change.id for change in changes])
            return await super().write(collection, changes)

    words = written_down([(0, "a")])
    world = World(Lost())
    await world.projectors[0].apply(words.all())
    assert world.found == folded(world.view, words.all())


async def test_too_much_poison_holds_the_view_and_not_thousands_of_subjects():
    world = World(MemoryDocuments())
    words = written_down([(0, "poison"), (0, "a")])
    await world.projectors[0].apply(words.all())
    [parked] = world.checkpoints.waiting.values()
    world.checkpoints.waiting = {
        ("customer", SUBJECTS[0]): parked.__class__(*[*_values(parked)[:7], HELD_EVENTS_MAX, 1, None])
    }
    words.say(0, "b")
    with pytest.raises(GroupHeld):
        await world.projectors[0].apply(words.all())
    others = {SUBJECTS[0].__class__(int=number): parked for number in range(PARKED_SUBJECTS_MAX)}
    world.checkpoints.waiting = others
    await world.projectors[0].parking.refresh()
    with pytest.raises(GroupHeld):
        await world.projectors[0].apply([words.say(1, "poison")])


async def test_an_event_of_a_newer_process_waits_for_one_and_parks_nobody():
    words = written_down([(0, "a")])
    world = World(MemoryDocuments())
    [first, _] = world.projectors
    await first.apply(words.all())
    before = dict(world.checkpoints.saved)
    with pytest.raises(WriterNewer, match=r"customer\.renamed version 99"):
        await first.apply([words.say(0, "b", version=99)])
    assert not world.checkpoints.waiting
    assert not world.letters.records
    assert world.checkpoints.saved == before


def _values(parked: Any) -> list[Any]:
    return [getattr(parked, name) for name in parked.__slots__]


async def test_an_entry_that_two_events_claim_is_refused():
    view = lists()
    keys = view.keys

    def clashing(event: Any) -> list[DocumentKey]:
        return [*keys(event)[:1], DocumentKey("entries", str(event.subject))]

    for batches in ([[0, 1, 2, 3]], [[0], [1], [2], [3]]):
        world = World(MemoryDocuments())
        for projector in world.projectors:
            object.__setattr__(projector.view, "keys", clashing)
        words = written_down([(0, "a"), (0, "bb")])
        for batch in batches:
            await world.projectors[0].apply([words.all()[n] for n in batch])
        assert world.checkpoints.waiting["customer", SUBJECTS[0]].sequence == 2
        assert world.found["entries"][str(SUBJECTS[0])]["word"] == "a"


async def test_what_is_written_belongs_to_the_trace_that_it_was_recorded_under():
    exporter = InMemorySpanExporter()
    telemetry.configure_tracing("test", exporter=exporter)
    try:
        words = Words(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        for subject, word in [(0, "a"), (1, "b"), (0, "poison")]:
            words.say(subject, word)
        words.traceparent = "broken"
        words.say(2, "c")
        await World(MemoryDocuments(), chunk=10).projectors[0].apply(words.all())
    finally:
        telemetry.configure_tracing("test")
    traces = [f"{span.context.trace_id:032x}" for span in exporter.get_finished_spans()]
    assert len(traces) == 2
    assert "0af7651916cd43dd8448eb211c80319c" in traces


# on the real database


@given(LOGS, STEPS)
@settings(max_examples=15, deadline=None)
async def test_on_mongodb_any_delivery_gives_the_plain_fold(mongo_url, log, steps):
    mongo = Mongo.connect(mongo_url, database="property")
    await mongo.drop_database()
    world = World(MongoDocuments(mongo, "lists_v1_"))
    words = written_down(log)
    await run(world, words, steps)
    found = {}
    for name in ("lists", "entries"):
        documents = await mongo.find(f"lists_v1_{name}")
        if documents:
            found[name] = {document["_id"]: document for document in documents}
    assert found == folded(world.view, words.all())
    await mongo.close()


async def test_a_document_that_no_database_takes_parks_its_subject(mongo):
    documents = MongoDocuments(mongo, "lists_v1_")
    world = World(documents, Repairs())
    words = written_down([(0, "a"), (0, "huge"), (0, "bb"), (1, "ccc")])
    await world.projectors[0].apply(words.all())
    assert {document["_id"]: document["words"] for document in await mongo.find("lists_v1_lists")} == {
        str(SUBJECTS[0]): ["a"],
        str(SUBJECTS[1]): ["ccc"],
    }
    [parked] = world.checkpoints.waiting.values()
    assert (parked.sequence, parked.held) == (2, 2)
    assert Unwritable.__name__ in parked.reason


@pytest.mark.parametrize("chunk", [1, 2, 10])
async def test_a_document_that_breaks_an_index_parks_its_subject(mongo, chunk):
    await mongo.index("lists_v1_entries", [("word", 1)], unique=True)
    world = World(MongoDocuments(mongo, "lists_v1_"), chunk=chunk)
    words = written_down([(0, "same"), (2, "b"), (2, "same"), (2, "c"), (2, "d"), (4, "e")])
    await world.projectors[0].apply(words.all())
    [parked] = world.checkpoints.waiting.values()
    assert (parked.subject, parked.sequence, parked.held) == (SUBJECTS[2], 2, 3)
    # Entries of later events may have been inserted by then: nobody counts them before the list does.
    lists_of = {document["_id"]: document["words"] for document in await mongo.find("lists_v1_lists")}
    assert lists_of[str(SUBJECTS[2])] == ["b"]


async def test_entries_are_there_before_the_documents_that_count_them():
    class Watched(MemoryDocuments):
        order: ClassVar[list[str]] = []

        @override
        async def write(self, collection: str, changes: Sequence[Change]) -> Written:
            self.order.append(collection)
            return await super().write(collection, changes)

    world = World(Watched(), chunk=10)
    await world.projectors[0].apply(written_down([(0, "a"), (1, "poison")]).all())
    assert Watched.order == ["entries", "lists"]


async def test_a_chunk_is_written_to_its_end_while_the_next_one_is_folded():
    class Seen(MemoryDocuments):
        """Each write is a command and its answer, for which the loop has to come round."""

        order: ClassVar[list[str]] = []

        @override
        def freeze(self, document: Any) -> Any:
            self.order.append(f"frozen {document['_seq']}")
            return super().freeze(document)

        @override
        async def write(self, collection: str, changes: Sequence[Change]) -> Written:
            for _ in range(SLICE_TURNS):
                await asyncio.sleep(0)
            self.order.append(f"written {max(change.sequence for change in changes)}")
            return await super().write(collection, changes)

    world = World(Seen(), chunk=20)
    await world.projectors[0].apply(written_down([(0, "a")] * 40).all())
    written = [at for at, done in enumerate(Seen.order) if done.startswith("written")]
    entries_of_the_first, list_of_the_first, *_ = written
    assert len(written) == 4
    assert entries_of_the_first < list_of_the_first < Seen.order.index("frozen 40")


async def test_a_subject_that_is_parked_again_while_what_waits_is_set_aside_loses_nothing():
    """The chunks after one with a waiting event are read when it is known whether the subject is still parked."""
    words = written_down([(0, "a"), (0, "poison")])
    repairs = Repairs()
    world = World(MemoryDocuments(), repairs, chunk=1)
    [first, second] = world.projectors
    await first.apply(words.all())
    before = words.all()
    repairs.done = True
    world.checkpoints.want(("customer", SUBJECTS[0]), "release")
    await second.tick()
    repairs.done = False
    for word in ("bb", "poison", "ccc"):
        words.say(0, word)
    await first.apply([record for record in words.all() if record not in before])
    [parked] = world.checkpoints.waiting.values()
    assert parked.sequence == 4
    assert world.found["lists"][str(SUBJECTS[0])]["words"] == ["a", "poison", "bb"]
    repairs.done = True
    world.checkpoints.want(("customer", SUBJECTS[0]), "release")
    await second.tick()
    assert world.found == folded(world.view, words.all())


async def test_more_than_one_page_of_waiting_events_is_released():
    words = written_down([(0, "poison"), *[(0, "a")] * (RELEASED_AT_ONCE_MAX + 3)])
    repairs = Repairs()
    world = World(MemoryDocuments(), repairs)
    await world.projectors[0].apply(words.all())
    repairs.done = True
    world.checkpoints.want(("customer", SUBJECTS[0]), "release")
    await world.projectors[0].tick()
    assert world.found["lists"][str(SUBJECTS[0])]["length"] == len("poison") + RELEASED_AT_ONCE_MAX + 3
