"""pytest plugin: a run's own servers, started when the first test asks for one and stopped after the last.

Fixtures `postgres_url`, `mongo_url`, `kafka_url` (session) and `devservers` (to kill and restart them). A server
that cannot be had skips its tests and says so at the end of the run; with CRM_REQUIRE_SERVERS=1 they fail.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devservers.fleet import VARIABLES, Servers, servers
from devservers.processes import ServerFailed

REQUIRED = "CRM_REQUIRE_SERVERS"
SERVER_FIXTURES = frozenset({"devservers", "postgres_url", "mongo_url", "kafka_url"})
MISSING = pytest.StashKey[dict[str, str]]()


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

    def close(self) -> None:
        """Stops what was started."""
        self._stack.close()


def pytest_configure(config: pytest.Config) -> None:
    """A place for what could not be had."""
    config.stash[MISSING] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says loudly what was left out, where a skip alone would pass unseen."""
    for name, reason in config.stash[MISSING].items():
        terminalreporter.section(f"tests without {name}", sep="!", red=True, bold=True)
        terminalreporter.line(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests without servers first, then those on real ones, whole processes last: what is quick to fail fails soon."""
    items.sort(key=_slowness)


def _slowness(item: pytest.Item) -> int:
    if "e2e" in item.path.parts:
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
