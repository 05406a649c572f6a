"""What views get: checked against the contract, lazy, and as JSON has it."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid5

import msgspec
import pytest
from chassis.messaging.delivered import BodyInvalid, Delivered, Passed, WriterNewer, read, read_body
from chassis.messaging.records import Record
from chassis.read.arrivals import Arrivals
from contracts.envelope import Envelope, EnvelopeInvalid, Watermark
from contracts.registry import BY_CONTEXT, TypeUnknown

NAMESPACE = UUID("8a7f6c1e-53a2-5d0a-9d3c-7a3d7f1f2b12")
SUBJECT = uuid5(NAMESPACE, "subject")
AT = datetime(2026, 1, 5, 8, tzinfo=UTC)
GOLDEN = Path(__file__).parents[3] / "contracts" / "golden"
ENVELOPE = Envelope(
    uuid5(NAMESPACE, "event"), "card.issued", 1, "ingest", SUBJECT, 3, 77, AT, AT, "card-issued",
    uuid5(NAMESPACE, "correlation"), uuid5(NAMESPACE, "causation"), "00-abc-def-01",
)  # fmt: skip
BODY = b'{"source": "core", "card": "k1.a.b", "issued_on": "2026-01-05", "unheard_of": 1}'


def record(headers, value=BODY):
    return Record("crm.ingest.events", 2, str(SUBJECT).encode(), headers, value, 11)


def test_an_event_has_its_envelope_and_its_body_as_json_has_it():
    event = read(record(ENVELOPE.headers()))
    assert isinstance(event, Delivered)
    assert (event.type, event.version, event.context, event.subject) == ("card.issued", 1, "ingest", SUBJECT)
    assert (event.sequence, event.position, event.stored_name) == (3, 77, "card-issued")
    assert (event.recorded_at, event.effective_at, event.traceparent) == (AT, AT, "00-abc-def-01")
    assert (event.id, event.envelope) == (ENVELOPE.id, ENVELOPE)
    assert event.data == {"source": "core", "card": "k1.a.b", "issued_on": "2026-01-05"}


def test_a_watermark_is_read_as_one():
    assert read(record(Watermark("ingest", 9, AT).headers(0), b"")) == Passed("ingest", 9, AT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_specversion", b"0.3"),
        ("ce_source", b"elsewhere"),
        ("ce_type", b""),
        ("ce_subject", b"nobody"),
        ("ce_sequence", b"0"),
        ("ce_sequence", b"x"),
        ("ce_position", b"0"),
        ("ce_dataversion", b"one"),
        ("content-type", b"text/plain"),
    ],
)
def test_headers_that_are_not_ours_are_named(name, value):
    headers = [*(pair for pair in ENVELOPE.headers() if pair[0] != name), (name, value)]
    with pytest.raises(EnvelopeInvalid):
        read(record(headers))
    with pytest.raises(EnvelopeInvalid, match=name):
        read(record([pair for pair in ENVELOPE.headers() if pair[0] != name]))


@pytest.mark.parametrize("value", [b"\xff\xfe", b"", None, b"\xf0\x9f\x98\x80"], ids=repr)
@pytest.mark.parametrize("name", ["traceparent", "tracestate"])
def test_a_trace_that_cannot_be_read_is_left_out_and_stops_nothing(name, value):
    event = read(record([*(pair for pair in ENVELOPE.headers() if pair[0] != name), (name, value)]))
    assert isinstance(event, Delivered)
    wanted = {"traceparent": ENVELOPE.traceparent, "tracestate": None} | {name: "" if value == b"" else None}
    assert {each: getattr(event, each) for each in wanted} == wanted
    assert {each: getattr(event.envelope, each) for each in wanted} == wanted


@pytest.mark.parametrize("name", sorted({pair[0] for pair in ENVELOPE.headers()} | {"ce_time", "x"}))
@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xfe", b"", None, b"9" * 5_000, b"9" * 30, b"-1", b"0001-01-01T00:00:00+14:00",
        b"9999-12-31T23:59:59-14:00", b"\x00", b"a\nb",
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["event", "watermark"])
def test_whatever_a_header_holds_a_batch_goes_on(name, value, kind):
    of = ENVELOPE.headers() if kind == "event" else Watermark("ingest", 9, AT).headers(0)
    headers = [*(pair for pair in of if pair[0] != name), (name, value)]
    arrivals = Arrivals()
    events = list(arrivals.events([record(headers), record(ENVELOPE.headers())]))
    assert events[-1].sequence == 3
    assert len(events) + len(arrivals.broken) + (kind == "watermark" and not arrivals.broken) == 2
    for at in arrivals.positions.values():
        assert at.position < 2**63
        assert at.at is None or at.at.astimezone(UTC)


def test_a_bad_instant_is_found_by_whoever_asks_for_it():
    event = read(record([*ENVELOPE.headers(), ("ce_effectiveat", b"2026-01-05T08:00:00")]))
    assert isinstance(event, Delivered)
    with pytest.raises(EnvelopeInvalid, match="zone"):
        _ = event.effective_at


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"source": "core", "issued_on": "2026-01-05"}', "card"),
        (b'{"source": "core", "card": 5, "issued_on": "2026-01-05"}', "card"),
        (b"{", "truncated"),
        (b"[]", "array"),
    ],
)
def test_a_body_that_breaks_its_contract_is_refused(body, reason):
    with pytest.raises(BodyInvalid, match=reason):
        read_body("card.issued", 1, body)
    with pytest.raises(WriterNewer):
        read_body("card.issued", 99, BODY)
    for name, version in [("card.issued", 0), ("card.lost", 1)]:
        with pytest.raises(TypeUnknown):
            read_body(name, version, BODY)


@pytest.mark.parametrize(
    "event", [event for events in BY_CONTEXT.values() for event in events], ids=lambda event: event.TYPE
)
def test_every_golden_body_of_the_contracts_is_read_as_its_newest_version_has_it(event):
    files = [path for path in GOLDEN.rglob("*.json") if path.name == f"{event.TYPE}.v{event.VERSION}.json"]
    assert files, f"no golden file of {event.TYPE}"
    newest = newest_of(event.TYPE)
    for body in (file.read_bytes() for file in files):
        published = msgspec.json.decode(body)
        read = read_body(event.TYPE, event.VERSION, body)
        newest.model_validate(read)
        if newest is event:
            assert read == published
        sealed_before = event.PERSONAL & newest.PERSONAL
        assert {field: read.get(field) for field in sealed_before} == {
            field: published.get(field) for field in sealed_before
        }


def test_a_reader_is_given_the_newest_version_and_the_record_stays_as_it_was():
    published = {
        "source": "core",
        "quarantine": str(SUBJECT),
        "intake": str(SUBJECT),
        "file": "6222021234566789.csv",
        "line": 7,
        "column": "of 6222021234566789",
        "reason": "amount-invalid",
        "detail": "6222021234566789",
    }
    body = msgspec.json.encode(published)
    read = read_body("feed.record_quarantined", 1, body)
    assert b"6222021234566789" not in msgspec.json.encode(read)
    assert {field: read[field] for field in ("line", "reason")} == {"line": 7, "reason": "amount-invalid"}
    assert read_body("feed.record_quarantined", 2, body) == published


def newest_of(name):
    return max(
        (event for events in BY_CONTEXT.values() for event in events if name == event.TYPE),
        key=lambda event: event.VERSION,
    )
