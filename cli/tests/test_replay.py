"""`crm replay` gives every event of a store in order, and nobody's name."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import duckdb
import psycopg
import pytest
from chassis.write.events import Metadata, StoredEvent
from chassis.write.store import Recorder, prepare
from contracts.registry import BY_CONTEXT
from crm_cli.contexts import CONTEXTS
from crm_cli.replay import DISORDER_SECONDS_MAX, first_since
from crm_cli.replay_shapes import Shapes, recorded_at

from .stores import NAME, PHONE, PROGRAM, TEXT, Bank, a_small_feed, new_database


@pytest.fixture(scope="module")
def bank(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    bank = Bank(
        new_database(postgres_url), "127.0.0.1:1", "mongodb://127.0.0.1:1", tmp_path_factory.mktemp("data")
    )
    bank.take("branch", *a_small_feed())
    return bank


def replayed(bank: Bank, *arguments: str) -> list[dict]:
    done = bank.crm("replay", "--context", "ingest", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.requirement("D08", "M31")
def test_every_event_is_there_in_order_and_masked(bank):
    lines = replayed(bank)
    recorder = Recorder(bank.postgres_url, "store_ingest")
    stored = recorder.read_after(0, 1000)
    recorder.close()
    assert [(line["position"], line["stream_id"], line["version"], line["name"]) for line in lines] == [
        (event.position, str(event.stream_id), event.version, event.name) for event in stored
    ]
    postings = [line for line in lines if line["name"] == "posting-booked"]
    assert len(postings) == 39
    assert {line["data"]["text"] for line in postings} == {"***"}
    assert {line["data"]["counterparty_name"] for line in postings} == {"***"}
    assert sum(line["data"]["amount_minor"] for line in postings) == sum(100 * n for n in range(1, 40))
    assert all(line["meta"]["recorded_at"] and line["event_id"] for line in lines)
    said = json.dumps(lines, ensure_ascii=False)
    assert not any(plain in said for plain in (NAME, PHONE, TEXT))
    assert '"k1.' not in said, "a token is of no use to whoever reads this"


@pytest.mark.requirement("D08", "M31")
def test_a_part_is_replayed_from_a_position_to_another(bank):
    positions = [line["position"] for line in replayed(bank)]
    assert [line["position"] for line in replayed(bank, "--from", str(positions[10]))] == positions[10:]
    some = replayed(bank, "--from", str(positions[3]), "--to", str(positions[7]))
    assert [line["position"] for line in some] == positions[3:8]
    assert replayed(bank, "--from", str(positions[-1] + 1)) == []


@pytest.mark.requirement("D08", "M31")
def test_a_part_is_replayed_from_an_instant_on(bank):
    lines = replayed(bank)
    instants = sorted({line["meta"]["recorded_at"] for line in lines})
    assert len(instants) > 2
    for since in (instants[0], instants[len(instants) // 2], instants[-1]):
        expected = [line for line in lines if line["meta"]["recorded_at"] >= since]
        assert replayed(bank, "--since", since) == expected
    assert replayed(bank, "--since", "2999-01-01T00:00+08:00") == []
    for wrong in ("yesterday", "2026-03-01T00:00"):
        assert bank.crm("replay", "--context", "ingest", "--since", wrong).returncode == 2


def test_where_an_instant_begins_is_found_among_events_that_are_not_quite_in_its_order(postgres_url):
    schema, chance = "store_since", Random(5)
    prepare(postgres_url, schema)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    instants = [
        begin + timedelta(minutes=10 * n, seconds=chance.uniform(0, DISORDER_SECONDS_MAX)) for n in range(500)
    ]
    recorder = Recorder(postgres_url, schema)
    try:
        recorder.append_bulk(
            [
                StoredEvent(
                    UUID(int=1), n, "noted", json.dumps({"meta": {"recorded_at": at.isoformat()}}).encode()
                )
                for n, at in enumerate(instants, 1)
            ]
        )
        stored = recorder.read_after(0, 1_000)
        head = recorder.head_position()
        for _ in range(50):
            since = begin + timedelta(minutes=chance.uniform(-60, 5_100))
            first = first_since(recorder.read_after, since, head)
            wanted = [event.position for event in stored if recorded_at(event) >= since]
            assert first <= min(wanted, default=head + 1)
            assert sum(first <= event.position for event in stored) <= len(wanted) + 2, "hardly more is read"
    finally:
        recorder.close()


def test_events_are_chosen_by_public_type_or_stored_name(bank):
    lines = replayed(bank)
    assert {(one["name"], one["type"], one["type_version"]) for one in lines} >= {
        ("posting-booked", "posting.booked", 1),
        ("reconciliation-certified", "feed.certified", 2),
        ("intake-received", None, None),
    }
    for asked in (["posting.booked"], ["posting-booked"], ["party.described", "intake-received"]):
        options = [option for one in asked for option in ("--type", one)]
        wanted = [one for one in lines if one["name"] in asked or one["type"] in asked]
        assert replayed(bank, *options) == wanted
        assert wanted
    unknown = bank.crm("replay", "--context", "ingest", "--type", "posting.bookd")
    assert unknown.returncode == 2
    assert b"no type posting.bookd; there are account.seen" in unknown.stderr
    nothing = bank.crm("replay", "--context", "ingest", "--type", "loan.granted")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, b"", b"crm replay: no event\n")


def test_what_is_published_is_told_as_on_kafka_in_one_flat_line(bank):
    stored, published = replayed(bank), replayed(bank, "--published")
    assert [one["ce_position"] for one in published] == [one["position"] for one in stored if one["type"]]
    by_id = {one["event_id"]: one for one in stored}
    models = {(model.TYPE, model.VERSION): model for model in BY_CONTEXT["ingest"]}
    for line in published:
        of = by_id[line["ce_id"]]
        assert (line["ce_type"], line["ce_dataversion"]) == (of["type"], of["type_version"])
        assert (line["ce_subject"], line["ce_sequence"]) == (of["stream_id"], of["version"])
        assert (line["ce_storedname"], line["ce_time"]) == (of["name"], of["meta"]["recorded_at"])
        model = models[line["ce_type"], line["ce_dataversion"]]
        assert set(model.model_fields) == {name for name in line if not name.startswith("ce_")}
        for name in model.PERSONAL:
            assert line[name] in {None, "***"}
    told = json.dumps(published, ensure_ascii=False)
    assert not any(plain in told for plain in (NAME, PHONE, TEXT, '"k1.'))


def test_every_event_of_a_type_has_the_same_fields_in_the_same_order(bank):
    meta = [*(name for name in Metadata.__struct_fields__ if name != "trace"), "traceparent", "tracestate"]
    for options in ((), ("--published",)):
        shapes: dict[str, set[tuple[str, ...]]] = {}
        for line in replayed(bank, *options):
            shapes.setdefault(line.get("ce_type") or line["name"], set()).add(
                (*line, *line.get("meta", ()), *line.get("data", ()))
            )
            assert list(line.get("meta", meta)) == meta
        assert all(len(each) == 1 for each in shapes.values())


@pytest.mark.parametrize("options", [(), ("--published",), ("--published", "--type", "posting.booked")])
def test_duckdb_reads_amounts_as_integers_and_instants_as_instants(bank, tmp_path, options):
    file = tmp_path / "events.jsonl"
    file.write_bytes(bank.crm("replay", "--context", "ingest", *options).stdout)
    amount, at = ("amount_minor", "ce_time") if options else ("data.amount_minor", "meta.recorded_at")
    wanted = "ce_type = 'posting.booked'" if options else "name = 'posting-booked'"
    with duckdb.connect() as database:
        found = database.execute(
            f"select typeof({amount}), typeof({at}), sum({amount}), count(*) from read_json_auto(?)"
            f" where {wanted} group by all",
            [str(file)],
        ).fetchall()
    sums = sum(100 * n for n in range(1, 40))
    [(kind, instant, total, count)] = found
    assert (kind, total, count) == ("BIGINT", sums, 39)
    assert instant.startswith("TIMESTAMP")


def test_an_event_of_a_newer_version_is_reported(bank, postgres_url):
    other = Bank(new_database(postgres_url), bank.kafka_url, bank.mongo_url, bank.data)
    recorder = Recorder(other.postgres_url, "store_ingest")
    recorder.append_bulk([StoredEvent(UUID(int=1), 1, "not-known-yet", b'{"meta":{},"data":{}}')])
    recorder.close()
    done = other.crm("replay", "--context", "ingest")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"position 1 is a not-known-yet, which this version does not know" in done.stderr


SECRET = 'O\'Hara, "王小明" 6222021234566789.csv'
_ID = str(UUID(int=7))
_META = {
    "effective_at": "2026-01-05T00:00:00Z",
    "recorded_at": "2026-01-05T00:00:00Z",
    "actor": "sync-ingest",
    "command_id": _ID,
    "correlation_id": _ID,
    "causation_id": _ID,
}


def stored_before(name: str, data: dict, version: int | None = None) -> StoredEvent:
    content = data if version is None else {"v": version} | data
    return StoredEvent(UUID(int=1), 1, name, json.dumps({"meta": _META, "data": content}).encode(), None, 9)


QUARANTINED = {
    "source": "s",
    "quarantine": _ID,
    "intake": _ID,
    "file": SECRET,
    "line": 3,
    "column": SECRET,
    "reason": "field-unknown",
    "detail": f"Object contains unknown field `{SECRET}`",
    "raw": "k1.AAAA.BBBB",
}
NUMBERS = dict.fromkeys(
    ("records", "posted", "duplicates", "quarantined", "master_records", "accounts", "late", "back_dated"), 1
)
FINDINGS = NUMBERS | {
    "status": "RED",
    "booked_through": None,
    "lines": [],
    "printed": {},
    "problems": [
        {"code": "control-total-differs", "expected": 1, "found": 2, "detail": f"records, {SECRET}:17"},
        {"code": "running-balance-differs", "expected": 1, "found": 2, "detail": "2026-03-03"},
        {"code": "movement-differs", "expected": 1, "found": 2, "detail": None},
    ],
    "problems_total": 3,
    "reasons": ["control-total-differs"],
}
CERTIFIED = {
    "source": "s",
    "certificate": _ID,
    "intakes": [_ID],
    "findings": FINDINGS,
    "expected_every_seconds": 60,
}
RECEIVED = {"source": "s", "intake": _ID, "sha256": "5e88" * 16, "format": "csv", "size_bytes": 8}


@pytest.mark.parametrize(
    ("name", "data", "version"),
    [
        ("feed-record-quarantined", QUARANTINED, None),
        ("intake-received", RECEIVED, None),
        ("reconciliation-certified", CERTIFIED, None),
        ("reconciliation-certified", CERTIFIED, 2),
    ],
)
def test_what_events_of_before_hold_in_clear_is_not_shown(name, data, version):
    shapes, event = Shapes(CONTEXTS["ingest"]), stored_before(name, data, version)
    lines = [shapes.stored(event, frozenset()), shapes.published(event, frozenset())]
    for line in lines:
        said = line.decode()
        assert not any(part in said for part in ("Hara", "王", "6222021234566789", "5e88"))
    shown = json.loads(lines[0])["data"]
    if name == "feed-record-quarantined":
        assert (shown["file"], shown["detail"], shown["column"], shown["line"]) == ("***", "***", "***", 3)
        assert json.loads(lines[1])["detail"] == "***"
    elif name == "intake-received":
        assert (shown["sha256"], shown["size_bytes"], lines[1]) == ("***", 8, b"")
    else:
        details = [problem["detail"] for problem in shown["findings"]["problems"]]
        assert details == ["records", "2026-03-03", None]


def test_what_an_event_of_today_tells_of_a_record_is_shown():
    today = QUARANTINED | {"file": "k1.AAAA.BBBB", "column": "booked_on", "detail": "not a date"}
    shown = json.loads(
        Shapes(CONTEXTS["ingest"]).stored(stored_before("feed-record-quarantined", today, 2), frozenset())
    )
    assert (shown["data"]["detail"], shown["data"]["column"]) == ("not a date", "booked_on")


def test_a_closed_pipe_is_no_error(bank):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "replay", "--context", "ingest"],
        env=bank.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(30) == 0


def test_an_unknown_context_and_an_unreachable_store_are_reported(bank):
    assert b"no context nowhere" in bank.crm("replay", "--context", "nowhere").stderr
    empty = psycopg.conninfo.make_conninfo(bank.postgres_url, dbname="template1")
    done = Bank(empty, bank.kafka_url, bank.mongo_url, bank.data).crm("replay", "--context", "ingest")
    assert done.returncode == 2
    assert b"crm replay: the store of ingest cannot be read" in done.stderr
