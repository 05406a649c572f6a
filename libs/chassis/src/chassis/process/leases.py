"""A lease names the one process that may do a task, until when (by the database's clock), and in which epoch.

A holder that dies, freezes or is cut off loses the lease when it expires, so no process waits longer than
that. The epoch fences the earlier holder: each taking raises the epoch, and a write under an earlier epoch
is refused. The holder also stops by itself, by its own clock, before another process can have taken the
lease.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from psycopg import sql
from typing_extensions import override

from chassis.clock import Clock
from chassis.connections.reconnecting import Reconnecting
from chassis.connections.transient import StoreUnavailable
from chassis.ending import ended
from chassis.write.store.items import Fenced
from chassis.write.store.schema import checked, writer_role

LEASE_SECONDS: Final = 8.0
"""How long a lease lasts that its holder does not renew."""
RENEWED_SECONDS: Final = 2.0
MARGIN_SECONDS: Final = 1.0
"""How much earlier than the database's clock says a holder treats its lease as expired."""
ASKED_SECONDS: Final = 1.0
"""How often a process that stands by asks for the lease."""
STATEMENT_SECONDS_MAX: Final = 3.0

T = TypeVar("T")


class LeaseRow(Protocol):
    """One lease in a place that all processes share, timed by one clock.

    Calls raise StoreUnavailable in doubt.
    """

    async def take(self, seconds: float) -> int | None:
        """The new epoch, where the lease was free, has expired or is the caller's own; None otherwise."""
        ...

    async def renew(self, epoch: int, seconds: float) -> bool:
        """Whether the epoch still stands; the lease then lasts that long from now."""
        ...

    async def release(self, epoch: int) -> None:
        """Frees the lease at once for other processes, where the epoch is still the latest."""
        ...


class Lease:
    """A process's hold on a lease."""

    def __init__(
        self,
        row: LeaseRow,
        clock: Clock,
        *,
        seconds: float = LEASE_SECONDS,
        renewed_seconds: float = RENEWED_SECONDS,
        margin_seconds: float = MARGIN_SECONDS,
        asked_seconds: float = ASKED_SECONDS,
    ) -> None:
        self._row = row
        self._clock = clock
        self._seconds = seconds
        self._renewed_seconds = renewed_seconds
        self._margin_seconds = margin_seconds
        self._asked_seconds = asked_seconds
        self._valid_until = float("-inf")
        self._epoch: int | None = None

    async def acquire(self, stands_by: Callable[[], None] = lambda: None) -> int:
        """Waits until the lease can be had; returns its epoch. Raises StoreUnavailable.

        `stands_by` is called each time the database answers that another process has the lease.
        """
        while True:
            asked_at = self._clock.monotonic()
            epoch = await self._row.take(self._seconds)
            if epoch is not None:
                self._epoch = epoch
                self._lasts_from(asked_at)
                return epoch
            stands_by()
            await self._clock.sleep(self._asked_seconds)

    async def acquire_unless(self, stopping: asyncio.Event, stands_by: Callable[[], None]) -> int | None:
        """As `acquire`; None where `stopping` is set before the lease could be had."""
        taking = asyncio.ensure_future(self.acquire(stands_by))
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait([taking, stopped], return_when=asyncio.FIRST_COMPLETED)
            return taking.result() if taking.done() else None
        finally:
            await ended(taking, stopped)

    @property
    def stands(self) -> bool:
        """Whether the lease was renewed in time, by this process's own clock."""
        return self._clock.monotonic() < self._valid_until

    def check(self) -> None:
        """Raises Fenced where the lease does not stand."""
        if not self.stands:
            raise Fenced("the lease was not renewed in time")

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, while the lease is renewed; raises Fenced, with the work cancelled, where it
        is lost."""
        working = asyncio.ensure_future(work)
        keeping = [asyncio.ensure_future(self._renew()), asyncio.ensure_future(self._expire())]
        try:
            await asyncio.wait([working, *keeping], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                for lost in keeping:
                    if lost.done():
                        lost.result()
            return await working
        finally:
            await ended(working, *keeping)

    async def release(self) -> None:
        """Frees the lease at once for other processes."""
        epoch, self._epoch = self._epoch, None
        self._valid_until = float("-inf")
        if epoch is not None:
            with suppress(StoreUnavailable):
                await self._row.release(epoch)

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(self._renewed_seconds)
            self.check()
            asked_at = self._clock.monotonic()
            try:
                stands = self._epoch is not None and await self._row.renew(self._epoch, self._seconds)
            except StoreUnavailable:
                continue  # the server may answer again before the lease expires
            if not stands:
                self._valid_until = float("-inf")
                raise Fenced("somebody else has the lease")
            self._lasts_from(asked_at)

    async def _expire(self) -> None:
        """Raises Fenced when the lease has expired, also while a renewal is not answered."""
        while True:
            self.check()
            await self._clock.sleep(max(self._valid_until - self._clock.monotonic(), 0.0))

    def _lasts_from(self, asked_at: float) -> None:
        self._valid_until = asked_at + self._seconds - self._margin_seconds


class PostgresLease(LeaseRow):
    """A row of a store's table `leases`. `name` is the role's: `relay`."""

    def __init__(self, url: str, schema: str, name: str) -> None:
        self._name = name
        self._held_by = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        table = sql.Identifier(schema, "leases")
        until = sql.SQL("clock_timestamp() + make_interval(secs => %s)")
        self._take = sql.SQL(
            "insert into {t} as l (name, held_by, epoch, expires_at) values (%s, %s, 1, {until})"
            " on conflict (name) do update set held_by = excluded.held_by, epoch = l.epoch + 1,"
            " expires_at = excluded.expires_at"
            " where l.expires_at <= clock_timestamp() or l.held_by = excluded.held_by returning epoch"
        ).format(t=table, until=until)
        self._renew = sql.SQL(
            "update {t} set expires_at = {until} where name = %s and held_by = %s and epoch = %s"
        ).format(t=table, until=until)
        self._release = sql.SQL(
            "update {t} set expires_at = clock_timestamp() where name = %s and held_by = %s and epoch = %s"
        ).format(t=table)
        self._connection = Reconnecting(url, writer_role(checked(schema)), STATEMENT_SECONDS_MAX)

    @override
    async def take(self, seconds: float) -> int | None:
        row = await (
            await self._connection.execute(self._take, (self._name, self._held_by, seconds))
        ).fetchone()
        return None if row is None else int(row[0])

    @override
    async def renew(self, epoch: int, seconds: float) -> bool:
        asked = await self._connection.execute(self._renew, (seconds, self._name, self._held_by, epoch))
        return asked.rowcount == 1

    @override
    async def release(self, epoch: int) -> None:
        await self._connection.execute(self._release, (self._name, self._held_by, epoch))

    async def close(self) -> None:
        """Closes the connection. The lease still lasts until its expiry."""
        await self._connection.close()
