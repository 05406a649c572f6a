"""One suite for the checkpoints in MongoDB and those of the simulation: what parks, waits, and is never forgotten."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from chassis.read.checkpoints import GenerationLost, Held, Parked, Position
from chassis.read.mongo_checkpoints import MongoCheckpoints, parked_of, prepare_checkpoints, want

from tests.support.lists import SUBJECTS, TOPIC, Words
from tests.support.memory import MemoryCheckpoints

AT = datetime(2026, 1, 5, 8, tzinfo=UTC)
LATER = datetime(2026, 1, 5, 9, tzinfo=UTC)
ONE, TWO = (("customer", subject) for subject in SUBJECTS[:2])
GROUP = "test.lists.v1"
PARKED = Parked(SUBJECTS[0], "customer", "customer.renamed", 2, 7, "Poison", AT)


@pytest.fixture(params=["mongo", "memory"])
async def checkpoints(request, mongo):
    if request.param == "memory":
        return MemoryCheckpoints()
    await prepare_checkpoints(mongo)
    checkpoints = MongoCheckpoints(mongo, GROUP, "lists")
    await checkpoints.begin({(TOPIC, number): "customer" for number in range(2)})
    return checkpoints


@pytest.fixture
def events():
    words = Words(1)
    return [Held(number + 1, words.say(0, "a")) for number in range(5)]


async def test_positions_only_go_on(checkpoints):
    await checkpoints.advance(
        {(TOPIC, 0): Position(5, "customer", 9, AT, 4, 2), (TOPIC, 1): Position(1, "customer", 3, LATER, 1)}
    )
    await checkpoints.advance(
        {(TOPIC, 0): Position(4, "customer", 11, LATER, 6, 0), (TOPIC, 1): Position(2, "", 0, None)}
    )
    await checkpoints.advance({})
    assert await checkpoints.positions() == {
        (TOPIC, 0): Position(5, "customer", 11, LATER, 6, 2),
        (TOPIC, 1): Position(2, "customer", 3, LATER, 1),
    }


async def test_what_documents_may_show_is_recorded_beside_the_positions_and_never_goes_back(checkpoints):
    first, second = (TOPIC, 0), (TOPIC, 1)
    await checkpoints.reaching({first: 9})
    await checkpoints.reaching({first: 7, second: 3})
    await checkpoints.advance({second: Position(4, "customer", 5, AT, 4)})
    assert await checkpoints.shown() == {first: 9, second: 5}
    assert (await checkpoints.positions())[second].position == 5


async def test_a_subject_waits_with_its_events_in_order_and_each_once(checkpoints, events):
    await checkpoints.park(PARKED, events[1])
    await checkpoints.park(replace(PARKED, sequence=3, reason="again"), events[2])
    assert await checkpoints.hold(ONE, [events[3], events[2]])
    assert await checkpoints.hold(ONE, [events[4], events[3]])
    [parked] = (await checkpoints.parked()).values()
    assert (parked.stream, parked.sequence, parked.reason, parked.parked_at) == (ONE, 2, "Poison", AT)
    assert await checkpoints.held(ONE, 1, 10) == events[1:]
    assert await checkpoints.held(ONE, 2, 2) == events[2:4]
    assert await checkpoints.held(TWO, 0, 10) == []


async def test_who_is_not_parked_holds_nothing(checkpoints, events):
    assert not await checkpoints.hold(ONE, events)
    assert await checkpoints.parked() == {}


async def test_a_wait_ends_only_if_nothing_was_laid_to_it_meanwhile(checkpoints, events):
    await checkpoints.park(PARKED, events[1])
    seen = (await checkpoints.parked())[ONE]
    await checkpoints.hold(ONE, events[2:3])
    assert not await checkpoints.unpark(seen, 2)
    seen = (await checkpoints.parked())[ONE]
    assert await checkpoints.unpark(seen, 3)
    assert await checkpoints.parked() == {}
    assert await checkpoints.held(ONE, 0, 10) == []
    assert not await checkpoints.unpark(seen, 3)


async def test_who_read_a_wait_that_is_over_does_not_end_a_later_one(checkpoints, events):
    """A consumer that froze while it released: another one did, and the subject was parked at a later event."""
    await checkpoints.park(PARKED, events[1])
    before = (await checkpoints.parked())[ONE]
    assert await checkpoints.unpark(before, 2)
    await checkpoints.park(replace(PARKED, sequence=4), events[3])
    later = (await checkpoints.parked())[ONE]
    assert later.revision == before.revision
    await checkpoints.stuck(before, events[2], "customer.renamed", "of the wait before")
    assert not await checkpoints.unpark(before, 3)
    assert await checkpoints.parked() == {ONE: later}
    assert await checkpoints.held(ONE, 3, 10) == events[3:4]


async def test_who_read_a_wait_that_is_over_does_not_change_a_later_one_at_the_same_event(
    checkpoints, events
):
    """A process that did not know of the release parked the subject again, at the same event."""
    await checkpoints.park(PARKED, events[1])
    before = (await checkpoints.parked())[ONE]
    assert await checkpoints.unpark(before, 2)
    await checkpoints.park(replace(PARKED, parked_at=LATER), events[1])
    later = (await checkpoints.parked())[ONE]
    assert (later.sequence, later.revision) == (before.sequence, before.revision)
    await checkpoints.stuck(before, events[2], "customer.renamed", "of the wait before")
    assert not await checkpoints.unpark(before, 2)
    assert await checkpoints.parked() == {ONE: later}


async def test_a_release_that_got_stuck_waits_from_there(checkpoints, events):
    await checkpoints.park(PARKED, events[1])
    await checkpoints.hold(ONE, events[2:])
    before = (await checkpoints.parked())[ONE]
    await checkpoints.stuck(before, events[3], "customer.renamed", "still")
    parked = (await checkpoints.parked())[ONE]
    assert (parked.sequence, parked.reason, parked.wanted) == (4, "still", None)
    assert parked.revision > before.revision


async def test_what_is_skipped_stays_skipped(checkpoints):
    for _ in range(2):
        await checkpoints.skip(ONE, 4)
    assert await checkpoints.skipped() == {(ONE, 4)}


# what only the real ones have


async def test_release_is_asked_for_by_another_process_and_groups_do_not_meet(mongo, events):
    checkpoints, others = (
        MongoCheckpoints(mongo, GROUP, "lists"),
        MongoCheckpoints(mongo, "test.lists.v2", "lists"),
    )
    await checkpoints.park(PARKED, events[1])
    await others.park(PARKED, events[1])
    assert await want(mongo, GROUP, ONE, "release")
    assert not await want(mongo, GROUP, TWO, "release")
    assert (await checkpoints.parked())[ONE].wanted == "release"
    assert (await others.parked())[ONE].wanted is None
    assert len(await parked_of(mongo)) == 2
    await checkpoints.skip(ONE, 2)
    assert await others.skipped() == {(ONE, 2)}
    await checkpoints.forget()
    assert [one.wanted for one in await parked_of(mongo)] == [None]
    assert await others.held(ONE, 0, 10) == events[1:2]


async def test_books_that_are_gone_are_a_lost_generation(mongo):
    checkpoints = MongoCheckpoints(mongo, GROUP, "lists")
    await checkpoints.begin({(TOPIC, 0): "customer"})
    await checkpoints.begin({(TOPIC, 0): "customer"})
    await checkpoints.advance({(TOPIC, 0): Position(5, "customer", 9, AT)})
    with pytest.raises(GenerationLost):
        await checkpoints.advance(
            {(TOPIC, 0): Position(6, "customer", 9, AT), (TOPIC, 1): Position(1, "customer", 9, AT)}
        )
    await mongo.drop_database()
    with pytest.raises(GenerationLost):
        await checkpoints.advance({(TOPIC, 0): Position(6, "customer", 9, AT)})
    assert await checkpoints.positions() == {}


async def test_an_event_that_a_crash_left_behind_is_not_in_the_way(mongo, events):
    """It was kept for a subject that was released meanwhile. The subject that is parked again does not have it."""
    checkpoints = MongoCheckpoints(mongo, GROUP, "lists")
    await checkpoints.park(PARKED, events[1])
    await checkpoints.unpark((await checkpoints.parked())[ONE], 1)  # as if the event had come in between
    await checkpoints.park(replace(PARKED, sequence=4), events[3])
    assert [held.sequence for held in await checkpoints.held(ONE, 3, 10)] == [4]


async def test_a_subject_of_one_context_waits_and_that_of_another_does_not(checkpoints, events):
    other = ("ingest", SUBJECTS[0])
    await checkpoints.park(PARKED, events[1])
    assert not await checkpoints.hold(other, events[2:3])
    await checkpoints.park(replace(PARKED, context="ingest", sequence=4), events[3])
    assert {stream: one.sequence for stream, one in (await checkpoints.parked()).items()} == {
        ONE: 2,
        other: 4,
    }
    assert await checkpoints.held(ONE, 0, 10) == events[1:2]
    assert await checkpoints.held(other, 3, 10) == events[3:4]
    await checkpoints.skip(ONE, 2)
    assert (other, 2) not in await checkpoints.skipped()
    assert await checkpoints.unpark((await checkpoints.parked())[ONE], 2)
    assert list(await checkpoints.parked()) == [other]
    assert await checkpoints.held(other, 3, 10) == events[3:4]
