"""pytest plugin: a run's own servers, started when the first test asks for one and stopped after the last.

Fixtures `postgres_url`, `mongo_url`, `kafka_url` (session) and `devservers` (to kill and restart them). A server
that cannot be had skips its tests and says so at the end of the run; with CRM_REQUIRE_SERVERS=1 they fail.

Under pytest-xdist each process has servers of its own, so that names on them need no thought. `-n auto` is as many
processes as there are cores, `PROCESSES_MAX` at most, and none beside this one where a server is given.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]
from psycopg import sql
from pymongo import MongoClient

from devservers.fleet import VARIABLES, Servers, servers
from devservers.processes import ServerFailed

EMPTY_SECONDS_MAX = 60.0
REQUIRED = "CRM_REQUIRE_SERVERS"
WHOLE_SYSTEM = frozenset({"integration", "e2e", "chaos"})
"""Folders of tests that start servers of their own."""
SERVER_FIXTURES = frozenset({"devservers", "postgres_url", "mongo_url", "kafka_url"})
PROCESSES_MAX = 4
"""Each holds a Kafka, a MongoDB and a PostgreSQL, together about 1 GB."""
MISSING = pytest.StashKey[dict[str, str]]()
MISSING_OUTPUT = "devservers_missing"


class ServerMissing(AssertionError):
    """A server is required in this run and cannot be had."""


class TestServers:
    """The servers of a test run; each starts when it is first asked for."""

    __test__ = False

    def __init__(self, folder: Path, missing: dict[str, str]) -> None:
        self._folder = folder
        self._missing = missing
        self._running: dict[str, Servers] = {}
        self._stack = ExitStack()

    def url(self, name: str) -> str:
        """Where the server is; skips or fails the test that asks when it cannot be had."""
        return self.one(name).urls[VARIABLES[name]]

    def one(self, name: str) -> Servers:
        """The server of that name by itself, to be killed and restarted."""
        if name not in self._running and name not in self._missing:
            try:
                self._running[name] = self._stack.enter_context(
                    servers(self._folder / name, {name}, lambda _: None, durable=False)
                )
            except ServerFailed as error:
                self._missing[name] = str(error)
        if name in self._missing:
            if os.environ.get(REQUIRED) == "1":
                raise ServerMissing(self._missing[name])
            pytest.skip(f"no {name}: {self._missing[name]}")
        return self._running[name]

    def own(self, name: str) -> str | None:
        """The URL of a server that runs, and that was started here; None where there is none."""
        running = self._running.get(name)
        if running is None or VARIABLES[name] in os.environ or running.poll():
            return None
        return running.urls[VARIABLES[name]]

    def close(self) -> None:
        """Stops what was started."""
        self._stack.close()


def pytest_configure(config: pytest.Config) -> None:
    """A place for what could not be had."""
    config.stash[MISSING] = {}


@pytest.hookimpl(optionalhook=True, tryfirst=True)  # before that of pytest-xdist itself
def pytest_xdist_auto_num_workers() -> int:
    """None beside this process where a server is given: names on it are there once."""
    if any(os.environ.get(variable) for variable in VARIABLES.values()):
        return 0
    return min(os.cpu_count() or 1, PROCESSES_MAX)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of a shared run says what it could not have."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[MISSING_OUTPUT] = session.config.stash[MISSING]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Keeps what a process could not have; one that crashed has not said it."""
    node.config.stash[MISSING].update(getattr(node, "workeroutput", {}).get(MISSING_OUTPUT, {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says loudly what was left out, where a skip alone would pass unseen."""
    for name, reason in config.stash[MISSING].items():
        terminalreporter.section(f"tests without {name}", sep="!", red=True, bold=True)
        terminalreporter.line(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files without servers first, then those on real ones, whole processes last: what is quick to fail fails soon.

    A file stays together, because one process has all its tests: then each process has its files in the same order.
    """
    slowness: dict[Path, int] = {}
    for item in items:
        slowness[item.path] = max(slowness.get(item.path, 0), _slowness(item))
    items.sort(key=lambda item: slowness[item.path])


def _slowness(item: pytest.Item) -> int:
    if not WHOLE_SYSTEM.isdisjoint(item.path.parts):
        return 2
    return int(not SERVER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())))


@pytest.fixture(scope="session")
def devservers(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestServers]:
    """The servers of this run."""
    running = TestServers(tmp_path_factory.mktemp("servers"), pytestconfig.stash[MISSING])
    yield running
    running.close()


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a module's tests left on the servers is gone before the next module: topics, read models, and databases of
    PostgreSQL. Those stay that were there before the module; what a run shares is made first."""
    used = {
        name
        for item in request.session.items
        if item.path == request.path
        for name in EMPTY
        if f"{name}_url" in getattr(item, "fixturenames", ())
    }
    running: TestServers | None = request.getfixturevalue("devservers") if used else None
    if "postgres" in used:
        with suppress(pytest.skip.Exception, ServerMissing):  # the tests say so themselves
            request.getfixturevalue("postgres_url")
    shared = _databases(running.own("postgres")) if running is not None else []
    yield
    for name in sorted(used):
        if running is not None and (url := running.own(name)) is not None:
            EMPTY[name](url, shared)


def _databases(url: str | None) -> list[str]:
    """The databases of PostgreSQL; none where no server is ours."""
    if url is None:
        return []
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("select datname from pg_database")]


def _with_shared_databases_alone(url: str, shared: Collection[str]) -> None:
    left = sorted({*_databases(url)} - {*shared})
    with psycopg.connect(url, autocommit=True) as connection:
        for name in left:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _without_topics(url: str, _: Collection[str]) -> None:
    """Groups forget the offsets of a topic with it."""

    async def drop() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=url)
        await admin.start()
        try:
            topics = [name for name in await admin.list_topics() if not name.startswith("__")]
            if topics:
                await admin.delete_topics(topics)
        finally:
            await admin.close()

    with ThreadPoolExecutor(1) as pool:  # a loop of its own, whatever loop the tests have
        pool.submit(asyncio.run, drop()).result(EMPTY_SECONDS_MAX)


def _without_read_models(url: str, _: Collection[str]) -> None:
    with MongoClient[dict[str, Any]](url) as client:
        for name in client.list_database_names():
            if name not in {"admin", "config", "local"}:
                client.drop_database(name)


EMPTY: Mapping[str, Callable[[str, Collection[str]], None]] = {
    "kafka": _without_topics,
    "mongo": _without_read_models,
    "postgres": _with_shared_databases_alone,
}
"""By server: removes what tests left on it, except for databases of PostgreSQL that are shared."""


@pytest.fixture(scope="session")
def postgres_url(devservers: TestServers) -> str:
    """A PostgreSQL of this run."""
    return devservers.url("postgres")


@pytest.fixture(scope="session")
def mongo_url(devservers: TestServers) -> str:
    """A MongoDB replica set of one, of this run."""
    return devservers.url("mongo")


@pytest.fixture(scope="session")
def kafka_url(devservers: TestServers) -> str:
    """A Kafka of this run."""
    return devservers.url("kafka")
