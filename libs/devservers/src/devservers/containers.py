"""The same servers from containers, where a Docker engine is at hand and `SERVERS=docker` asks for it."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from devservers.processes import Log, ServerFailed, ServerUnavailable

POSTGRES_IMAGE = "postgres:18"
MONGO_IMAGE = "mongo:6.0"
MONGO_PORT = 27_017
KAFKA_IMAGE = "confluentinc/cp-kafka:7.6.0"
READY_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 10
POLL_SECONDS = 0.2


def ask_engine() -> None:
    """Raises `ServerUnavailable` where no engine answers; that the client is installed says nothing."""
    import docker  # type: ignore[import-untyped]

    client = None
    try:
        client = docker.from_env(version="1.41")  # a stated version: the constructor does not ask yet
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise ServerUnavailable(
            f"SERVERS=docker, and no Docker engine answers: {str(error)[:200]}"
        ) from error
    finally:
        if client is not None:
            client.close()


def _postgres() -> tuple[Any, Callable[[Any], str]]:
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(POSTGRES_IMAGE, username="postgres", dbname="postgres", driver=None)
    return container, lambda running: str(running.get_connection_url(driver=None))


def _mongo() -> tuple[Any, Callable[[Any], str]]:
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(MONGO_IMAGE).with_exposed_ports(MONGO_PORT)
    container = container.with_command("mongod --replSet rs0 --bind_ip_all")

    def url(running: Any) -> str:
        host, port = running.get_container_host_ip(), running.get_exposed_port(MONGO_PORT)
        return f"mongodb://{host}:{port}/?directConnection=true"

    return container, url


def _kafka() -> tuple[Any, Callable[[Any], str]]:
    from testcontainers.community.kafka import KafkaContainer

    container = KafkaContainer(KAFKA_IMAGE).with_kraft().with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
    return container, lambda running: str(running.get_bootstrap_server())


class Containers:
    """Servers in containers; their data goes with them."""

    kinds: ClassVar[Mapping[str, tuple[str, Callable[[], tuple[Any, Callable[[Any], str]]]]]] = {
        "postgres": ("POSTGRES_URL", _postgres),
        "mongo": ("MONGO_URL", _mongo),
        "kafka": ("KAFKA_URL", _kafka),
    }

    def __init__(self, want: Iterable[str], given: Mapping[str, str], log: Log) -> None:
        self._want = sorted(want)
        self._urls = dict(given)
        self._log = log
        self._running: dict[str, Any] = {}

    def start(self) -> None:
        """Brings them up one after the other; raises `ServerFailed` and leaves none behind."""
        if not self._want:
            return
        ask_engine()
        try:
            for name in self._want:
                variable, kind = self.kinds[name]
                self._log(f"{name}: starting a container")
                container, url = kind()
                self._running[name] = container
                container.start()
                self._urls[variable] = url(container)
                if name == "mongo":
                    _make_replica_set(self._urls[variable])
        except ServerFailed:
            self.stop()
            raise
        except Exception as error:
            self.stop()
            raise ServerFailed(f"a container does not start: {error}") from error

    @property
    def urls(self) -> Mapping[str, str]:
        return dict(self._urls)

    @property
    def pids(self) -> Mapping[str, int]:
        return {}

    def poll(self) -> list[str]:
        dead = []
        for name, container in self._running.items():
            wrapped = container.get_wrapped_container()
            wrapped.reload()
            if wrapped.status != "running":
                dead.append(name)
        return dead

    def restart(self, name: str) -> None:
        """Starts the container again; its port on this machine may be another one then."""
        container = self._running[name]
        container.get_wrapped_container().restart(timeout=STOP_SECONDS_MAX)
        variable, kind = self.kinds[name]
        self._urls[variable] = kind()[1](container)

    def stop(self) -> None:
        """Stops and removes them; once more is harmless."""
        while self._running:
            name, container = self._running.popitem()
            try:
                container.stop()
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are stopped too
                self._log(f"{name}: its container does not stop: {error}")


def _make_replica_set(url: str) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(url, serverSelectionTimeoutMS=1_000)
    deadline = time.monotonic() + READY_SECONDS_MAX
    asked = False
    try:
        while time.monotonic() < deadline:
            try:
                if not asked:
                    members = [{"_id": 0, "host": f"127.0.0.1:{MONGO_PORT}"}]
                    client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
                    asked = True
                if client.admin.command("hello").get("isWritablePrimary"):
                    return
            except PyMongoError:
                pass
            time.sleep(POLL_SECONDS)
    finally:
        client.close()
    raise ServerFailed(f"MongoDB in its container did not answer within {READY_SECONDS_MAX:.0f} s")
