"""What goes around an event is read back as it was written, and nothing else is taken for it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from contracts.envelope import COUNTED_MAX, Envelope, EnvelopeInvalid, Watermark, unwrap
from hypothesis import given
from hypothesis import strategies as st

ENVELOPE = Envelope(
    id=UUID(int=1),
    type="posting.booked",
    version=1,
    context="ingest",
    subject=UUID(int=2),
    sequence=7,
    position=4711,
    recorded_at=datetime(2026, 1, 5, 8, 0, 0, 123456, tzinfo=UTC),
    effective_at=datetime(2025, 12, 31, 16, 0, tzinfo=UTC),
    stored_name="posting-booked",
    correlation_id=UUID(int=3),
    causation_id=UUID(int=4),
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    tracestate="vendor=1",
)
REQUIRED = (
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_subject",
    "ce_time",
    "ce_sequence",
    "ce_position",
    "ce_dataversion",
    "ce_storedname",
    "ce_effectiveat",
    "ce_correlationid",
    "ce_causationid",
)


def test_the_headers_are_those_of_cloudevents_in_binary_mode():
    headers = dict(ENVELOPE.headers())
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_source"] == b"/crm/ingest"
    assert headers["ce_type"] == b"posting.booked"
    assert headers["ce_subject"] == b"00000000-0000-0000-0000-000000000002"
    assert headers["ce_time"] == b"2026-01-05T08:00:00.123456+00:00"
    assert headers["content-type"] == b"application/json"
    assert headers["traceparent"] == ENVELOPE.traceparent.encode()
    extensions = [name.removeprefix("ce_") for name in headers if name.startswith("ce_")]
    assert all(name.isalnum() and name.islower() and len(name) <= 20 for name in extensions)


@given(
    st.uuids(),
    st.uuids(),
    st.integers(1, 2**31 - 1),
    st.integers(1, COUNTED_MAX),
    st.datetimes(timezones=st.just(UTC)),
    st.none() | st.just(ENVELOPE.traceparent),
)
def test_what_was_written_is_read(id, subject, sequence, position, at, traceparent):
    envelope = replace(
        ENVELOPE,
        id=id,
        subject=subject,
        sequence=sequence,
        position=position,
        effective_at=at,
        traceparent=traceparent,
        tracestate=None,
    )
    assert Envelope.of(envelope.headers()) == envelope == unwrap(envelope.headers())


def test_one_instant_in_two_zones_stays_one_instant():
    shanghai = ENVELOPE.effective_at.astimezone(timezone(timedelta(hours=8)))
    headers = replace(ENVELOPE, effective_at=shanghai).headers()
    assert Envelope.of(headers).effective_at == ENVELOPE.effective_at


def test_headers_of_others_are_ignored():
    assert Envelope.of([*ENVELOPE.headers(), ("x-of-somebody-else", b"\xff")]) == ENVELOPE


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_missing_header_is_named(missing):
    headers = [each for each in ENVELOPE.headers() if each[0] != missing]
    with pytest.raises(EnvelopeInvalid, match=missing):
        unwrap(headers)


@pytest.mark.parametrize("broken", REQUIRED)
@pytest.mark.parametrize("value", [b"", b"\xff\xfe", None], ids=repr)
def test_a_broken_header_is_refused_and_nothing_else_is_raised(broken, value):
    headers = [(name, value if name == broken else kept) for name, kept in ENVELOPE.headers()]
    with pytest.raises(EnvelopeInvalid):
        unwrap(headers)


def test_an_instant_without_a_zone_is_refused():
    headers = [
        (name, b"2026-01-05T08:00:00" if name == "ce_time" else value) for name, value in ENVELOPE.headers()
    ]
    with pytest.raises(EnvelopeInvalid, match="zone"):
        Envelope.of(headers)


def test_a_watermark_is_no_event_and_an_event_no_watermark():
    mark = Watermark("ingest", 4711, ENVELOPE.recorded_at)
    assert unwrap(mark.headers(0)) == mark
    with pytest.raises(EnvelopeInvalid):
        Envelope.of(mark.headers(0))
    with pytest.raises(EnvelopeInvalid):
        Watermark.of(ENVELOPE.headers())


def test_no_two_watermarks_have_the_same_id():
    later = ENVELOPE.recorded_at + timedelta(microseconds=1)
    marks = [Watermark("ingest", 4711, at) for at in (ENVELOPE.recorded_at, later)]
    ids = [dict(mark.headers(partition))["ce_id"] for mark in marks for partition in range(6)]
    assert len(set(ids)) == 12


def test_a_watermark_says_in_its_body_what_its_headers_say():
    mark = Watermark("ingest", 4711, ENVELOPE.recorded_at)
    assert json.loads(mark.body) == {"position": 4711}
    assert dict(mark.headers(0))["content-type"] == b"application/json"


def test_an_empty_store_has_a_watermark_too():
    mark = Watermark("customer", 0, ENVELOPE.recorded_at)
    assert unwrap(mark.headers(0)) == mark
