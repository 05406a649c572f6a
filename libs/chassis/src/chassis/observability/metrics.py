"""Prometheus metrics of this process. Roles set them, `/metrics` shows them.

Gauges that belong to a server rather than to the process are refreshed at each scrape: see `measured`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from chassis.connections.direct import opened_directly

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MEASURE_SECONDS_MAX: Final = 2.0

Measure = Callable[[], Awaitable[None]]

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

OUTBOX_EVENTS: Final = Gauge(
    "crm_outbox_events", "Events stored and not published yet", ["context"], registry=REGISTRY
)
OUTBOX_AGE_SECONDS: Final = Gauge(
    "crm_outbox_age_seconds", "Age of the oldest event not published yet", ["context"], registry=REGISTRY
)
LAG_EVENTS: Final = Gauge(
    "crm_lag_events",
    "Positions between the store's head and what a group has applied",
    ["group", "context"],
    registry=REGISTRY,
)
LAG_SECONDS: Final = Gauge(
    "crm_lag_seconds",
    "Seconds from the recording of an event to its effect in a group",
    ["group", "context"],
    registry=REGISTRY,
)
FRESHNESS_SECONDS: Final = Gauge(
    "crm_freshness_seconds",
    "Seconds since what was last heard of a source or context",
    ["name"],
    registry=REGISTRY,
)
UNPUBLISHABLE: Final = Gauge(
    "crm_unpublishable_subjects",
    "Subjects of a context that a relay holds, because an event of theirs cannot be published",
    ["context"],
    registry=REGISTRY,
)
DEAD_LETTERS: Final = Gauge("crm_dead_letters", "Dead letters of a group", ["group"], registry=REGISTRY)
PARKED_SUBJECTS: Final = Gauge(
    "crm_parked_subjects", "Subjects that wait for a repair", ["group"], registry=REGISTRY
)
BUCKETS_WAITING: Final = Gauge(
    "crm_buckets_waiting",
    "Buckets of a derived view whose documents changed since they were summed",
    ["group"],
    registry=REGISTRY,
)
BUCKETS_AGE_SECONDS: Final = Gauge(
    "crm_buckets_age_seconds",
    "For how long the oldest change has waited to be summed in its bucket",
    ["group"],
    registry=REGISTRY,
)
LEASE_HELD: Final = Gauge(
    "crm_lease_held",
    "1 where this process holds the lease of a role, 0 where it stands by",
    ["name"],
    registry=REGISTRY,
)
LEASES_LOST: Final = Counter(
    "crm_leases_lost", "Times that this process lost a lease that it held", ["name"], registry=REGISTRY
)
TIMERS_GIVEN: Final = Counter(
    "crm_timers_given",
    "Commands that timers gave, by outcome: done, refused or failed",
    ["timer", "outcome"],
    registry=REGISTRY,
)
TIMERS_LATE_SECONDS: Final = Gauge(
    "crm_timers_late_seconds",
    "How long the timer that was due first has been due",
    ["context"],
    registry=REGISTRY,
)
SAGA_STEPS: Final = Counter(
    "crm_saga_steps",
    "Commands that sagas gave, by outcome: carried-out, refused or unanswered, undo-... where one was taken back",
    ["saga", "outcome"],
    registry=REGISTRY,
)
SAGAS_OPEN: Final = Gauge(
    "crm_sagas_open",
    "Sagas that have not ended, by status: running, compensating, stuck or broken; of the process that leads",
    ["context", "saga", "status"],
    registry=REGISTRY,
)
FILES_UNREADABLE: Final = Counter(
    "crm_files_unreadable",
    "Times that a file which is kept could not be read: its content was changed, cut off or lost",
    ["context"],
    registry=REGISTRY,
)
FILES_SWEPT: Final = Gauge(
    "crm_files_swept_at_seconds",
    "When the last sweep of files ended, in seconds since 1970; of the process that sweeps",
    ["context"],
    registry=REGISTRY,
)
EXPORTS: Final = Counter(
    "crm_exports",
    "Files of lists by what became of a try: made, put-off, refused; given-up after the last one",
    ["context", "outcome"],
    registry=REGISTRY,
)
EXPORTS_AGE_SECONDS: Final = Gauge(
    "crm_exports_age_seconds",
    "How long ago the oldest file of a list was released that is not made yet",
    ["context"],
    registry=REGISTRY,
)
NOTICES: Final = Counter(
    "crm_notices",
    "Notices by what became of a try: accepted, rejected, unanswered, limited; expired, tries or erased where given up",
    ["channel", "outcome"],
    registry=REGISTRY,
)
NOTICES_AGE_SECONDS: Final = Gauge(
    "crm_notices_age_seconds",
    "How long ago the oldest notice was requested that no provider has yet",
    ["context"],
    registry=REGISTRY,
)
CALENDAR_DAYS_KNOWN: Final = Gauge(
    "crm_calendar_days_known",
    "Days from today whose public holidays are announced",
    ["context"],
    registry=REGISTRY,
)
ROLE_RESTARTS: Final = Counter(
    "crm_role_restarts", "Restarts of a role after it lost a server", ["role"], registry=REGISTRY
)
ROLE_READY: Final = Gauge("crm_role_ready", "1 where a role does its work", ["role"], registry=REGISTRY)
REQUESTS: Final = Counter(
    "crm_http_requests", "Answers by route and status", ["method", "route", "status"], registry=REGISTRY
)
REQUEST_SECONDS: Final = Histogram(
    "crm_http_request_seconds",
    "Seconds to an answer",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    registry=REGISTRY,
)

STREAMS_OPEN: Final = Gauge("crm_streams_open", "Open event streams of this process", registry=REGISTRY)
STREAMS_ENDED: Final = Counter(
    "crm_streams_ended",
    "Event streams that ended, by reason: gone (the client), slow, stopping, time-up, unauthenticated, ...",
    ["reason"],
    registry=REGISTRY,
)
WATCH_LAG_SECONDS: Final = Histogram(
    "crm_watch_lag_seconds",
    "Seconds from the write of a document to the moment when its watchers are told",
    ["view"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0),
    registry=REGISTRY,
)
WATCH_RESETS: Final = Counter(
    "crm_watch_resets",
    "Watchers that were told to read everything again, by reason: begun, rebuilt, lost, slow, day",
    ["view", "reason"],
    registry=REGISTRY,
)

PAGE_BYTES_MAX: Final = 4 << 20
FETCH_SECONDS_MAX: Final = 1.0

_log = structlog.get_logger(__name__)
_GAUGES: Final = {
    "crm_outbox_events": OUTBOX_EVENTS,
    "crm_outbox_age_seconds": OUTBOX_AGE_SECONDS,
    "crm_lag_events": LAG_EVENTS,
    "crm_lag_seconds": LAG_SECONDS,
    "crm_freshness_seconds": FRESHNESS_SECONDS,
    "crm_dead_letters": DEAD_LETTERS,
    "crm_parked_subjects": PARKED_SUBJECTS,
    "crm_unpublishable_subjects": UNPUBLISHABLE,
    "crm_buckets_waiting": BUCKETS_WAITING,
    "crm_buckets_age_seconds": BUCKETS_AGE_SECONDS,
    "crm_lease_held": LEASE_HELD,
    "crm_timers_late_seconds": TIMERS_LATE_SECONDS,
    "crm_notices_age_seconds": NOTICES_AGE_SECONDS,
    "crm_exports_age_seconds": EXPORTS_AGE_SECONDS,
    "crm_calendar_days_known": CALENDAR_DAYS_KNOWN,
    "crm_sagas_open": SAGAS_OPEN,
    "crm_role_ready": ROLE_READY,
}


class Beside:
    """The gauges of processes beside this one, shown here as well; those of a process that is gone disappear.

    `pages` returns the current addresses of their metrics. For machines on which no scraper reads each
    process.
    """

    def __init__(self, pages: Callable[[], Mapping[str, str]]) -> None:
        self._pages = pages
        self._shown: dict[str, set[tuple[str, tuple[str, ...]]]] = {}

    async def measure(self) -> None:
        """Fetches them and sets the gauges."""
        pages = await asyncio.to_thread(self._pages)
        names = list(pages)
        fetched = await asyncio.gather(*[asyncio.to_thread(_fetched, pages[name]) for name in names])
        found = dict(zip(names, fetched, strict=True))
        for name in {*found, *self._shown}:
            shown = set() if (page := found.get(name)) is None else _set(page)
            for gauge, labels in self._shown.get(name, set()) - shown:
                _GAUGES[gauge].remove(*labels)
            self._shown[name] = shown


def _fetched(url: str) -> str | None:
    if not url.startswith("http://"):
        raise ValueError(f"not an address of metrics: {url}")
    try:
        with opened_directly(url, seconds_max=FETCH_SECONDS_MAX) as answer:
            page: bytes = answer.read(PAGE_BYTES_MAX)
    except OSError:
        return None
    return page.decode("utf-8", "replace")


def _set(page: str) -> set[tuple[str, tuple[str, ...]]]:
    """Sets our gauges to the values on a page of another process.

    Returns the gauges that were set, with their labels.
    """
    found = set()
    for family in text_string_to_metric_families(page):
        gauge = _GAUGES.get(family.name)
        if gauge is None:
            continue
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in gauge._labelnames)
            gauge.labels(*labels).set(sample.value)
            found.add((family.name, labels))
    return found


async def measured(measures: list[Measure], *, seconds_max: float = MEASURE_SECONDS_MAX) -> bytes:
    """Returns the page for Prometheus, after each measure had a bounded time to refresh its gauges."""
    if measures:
        tasks = [asyncio.ensure_future(measure()) for measure in measures]
        done, late = await asyncio.wait(tasks, timeout=seconds_max)
        for task in late:
            task.cancel()
        failed = [task for task in done if task.exception() is not None]
        if late or failed:
            _log.warning("metrics not refreshed", count=len(late) + len(failed))
    return generate_latest(REGISTRY)
