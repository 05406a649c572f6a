"""What operators ask for, as Prometheus metrics of this process; roles set them, `/metrics` shows them.

Gauges that belong to a server rather than to the process are refreshed when somebody looks: see `measured`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

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
DEAD_LETTERS: Final = Gauge("crm_dead_letters", "Dead letters of a group", ["group"], registry=REGISTRY)
PARKED_SUBJECTS: Final = Gauge(
    "crm_parked_subjects", "Subjects that wait for a repair", ["group"], registry=REGISTRY
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

_log = structlog.get_logger(__name__)


async def measured(measures: list[Measure]) -> bytes:
    """The page for Prometheus, after each measure had its bounded chance to refresh gauges."""
    if measures:
        tasks = [asyncio.ensure_future(measure()) for measure in measures]
        done, late = await asyncio.wait(tasks, timeout=MEASURE_SECONDS_MAX)
        for task in late:
            task.cancel()
        failed = [task for task in done if task.exception() is not None]
        if late or failed:
            _log.warning("metrics not refreshed", count=len(late) + len(failed))
    return generate_latest(REGISTRY)
