"""One process, one or more roles: started together, restarted when a server was lost, stopped within bounds."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, Protocol

import psycopg
import structlog
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis import heap
from chassis.clock import Clock, SystemClock
from chassis.connections.migrating import MigrationBlocked, Tables, migrate
from chassis.connections.settings import Settings
from chassis.connections.transient import is_transient, why
from chassis.ending import ended, set_within
from chassis.observability import metrics, telemetry
from chassis.privacy.aging import expiring
from chassis.privacy.keys import KEYS
from chassis.web.app import PUBLIC, operations_app
from chassis.web.problems import NotReady, problem
from chassis.web.serving import PortTaken, listening_socket, serve

SERVING: Final = "api"
"""The name of the role that answers HTTP, in every service."""
MIGRATE: Final = "migrate"
STOP_SECONDS_MAX: Final = 15.0
CLOSING_SECONDS_MAX: Final = 4.0
"""Of these: for closing what a role has open, once it is cut off because it waits for a server that does not answer."""
BACK_OFF_SECONDS_FIRST: Final = 0.2
BACK_OFF_SECONDS_MAX: Final = 10.0
STEADY_SECONDS: Final = 30.0
"""After a run of this length the back-off of a role begins at its first step again."""

_log = structlog.get_logger(__name__)


class Role(Protocol):
    """A part of a service that runs until it is told to stop."""

    @property
    def name(self) -> str:
        """As in health, metrics and logs: `customer-views`."""
        ...

    async def run(self, stopping: asyncio.Event) -> None:
        """Works until `stopping`, then finishes the work in hand and returns.

        Raises ConnectionError where a server is lost.
        """
        ...

    def not_ready(self) -> list[str]:
        """Why the role does not do its work just now; empty when it does."""
        ...


Factory = Callable[[], Role]
Open = Callable[[], AbstractAsyncContextManager[ASGIApp]]


class Front:
    """The application of the process: the web role's where there is one, else health and metrics alone."""

    def __init__(self, operations: ASGIApp) -> None:
        self.operations = operations
        self.app: ASGIApp | None = None
        self.awaited = False
        """Whether a web role of this process will answer later. Until then callers get 503 and should try
        again."""
        self.drained = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if self.app is None and self.awaited and scope["type"] == "http" and scope["path"] not in PUBLIC:
            await problem(NotReady)(scope, receive, send)
        else:
            await (self.app or self.operations)(scope, receive, send)


class WebRole:
    """The role that serves HTTP. `open` returns the application.

    After the last response it closes what it opened.
    """

    def __init__(self, name: str, open: Open) -> None:
        self.name = name
        self._open = open
        self._front: Front | None = None
        self._readiness: list[Callable[[], list[str]]] = []
        self._reasons = [f"{name}: starting"]

    def join(self, front: Front, readiness: list[Callable[[], list[str]]]) -> None:
        """Gives the role the front of the process, and the other checks of the process's health."""
        self._front, self._readiness = front, readiness

    async def run(self, stopping: asyncio.Event) -> None:
        """Answers until `stopping`."""
        assert self._front is not None, "run_roles joins it to the process's front"  # noqa: S101
        async with self._open() as app:
            reasons: list[Any] | None = getattr(getattr(app, "state", None), "readiness", None)
            if reasons is not None:
                reasons.extend(self._readiness)
            self._front.app = app
            self._reasons = []
            try:
                await stopping.wait()
                streams = getattr(getattr(app, "state", None), "streams", None)
                if streams is not None:
                    await streams.close()
                await self._front.drained.wait()
            finally:
                self._front.app = None
                self._reasons = [f"{self.name}: stopped"]

    def not_ready(self) -> list[str]:
        """Why it does not answer."""
        return list(self._reasons)


class _Hosted:
    """One role of this process, through all its restarts."""

    def __init__(
        self,
        name: str,
        factory: Factory,
        clock: Clock,
        back_off_seconds_first: float,
        told_seconds_max: float,
    ) -> None:
        self.name = name
        self._told_seconds_max = told_seconds_max
        self._back_off_seconds_first = back_off_seconds_first
        self._factory = factory
        self._clock = clock
        self._role: Role | None = None
        self._lost: str | None = None

    def not_ready(self) -> list[str]:
        """Why the role does not do its work."""
        if self._lost is not None:
            return [f"{self.name}: {self._lost}"]
        reasons = [f"{self.name}: starting"] if self._role is None else self._role.not_ready()
        metrics.ROLE_READY.labels(self.name).set(0 if reasons else 1)
        return reasons

    async def run(self, stopping: asyncio.Event, front: Front, others: list[Callable[[], list[str]]]) -> None:
        """Runs the role.

        After a transient error it restarts the role with back-off; it raises any other error.
        """
        pause = self._back_off_seconds_first
        while not stopping.is_set():
            began = self._clock.monotonic()
            try:
                self._role = self._factory()
                if isinstance(self._role, WebRole):
                    front.awaited = True
                    self._role.join(front, others)
                self._lost = None
                await self._cut_off(self._role.run(stopping), stopping)
            except Exception as error:
                if not is_transient(error):
                    raise
                self._lost = why(error)
                metrics.ROLE_RESTARTS.labels(self.name).inc()
                metrics.ROLE_READY.labels(self.name).set(0)
                if self._clock.monotonic() - began > STEADY_SECONDS:
                    pause = self._back_off_seconds_first
                _log.warning("role waits", role=self.name, seconds=pause, exc_info=error)
                await set_within(stopping, pause)
                pause = min(pause * 2, BACK_OFF_SECONDS_MAX)
            else:
                if not stopping.is_set():
                    raise RoleEnded(f"{self.name} ended unasked")

    async def _cut_off(self, run: Coroutine[Any, Any, None], stopping: asyncio.Event) -> None:
        """Runs a role. It is cancelled where it has not ended in time after it was told to: it may wait for a server that
        is frozen, and still has to close what it has open."""
        running = asyncio.create_task(run, name=self.name)
        told = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([running], timeout=self._told_seconds_max)
            if running.done():
                return running.result()
            _log.warning("role is cut off", role=self.name, seconds=self._told_seconds_max)
            running.cancel()
            await asyncio.wait([running])
            if not running.cancelled():
                running.result()
        finally:
            await ended(running, told)
        return None


class RoleEnded(Exception):
    """A role returned before it was told to stop."""


async def run_roles(
    roles: Mapping[str, Factory],
    settings: Settings,
    *,
    clock: Clock | None = None,
    stopping: asyncio.Event | None = None,
    listening: Callable[[int], None] = lambda _: None,
    back_off_seconds_first: float = BACK_OFF_SECONDS_FIRST,
    stop_seconds_max: float = STOP_SECONDS_MAX,
) -> int:
    """Runs roles in this process until a signal or `stopping`; the exit code: 0 where all ended as asked.

    Health and metrics answer on the settings' host and port from the first moment, beside the web role's
    routes where there is one; `listening` is told the port. Raises PortTaken. A second signal ends without
    waiting.
    """
    clock = clock or SystemClock()
    stopping = stopping or asyncio.Event()
    told_seconds_max = max(0.0, stop_seconds_max - CLOSING_SECONDS_MAX)
    hosted = [
        _Hosted(name, factory, clock, back_off_seconds_first, told_seconds_max)
        for name, factory in roles.items()
    ]
    reasons: list[Callable[[], list[str]]] = [each.not_ready for each in hosted]
    front = Front(operations_app(settings, reasons, clock))
    answering = listening_socket(settings.host, settings.port)
    port: int = answering.getsockname()[1]
    listening(port)
    _log.info("process started", host=settings.host, port=port, run=",".join(roles))
    running = [asyncio.create_task(each.run(stopping, front, reasons), name=each.name) for each in hosted]
    web = asyncio.create_task(_answer(front, answering, stopping, settings), name="http")
    forgetting = asyncio.create_task(expiring(clock), name="expiring")
    restore = _on_signals(stopping, [*running, web])
    try:
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait([*running, web, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        stopping.set()
        _, late = await asyncio.wait([*running, web], timeout=stop_seconds_max)
        for task in late:
            _log.error("role did not stop in time", role=task.get_name())
        await ended(*late)
        failed = [task for task in (*running, web) if task.cancelled() or task.exception() is not None]
        for task in failed:
            if not task.cancelled():
                _log.error("role failed", role=task.get_name(), exc_info=task.exception())
        return 1 if failed else 0
    finally:
        forgetting.cancel()
        restore()
        answering.close()


async def _answer(front: Front, answering: Any, stopping: asyncio.Event, settings: Settings) -> None:
    try:
        await serve(front, answering, stopping, trusted_proxies=settings.trusted_proxies)
    finally:
        front.drained.set()


def _on_signals(stopping: asyncio.Event, tasks: list["asyncio.Task[None]"]) -> Callable[[], None]:
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stopping.is_set():
            for task in tasks:
                task.cancel()
        stopping.set()

    handled: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, asked)
        except (RuntimeError, ValueError):  # not the main thread: the caller stops the roles with the event
            break
        handled.append(number)

    def restore() -> None:
        for number in handled:
            loop.remove_signal_handler(number)

    return restore


def main(
    service: str,
    roles: Mapping[str, Factory],
    settings: Settings,
    tables: Sequence[Tables],
    arguments: list[str] | None = None,
    *,
    without_postgres: Collection[str] = (),
) -> int:
    """`python -m <service> <role>...` runs the roles named, all of them for `all`; `migrate` brings the
    databases to what `tables` say, and ends. Returns the exit code.

    `without_postgres` names the roles that use no PostgreSQL; only they start where no `POSTGRES_URL` is set.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {service.replace('-', '_')}")
    parser.add_argument("role", nargs="+", choices=[*roles, "all", MIGRATE])
    chosen: list[str] = parser.parse_args(arguments).role
    if not settings.postgres_url and not set(chosen) <= set(without_postgres):
        sys.stderr.write("POSTGRES_URL: Field required\n")
        return 2
    if MIGRATE in chosen:
        if len(chosen) > 1:
            parser.error("`migrate` is a step of its own")
        return _migrate(service, tables, settings)
    wanted = {
        f"{service}-{name}": factory for name, factory in roles.items() if name in chosen or "all" in chosen
    }
    try:
        with begun(service, settings):
            return run_to_the_end(wanted, settings, serving=set(chosen) == {SERVING})
    except PortTaken as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 2


def run_to_the_end(roles: Mapping[str, Callable[[], Role]], settings: Settings, *, serving: bool) -> int:
    """Runs roles and returns the exit code. `serving`: they answer HTTP and do nothing else.

    Those run on uvloop. The others have Kafka clients and run on asyncio's own loop: uvloop raises a RuntimeError
    where something writes to a connection that has just broken, which ends tasks of aiokafka that it never starts
    again (`benchmarks/panorama_projection.py` is no slower for it).
    """
    return (uvloop.run if serving else asyncio.run)(run_roles(roles, settings))


def migrate_databases(
    settings: Settings, tables: Sequence[Tables], said: Callable[[str], None] = lambda _: None
) -> int:
    """Migrates the database of the events and that of the keys, each as its owner; returns how many steps
    were run.

    Raises MigrationBlocked, psycopg.Error.
    """
    events = migrate(
        settings.postgres_owner_url,
        tables,
        service_url=settings.postgres_url,
        reader_url=settings.postgres_auditor_url,
        said=said,
    )
    return events + migrate(
        settings.keys_owner_url,
        [KEYS],
        service_url=settings.keys_url,
        private=settings.postgres_auditor_url is not None,
        said=said,
    )


def _migrate(service: str, tables: Sequence[Tables], settings: Settings) -> int:
    def said(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    try:
        done = migrate_databases(settings, tables, said)
    except (MigrationBlocked, psycopg.Error) as error:
        sys.stderr.write(f"{service} migrate: {why(error)}\n")
        return 1
    sys.stdout.write(f"{service} migrate: {done} steps were run\n")
    return 0


@contextmanager
def begun(service: str, settings: Settings) -> Iterator[None]:
    """Logs, traces and garbage collection of this process, before anything else; traces are sent at its end."""
    telemetry.configure_logging(service, settings.log_level)
    provider = telemetry.configure_tracing(
        settings.otel_service_name or service,
        endpoint=settings.otlp_endpoint,
        protocol=settings.otlp_protocol,
    )
    heap.for_batches()
    try:
        yield
    finally:
        telemetry.end_tracing(provider)
