"""One trace id leads from what came in, over HTTP or in a feed record, through store and Kafka to the view."""

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from chassis.messaging.records import Record
from chassis.messaging.transport import read_to_end
from contracts.topics import COREBANK_POSTINGS, CUSTOMER_EVENTS, INGEST_EVENTS
from opentelemetry.trace import format_trace_id

from tests.integration.conftest import System, lines
from tests.support.roles import SCHEMAS

BY_HAND: dict[str, Any] = {
    "phone": "13800001234",
    "stated_assets": [{"product": "fund", "amount": "100.00", "currency": "CNY"}],
}
POSTING: dict[str, Any] = {
    "record": "posting",
    "core_transaction_id": "t1",
    "amount_minor": 500,
    "currency": "CNY",
    "booked_on": "2026-03-02",
}


def trace(number: int) -> tuple[str, str]:
    """A trace id and the header that carries it."""
    known = format_trace_id(0x0AF7651916CD43DD8448EB211C800000 + number)
    return known, f"00-{known}-b7ad6b7169203331-01"


def stored(system: System, context: str, subject: UUID) -> set[str]:
    """Trace ids in the stored events of a subject."""
    with psycopg.connect(system.ingest.postgres_url) as connection:
        rows = connection.execute(
            f"select body from {SCHEMAS[context]}.events where stream_id = %s", (subject,)
        ).fetchall()
    return {json.loads(body)["meta"]["trace"]["traceparent"].split("-")[1] for (body,) in rows}


async def published(system: System, topic: str, subject: UUID) -> set[str]:
    """Trace ids in the records of a subject."""
    found = set()
    async for page in read_to_end(system.customer.kafka_url, topic):
        for record in page:
            headers = dict(record.headers)
            if headers.get("ce_subject") == str(subject).encode():
                found.add(headers["traceparent"].decode().split("-")[1])
    return found


def views_that_wrote(system: System, trace_id: str) -> set[str]:
    """The views whose writing belongs to a trace."""
    spans = [span for span in system.spans.of(trace_id) if span.name == "view written"]
    return {str((span.attributes or {})["view"]) for span in spans}


@pytest.mark.requirement("M44")
async def test_from_a_batch_over_http(system: System) -> None:
    trace_id, header = trace(1)
    answer = await system.web.post(
        "/ingest/batches",
        params={"source": "traced"},
        content=lines(POSTING | {"account": "A1"}),
        headers={"Idempotency-Key": "trace-1", "traceparent": header},
    )
    assert answer.status_code == 201, answer.text
    await system.caught_up()
    subject = system.ids().account("traced", "A1")
    assert "POST /ingest/batches" in {span.name for span in system.spans.of(trace_id)}
    assert stored(system, "ingest", subject) == {trace_id}
    assert await published(system, INGEST_EVENTS.name, subject) == {trace_id}
    assert views_that_wrote(system, trace_id) == {"asset_panorama"}


@pytest.mark.requirement("M44")
async def test_from_a_record_of_a_branch(system: System) -> None:
    trace_id, header = trace(2)
    record = Record(
        COREBANK_POSTINGS.name,
        0,
        b"A2",
        [("source", b"traced"), ("traceparent", header.encode())],
        json.dumps(POSTING | {"account": "A2", "core_transaction_id": "t2"}).encode(),
    )
    before = system.heads()["ingest"]
    await system.publisher.publish([record])
    while system.heads()["ingest"] == before:
        await system.caught_up()
    await system.caught_up()
    subject = system.ids().account("traced", "A2")
    assert stored(system, "ingest", subject) == {trace_id}
    assert await published(system, INGEST_EVENTS.name, subject) == {trace_id}
    assert views_that_wrote(system, trace_id) == {"asset_panorama"}


@pytest.mark.requirement("M44")
async def test_from_a_command(system: System) -> None:
    trace_id, header = trace(3)
    made = await system.web.post(
        "/customers",
        json=BY_HAND | {"name": "孙悦"},
        headers={"Idempotency-Key": "trace-3", "traceparent": header},
    )
    assert made.status_code == 201, made.text
    await system.caught_up()
    subject = UUID(made.json()["customer_id"])
    assert stored(system, "customer", subject) == {trace_id}
    assert await published(system, CUSTOMER_EVENTS.name, subject) == {trace_id}
    assert views_that_wrote(system, trace_id) == {"customers"}
