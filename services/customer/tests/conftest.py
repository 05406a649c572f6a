"""Servers and stores for the tests of this service."""

from itertools import count

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.migrating import migrate
from chassis.privacy.keys import KEYS, FileKeyEncryption, KeyRing
from chassis.read.mongo import Mongo
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore, prepare
from customer.catalogue import catalogue
from customer.domain.customer import customer_decider
from hypothesis import settings

_NUMBERS = count(1)

# How long an example takes says more about who else uses the machine than about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


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
    url = psycopg.conninfo.make_conninfo(postgres_url, dbname=name)
    migrate(url, [KEYS])
    return url


@pytest.fixture
def key_ring(keys_url, tmp_path):
    ring = KeyRing.open(
        keys_url, FileKeyEncryption.at(tmp_path / "kek", create=True), SystemClock().monotonic
    )
    yield ring
    ring.close()


@pytest.fixture
def handler(store, key_ring):
    return CommandHandler(customer_decider, store, catalogue(), key_ring)


@pytest.fixture
async def mongo(mongo_url):
    mongo = Mongo.connect(mongo_url, database=f"customer_test{next(_NUMBERS)}")
    yield mongo
    await mongo.drop_database()
    await mongo.close()
