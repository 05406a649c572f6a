"""[derived] how fast all facts of customers are derived, beside raw bulk upserts of the same documents; and how far the facts
are behind at half of the rate at which postings come to the panorama while facts are derived. One line of JSON each.

For the first, customers with accounts lie in MongoDB as the views keep them. For the second, every role runs in a process
of its own. The flow is on the accounts of 2,000 customers (ingest.py, ACCOUNTS), whatever `--customers` says. First
postings wait in the store, and the rate is that at which they come to the panorama; its limit is the rate without
customers and without deriving. Then postings flow into the store at half the rate. The lag of a posting is the time from its
commit until its customer's facts hold it, looked for at some of the customers; that of a batch, which is longer, is the
time until the checkpoints of the facts have passed all of its postings, as who waits for a position does.

    python benchmarks/derived.py [--customers N] [--postings N] [--paced-seconds S]
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import takewhile
from multiprocessing import get_context
from random import Random
from typing import Final

import msgspec
import uvloop
from chassis import heap
from chassis.messaging.broker import Kafka
from chassis.messaging.transport import Partition
from chassis.read.checkpoints import Position
from chassis.read.derived_following import DerivedFeed, live_inputs
from chassis.read.documents import ID, DocumentId
from chassis.read.generations import Generation, Generations, ViewReader
from chassis.read.mongo import Mongo, MongoDocuments
from chassis.read.mongo_checkpoints import MongoCheckpoints
from chassis.write.events import StoredEvent
from chassis.write.store import Recorder
from contracts.topics import EVENTS, partition_of
from customer.catalogue import SCHEMA as CUSTOMER_SCHEMA
from customer.derived import DERIVED
from customer.derived.customer_facts import FACTS, VIEW
from customer.views import VIEWS, asset_panorama, customers
from facts import AT_ONCE, PART, PROCESSES, TODAY, filled, with_cache, write
from first_load import EVENTS_EACH, until
from ingest import ACCOUNTS, MadeFeed
from panorama_projection import (
    BATCH_SECONDS,
    CLOCK,
    PATIENCE_SECONDS,
    WARM_POSTINGS,
    booked_elsewhere,
    passing,
    roles,
    say,
    sustained,
    system,
)
from sync_ingest.domain.records import AccountRecord, HolderRecord, PartyRecord, Posting
from sync_ingest.ledger import SCHEMA
from sync_ingest.settings import SyncIngestSettings

REBUILD_WANTED = 0.3
LAG_SECONDS_WANTED = 2.0
REBUILT: Final = "rebuilt"
"""The database of what is filled in, beside the one of the roles."""
RAW: Final = "raw_facts"
RELAY: Final = ("sync_ingest", "relay")
BESIDE: Final = (
    ("customer", "views"),
    ("customer", "policies"),
    ("customer", "relay"),
    ("customer", "derived"),
)
LOOK_SECONDS: Final = 0.05
WATCHED: Final = 100
"""Customers whose facts are looked at."""
DAYS: Final = 3
"""Days of the postings of a flow."""


class MadeFlow(MadeFeed):
    """Customers with an account each, then so many postings on their accounts, of today and the days before.

    A posting of a day long past would change an amount of every month since, which most postings of a day do not."""

    @staticmethod
    def _make(postings: int, first: int) -> Iterator[bytes]:
        chance = Random(first)
        yield from customers_made()
        for number in range(first, first + postings):
            yield posting_made(number, chance.randrange(ACCOUNTS), chance)


def customers_made() -> Iterator[bytes]:
    """Customers with an account each."""
    encode = msgspec.json.Encoder().encode
    for number in range(ACCOUNTS):
        party, account = f"{number:08d}", f"6210{number:012d}"
        yield encode(PartyRecord(party=party, name="王小明", phone=f"138{number:08d}")) + b"\n"
        yield encode(AccountRecord(account=account, opened_on=date(2020, 1, 1), currency="CNY")) + b"\n"
        yield encode(HolderRecord(account=account, party=party, role="owner")) + b"\n"


def posting_made(number: int, account: int, chance: Random) -> bytes:
    """A posting on the account of a customer."""
    posting = Posting(
        account=f"6210{account:012d}",
        core_transaction_id=f"{number:09d}",
        amount_minor=chance.randrange(-1_000_000, 1_000_000) or 1,
        currency="CNY",
        booked_on=CLOCK.now().date() - timedelta(days=chance.randrange(DAYS)),
        kind="transfer",
        text="转账",
    )
    return msgspec.json.encode(posting) + b"\n"


def filled_part(part: tuple[str, dict[str, str], int, int]) -> int:
    """Writes some customers and their accounts, in a process of its own; the number of the last one."""
    url, prefixes, begin, end = part
    chance = Random(begin)

    async def write_all() -> None:
        mongo = Mongo.connect(url, database=REBUILT)
        of_customers = MongoDocuments(mongo, prefixes[customers.VIEW.name])
        of_accounts = MongoDocuments(mongo, prefixes[asset_panorama.VIEW.name])
        for at in range(begin, end, AT_ONCE):
            made = [filled(number, chance) for number in range(at, min(at + AT_ONCE, end))]
            await write(of_customers, customers.CUSTOMERS, [one for one, _ in made])
            await write(of_accounts, asset_panorama.ACCOUNTS, [account for _, own in made for account in own])
        await mongo.close()

    uvloop.run(write_all())
    return end


async def fill(mongo: Mongo, url: str, count: int) -> None:
    """Live generations of the inputs, with that many customers."""
    prefixes = {}
    for view in VIEWS:
        generations = Generations(mongo, view, "customer", CLOCK)
        generation = await generations.begin()
        await generations.switch(generation)
        prefixes[view.name] = generation.prefix
    parts = [(url, prefixes, begin, min(begin + PART, count)) for begin in range(0, count, PART)]
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        for done in pool.map(filled_part, parts):
            print(f"{done} of {count} customers", file=sys.stderr)


async def derive_all(mongo: Mongo) -> tuple[str, float]:
    """Derives all facts; the collection, and the seconds that it took."""
    generations = Generations(mongo, VIEW, "customer", CLOCK)
    generation = await generations.begin(inputs=await live_inputs(generations))
    feed = await DerivedFeed.of(generations, generation, Kafka("127.0.0.1:9"), CLOCK, lambda: TODAY)
    began = time.perf_counter()
    await feed.derive_all(asyncio.Event())
    return generation.prefix + FACTS, time.perf_counter() - began


async def upsert_all(mongo: Mongo, facts: str) -> float:
    """The seconds that raw bulk upserts of the same documents take, with the same indexes."""
    for index in VIEW.collections[0].indexes:
        await mongo.index(RAW, index.fields)
    took = 0.0
    async for page in mongo.pages(facts):
        writes = [({ID: one[ID]}, [{"$replaceWith": {"$literal": one}}]) for one in page]
        began = time.perf_counter()
        await mongo.update_each(RAW, writes, upsert=True)
        took += time.perf_counter() - began
    await mongo.drop(RAW)
    return took


async def rebuilt(url: str, count: int) -> tuple[float, float]:
    """Customers a second: derived, and upserted."""
    mongo = Mongo.connect(url, database=REBUILT)
    try:
        await with_cache(url)
        await fill(mongo, url, count)
        facts, took = await derive_all(mongo)
        return count / took, count / await upsert_all(mongo, facts)
    finally:
        await mongo.drop_database()
        await mongo.close()


@dataclass
class Lags:
    """Seconds from the commit of a posting until its customer's facts hold it, and from that of a batch until the
    checkpoints have passed it."""

    postings: list[float] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)


def flowing(settings: SyncIngestSettings, postings: int, alone: float, seconds: float) -> tuple[float, Lags]:
    """Postings a second that come to the panorama while facts are derived, and the lags of the facts at half of that.

    `alone`: how many come without deriving, of as many that are there already."""
    events = booked_elsewhere(settings, MadeFlow(postings + int(alone / 2 * seconds)))
    flow = [one for one in events if one.name == "posting-booked"]
    with roles(settings, *BESIDE):
        with roles(settings, RELAY):
            asyncio.run(registered(settings, [one for one in events if one.name != "posting-booked"]))
        store(settings, flow[:postings])
        with roles(settings, RELAY):
            before = WARM_POSTINGS + postings
            rate = asyncio.run(passing(settings, before + postings // 10, before + postings))
            return rate, asyncio.run(lags(settings, flow[postings:], rate / 2, seconds))


def store(settings: SyncIngestSettings, events: Sequence[StoredEvent]) -> None:
    """Stores events of ingest."""
    recorder = Recorder(settings.postgres_url, SCHEMA)
    recorder.append_bulk(events)
    recorder.close()


async def registered(settings: SyncIngestSettings, events: Sequence[StoredEvent]) -> None:
    """Stores what makes customers, and waits until the facts show all of them."""
    await asyncio.to_thread(store, settings, events)
    recorder = Recorder(settings.postgres_url, CUSTOMER_SCHEMA)
    try:
        await until(lambda: recorder.head_position() >= EVENTS_EACH * ACCOUNTS)
    finally:
        recorder.close()
    await level(settings)


async def level(settings: SyncIngestSettings) -> None:
    """Waits until the facts show all that is stored."""
    mongo = Mongo.connect(settings.mongo_url)
    views = ViewReader(mongo, CLOCK, VIEWS, DERIVED)
    try:
        for context, schema in (("ingest", SCHEMA), ("customer", CUSTOMER_SCHEMA)):
            recorder = Recorder(settings.postgres_url, schema)
            position = recorder.head_position()
            recorder.close()
            if not await views.wait_for(context, position, PATIENCE_SECONDS, [VIEW.name]):
                raise RuntimeError("the facts do not catch up")
    finally:
        await mongo.close()


async def lags(
    settings: SyncIngestSettings, flow: Sequence[StoredEvent], rate: float, seconds: float
) -> Lags:
    """Those of a flow at a rate, in postings a second."""
    await level(settings)
    recorder = Recorder(settings.postgres_url, SCHEMA)
    mongo = Mongo.connect(settings.mongo_url)
    try:
        flow, size = flow[: int(rate * seconds)], max(1, int(rate * BATCH_SECONDS))
        batches = [flow[at : at + size] for at in range(0, len(flow), size)]
        live = await ViewReader(mongo, CLOCK, VIEWS, DERIVED).live(VIEW.name)
        watched = await Watched.of(mongo, live, batches)
        checkpoints = MongoCheckpoints(mongo, live.group, VIEW.name)
        await asyncio.gather(_paced(recorder, checkpoints, batches, watched), watched.watch())
        return watched.lags
    finally:
        recorder.close()
        await mongo.close()


class Watched:
    """Some customers with an account each, whose net worth says which of the account's postings their facts hold."""

    def __init__(self, mongo: Mongo, collection: str) -> None:
        self.lags = Lags()
        self.committed: list[float] = []
        """When each batch was."""
        self._mongo = mongo
        self._collection = collection
        self._expected: dict[DocumentId, deque[tuple[int, int]]] = {}
        """By customer, for each posting that the facts do not hold yet its batch and the net worth after it."""

    @classmethod
    async def of(cls, mongo: Mongo, live: Generation, batches: Sequence[Sequence[StoredEvent]]) -> "Watched":
        """Those whose accounts get the first postings."""
        watched = cls(mongo, live.prefix + FACTS)
        accounts = list(dict.fromkeys(str(one.stream_id) for batch in batches for one in batch))[:WATCHED]
        owners = await watched._owners(accounts)
        worth = await watched._worth(owners.values())
        for number, batch in enumerate(batches):
            for one in batch:
                if (owner := owners.get(str(one.stream_id))) is not None:
                    worth[owner] += msgspec.json.decode(one.body)["data"]["amount_minor"]
                    watched._expected.setdefault(owner, deque()).append((number, worth[owner]))
        return watched

    async def watch(self) -> None:
        """Looks until the facts hold everything."""

        def stored(expected: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
            return takewhile(lambda one: one[0] < len(self.committed), expected)

        until_seconds = CLOCK.monotonic() + PATIENCE_SECONDS
        while self._expected:
            if CLOCK.monotonic() > until_seconds:
                raise RuntimeError("the facts do not catch up")
            worth = await self._worth(self._expected)
            now = CLOCK.monotonic()
            for owner, expected in list(self._expected.items()):
                there = (at for at, (_, after) in enumerate(stored(expected), 1) if after == worth[owner])
                held = next(there, 0)
                self.lags.postings += [now - self.committed[expected.popleft()[0]] for _ in range(held)]
                if not expected:
                    del self._expected[owner]
            await CLOCK.sleep(LOOK_SECONDS)

    async def _worth(self, owners: Iterable[DocumentId]) -> dict[DocumentId, int]:
        found = await self._mongo.find(self._collection, {ID: {"$in": list(owners)}}, fields={"net_worth": 1})
        return {one[ID]: one["net_worth"].get("CNY", 0) for one in found}

    async def _owners(self, accounts: Sequence[str]) -> dict[str, DocumentId]:
        views = ViewReader(self._mongo, CLOCK, VIEWS, DERIVED)
        panorama, persons = [await views.live(one.name) for one in (asset_panorama.VIEW, customers.VIEW)]
        held = await self._mongo.find(panorama.prefix + asset_panorama.ACCOUNTS, {ID: {"$in": accounts}})
        account_of = {one["holders"][0]["party_id"]: one[ID] for one in held}
        where = {"parties.party_id": {"$in": list(account_of)}}
        found = await self._mongo.find(persons.prefix + customers.CUSTOMERS, where)
        return {account_of[one["parties"][0]["party_id"]]: one[ID] for one in found}


async def _paced(
    recorder: Recorder,
    checkpoints: MongoCheckpoints,
    batches: Sequence[Sequence[StoredEvent]],
    watched: Watched,
) -> None:
    """Stores the batches, and waits until the checkpoints have passed each."""
    waiting: asyncio.Queue[dict[Partition, int] | None] = asyncio.Queue(maxsize=len(batches) + 1)
    topic = EVENTS["ingest"].name
    first = await asyncio.to_thread(recorder.head_position) + 1

    async def stored() -> None:
        due, at_position = CLOCK.monotonic(), first
        for batch in batches:
            await CLOCK.sleep(max(0.0, due - CLOCK.monotonic()))
            await asyncio.to_thread(recorder.append_bulk, batch)
            places = {
                (topic, partition_of(one.stream_id)): position
                for position, one in enumerate(batch, at_position)
            }
            watched.committed.append(CLOCK.monotonic())
            waiting.put_nowait(places)
            at_position += len(batch)
            due += BATCH_SECONDS
        waiting.put_nowait(None)

    storing = asyncio.create_task(stored())
    until_seconds = CLOCK.monotonic() + PATIENCE_SECONDS
    while (places := await waiting.get()) is not None:
        while not _reached(await checkpoints.positions(), places):
            if CLOCK.monotonic() > until_seconds:
                raise RuntimeError("the facts do not catch up")
            await CLOCK.sleep(LOOK_SECONDS)
        since = watched.committed[len(watched.lags.batches)]
        watched.lags.batches.append(CLOCK.monotonic() - since)
    await storing
    behind = await asyncio.to_thread(recorder.head_position)
    assert behind == first - 1 + sum(map(len, batches))  # nobody else stored


def _reached(shown: Mapping[Partition, Position], places: Mapping[Partition, int]) -> bool:
    return all(shown[place].position >= position for place, position in places.items())


def main() -> int:
    """Measures and prints; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--postings", type=int, default=60_000)
    parser.add_argument("--paced-seconds", type=float, default=20.0)
    given = parser.parse_args()
    heap.for_batches()  # as `crm` and every role do
    with system() as settings:
        alone = sustained(settings, given.postings)
        rate, behind = flowing(settings, given.postings, alone, given.paced_seconds)
        say("derived_projection", rate, "postings/s", alone, rate / alone)
        p99 = statistics.quantiles(behind.postings, n=100)[98]
        say("derived_lag_p99", p99, "s", LAG_SECONDS_WANTED, p99 / LAG_SECONDS_WANTED)
        passed = statistics.quantiles(behind.batches, n=100)[98]
        say("derived_batch_lag_p99", passed, "s", p99, passed / p99)
        derived, raw = uvloop.run(rebuilt(settings.mongo_url, given.customers))
        say("derived_rebuilt", derived, "customers/s", raw, derived / raw)
    return 0 if p99 <= LAG_SECONDS_WANTED and derived / raw >= REBUILD_WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
