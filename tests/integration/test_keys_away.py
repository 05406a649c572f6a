"""The keys are away while the roles run: nothing is laid to an event, and all of them are handled once afterwards."""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pymongo
import pytest
from chassis.connections.settings import Settings
from chassis.messaging.records import Record
from chassis.messaging.transport import KafkaPublisher, ensure_topics, group_lag, group_offsets, read_to_end
from contracts.topics import COREBANK_POSTINGS, EVENTS, INGEST_EVENTS, dead_letters
from crm_cli.migrate import migrated
from devservers import servers
from psycopg.conninfo import make_conninfo

from tests.support.processes import Environment, Role, until

FEED, POLICY = "sync-ingest.feed", "customer.when_party_described_then_register_customer"
AWAY_SECONDS = 20
LOST = "OperationalError: connection"


@pytest.fixture(scope="module")
def environment(
    postgres_url: str, mongo_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """Databases and a broker of their own: nobody else's events come over its topics."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in ("keys_away", "keys_away_keys"):
            connection.execute(f"create database {name}")
    urls = {
        "POSTGRES_URL": make_conninfo(postgres_url, dbname="keys_away"),
        "CRM_KEYS_URL": make_conninfo(postgres_url, dbname="keys_away_keys"),
    }
    migrated(Settings(postgres_url=urls["POSTGRES_URL"], keys_url=urls["CRM_KEYS_URL"]))
    place, _, options = mongo_url.partition("?")
    data = tmp_path_factory.mktemp("data")
    with servers(data / "servers", {"kafka"}, print, durable=False) as up:
        asyncio.run(ensure(up.urls["KAFKA_URL"]))
        yield urls | {
            "MONGO_URL": f"{place.rstrip('/')}/keys_away?{options}",
            "KAFKA_URL": up.urls["KAFKA_URL"],
            "CRM_DATA": str(data),
            "CRM_ENVIRONMENT": "development",
        }


async def ensure(kafka_url: str) -> None:
    letters = [dead_letters(group) for group in (FEED, POLICY)]
    await ensure_topics(kafka_url, [COREBANK_POSTINGS, *EVENTS.values(), *letters])


@pytest.fixture
def started(environment: Environment) -> Iterator[Callable[[str, str], Role]]:
    running: list[Role] = []

    def start(service: str, role: str) -> Role:
        running.append(Role(environment, service, role))
        return running[-1]

    yield start
    assert [role.end() for role in running] == [0] * len(running)


def send(environment: Environment, source: str, numbers: range) -> None:
    """Parties of a branch system, as it sends them."""

    async def publish() -> None:
        publisher = KafkaPublisher(environment["KAFKA_URL"])
        records = []
        for n in numbers:
            party = {"record": "party", "party": f"{source}-{n}", "kind": "person", "name": "王小明"}
            headers = [("source", source.encode())]
            at = n % COREBANK_POSTINGS.partitions
            records.append(Record(COREBANK_POSTINGS.name, at, b"P", headers, json.dumps(party).encode()))
        await publisher.publish(records)
        await publisher.close()

    asyncio.run(publish())


def counted(environment: Environment, store: str, name: str, source: str) -> int:
    with psycopg.connect(environment["POSTGRES_URL"]) as connection:
        row = connection.execute(
            f"select count(*) from {store}.events where name = %s and convert_from(body, 'UTF8') like %s",  # type: ignore[arg-type]
            (name, f'%"source":"{source}"%'),
        ).fetchone()
    return 0 if row is None else int(row[0])


def described(environment: Environment, source: str) -> int:
    return counted(environment, "store_ingest", "party-described", source)


def registered(environment: Environment, source: str) -> int:
    return counted(environment, "store_customer", "reference-linked", source)


def letters(environment: Environment) -> int:
    async def count() -> int:
        found = 0
        for group in (FEED, POLICY):
            async for page in read_to_end(environment["KAFKA_URL"], dead_letters(group).name):
                found += len(page)
        return found

    return asyncio.run(count())


def parked(environment: Environment) -> int:
    """Parked subjects of all groups, in whichever database a service keeps its checkpoints."""
    client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(environment["MONGO_URL"])
    with client:
        names = [name for name in client.list_database_names() if name.startswith("keys_away")]
        assert names
        return sum(client[name]["parked"].count_documents({}) for name in names)


def quarantined(environment: Environment) -> int:
    with psycopg.connect(environment["POSTGRES_URL"]) as connection:
        row = connection.execute("select count(*) from ingest.quarantine").fetchone()
    return 0 if row is None else int(row[0])


@contextmanager
def database_away(environment: Environment) -> Iterator[None]:
    """The key database takes no connections, and has ended those that were there."""
    with psycopg.connect(environment["POSTGRES_URL"], autocommit=True) as connection:
        connection.execute("alter database keys_away_keys allow_connections false")
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'keys_away_keys'"
        )
        try:
            yield
        finally:
            connection.execute("alter database keys_away_keys allow_connections true")


@contextmanager
def file_away(environment: Environment) -> Iterator[None]:
    """A folder is where the key file was: who is root may read whatever its mode says."""
    key_file = Path(environment["CRM_DATA"]) / "keys" / "kek"
    aside = key_file.with_name("aside")
    key_file.rename(aside)
    key_file.mkdir(mode=0o700)
    try:
        yield
    finally:
        key_file.rmdir()
        aside.rename(key_file)


def offsets(environment: Environment, group: str) -> int:
    return sum(asyncio.run(group_offsets(environment["KAFKA_URL"], group)).values())


def behind(environment: Environment, group: str, topic: str) -> int:
    return sum(asyncio.run(group_lag(environment["KAFKA_URL"], group, [topic])).values())


def test_roles_wait_for_a_key_database_that_is_away_and_every_event_is_handled_once(
    environment: Environment, started: Callable[[str, str], Role]
) -> None:
    feed, relay = started("sync_ingest", "feed"), started("sync_ingest", "relay")
    policies, views = started("customer", "policies"), started("customer", "views")
    send(environment, "east", range(20))
    until("the first parties are customers", lambda: registered(environment, "east") == 20)
    until("all roles are ready", lambda: all(role.ready() for role in (feed, relay, policies, views)))
    policies.process.send_signal(signal.SIGSTOP)
    send(environment, "east", range(20, 40))
    until("more parties are told", lambda: described(environment, "east") == 40)
    until("the feed has committed", lambda: behind(environment, FEED, COREBANK_POSTINGS.name) == 0)
    before = offsets(environment, FEED)
    with database_away(environment):
        policies.process.send_signal(signal.SIGCONT)
        send(environment, "east", range(40, 60))
        for role in (feed, policies):
            until(f"{role.log.name} says why", lambda role=role: says(role, LOST))  # type: ignore[misc]
        time.sleep(AWAY_SECONDS)
        assert says(feed, LOST)
        assert says(policies, LOST)
        assert views.ready(), "views hold sealed values and need no key"
        assert (offsets(environment, FEED), registered(environment, "east")) == (before, 20)
        assert behind(environment, POLICY, INGEST_EVENTS.name) >= 20
        for role in (feed, policies):
            assert "batch failed" in role.log.read_text()
        assert (letters(environment), parked(environment), quarantined(environment)) == (0, 0, 0)
    until("everything is told", lambda: described(environment, "east") == 60)
    until("everybody is a customer", lambda: registered(environment, "east") == 60)
    until("all roles are ready again", lambda: all(role.ready() for role in (feed, relay, policies, views)))
    until("all is committed", lambda: behind(environment, POLICY, INGEST_EVENTS.name) == 0)
    assert (described(environment, "east"), registered(environment, "east")) == (60, 60)
    assert (letters(environment), parked(environment), quarantined(environment)) == (0, 0, 0)


def test_roles_wait_for_a_key_file_that_became_unreadable_when_they_need_it_again(
    environment: Environment, started: Callable[[str, str], Role]
) -> None:
    """A role that runs has read its key. One that begins anew after it lost a server reads the file again."""
    feed, relay = started("sync_ingest", "feed"), started("sync_ingest", "relay")
    policies, views = started("customer", "policies"), started("customer", "views")
    send(environment, "west", range(20))
    until("the first parties are customers", lambda: registered(environment, "west") == 20)
    with file_away(environment):
        send(environment, "west", range(20, 40))
        until("who runs has its key", lambda: registered(environment, "west") == 40)
        with psycopg.connect(environment["POSTGRES_URL"], autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        send(environment, "west", range(40, 60))
        until("the feed says why", lambda: says(feed, "IsADirectoryError"))
        before, count = offsets(environment, FEED), described(environment, "west")
        assert policies.end() == 0
        again = started("customer", "policies")
        until("the policy says why", lambda: says(again, "IsADirectoryError"))
        time.sleep(3)
        assert (offsets(environment, FEED), described(environment, "west")) == (before, count)
        assert again.process.poll() is None
        assert views.ready()
        assert "IsADirectoryError" in again.log.read_text()
        assert (letters(environment), parked(environment), quarantined(environment)) == (0, 0, 0)
    until("everybody is a customer", lambda: registered(environment, "west") == 60)
    until("all roles are ready again", lambda: all(role.ready() for role in (feed, relay, again, views)))
    until("all is committed", lambda: behind(environment, POLICY, INGEST_EVENTS.name) == 0)
    assert (described(environment, "west"), registered(environment, "west")) == (60, 60)
    assert (letters(environment), parked(environment), quarantined(environment)) == (0, 0, 0)


def says(role: Role, what: str) -> bool:
    """Whether it is not ready, for this reason."""
    return any(what in reason for reason in role.reasons() or ())
