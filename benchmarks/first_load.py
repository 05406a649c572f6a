"""[first_load] a bank comes in for the first time: parties, accounts and postings, until every panorama is right.

Every role runs in a process of its own while one feed is booked; the time ends when every customer is registered and
shown with the right balance. The limit is a bulk upsert of the very same documents into the same MongoDB by one client
that has nothing else to do. Before that, [first_load_policy]: how many customers a second the policy registers that
reads all of it and wants one event in eight; its limit is the rate that is wanted of it.

    python benchmarks/first_load.py [--customers N]
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import psycopg
from chassis import heap
from chassis.opening import opened_keys
from chassis.read.generations import ViewReader
from chassis.read.mongo import Mongo
from chassis.write.store import Recorder
from customer.catalogue import SCHEMA as CUSTOMER_SCHEMA
from customer.connections import outside_ids
from customer.settings import CustomerSettings
from customer.views import VIEWS, asset_panorama, customers
from ingest import MadeFeed
from panorama_projection import CLOCK, LOOK_SECONDS, bulk_written, head, roles, say, system
from sync_ingest.bootstrap import opened
from sync_ingest.domain.records import AccountRecord, HolderRecord, PartyRecord, Posting
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings

FIRST_LOAD_WANTED = 0.25
POLICY_CUSTOMERS_WANTED = 3_000
POSTINGS_EACH = 5
EVENTS_EACH = 2
"""Of a customer's own: registered, linked."""
SHARE_BEFORE = 5
"""One customer in so many comes in before: the policy is measured with them, and every role is warm then."""
LOOKS_MIN = 10
"""While the policy registers. What is over after fewer is not measured."""
PATIENCE_SECONDS = 1_800.0
SOURCE = "bench"
ALL = (("sync_ingest", "relay"), ("customer", "views"), ("customer", "policies"), ("customer", "relay"))


class TooFewCustomers(Exception):
    """The policy is done before it is measured."""


def amounts(number: int) -> list[int]:
    """What moves on the account of a customer."""
    chance = Random(number)
    return [chance.randrange(-100_000, 200_000) or 1 for _ in range(POSTINGS_EACH)]


class MadeBank(MadeFeed):
    """A bank's first feed, made while it is read: so many customers, each with an account and its postings."""

    @staticmethod
    def _make(postings: int, first: int) -> Iterator[bytes]:
        encode, today = msgspec.json.Encoder().encode, CLOCK.now().date()
        for number in range(first, first + postings):
            party, account = f"{number:08d}", f"6210{number:012d}"
            records: list[msgspec.Struct] = [
                PartyRecord(
                    party=party, name="王小明", phone=f"138{number % 10**8:08d}", address="北京市海淀区"
                ),
                AccountRecord(account=account, opened_on=today - timedelta(days=60), currency="CNY"),
                HolderRecord(account=account, party=party, role="owner"),
            ]
            records += [
                Posting(
                    account=account,
                    core_transaction_id=f"{number:08d}-{at}",
                    amount_minor=amount,
                    currency="CNY",
                    booked_on=today - timedelta(days=at),
                    kind="card",
                    text="转账",
                )
                for at, amount in enumerate(amounts(number))
            ]
            for record in records:
                yield encode(record) + b"\n"


def written(folder: Path, first: int, many: int) -> Path:
    """The file of a feed of so many customers: what it costs to make is not measured."""
    file = folder / f"bank-{first}.jsonl"
    with file.open("wb") as out:
        made = MadeBank(many, first)
        while part := made.read(1 << 20):
            out.write(part)
    return file


def book(settings: SyncIngestSettings, feed: Path) -> None:
    """Takes a feed in."""
    with opened(settings) as ingest:
        content = FeedContent(feed.name, partial(feed.open, "rb"))
        ingest.keep(SOURCE, content, format="canonical")


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, for some time."""
    end = CLOCK.monotonic() + PATIENCE_SECONDS
    while not await asyncio.to_thread(condition):
        if CLOCK.monotonic() > end:
            raise RuntimeError("what was waited for does not come")
        await CLOCK.sleep(LOOK_SECONDS)


async def right(settings: SyncIngestSettings, many: int) -> None:
    """Waits until so many customers are registered, and everything that is stored is shown."""
    ingested = head(settings)
    recorder = Recorder(settings.postgres_url, CUSTOMER_SCHEMA)
    mongo = Mongo.connect(settings.mongo_url)
    try:
        await until(lambda: recorder.head_position() >= EVENTS_EACH * many)
        views = ViewReader(mongo, CLOCK, VIEWS)
        for context, position in (("ingest", ingested), ("customer", recorder.head_position())):
            if not await views.wait_for(context, position, PATIENCE_SECONDS):
                raise RuntimeError("the views do not catch up")
    finally:
        recorder.close()
        await mongo.close()


async def check(settings: SyncIngestSettings, many: int) -> None:
    """Every customer is linked to its party, and the account of the party has the balance that was booked."""
    mongo = Mongo.connect(settings.mongo_url)
    known = {"postgres_url", "keys_url", "mongo_url", "kafka_url", "data", "environment"}
    own = CustomerSettings(**settings.model_dump(include=known))
    async with opened_keys(own, CLOCK) as ring:
        ids = await outside_ids(own, ring)
    views = ViewReader(mongo, CLOCK, VIEWS)
    linked = set()
    async for page in mongo.pages(await views.collection(customers.VIEW.name, customers.CUSTOMERS)):
        linked |= {party["party_id"] for one in page for party in one["parties"]}
    balances = {}
    async for page in mongo.pages(await views.collection(asset_panorama.VIEW.name, asset_panorama.ACCOUNTS)):
        for one in page:
            [holder] = one["holders"]
            balances[one["_id"]] = (holder["party_id"], one["balances"]["CNY"]["minor"])
    assert len(linked) == len(balances) == many, (len(linked), len(balances), many)
    for number in range(many):
        party = str(ids.party(SOURCE, f"{number:08d}"))
        assert party in linked, number
        assert balances[str(ids.account(SOURCE, f"6210{number:012d}"))] == (party, sum(amounts(number)))
    await mongo.close()


async def registering(settings: SyncIngestSettings, many: int) -> float:
    """Customers that the policy registers a second, without the first tenth."""
    recorder = Recorder(settings.postgres_url, CUSTOMER_SCHEMA)
    first, last = EVENTS_EACH * (many // 10), EVENTS_EACH * many
    seen: list[tuple[float, int]] = []

    def enough() -> bool:
        position = recorder.head_position()
        if position >= first:
            seen.append((CLOCK.monotonic(), position))
        return position >= last

    try:
        await until(enough)
    finally:
        recorder.close()
    return registered_a_second(seen)


def registered_a_second(seen: Sequence[tuple[float, int]]) -> float:
    """The customers of these looks, each a time and a position; raises TooFewCustomers."""
    if len(seen) < LOOKS_MIN:
        raise TooFewCustomers(f"the policy was done after {len(seen)} looks, and {LOOKS_MIN} make a figure")
    (began, before), (ended, after) = seen[0], seen[-1]
    return (after - before) / EVENTS_EACH / (ended - began)


def measured(settings: SyncIngestSettings, many: int) -> tuple[float, float, float]:
    """Customers a second: by the policy alone, by all roles until they are shown, and by a bulk write."""
    before = many // SHARE_BEFORE
    book(settings, written(settings.data, 0, before))
    feed = written(settings.data, before, many)
    with roles(settings, ("sync_ingest", "relay")):
        asyncio.run(until_published(settings))
    with roles(settings, ("customer", "policies")):
        policy = asyncio.run(registering(settings, before))
    with roles(settings, *ALL):
        asyncio.run(right(settings, before))
        began = CLOCK.monotonic()
        book(settings, feed)
        asyncio.run(right(settings, before + many))
        rate = many / (CLOCK.monotonic() - began)
    asyncio.run(check(settings, before + many))
    _, seconds = bulk_written(settings.mongo_url)
    return policy, rate, (before + many) / seconds


async def until_published(settings: SyncIngestSettings) -> None:
    """Waits until the relay has published everything that is stored."""
    stored = head(settings)

    def published() -> bool:
        with psycopg.connect(settings.postgres_url) as connection:
            [exists] = connection.execute(
                "select to_regclass('store_ingest.relay') is not null"
            ).fetchone() or [False]
            found = exists and connection.execute("select max(position) from store_ingest.relay").fetchone()
            return bool(found) and (found[0] or 0) >= stored

    await until(published)


def main() -> int:
    """Measures and prints; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--customers", type=int, default=100_000)
    given = parser.parse_args()
    heap.for_batches()  # as `crm` and every role do
    try:
        with system() as settings:
            policy, rate, limit = measured(settings, given.customers)
    except TooFewCustomers as few:
        parser.error(f"--customers {given.customers} are too few to measure: {few}")
    say("first_load_policy", policy, "customers/s", POLICY_CUSTOMERS_WANTED, policy / POLICY_CUSTOMERS_WANTED)
    say("first_load", rate, "customers/s", limit, rate / limit)
    return 0 if rate / limit >= FIRST_LOAD_WANTED and policy >= POLICY_CUSTOMERS_WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
