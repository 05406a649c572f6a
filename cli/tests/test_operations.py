"""Commands that change a running system name who had it changed; nobody without a name changes anything."""

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import psycopg
import pytest
from chassis.connections.settings import Settings
from crm_cli.migrate import migrated


@pytest.fixture(scope="module")
def environment(postgres_url, tmp_path_factory):
    of = psycopg.conninfo.make_conninfo
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in ("operations", "operations_keys"):
            connection.execute(f"create database {name}")
    urls = {
        "POSTGRES_URL": of(postgres_url, dbname="operations"),
        "CRM_KEYS_URL": of(postgres_url, dbname="operations_keys"),
    }
    migrated(Settings(postgres_url=urls["POSTGRES_URL"], keys_url=urls["CRM_KEYS_URL"]))
    unreachable = {
        "KAFKA_URL": "127.0.0.1:1",
        "MONGO_URL": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200",
    }
    return (
        os.environ
        | urls
        | unreachable
        | {
            "CRM_DATA": str(tmp_path_factory.mktemp("data")),
            "CRM_ENVIRONMENT": "development",
        }
    )


def crm(environment, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "crm_cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def acted(environment):
    with psycopg.connect(environment["POSTGRES_URL"]) as connection:
        bodies = connection.execute(
            "select body from store_customer.events where name = 'operator-acted' order by position"
        ).fetchall()
    return [msgspec.json.decode(body) for (body,) in bodies]


@pytest.mark.requirement("R091", "R094")
@pytest.mark.parametrize(
    ("arguments", "action", "target"),
    [
        (["republish", "--context", "ingest", "--from", "1"], "republished", "ingest from 1"),
        (["unpublishable", "retry", "--context", "customer"], "unpublishable-retried", "customer all"),
        (["dead-letters", "resend", "sync-ingest.feed"], "dead-letters-resent", "sync-ingest.feed"),
        (["parked", "release", "customer.policies", "--all"], "parked-released", "customer.policies all"),
        (["rebuild", "asset_panorama"], "view-rebuilt", "asset_panorama"),
        (["keys", "rotate"], "keys-rotated", "key-encryption keys"),
    ],
)
def test_who_changes_a_running_system_is_in_an_event(environment, arguments, action, target):
    before = len(acted(environment))
    refused = crm(environment | {"CRM_ENVIRONMENT": "production"}, *arguments)
    assert refused.returncode == 2, refused.stderr
    assert "a person must act" in refused.stderr
    assert len(acted(environment)) == before
    crm(environment, *arguments, "--reason", "the topic lost records")
    (event,) = acted(environment)[before:]
    assert (event["data"]["action"], event["data"]["target"]) == (action, target)
    assert event["meta"]["actor"] == f"os:{getpass.getuser()}"
    assert (event["meta"]["reason"], event["meta"]["privilege"]) == ("the topic lost records", "high")


def test_the_keys_of_a_bank_are_rotated_and_move_to_another_root_key(environment, tmp_path):
    def done(*arguments, code=0, **more):
        ended = crm(environment | more, *arguments)
        assert ended.returncode == code, ended.stderr
        return ended

    before = Path(environment["CRM_DATA"]) / "keys" / "kek"
    rotated = json.loads(done("keys", "rotate", "--json").stdout)
    (root, kept) = json.loads(done("keys", "status", "--json").stdout)["items"]
    assert root == {"encryption": None, "data_keys": 0, "secrets": 0}
    assert kept["encryption"] == rotated["encryption"]
    new = tmp_path / "kek"
    refused = done("keys", "replace-root", "--file", str(new), code=2)
    assert "there is no key-encryption key" in refused.stderr
    new.write_bytes(bytes(range(32)))
    new.chmod(0o600)
    assert "either" in done("keys", "replace-root", code=2).stderr
    assert (
        done("keys", "replace-root", "--file", str(new)).stdout == "1 key-encryption keys are wrapped anew\n"
    )
    assert "wrapped by another key" in done("keys", "rotate", code=2).stderr
    again = json.loads(done("keys", "rotate", "--json", CRM_KEK_FILE=str(new)).stdout)
    assert again["encryption"] == rotated["encryption"] + 1
    assert done("keys", "replace-root", "--file", str(before), CRM_KEK_FILE=str(new)).stdout
    actions = [event["data"]["action"] for event in acted(environment)]
    assert actions[-2:] == ["keys-rotated", "root-key-replaced"]
