"""How long ago each source was last heard of, for those who watch."""

import asyncio
from typing import Final

from chassis import metrics
from chassis.postgres import connect

SOURCES_MAX: Final = 1_000

_LAST_HEARD: Final = """
select source, extract(epoch from clock_timestamp() - max(received_at))::float8
from ingest.intakes group by source order by 2 limit %b
"""


def freshness(postgres_url: str) -> metrics.Measure:
    """Sets the freshness of every source when metrics are asked for."""

    async def measure() -> None:
        for source, seconds in await asyncio.to_thread(_heard, postgres_url):
            metrics.FRESHNESS_SECONDS.labels(source).set(max(0.0, seconds))

    return measure


def _heard(url: str) -> list[tuple[str, float]]:
    with connect(url, statement_seconds=5) as connection:
        return connection.execute(_LAST_HEARD, (SOURCES_MAX,)).fetchall()
