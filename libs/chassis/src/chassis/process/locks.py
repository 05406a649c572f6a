"""Locks for blocking code: one run at a time holds a lock. Each lock has a fence against its earlier holders.

A lock is an advisory lock of a session, so a waiting session gets it the moment it is free. The database
ends a session that holds a lock and is silent for `LOCK_SILENT_SECONDS_MAX`, by the database's clock. No
process therefore waits longer for a holder that freezes or is cut off. Each taking raises the epoch of the
lock's fence. A transaction that checks the fence is refused where its holder has an earlier epoch. The
holder also stops, by its own clock, when it did not reach the database in time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, RLock, Thread
from typing import Any, Final

import psycopg
from psycopg import errors, sql
from typing_extensions import override

from chassis.connections.postgres import ANSWER_SECONDS_SPARE, Connection, connect
from chassis.connections.transient import DATABASE_LOST, Transient
from chassis.process.leases import MARGIN_SECONDS, RENEWED_SECONDS, STATEMENT_SECONDS_MAX
from chassis.write.store.items import Fence, Fenced
from chassis.write.store.schema import checked, writer_role

LOCK_SILENT_SECONDS_MAX: Final = 8.0
IN_TRANSACTION_SECONDS_MAX: Final = 10.0
"""How long a transaction that checked a fence may be idle. The next holder of the lock waits for its end."""
_ENDING_SECONDS_MAX: Final = 10.0


class LockBusy(Transient):
    """Another holder had the lock for the whole time of waiting."""


class LockFence(Fence):
    """One taking of a lock: its epoch, and until when the holder may go on without reaching the database."""

    def __init__(self, schema: str, name: str, epoch: int, monotonic: Callable[[], float]) -> None:
        self.name = name
        self.epoch = epoch
        self.valid_until = float("-inf")
        self._monotonic = monotonic
        self._ask = sql.SQL("select from {} where name = %s and epoch = %s for share").format(
            sql.Identifier(checked(schema), "fences")
        )

    @override
    def check(self) -> None:
        """Raises Fenced where the holder did not reach the database in time, by this process's own clock."""
        if self._monotonic() >= self.valid_until:
            raise Fenced(f"{self.name}: not heard in time")

    def hold(self, connection: "psycopg.Connection[Any]") -> None:
        """Raises Fenced where another holder took the lock.

        No other can take it before `connection`'s transaction ends.

        Call it last in a transaction. The error rolls the transaction back, and the next holder waits only
        for its end.
        """
        self.check()
        if connection.execute(self._ask, (self.name, self.epoch)).rowcount != 1:
            raise Fenced(f"{self.name}: epoch {self.epoch} is over")


class Locks:
    """The locks of one thread, over a connection of their own that another thread keeps alive while one is
    held."""

    def __init__(
        self,
        url: str,
        schema: str,
        monotonic: Callable[[], float],
        *,
        wait_seconds_max: float,
        silent_seconds_max: float = LOCK_SILENT_SECONDS_MAX,
        heard_seconds: float = RENEWED_SECONDS,
    ) -> None:
        self._url = url
        self._schema = checked(schema)
        self._monotonic = monotonic
        self._wait_seconds_max = wait_seconds_max
        self._silent_seconds_max = silent_seconds_max
        self._heard_seconds = heard_seconds
        self._held: list[str] = []
        self._fence: LockFence | None = None
        self._connection: Connection | None = None
        self._asking = RLock()
        self._raise = sql.SQL(
            "insert into {t} as f (name, epoch) values (%s, 1)"
            " on conflict (name) do update set epoch = f.epoch + 1 returning epoch"
        ).format(t=sql.Identifier(self._schema, "fences"))

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Holds a lock. Raises LockBusy where it cannot be had in time."""
        self._take(name)
        try:
            if len(self._held) > 1:
                yield
            else:
                with self._heard():
                    yield
        finally:
            self._let_go(name)

    @contextmanager
    def fenced(self, name: str) -> Iterator[LockFence]:
        """Holds a lock whose earlier holders can store nothing more; one lock at a time."""
        with self.held(name):
            with self._asking:
                asked_at = self._monotonic()
                row = self._connected().execute(self._raise, (name,)).fetchone()
                if row is None:
                    raise LookupError(name)
                fence = LockFence(self._schema, name, row[0], self._monotonic)
                self._lasts_from(asked_at, fence)
                self._fence = fence
            try:
                yield fence
            finally:
                self._fence = None
                fence.valid_until = float("-inf")

    def close(self) -> None:
        """Closes the connection, which releases the locks held with it."""
        with self._asking:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _take(self, name: str) -> None:
        with self._asking:
            try:
                self._ask_for(name)
            except DATABASE_LOST:
                if self._held or (self._connection is not None and not self._connection.closed):
                    raise
                self._connection = None  # it was lost since the last time
                self._ask_for(name)
            self._held.append(name)

    def _ask_for(self, name: str) -> None:
        connection = self._connected()
        connection.answer_seconds = self._wait_seconds_max + ANSWER_SECONDS_SPARE
        try:
            connection.execute(
                "select set_config('idle_session_timeout', %s, false),"
                " pg_advisory_lock(hashtextextended(%s, 0))",
                (f"{self._silent_seconds_max * 1000:.0f}ms", name),
            )
        except errors.LockNotAvailable:
            if not self._held:
                connection.execute("set idle_session_timeout = 0")
            raise LockBusy(name) from None
        finally:
            connection.answer_seconds = STATEMENT_SECONDS_MAX + ANSWER_SECONDS_SPARE

    def _let_go(self, name: str) -> None:
        with self._asking:
            self._held.remove(name)
            connection = self._connection
            if connection is None or connection.closed:
                return
            try:
                connection.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (name,))
                if not self._held:
                    connection.execute("set idle_session_timeout = 0")
            except DATABASE_LOST:
                self.close()

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Sends a statement to the database again and again, in a thread of its own, so that the session is
        not silent."""
        ended = Event()
        thread = Thread(target=self._keep_alive, args=(ended,), name="locks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_ENDING_SECONDS_MAX)

    def _keep_alive(self, ended: Event) -> None:
        while not ended.wait(self._heard_seconds):
            with self._asking:
                if ended.is_set() or self._connection is None:
                    return
                asked_at = self._monotonic()
                try:
                    self._connection.execute("select 1")
                except psycopg.Error:
                    with suppress(psycopg.Error):
                        self._connection.close()
                    return  # the lock is lost with its session; the fence raises once its time is over
                if self._fence is not None:
                    self._lasts_from(asked_at, self._fence)

    def _lasts_from(self, asked_at: float, fence: LockFence) -> None:
        fence.valid_until = asked_at + self._silent_seconds_max - MARGIN_SECONDS

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            if self._held:
                raise Fenced(f"{self._held[-1]}: the session that held it is over")
            self._connection = connect(
                self._url,
                role=writer_role(self._schema),
                statement_seconds=2 * self._wait_seconds_max,
                lock_seconds=self._wait_seconds_max,
            )
        return self._connection
