"""`crm up`: servers, roles and, on an empty store, the demo bank, until Ctrl-C.

A process that ends is started again.

Children are `web`, `views` and `workers` (`crm_cli.part`), and the servers that no URL names. The
supervisor holds no data of its own: killed, it takes its children along, and the next run goes on where
this one stopped.
"""

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from chassis.connections.direct import opened_directly
from chassis.connections.migrating import READER, close_to_public
from chassis.connections.settings import KEYS_DATABASE, Settings
from contracts.topics import EVENTS
from devservers import (
    NAMES,
    DataFolderUnusable,
    FolderLock,
    ServerFailed,
    Servers,
    free_port,
    made_folder,
    port_is_free,
    servers,
    stop_stranger,
    wrapped,
)

from crm_cli import run_file
from crm_cli.exits import OK, USAGE
from crm_cli.running import FIELDS, KEPT_FIELDS, data_folder

if TYPE_CHECKING:
    import psycopg

TICK_SECONDS = 0.2
READY_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 25.0
"""Above the bounded shutdown of a role."""
BACK_OFF_SECONDS_FIRST, BACK_OFF_SECONDS_MAX = 0.5, 10.0
STEADY_SECONDS = 30.0
FAILURES_BEFORE_READY_MAX = 4
SERVER_FAILURES_MAX = 5
LOG_BYTES_MAX = 64 << 20
LOG_LINES_SHOWN = 8
DISK_BYTES_LEAST = 64 << 20
"""Less than this is a full disk: four segments of PostgreSQL's log."""
HTTP_SECONDS_MAX = 10.0
FIRST_PANORAMA_SECONDS_MAX = 300.0
NO_SUCH_PORT = 65_536
PORTS_FILE = "ports.json"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Set by us and not left to Python, which ignores an interrupt where a shell started it in the background."""
OWNER, SERVICE = "crm_owner", "crm_service"
OWNERS = frozenset({"POSTGRES_OWNER_URL", "CRM_KEYS_OWNER_URL", "POSTGRES_AUDITOR_URL"})
"""What services are not told."""
DEMO_REFERENCE = "demo:P000001"


class UpFailed(Exception):
    """The run cannot go on; the text is shown to the user."""


class Console:
    """Lines with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        """Prints one line and flushes it; where it goes to a file on a full disk, once there is room."""
        try:
            print(f"[{time.monotonic() - self._began:7.1f} s] {text}", flush=True)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


@dataclass(slots=True)
class Part:
    """A child process of ours, with what is needed to start it again."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log_file: Path
    url: str
    child: "subprocess.Popen[bytes] | None" = None
    failures: int = 0
    next_at: float = 0.0
    began_at: float = 0.0
    ready_once: bool = False

    def start(self) -> None:
        """Starts the process; its log is appended to."""
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES_MAX:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        self.began_at = time.monotonic()
        with self.log_file.open("ab") as output:
            self.child = subprocess.Popen(
                [*wrapped(None, signal.SIGTERM), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                start_new_session=True,
            )

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.child is not None and self.child.poll() is None

    def last_lines(self) -> str:
        """The last lines of its log, indented."""
        lines = self.log_file.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join(f"    {line[:400]}" for line in lines) or "    (its log is empty)"


@dataclass(slots=True)
class Choices:
    """The options from the environment and the command line."""

    data: Path
    host: str
    port: int
    demo: bool
    environment: str


def choices_of(environment: Mapping[str, str]) -> Choices:
    """Reads `CRM_DATA`, `CRM_HOST`, `CRM_PORT`, `CRM_DEMO`, `CRM_ENVIRONMENT`; raises `UpFailed`."""
    said = environment.get("CRM_PORT") or "8080"
    if not said.isdecimal() or int(said) >= NO_SUCH_PORT:
        raise UpFailed(f"CRM_PORT={said}: a port is a number from 0 to 65535")
    host = environment.get("CRM_HOST") or "127.0.0.1"
    return Choices(
        data=data_folder(),
        host=host,
        port=int(said) or free_port(),
        demo=(environment.get("CRM_DEMO") or "1") not in {"0", "no", "false"},
        environment=environment.get("CRM_ENVIRONMENT") or "development",
    )


@dataclass(slots=True)
class Supervisor:
    """One run of `crm up`."""

    choices: Choices
    say: Callable[[str], None]
    stack: ExitStack = field(default_factory=ExitStack)
    parts: dict[str, Part] = field(default_factory=dict)
    server_failures: dict[str, int] = field(default_factory=dict)
    server_next_at: dict[str, float] = field(default_factory=dict)
    running: "Servers | None" = None
    urls: dict[str, str] = field(default_factory=dict)
    logins: dict[str, dict[str, str]] = field(default_factory=dict)
    """The addresses of our own logins, by the superuser's."""
    walk: "subprocess.Popen[bytes] | None" = None
    back_off_seconds_first: float = BACK_OFF_SECONDS_FIRST
    disk_bytes_least: int = DISK_BYTES_LEAST
    noted: bool = True
    """Whether the run file names the processes that there are; a full disk may have kept it from that."""

    def run(self) -> None:
        """Starts everything and restarts what ends; returns only by an exception."""
        self._take_data_folder()
        if not port_is_free(self.choices.port, self.choices.host):
            raise UpFailed(
                f"port {self.choices.port} of {self.choices.host} is taken; set CRM_PORT to another one"
            )
        self.running = self.stack.enter_context(servers(self.choices.data, NAMES, self.say))
        self._find_urls()
        environment = self._environment()
        empty = prepare(environment | self.urls, self.say)
        self._start_parts(environment)
        self._note()
        self._until_ready()
        self.say(f"ready on {self.web}  (routes: {self.web}/docs, logs: {self._logs})")
        walk = empty and self.choices.demo and self.choices.environment == "development"
        steps = self._first_walk(environment) if walk else iter(())
        walking = True
        while True:
            self._tick()
            if walking and next(steps, "over") == "over":
                walking = False
                self.say("Ctrl-C ends it; the data stays")
            time.sleep(TICK_SECONDS)

    @property
    def web(self) -> str:
        """The address at which it answers HTTP."""
        host = self.choices.host if self.choices.host != "0.0.0.0" else "127.0.0.1"  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.choices.port}"

    @property
    def _logs(self) -> Path:
        return self.choices.data / "logs"

    def _take_data_folder(self) -> None:
        data = made_folder(self.choices.data)
        lock = FolderLock(data)
        lock.take()
        self.stack.callback(lock.release)
        made_folder(self._logs)
        before = run_file.read(data)
        for name, process in before.parts.items() if before else ():
            if process.runs:
                self.say(f"{name}: process {process.pid} is left over from a run before; it is stopped")
                stop_stranger(process.pid)
        run_file.remove(data)
        self.stack.callback(run_file.remove, data)

    def _environment(self) -> dict[str, str]:
        ours = {
            "CRM_DATA": str(self.choices.data),
            "CRM_HOST": self.choices.host,
            "CRM_ENVIRONMENT": self.choices.environment,
            "PYTHONUNBUFFERED": "1",
        }
        peers = json.dumps(dict.fromkeys(EVENTS, self.web))  # one process answers for all contexts
        told = {name: url for name, url in self.urls.items() if name in FIELDS}
        inherited = {name: value for name, value in os.environ.items() if name not in OWNERS}
        return {"CRM_PEER_URLS": peers, **inherited, **told, **ours}

    def _find_urls(self) -> None:
        """Finds the addresses of the servers. On a PostgreSQL that it started, services log in as a user that
        owns nothing."""
        assert self.running is not None  # noqa: S101 - called after the servers came up
        self.urls = dict(self.running.urls)
        superuser = self.urls["POSTGRES_URL"]
        if not os.environ.get("POSTGRES_URL"):
            # Made once for each address: while another server comes back, PostgreSQL may be down.
            if superuser not in self.logins:
                self.logins = {superuser: logins(superuser)}
            self.urls |= self.logins[superuser]
        self.urls |= {name: os.environ[name] for name in (*OWNERS, "CRM_KEYS_URL") if os.environ.get(name)}

    def _start_parts(self, environment: Mapping[str, str]) -> None:
        self.stack.callback(self._stop_parts)
        taken: list[int] = []
        for name in ("web", "views", "workers"):
            port = self.choices.port if name == "web" else kept_port(self.choices.data, name, taken)
            host = self.choices.host if name == "web" else "127.0.0.1"
            taken.append(port)
            self.parts[name] = Part(
                name,
                [sys.executable, "-m", "crm_cli.part", name],
                {**environment, "CRM_PORT": str(port), "CRM_HOST": host},
                self._logs / f"{name}.log",
                self.web if name == "web" else f"http://127.0.0.1:{port}",
            )
            self.parts[name].start()
        self.say(f"starting {', '.join(self.parts)}")

    def _note(self) -> None:
        """Writes the addresses of all servers and processes, for the other commands."""
        assert self.running is not None  # noqa: S101 - called after the servers came up
        parts = {
            name: run_file.Process.of(part.child.pid, part.url)
            for name, part in self.parts.items()
            if part.child
        }
        run_file.write(
            self.choices.data,
            run_file.Run(
                run_file.Process.of(os.getpid()),
                self.web,
                self.choices.environment,
                self.urls,
                parts,
                dict(self.running.pids),
            ),
        )
        self.noted = True

    def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        waiting = dict.fromkeys(self.parts, "starting")
        while waiting:
            self._tick()
            for name in list(waiting):
                reasons = not_ready(self.parts[name].url)
                if not reasons:
                    self.parts[name].ready_once = True
                    del waiting[name]
                else:
                    waiting[name] = "; ".join(reasons)
            if waiting and time.monotonic() > deadline:
                said = "\n".join(f"  {name}: {reason}" for name, reason in waiting.items())
                raise UpFailed(
                    f"not ready within {READY_SECONDS_MAX:.0f} s; logs are in {self._logs}\n{said}"
                )
            if waiting:
                time.sleep(TICK_SECONDS)

    def _tick(self) -> None:
        """Starts ended processes again once their pause is over."""
        assert self.running is not None  # noqa: S101 - called after the servers came up
        changed = False
        for name in self.running.poll():
            changed |= self._revive_server(name)
        for part in self.parts.values():
            changed |= self._revive(part)
        if not changed and self.noted:
            return
        try:
            self._note()
        except OSError:
            if not self._disk_is_full():
                raise
            self.noted = False

    def _revive_server(self, name: str) -> bool:
        assert self.running is not None  # noqa: S101 - called after the servers came up
        if time.monotonic() < self.server_next_at.get(name, 0.0):
            return False
        self.say(f"{name} died; it is started again")
        try:
            self.running.restart(name)
        except (ServerFailed, OSError) as error:
            full = self._disk_is_full()
            if isinstance(error, OSError) and not full:
                raise
            # What a full disk prevents is no fault of the server's, and is tried for as long as the disk is full.
            failures = 0 if full else self.server_failures.get(name, 0) + 1
            self.server_failures[name] = failures
            if failures >= SERVER_FAILURES_MAX:
                raise UpFailed(f"{name} cannot be kept up: {error}") from error
            self.say(f"the disk is full; {name} waits until there is room" if full else str(error))
            if full:
                failures = SERVER_FAILURES_MAX
            self.server_next_at[name] = time.monotonic() + pause(failures, self.back_off_seconds_first)
            return False
        self.server_failures[name] = 0
        self.say(f"{name} is up again")
        self._tell_parts()
        return True

    def _tell_parts(self) -> None:
        """Starts those processes anew that know the old address of a server which came back at another one."""
        self._find_urls()
        told = {name: url for name, url in self.urls.items() if name in FIELDS}
        for part in self.parts.values():
            if any(part.environment.get(variable) != url for variable, url in told.items()):
                part.environment = {**part.environment, **told}
                if part.child is not None:
                    self.say(f"{part.name} is told where the servers are now")
                    part.child.terminate()

    def _revive(self, part: Part) -> bool:
        if part.alive():
            return False
        now = time.monotonic()
        if part.child is not None:
            if now - part.began_at > STEADY_SECONDS:
                part.failures = 0
            part.failures += 1
            code, part.child = part.child.returncode, None
            if not part.ready_once and part.failures > FAILURES_BEFORE_READY_MAX:
                raise UpFailed(
                    f"{part.name} does not start; its log {part.log_file} ends:\n{part.last_lines()}"
                )
            part.next_at = now + pause(part.failures, self.back_off_seconds_first)
            self.say(f"{part.name} ended with {code}; it is started again")
        if now < part.next_at:
            return False
        part.start()
        return True

    def _disk_is_full(self) -> bool:
        """Whether so little is left that a server could not start."""
        return shutil.disk_usage(self.choices.data).free < self.disk_bytes_least

    def _first_walk(self, environment: Mapping[str, str]) -> Iterator[str]:
        """Takes the demo bank in through the real ingest and prints a first panorama, one step per tick, so
        that all processes stay watched."""
        self.say("the store is empty: the demo bank comes in (CRM_DEMO=0 leaves it out)")
        self.stack.callback(self._stop_walk)
        yield from self._ended(environment, "demo")
        position = head_position(environment)
        token = self._token()
        self.say(f"{position} events are stored; waiting until they are shown")
        deadline = time.monotonic() + FIRST_PANORAMA_SECONDS_MAX
        while not shown(f"{self.web}/customers?reference={DEMO_REFERENCE}&at_least=ingest-{position}", token):
            if time.monotonic() > deadline:
                self.say(
                    f"not shown within {FIRST_PANORAMA_SECONDS_MAX:.0f} s; `crm status` says how far it is"
                )
                return
            yield "waiting"
        self.say(f"the first panorama: crm panorama --reference {DEMO_REFERENCE}")
        yield from self._ended(environment, "panorama", "--reference", DEMO_REFERENCE)
        yield from self._ended(environment, "demo", "--tags")
        yield from self._ended(environment, "demo", "--tiers")
        yield from self._ended(environment, "demo", "--needs")
        yield from self._ended(environment, "demo", "--consents")
        yield from self._ended(environment, "demo", "--profiles")

    def _token(self) -> str:
        from chassis.clock import SystemClock
        from chassis.connections.settings import TokenSettings
        from chassis.privacy.tokens import development_token

        settings = TokenSettings(data=self.choices.data, environment="development")
        return development_token(settings, SystemClock().now(), subject="crm-up")

    def _ended(self, environment: Mapping[str, str], *arguments: str) -> Generator[str, None, int]:
        self.walk = subprocess.Popen(
            [*wrapped(None, signal.SIGTERM), sys.executable, "-m", "crm_cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
        )
        while (code := self.walk.poll()) is None:
            yield "running"
        if code != 0:
            self.say(f"crm {' '.join(arguments)} ended with {code}")
        return code

    def _stop_walk(self) -> None:
        if self.walk is not None and self.walk.poll() is None:
            self.walk.kill()
            self.walk.wait()

    def _stop_parts(self) -> None:
        for part in self.parts.values():
            if part.alive() and part.child is not None:
                part.child.terminate()
        deadline = time.monotonic() + STOP_SECONDS_MAX
        for part in self.parts.values():
            if part.child is None:
                continue
            try:
                part.child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{part.name} does not stop; it is killed")
                part.child.kill()
                part.child.wait()


def kept_port(data: Path, name: str, taken: Sequence[int] = ()) -> int:
    """The port that this part had in earlier runs, so that scrape addresses stay the same; another one where
    that port is taken."""
    file = data / PORTS_FILE
    try:
        kept = {str(part): int(port) for part, port in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        kept = {}
    port = kept.get(name, 0)
    if not 0 < port < NO_SUCH_PORT or port in taken or not port_is_free(port, "127.0.0.1"):
        port = free_port(taken)
    draft = file.with_suffix(".part")
    draft.write_text(json.dumps(kept | {name: port}), encoding="utf-8")
    draft.replace(file)
    return port


def pause(failures: int, seconds_first: float = BACK_OFF_SECONDS_FIRST) -> float:
    """Seconds before the next try."""
    return float(min(seconds_first * 2 ** min(failures - 1, 8), BACK_OFF_SECONDS_MAX))


def not_ready(url: str) -> list[str]:
    """Why the process behind that URL is not ready; empty when it is."""
    try:
        with opened_directly(f"{url}/health/ready", seconds_max=HTTP_SECONDS_MAX) as answer:
            answer.read()
            return []
    except urllib.error.HTTPError as error:
        with error:
            return _reasons(error)
    except (OSError, ValueError) as error:
        return [f"no answer yet ({type(error).__name__})"]


def shown(url: str, token: str) -> bool:
    """Whether the views have reached the position of a question and have an answer to it."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - ours
    try:
        with opened_directly(request, seconds_max=HTTP_SECONDS_MAX) as answer:
            return bool(json.loads(answer.read())["items"])
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except (OSError, ValueError, KeyError):
        return False


def _reasons(answer: IO[bytes]) -> list[str]:
    try:
        body: Any = json.loads(answer.read())
        return [str(each) for each in body["reasons"]] or ["not ready"]
    except (ValueError, KeyError, TypeError):
        return ["not ready"]


def prepare(environment: Mapping[str, str], say: Callable[[str], None]) -> bool:
    """Migrates the databases and makes topics where they are missing; tells whether the store is empty."""
    import psycopg
    from chassis.connections.migrating import MigrationBlocked
    from chassis.connections.settings import complaint
    from chassis.connections.transient import StoreUnavailable, why
    from chassis.messaging.transport import ensure_topics
    from chassis.write.store import Recorder
    from contracts.topics import TOPICS
    from pydantic import ValidationError

    from crm_cli.contexts import CONTEXTS
    from crm_cli.migrate import migrated

    say("preparing stores and topics")
    try:
        settings = Settings(**server_urls(environment), data=Path(environment["CRM_DATA"]))
        migrated(settings, say)
        empty = True
        for context in CONTEXTS.values():
            with closing(Recorder(settings.postgres_url, context.schema)) as recorder:
                empty = empty and recorder.head_position() == 0
        asyncio.run(ensure_topics(settings.kafka_url, TOPICS))
    except ValidationError as error:
        raise UpFailed(complaint(error)) from error
    except (psycopg.Error, StoreUnavailable, MigrationBlocked, OSError) as error:
        raise UpFailed(f"the stores cannot be prepared: {why(error)}") from error
    return empty


def server_urls(environment: Mapping[str, str]) -> dict[str, Any]:
    """Where the servers are, by the names of the settings."""
    kept = {
        name: environment[variable] for variable, name in KEPT_FIELDS.items() if environment.get(variable)
    }
    return {name: environment[variable] for variable, name in FIELDS.items()} | kept


def logins(url: str) -> dict[str, str]:
    """Makes the owner of the schema and the login of the services on a server of ours; returns their
    addresses.

    The login owns nothing and is no member of the owner. `url` is the superuser's.
    """
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import conninfo_to_dict

    known = conninfo_to_dict(url)
    with psycopg.connect(url, autocommit=True) as connection:
        for name, rights in ((OWNER, "createdb createrole"), (SERVICE, "nocreatedb nocreaterole")):
            found = connection.execute("select from pg_roles where rolname = %s", [name]).fetchone()
            connection.execute(
                sql.SQL("{} role {} login password {} " + rights).format(
                    sql.SQL("create" if found is None else "alter"),
                    sql.Identifier(name),
                    known.get("password"),
                )
            )
        connection.execute(
            sql.SQL("grant create on database {} to {}").format(
                sql.Identifier(connection.info.dbname), sql.Identifier(OWNER)
            )
        )
        close_to_public(connection, "temporary")
        keys = connection.execute("select from pg_database where datname = %s", [KEYS_DATABASE]).fetchone()
        _hand_over(connection, () if keys is None else (KEYS_DATABASE,))
    if keys is not None:
        with psycopg.connect(url, autocommit=True, dbname=KEYS_DATABASE) as connection:
            _hand_over(connection)
    return {
        "POSTGRES_URL": _logged_in_as(url, SERVICE),
        "POSTGRES_OWNER_URL": _logged_in_as(url, OWNER),
        "POSTGRES_AUDITOR_URL": _logged_in_as(url, READER),
    }


def _logged_in_as(url: str, user: str) -> str:
    place = urlsplit(url)
    login, _, host = place.netloc.rpartition("@")
    _, colon, password = login.partition(":")
    return place._replace(netloc=f"{user}{colon}{password}@{host}").geturl()


def _hand_over(connection: "psycopg.Connection[Any]", databases: Sequence[str] = ()) -> None:
    """Makes the owner the owner of what the superuser created before there was one."""
    from psycopg import sql

    owner = sql.Identifier(OWNER)
    for database in databases:
        connection.execute(sql.SQL("alter database {} owner to {}").format(sql.Identifier(database), owner))
    for role, *_ in connection.execute(
        "select rolname from pg_roles where rolname ~ '^crm_.*_writer$'"
    ).fetchall():
        connection.execute(sql.SQL("grant {} to {} with admin option").format(sql.Identifier(role), owner))
    for kind, name in connection.execute(_MADE_BEFORE, {"owner": OWNER}).fetchall():
        connection.execute(sql.SQL("alter {} {} owner to {}").format(sql.SQL(kind), sql.SQL(name), owner))


_MADE_BEFORE = """
with ours as (
    select oid, nspname, nspowner from pg_namespace where nspname ~ '^(store_.*|ingest|migrations)$'
    or (nspname = 'public' and current_database() = 'crm_keys')
)
select 'schema', quote_ident(nspname) from ours where nspname <> 'public' and nspowner <> %(owner)s::regrole
union all
select 'table', c.oid::regclass::text from pg_class as c join ours on ours.oid = c.relnamespace
where c.relkind = 'r' and c.relowner <> %(owner)s::regrole
union all
select 'function', p.oid::regprocedure::text from pg_proc as p join ours on ours.oid = p.pronamespace
where p.proowner <> %(owner)s::regrole
"""


def head_position(environment: Mapping[str, str]) -> int:
    """Position of the last event of ingest."""
    from chassis.write.store import Recorder

    from crm_cli.contexts import CONTEXTS

    with closing(Recorder(environment["POSTGRES_URL"], CONTEXTS["ingest"].schema)) as recorder:
        return recorder.head_position()


def up(
    no_demo: Annotated[
        bool, typer.Option("--no-demo", help="as CRM_DEMO=0: an empty store stays empty")
    ] = False,
) -> None:
    """Starts servers and all roles, and keeps them up until Ctrl-C. CRM_DATA and CRM_PORT say where."""
    say = Console()
    previous = [(each, signal.signal(each, signal.default_int_handler)) for each in ENDING]
    code = OK
    with ExitStack() as stack:
        try:
            choices = choices_of(os.environ)
            choices.demo = choices.demo and not no_demo
            supervisor = Supervisor(choices, say, stack)
            supervisor.run()
        except KeyboardInterrupt:
            say("stopping")
        except (UpFailed, ServerFailed, DataFolderUnusable, OSError) as error:
            print(f"crm up: {error}", file=sys.stderr, flush=True)
            code = USAGE
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        stack.close()
    if code == OK:
        say("stopped")
    for each, handler in previous:
        signal.signal(each, handler)
    if code:
        raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("up")(up)
