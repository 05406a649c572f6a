"""[what-if] a candidate for the rules of tiers over the assessments of 100,000 customers in 24 months, on one PostgreSQL, beside the bare
reading of the same events in the same order. One line of JSON for each figure.

    python benchmarks/what_if.py [--customers N] [--months N]
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

import psycopg
import uvloop
from chassis import heap
from chassis.write.events import Event, Metadata, StoredEvent
from chassis.write.store import EventStore, Recorder, prepare
from customer.catalogue import catalogue
from customer.domain.commands import AssessTier
from customer.domain.events import BranchAssigned, TierAssessed
from customer.domain.state import Customer
from customer.domain.tier_rules import RULES, Threshold, TierRules, TierRuleVersions, month_before
from customer.domain.tiering import decide_tier
from customer.months import month_after
from customer.settings import CustomerSettings
from customer.tier_what_if import TierWhatIf
from devservers import servers

SCHEMA: Final = "store_customer"
TODAY: Final = date(2026, 6, 30)
SECONDS_WANTED: Final = 60.0
MEMORY_MIB_WANTED: Final = 512.0
"""Of the process, with what it needs to fill the store."""
MILLION: Final = 100_000_000
COSTS: Final = {"mass": 100, "wealth": 20_000, "private": 900_000}
AT_ONCE: Final = 5_000
BRANCHES: Final = 200


def months_of(count: int) -> list[str]:
    """The last whole months, the earliest first."""
    found = [month_before(TODAY.isoformat())]
    while len(found) < count:
        found.append(month_before(found[-1]))
    return found[::-1]


def history(customers: list[UUID], months: list[str]) -> Iterator[StoredEvent]:
    """The branch of each customer, and then month by month the assessments of all, as the timers store them."""
    events, chance, rules = catalogue(), Random(7), TierRuleVersions()
    states = [Customer()] * len(customers)
    averages = [int(chance.lognormvariate(18.0, 2.0)) for _ in customers]
    befores: list[int | None] = [None] * len(customers)

    def stored(event: Event, name: str, customer: UUID, version: int, at: datetime) -> StoredEvent:
        metadata = Metadata(
            effective_at=at,
            recorded_at=at,
            actor="timer:customer-tier",
            command_id=customer,
            correlation_id=customer,
            causation_id=customer,
        )
        body = events.encode(event, metadata, stream_id=customer, version=version, key=None)
        return StoredEvent(customer, version, name, body)

    for number, customer in enumerate(customers):
        branch = BranchAssigned(f"支行{number % BRANCHES:03d}")
        yield stored(branch, "branch-assigned", customer, 1, datetime(2020, 1, 1, tzinfo=UTC))
    for version, month in enumerate(months, 2):
        at = datetime.fromisoformat(f"{month_after(f'{month}-01')}T00:30:00+00:00")
        for number, customer in enumerate(customers):
            average = int(averages[number] * chance.uniform(0.8, 1.25))
            command = AssessTier(month, average, befores[number], (), rules)
            event: TierAssessed = decide_tier(command, states[number])[0]
            states[number] = Customer(tier=event.tier, tier_month=month)
            averages[number] = befores[number] = average
            yield stored(event, "tier-assessed", customer, version, at)


def fill(url: str, customers: int, months: list[str]) -> None:
    """Stores the history of so many customers."""
    recorder, batch = Recorder(url, SCHEMA), list[StoredEvent]()
    ids = [uuid5(NAMESPACE_URL, str(number)) for number in range(customers)]
    for number, event in enumerate(history(ids, months), 1):
        batch.append(event)
        if len(batch) == AT_ONCE:
            recorder.append_bulk(batch)
            batch.clear()
            if number % (100 * AT_ONCE) == 0:
                print(f"{number} events", file=sys.stderr)
    recorder.append_bulk(batch)
    recorder.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"vacuum analyze {SCHEMA}.events")


async def read_alone(store: EventStore, position: int) -> float:
    """The seconds that reading the same events takes, page by page."""
    began, after, names = time.perf_counter(), (UUID(int=0), 0), ["branch-assigned", "tier-assessed"]
    while page := await store.read_by_stream(names, position, after):
        after = page[-1].stream_id, page[-1].version
    return time.perf_counter() - began


async def measured(url: str, months: list[str], customers: int) -> int:
    """Prints the figures; 1 where one misses its limit."""
    heap.for_batches()  # as every process does at its start
    store = EventStore(url, SCHEMA)
    business_date = CustomerSettings(postgres_url=url).calendar.business_date
    what_if = TierWhatIf(store, catalogue(), lambda: TODAY, business_date)
    thresholds = (Threshold("private", 8 * MILLION), RULES.thresholds[1])
    try:
        asked = await what_if.asked(TierRules(0, "CNY", thresholds, 1, months[0]), None)
        alone = await read_alone(store, asked.position)
        began = time.perf_counter()
        sums = await what_if.summed(asked, COSTS, lambda _: None)
        seconds = time.perf_counter() - began
        again = await what_if.summed(asked, COSTS, lambda _: None)
    finally:
        await store.close()
    same = again.digest() == sums.digest()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    more = {
        "read_alone": round(alone, 2),
        "customers": sums.all.customers,
        "assessments": sums.assessments,
        "moved": sums.all.moved,
        "same_digest": same,
    }
    for name, value, unit, limit in (
        ("what_if", seconds, "s", SECONDS_WANTED),
        ("what_if_memory", memory, "MiB", MEMORY_MIB_WANTED),
    ):
        figure = {"name": name, "value": round(value, 2), "unit": unit, "limit": limit}
        print(json.dumps({**figure, **more}), flush=True)
    whole = sums.all.customers == customers and sums.assessments == customers * len(months)
    return int(not (same and whole and seconds <= SECONDS_WANTED and memory <= MEMORY_MIB_WANTED))


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--months", type=int, default=24)
    given = parser.parse_args()
    months = months_of(given.months)
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder), {"postgres"}, lambda _: None, durable=False) as running,
    ):
        url = running.urls["POSTGRES_URL"]
        prepare(url, SCHEMA)
        fill(url, given.customers, months)
        return uvloop.run(measured(url, months, given.customers))


if __name__ == "__main__":
    sys.exit(main())
