"""The one suite for both drivers: what the class promises, and how a guarded write tells who lost."""

import asyncio
import gc
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import pytest
from chassis.read.documents import (
    Change,
    DocumentsSlow,
    DocumentsUnavailable,
    IndexMissing,
    Unwritable,
    Written,
)
from chassis.read.mongo import (
    COMMAND_WRITES_MAX,
    PAGE_DOCUMENTS,
    Frozen,
    Mongo,
    MongoDocuments,
    exact_sum,
    id_of,
    translated,
)
from pymongo.errors import OperationFailure

from tests.chaos.proxy import Proxy
from tests.support.mongo import SLOW

ID = UUID("8a7f6c1e-53a2-5d0a-9d3c-7a3d7f1f2b12")
AT = datetime(2026, 1, 5, 8, tzinfo=UTC)


def change(documents, expected, **document):
    return Change(document["_id"], expected, document["_seq"], documents.freeze(document))


async def test_what_is_written_is_read_as_it_was(both):
    document = {"_id": ID, "at": AT, "minor": 2**62, "text": "行", "list": [None, True, {"a": b"x"}]}
    assert await both.insert_new("c", document)
    assert not await both.insert_new("c", document | {"minor": 1})
    assert await both.find("c") == [document]
    assert await both.find_one("c", {"_id": ID}, fields={"minor": 1}) == {"_id": ID, "minor": 2**62}
    assert await both.find_one("c", {"_id": "nobody"}) is None


async def test_documents_are_had_as_the_bytes_that_were_written(both):
    documents = MongoDocuments(both, "")
    many = [
        change(documents, None, _id=f"{at}", _seq=1, minor=2**40 + at, text="行" * 2_000)
        for at in range(3_000)
    ]
    await documents.write("c", many)
    found = await documents.load_raw("c", [each.id for each in many] + ["nobody"])
    assert sorted(found) == sorted(each.frozen.raw for each in many)
    assert await documents.load_raw("c", []) == []
    pages = [page async for page in both.raw_pages("c")]
    assert [raw for page in pages for raw in page] == [
        each.frozen.raw for each in sorted(many, key=lambda one: one.id)
    ]
    assert len(pages) >= 3
    assert [page async for page in both.raw_pages("nowhere") if page] == []


async def test_an_aggregation_gives_raw_documents_with_their_ids(both):
    documents = MongoDocuments(both, "")
    many = [change(documents, None, _id=f"行{at}", _seq=1, text="x" * 1_000) for at in range(300)]
    await documents.write("c", many)
    found = await both.aggregate_raw("c", [{"$match": {"_seq": 1}}])
    assert {id_of(raw): raw for raw in found} == {each.id: each.frozen.raw for each in many}
    assert await both.aggregate_raw("c", [{"$match": {"_seq": 2}}]) == []
    assert id_of(documents.freeze({"_id": "", "a": 1}).raw) == ""
    for other in ({"_id": ID}, {"_id": 7}, {"a": "x"}, {}):
        with pytest.raises(ValueError, match="not an id that is text"):
            id_of(documents.freeze(other).raw)


def kinds(value):
    """The types of all values in a document."""
    if isinstance(value, dict):
        return {type(value)} | {kind for each in value.values() for kind in kinds(each)}
    if isinstance(value, list):
        return {type(value)} | {kind for each in value for kind in kinds(each)}
    return {type(value)}


@pytest.mark.parametrize("minor", [2**31 - 1, 2**31, -(2**31) - 1, 2**53, 10**15, 9 * 10**18, 2**63 - 1])
async def test_an_integer_is_a_plain_integer_however_large_and_however_it_is_asked_for(both, minor):
    document = {"_id": "a", "_seq": minor, "minor": minor, "in": {"list": [minor, {"n": minor}]}}
    documents = MongoDocuments(both, "")
    assert await documents.write("c", [Change("a", None, minor, documents.freeze(document))]) == Written(
        [], {}
    )
    answers = {
        "find": await both.find("c"),
        "find_one": [await both.find_one("c", {})],
        "load": [(await documents.load("c", ["a"]))["a"]],
        "pages": [one async for page in both.pages("c") for one in page],
        "aggregate": await both.aggregate("c", [{"$match": {"minor": minor}}]),
        "aggregate_raw": [
            Frozen(raw).thawed() for raw in await both.aggregate_raw("c", [{"$match": {"minor": minor}}])
        ],
        "frozen": [documents.freeze(document).thawed()],
    }
    for way, found in answers.items():
        assert found == [document], way
        assert kinds(found) == {list, dict, str, int}, way
        assert msgspec.json.decode(msgspec.json.encode(found)) == [document], way


async def test_a_sum_beyond_64_bits_is_exact(both):
    minors = [9 * 10**18, 9 * 10**18, 9 * 10**18, -1, 2**31]
    await both.command(
        {"insert": "c", "documents": [{"_id": at, "minor": minor} for at, minor in enumerate(minors)]}
    )
    [found] = await both.aggregate("c", [{"$group": {"_id": None, "minor": exact_sum("$minor")}}])
    assert found == {"_id": None, "minor": sum(minors)}
    assert type(found["minor"]) is int


async def test_updates_say_whether_they_met_something(both):
    assert await both.update("c", {"_id": 1}, {"$inc": {"n": 1}}) == 0
    assert await both.update("c", {"_id": 1}, {"$inc": {"n": 1}}, upsert=True) == 1
    assert await both.update("c", {"_id": 1, "n": 7}, {"$inc": {"n": 1}}, upsert=True) == 0
    assert (
        await both.update_each("c", [({"_id": 1}, {"$max": {"n": 5}}), ({"_id": 2}, {"$max": {"n": 5}})]) == 1
    )
    assert await both.find("c") == [{"_id": 1, "n": 5}]
    with pytest.raises(OperationFailure):
        await both.update("c", {"_id": 1}, {"$inc": {"_id": 1}})
    assert await both.delete("c", {}) == 1
    assert await both.count("c") == 0


async def test_order_limit_pages_and_aggregates(both):
    many = [{"_id": number, "group": number % 2} for number in range(2 * PAGE_DOCUMENTS + 1)]
    await both.command({"insert": "c", "documents": many})
    assert [d["_id"] for d in await both.find("c", order=[("_id", -1)], limit=2)] == [
        2 * PAGE_DOCUMENTS,
        2 * PAGE_DOCUMENTS - 1,
    ]
    pages = [page async for page in both.pages("c")]
    assert [len(page) for page in pages] == [PAGE_DOCUMENTS, PAGE_DOCUMENTS, 1]
    assert [document for page in pages for document in page] == many
    summed = await both.aggregate(
        "c", [{"$group": {"_id": "$group", "n": {"$sum": 1}}}, {"$sort": {"_id": 1}}]
    )
    assert summed == [{"_id": 0, "n": PAGE_DOCUMENTS + 1}, {"_id": 1, "n": PAGE_DOCUMENTS}]


async def test_a_count_is_bounded_and_names_its_index(both):
    await both.command({"insert": "c", "documents": [{"_id": at, "n": at % 3} for at in range(30)]})
    await both.index("c", [("n", 1), ("_id", 1)])
    assert await both.count("c") == 30
    assert await both.count("c", limit=7) == 7
    assert await both.count("c", {"n": {"$gte": 1}}) == 20
    assert await both.count("c", {"n": {"$gte": 1}}, limit=7, seconds_max=5) == 7
    assert await both.count("c", {"n": 1}, hint=[("n", 1), ("_id", 1)]) == 10
    assert await both.count("nothing", {"n": 1}) == 0
    for where in ({}, {"n": 1}):
        with pytest.raises(IndexMissing):
            await both.count("c", where, hint=[("m", 1)])
    with pytest.raises(DocumentsSlow):
        await both.count("c", SLOW, seconds_max=0.05)


async def test_a_count_whose_connection_breaks_is_asked_again(both, mongo_url):
    await both.command({"insert": "c", "documents": [{"_id": at, "n": at} for at in range(5)]})
    proxy = Proxy(("127.0.0.1", urlsplit(mongo_url).port))
    mongo = Mongo.connect(f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true", both.driver, both.name)
    try:
        assert await mongo.count("c", {"n": {"$gte": 2}}) == 3
        proxy.stall()
        counting = asyncio.create_task(mongo.count("c", {"n": {"$gte": 3}}))
        await asyncio.sleep(0.3)  # it is under way
        proxy.heal(cut=True)
        assert await counting == 2
    finally:
        await mongo.close()
        proxy.close()


async def test_who_looks_at_one_page_only_leaves_nothing_behind(both):
    many = [{"_id": number} for number in range(3 * PAGE_DOCUMENTS)]
    await both.command({"insert": "c", "documents": many})
    for _ in range(3):
        pages = both.pages("c")
        assert await anext(pages) == many[:PAGE_DOCUMENTS]
        await pages.aclose()
    assert await both.count("c") == len(many)
    assert [page async for page in both.pages("empty")] == []


async def test_collections_and_indexes_can_be_made_twice(both):
    for _ in range(2):
        await both.ensure("empty")
        await both.index("view_v1_c", [("a", 1), ("b", -1)], unique=True, partial={"a": {"$exists": True}})
    assert await both.collections() == ["empty", "view_v1_c"]
    await both.drop("empty")
    await both.drop("empty")
    assert await both.collections() == ["view_v1_c"]


@pytest.fixture
def documents(both):
    return MongoDocuments(both, "view_v1_")


async def test_a_guard_that_does_not_hold_is_a_conflict_and_the_others_are_written(documents):
    first = [change(documents, None, _id=name, _seq=1, n=0) for name in "abc"]
    assert await documents.write("c", first) == Written([], {})
    written = await documents.write(
        "c",
        [
            change(documents, 1, _id="a", _seq=2, n=1),
            change(documents, 9, _id="b", _seq=10, n=1),
            change(documents, None, _id="c", _seq=1, n=1),
            change(documents, None, _id="d", _seq=1, n=1),
            change(documents, 4, _id="e", _seq=5, n=1),
        ],
    )
    assert sorted(written.conflicts) == ["b", "c"]
    assert written.rejected == {}
    loaded = await documents.load("c", ["a", "b", "c", "d", "e", "nobody"])
    assert {name: document["n"] for name, document in loaded.items()} == {
        "a": 1,
        "b": 0,
        "c": 0,
        "d": 1,
        "e": 1,
    }


async def test_more_than_one_command_takes_is_written_and_each_loser_named(documents):
    many = COMMAND_WRITES_MAX + 10
    await documents.write("c", [change(documents, None, _id=ID, _seq=1)])
    ids = [f"d{number}" for number in range(many)]
    written = await documents.write("c", [change(documents, None, _id=one, _seq=1) for one in [*ids, ID]])
    assert written.conflicts == [ID]
    assert len(await documents.load("c", ids)) == many
    fat = "x" * 5_000_000
    written = await documents.write("c", [change(documents, 1, _id=one, _seq=2, fat=fat) for one in ids[:4]])
    assert not written.conflicts
    assert [d["_seq"] for d in (await documents.load("c", ids[:4])).values()] == [2] * 4


async def test_what_no_database_takes_is_refused_before_and_what_breaks_an_index_after(documents):
    for value in (2**64, object(), "x" * 16_000_001, {1: "a key that is no text"}):
        with pytest.raises(Unwritable):
            documents.freeze({"_id": "a", "_seq": 1, "value": value})
    await documents.mongo.index("view_v1_c", [("number", 1)], unique=True)
    changes = [change(documents, None, _id=name, _seq=1, number=7) for name in "ab"]
    written = await documents.write("c", changes)
    assert not written.conflicts
    assert written.rejected == {"b": "breaks a unique index: {'number': 1}"}


async def test_whose_guard_does_not_hold_is_found_among_many_and_in_any_company(documents):
    await documents.mongo.index("view_v1_c", [("number", 1)], unique=True, partial={"number": {"$gt": 0}})
    ids = [f"d{number}" for number in range(50)]
    await documents.write("c", [change(documents, None, _id=one, _seq=1, number=-1) for one in ids])
    await documents.write("c", [change(documents, None, _id="taken", _seq=1, number=7)])
    await documents.write(
        "c", [change(documents, 1, _id="d3", _seq=5), change(documents, 1, _id="d4", _seq=2)]
    )
    written = await documents.write(
        "c",
        [
            *[change(documents, 1, _id=one, _seq=2, number=7 if one == "d9" else -2) for one in ids],
            change(documents, 8, _id="gone", _seq=9, number=-2),
        ],
    )
    # d4 is at the same event and not the same; d5 is what it was to become, whoever did that.
    assert set(written.conflicts) == {"d3", "d4"}
    assert set(written.rejected) == {"d9"}
    loaded = await documents.load("c", ["d3", "d8", "d9", "gone"])
    assert [loaded[one]["_seq"] for one in ("d3", "d8", "d9", "gone")] == [5, 2, 1, 9]
    assert loaded["d3"].keys() == {"_id", "_seq"}


async def test_a_document_is_frozen_as_it_was(documents):
    document = {"_id": "a", "_seq": 1, "list": [1]}
    frozen = documents.freeze(document)
    document["list"].append(2)
    await documents.write("c", [Change("a", None, 1, frozen)])
    assert await documents.load("c", ["a"]) == {"a": {"_id": "a", "_seq": 1, "list": [1]}}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("driver", ["pymongo", "motor"])
async def test_a_server_that_is_not_there_is_said_to_be_unavailable(driver):
    mongo = Mongo.connect("mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100", driver)
    assert mongo.name == "crm"
    try:
        with pytest.raises(DocumentsUnavailable):
            await mongo.ping()
        with pytest.raises(DocumentsUnavailable):
            await mongo.find("c")
        with pytest.raises(DocumentsUnavailable):
            await anext(mongo.pages("c"))
    finally:
        await mongo.close()
        gc.collect()  # the drivers leave sockets of refused connections to the collector


async def test_the_database_is_the_one_of_the_url(mongo_url):
    mongo = Mongo.connect(mongo_url.replace("/?", "/elsewhere?"))
    assert mongo.name == "elsewhere"
    await mongo.close()


@pytest.mark.parametrize("code", [117, 215, 276])
def test_a_database_that_is_being_dropped_is_there_again_later(code):
    with pytest.raises(DocumentsUnavailable), translated():
        raise OperationFailure("Cannot create collection: database is in the process of being dropped", code)


async def test_indexes_become_those_that_are_declared_and_no_others_stay(both):
    first = [{"fields": (("a", 1),)}, {"fields": (("b", 1), ("_id", 1))}, {"fields": (("c", -1),)}]
    altered = {"fields": (("a", 1),), "unique": True, "partial": {"a": {"$exists": True}}}
    for wanted in (first, first, [altered, first[1]], [altered, first[1]], []):
        await asyncio.gather(both.settle_indexes("c", wanted), both.settle_indexes("c", wanted))
        there = await both.aggregate("c", [{"$indexStats": {}}])
        found = {tuple(one["key"].items()): one["spec"].get("unique", False) for one in there}
        assert found == {(("_id", 1),): False} | {one["fields"]: one.get("unique", False) for one in wanted}
        await both.ensure("c")
