"""[watched_events] how late a thousand watchers of one API process are told of an event, from its way into the store on. One line
of JSON for each rate.

Every role runs in a process of its own: an event is stored in PostgreSQL, relayed to Kafka, projected, and the facts of its
customer are derived, which the API process tells. Events come one by one at a steady rate, each of another customer: postings
of a feed, and a customer in ten is renamed over HTTP. Most watchers watch a customer by id, the others a condition that every
customer meets. The time runs from the moment before an event is appended, or a rename is sent, until a watcher has it; each
watcher counts. A watcher that is not told of an event is a failure.

    python benchmarks/watched_events.py [--watchers N] [--seconds S] [--events-per-second N [N ...]]
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from random import Random
from typing import Final

import httpx
import uvloop
from chassis import heap
from chassis.privacy.tokens import development_token
from chassis.read.generations import ViewReader
from chassis.read.mongo import Mongo
from chassis.write.events import StoredEvent
from chassis.write.store import Recorder
from customer.settings import CustomerSettings
from customer.views import VIEWS, asset_panorama, customers
from derived import BESIDE, RELAY, customers_made, posting_made, registered
from devservers.processes import free_port
from first_load import EVENTS_EACH
from ingest import ACCOUNTS, MadeFeed
from panorama_projection import CLOCK, booked_elsewhere, roles, system
from sync_ingest.ledger import SCHEMA
from sync_ingest.settings import SyncIngestSettings
from watching import BY_CONDITION_SHARE, CONDITIONS, LAG_SECONDS_WANTED, joined, left, percentile, serving

RENAMED_SHARE: Final = 10
"""Every so manieth customer is renamed, and has no posting."""
WARM_EVENTS: Final = 100
PATIENCE_SECONDS: Final = 30.0
"""After the last event, until every watcher has what it watches."""
LOOK_SECONDS: Final = 0.05


class MadeRounds(MadeFeed):
    """Customers with an account each, then a posting on each account in turn."""

    @staticmethod
    def _make(postings: int, first: int) -> Iterator[bytes]:
        chance = Random(first)
        yield from customers_made()
        for number in range(first, first + postings):
            yield posting_made(number, number % ACCOUNTS, chance)


class Heard:
    """When events were sent, and how long each took until each of its watchers had it."""

    def __init__(self) -> None:
        self.sent_at: dict[str, float] = {}
        """By customer: of its last event."""
        self.seconds: list[float] = []
        self.wanted = 0
        self._watchers: dict[str, int] = {}
        self._of_all = 0

    def watcher(self, customer: str | None) -> "Watching":
        """Another watcher of a customer, or of all of them."""
        if customer is None:
            self._of_all += 1
        else:
            self._watchers[customer] = self._watchers.get(customer, 0) + 1
        return Watching(self)

    def sent(self, customer: str) -> None:
        """An event of a customer is on its way from now on."""
        self.sent_at[customer] = CLOCK.monotonic()
        self.wanted += self._of_all + self._watchers.get(customer, 0)

    def begin(self) -> None:
        """Forgets what was measured."""
        self.sent_at, self.seconds, self.wanted = {}, [], 0

    async def all_told(self) -> None:
        """Waits until every watcher has what it watches, for some time."""
        end = CLOCK.monotonic() + PATIENCE_SECONDS
        while len(self.seconds) < self.wanted and CLOCK.monotonic() < end:
            await CLOCK.sleep(LOOK_SECONDS)


class Watching:
    """What one watcher was told. An id that is told twice counts once."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._told: dict[str, float] = {}

    def told(self, ids: Sequence[str]) -> None:
        """These changed."""
        now = CLOCK.monotonic()
        for id in ids:
            sent_at = self._heard.sent_at.get(id)
            if sent_at is not None and self._told.get(id) != sent_at:
                self._told[id] = sent_at
                self._heard.seconds.append(now - sent_at)


class Sender:
    """Sends events, each of the next customer: by turns over all of them."""

    def __init__(
        self,
        settings: CustomerSettings,
        client: httpx.AsyncClient,
        by_account: Mapping[str, str],
        heard: Heard,
    ) -> None:
        self.client = client
        self.heard = heard
        self.by_account = by_account
        self.recorder = Recorder(settings.postgres_url, SCHEMA)
        self.token = development_token(settings, CLOCK.now(), subject="sender")
        self.renamed = 0
        self.versions: dict[str, str] = {}

    async def send(self, number: int, posting: StoredEvent) -> None:
        """Books a posting of a customer, or renames it instead."""
        customer = self.by_account[str(posting.stream_id)]
        if number % RENAMED_SHARE:
            self.heard.sent(customer)
            await asyncio.to_thread(self.recorder.append_bulk, [posting])
            return
        self.renamed += 1
        self.heard.sent(customer)
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Idempotency-Key": f"rename-{self.renamed}",
            "If-Match": self.versions.get(customer, f'"{EVENTS_EACH}"'),
        }
        name = {"name": f"王小明{self.renamed}"}
        answer = await self.client.put(f"/customers/{customer}/name", json=name, headers=headers)
        answer.raise_for_status()
        self.versions[customer] = answer.headers["ETag"]

    async def flow(self, events: Sequence[tuple[int, StoredEvent]], rate: int) -> float:
        """Sends events at a rate; the rate at which they went."""
        began = CLOCK.monotonic()
        for number, (at, event) in enumerate(events):
            await CLOCK.sleep(max(0.0, began + number / rate - CLOCK.monotonic()))
            await self.send(at, event)
        return len(events) / max(CLOCK.monotonic() - began, len(events) / rate)


async def customers_by_account(settings: SyncIngestSettings) -> dict[str, str]:
    """The customer of each account."""
    mongo = Mongo.connect(settings.mongo_url)
    views = ViewReader(mongo, CLOCK, VIEWS)
    of_party: dict[str, str] = {}
    async for page in mongo.pages(await views.collection(customers.VIEW.name, customers.CUSTOMERS)):
        of_party |= {party["party_id"]: one["_id"] for one in page for party in one["parties"]}
    found = {}
    async for page in mongo.pages(await views.collection(asset_panorama.VIEW.name, asset_panorama.ACCOUNTS)):
        found |= {one["_id"]: of_party[one["holders"][0]["party_id"]] for one in page}
    await mongo.close()
    return found


async def measured(
    settings: CustomerSettings,
    by_account: Mapping[str, str],
    events: Sequence[StoredEvent],
    given: argparse.Namespace,
) -> int:
    """Prints a figure for each rate; 1 where one is beyond its limit."""
    heard, missed = Heard(), False
    order = [by_account[str(one.stream_id)] for one in events[:ACCOUNTS]]
    assert len(set(order)) == ACCOUNTS
    watchers = []
    for number in range(given.watchers):
        customer = order[number % len(order)] if number % BY_CONDITION_SHARE else None
        condition = {"where": f"accounts <= {1 + number // BY_CONDITION_SHARE % CONDITIONS}"}
        parameters = condition if customer is None else {"customer": customer}
        watchers.append((parameters, heard.watcher(customer).told))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    url = f"http://127.0.0.1:{settings.port}"
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=None) as client:  # noqa: S113 (streams last)
        sender = Sender(settings, client, by_account, heard)
        tasks = await joined(client, settings, watchers)
        coming = iter(enumerate(events))
        await sender.flow(list(islice(coming, WARM_EVENTS)), min(given.events_per_second))
        await heard.all_told()
        for rate in given.events_per_second:
            heard.begin()
            reached = await sender.flow(list(islice(coming, int(rate * given.seconds))), rate)
            await heard.all_told()
            late, untold = percentile(heard.seconds, 99), heard.wanted - len(heard.seconds)
            figure = {
                "name": "watched_event_p99",
                "value": round(late, 3),
                "unit": "s",
                "limit": LAG_SECONDS_WANTED,
                "p50": round(percentile(heard.seconds, 50), 3),
                "most": round(max(heard.seconds), 3),
                "watchers": given.watchers,
                "told": len(heard.seconds),
                "untold": untold,
                "events_per_second": round(reached, 1),
            }
            print(json.dumps(figure), flush=True)
            missed |= late > LAG_SECONDS_WANTED or untold > 0
        await left(tasks)
        sender.recorder.close()
    return int(missed)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--watchers", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--events-per-second", type=int, nargs="+", default=[20, 100])
    given = parser.parse_args()
    heap.for_batches()  # as `crm` and every role do
    many = WARM_EVENTS + ACCOUNTS + sum(int(rate * given.seconds) for rate in given.events_per_second)
    known = {"postgres_url", "keys_url", "mongo_url", "kafka_url", "data", "environment"}
    with system() as settings:
        events = booked_elsewhere(settings, MadeRounds(many))
        postings = [one for one in events if one.name == "posting-booked"]
        api = CustomerSettings(**settings.model_dump(include=known), port=free_port(), log_level="warning")
        with roles(settings, *BESIDE, RELAY):
            asyncio.run(registered(settings, [one for one in events if one.name != "posting-booked"]))
            by_account = asyncio.run(customers_by_account(settings))
            with serving(api):
                return uvloop.run(measured(api, by_account, postings, given))


if __name__ == "__main__":
    sys.exit(main())
