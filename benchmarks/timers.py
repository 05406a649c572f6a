"""[timers] finding and settling what is due among the timers of a million subjects, on one PostgreSQL: one line of JSON.

The figure is the median time that finding the next 100 takes. The limit is five times that of the same index read by a bare
query over a plain connection: the instants of the next 100, and nothing else. What grows with the number of timers is no part
of either; both are printed for a table of a thousandth of the size, too.

    python benchmarks/timers.py [--timers N] [--rounds N]
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from chassis.process.leases import PostgresLease
from chassis.timers import PostgresTimers
from chassis.timers.table import DONE, TIMERS_LEASE, Given
from chassis.write.store import prepare
from devservers import servers

LIMIT_RATIO = 5.0
NOW = datetime(2026, 1, 5, tzinfo=UTC)
DUE_AT_ONCE = 100
SCHEMA = "store_timers"


def fill(connection: "psycopg.Connection[Any]", timers: int, due: int) -> None:
    """So many timers, of which `due` are due; the others lie within the next year."""
    connection.execute(f"truncate {SCHEMA}.timers")
    connection.execute(
        f"insert into {SCHEMA}.timers (subject, name, slot, cause, position, due_at, run_at, data, generation)"
        " select gen_random_uuid(), 'review', '', gen_random_uuid(), n, at, at, '{}', 'g' from ("
        "  select n, %s::timestamptz + case when n <= %s then -make_interval(secs => n % 3600 + 1)"
        "  else make_interval(secs => 60 + n::bigint * 7919 % 31536000) end as at from generate_series(1, %s) as n"
        " ) as drawn".replace("n % 3600", "n %% 3600").replace("7919 % 31536000", "7919 %% 31536000"),
        (NOW, due, timers),
    )
    connection.execute(f"vacuum analyze {SCHEMA}.timers")


async def measured(url: str, timers: int, rounds: int) -> dict[str, float]:
    """Milliseconds at the median and at the 95th percentile."""
    table, lease = PostgresTimers(url, SCHEMA), PostgresLease(url, SCHEMA, TIMERS_LEASE)
    epoch = await lease.take(3_600.0)
    assert epoch is not None
    due_ms: list[float] = []
    settle_ms: list[float] = []
    next_ms: list[float] = []
    bare_ms: list[float] = []
    bare = f"select run_at from {SCHEMA}.timers where run_at <= %s order by run_at limit {DUE_AT_ONCE}"
    with psycopg.connect(url, autocommit=True) as connection:
        fill(connection, timers, min(rounds * DUE_AT_ONCE, timers // 2))
        for _ in range(rounds):
            began = time.perf_counter()
            connection.execute(bare, (NOW,)).fetchall()
            bare_ms.append((time.perf_counter() - began) * 1e3)
            began = time.perf_counter()
            found = await table.due(NOW, DUE_AT_ONCE)
            due_ms.append((time.perf_counter() - began) * 1e3)
            began = time.perf_counter()
            await table.settle(epoch, NOW + timedelta(seconds=1), [Given(due, DONE) for due in found])
            settle_ms.append((time.perf_counter() - began) * 1e3)
            began = time.perf_counter()
            await table.next_at()
            next_ms.append((time.perf_counter() - began) * 1e3)
    await table.close()
    await lease.release(epoch)
    await lease.close()
    shown = {"due": due_ms, "settle": settle_ms, "next": next_ms, "bare": bare_ms}
    return {
        f"{name}_{at}_ms": round(value, 2)
        for name, times in shown.items()
        for at, value in (("p50", statistics.median(times)), ("p95", statistics.quantiles(times, n=20)[-1]))
    }


def main() -> int:
    """The exit code: 0 where the figure keeps to its limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--timers", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(Path(folder), {"postgres"}, lambda _: None) as running,
    ):
        url = running.urls["POSTGRES_URL"]
        prepare(url, SCHEMA)
        small = asyncio.run(measured(url, max(given.timers // 1_000, 10), given.rounds))
        large = asyncio.run(measured(url, given.timers, given.rounds))
    value, limit = large["due_p50_ms"], LIMIT_RATIO * large["bare_p50_ms"]
    figure = {"name": "timers", "value": value, "unit": "ms", "limit": round(limit, 2)}
    more = {"ratio": round(value / limit, 3), "timers": given.timers, "due_at_once": DUE_AT_ONCE}
    print(json.dumps({**figure, **more, **large, "of_a_thousandth": small}))
    return 0 if value <= limit else 1


if __name__ == "__main__":
    sys.exit(main())
