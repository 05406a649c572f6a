"""`crm status` against real servers: what waits is counted where it waits, and a server that is away is said."""

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from io import BytesIO
from typing import Any

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.messaging.records import Record
from chassis.messaging.transport import KafkaPublisher, end_offsets, ensure_topics
from chassis.process.roles import Role
from chassis.read.mongo import Mongo
from chassis.relay import RelayRole
from contracts.topics import TOPICS
from crm_cli.contexts import CONTEXTS
from crm_cli.status import read_status, readable
from sync_ingest.ledger import CATALOGUE
from sync_ingest.opening import opened
from sync_ingest.publishing import published
from sync_ingest.runs.results import FeedContent

from tests.support.roles import roles_of_all
from tests.support.waiting import until

from .stores import Bank, a_small_feed, new_database


@pytest.fixture
async def bank(postgres_url, kafka_url, mongo_url, tmp_path) -> Bank:
    await ensure_topics(kafka_url, TOPICS)
    mongo = Mongo.connect(mongo_url)
    await mongo.drop_database()
    await mongo.close()
    return Bank(new_database(postgres_url), kafka_url, mongo_url, tmp_path)


async def running(condition: Callable[[], object], *roles: Role) -> None:
    stopping = asyncio.Event()
    tasks = [asyncio.create_task(role.run(stopping)) for role in roles]
    try:
        await until(condition, what=lambda: [(role.name, role.not_ready()) for role in roles])
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


async def test_waiting_events_are_counted_in_each_place(bank):
    settings = bank.settings()
    before = await end_offsets(bank.kafka_url, ["crm.ingest.events"])
    await asyncio.to_thread(bank.take, "branch", *a_small_feed())

    stored = await read_status(settings)
    ingest = stored["contexts"]["ingest"]
    assert ingest["head"] > 40
    assert (ingest["published"], ingest["outbox"]) == (0, ingest["head"])
    assert ingest["outbox_age_seconds"] > 0
    assert stored["outbox"] == ingest["head"]

    role = RelayRole(
        "ingest",
        "store_ingest",
        published,
        CATALOGUE,
        postgres_url=bank.postgres_url,
        kafka_url=bank.kafka_url,
    )
    await running(lambda: role.relay.position == ingest["head"], role)
    out = (await read_status(settings))["contexts"]["ingest"]
    assert (out["published"], out["outbox"], out["outbox_age_seconds"]) == (ingest["head"], 0, 0)
    assert out["epoch"] == 1
    written = sum((await end_offsets(bank.kafka_url, ["crm.ingest.events"])).values()) - sum(before.values())
    assert out["lag"] >= written > 40

    publisher = KafkaPublisher(bank.kafka_url)
    await publisher.publish([Record("customer.asset_panorama.v1.dead-letters", 0, b"", [], b"x")])
    await publisher.close()

    async def caught_up() -> bool:
        group = (await read_status(settings))["groups"]
        return all(each.get("generation") and each["lag"] == 0 for each in group.values() if "view" in each)

    await running(caught_up, *(make() for make in roles_of_all(settings, {"views", "derived"}).values()))
    an_hour_ago = SystemClock().now() - timedelta(hours=1)
    late = "insert into store_customer.timers values (gen_random_uuid(), 'review', '', gen_random_uuid(), 1, %s, %s, '{}', 0, %s, null, 'g')"
    with psycopg.connect(bank.postgres_url) as connection:
        connection.execute(late, (an_hour_ago, an_hour_ago, None))
        connection.execute(late, (an_hour_ago, None, "failed: ValueError"))
    shown = await read_status(settings)
    timers = shown["contexts"]["customer"]["timers"]
    assert (timers["due"], timers["late_seconds"] >= 3_600, timers["failed"]) == (1, True, 1)
    assert "1 timers are due, for up to 3" in readable(shown)
    assert "1 timers failed" in readable(shown)
    view = next(group for group in shown["groups"].values() if group.get("view") == "asset_panorama")
    assert view["positions"]["ingest"] == ingest["head"]
    assert view["as_of"] is not None
    assert view["dead_letters"] >= 1
    assert shown["contexts"]["ingest"]["dead_letters"] >= 1
    assert shown["contexts"]["customer"]["dead_letters"] == 0
    assert shown["problems"] == []
    text = readable(shown)
    assert "customer.when_party_described_then_register_customer" in text
    assert str(ingest["head"]) in text
    source = shown["sources"]["branch"]
    assert source["posted"] > 0
    assert (source["waiting"], source["certificate"]) == ({}, "AMBER")
    assert (shown["unlinked_accounts"], shown["unlinked_accounts_complete"]) == (3, True)
    assert "accounts without a customer: 3\n" in text
    assert "branch" in text
    await check_unlinked(bank, shown)


async def check_unlinked(bank: Bank, shown: Mapping[str, Any]) -> None:
    """`crm status` says where it did not count all. `crm unlinked` lists the same three accounts, masked, for a person and
    for a program."""
    bounded = readable({**shown, "unlinked_accounts_complete": False})
    assert "accounts without a customer: at least 3; counting ended after 10 s\n" in bounded
    done = await asyncio.to_thread(bank.crm, "unlinked", "--json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert (len(listed["items"]), listed["complete"]) == (3, True)
    assert {one["source"] for one in listed["items"]} == {"branch"}
    numbers = [one["account"] for one in listed["items"]]
    assert all("*" in number for number in numbers), numbers
    text = (await asyncio.to_thread(bank.crm, "unlinked")).stdout.decode()
    assert [line.split(" ")[0] for line in text.splitlines()] == [
        one["account_id"] for one in listed["items"]
    ]
    first = json.loads((await asyncio.to_thread(bank.crm, "unlinked", "--limit", "1", "--json")).stdout)
    assert (len(first["items"]), first["complete"]) == (1, False)
    none = await asyncio.to_thread(bank.crm, "unlinked", "--source", "nobody")
    assert none.stdout.decode().strip() == "no account waits for its customer at nobody"


def test_the_command_prints_one_object_and_names_the_server_that_does_not_answer(bank):
    done = bank.crm("status", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["contexts"]) == set(CONTEXTS)
    nobody = psycopg.conninfo.make_conninfo(bank.postgres_url, dbname="nothing_here")
    away = Bank(nobody, "127.0.0.1:1", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300", bank.data)
    done = away.crm("status", "--json")
    assert done.returncode == 1
    said = " ".join(json.loads(done.stdout)["problems"])
    assert "PostgreSQL" in said
    assert "MongoDB" in said
    assert "Kafka" in said
    human = away.crm("status")
    assert human.returncode == 1
    assert b"?" in human.stdout


def test_ten_malformed_records_are_counted_with_their_reason(bank):
    good = (
        b'{"record":"posting","account":"A1","core_transaction_id":"t%d","amount_minor":%s,"currency":"CNY"'
    )
    content = b"".join(
        (good % (n, b"100" if n < 2 else b'"12..34"')) + b',"booked_on":"2026-03-02"}\n' for n in range(12)
    )
    with opened(bank.settings()) as ingest:
        ingest.run("branch", [FeedContent("feed.jsonl", lambda: BytesIO(content))], format="canonical")
    done = bank.crm("status", "--json")
    source = json.loads(done.stdout)["sources"]["branch"]
    assert (source["posted"], source["duplicates"], source["quarantined"]) == (2, 0, 10)
    assert list(source["waiting"].values()) == [10]
    assert source["certificate"] == "AMBER"
    assert "quarantine-waiting" in source["reasons"]
    [reason] = source["waiting"]
    assert f"10 wait: {reason}" in bank.crm("status").stdout.decode()
