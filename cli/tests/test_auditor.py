"""The auditor's login reads the event stores, `crm replay` and `crm verify` accept it, and it can do nothing else."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from chassis.connections.settings import Settings
from chassis.messaging.transport import ensure_topics
from chassis.read.mongo import Mongo
from contracts.topics import TOPICS
from crm_cli.contexts import CONTEXTS
from crm_cli.migrate import migrated
from psycopg import errors
from psycopg.conninfo import make_conninfo

from tests.support.roles import FOLLOWING, roles_of_all

from .stores import Bank, a_small_feed, new_database

PAGE = Path(__file__).parents[2] / "docs" / "auditor.md"
READ = {
    "events",
    "commands",
    "relay",
    "leases",
    "unpublishable",
    "timers",
    "timer_folds",
    "notices",
    "notice_folds",
}
WRITING = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")


@pytest.fixture(scope="module")
def bank(postgres_url: str, kafka_url: str, mongo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    asyncio.run(ensure_topics(kafka_url, TOPICS))
    made = Bank(new_database(postgres_url), kafka_url, mongo_url, tmp_path_factory.mktemp("data"))
    made.take("branch", *a_small_feed())
    migrated(with_auditor(made))
    return made


def with_auditor(bank: Bank) -> Settings:
    return Settings(
        postgres_url=bank.postgres_url, keys_url=bank.keys_url, postgres_auditor_url=auditor_url(bank)
    )


def auditor_url(bank: Bank) -> str:
    return make_conninfo(bank.postgres_url, user="crm_auditor", password="read only ' \\ 密码")


@pytest.fixture
def auditor(bank: Bank) -> "Iterator[psycopg.Connection]":
    with psycopg.connect(auditor_url(bank), autocommit=True) as connection:
        connection.execute("set default_transaction_read_only = off")  # whoever logs in may do this
        yield connection


def asked(connection: psycopg.Connection, question: str, *values: object) -> set[str]:
    return {row[0] for row in connection.execute(question, values).fetchall()}


@pytest.mark.requirement("D09")
def test_the_auditor_may_read_the_stores_and_no_other_table(auditor):
    readable = asked(
        auditor,
        "select oid::regclass::text from pg_class where relkind in ('r', 'p', 'v', 'm', 'f', 'S')"
        " and relnamespace <> all(array['pg_catalog', 'information_schema', 'pg_toast']::regnamespace[])"
        " and (has_table_privilege(oid, 'SELECT') or has_any_column_privilege(oid, 'SELECT'))",
    )
    stores = {f"{context.schema}.{table}" for context in CONTEXTS.values() for table in READ}
    assert readable == stores | {"migrations.applied"}
    for table in sorted(stores):
        auditor.execute(f"select * from {table} limit 1")
    with pytest.raises(errors.InsufficientPrivilege):
        auditor.execute("select * from ingest.quarantine")
    with pytest.raises(errors.InsufficientPrivilege):
        auditor.execute("select * from store_customer.snapshots")


@pytest.mark.requirement("D09")
@pytest.mark.parametrize("right", WRITING)
def test_the_auditor_holds_no_right_that_writes(auditor, right):
    if right == "MAINTAIN" and auditor.info.server_version < 170_000:
        pytest.skip("this server does not know the right")
    held = asked(
        auditor,
        "select oid::regclass::text from pg_class where relkind in ('r', 'p', 'v')"
        " and relnamespace <> all(array['pg_catalog', 'information_schema']::regnamespace[])"
        " and has_table_privilege(oid, %s)",
        right,
    )
    assert held == set()


def test_the_auditor_calls_no_function_of_ours_and_owns_and_creates_nothing(auditor):
    schemas = [context.schema for context in CONTEXTS.values()]
    ours = "pronamespace <> all(array['pg_catalog', 'information_schema']::regnamespace[])"
    callable_ = asked(
        auditor,
        f"select oid::regprocedure::text from pg_proc where {ours} and has_function_privilege(oid, 'EXECUTE')"
        " and has_schema_privilege(pronamespace, 'USAGE')",
    )
    assert callable_ == set()
    create = asked(auditor, "select nspname from pg_namespace where has_schema_privilege(oid, 'CREATE')")
    assert create == set()
    usable = asked(
        auditor,
        "select nspname from pg_namespace where has_schema_privilege(oid, 'USAGE') and nspname !~ '^pg_'",
    )
    assert usable == {*schemas, "migrations", "information_schema", "public"}
    assert asked(auditor, "select rolname from pg_roles where pg_has_role(oid, 'MEMBER')") == {"crm_auditor"}
    [attributes] = auditor.execute(
        "select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit > 0"
        " from pg_roles where rolname = current_user"
    ).fetchall()
    assert attributes == (False, False, False, False, False, True)


@pytest.mark.requirement("D09")
@pytest.mark.parametrize(
    "statement",
    [
        "insert into store_ingest.relay values ('x', 1)",
        "update store_ingest.leases set epoch = 9",
        "delete from store_customer.unpublishable",
        "truncate store_ingest.events",
        "begin; lock table store_ingest.events in access exclusive mode",
        "select * from store_ingest.events limit 1 for update",
        "select store_ingest.prune_commands(1, 1)",
        "select store_ingest.append_events('{}', '{}', '{}', '{}', '{}', false)",
        "create table public.t (a int)",
        "create temporary table t (a int)",
        "create schema s",
        "create role r",
        "create function public.f() returns int language sql as 'select 1'",
        "create database d",
        "alter table store_ingest.events disable trigger all",
        "set role crm_ingest_writer",
        "set session_replication_role = replica",
        "select lo_create(0)",
        "select lo_from_bytea(0, 'x')",
        "copy (select 1) to '/tmp/x'",
        "copy store_ingest.relay from stdin",
        "drop schema store_ingest cascade",
        "comment on table store_ingest.events is 'x'",
    ],
)
def test_what_changes_anything_is_refused(auditor, statement):
    with pytest.raises(errors.InsufficientPrivilege):
        auditor.execute(statement)


def test_the_auditor_does_not_reach_the_keys(bank):
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(
            make_conninfo(
                auditor_url(bank), dbname=psycopg.conninfo.conninfo_to_dict(bank.keys_url)["dbname"]
            )
        )


def test_the_login_begins_read_only_and_its_password_is_kept_sealed(bank):
    with psycopg.connect(auditor_url(bank)) as connection:
        assert connection.execute("show default_transaction_read_only").fetchone() == ("on",)
    with psycopg.connect(bank.postgres_url) as connection:
        [(kept,)] = connection.execute(
            "select rolpassword from pg_authid where rolname = 'crm_auditor'"
        ).fetchall()
    assert kept.startswith("SCRAM-SHA-256$")


def test_migrating_again_changes_nothing(bank):
    assert migrated(with_auditor(bank)) == 0


def as_auditor(bank: Bank, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    environment = {name: value for name, value in bank.environment().items() if name != "POSTGRES_URL"}
    return subprocess.run(
        [sys.executable, "-m", "crm_cli.main", *arguments],
        env=environment
        | {
            "POSTGRES_AUDITOR_URL": auditor_url(bank),
            "CRM_DATA": str(folder),
            "CRM_KEYS_URL": "postgresql://127.0.0.1:1/none",
        },
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.mark.requirement("D08", "D09", "M31")
def test_replay_runs_as_the_auditor(bank, tmp_path):
    done = as_auditor(bank, tmp_path, "replay", "--context", "ingest")
    assert done.returncode == 0, done.stderr
    assert done.stdout == bank.crm("replay", "--context", "ingest").stdout
    assert done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.requirement("D09")
async def test_verify_runs_as_the_auditor_and_writes_checkpoints_alone(bank, tmp_path):
    mongo = Mongo.connect(bank.mongo_url)
    await mongo.drop_database()
    await mongo.close()
    stopping = asyncio.Event()
    running = [
        asyncio.create_task(make().run(stopping))
        for make in roles_of_all(bank.settings(), FOLLOWING | {"timers"}).values()
    ]
    try:
        for _ in range(3):
            done = await asyncio.to_thread(as_auditor, bank, tmp_path, "verify", "--json", "--wait", "60")
            if done.returncode == 0:
                break
            await asyncio.sleep(2)  # a policy may still have booked something behind the first look
    finally:
        stopping.set()
        await asyncio.gather(*running)
    assert done.returncode == 0, (done.stderr, done.stdout)
    report = json.loads(done.stdout)
    assert report["green"]
    assert report["contexts"]["ingest"]["events"] > 40
    assert report["keys"] == "not looked at: this login may not read the key database"
    assert {path.name for path in tmp_path.iterdir()} == {"verified"}


def test_the_commands_of_the_page_run(bank, tmp_path):
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    program = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{program}{os.pathsep}{os.environ['PATH']}",
        "POSTGRES_AUDITOR_URL": auditor_url(bank),
        "MONGO_URL": bank.mongo_url,
        "KAFKA_URL": bank.kafka_url,
        "CRM_DATA": str(tmp_path),
    }
    environment.pop("POSTGRES_URL", None)
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        wanted = 0
        if "crm verify" in block:
            wanted = 0 if json.loads((tmp_path / "verified.json").read_bytes())["green"] else 1
        assert done.returncode == wanted, (block, done.stderr)
        assert "Traceback" not in done.stderr
        assert "denied" not in done.stderr
    assert (tmp_path / "ingest.jsonl").stat().st_size > 0
