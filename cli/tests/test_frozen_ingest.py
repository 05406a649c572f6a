"""A `crm ingest` that is stopped by a signal in the middle of its run and lives on, knowing nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from chassis.connections.settings import Settings
from crm_cli.migrate import migrated

TAKEN_OVER_SECONDS_MAX = 30.0
SECONDS_MAX = 60.0
POSTINGS = 12_000


@pytest.fixture(scope="module")
def environment(postgres_url, tmp_path_factory):
    of = psycopg.conninfo.make_conninfo
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in ("frozen_ingest", "frozen_ingest_keys"):
            connection.execute(f"create database {name}")
    servers = {"POSTGRES_URL": "frozen_ingest", "CRM_KEYS_URL": "frozen_ingest_keys"}
    urls = {name: of(postgres_url, dbname=database) for name, database in servers.items()}
    migrated(Settings(postgres_url=urls["POSTGRES_URL"], keys_url=urls["CRM_KEYS_URL"]))
    return (
        os.environ
        | urls
        | {
            "CRM_DATA": str(tmp_path_factory.mktemp("data")),
            "CRM_ENVIRONMENT": "development",
        }
    )


def feed(path, first, count):
    with path.open("w") as lines:
        for n in range(first, first + count):
            posting = {
                "record": "posting",
                "account": f"A{n % 50}",
                "core_transaction_id": f"t{n}",
                "amount_minor": n + 1,
                "currency": "CNY",
                "booked_on": "2026-03-02",
            }
            lines.write(json.dumps(posting) + "\n")
    return path


def command(source, path):
    return [sys.executable, "-m", "crm_cli.main", "ingest", "--source", source, str(path), "--json"]


def run(environment, source, path):
    done = subprocess.run(
        command(source, path),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TAKEN_OVER_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def frozen(environment, source, path, point):
    """A run that has stopped itself at a named point; it is continued by SIGCONT."""
    process = subprocess.Popen(
        command(source, path),
        env=environment | {"CRM_FREEZE_AT": point},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + SECONDS_MAX
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert process.poll() is None
            assert time.monotonic() < deadline, "the command does not stop at its point"
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


def continued(process):
    """Continues it until it ends: it reaches the named point again when it tries again."""
    deadline = time.monotonic() + SECONDS_MAX
    while process.poll() is None:
        assert time.monotonic() < deadline, "the command does not end"
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)


def held(environment, source):
    """What is stored of a source: the head of the store, postings, certificates, and the turnover that was folded."""
    with psycopg.connect(environment["POSTGRES_URL"]) as connection:
        return connection.execute(
            "select (select max(position) from store_ingest.events),"
            " (select sum(postings) from ingest.account_totals where source = %(source)s),"
            " (select sum(credits_minor) from ingest.account_totals where source = %(source)s),"
            " (select sum(turnover_minor)::bigint from ingest.turnovers where source = %(source)s),"
            " (select count(*) from ingest.certificates where source = %(source)s),"
            " (select count(*) from ingest.intakes where source = %(source)s and certificate is null)",
            {"source": source},
        ).fetchone()


@pytest.mark.parametrize("point", ["after-intake", "mid-batch", "after-append", "before-certificate"])
def test_a_frozen_run_loses_its_source_and_stores_nothing_more(environment, tmp_path, point):
    one, two = feed(tmp_path / "one.jsonl", 0, POSTINGS), feed(tmp_path / "two.jsonl", POSTINGS, 10)
    with frozen(environment, point, one, point) as process:
        began = time.monotonic()
        taken_over = run(environment, point, two)
        assert time.monotonic() - began < TAKEN_OVER_SECONDS_MAX
        assert (taken_over["certificate"], taken_over["posted"]) == ("AMBER", 10)
        everything = POSTINGS + 10
        total = sum(range(1, everything + 1))
        before = held(environment, point)
        assert before[1:] == (everything, total, total, 2, 0)
        continued(process)
        said = process.stderr.read()
        assert process.returncode == 0, said
        assert "Fenced" in said
        assert json.loads(process.stdout.read())["posted"] == 0
    assert held(environment, point) == before
