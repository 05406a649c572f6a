"""What operators hear of each source: counts, quarantine, the last certificate, and how long it has been silent.

It is read from the tables, so it is the same whichever process booked: an API, the feed or the command line.
"""

import asyncio
from datetime import datetime
from typing import Any, Final, NamedTuple

from chassis.connections.postgres import connect
from chassis.observability import metrics
from prometheus_client import Gauge

from sync_ingest.settings import SyncIngestSettings

SOURCES_MAX: Final = 1_000
STATEMENT_SECONDS_MAX: Final = 5
STATUSES: Final = ("GREEN", "AMBER", "RED")

RECORDS: Final = Gauge(
    "crm_source_records",
    "Posting records of a source that certificates cover, by what became of them: posted, duplicate, quarantined",
    ["source", "outcome"],
    registry=metrics.REGISTRY,
)
WAITING: Final = Gauge(
    "crm_quarantine_waiting",
    "Quarantined records of a source that wait for a person, by reason",
    ["source", "reason"],
    registry=metrics.REGISTRY,
)
CERTIFICATE: Final = Gauge(
    "crm_certificate_status",
    "1 for the status of the last certificate of a source, 0 for the others",
    ["source", "status"],
    registry=metrics.REGISTRY,
)
SILENT_SECONDS_EXPECTED: Final = Gauge(
    "crm_freshness_expected_seconds",
    "Seconds within which a source should be heard of, by its own schedule",
    ["name"],
    registry=metrics.REGISTRY,
)
OVERDUE_SECONDS: Final = Gauge(
    "crm_source_overdue_seconds",
    "Seconds beyond its own schedule for which a source is silent; 0 while it is on time",
    ["source"],
    registry=metrics.REGISTRY,
)

_SOURCES: Final = """
with recursive s (source) as (
    (select source from ingest.intakes order by source limit 1)
    union all
    select (select i.source from ingest.intakes as i where i.source > s.source order by i.source limit 1)
    from s where s.source is not null)
select s.source, extract(epoch from clock_timestamp() - i.received_at)::float8,
    coalesce(d.every_seconds, case when i.format = 'topic' then %s else %s end),
    coalesce(n.posted, 0), coalesce(n.duplicates, 0), coalesce(n.quarantined, 0),
    c.status, c.certified_at, convert_from(c.findings, 'UTF8')::jsonb -> 'reasons'
from s
cross join lateral (
    select received_at, format from ingest.intakes where source = s.source and repairs is null
    order by number desc limit 1) as i
left join ingest.schedules as d using (source)
left join ingest.source_counts as n using (source)
left join lateral (
    select status, certified_at, findings from ingest.certificates where source = s.source
    order by number desc limit 1) as c on true
where s.source is not null limit %s
"""
_WAITING: Final = """
select source, reason, count(*) from ingest.quarantine where status = 'waiting'
group by source, reason order by source, reason
"""


class Watched(NamedTuple):
    """One source. `posted`, `duplicates` and `quarantined` are what its certificates cover; `waiting` is by reason.

    `status`, `certified_at` and `reasons` are of its last certificate, None where it has none.
    """

    source: str
    silent_seconds: float
    expected_every_seconds: int
    posted: int
    duplicates: int
    quarantined: int
    status: str | None
    certified_at: datetime | None
    reasons: tuple[str, ...]
    waiting: dict[str, int]


def watched(settings: SyncIngestSettings) -> list[Watched]:
    """Every source, in the order of their names; blocks. Raises psycopg.Error."""
    ingest = settings.ingest
    asked = (ingest.stream_every_seconds, ingest.file_every_seconds, SOURCES_MAX)
    with connect(settings.postgres_url, statement_seconds=STATEMENT_SECONDS_MAX) as connection:
        rows: list[tuple[Any, ...]] = connection.execute(_SOURCES, asked).fetchall()
        waiting: dict[str, dict[str, int]] = {}
        for source, reason, count in connection.execute(_WAITING).fetchall():
            waiting.setdefault(source, {})[reason] = count
    return [
        Watched._make([row[0], max(0.0, row[1]), *row[2:8], tuple(row[8] or ()), waiting.get(row[0], {})])
        for row in rows
    ]


def measuring(settings: SyncIngestSettings) -> metrics.Measure:
    """Refreshes the gauges of every source when metrics are asked for."""

    async def measure() -> None:
        found = await asyncio.to_thread(watched, settings)
        WAITING.clear()
        for each in found:
            metrics.FRESHNESS_SECONDS.labels(each.source).set(each.silent_seconds)
            SILENT_SECONDS_EXPECTED.labels(each.source).set(each.expected_every_seconds)
            OVERDUE_SECONDS.labels(each.source).set(
                max(0.0, each.silent_seconds - each.expected_every_seconds)
            )
            for outcome, count in (
                ("posted", each.posted),
                ("duplicate", each.duplicates),
                ("quarantined", each.quarantined),
            ):
                RECORDS.labels(each.source, outcome).set(count)
            for reason, count in each.waiting.items():
                WAITING.labels(each.source, reason).set(count)
            for status in STATUSES:
                CERTIFICATE.labels(each.source, status).set(int(status == each.status))

    return measure
