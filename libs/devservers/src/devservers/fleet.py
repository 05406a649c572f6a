"""The servers of one run: those with a URL in the environment are used, the others are started, watched, stopped."""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from devservers.kafka import Kafka
from devservers.mongo import Mongo
from devservers.postgres import Postgres, forget_other_postgres
from devservers.processes import FolderLock, Log, Server, ServerFailed, made_folder

KINDS: Mapping[str, type[Server]] = {"postgres": Postgres, "mongo": Mongo, "kafka": Kafka}
NAMES = frozenset(KINDS)
VARIABLES: Mapping[str, str] = {name: kind.variable for name, kind in KINDS.items()}


class Servers(Protocol):
    """Running servers."""

    @property
    def urls(self) -> Mapping[str, str]:
        """Environment variable -> where that server is."""
        ...

    @property
    def pids(self) -> Mapping[str, int]:
        """Name -> process, of those that are our children."""
        ...

    def poll(self) -> list[str]:
        """The names of those that died."""
        ...

    def restart(self, name: str) -> None:
        """Starts a server again with its data; on another URL where its port was taken. Raises `ServerFailed`."""
        ...

    def stop(self) -> None:
        """Stops all of them; once more is harmless."""
        ...


class Children(Servers):
    """Servers as child processes. Create, restart and stop them in one thread that outlives them."""

    def __init__(
        self, folder: Path, want: Iterable[str], given: Mapping[str, str], log: Log, *, durable: bool
    ) -> None:
        self._lock = FolderLock(folder)
        self._given = dict(given)
        self._log = log
        self._servers = {name: KINDS[name](folder / name, log, durable=durable) for name in sorted(want)}
        self._folder = folder

    def start(self) -> None:
        """Brings all of them up, side by side; raises `ServerFailed` and leaves none behind."""
        if not self._servers:
            return
        made_folder(self._folder)
        self._lock.take()
        servers = list(self._servers.values())
        try:
            for server in servers:
                made_folder(server.folder)
                server.stop_left_over()
            self._prepare(servers)
            for server in servers:
                server.spawn()
            for server in servers:
                server.wait_ready()
                self._log(f"{server.name} is up")
        except BaseException:
            self.stop()
            raise

    def _prepare(self, servers: list[Server]) -> None:
        with ThreadPoolExecutor(len(servers)) as pool:
            pending = [pool.submit(server.prepare) for server in servers]
            try:
                for each in pending:
                    each.result()
            except BaseException:
                for server in servers:
                    if isinstance(server, Kafka):
                        server.stopping.set()
                raise

    @property
    @override
    def urls(self) -> Mapping[str, str]:
        return {**self._given, **{server.variable: server.url for server in self._servers.values()}}

    @property
    @override
    def pids(self) -> Mapping[str, int]:
        return {name: server.child.pid for name, server in self._servers.items() if server.child is not None}

    @override
    def poll(self) -> list[str]:
        return [name for name, server in self._servers.items() if not server.alive()]

    @override
    def restart(self, name: str) -> None:
        server = self._servers[name]
        server.stop()
        server.prepare()
        server.spawn()
        server.wait_ready()

    @override
    def stop(self) -> None:
        for server in self._servers.values():
            server.ask_to_stop()
        for server in self._servers.values():
            server.stop()
        self._lock.release()


@contextmanager
def servers(data: Path, want: Iterable[str], log: Log, *, durable: bool = True) -> Iterator[Servers]:
    """The servers named in `want` (of "postgres", "mongo", "kafka") with their data under `data`/servers.

    A URL in the environment is used as it is. `SERVERS=docker` takes the others from containers, without data that
    stays. `durable=False` trades safety against loss of power for speed, for tests. Raises `ServerFailed`.
    """
    wanted = frozenset(want)
    if unknown := wanted - NAMES:
        raise ValueError(f"no such servers: {sorted(unknown)}")
    given = {variable: os.environ[variable] for name in wanted if os.environ.get(variable := VARIABLES[name])}
    missing = frozenset(name for name in wanted if VARIABLES[name] not in given)
    match os.environ.get("SERVERS", "packages"):
        case "docker":
            from devservers.containers import Containers

            running: Children | Containers = Containers(missing, given, log)
        case "packages":
            running = Children(data.absolute() / "servers", missing, given, log, durable=durable)
        case other:
            raise ServerFailed(f"SERVERS={other}: it is `packages` or `docker`")
    if "postgres" in missing:
        forget_other_postgres()
    running.start()
    try:
        yield running
    finally:
        running.stop()
