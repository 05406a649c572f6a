"""`crm replay` gives every event of a store in order, and nobody's name."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import psycopg
import pytest
from chassis.events import StoredEvent
from chassis.store import Recorder, prepare
from crm_cli.replay import DISORDER_SECONDS_MAX, first_since, recorded_at

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


def test_a_part_is_replayed_from_a_position_to_another(bank):
    positions = [line["position"] for line in replayed(bank)]
    assert [line["position"] for line in replayed(bank, "--from", str(positions[10]))] == positions[10:]
    some = replayed(bank, "--from", str(positions[3]), "--to", str(positions[7]))
    assert [line["position"] for line in some] == positions[3:8]
    assert replayed(bank, "--from", str(positions[-1] + 1)) == []


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


def test_a_reader_that_has_seen_enough_is_no_error(bank):
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


def test_an_unknown_context_or_a_store_that_is_away_is_said(bank):
    assert b"no context nowhere" in bank.crm("replay", "--context", "nowhere").stderr
    empty = psycopg.conninfo.make_conninfo(bank.postgres_url, dbname="template1")
    done = Bank(empty, bank.kafka_url, bank.mongo_url, bank.data).crm("replay", "--context", "ingest")
    assert done.returncode == 2
    assert b"crm replay: the store of ingest cannot be read" in done.stderr
