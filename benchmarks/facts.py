"""[facts] conditions on the facts of customers: counts and first pages, of the whole bank and within the scope of a branch,
beside the bare scan of an index; and the sums of branches: one bucket, beside the reading of its documents, and all buckets.
One line of JSON each, and on the standard error what each condition finds and takes at most.

    python benchmarks/facts.py [--customers N] [--rounds N]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from functools import partial
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import uvloop
from chassis.clock import SystemClock
from chassis.conditions import from_text
from chassis.lists import Cursors, Question, Reader, Scope
from chassis.lists.finding import COUNTED_MAX
from chassis.privacy.tokens import Caller
from chassis.read.documents import ID, SEQUENCE, Change
from chassis.read.generations import Generations, ViewReader
from chassis.read.mongo import Mongo, MongoDocuments
from chassis.read.summing import BUCKET, Summing, SumsReader
from contracts.roles import RELATIONSHIP_MANAGER
from customer.branches import SUMS
from customer.derived import DERIVED
from customer.derived.customer_facts import FACTS, VIEW, facts
from customer.facts import FIELDS
from customer.lists import FACTS_LIST, scope_of
from customer.months import whole_months
from customer.views import VIEWS
from devservers import servers

CLOCK = SystemClock()
TODAY = date(2026, 6, 30)
AT_ONCE = 2_000
PART = 50_000
CACHE = "cache_size=4G"
INDEX_MILLISECONDS_MAX = 600_000
"""To make one index of all customers."""
PROCESSES = os.cpu_count() or 1
COUNT_MILLISECONDS_WANTED = 100.0
PAGE_MILLISECONDS_WANTED = 50.0
BUCKET_MILLISECONDS_WANTED = 200.0
"""To sum the documents of one bucket."""
SUMS_MILLISECONDS_WANTED = 1_000.0
"""To read all buckets, as a process does that has read none."""
PAGE = 50
WITHOUT_BRANCH_EVERY = 500
"""So many customers have one that no branch has yet, whom every branch sees."""
BRANCHES = tuple(f"支行{number:03d}" for number in range(200))
CONDITIONS: Final = (
    "aum >= CNY 500,000.00",
    "aum >= CNY 6,000,000.00",
    "aum_month_average in last month >= CNY 500,000.00",
    "aum_month_average in last month >= CNY 6,000,000.00 and branch is 支行042",
    "aum >= CNY 500,000.00 and branch is 支行007",
    "aum >= CNY 500,000.00 and aum_month_average in last month < CNY 500,000.00",
    "products has all (wealth, loan)",
    "products has deposit and not products has wealth and aum >= CNY 200,000.00",
    "net_worth < CNY 0.00",
    "aum_month_end in 2026-03 >= CNY 1,000,000.00 and aum < CNY 500,000.00",
    "last_movement_on within last 7 days",
    "not last_movement_on within last 90 days and aum >= CNY 100,000.00",
    "relations opened wealth within last 90 days",
    "relations granted loan within last 30 days",
    "aum_month_end in 12 months ago >= CNY 200,000.00 and aum_month_average in last month < CNY 50,000.00",
    "kind is company and deposits >= CNY 300,000.00",
    "currencies has USD and aum >= USD 10,000.00",
    "first_opened_on < 2010-01-01 and aum >= CNY 1,000,000.00",
    "questions has any (contradiction, reference)",
    "(wealth >= CNY 1,000,000.00 or aum >= CNY 3,000,000.00) and kind is person and branch is 支行100",
)

SCOPES: Final = {
    "": Scope.all(),
    "_of_branch": scope_of(Caller("lin", "支行042/desk", frozenset({RELATIONSHIP_MANAGER}))),
}
"""By the end of the names of its figures: who sees the whole bank, and who sees a branch and those of none."""


def filled(number: int, chance: Random) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A customer and its accounts as the views keep them, as far as facts are derived from them, moved in each month.

    Three customers in a hundred have CNY 500,000 or more."""
    customer, party = str(UUID(int=number + 1)), str(UUID(int=number + 1 << 64))
    company = chance.random() < 0.05
    branch = chance.choice(BRANCHES)
    found = {
        ID: customer,
        SEQUENCE: 2,
        "kind": "company" if company else "person",
        "origin": "master-data",
        "branch": branch if number % WITHOUT_BRANCH_EVERY else None,
        "questions": ["contradiction"] if chance.random() < 0.01 else [],
        "parties": [{"party_id": party, "source": "core", "sequence": 2, "from": None, "until": None}],
    }
    products = ["deposit"]
    products += [
        one for one, share in (("wealth", 0.3), ("card", 0.4), ("loan", 0.15)) if chance.random() < share
    ]
    accounts = []
    for at, product in enumerate(products):
        minor = int(chance.lognormvariate(13.0, 2.2)) * (-1 if product == "loan" else 1)
        opened = TODAY - timedelta(days=chance.randrange(20, 9_000))
        moved = TODAY - timedelta(days=int(chance.expovariate(1 / 40)))
        currency = "USD" if product == "deposit" and chance.random() < 0.03 else "CNY"
        accounts.append(
            {
                ID: str(UUID(int=(number + 1) << 32 | at)),
                SEQUENCE: 5,
                "source": "core",
                "product": product,
                "opened_on": opened.isoformat(),
                "closed_on": None,
                "currency": currency,
                "holders": [{"party_id": party, "role": "owner", "from": None, "until": None, "sequence": 2}],
                "cards": [],
                "loans": [],
                "orders": [],
                "repaid": {},
                "outflows": {},
                "months": {currency: months_of(minor, chance)},
                "balances": {currency: {"minor": minor, "movements": 3, "booked_through": moved.isoformat()}},
                "movements": 3,
                "booked_through": moved.isoformat(),
            }
        )
    return found, accounts


def months_of(minor: int, chance: Random) -> dict[str, list[int | str]]:
    """The months of an account that was moved in each of them, as the views keep them."""
    found: dict[str, list[int | str]] = {}
    for month in (TODAY.isoformat()[:7], *(one.month for one in whole_months(TODAY.isoformat()))):
        net = int(minor * chance.uniform(-0.6, 0.6))
        found[month] = [net, net * chance.randrange(1, 29)]
    return found


async def with_cache(url: str) -> None:
    """Gives the server a cache that holds the facts of a million customers and their indexes, as one in production has."""
    admin = Mongo.connect(url, database="admin")
    await admin.command({"setParameter": 1, "wiredTigerEngineRuntimeConfig": CACHE})
    await admin.close()


async def fill(mongo: Mongo, url: str, count: int) -> str:
    """A live generation of the facts of that many customers; its collection."""
    generations = Generations(mongo, VIEW, "customer", CLOCK)
    generation = await generations.begin()
    prefix = generations.documents(generation).prefix
    await mongo.settle_indexes(prefix + FACTS, ())  # made at the end, which is several times as fast
    parts = [(url, prefix, begin, min(begin + PART, count)) for begin in range(0, count, PART)]
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        for done in pool.map(made, parts):
            print(f"{done} of {count} customers", file=sys.stderr)
    for index in VIEW.collections[0].indexes:
        await mongo.index(prefix + FACTS, index.fields)
    await generations.switch(generation)
    return prefix + FACTS


def made(part: tuple[str, str, int, int]) -> int:
    """Writes the facts of some customers, in a process of its own; the number of the last one."""
    url, prefix, begin, end = part
    chance, day = Random(begin), TODAY.isoformat()

    async def write_all() -> None:
        mongo = Mongo.connect(url)
        documents = MongoDocuments(mongo, prefix)
        for at in range(begin, end, AT_ONCE):
            there = [filled(number, chance) for number in range(at, min(at + AT_ONCE, end))]
            found = [
                {ID: one[ID], SEQUENCE: 1, **VIEW.placed(one[ID], facts(one, own, day))} for one, own in there
            ]
            await write(documents, FACTS, found)
        await mongo.close()

    uvloop.run(write_all())
    return end


async def write(documents: MongoDocuments, collection: str, found: list[dict[str, Any]]) -> None:
    """Inserts documents."""
    changes = [Change(one[ID], None, one[SEQUENCE], documents.freeze(one)) for one in found]
    await documents.write(collection, changes)


async def timed(rounds: int, ask: Any) -> list[float]:
    """The milliseconds of some calls."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        await ask()
        found.append((time.perf_counter() - began) * 1000)
    return found


async def asked(mongo: Mongo, scope: Scope, rounds: int) -> tuple[float, float, list[str]]:
    """The p95 of counts and of first pages within a scope, and a line for each condition."""
    live = ViewReader(mongo, CLOCK, VIEWS, DERIVED)
    reader = Reader(FACTS_LIST, mongo, live, Cursors(lambda _: bytes(32)), lambda: TODAY)
    counts, pages, lines = list[float](), list[float](), list[str]()
    for text in CONDITIONS:
        condition = from_text(text, FIELDS)
        question = Question(condition)
        found = (await reader.count(scope, question)).count
        count = await timed(rounds, partial(reader.count, scope, question))
        page = await timed(rounds, partial(reader.page, scope, question, "benchmark", limit=PAGE))
        counts += count
        pages += page
        lines.append(f"{found:>7} {max(count):>8.1f} ms {max(page):>8.1f} ms  {text}")
    return p95(counts), p95(pages), lines


async def summed(mongo: Mongo, collection: str, rounds: int) -> tuple[float, float, float]:
    """The p95 of summing a bucket, of a read of its documents alone, and of reading the sums of all buckets anew."""
    documents = MongoDocuments(mongo, collection.removesuffix(FACTS))
    summing = Summing(SUMS, documents, FACTS)

    async def still() -> bool:
        return True

    async def read_all() -> None:
        live = ViewReader(mongo, CLOCK, VIEWS, DERIVED)
        await SumsReader(VIEW.name, SUMS, FACTS, mongo, live).read(lambda _: True)

    await summing.sum_all(still)
    fields = dict.fromkeys(SUMS.fields, 1)
    numbers = cycle(range(SUMS.buckets))
    buckets = await timed(rounds * 4, lambda: summing.computed(next(numbers)))
    alone = await timed(rounds * 4, lambda: mongo.find(collection, {BUCKET: next(numbers)}, fields=fields))
    return p95(buckets), p95(alone), p95(await timed(rounds * 4, read_all))


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


async def measured(url: str, count: int, rounds: int) -> int:
    """Prints the figures; 1 where one misses its limit."""
    mongo, missed = Mongo.connect(f"{url}&socketTimeoutMS={INDEX_MILLISECONDS_MAX}"), 0
    try:
        await with_cache(url)
        collection = await fill(mongo, url, count)
        scan = {"aum.CNY": {"$gte": 0}}
        bare = p95(await timed(rounds * 4, partial(mongo.count, collection, scan, limit=COUNTED_MAX + 1)))
        for end, scope in SCOPES.items():
            counts, pages, each = await asked(mongo, scope, rounds)
            for line in each:
                print(f"{end:<10} {line}", file=sys.stderr)
            for name, value, limit in (
                ("facts_counts", counts, COUNT_MILLISECONDS_WANTED),
                ("facts_pages", pages, PAGE_MILLISECONDS_WANTED),
            ):
                figure = {"name": f"{name}{end}_p95", "value": round(value, 1), "unit": "ms", "limit": limit}
                print(json.dumps({**figure, "index_scan": round(bare, 1), "customers": count}), flush=True)
                missed += value > limit
        bucket, alone, sums = await summed(mongo, collection, rounds)
        for name, value, limit, beside in (
            ("facts_bucket_p95", bucket, BUCKET_MILLISECONDS_WANTED, {"read_alone": round(alone, 1)}),
            ("facts_sums_p95", sums, SUMS_MILLISECONDS_WANTED, {}),
        ):
            figure = {"name": name, "value": round(value, 1), "unit": "ms", "limit": limit}
            print(json.dumps({**figure, **beside, "customers": count}), flush=True)
            missed += value > limit
    finally:
        await mongo.close()
    return int(missed > 0)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder), {"mongo"}, lambda _: None, durable=False) as running,
    ):
        return uvloop.run(measured(running.urls["MONGO_URL"], given.customers, given.rounds))


if __name__ == "__main__":
    sys.exit(main())
