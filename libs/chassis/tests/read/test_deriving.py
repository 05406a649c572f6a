"""Derived documents on a real database: what is read late does not replace what is newer, and what is owed comes."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from chassis.clock import SystemClock
from chassis.messaging.delivered import Delivered
from chassis.messaging.records import Record
from chassis.read.deriving import (
    OWED,
    DerivedView,
    Deriver,
    InputGeneration,
    InputReplaced,
    Inputs,
    InputsBehind,
    MongoInputs,
    Touched,
)
from chassis.read.documents import GONE, ID, Document, DocumentId, DocumentKey
from chassis.read.mongo import Mongo, MongoDocuments
from chassis.read.mongo_checkpoints import MongoCheckpoints, want
from chassis.read.parking import Parking
from chassis.read.projecting import Collection, Projector, View
from contracts.topics import EVENTS

from tests.simulation.test_two_contexts import record_of
from tests.support.memory import MemoryPublisher
from tests.support.waiting import comes

TOPIC = EVENTS["ingest"].name
SUBJECT, OTHER = UUID(int=1), UUID(int=2)
LIGHTS, SIGNS = "lights", "signs"


class World:
    """A view of lights that each event switches on or off, and a derived view of what stands on their signs."""

    def __init__(self, mongo: Mongo) -> None:
        self.mongo = mongo
        self.poison: set[tuple[UUID, int]] = set()
        self.failing: UUID | None = None
        """Of which the inputs cannot be read."""
        self.reading: asyncio.Event | None = None
        """Set by a deriver that has read the inputs; it then waits for `going_on`."""
        self.going_on = asyncio.Event()
        self.number = 0
        self.input = View(
            LIGHTS,
            1,
            (TOPIC,),
            frozenset({"posting.booked"}),
            (Collection(LIGHTS),),
            lambda event: [DocumentKey(LIGHTS, event.subject)],
            self.switched,
        )
        self.checkpoints = MongoCheckpoints(mongo, "test.lights.v1", LIGHTS)
        parking = Parking("test.lights.v1", self.checkpoints, MemoryPublisher(), SystemClock())
        self.projector = Projector(self.input, MongoDocuments(mongo, "lights_v1_"), parking)

    def switched(self, _: DocumentKey, __: Document | None, event: Delivered) -> Document | None:
        if (event.subject, event.sequence) in self.poison:
            raise ValueError("poison")
        return {"on": event.sequence % 2 == 1} if event.sequence < 9 else None

    async def derive(self, inputs: Inputs, ids: Sequence[DocumentId]) -> Mapping[DocumentId, Document]:
        found = await inputs.by_id(LIGHTS, LIGHTS, ids)
        if self.reading is not None:
            self.reading.set()
            self.reading = None
            await self.going_on.wait()
        if self.failing in ids:
            raise InputsBehind("in vain")
        return {id: {"sign": "on" if light["on"] else "off"} for id, light in found.items()}

    def deriver(self, wait_seconds_max: float = 5.0, **named: Any) -> Deriver:
        async def depending(_: Inputs, touched: Touched) -> Iterable[DocumentId]:
            return touched.get((LIGHTS, LIGHTS), ())

        async def everything(inputs: Inputs, after: DocumentId | None, limit: int) -> Sequence[DocumentId]:
            return await inputs.ids(LIGHTS, LIGHTS, after, limit)

        view = DerivedView(SIGNS, 1, (self.input,), Collection(SIGNS), depending, self.derive, everything)
        pinned = [InputGeneration(self.input, "lights_v1_", "test.lights.v1", self.number)]
        inputs = MongoInputs(self.mongo, pinned, lambda: date(2026, 1, 5))
        checkpoints = MongoCheckpoints(self.mongo, "test.signs.v1", SIGNS)
        documents = MongoDocuments(self.mongo, "signs_v1_")
        return Deriver(
            view, documents, checkpoints, inputs, SystemClock(), wait_seconds_max=wait_seconds_max, **named
        )

    async def signs(self) -> dict[DocumentId, str]:
        found = await self.mongo.find("signs_v1_signs")
        return {one[ID]: one["sign"] for one in found if GONE not in one}


def event(sequence: int, subject: UUID = SUBJECT, offset: int | None = None) -> Record:
    record = record_of("ingest", subject, sequence, sequence)
    return record._replace(partition=0, offset=sequence - 1 if offset is None else offset)


@pytest.fixture
async def world(mongo: Mongo) -> World:
    made = World(mongo)
    places = {(TOPIC, 0): "ingest"}
    await made.checkpoints.begin(places)
    await MongoCheckpoints(mongo, "test.signs.v1", SIGNS).begin(places)
    return made


async def test_who_read_the_inputs_late_derives_again_and_not_what_was(world: World) -> None:
    # The light goes on, off and on again: the newest document equals the oldest, and is written all the same.
    await world.projector.apply([event(1)])
    await world.deriver().apply([event(1)])
    await world.projector.apply([event(2)])
    world.reading = asyncio.Event()
    reading = world.reading
    late = asyncio.create_task(world.deriver().apply([event(2)]))
    await reading.wait()
    await world.projector.apply([event(3)])
    await world.deriver().apply([event(3)])
    world.going_on.set()
    await late
    assert await world.signs() == {SUBJECT: "on"}


async def test_a_batch_that_the_inputs_do_not_show_waits_and_is_not_acknowledged(world: World) -> None:
    deriver = world.deriver(wait_seconds_max=0.1)
    with pytest.raises(InputsBehind, match="signs waits for lights"):
        await deriver.apply([event(1)])
    assert deriver.positions == {}
    waiting = asyncio.create_task(world.deriver().apply([event(1)]))
    await asyncio.sleep(0.1)
    assert await world.signs() == {}
    await world.projector.apply([event(1)])
    await waiting
    assert await world.signs() == {SUBJECT: "on"}


async def test_what_the_inputs_show_of_a_batch_is_derived_while_the_rest_waits(world: World) -> None:
    both = [event(1), event(1, OTHER, offset=1)]
    deriver = world.deriver(wait_seconds_max=0.1, whole_seconds_max=0.05)
    await world.projector.apply(both[:1])
    with pytest.raises(InputsBehind):
        await deriver.apply(both)
    assert (await world.signs(), deriver.positions[TOPIC, 0].offset) == ({SUBJECT: "on"}, 1)
    await world.projector.apply(both[1:])
    await deriver.apply(both)
    assert (await world.signs(), deriver.positions[TOPIC, 0].offset) == ({SUBJECT: "on", OTHER: "on"}, 2)
    assert deriver.documents_derived == 2


async def test_a_batch_that_the_inputs_show_soon_is_derived_once(world: World) -> None:
    deriver = world.deriver()
    await world.projector.apply([event(1)])
    deriving = asyncio.create_task(deriver.apply([event(1), event(2)]))
    await asyncio.sleep(0.1)
    assert await world.signs() == {}
    await world.projector.apply([event(2)])
    await deriving
    assert (await world.signs(), deriver.documents_derived) == ({SUBJECT: "off"}, 1)


async def test_what_an_input_parked_is_derived_when_it_is_released(world: World) -> None:
    world.poison.add((SUBJECT, 2))
    deriver = world.deriver()
    both = [event(1), event(2), event(1, OTHER, offset=2)]
    deriving = asyncio.create_task(deriver.apply(both))
    await world.projector.apply(both)
    await deriving
    assert await world.signs() == {SUBJECT: "on", OTHER: "on"}
    assert await deriver.tick() == 0
    world.poison.clear()
    assert await want(world.mongo, "test.lights.v1", ("ingest", SUBJECT), "release")
    await world.projector.tick()
    assert await world.signs() == {SUBJECT: "on", OTHER: "on"}
    assert await deriver.tick() == 1
    assert await world.signs() == {SUBJECT: "off", OTHER: "on"}
    assert await world.mongo.count(OWED) == 0


async def test_what_was_parked_before_a_generation_began_is_derived_when_it_is_released(world: World) -> None:
    world.poison.add((SUBJECT, 2))
    await world.projector.apply([event(1), event(2), event(3)])
    deriver = world.deriver()
    await deriver.owe_parked()
    await deriver.derive([SUBJECT])
    assert await deriver.tick() == 0
    world.poison.clear()
    assert await want(world.mongo, "test.lights.v1", ("ingest", SUBJECT), "release")
    await world.projector.tick()
    assert (await deriver.tick(), await world.signs()) == (1, {SUBJECT: "on"})
    found = await world.mongo.find_one("signs_v1_signs", {ID: SUBJECT})
    assert found is not None
    assert found["_seq"] == 2


async def test_nothing_is_written_of_inputs_that_were_replaced(world: World) -> None:
    await world.projector.apply([event(1)])
    await world.deriver().apply([event(1)])
    await world.projector.apply([event(2)])
    await world.mongo.insert_new("views", {ID: LIGHTS, "live": 2})
    with pytest.raises(InputReplaced):
        await world.deriver().apply([event(2)])
    assert await world.signs() == {SUBJECT: "on"}


async def test_a_document_whose_inputs_are_gone_is_gone(world: World) -> None:
    for records in ([event(1)], [event(9, offset=1)]):
        await world.projector.apply(records)
        await world.deriver().apply(records)
    assert await world.signs() == {}


async def test_records_of_other_types_and_unreadable_ones_move_the_position_alone(world: World) -> None:
    unreadable = event(1)._replace(headers=[("ce_specversion", b"1.0")])
    await world.projector.apply([unreadable, event(2)])
    deriver = world.deriver()
    await deriver.apply([unreadable, event(2)])
    assert deriver.positions[TOPIC, 0].offset == 2
    assert await world.signs() == {SUBJECT: "off"}


async def test_a_part_of_a_batch_is_written_while_the_next_is_read(world: World) -> None:
    both = [event(1), event(1, OTHER, offset=1)]
    await world.projector.apply(both)
    world.reading = asyncio.Event()
    reading = world.reading
    deriver = world.deriver(at_once=1)
    deriving = asyncio.create_task(deriver.apply(both))
    await reading.wait()

    async def other_written() -> bool:
        return await world.signs() == {OTHER: "on"}

    assert await comes(other_written)
    world.going_on.set()
    await deriving
    assert await world.signs() == {SUBJECT: "on", OTHER: "on"}


async def test_a_part_that_fails_ends_the_others_and_the_batch_is_not_acknowledged(world: World) -> None:
    both = [event(1), event(1, OTHER, offset=1)]
    await world.projector.apply(both)
    world.failing, world.reading = OTHER, asyncio.Event()
    deriver = world.deriver(at_once=1)
    with pytest.raises(InputsBehind, match="in vain"):
        await deriver.apply(both)
    assert (await world.signs(), deriver.positions) == ({}, {})
    assert (await deriver._checkpoints.positions())[TOPIC, 0].offset == 0
    world.failing = None
    await deriver.apply(both)
    assert await world.signs() == {SUBJECT: "on", OTHER: "on"}


async def test_of_inputs_only_the_fields_are_read_that_are_asked_for(world: World) -> None:
    await world.projector.apply([event(1), event(9, OTHER, offset=1)])
    pinned = [InputGeneration(world.input, "lights_v1_", "test.lights.v1")]
    inputs = MongoInputs(world.mongo, pinned, lambda: date(2026, 1, 5))
    assert await inputs.by_id(LIGHTS, LIGHTS, [SUBJECT, OTHER], ["on"]) == {
        SUBJECT: {ID: SUBJECT, "on": True}
    }
    assert await inputs.having(LIGHTS, LIGHTS, "on", [True], [ID]) == [{ID: SUBJECT}]
