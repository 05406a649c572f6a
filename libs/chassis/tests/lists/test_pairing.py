"""Counts of conditions on amounts of months that are declared as pairs, over a real database."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from random import Random
from typing import Any

import pytest
from chassis.conditions import DataClass, Field, Fields, Label, Type, from_text
from chassis.conditions.language import AmountIs, And, Condition, IsAmong, MonthAmountIs, Not, NumberIs, Or
from chassis.conditions.language import Relation as R
from chassis.conditions.predicate import month_of
from chassis.lists import Ago, Counted, Cursors, Listing, Question, Reader, Scope
from chassis.lists.pairing import magnitude, paired
from chassis.read.documents import Document
from chassis.read.mongo import Mongo
from typing_extensions import override

from .collection import COLLECTION, Live, fill, found_in

TODAY = date(2026, 3, 1)
FIELDS = Fields(
    [
        Field("owed", Type.AMOUNT, Label("欠款", "sum owed"), "owed", DataClass.INTERNAL),
        Field("month", Type.MONTHLY, Label("月欠款", "owed in a month"), "sums.month", DataClass.INTERNAL),
        Field("mean", Type.MONTHLY, Label("月均欠款", "mean of a month"), "mean", DataClass.INTERNAL),
        Field("visits", Type.NUMBER, Label("次数", "number of visits"), "visits", DataClass.INTERNAL),
        Field("site", Type.CHOICE, Label("地点", "place"), "site", DataClass.INTERNAL),
    ]
)
LAST = Ago("mean", 1, "EUR")
TOGETHER = ((LAST, "owed.EUR"), (LAST, Ago("month", 3, "EUR")), ("visits", Ago("month", 2, "EUR")))
LISTING = Listing("things", "things", "all", FIELDS, (), ("EUR",), TOGETHER)
EDGES = (-(9 * 10**15), -6, -4, 0, 4, 5, 6, 7, 2**31, 9 * 10**15)


@pytest.fixture
async def reader(mongo: Mongo) -> Reader:
    for index in LISTING.indexes:
        await mongo.index(COLLECTION, index.fields)
    return Reader(LISTING, mongo, Live(), Cursors(lambda _: bytes(32)), lambda: TODAY)


def some_thing(chance: Random, number: int) -> dict[str, Any]:
    """A document that was derived in this month, the last or the next. Its earliest months may be unknown."""
    day = chance.choice((TODAY, TODAY, TODAY - timedelta(days=1), TODAY + timedelta(days=40)))

    def amounts() -> dict[str, int]:
        return {currency: chance.choice(EDGES) for currency in ("EUR", "USD") if chance.random() < 0.8}

    def months() -> dict[str, dict[str, int]]:
        return {month_of(ago, day): amounts() for ago in range(1, chance.randint(1, 4) + 1)}

    found = {
        "owed": amounts(),
        "visits": chance.choice((0, 7, None)),
        "site": chance.choice(("a", "b", None)),
    }
    found |= {"sums": {"month": months()}, "mean": months()}
    kept = {name: value for name, value in found.items() if chance.random() < 0.95}
    return {"_id": f"{number:04d}", **kept, **LISTING.months_ago(kept, day)}


def some_condition(chance: Random, as_of: date) -> Condition:
    def amount(field: str) -> dict[str, Any]:
        return {
            "field": field,
            "relation": chance.choice(tuple(R)),
            "currency": "EUR" if chance.random() < 0.9 else "USD",
            "amount_minor": chance.choice(EDGES),
        }

    def of_month(field: str, ago: int) -> MonthAmountIs:
        month = ago if chance.random() < 0.5 else month_of(ago, as_of)
        return MonthAmountIs(**amount(field), month=month)

    clauses: list[Condition] = [
        of_month("mean", 1),
        of_month("month", chance.choice((2, 3))),
        chance.choice(
            (
                AmountIs(**amount("owed")),
                NumberIs(field="visits", relation=chance.choice(tuple(R)), number=chance.choice((0, 7))),
                of_month("mean", chance.choice((1, 2))),
            )
        ),
    ]
    others: list[Condition] = [
        IsAmong(field="site", values=("a",)),
        Not(condition=of_month("mean", 1)),
        Not(condition=AmountIs(**amount("owed"))),
        Or(conditions=(of_month("month", 3), AmountIs(**amount("owed")))),
        And(conditions=(of_month("mean", 1), AmountIs(**amount("owed")))),
    ]
    some = chance.sample(clauses, chance.choice((2, 2, 3))) + chance.sample(others, chance.choice((0, 0, 1)))
    chance.shuffle(some)
    both = And(conditions=tuple(some))
    return Not(condition=both) if chance.random() < 0.1 else both


async def test_counts_and_pages_are_what_python_finds(reader: Reader) -> None:
    chance = Random(7)
    things = [some_thing(chance, number) for number in range(150)]
    await fill(reader.mongo, things)
    of_pairs, sizes = 0, set[int]()
    for _ in range(400):
        as_of = chance.choice((TODAY, TODAY, TODAY, TODAY - timedelta(days=20), TODAY + timedelta(days=31)))
        condition = some_condition(chance, as_of)
        site = IsAmong(field="site", values=("a", "b"))
        scope = chance.choice((Scope.all(), Scope.all(), Scope.where(site), Scope.nothing()))
        there = found_in(things, condition, scope, FIELDS, as_of)
        first, enough, most = chance.choice((3, 30)), chance.choice((9, 99)), chance.choice((3, 60, 999))
        some = replace(reader, counted_of_range_max=most, first_looked_at=first, looked_at=enough)
        some = replace(some, narrow_max=chance.choice((0, 40, 999)))
        wanted = Question(condition, as_of=as_of)
        assert await some.count(scope, wanted) == Counted(len(there), False), (condition, as_of, scope)
        assert await some.count(scope, wanted, 4) == Counted(min(len(there), 4), len(there) > 4)
        assert await paged(some, scope, wanted) == [one["_id"] for one in there], (condition, as_of)
        of_pairs += paired(condition, LISTING.monthly_pairs, FIELDS, as_of, TODAY) is not None
        sizes.add(len(there))
    assert of_pairs > 100
    assert len(sizes) > 20


async def paged(reader: Reader, scope: Scope, wanted: Question) -> list[str]:
    """The ids on all pages."""
    found, after = list[str](), None
    while True:
        page = await reader.page(scope, wanted, "me", limit=20, after=after)
        found += [one["_id"] for one in page.documents]
        if (after := page.next) is None:
            return found


async def examined(reader: Reader, text: str) -> tuple[int, int]:
    """Keys and documents that are examined to count by the index of a pair."""
    condition = from_text(text, FIELDS)
    where = reader._where(Scope.all(), condition, TODAY)
    found = paired(condition, LISTING.monthly_pairs, FIELDS, TODAY, TODAY)
    assert found is not None
    asked_for = {
        "count": COLLECTION,
        "query": found.counted(where, alone=found.alone),
        "hint": dict(found.span.indexed),
    }
    reply = await reader.mongo.command({"explain": asked_for, "verbosity": "executionStats"})
    stats = reply["executionStats"]
    return stats["totalKeysExamined"], stats["totalDocsExamined"]


async def test_a_pair_is_counted_from_the_keys_of_those_that_meet_both(reader: Reader) -> None:
    for number in range(1_000):
        facts = {"owed": {"EUR": number}, "mean": {"2026-02": {"EUR": 1_000 - number}}}
        facts |= {"sums": {"month": {"2025-12": {"EUR": number}}}, "site": "a" if number % 2 else "b"}
        document = {"_id": f"{number:04d}", **facts, **LISTING.months_ago(facts, TODAY)}
        await reader.mongo.insert_new(COLLECTION, document)
    for text in (
        "owed >= EUR 5.00 and mean in last month < EUR 0.64",
        "month in 3 months ago >= EUR 5.00 and mean in 2026-02 < EUR 0.64",
    ):
        assert (await reader.count(Scope.all(), Question(from_text(text, FIELDS)))).count == 63
        keys, documents = await examined(reader, text)
        # One meets one of both for each that meets both, and each magnitude is begun and ended at a key.
        assert (keys < 63 + 100, documents) == (True, 0), text
    both = "owed >= EUR 5.00 and mean in last month < EUR 0.64 and site is a"
    assert (await reader.count(Scope.all(), Question(from_text(both, FIELDS)))).count == 32
    assert (await examined(reader, both))[1] == 63


class Noting(Mongo):
    """A database that notes which index each query names."""

    def __init__(self, mongo: Mongo) -> None:
        super().__init__(mongo._client, mongo.name, mongo.driver)
        self.counts, self.finds = list[str](), list[str]()

    @override
    async def count(self, *asked: Any, **options: Any) -> int:
        self.counts.append(named(options.get("hint")))
        return await super().count(*asked, **options)

    @override
    async def find(self, *asked: Any, **options: Any) -> list[Document]:
        self.finds.append(named(options.get("hint")))
        return await super().find(*asked, **options)


def named(fields: Sequence[tuple[str, int]] | None) -> str:
    return " ".join(name for name, _ in fields or ())


async def test_what_a_pair_does_not_narrow_is_left_to_the_database(reader: Reader) -> None:
    for number in range(20):
        facts = {"owed": {"EUR": number}, "mean": {"2026-02": {"EUR": number}}, "site": "ab"[number % 2]}
        document = {"_id": f"{number:04d}", **facts, **LISTING.months_ago(facts, TODAY)}
        await reader.mongo.insert_new(COLLECTION, document)
    both = "owed >= EUR 0.00 and mean in last month >= EUR 0.00"
    index = named(LISTING.monthly_pairs[0].indexed.fields)
    for text, most, count, hints in (
        (both, 10, 20, [index, index]),
        (f"{both} and site is a", 10, 10, [index, ""]),
        (f"{both} and site is a", 20, 10, [index, index]),
        ("mean in last month >= EUR 0.00", 10, 20, [""]),
    ):
        mongo = Noting(reader.mongo)
        some = replace(reader, mongo=mongo, counted_of_range_max=most)
        assert (await some.count(Scope.all(), Question(from_text(text, FIELDS)))).count == count
        assert mongo.counts == hints, text
    site = IsAmong(field="site", values=("a",))
    assert (await reader.count(Scope.where(site), Question(from_text(both, FIELDS)))).count == 10
    await reader.mongo.settle_indexes(COLLECTION, ())
    assert (await reader.count(Scope.all(), Question(from_text(both, FIELDS)))).count == 20


async def test_documents_of_another_month_are_found_too_and_too_many_of_them_not_by_a_pair(
    reader: Reader,
) -> None:
    for number in range(30):
        facts = {"owed": {"EUR": number}, "mean": {"2026-02": {"EUR": 30 - number}}}
        day = TODAY + timedelta(days=31) if number > 25 else TODAY
        document = {"_id": f"{number:04d}", **facts, **LISTING.months_ago(facts, day)}
        await reader.mongo.insert_new(COLLECTION, document)
    question = Question(from_text("owed >= EUR 0.10 and mean in last month <= EUR 0.10", FIELDS))
    index = named(LISTING.monthly_pairs[0].indexed.fields)
    for most, counts, finds in ((30, [index, index], [index]), (3, [index, ""], ["_id", "_id"])):
        mongo = Noting(reader.mongo)
        some = replace(reader, mongo=mongo, counted_of_range_max=most)
        assert (await some.count(Scope.all(), question)).count == 10
        assert mongo.counts == counts
        assert await paged(some, Scope.all(), question) == [f"{number:04d}" for number in range(20, 30)]
        assert mongo.finds == finds


def test_a_magnitude_does_not_fall_where_the_amount_rises() -> None:
    amounts = sorted(
        {sign * (2**power + near) for sign in (-1, 1) for power in range(64) for near in (-1, 0, 1)}
    )
    found = [magnitude(minor) for minor in amounts]
    assert found == sorted(found)
    assert len(set(found)) > 64


def test_only_a_field_of_months_is_declared_with_how_long_ago() -> None:
    for field in ("owed", "nothing"):
        with pytest.raises(ValueError, match=field):
            Listing("things", "things", "all", FIELDS, (), ("EUR",), (("visits", Ago(field, 1, "EUR")),))
