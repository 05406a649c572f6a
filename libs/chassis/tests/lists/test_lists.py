"""Lists over a real database: pages, counts, scopes and orders equal to what plain Python finds."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from random import Random
from typing import Any

import pytest
from chassis.conditions import DataClass, Field, Fields, Label, Type, from_text, holds
from chassis.conditions.language import (
    AmountIs,
    And,
    Begins,
    Condition,
    DayIs,
    Has,
    IsAmong,
    IsKnown,
    Not,
    NumberIs,
    Or,
)
from chassis.conditions.language import Relation as R
from chassis.lists import (
    ConditionInvalid,
    Counted,
    Cursors,
    FieldNotPermitted,
    Listing,
    QueryTooSlow,
    Question,
    Reader,
    Scope,
    SortInvalid,
    question,
)
from chassis.lists.ordering import Place, ranges
from chassis.read.documents import GONE, Document, DocumentsUnavailable, IndexMissing
from chassis.read.generations import NotBuilt
from chassis.read.mongo import Mongo
from chassis.web.paging import CursorInvalid
from typing_extensions import override

from tests.support.mongo import SLOW

from .collection import COLLECTION, Live, fill, found_in

TODAY = date(2026, 3, 1)
MAY = frozenset({"money"})
FIELDS = Fields(
    [
        Field(
            "owed", Type.AMOUNT, Label("欠款", "sum owed"), "sums.owed", DataClass.CONFIDENTIAL, {}, "money"
        ),
        Field("month", Type.MONTHLY, Label("月欠款", "owed in a month"), "month", DataClass.INTERNAL),
        Field("visits", Type.NUMBER, Label("次数", "number of visits"), "visits", DataClass.INTERNAL),
        Field("seen_on", Type.DAY, Label("日期", "last day"), "seen_on", DataClass.INTERNAL),
        Field("site", Type.CHOICE, Label("地点", "place"), "site", DataClass.INTERNAL),
        Field("marks", Type.SET, Label("标记", "marked"), "marks", DataClass.INTERNAL),
        Field(
            "secret", Type.NUMBER, Label("机密", "hidden"), "secret", DataClass.CONFIDENTIAL, {}, "secrets"
        ),
    ]
)
SORTS = ("owed.EUR", "visits", "seen_on", "site")
LISTING = Listing(
    "things",
    "things",
    "all",
    FIELDS,
    SORTS,
    ("EUR",),
    (("seen_on", "owed.EUR"),),
    behind=(("owed.EUR", "site", "visits"),),
    searched=("phone",),
)

SITES = ("a.*", "a", 'a"b', "a\nb", "a\x00b", "b", "支行")
EDGES = (-(9 * 10**15), -1, 0, 1, 2**31, 9 * 10**15)


def secret(_: str) -> bytes:
    return bytes(32)


@pytest.fixture
async def reader(mongo: Mongo) -> Reader:
    for index in LISTING.indexes:
        await mongo.index(COLLECTION, index.fields)
    return Reader(LISTING, mongo, Live(), Cursors(secret), lambda: TODAY)


def some_thing(chance: Random, number: int) -> dict[str, Any]:
    """A document with every part at times missing or null. Values come several times, so that ids decide."""

    def at_times(value: Any) -> Any:
        return value if chance.random() < 0.8 else None

    found = {
        "sums": {"owed": {"EUR": chance.choice(EDGES)} if at_times(1) else {"USD": 5}},
        "visits": at_times(chance.choice((-3, 0, 7, 2**31))),
        "seen_on": at_times((TODAY + timedelta(days=chance.randint(-2, 2))).isoformat()),
        "site": at_times(chance.choice(SITES)),
        "marks": at_times(chance.sample(("x", "y", "z"), chance.randint(0, 3))),
        "secret": at_times(chance.randint(0, 9)),
    }
    return {"_id": f"{number:04d}", **{name: value for name, value in found.items() if chance.random() < 0.9}}


def some_condition(chance: Random, *, money: bool = True) -> Condition:
    clauses: list[Condition] = [
        NumberIs(field="visits", relation=chance.choice(tuple(R)), number=chance.choice((0, 7))),
        IsAmong(field="site", values=("a", chance.choice(("b", "支行")))),
        Begins(field="site", text=chance.choice(SITES)),
        IsKnown(field="seen_on"),
        Has(field="marks", values=(chance.choice("xyz"),)),
        DayIs(field="seen_on", relation=chance.choice(tuple(R)), day=TODAY),
    ]
    if money:
        limit = chance.choice(EDGES)
        relation = chance.choice(tuple(R))
        clauses.append(AmountIs(field="owed", relation=relation, currency="EUR", amount_minor=limit))
    one, two = chance.choice(clauses), chance.choice(clauses)
    return chance.choice((one, Not(condition=one), And(conditions=(one, two)), Or(conditions=(one, two))))


def some_scope(chance: Random) -> Scope:
    return chance.choice((Scope.all(), Scope.all(), Scope.where(some_condition(chance)), Scope.nothing()))


def some_sort(chance: Random) -> str | None:
    return chance.choice((None, *(f"{minus}{name}" for name in SORTS for minus in ("", "-"))))


def value_of(thing: dict[str, Any], sort: str) -> Any:
    if sort == "owed.EUR":
        return thing.get("sums", {}).get("owed", {}).get("EUR", 0)
    return thing.get(sort)


def in_order(things: list[dict[str, Any]], sort: str | None) -> list[str]:
    """The ids of these documents in the order of a sort, by sorting in Python."""
    things = sorted(things, key=lambda one: one["_id"])
    if sort is None:
        return [one["_id"] for one in things]
    name, falling = sort.removeprefix("-"), sort.startswith("-")
    known = [one for one in things if value_of(one, name) is not None]
    unknown = [one["_id"] for one in things if value_of(one, name) is None]
    known.sort(key=lambda one: (value_of(one, name), one["_id"]), reverse=falling)
    return [one["_id"] for one in known] + (unknown[::-1] if falling else unknown)


def asked(condition: Condition | None, sort: str | None) -> Question:
    return Question(condition, question(LISTING, MAY, sort=sort).order)


async def walked(
    reader: Reader, scope: Scope, wanted: Question, limit: int, between: Any = None
) -> list[list[str]]:
    """The ids of all pages; `between` is done after each page."""
    pages, after = list[list[str]](), None
    while True:
        found = await reader.page(scope, wanted, "me", limit=limit, after=after)
        pages.append([one["_id"] for one in found.documents])
        assert len(pages[-1]) <= limit
        if found.next is None:
            return pages
        assert len(pages[-1]) == limit
        after = found.next
        if between is not None:
            await between()


async def test_a_list_is_what_filtering_sorting_and_scoping_in_python_gives(reader: Reader) -> None:
    chance = Random(11)
    things = [some_thing(chance, number) for number in range(60)]
    await fill(reader.mongo, things)
    sizes = set[int]()
    for _ in range(120):
        condition, scope, sort = some_condition(chance), some_scope(chance), some_sort(chance)
        there = found_in(things, condition, scope, FIELDS, TODAY)
        wanted = asked(condition, sort)
        first, enough = chance.choice((1, 3, 9)), chance.choice((1, 9, 99))
        small = replace(reader, narrow_max=chance.choice((0, 5, 99)), first_looked_at=first, looked_at=enough)
        pages = await walked(small, scope, wanted, chance.choice((1, 7, 60)) if len(there) < 12 else 9)
        assert [id for page in pages for id in page] == in_order(there, sort), (condition, sort)
        assert await reader.count(scope, wanted) == Counted(len(there), False)
        sizes.add(len(there))
    assert len(sizes) > 20


async def test_what_stays_as_it_is_is_on_exactly_one_page_while_others_write(reader: Reader) -> None:
    for seed in range(12):
        await reader.mongo.delete(COLLECTION, {})
        await stays_once(reader, Random(seed))


class Busy(Mongo):
    """A database in which others write before each query, so between the queries of one page too."""

    def __init__(self, mongo: Mongo, write: Callable[[], Awaitable[None]]) -> None:
        super().__init__(mongo._client, mongo.name, mongo.driver)
        self._write_first = write

    @override
    async def find(self, *asked: Any, **options: Any) -> list[Document]:
        await self._write_first()
        return await super().find(*asked, **options)


async def stays_once(reader: Reader, chance: Random) -> None:
    things = {one["_id"]: one for one in (some_thing(chance, 2 * number) for number in range(50))}
    for thing in things.values():
        await reader.mongo.insert_new(COLLECTION, thing)
    sort, touched = some_sort(chance), set[str]()

    async def write() -> None:
        for _ in range(4):
            number = chance.randrange(100)
            new = some_thing(chance, number)
            touched.add(new["_id"])
            if chance.random() < 0.3:
                new = {"_id": new["_id"], GONE: True}
            await reader.mongo.update(
                COLLECTION, {"_id": new["_id"]}, [{"$replaceWith": {"$literal": new}}], upsert=True
            )

    busy = replace(
        reader, mongo=Busy(reader.mongo, write), read_at_once=7, narrow_max=5, first_looked_at=3, looked_at=9
    )
    condition, scope = chance.choice((None, some_condition(chance))), Scope.where(some_condition(chance))
    scope = chance.choice((Scope.all(), scope))
    pages = await walked(busy, scope, asked(condition, sort), 7)
    found = [id for page in pages for id in page if id not in touched]
    untouched = [one for id, one in things.items() if id not in touched]
    stayed = found_in(untouched, condition, scope, FIELDS, TODAY)
    assert found == in_order(stayed, sort)
    every = [id async for id in busy.every(scope, asked(condition, None))]
    assert [id for id in every if id not in touched] == in_order(
        [one for one in stayed if one["_id"] not in touched], None
    )


async def test_what_a_caller_may_not_see_changes_neither_order_nor_members(reader: Reader) -> None:
    chance = Random(5)
    things = [some_thing(chance, number) for number in range(40)]
    for thing in things:
        await reader.mongo.insert_new(COLLECTION, thing)
    questions = [
        Question(some_condition(chance, money=False), question(LISTING, frozenset(), sort=sort).order)
        for sort in (None, "visits", "-seen_on", "site", "-site")
    ]
    scope = Scope.where(from_text("not site is b", FIELDS))
    before = [await walked(reader, scope, each, 7) for each in questions]
    for thing in things:
        hidden = {"secret": chance.randint(0, 99), "sums": {"owed": {"EUR": chance.choice(EDGES)}}}
        await reader.mongo.update(COLLECTION, {"_id": thing["_id"]}, {"$set": hidden})
    assert [await walked(reader, scope, each, 7) for each in questions] == before
    [shown] = (await reader.page(scope, Question(), "me", limit=1)).documents
    of_it = LISTING.shown(shown, frozenset())
    assert (of_it["owed"], of_it["secret"]) == (None, None)
    assert LISTING.shown(shown, MAY)["owed"] is not None


@pytest.mark.parametrize(
    ("where", "sort", "refusal"),
    [
        ("owed > EUR 1", None, FieldNotPermitted),
        ("visits > 1 or not (secret > 1)", None, FieldNotPermitted),
        ('{"op":"known","field":"secret"}', None, FieldNotPermitted),
        (None, "-owed.EUR", FieldNotPermitted),
        ("oved > EUR 1", None, ConditionInvalid),
        ('{"op":"known","field":"visits","more":1}', None, ConditionInvalid),
        ('{"op":', None, ConditionInvalid),
        ('{"op":"not","condition":' * 150, None, ConditionInvalid),
        (None, "owed", SortInvalid),
        (None, "owed.USD", SortInvalid),
        (None, "--visits", SortInvalid),
        (None, "marks", SortInvalid),
        (None, "$where", SortInvalid),
        (None, "", SortInvalid),
    ],
)
def test_a_question_that_may_not_be_asked_is_refused(where: Any, sort: Any, refusal: Any) -> None:
    with pytest.raises(refusal):
        question(LISTING, frozenset(), where, sort)


async def test_a_cursor_belongs_to_its_question_its_scope_and_its_caller(reader: Reader) -> None:
    for number in range(6):
        await reader.mongo.insert_new(COLLECTION, {"_id": str(number), "visits": number})
    every = Scope.all()
    wanted = asked(None, "visits")
    after = (await reader.page(every, wanted, "me", limit=2)).next
    assert after is not None
    assert (await reader.page(every, wanted, "me", limit=2)).next == after, "the same page is the same bytes"
    page = partial(reader.page, limit=2, after=after)
    assert [one["_id"] for one in (await page(every, wanted, "me")).documents] == ["2", "3"]
    again = Reader(LISTING, reader.mongo, Live(), Cursors(secret), lambda: TODAY + timedelta(days=1))
    assert (await again.page(every, wanted, "me", limit=2, after=after)).documents, (
        "another process, the next day"
    )
    other = Listing("others", "things", "all", FIELDS, SORTS, ("EUR",))
    for refused in (
        page(every, wanted, "you"),
        page(every, asked(None, "-visits"), "me"),
        page(every, asked(None, None), "me"),
        page(every, asked(IsKnown(field="visits"), "visits"), "me"),
        page(every, Question(None, wanted.order, TODAY), "me"),
        page(Scope.where(IsKnown(field="visits")), wanted, "me"),
        Reader(other, reader.mongo, Live(), reader.cursors, lambda: TODAY).page(
            every, wanted, "me", limit=2, after=after
        ),
        reader.page(every, wanted, "me", limit=2, after=after[:-2] + ("AA" if after[-2:] != "AA" else "BB")),
        reader.page(every, wanted, "me", limit=2, after="x"),
        reader.page(every, wanted, "me", limit=2, after="a" * 200),
    ):
        with pytest.raises(CursorInvalid):
            await refused
    assert "visits" not in after


async def test_outside_its_scope_a_document_is_not_there(reader: Reader) -> None:
    for number, site in enumerate(("a", "b", None)):
        await reader.mongo.insert_new(COLLECTION, {"_id": str(number), "site": site, "blind": {"phone": "d"}})
    scope = Scope.where(IsAmong(field="site", values=("a",)))
    assert await reader.one(scope, "0") is not None
    assert await reader.one(scope, "1") is None
    assert [await reader.covers(scope, id) for id in ("0", "1", "2", "3")] == [True, False, False, None]
    assert await reader.covers(Scope.all(), "1")
    assert await reader.covers(Scope.nothing(), "0") is False
    assert [one["_id"] for one in await reader.having(scope, "phone", ["d", "e"], limit=5)] == ["0"]
    assert await reader.count(scope, Question()) == Counted(1, False)
    steps = await reader.funnel(scope, from_text("site begins a and visits is known", FIELDS))
    assert [(step.alone, step.so_far) for step in steps] == [(1, 1), (0, 0)]
    everybody = await reader.funnel(Scope.all(), from_text("site is known and site is b", FIELDS))
    assert [(step.alone, step.so_far) for step in everybody] == [(2, 2), (1, 1)]
    culprits = await reader.emptying(scope, from_text("site is known and site is b", FIELDS))
    assert culprits == (IsAmong(field="site", values=("b",)),)
    assert await reader.emptying(Scope.all(), from_text("site is known and site is b", FIELDS)) is None


async def test_counts_are_bounded_and_a_question_has_its_time(mongo: Mongo) -> None:
    reader = Reader(
        LISTING, mongo, Live(), Cursors(secret), lambda: TODAY, query_seconds_max=0.05, counted_max=3
    )
    for number in range(30):
        await mongo.insert_new(COLLECTION, {"_id": str(number), "visits": number if number < 5 else 0})
    assert await reader.count(Scope.all(), Question()) == Counted(3, True)
    assert await reader.count(Scope.all(), Question(from_text("visits >= 2", FIELDS))) == Counted(3, False)
    with pytest.raises(QueryTooSlow):
        await reader._find(SLOW, limit=1)
    with pytest.raises(QueryTooSlow):
        await reader._counted(SLOW)


async def test_a_list_of_a_view_that_is_not_built_is_not_available(mongo: Mongo) -> None:
    class Nothing:
        async def collection(self, view: str, name: str) -> str:
            raise NotBuilt(view)

    reader = Reader(LISTING, mongo, Nothing(), Cursors(secret), lambda: TODAY)
    with pytest.raises(DocumentsUnavailable):
        await reader.page(Scope.all(), Question(), "me", limit=1)


async def test_a_page_is_read_from_an_index_and_not_sorted(reader: Reader) -> None:
    for number in range(30):
        await reader.mongo.insert_new(COLLECTION, some_thing(Random(number), number))
    for sort in SORTS:
        order = question(LISTING, MAY, sort=f"-{sort}").order
        for value in (0, None) if sort == "owed.EUR" else (None, "a", 7):
            for each in ranges(order, Place(0 if value is None and order.amounts else value, "0005")):
                find = {"find": COLLECTION, "filter": each.where, "sort": dict(each.order), "limit": 5}
                plan = str(
                    (await reader.mongo.command({"explain": find, "verbosity": "queryPlanner"}))[
                        "queryPlanner"
                    ]["winningPlan"]
                )
                assert "IXSCAN" in plan, plan
                assert "'SORT'" not in plan, plan


async def test_what_no_tombstone_meets_is_counted_without_reading_documents(reader: Reader) -> None:
    for number in range(30):
        month = {"2026-02": {"EUR": number}, "2026-01": {"EUR": 0}}
        thing = {"sums": {"owed": {"EUR": number}}, "visits": number, "month": month}
        await reader.mongo.insert_new(COLLECTION, {"_id": f"{number:04d}", **thing})
    await reader.mongo.insert_new(COLLECTION, {"_id": "9999", GONE: True})
    for text, count, alone in (
        ("owed >= EUR 0.10", 20, True),
        ("visits >= 10 and visits < 15", 5, True),
        ("month in last month >= EUR 0.10", 20, True),
        ("month in 2026-02 > EUR 0.28", 1, True),
        ("owed < EUR 0.10", 10, False),
        ("not visits >= 10", 10, False),
        ("month in last month < EUR 0.10", 10, False),
    ):
        condition = from_text(text, FIELDS)
        assert (await reader.count(Scope.all(), Question(condition))).count == count, text
        where = reader._where(Scope.all(), condition, TODAY)
        asked_for = {"count": COLLECTION, "query": where}
        stats = await reader.mongo.command({"explain": asked_for, "verbosity": "executionStats"})
        examined = stats["executionStats"]["totalDocsExamined"]
        assert (examined == 0) is alone, (text, examined)


async def test_what_is_outside_a_window_or_begins_otherwise_is_read_from_an_index(reader: Reader) -> None:
    for number in range(40):
        day = (TODAY - timedelta(days=number)).isoformat()
        await reader.mongo.insert_new(
            COLLECTION, {"_id": f"{number:04d}", "seen_on": day, "site": f"a{number}"}
        )
    for text, count in (("not seen_on within last 38 days", 2), ("not site begins a", 0)):
        where = reader._where(Scope.all(), from_text(text, FIELDS), TODAY)
        asked_for = {"count": COLLECTION, "query": where}
        stats = await reader.mongo.command({"explain": asked_for, "verbosity": "executionStats"})
        assert stats["executionStats"]["totalDocsExamined"] == count, text


async def test_a_declared_pair_is_counted_without_reading_what_meets_one_of_both(reader: Reader) -> None:
    for number in range(200):
        day = (TODAY - timedelta(days=number % 4)).isoformat()
        thing = {"seen_on": day, "sums": {"owed": {"EUR": number % 10}}}
        await reader.mongo.insert_new(COLLECTION, {"_id": f"{number:04d}", **thing})
    condition = from_text(f"seen_on < {TODAY - timedelta(days=1)} and owed >= EUR 0.05", FIELDS)
    where = reader._where(Scope.all(), condition, TODAY)
    asked_for = {"count": COLLECTION, "query": where}
    stats = await reader.mongo.command({"explain": asked_for, "verbosity": "executionStats"})
    assert (await reader.count(Scope.all(), Question(condition))).count == 50
    assert stats["executionStats"]["totalDocsExamined"] <= 50


async def test_what_an_index_has_behind_the_id_is_counted_without_reading_documents(reader: Reader) -> None:
    for number in range(200):
        thing = {"site": "ab"[number % 2], "visits": number, "sums": {"owed": {"EUR": number}}}
        await reader.mongo.insert_new(COLLECTION, {"_id": f"{number:04d}", **thing})
    condition = from_text("site is a and owed >= EUR 1.90", FIELDS)
    where = reader._where(Scope.all(), condition, TODAY)
    asked_for = {"count": COLLECTION, "query": where}
    stats = await reader.mongo.command({"explain": asked_for, "verbosity": "executionStats"})
    assert (await reader.count(Scope.all(), Question(condition))).count == 5
    assert stats["executionStats"]["totalDocsExamined"] == 0


class Asked(Mongo):
    """A database that notes which index each query names, and how many documents it is to skip and to return."""

    def __init__(self, mongo: Mongo) -> None:
        super().__init__(mongo._client, mongo.name, mongo.driver)
        self.asked = list[tuple[str, int, int]]()
        self.counted = list[str]()

    @override
    async def find(self, *asked: Any, **options: Any) -> list[Document]:
        hint = options.get("hint") or (("", 1),)
        self.asked.append((hint[0][0], options.get("skip", 0), options["limit"]))
        return await super().find(*asked, **options)

    @override
    async def count(self, *asked: Any, **options: Any) -> int:
        hint = options.get("hint") or (("", 1),)
        self.counted.append(hint[0][0])
        return await super().count(*asked, **options)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("owed >= EUR 0.95 and visits >= 0", [("sums.owed.EUR", 0, 6)]),
        ("visits >= 0 and month in last month >= EUR 0.95", [("month.$**", 0, 6)]),
        # Enough among those that are looked at first.
        ("owed >= EUR 0.02 and visits >= 0", [("_id", 10, 1), ("_id", 0, 6)]),
        ("not owed >= EUR 0.95 and visits >= 0", [("_id", 10, 1), ("_id", 0, 6)]),
        # 5 of 10: the last is expected within 2 more, and looked for among 3.
        ("owed >= EUR 0.05 and visits >= 0", [("_id", 10, 1), ("_id", 0, 6), ("_id", 3, 1), ("_id", 0, 1)]),
        # 2 of 10: the other 4 are expected within 20, of which 10 say too little to look further than 20.
        ("owed >= EUR 0.07 and visits <= 8", [("_id", 10, 1), ("_id", 0, 6), ("_id", 20, 1), ("_id", 0, 4)]),
        # 1 of 10: the other 5 are expected within 50, and the range has 20, each at a place of its own.
        ("visits >= 8 and owed >= EUR 0.09", [("_id", 10, 1), ("_id", 0, 6), ("visits", 0, 5)]),
        # Nothing of 10, and the range is smaller than what may be.
        ("visits >= 0 and owed >= EUR 0.60", [("_id", 10, 1), ("_id", 0, 6), ("sums.owed.EUR", 0, 6)]),
        ("visits >= 0 and (owed >= EUR 0.60 or visits > 9)", [("_id", 10, 1), ("_id", 0, 6), ("visits", 0, 6)]),
        # Most have what a range says, so no index says how many: 2 of 30 are believed, and nothing of 30 is not.
        ("owed < EUR 0.90 and owed < EUR 0.02", [("_id", 10, 1), ("_id", 0, 6), ("_id", 20, 1), ("_id", 0, 4), ("_id", 90, 1), ("_id", 0, 4)]),
        ("owed <= EUR 1.00 and not owed <= EUR 0.90", [("_id", 10, 1), ("_id", 0, 6), ("_id", 20, 1), ("_id", 0, 6), ("", 0, 6)]),
        # What the database decides.
        ("owed >= EUR 0.95", [("", 0, 6)]),
        ("site is a and owed >= EUR 0.95", [("", 0, 6)]),
        ("owed >= EUR 0.95 or owed >= EUR 0.96", [("", 0, 6)]),
        ("not owed >= EUR 0.95", [("", 0, 6)]),
        ("owed = EUR 0.95 and visits >= 0", [("", 0, 6)]),
    ],
)  # fmt: skip
async def test_a_page_of_ranges_is_of_the_smallest_or_along_the_ids(
    reader: Reader, text: str, asked: list[tuple[str, int, int]]
) -> None:
    for number in range(100):
        owed = {"EUR": number}
        thing = {"sums": {"owed": owed}, "visits": number % 10, "month": {"2026-02": owed}, "site": "a"}
        await reader.mongo.insert_new(COLLECTION, {"_id": f"{number:04d}", **thing})
    mongo = Asked(reader.mongo)
    small = replace(reader, mongo=mongo, narrow_max=10, first_looked_at=10, looked_at=20)
    condition = from_text(text, FIELDS)
    page = await small.page(Scope.all(), Question(condition), "me", limit=5)
    wanted = [one for one in range(100) if holds(condition, await _one(reader, one), FIELDS, TODAY)]
    assert [int(one["_id"]) for one in page.documents] == wanted[:5]
    assert (page.next is not None, mongo.asked) == (len(wanted) > 5, asked)


async def _one(reader: Reader, number: int) -> Document:
    return await reader.mongo.find_one(COLLECTION, {"_id": f"{number:04d}"}) or {}


OF_A_SITE = Scope.where(
    Or(conditions=(IsAmong(field="site", values=("a",)), Not(condition=IsKnown(field="site"))))
)


@pytest.mark.parametrize(
    ("text", "counted_of_range_max", "counts", "finds"),
    [
        # 5 of site a and 5 of none: they are read at once, whatever is asked of them.
        ("owed >= EUR 0.02 and visits >= 0", 100, ["site"], ["site"]),
        ("owed = EUR 0.20 and visits >= 0", 100, ["site"], ["site"]),
        ("owed >= EUR 0.02", 100, ["site"], ["site"]),
        ("marks has x", 100, ["site"], ["site"]),
        # A range that has fewer is read instead; they are counted in the scope all the same.
        ("owed >= EUR 0.95 and visits >= 0", 100, ["site"], ["sums.owed.EUR"]),
        # As many as the scope has are not counted: it is as if everybody saw all.
        ("owed >= EUR 0.02 and visits >= 0", 9, [""], ["_id"]),
        ("owed = EUR 0.20 and visits >= 0", 9, [""], [""]),
    ],
)
async def test_who_sees_a_part_is_served_from_the_index_of_its_scope(
    reader: Reader, text: str, counted_of_range_max: int, counts: list[str], finds: list[str]
) -> None:
    for number in range(100):
        site = "a" if number % 20 == 0 else None if number % 20 == 1 else "b"
        thing = {"sums": {"owed": {"EUR": number}}, "visits": number % 10, "site": site, "marks": ["x"]}
        await reader.mongo.insert_new(COLLECTION, {"_id": f"{number:04d}", **thing})
    mongo = Asked(reader.mongo)
    small = replace(
        reader,
        mongo=mongo,
        narrow_max=10,
        first_looked_at=10,
        looked_at=20,
        counted_of_range_max=counted_of_range_max,
    )
    condition = from_text(text, FIELDS)
    things = [await _one(reader, number) for number in range(100)]
    wanted = [int(one["_id"]) for one in found_in(things, condition, OF_A_SITE, FIELDS, TODAY)]
    assert (await small.count(OF_A_SITE, Question(condition))).count == len(wanted)
    assert mongo.counted[-1:] == counts
    page = await small.page(OF_A_SITE, Question(condition), "me", limit=5)
    assert [int(one["_id"]) for one in page.documents] == wanted[:5]
    assert [mongo.asked[-1][0]] == finds
    everybody = await small.page(Scope.all(), Question(condition), "me", limit=5)
    assert len(everybody.documents) >= len(page.documents)


async def test_a_scope_of_several_values_or_of_a_negation_is_left_to_the_database(reader: Reader) -> None:
    for number in range(30):
        await reader.mongo.insert_new(COLLECTION, some_thing(Random(number), number))
    seen, condition = IsKnown(field="seen_on"), from_text("owed >= EUR 0.00 and visits >= 0", FIELDS)
    of_a = IsAmong(field="site", values=("a",))
    for beyond in (And(conditions=(of_a, seen)), Or(conditions=(of_a, seen)), Not(condition=of_a), seen):
        scope, mongo = Scope.where(beyond), Asked(reader.mongo)
        asked_of = replace(reader, mongo=mongo)
        page = await asked_of.page(scope, Question(condition), "me", limit=50)
        things = [await _one(reader, number) for number in range(30)]
        both = found_in(things, condition, scope, FIELDS, TODAY)
        assert [one["_id"] for one in page.documents] == [one["_id"] for one in both]
        assert [hint for hint, _, _ in mongo.asked] == [""]


async def test_a_page_needs_no_index_that_is_not_there_yet(reader: Reader) -> None:
    await reader.mongo.insert_new(COLLECTION, {"_id": "1", "visits": 7})
    await reader.mongo.settle_indexes(COLLECTION, ())
    with pytest.raises(IndexMissing):
        await reader.mongo.find(COLLECTION, hint=(("visits", 1),))
    found = await reader.page(
        Scope.all(), Question(from_text("visits > 1 and visits < 9", FIELDS)), "me", limit=5
    )
    assert [one["_id"] for one in found.documents] == ["1"]


class Dropping(Mongo):
    """A database whose indexes are dropped before the first query that returns documents."""

    def __init__(self, mongo: Mongo) -> None:
        super().__init__(mongo._client, mongo.name, mongo.driver)

    @override
    async def find(self, *asked: Any, **options: Any) -> list[Document]:
        await self.settle_indexes(COLLECTION, ())
        return await super().find(*asked, **options)


@pytest.mark.parametrize("narrow_max", [0, 10])
async def test_an_index_that_is_dropped_after_it_was_chosen_is_not_needed(
    reader: Reader, narrow_max: int
) -> None:
    for number in range(20):
        await reader.mongo.insert_new(COLLECTION, {"_id": f"{number:02d}", "visits": number})
    small = replace(reader, mongo=Dropping(reader.mongo), narrow_max=narrow_max, first_looked_at=5)
    condition = from_text("visits > 15 and visits < 19", FIELDS)
    found = await small.page(Scope.all(), Question(condition), "me", limit=5)
    assert [one["_id"] for one in found.documents] == ["16", "17", "18"]


def test_a_sort_or_a_pair_or_what_is_behind_without_an_index_is_not_declared() -> None:
    for sort in ("owed", "owed.USD", "visits.EUR", "marks", "month", "nothing"):
        with pytest.raises(ValueError, match=sort):
            Listing("things", "things", "all", FIELDS, (sort,), ("EUR",))
        with pytest.raises(ValueError, match=sort):
            Listing("things", "things", "all", FIELDS, (), ("EUR",), (("site", sort),))
        with pytest.raises(ValueError, match=sort):
            Listing("things", "things", "all", FIELDS, (), ("EUR",), behind=(("site", sort),))


@pytest.mark.parametrize(
    ("where", "as_of", "said"),
    [
        (None, None, ""),
        ("visits > 1", None, "visits > 1 as of 2026-12-31"),
        ("visits > 1", date(2025, 1, 1), "visits > 1 as of 2025-01-01"),
    ],
)
def test_a_condition_is_worded_with_its_day_and_is_the_same_question_on_another_day(
    where: Any, as_of: Any, said: str
) -> None:
    asked = question(LISTING, MAY, where, as_of=as_of)
    assert asked.on(date(2026, 12, 31)).worded() == said
    assert asked.named()[-1] == (None if as_of is None else as_of.isoformat())
