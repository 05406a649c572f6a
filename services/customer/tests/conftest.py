"""Servers and stores for the tests of this service."""

from itertools import count

import psycopg
import pytest
from chassis.files import Storage
from chassis.files.folder import Folder
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore, prepare
from customer.catalogue import CONTEXT, catalogue
from customer.domain.customer import customer_decider

from tests.support.fixtures import collector, key_ring, keys_url, mongo

__all__ = ["collector", "key_ring", "keys_url", "mongo"]

_NUMBERS = count(1)


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
def handler(store, key_ring):
    return CommandHandler(customer_decider, store, catalogue(), key_ring)


@pytest.fixture
async def storage(tmp_path):
    storage = Storage(Folder(tmp_path / "files", CONTEXT, create=True))
    yield storage
    await storage.close()


@pytest.fixture
def hub():
    """No hub runs, but where a module says otherwise."""
