"""The store over one connection: every call is one round trip. Blocking; for one thread at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import dup
from socket import SHUT_RDWR, socket
from struct import pack, unpack_from
from threading import Timer
from typing import Any, Final
from uuid import UUID
from weakref import WeakSet

import psycopg
from psycopg import errors, pq, sql

from chassis.connections.postgres import STATEMENT_SECONDS_MAX, Connection, connect
from chassis.connections.transient import DATABASE_LOST, StoreUnavailable
from chassis.write.events import StoredEvent
from chassis.write.store import arrays
from chassis.write.store.items import (
    NIL,
    Append,
    Appended,
    AppendResult,
    CommandSeen,
    Fence,
    Fenced,
    IdentityConflict,
    VersionConflict,
    checked_sizes,
)
from chassis.write.store.schema import checked, writer_role

READ_EVENTS_MAX: Final = 10_000
"""The most events that one read returns. Read again after the last one for more."""

_PLAN_ONCE: Final = "set plan_cache_mode = force_generic_plan"
"""The statements look every row up by index, with any content of the arrays, so another planning finds no
better plan."""
_STORED, _VERSION_CONFLICT, _IDENTITY_CONFLICT = 0, 1, 2
_COLUMNS: Final = "stream_id, version, name, body, identity, position"
_APPEND: Final = b"append_events"
_APPEND_FENCED: Final = b"append_events_fenced"
_ARRAY_HEAD_BYTES: Final = 20


class Recorder:
    """Appends to and reads from one store, as the store's writer role; `as_login`: reads, with the rights of
    the login.

    A connection that broke is opened again by the next call; a call that was under way raises
    StoreUnavailable.
    """

    def __init__(
        self,
        url: str,
        schema: str,
        *,
        as_login: bool = False,
        statement_seconds: float = STATEMENT_SECONDS_MAX,
    ) -> None:
        self._url = url
        self._schema = schema
        self._statement_seconds = statement_seconds
        self._role = None if as_login else writer_role(checked(schema))
        names = {"s": sql.Identifier(schema), "c": sql.SQL(_COLUMNS)}  # type: ignore[arg-type, unused-ignore]
        self._connection: Connection | None = None
        self._prepared_on: WeakSet[Connection] = WeakSet()
        self._lent: Connection | None = None
        self.fence: Fence | None = None
        """Where one is set, appending raises Fenced once another holder has taken its lock."""

        def statement(text: str) -> bytes:
            return sql.SQL(text).format(**names).as_bytes(None)  # type: ignore[arg-type, unused-ignore]

        self._append_events = statement(
            "select {s}.append_events($1::uuid[], $2::int[], $3::text[], $4::bytea[], $5::uuid[], $6::bool)"
        )
        self._append_items = statement(
            "select * from {s}.append_items(%b::uuid[], %b::int[], %b::int[], %b::text[], %b::bytea[],"
            " %b::int[], %b::int[], %b::text[], %b::bytea[], %b::uuid[])"
        )
        # A sub-select that locks is not merged into the query around it, so the row is locked before anything is stored.
        held = "(select from {s}.fences where name = %s and epoch = %s for share) as held"
        self._append_events_fenced = statement(
            "select {s}.append_events($1::uuid[], $2::int[], $3::text[], $4::bytea[], $5::uuid[], $6::bool) from "
            + held % ("$7::text", "$8::int8")
        )
        self._append_items_fenced = statement(
            "select (stored.result).* from (select {s}.append_items(%b::uuid[], %b::int[], %b::int[], %b::text[],"
            " %b::bytea[], %b::int[], %b::int[], %b::text[], %b::bytea[], %b::uuid[]) as result from "
            + held % ("%b::text", "%b::int8")
            + " offset 0) as stored"
        )
        self._read_stream = statement(
            "select {c} from {s}.events where stream_id = %b and version > %b order by version limit %b"
        )
        self._read_streams = statement(
            "select {c} from unnest(%b::uuid[], %b::int[]) as w(id, after) join lateral"
            " (select * from {s}.events as e where e.stream_id = w.id and e.version > w.after offset 0) as f"
            " on true order by stream_id, version"
        )
        self._read_after = statement(
            "select {c} from {s}.events where position > %b order by position limit %b"
        )
        self._by_stream = (
            "select {c} from {s}.events where (stream_id, version) > (%b::uuid, %b::int) and name = any(%b::text[])"
            " and position <= %b::bigint order by stream_id, version limit {limit}"
        )
        self._head = statement("select coalesce(max(position), 0) from {s}.events")
        self._heads = statement(
            "select w.id, e.version from unnest(%b::uuid[]) as w(id) cross join lateral"
            " (select version from {s}.events where stream_id = w.id order by version desc limit 1) as e"
        )
        self._ends = statement(
            "select w.id, e.version, e.position from unnest(%b::uuid[]) as w(id) cross join lateral"
            " (select version, position from {s}.events where stream_id = w.id order by version desc limit 1) as e"
        )
        self._identities = statement(
            "select w.id from unnest(%b::uuid[]) as w(id)"
            " where exists (select from {s}.events as e where e.identity = w.id offset 0)"
        )
        self._by_identity = statement(
            "select {c} from unnest(%b::uuid[]) as w(id) cross join lateral"
            " (select * from {s}.events as e where e.identity = w.id limit 1) as f"
        )
        self._begun = (
            "select distinct b.stream_id from {s}.events as b where b.name = {begun} and b.stream_id > {after}"
            " and not exists (select from {s}.events as e where e.stream_id = b.stream_id and e.name in ({ended}))"
            " order by b.stream_id limit {limit}"
        )
        self._commands = statement(
            "select key, fingerprint, stream_id, version, event_count from {s}.commands where key = any(%b)"
        )
        self._prune_commands = statement("select {s}.prune_commands(%b, %b)")
        self._snapshots = statement(
            "select stream_id, version, position, body from {s}.snapshots"
            " where stream_id = any(%b::uuid[]) and kind = %b"
        )
        self._keep_snapshot = statement(
            "insert into {s}.snapshots as o (stream_id, kind, version, position, body)"
            " values (%b, %b, %b, %b, %b) on conflict (stream_id, kind) do update"
            " set version = excluded.version, position = excluded.position, body = excluded.body"
            " where o.version < excluded.version"
        )

    # writing

    def append_bulk(self, events: Sequence[StoredEvent], *, dense: bool = True) -> list[int]:
        """Stores all of them in one transaction, in this order; returns their positions.

        Raises VersionConflict where a version is taken or would leave a gap, IdentityConflict where an
        identity is taken, EventOversized where an event is too large; nothing is stored then.
        `dense=False` leaves gaps to the caller.
        """
        if not events:
            return []
        checked_sizes(events)
        columns = [column.data for column in _columns(events)]
        with self._translated():
            stored = self._append_at_once([*columns, b"\1" if dense else b"\0"])
        [count] = unpack_from(">i", stored, _ARRAY_HEAD_BYTES - 8)
        return list(unpack_from(">" + "4xq" * count, stored, _ARRAY_HEAD_BYTES))

    def _append_at_once(self, parameters: Sequence[bytes]) -> bytes:
        """Sends, waits and receives in one call of libpq, without the interpreter's lock.

        psycopg wakes up for every 200 KB that the socket takes. Each time it waits for the lock of an
        interpreter that is busy making the next batch. One event of a bulk append then took 20 us instead
        of 17.
        """
        connection, fence, name = self.connection(), self.fence, _APPEND
        libpq = connection.pgconn
        if connection not in self._prepared_on:
            _checked(connection, libpq.prepare(_APPEND, self._append_events))
            _checked(connection, libpq.prepare(_APPEND_FENCED, self._append_events_fenced))
            self._prepared_on.add(connection)
        if fence is not None:
            fence.check()
            name, parameters = _APPEND_FENCED, [*parameters, fence.name.encode(), pack(">q", fence.epoch)]
        formats = [pq.Format.BINARY] * len(parameters)
        watch = Timer(connection.answer_seconds, self.break_off)
        watch.daemon = True
        watch.start()
        try:
            result = libpq.exec_prepared(name, parameters, formats, pq.Format.BINARY)
        finally:
            watch.cancel()
        if not _checked(connection, result).ntuples:
            raise Fenced(f"{fence and fence.name}: its epoch is over")
        found = result.get_value(0, 0)
        if found is None:
            raise psycopg.InternalError("no positions were given")
        return found

    def append_items(self, items: Sequence[Append]) -> list[AppendResult]:
        """Stores many items in one transaction, each wholly or not at all; a refused item does not fail the
        others.

        Streams, identities and command keys of one call are distinct: the appender sees to it.
        """
        if not items:
            return []
        numbers = [n for n, item in enumerate(items, 1) for _ in item.events]
        events = [event for item in items for event in item.events]
        checked_sizes(events)
        commands = [item.command for item in items]
        fence = self.fence
        if fence is not None:
            fence.check()
        rows = self._execute(
            self._append_items if fence is None else self._append_items_fenced,
            (
                [item.stream_id for item in items],
                [item.first for item in items],
                [len(item.events) for item in items],
                [None if command is None else command.key for command in commands],
                [None if command is None else command.fingerprint for command in commands],
                numbers,
                *_columns(events)[1:],
                *(() if fence is None else (fence.name, fence.epoch)),
            ),
        )
        if not rows:
            raise Fenced(f"{fence and fence.name}: its epoch is over")
        [(statuses, heads, positions)] = rows
        drawn: Iterator[int] = iter(positions or ())
        results: list[AppendResult | None] = []
        for item, status, head in zip(items, statuses, heads, strict=True):
            if status == _STORED:
                results.append(Appended(tuple([next(drawn) for _ in item.events])))
            elif status == _VERSION_CONFLICT:
                results.append(VersionConflict(item.stream_id, head))
            elif status == _IDENTITY_CONFLICT:
                results.append(IdentityConflict(str(item.stream_id)))
            else:
                results.append(None)
        replayed = [c.key for c, result in zip(commands, results, strict=True) if c and result is None]
        seen = self.commands(replayed) if replayed else {}
        return [
            seen[item.command.key] if result is None and item.command else _given(result)
            for item, result in zip(items, results, strict=True)
        ]

    def append_together(self, items: Sequence[Append]) -> list[AppendResult]:
        """Stores all items in one transaction, or none: none where one of the results is not `Appended`.

        Streams, identities and command keys of one call are distinct.
        """
        results: list[AppendResult] = []
        with self._translated(), self.connection().transaction() as transaction:
            results = self.append_items(items)
            if not all(isinstance(result, Appended) for result in results):
                raise psycopg.Rollback(transaction)
        return results

    @contextmanager
    def within(self, connection: Connection) -> Iterator[None]:
        """What is appended meanwhile is part of the transaction that `connection` has open: stored with it, or not.

        The connection acts as a role that may append. Append last: until the transaction ends, nobody else appends.
        Where the connection is lost, appending raises StoreUnavailable, and nothing is stored.
        """
        arrays.register(connection)
        before, self._lent = self._lent, connection
        try:
            yield
        finally:
            self._lent = before

    # reading

    def read_stream(self, stream_id: UUID, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """Events of one stream beyond version `after`, at most `limit` (and at most `READ_EVENTS_MAX`)."""
        most = READ_EVENTS_MAX if limit is None else min(limit, READ_EVENTS_MAX)
        return _events(self._execute(self._read_stream, (stream_id, after, most)))

    def read_streams(self, after: dict[UUID, int]) -> dict[UUID, list[StoredEvent]]:
        """All events of several streams, each beyond its version in `after`."""
        found: dict[UUID, list[StoredEvent]] = {stream: [] for stream in after}
        rows = self._execute(self._read_streams, (list(after), list(after.values()))) if after else []
        for event in _events(rows):
            found[event.stream_id].append(event)
        return found

    def read_after(self, position: int, limit: int = 1000) -> list[StoredEvent]:
        """Events of all streams beyond `position`, in order; positions may have gaps that are never filled."""
        return _events(self._execute(self._read_after, (position, min(limit, READ_EVENTS_MAX))))

    def read_by_stream(
        self,
        names: Sequence[str],
        position: int,
        after: tuple[UUID, int] = (NIL, 0),
        limit: int = READ_EVENTS_MAX,
    ) -> list[StoredEvent]:
        """Events of these names up to a position, by stream and version, beyond a stream and a version of it."""
        # With the limit in the statement: without it the database plans for a tenth of all events, and sorts them.
        composed = sql.SQL(self._by_stream).format(  # type: ignore[arg-type, unused-ignore]
            s=sql.Identifier(self._schema),
            c=sql.SQL(_COLUMNS),
            limit=sql.Literal(min(limit, READ_EVENTS_MAX)),
        )
        return _events(self._execute(composed.as_bytes(None), (*after, list(names), position)))

    def head_position(self) -> int:
        """Position of the last event, 0 in an empty store."""
        position: int = self._execute(self._head, ())[0][0]
        return position

    def stream_heads(self, streams: Sequence[UUID]) -> dict[UUID, int]:
        """Version of the last event of each stream that has one."""
        return dict(self._execute(self._heads, (list(streams),))) if streams else {}

    def stream_ends(self, streams: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
        """Version and position of the last event of each stream that has one."""
        rows = self._execute(self._ends, (list(streams),)) if streams else []
        return {stream: (version, position) for stream, version, position in rows}

    def known_identities(self, identities: Sequence[UUID]) -> set[UUID]:
        """Returns those of the identities that are taken."""
        return (
            {row[0] for row in self._execute(self._identities, (list(identities),))} if identities else set()
        )

    def read_identities(self, identities: Sequence[UUID]) -> list[StoredEvent]:
        """The events that took these identities, in no order."""
        return _events(self._execute(self._by_identity, (list(identities),))) if identities else []

    def begun_not_ended(self, begun: str, ended: Sequence[str], limit: int, after: UUID = NIL) -> list[UUID]:
        """Streams with an event of the one name and none of the others, in the order of their ids from behind `after`.

        The schema has an index for the first name.
        """
        # With the names in the statement, which the partial indexes need.
        composed = sql.SQL(self._begun).format(  # type: ignore[arg-type, unused-ignore]
            s=sql.Identifier(self._schema),
            begun=sql.Literal(begun),
            ended=sql.SQL(", ").join(map(sql.Literal, ended)),
            after=sql.Literal(after),
            limit=sql.Literal(limit),
        )
        return [row[0] for row in self._execute(composed.as_bytes(None), ())]

    def open_streams(
        self, begun: str, ended: Sequence[str], streams_at_once: int
    ) -> Iterator[tuple[UUID, list[StoredEvent]]]:
        """All that `begun_not_ended` gives, each with its events; so many are in memory."""
        after = NIL
        while page := self.begun_not_ended(begun, ended, streams_at_once, after):
            yield from self.read_streams(dict.fromkeys(page, 0)).items()
            after = page[-1]

    def commands(self, keys: Sequence[str]) -> dict[str, CommandSeen]:
        """Returns the outcomes that are remembered under these command keys."""
        rows = self._execute(self._commands, (list(keys),)) if keys else []
        return {row[0]: CommandSeen(*row) for row in rows}

    def prune_commands(self, days_kept: int, limit: int) -> int:
        """Deletes at most `limit` commands that are older than so many days (at least one). Returns how many."""
        pruned: int = self._execute(self._prune_commands, (days_kept, limit))[0][0]
        return pruned

    # snapshots

    def snapshots(self, streams: Sequence[UUID], kind: str) -> dict[UUID, tuple[int, int, bytes]]:
        """Version, position and bytes of the snapshot of each stream that has one of this kind."""
        rows = self._execute(self._snapshots, (list(streams), kind)) if streams else []
        return {stream: (version, position, body) for stream, version, position, body in rows}

    def keep_snapshot(self, stream_id: UUID, kind: str, version: int, position: int, body: bytes) -> None:
        """Keeps a snapshot unless a newer one is there."""
        self._execute(self._keep_snapshot, (stream_id, kind, version, position, body))

    # connection

    def close(self) -> None:
        """Lets the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def break_off(self) -> None:
        """Ends a call in which another thread waits: that call raises StoreUnavailable."""
        connection = self._lent or self._connection
        if connection is None:
            return
        with suppress(OSError, psycopg.Error), socket(fileno=dup(connection.pgconn.socket)) as line:
            line.shutdown(SHUT_RDWR)

    @property
    def connected(self) -> bool:
        """Whether a connection is at hand; it may have been lost meanwhile."""
        return self._connection is not None

    def connection(self) -> Connection:
        """The connection, opened where needed; that of the caller's transaction within one."""
        if self._lent is not None:
            return self._lent
        if self._connection is None or self._connection.closed:
            connection = connect(
                self._url, role=self._role, statement_seconds=self._statement_seconds, prepare_threshold=0
            )
            arrays.register(connection)
            connection.execute(_PLAN_ONCE)
            self._connection = connection
        return self._connection

    def _execute(self, statement: bytes, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._translated():
            cursor = self.connection().execute(statement, parameters, binary=True)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translates errors of the driver into those of the store."""
        try:
            yield
        except errors.UniqueViolation as error:
            if error.diag.constraint_name == "events_identity":
                raise IdentityConflict(error.diag.constraint_name) from error
            raise VersionConflict from error
        except DATABASE_LOST as error:
            self._drop()
            raise StoreUnavailable(str(error)) from error

    def _drop(self) -> None:
        if self._lent is not None:
            return  # it is the caller's, who ends his transaction
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _checked(connection: "psycopg.Connection[Any]", result: "pq.abc.PGresult") -> "pq.abc.PGresult":
    if result.status in {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK}:
        return result
    if connection.pgconn.status != pq.ConnStatus.OK:
        raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
    raise errors.error_from_result(result)


def _columns(events: Sequence[StoredEvent]) -> tuple[arrays.Array, ...]:
    """Stream, version, name, body and identity of each event."""
    return (
        arrays.uuids([event.stream_id for event in events]),
        arrays.integers([event.version for event in events]),
        arrays.texts([event.name for event in events]),
        arrays.binaries([event.body for event in events]),
        arrays.uuids([event.identity for event in events]),
    )


def _events(rows: Sequence[tuple[Any, ...]]) -> list[StoredEvent]:
    return [StoredEvent(*row) for row in rows]


def _given(result: AppendResult | None) -> AppendResult:
    if result is None:
        raise RuntimeError("the store saw a command key that was not given")
    return result
