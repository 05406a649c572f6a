"""Fresh schemas in PostgreSQL, keys, and fresh databases in MongoDB, on either driver."""

import gc
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import psycopg
import pytest
from chassis.connections.migrating import migrate
from chassis.privacy.keys import KEYS
from chassis.read.mongo import Mongo
from chassis.write.store import EventStore, Recorder, prepare

from tests.support.aws import endpoint
from tests.support.fixtures import collector, key_ring, mongo

__all__ = ["collector", "endpoint", "key_ring", "mongo"]

_NUMBERS = count(1)


@pytest.fixture
def schema(postgres_url: str) -> Iterator[str]:
    """A prepared store of its own for one test."""
    name = f"store_test{next(_NUMBERS)}"
    prepare(postgres_url, name)
    yield name
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"drop schema {name} cascade")


@pytest.fixture
def recorder(postgres_url: str, schema: str) -> Iterator[Recorder]:
    recorder = Recorder(postgres_url, schema)
    yield recorder
    recorder.close()


@pytest.fixture
async def store(postgres_url: str, schema: str) -> Any:
    store = EventStore(postgres_url, schema)
    yield store
    await store.close()


@pytest.fixture
def keys_url(postgres_url: str) -> str:
    """The database of the keys, apart from the stores and from that of the services, which is not emptied."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        if connection.execute("select 1 from pg_database where datname = 'chassis_keys'").fetchone() is None:
            connection.execute("create database chassis_keys")
    url = psycopg.conninfo.make_conninfo(postgres_url, dbname="chassis_keys")
    migrate(url, [KEYS])
    with psycopg.connect(url) as connection:
        connection.execute("truncate data_keys, purpose_keys, secrets")
    return url


@pytest.fixture(params=["pymongo", "motor"])
async def both(request: pytest.FixtureRequest, mongo_url: str) -> AsyncIterator[Mongo]:
    """A database of its own, once on each driver."""
    mongo = Mongo.connect(mongo_url, request.param, f"test{next(_NUMBERS)}")
    yield mongo
    await mongo.drop_database()
    await mongo.close()


@pytest.fixture
def never_looking_for_cycles():
    """Cycles stay until somebody looks for them: the thresholds of a role are beyond what a test makes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
