"""What of the notices of a context is due, beside its event store; how much may be sent; and the inboxes of staff.

The rows are folded from the events, together with the position up to which they are, under the fence of the role's
lease. How often and when a notice was tried is known to its row alone. Limits are kept on the database's clock, so
several processes and a restart keep them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from psycopg import AsyncCursor, sql
from typing_extensions import override

from chassis.connections.reconnecting import Reconnecting
from chassis.notices.deciding import Channel
from chassis.write.store.items import Fenced
from chassis.write.store.schema import checked, writer_role

NOTICES_LEASE: Final = "notices"
STATEMENT_SECONDS_MAX: Final = 10.0
REASON_CHARACTERS_MAX: Final = 200
PRUNED_AT_ONCE: Final = 1_000


class Requested(NamedTuple):
    """A request as the table keeps it."""

    id: UUID
    position: int
    subject: UUID
    channel: Channel
    requested_at: datetime
    expires_at: datetime
    inbox: str | None


class Folded(NamedTuple):
    """What some events say, and the position of the last of them."""

    position: int
    requested: Sequence[Requested]
    settled: Sequence[UUID]
    read: Sequence[tuple[UUID, str]]


class Due(NamedTuple):
    """A notice that is to be tried now."""

    id: UUID
    channel: Channel
    subject: UUID
    tries: int
    expires_at: datetime


class Later(NamedTuple):
    """A notice that is tried again."""

    id: UUID
    run_at: datetime
    tries: int
    reason: str


class Limit(NamedTuple):
    """At most so many in so many seconds; as many at once after a pause."""

    most: int
    seconds: float


class NoticeTable(Protocol):
    """The queue and the limits, as the loop uses them. Calls raise StoreUnavailable in doubt, and Fenced where `epoch`
    is not the lease's latest."""

    async def position(self) -> int:
        """The position up to which events are folded."""
        ...

    async def fold(self, epoch: int, folded: Folded) -> None:
        """Keeps what events say. The same events again change nothing."""
        ...

    async def due(self, now: datetime, free: Mapping[Channel, int]) -> list[Due]:
        """The notices that are due longest, at most so many of each channel."""
        ...

    async def later(self, epoch: int, later: Later) -> None:
        """Keeps when a notice is tried again."""
        ...

    async def done(self, id: UUID) -> None:
        """Nothing is left to send of a notice."""
        ...

    async def take(self, key: str, limit: Limit) -> float:
        """Takes one from a limit; the seconds to wait where there is none to take."""
        ...

    async def next_at(self, channels: Sequence[Channel]) -> datetime | None:
        """When the next notice of these channels is due."""
        ...

    async def prune(self, epoch: int, before: datetime) -> bool:
        """Takes notices that were requested earlier out of the inboxes, and limits that hold nothing back, some of each;
        whether there may be more."""
        ...


class PostgresNotices(NoticeTable):
    """The tables `notices`, `notice_reads`, `notice_limits` and `notice_folds` of a store."""

    def __init__(self, url: str, schema: str) -> None:
        names = {
            "n": sql.Identifier(checked(schema), "notices"),
            "r": sql.Identifier(schema, "notice_reads"),
            "l": sql.Identifier(schema, "notice_limits"),
            "f": sql.Identifier(schema, "notice_folds"),
            "fence": sql.SQL(
                "fence as materialized (select from {} where name = {} and epoch = %s for share)"
            ).format(sql.Identifier(schema, "leases"), sql.Literal(NOTICES_LEASE)),
        }

        def statement(text: str) -> sql.Composed:
            return sql.SQL(text).format(**names)  # type: ignore[arg-type, unused-ignore]

        self._position = statement("select position from {f}")
        self._fold = statement(
            "with {fence}, kept as (insert into {n} (id, position, subject, channel, requested_at, expires_at, inbox, run_at)"
            " select q.*, case when q.inbox is null then q.requested_at end from fence,"
            " unnest(%s::uuid[], %s::bigint[], %s::uuid[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::text[])"
            " as q(id, position, subject, channel, requested_at, expires_at, inbox) on conflict (id) do nothing),"
            " settled as (delete from {n} using fence where id = any(%s) and inbox is null),"
            " reading as (insert into {r} (notice, reader) select m.* from fence,"
            " unnest(%s::uuid[], %s::text[]) as m(notice, reader) on conflict do nothing)"
            " insert into {f} (position) select %s from fence"
            " on conflict (one) do update set position = excluded.position"
        )
        self._due = statement(
            "select d.* from unnest(%s::text[], %s::integer[]) as c(channel, free) cross join lateral ("
            "select id, channel, subject, tries, expires_at from {n} where channel = c.channel and run_at <= %s"
            " order by run_at, id limit c.free) as d"
        )
        self._later = statement(
            "with {fence}, moved as (update {n} set run_at = %s, tries = %s, reason = %s from fence"
            " where id = %s and run_at is not null) select from fence"
        )
        self._done = statement("delete from {n} where id = %s and inbox is null")
        self._take = statement(
            "with taken as (insert into {l} as l (key, free_at) values (%s, clock_timestamp() + %s)"
            " on conflict (key) do update set free_at = greatest(l.free_at, clock_timestamp()) + %s"
            " where l.free_at <= clock_timestamp() + %s returning key)"
            " select case when exists (select from taken) then 0 else greatest(0.001, coalesce(extract(epoch from"
            " (select free_at from {l} where key = %s) - clock_timestamp() - %s), 0)) end"
        )
        self._next = statement(
            "select min(d.run_at) from unnest(%s::text[]) as c(channel) cross join lateral ("
            "select run_at from {n} where channel = c.channel and run_at is not null order by run_at limit 1) as d"
        )
        self._oldest = statement("select min(requested_at) from {n} where run_at is not null")
        self._prune = statement(
            "with {fence}, old as materialized (select id from {n}, fence where inbox is not null and requested_at < %s"
            f" limit {PRUNED_AT_ONCE}), gone as (delete from {{n}} using old where {{n}}.id = old.id),"
            " unread as (delete from {r} using old where notice = old.id),"
            " free as materialized (select key from {l}, fence where free_at < clock_timestamp()"
            f" limit {PRUNED_AT_ONCE}), spent as (delete from {{l}} using free"
            " where {l}.key = free.key and free_at < clock_timestamp())"
            " select greatest((select count(*) from old), (select count(*) from free)) from fence"
        )
        self._connection = Reconnecting(url, writer_role(schema), STATEMENT_SECONDS_MAX)

    @override
    async def position(self) -> int:
        row = await (await self._connection.execute(self._position, ())).fetchone()
        return 0 if row is None else int(row[0])

    @override
    async def fold(self, epoch: int, folded: Folded) -> None:
        columns = [[one[at] for one in folded.requested] for at in range(len(Requested._fields))]
        reads = [[one[at] for one in folded.read] for at in range(2)]
        await self._fenced(self._fold, epoch, *columns, list(folded.settled), *reads, folded.position)

    @override
    async def due(self, now: datetime, free: Mapping[Channel, int]) -> list[Due]:
        asked = list(free), list(free.values()), now
        return [Due._make(row) for row in await (await self._connection.execute(self._due, asked)).fetchall()]

    @override
    async def later(self, epoch: int, later: Later) -> None:
        reason = later.reason[:REASON_CHARACTERS_MAX]
        await self._fenced(self._later, epoch, later.run_at, later.tries, reason, later.id)

    @override
    async def done(self, id: UUID) -> None:
        await self._connection.execute(self._done, (id,))

    @override
    async def take(self, key: str, limit: Limit) -> float:
        each = timedelta(seconds=limit.seconds / limit.most)
        at_once = each * (limit.most - 1)
        row = await (
            await self._connection.execute(self._take, (key, each, each, at_once, key, at_once))
        ).fetchone()
        return 0.0 if row is None else float(row[0])

    @override
    async def next_at(self, channels: Sequence[Channel]) -> datetime | None:
        row = await (await self._connection.execute(self._next, (list(channels),))).fetchone()
        return None if row is None else row[0]

    @override
    async def prune(self, epoch: int, before: datetime) -> bool:
        pruned = await (await self._fenced(self._prune, epoch, before)).fetchone()
        return pruned is not None and pruned[0] == PRUNED_AT_ONCE

    async def oldest(self) -> datetime | None:
        """When the oldest notice was requested that no provider has yet."""
        row = await (await self._connection.execute(self._oldest, ())).fetchone()
        return None if row is None else row[0]

    async def close(self) -> None:
        """Lets the connection go."""
        await self._connection.close()

    async def _fenced(self, statement: sql.Composed, epoch: int, *values: object) -> AsyncCursor[Any]:
        ran = await self._connection.execute(statement, (epoch, *values))
        if ran.rowcount == 0:
            raise Fenced(f"epoch {epoch} of the notices is over")
        return ran
