"""The relay's ports on PostgreSQL: the position row, fenced by the lease, the log, and NOTIFY as a hint."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql
from typing_extensions import override

from chassis.clock import Clock
from chassis.connections.postgres import connect_async
from chassis.connections.reconnecting import Reconnecting
from chassis.connections.transient import DATABASE_LOST
from chassis.relay.loop import Counted, Held, Hint, Log, RelayPositions
from chassis.write.events import StoredEvent
from chassis.write.store.items import Fenced
from chassis.write.store.recorder import Recorder
from chassis.write.store.schema import channel, checked, writer_role

RELAY_LEASE: Final = "relay"
LISTEN_AGAIN_SECONDS: Final = 5.0
STATEMENT_SECONDS_MAX: Final = 10.0


class PostgresPositions(RelayPositions):
    """The position row; only the holder of the lease's latest epoch may save it."""

    def __init__(self, url: str, schema: str, context: str) -> None:
        self._context = context
        table, leases = sql.Identifier(schema, "relay"), sql.Identifier(schema, "leases")
        self._read = sql.SQL("select position from {} where context = %s").format(table)
        self._counted = sql.SQL("select published, counted_to from {} where context = %s").format(table)
        # The lease is locked, so that it is not taken over between this check and the commit.
        held = sql.Identifier(schema, "unpublishable")
        fence = sql.SQL("with fence as (select from {} where name = %s and epoch = %s for share)").format(
            leases
        )
        self._held = sql.SQL(
            "select subject, position, version, name, reason, again from {} order by position"
        ).format(held)
        self._release = sql.SQL(
            "{f}, gone as (delete from {h} where subject = %s and exists (select from fence)) select from fence"
        ).format(f=fence, h=held)
        self._hold = sql.SQL(
            "{f} update {h} set position = %s, version = %s, name = %s, reason = %s, again = false"
            " from fence where subject = %s"
        ).format(f=fence, h=held)
        self._save = sql.SQL(
            "{f}, kept as (insert into {h} (subject, position, version, name, reason)"
            " select u.* from fence, unnest(%s::uuid[], %s::bigint[], %s::int[], %s::text[], %s::text[]) as u"
            " on conflict (subject) do nothing)"
            " insert into {t} as r (context, position, published, counted_to) select %s, %s, %s, %s from fence"
            " on conflict (context) do update set position = greatest(r.position, excluded.position),"
            " published = excluded.published, counted_to = excluded.counted_to"
        ).format(f=fence, h=held, t=table)
        self._connection = Reconnecting(url, writer_role(checked(schema)), STATEMENT_SECONDS_MAX)

    @override
    async def read(self) -> int:
        row = await (await self._connection.execute(self._read, (self._context,))).fetchone()
        return 0 if row is None else int(row[0])

    @override
    async def counted(self) -> Counted | None:
        row = await (await self._connection.execute(self._counted, (self._context,))).fetchone()
        if row is None:
            return Counted()
        return None if row[0] is None else Counted(tuple(row[0]), int(row[1]))

    @override
    async def held(self) -> list[Held]:
        return [Held(*row) for row in await (await self._connection.execute(self._held, ())).fetchall()]

    @override
    async def let_go(self, epoch: int, subject: UUID, held: Held | None) -> None:
        fence = (RELAY_LEASE, epoch)
        if held is None:
            done = await self._connection.execute(self._release, (*fence, subject))
        else:
            done = await self._connection.execute(self._hold, (*fence, *held[1:5], subject))
        if done.rowcount == 0:
            raise Fenced(f"epoch {epoch} of {self._context} is over")

    @override
    async def save(
        self, epoch: int, position: int, held: Sequence[Held] = (), counted: Counted | None = None
    ) -> None:
        columns = [[one[at] for one in held] for at in range(5)]
        counts = (None, None) if counted is None else (list(counted.events), counted.position)
        values = (RELAY_LEASE, epoch, *columns, self._context, position, *counts)
        if (await self._connection.execute(self._save, values)).rowcount == 0:
            raise Fenced(f"epoch {epoch} of {self._context} is over")

    async def close(self) -> None:
        """Lets the connection go."""
        await self._connection.close()


class StoreLog(Log):
    """The store, read in a thread of its own."""

    def __init__(self, url: str, schema: str, *, as_login: bool = False) -> None:
        self._recorder = Recorder(url, schema, as_login=as_login)
        self._name = f"{schema}-relay"
        self._thread: ThreadPoolExecutor | None = None

    @override
    async def read_after(self, position: int, limit: int) -> list[StoredEvent]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reading(), self._recorder.read_after, position, limit)

    @override
    async def read_stream(self, stream_id: UUID, after: int, limit: int) -> list[StoredEvent]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._reading(), self._recorder.read_stream, stream_id, after, limit
        )

    async def head_position(self) -> int:
        """Position of the last event, 0 in an empty store."""
        return await asyncio.get_running_loop().run_in_executor(self._reading(), self._recorder.head_position)

    def _reading(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        return self._thread

    def close(self) -> None:
        """Closes the thread and its connection. The next read opens new ones."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=True, cancel_futures=True)
        self._recorder.close()


class Listening(Hint):
    """LISTEN on the store's channel. Without a connection it only waits, and connects again later."""

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
