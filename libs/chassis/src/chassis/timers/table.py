"""The timers of a context, beside its event store: one row for each subject, name and slot.

The rows and the position up to which events are folded are changed in one transaction, under the fence of the role's
lease. What was given stays in its row until the slot is set anew, so that folding again does not give it again. What
failed is given again once a later generation of the timers folds it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import msgspec
from psycopg import sql
from typing_extensions import override

from chassis.connections.reconnecting import Reconnecting
from chassis.timers.declaring import DATA_BYTES_MAX, SLOT_BYTES_MAX, Due, Setting
from chassis.write.store.items import Fenced
from chassis.write.store.schema import checked, writer_role

TIMERS_LEASE: Final = "timers"
STATEMENT_SECONDS_MAX: Final = 30.0
DONE: Final = "done"
"""The outcome of a command that was carried out; others are `refused: <code>` and `failed: <reason>`."""
DROPPED: Final = "dropped"
"""The outcome of a timer that failed and that an operator gave up. It is not given again, also by a later generation."""


class Folded(NamedTuple):
    """How far the events of a store are folded, and by which generation of the timers.

    `complete`: the generation has reached the head of the store once, and what an earlier one left is removed.
    """

    generation: str
    position: int
    complete: bool


class Given(NamedTuple):
    """What became of a due timer. `again_at`: when it is tried once more, where it has no outcome yet."""

    due: Due
    outcome: str | None
    again_at: datetime | None = None


class TimerTable(Protocol):
    """The timers of a context. Calls raise StoreUnavailable in doubt, and Fenced where `epoch` is not the lease's
    latest."""

    async def folded(self) -> Folded | None:
        """How far the events are folded; None where none was yet."""
        ...

    async def fold(self, epoch: int, folded: Folded, settings: Sequence[Setting]) -> None:
        """Keeps the changes of some events, at most one of each timer, with how far the events are folded then."""
        ...

    async def complete(self, epoch: int, folded: Folded) -> None:
        """Removes what an earlier generation set, and this one did not, and keeps that this is done."""
        ...

    async def due(self, now: datetime, limit: int) -> list[Due]:
        """The timers whose time has come, the longest due first. Where there are more than `limit`, each name that has any
        has an equal part of them, and what a name does not need the others have."""
        ...

    async def settle(self, epoch: int, now: datetime, given: Sequence[Given]) -> None:
        """Keeps what became of due timers; of a timer that was set anew meanwhile, nothing."""
        ...

    async def next_at(self) -> datetime | None:
        """When the next timer is due; None where there is none."""
        ...


class PostgresTimers(TimerTable):
    """The tables `timers` and `timer_folds` of a store."""

    def __init__(self, url: str, schema: str) -> None:
        names = {
            "t": sql.Identifier(checked(schema), "timers"),
            "f": sql.Identifier(schema, "timer_folds"),
            "fence": sql.SQL(
                "fence as materialized (select from {} where name = {} and epoch = %s for share)"
            ).format(sql.Identifier(schema, "leases"), sql.Literal(TIMERS_LEASE)),
        }

        def statement(text: str) -> sql.Composed:
            return sql.SQL(text).format(**names)  # type: ignore[arg-type, unused-ignore]

        self._folded = statement("select generation, position, complete from {f}")
        keep = (
            "insert into {f} (generation, position, complete) select %s, %s, %s from fence"
            " on conflict (one) do update set generation = excluded.generation, position = excluded.position,"
            " complete = excluded.complete"
        )
        self._fold = statement(
            "with {fence}, withdrawn as (delete from {t} as t using fence,"
            " unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[]) as w(subject, name, slot, position)"
            " where (t.subject, t.name, t.slot) = (w.subject, w.name, w.slot) and t.position < w.position),"
            " kept as (insert into {t} as t"
            " (subject, name, slot, cause, position, due_at, run_at, data, outcome, generation)"
            " select s.subject, s.name, s.slot, s.cause, s.position, s.due_at,"
            " case when s.outcome is null then s.due_at end, s.data, s.outcome, s.generation from fence,"
            " unnest(%s::uuid[], %s::text[], %s::text[], %s::uuid[], %s::bigint[], %s::timestamptz[], %s::text[],"
            " %s::text[], %s::text[]) as"
            " s(subject, name, slot, cause, position, due_at, data, outcome, generation)"
            " on conflict (subject, name, slot) do update set cause = excluded.cause,"
            " position = excluded.position, due_at = excluded.due_at, run_at = excluded.run_at,"
            " data = excluded.data, outcome = excluded.outcome, generation = excluded.generation, tries = 0,"
            " settled_at = null"
            " where excluded.position > t.position or (excluded.generation <> t.generation"
            " and (t.outcome is null or t.outcome like 'failed:%%')))" + keep
        )
        self._complete = statement(
            "with {fence}, gone as (delete from {t} using fence"
            " where (outcome is null or outcome like 'failed:%%') and generation <> %s)" + keep
        )
        self._due = statement(
            "with recursive names as ((select name from {t} where run_at is not null order by name limit 1)"
            " union all select (select t.name from {t} as t where t.run_at is not null and t.name > n.name"
            " order by t.name limit 1) from names as n where n.name is not null),"
            " longest as (select d.* from names as n cross join lateral ("
            " select t.*, row_number() over (order by t.run_at, t.subject, t.slot) as place from {t} as t"
            " where t.name = n.name and t.run_at <= %s order by t.run_at, t.subject, t.slot limit %s) as d"
            " order by d.place, d.run_at limit %s)"
            " select name, subject, slot, cause, position, due_at, data, tries from longest"
            " order by run_at, subject, name, slot"
        )
        self._settle = statement(
            "with {fence}, settled as (update {t} as t set outcome = g.outcome, run_at = g.again_at,"
            " tries = t.tries + 1, settled_at = %s from fence,"
            " unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::timestamptz[])"
            " as g(subject, name, slot, position, outcome, again_at)"
            " where (t.subject, t.name, t.slot, t.position) = (g.subject, g.name, g.slot, g.position)"
            " and t.run_at is not null)"
            " select from fence"
        )
        self._next = statement("select run_at from {t} where run_at is not null order by run_at limit 1")
        self._connection = Reconnecting(url, writer_role(schema), STATEMENT_SECONDS_MAX)

    @override
    async def folded(self) -> Folded | None:
        row = await (await self._connection.execute(self._folded, ())).fetchone()
        return None if row is None else Folded(*row)

    @override
    async def fold(self, epoch: int, folded: Folded, settings: Sequence[Setting]) -> None:
        withdrawn = [one for one in settings if one.set is None]
        kept = [(one, one.set) for one in settings if one.set is not None]
        columns = [
            [one.subject for one in withdrawn],
            [one.name for one in withdrawn],
            [one.slot for one in withdrawn],
            [one.position for one in withdrawn],
            [one.subject for one, _ in kept],
            [one.name for one, _ in kept],
            [one.slot for one, _ in kept],
            [one.cause for one, _ in kept],
            [one.position for one, _ in kept],
            [timer.due_at for _, timer in kept],
            [msgspec.json.encode(timer.data).decode() for _, timer in kept],
            [None if one.failed is None else f"failed: {one.failed}" for one, _ in kept],
            [folded.generation] * len(kept),
        ]
        await self._fenced(self._fold, epoch, *columns, *folded)

    @override
    async def complete(self, epoch: int, folded: Folded) -> None:
        await self._fenced(self._complete, epoch, folded.generation, *folded._replace(complete=True))

    @override
    async def due(self, now: datetime, limit: int) -> list[Due]:
        rows = await (await self._connection.execute(self._due, (now, limit, limit))).fetchall()
        return [
            Due._make((*row[:6], msgspec.json.decode(row[6], type=dict[str, str]), row[7])) for row in rows
        ]

    @override
    async def settle(self, epoch: int, now: datetime, given: Sequence[Given]) -> None:
        columns = [
            [one.due.subject for one in given],
            [one.due.name for one in given],
            [one.due.slot for one in given],
            [one.due.position for one in given],
            [one.outcome for one in given],
            [one.again_at for one in given],
        ]
        await self._fenced(self._settle, epoch, now, *columns)

    @override
    async def next_at(self) -> datetime | None:
        row = await (await self._connection.execute(self._next, ())).fetchone()
        return None if row is None else row[0]

    async def close(self) -> None:
        """Lets the connection go."""
        await self._connection.close()

    async def _fenced(self, statement: sql.Composed, epoch: int, *values: object) -> None:
        if (await self._connection.execute(statement, (epoch, *values))).rowcount == 0:
            raise Fenced(f"epoch {epoch} of the timers is over")


def checked_setting(setting: Setting) -> Setting:
    """The setting, if the table takes it; raises ValueError."""
    if setting.set is not None:
        if setting.set.due_at.tzinfo is None:
            raise ValueError("a due time without a time zone")
        if len(msgspec.json.encode(setting.set.data)) > DATA_BYTES_MAX:
            raise ValueError(f"the data of a timer has more than {DATA_BYTES_MAX} bytes")
    if len(setting.slot.encode()) > SLOT_BYTES_MAX or "\0" in setting.slot:
        raise ValueError(f"a slot has at most {SLOT_BYTES_MAX} bytes, and no NUL")
    return setting


def key_of(timer: Setting | Due) -> tuple[UUID, str, str]:
    """Subject, name and slot: what has one row."""
    return timer.subject, timer.name, timer.slot
