"""The relay's ports on PostgreSQL: the position row with its epoch, the seat, the log, and NOTIFY as a hint."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any, Final

import psycopg
from psycopg import sql
from typing_extensions import override

from chassis.clock import Clock
from chassis.events import StoredEvent
from chassis.postgres import connect_async
from chassis.relay.loop import Fenced, Hint, Log, RelayPositions, Taken
from chassis.store.items import StoreUnavailable
from chassis.store.recorder import Recorder
from chassis.store.schema import channel, checked, writer_role
from chassis.transient import DATABASE_LOST

STAND_BY_SECONDS: Final = 0.5
"""How often a relay that stands by asks for the seat."""
LISTEN_AGAIN_SECONDS: Final = 5.0
STATEMENT_SECONDS_MAX: Final = 10.0


class PostgresPositions(RelayPositions):
    """The position row. The seat is an advisory lock of the session: a relay that dies leaves it free at once.

    The lock only spares two relays the work of one; that a stale one cannot save is the epoch's doing.
    """

    def __init__(self, url: str, schema: str, context: str, clock: Clock) -> None:
        self._url = url
        self._role = writer_role(checked(schema))
        self._context = context
        self._clock = clock
        self._seat = _seat_key(schema, context)
        name = sql.Identifier(schema, "relay")
        self._take = sql.SQL(
            "insert into {} as r (context, epoch, position) values (%s, 1, 0)"
            " on conflict (context) do update set epoch = r.epoch + 1 returning epoch, position"
        ).format(name)
        self._save = sql.SQL(
            "update {} set position = greatest(position, %s) where context = %s and epoch = %s"
        ).format(name)
        self._connection: psycopg.AsyncConnection[Any] | None = None

    @override
    async def take(self) -> Taken:
        await self.leave()
        try:
            connection = self._connection = await connect_async(
                self._url, role=self._role, statement_seconds=STATEMENT_SECONDS_MAX
            )
            while not await self._seated(connection):
                await self._clock.sleep(STAND_BY_SECONDS)
            cursor = await connection.execute(self._take, (self._context,))
            epoch, position = await cursor.fetchone() or (0, 0)
            return Taken(epoch, position)
        except DATABASE_LOST as error:
            await self.leave()
            raise StoreUnavailable(str(error)) from error

    @override
    async def save(self, epoch: int, position: int) -> None:
        if self._connection is None:
            raise Fenced("the seat was left")
        try:
            cursor = await self._connection.execute(self._save, (position, self._context, epoch))
        except DATABASE_LOST as error:
            await self.leave()
            raise StoreUnavailable(str(error)) from error
        if cursor.rowcount == 0:
            await self.leave()
            raise Fenced(f"epoch {epoch} of {self._context} is over")

    async def leave(self) -> None:
        """Leaves the seat to whoever stands by."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _seated(self, connection: "psycopg.AsyncConnection[Any]") -> bool:
        cursor = await connection.execute("select pg_try_advisory_lock(%s)", (self._seat,))
        return (await cursor.fetchone() or (False,))[0] is True


class StoreLog(Log):
    """The store, read in a thread of its own."""

    def __init__(self, url: str, schema: str) -> None:
        self._recorder = Recorder(url, schema)
        self._name = f"{schema}-relay"
        self._thread: ThreadPoolExecutor | None = None

    @override
    async def read_after(self, position: int, limit: int) -> list[StoredEvent]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reading(), self._recorder.read_after, position, limit)

    async def head_position(self) -> int:
        """Position of the last event, 0 in an empty store."""
        return await asyncio.get_running_loop().run_in_executor(self._reading(), self._recorder.head_position)

    def _reading(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        return self._thread

    def close(self) -> None:
        """Lets the thread and its connection go; the next read takes others."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=True, cancel_futures=True)
        self._recorder.close()


class Listening(Hint):
    """LISTEN on the store's channel. Without a connection it is a plain wait, and tries again later."""

    def __init__(self, url: str, schema: str, clock: Clock) -> None:
        self._url = url
        self._role = writer_role(checked(schema))
        self._listen = sql.SQL("listen {}").format(sql.Identifier(channel(schema)))
        self._clock = clock
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._next_try_seconds = float("-inf")

    @override
    async def wait(self, seconds_max: float) -> None:
        try:
            connection = await self._listening()
            if connection is not None:
                async for _ in connection.notifies(timeout=seconds_max, stop_after=1):
                    pass
                return
        except DATABASE_LOST:
            await self.close()
        await self._clock.sleep(seconds_max)

    async def close(self) -> None:
        """Lets the connection go."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _listening(self) -> "psycopg.AsyncConnection[Any] | None":
        if self._connection is None and self._clock.monotonic() >= self._next_try_seconds:
            self._next_try_seconds = self._clock.monotonic() + LISTEN_AGAIN_SECONDS
            connection = await connect_async(
                self._url, role=self._role, statement_seconds=STATEMENT_SECONDS_MAX
            )
            self._connection = connection
            await connection.execute(self._listen)
        return self._connection


def _seat_key(schema: str, context: str) -> int:
    digest = blake2b(f"chassis.relay|{schema}|{context}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
