"""A hub over a real server: who watches is told of every change, or to read everything again."""

import pytest
from chassis.conditions import from_text
from chassis.read.changes import Changed, MongoChangeLog
from chassis.watching import ConditionWide, Wanted, hearing
from chassis.web.problems import Overloaded

from .support import FIELDS, Boxes, reading, some

HEAVY = Wanted(None, from_text("weight >= 10", FIELDS))
HERE = from_text("room is here", FIELDS)
HEAVY_HERE = Wanted(None, HEAVY.condition, HERE)


async def test_a_watcher_is_told_of_its_documents_and_of_no_others(boxes: Boxes) -> None:
    async with reading(boxes.hub, some("a", "b")) as reader, reading(boxes.hub, some("c")) as other:
        assert await reader.is_reset() == await other.is_reset() == "begun"
        await boxes.put("a", "c", "d")
        assert await reader.changes() == {"changed": {"a"}}
        await boxes.put("b")
        assert await reader.changes() == {"changed": {"b"}}
        assert await other.changes() == {"changed": {"c"}}


async def test_a_document_that_is_told_shows_the_change(boxes: Boxes) -> None:
    async with reading(boxes.hub, some("a")) as reader:
        await reader.is_reset()
        for weight in range(1, 8):
            await boxes.put("a", weight=weight)
            await reader.told()
            found = await boxes.mongo.find_one(await boxes.reader.collection("boxes", "boxes"), {"_id": "a"})
            assert found is not None
            assert found["weight"] == weight


async def test_changes_between_two_events_are_told_as_one(boxes: Boxes) -> None:
    async with reading(boxes.hub, some("a")) as reader, reading(boxes.hub, some("last")) as other:
        await reader.is_reset()
        await other.is_reset()
        for _ in range(50):
            await boxes.put("a")
        await boxes.put("last")
        await other.told()
        assert await reader.changes() == {"changed": {"a"}}
        assert reader.watcher.next() is None


async def test_a_condition_is_entered_and_left(boxes: Boxes) -> None:
    await boxes.put("there", weight=20)
    await boxes.put("light", weight=1)
    async with reading(boxes.hub, HEAVY) as reader:
        assert await reader.is_reset() == "begun"
        await boxes.put("light", "there", weight=10)
        assert await reader.changes() == {"entered": {"light"}, "changed": {"there"}}
        await boxes.put("light", weight=9)
        assert await reader.changes() == {"left": {"light"}}
        await boxes.put("there", weight=None)
        assert await reader.changes() == {"left": {"there"}}


async def test_ids_are_told_within_a_condition_alone(boxes: Boxes) -> None:
    await boxes.put("mine", "other", weight=20)
    async with reading(boxes.hub, Wanted(frozenset({"mine"}), HEAVY.condition)) as reader:
        await reader.is_reset()
        await boxes.put("mine", "other", weight=21)
        assert await reader.changes() == {"changed": {"mine"}}
        await boxes.put("mine", "other", weight=2)
        assert await reader.changes() == {"left": {"mine"}}


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_watcher_that_comes_again_is_told_what_changed_meanwhile(
    boxes: Boxes, elsewhere: bool
) -> None:
    async with reading(boxes.hub, some("a", "b", "c")) as reader:
        await reader.is_reset()
        await boxes.put("a")
        await reader.changes()
    await boxes.put("b", "c", "d")
    other = boxes.another() if elsewhere else boxes.hub
    async with (
        hearing(other if elsewhere else None),
        reading(other, some("a", "b", "c"), reader.last) as again,
    ):
        told = await again.hears("b", "c")
        assert {"b", "c"} <= told <= {"a", "b", "c"}, "what was told just before may come once more"
        await boxes.put("a")
        assert "d" not in await again.hears("a")


async def test_who_comes_again_with_a_condition_is_told_who_is_in_and_who_is_out(boxes: Boxes) -> None:
    await boxes.put("a", "b", weight=20)
    async with reading(boxes.hub, some("a")) as other:
        await other.is_reset()
        async with reading(boxes.hub, HEAVY) as reader:
            await reader.is_reset()
            for name in ("c", "b"):  # the second one is told from a place that the hub remembers
                await boxes.put(name, weight=10)
                await reader.changes()
        await boxes.put("a", weight=1)
        await other.hears("a")
        await boxes.put("d", weight=30)  # the hub pauses: it will hear of it after the members are loaded
        async with reading(boxes.hub, HEAVY, reader.last) as again:
            told = await again.kinds("a", "d")
    assert told["a"][0] == "left", "others may come once more"
    assert told["d"][0] in {"entered", "changed"}, "it was a member before it was heard"


@pytest.mark.parametrize(
    "after",
    [
        "",
        "1",
        "1.20260105.00000000000000000000000000000000.82",
        "1.20260105.{digest}.zz",
        "1.20260105.{digest}.82",
        "9.20260105.{digest}.8200",
        "1.20260105.{digest}.82FFFFFFFF00000001",
    ],
)
async def test_an_id_from_which_nobody_can_go_on_gives_a_reset(boxes: Boxes, after: str) -> None:
    async with reading(boxes.hub, some("a"), after.format(digest=some("a").digest)) as reader:
        assert await reader.is_reset() in {"begun", "rebuilt", "lost"}


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_what_changed_too_much_meanwhile_gives_a_reset(boxes: Boxes, elsewhere: bool) -> None:
    wanted = Wanted(frozenset(f"b{number}" for number in range(1_200)))
    other = boxes.another() if elsewhere else boxes.hub
    async with hearing(other if elsewhere else None), reading(boxes.hub, some("last")) as witness:
        await witness.is_reset()
        async with reading(boxes.hub, wanted) as reader:
            await reader.is_reset()
            await boxes.put("b0")
            await reader.changes()
        await boxes.put(*[f"b{number}" for number in range(1, 1_200)])
        await boxes.put("last")
        await witness.hears("last")
        async with reading(other, wanted, reader.last) as again:
            assert await again.is_reset() == "slow"


async def test_another_generation_gives_a_reset_and_is_watched_from_then_on(boxes: Boxes) -> None:
    await boxes.put("a", weight=20)
    async with reading(boxes.hub, some("a")) as reader, reading(boxes.hub, HEAVY) as heavy:
        await reader.is_reset()
        await heavy.is_reset()
        later = await boxes.begin()
        await boxes.put("b", weight=30, into=later)
        await boxes.switch(later)
        assert await reader.is_reset() == await heavy.is_reset() == "rebuilt"
        await boxes.put("a", weight=1)
        await boxes.put("b", weight=31)
        assert await reader.changes() == {"changed": {"a"}}
        assert await heavy.changes() == {"changed": {"b"}}
        before = reader.last
    assert before is not None
    async with reading(boxes.hub, some("a"), before.replace("2.", "1.", 1)) as again:
        assert await again.is_reset() == "rebuilt"


async def test_another_business_date_gives_a_reset_to_who_watches_a_condition(boxes: Boxes) -> None:
    async with reading(boxes.hub, HEAVY) as heavy, reading(boxes.hub, some("a")) as reader:
        await heavy.is_reset()
        await reader.is_reset()
        boxes.today = boxes.today.replace(day=6)
        assert await heavy.is_reset() == "day"
        await boxes.put("a", weight=12)
        assert await heavy.changes() == {"entered": {"a"}}
        assert await reader.changes() == {"changed": {"a"}}


async def test_the_id_of_an_event_names_the_day_that_the_watcher_was_told(boxes: Boxes) -> None:
    async with reading(boxes.hub, HEAVY) as reader:
        await reader.is_reset()
        boxes.today = boxes.today.replace(day=6)
        before = reader.watcher.place  # of a heartbeat that is sent before the hub has seen the new day
    async with reading(boxes.hub, HEAVY, before) as again:
        assert await again.is_reset() == "day"


async def test_a_document_out_of_scope_is_not_named_to_who_never_saw_it(boxes: Boxes) -> None:
    await boxes.put("mine", "leaves", weight=20)
    await boxes.put("theirs", weight=20, room="there")
    async with reading(boxes.hub, HEAVY_HERE) as reader:
        await reader.is_reset()
        for weight in (21, 2, 3):
            await boxes.put("theirs", weight=weight, room="there")
        await boxes.put("leaves", weight=20, room="there")
        assert await reader.changes() == {"left": {"leaves"}}
        for _ in range(2):
            await boxes.put("theirs", "leaves", weight=22, room="there")
        await boxes.put("mine", weight=21)
        assert await reader.changes() == {"changed": {"mine"}}
    await boxes.put("mine", weight=1)
    async with reading(boxes.hub, HEAVY_HERE, reader.last) as again:
        assert await again.changes() == {"left": {"mine"}}, "what is in scope is named"
    await boxes.put("mine", weight=20)
    await boxes.put("theirs", weight=1, room="there")
    async with reading(boxes.hub, HEAVY_HERE, again.last) as later:
        assert await later.is_reset() == "scope"


async def test_whoever_names_an_id_is_told_when_it_leaves_the_scope(boxes: Boxes) -> None:
    await boxes.put("mine", "other")
    async with reading(boxes.hub, Wanted(frozenset({"mine"}), None, HERE)) as reader:
        await reader.is_reset()
        await boxes.put("other", room="there")
        await boxes.put("mine", room="there")
        assert await reader.changes() == {"left": {"mine"}}


def test_who_may_see_other_documents_watches_something_else() -> None:
    places = [HERE, from_text("room is there", FIELDS), None]
    assert len({Wanted(None, HEAVY.condition, place).digest for place in places}) == 3
    assert HEAVY_HERE.digest != Wanted(None, HERE, HEAVY.condition).digest


async def test_a_watcher_that_takes_nothing_is_reset_and_delays_nobody(boxes: Boxes) -> None:
    names = [f"b{number}" for number in range(11)]
    async with reading(boxes.hub, some(*names)) as slow, reading(boxes.hub, some("last")) as quick:
        await quick.is_reset()
        await slow.is_reset()
        await boxes.put(*names)
        await boxes.put("last")
        assert await quick.changes() == {"changed": {"last"}}
        assert await slow.is_reset() == "slow"
        await boxes.put("b1")
        assert await slow.changes() == {"changed": {"b1"}}


async def test_a_condition_that_too_many_meet_is_refused_and_conditions_are_bounded(boxes: Boxes) -> None:
    await boxes.put(*[f"b{number}" for number in range(6)], weight=20)
    with pytest.raises(ConditionWide):
        async with reading(boxes.hub, HEAVY):
            pass
    conditions = [Wanted(None, from_text(f"weight >= {number}", FIELDS)) for number in (30, 31, 32)]
    async with reading(boxes.hub, conditions[0]), reading(boxes.hub, conditions[1]):
        with pytest.raises(Overloaded):
            async with reading(boxes.hub, conditions[2]):
                pass
    async with reading(boxes.hub, conditions[2]) as reader:
        assert await reader.is_reset() == "begun"


async def test_an_event_names_the_positions_that_a_read_may_ask_for(boxes: Boxes) -> None:
    await boxes.reach(7)
    async with reading(boxes.hub, some("a")) as reader:
        assert (await reader.told()).data["at_least"] == "customer-7"
        await boxes.reach(9)
        await boxes.put("a")
        sent = await reader.told()
        assert sent.data == {
            "view": "boxes",
            "at_least": "customer-9",
            "changed": ["a"],
            "entered": [],
            "left": [],
        }


async def test_changes_are_read_on_either_driver(both) -> None:
    made = Boxes(both)
    await made.switch(await made.begin())
    log = MongoChangeLog(both)
    changes = await log.opened(f"{made.live.prefix}boxes")
    first = changes.place
    await made.put("a", "b")
    found: Changed = await changes.next(5.0)
    assert set(found.ids) == {"a", "b"}
    assert found.at is not None
    again = await log.opened(f"{made.live.prefix}boxes", first, ["b"])
    assert (await again.next(5.0)).ids == ("b",)
    await again.close()
    await changes.close()
