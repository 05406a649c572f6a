"""Ingest's own tables beside the event store: raw intakes, quarantine entries, certificates and certified
balances.

The events are the system of record. The tables hold either raw bytes (intakes) or data that can be rebuilt
from events. Every write is idempotent, so it may be repeated after a crash.
"""

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from hashlib import sha256
from itertools import count
from operator import attrgetter
from typing import Any, BinaryIO, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from chassis.connections.migrating import Tables
from chassis.connections.postgres import connect
from chassis.connections.transient import Transient
from chassis.process.locks import IN_TRANSACTION_SECONDS_MAX, LockBusy, LockFence, Locks
from chassis.write.deciding import Refusal
from chassis.write.store import Command, writer_role
from contracts.identity import ExternalIds
from psycopg import sql
from typing_extensions import override

from sync_ingest.domain.identities import ContentId, IntakeId, QuarantineId, content_id, intake_id
from sync_ingest.domain.records import masked_file
from sync_ingest.domain.totals import AccountTotal, Flow, Purse

STORE_SCHEMA: Final = "store_ingest"
CHUNK_BYTES: Final = 1 << 20
INTAKE_BYTES_MAX: Final = 64 << 30
PASSES_MAX: Final = 3
"""How often a file that changed while it was read is read again."""
LOCK_WAIT_SECONDS_MAX: Final = 60
PAGE_MAX: Final = 200
SUMS_AT_ONCE: Final = 2_000
SAME_ROW_MAX: Final = 1_000
"""The most entries of one row that are resolved with it."""

QuarantineStatus = Literal["waiting", "released", "dismissed"]
SealPart = Callable[[ContentId, str, bytes], bytes]
OpenPart = Callable[[ContentId, str, bytes], bytes]
"""Seals and opens a part of an intake: a chunk of its bytes by its number, or its `NAME`."""
NAME: Final = "name"


class SourceBusy(Refusal, Transient):
    """Another run of this source holds its lock; one run at a time keeps its certificate exact."""

    code = "source-busy"
    title = "Another run of this source is under way"
    title_zh = "该来源的另一次处理正在进行"


class FeedChanging(Refusal):
    """The file was written to while it was read. No part of it is kept."""

    code = "feed-changing"
    title = "The file changes while it is read"
    title_zh = "读取期间文件仍在变化"


class IntakeOversized(Refusal):
    """More bytes than one intake may have."""

    code = "intake-oversized"
    status = 413
    title = "The feed is larger than one intake may be"
    title_zh = "数据文件超过单次接收上限"


@dataclass(frozen=True, slots=True)
class Intake:
    """Bytes as they came: where from, how large, how to read them, and whether a certificate covers them.

    `content` is what its bytes are kept under; another reading of them is another intake. `set_aside` is
    the reason why booking them broke; no later run waits for them then, until they come again. `repairs`
    is the quarantine entry that they are the repair of. `request` and `fingerprint` are those of the
    command that brought them, so that whoever finishes what a crash left open answers it. `again` is the
    certified intake of the same bytes that they are read once more for, because more of them can be booked
    now.
    """

    id: IntakeId
    content: ContentId
    source: str
    sha256: bytes
    name_sealed: bytes | None
    format: str
    mapping: str | None
    size_bytes: int
    received_at: datetime
    certified: bool
    set_aside: str | None = None
    repairs: QuarantineId | None = None
    request: str | None = None
    fingerprint: bytes | None = None
    again: IntakeId | None = None

    @property
    def command(self) -> Command | None:
        """The command that brought them."""
        if self.request is None or self.fingerprint is None:
            return None
        return Command(self.request, self.fingerprint)


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """One record, or one file, that could not be posted; `raw` is sealed.

    `row` is the same in every file that has it.

    The name of its file is that of its intake.
    """

    id: QuarantineId
    source: str
    intake: IntakeId
    line: int
    column: str | None
    reason: str
    detail: str
    raw_sealed: str
    quarantined_at: datetime
    status: QuarantineStatus
    kind: str | None = None
    whole_file: bool = False
    row: UUID | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A repair that waits for a second person; `repaired` is sealed, `amounts_minor` are absolute sums by
    currency."""

    entry: QuarantineId
    repair: UUID
    repaired: bytes
    records: int
    amounts_minor: dict[str, int]
    proposed_by: str
    reason: str
    proposed_at: datetime


class Contradiction(NamedTuple):
    """Figures of a source that contradict each other; `scope` is what they are found again under.

    `certificate` is the first one that names it.
    """

    id: UUID
    kind: str
    scope: str
    code: str
    account: UUID | None
    currency: str | None
    expected: int
    found: int
    detail: str | None
    certificate: UUID | None = None


class Statement(NamedTuple):
    """Control totals that came beside a batch and are not checked yet: sealed, with the intakes that came of
    it so far."""

    number: int
    intakes: tuple[IntakeId, ...]
    sealed: bytes


class Contradictions(NamedTuple):
    """What a look at some figures found, and what it found to be resolved."""

    found: Sequence[Contradiction] = ()
    gone: Collection[UUID] = ()


def bounded(figure: int) -> int:
    """A figure as far as the database can hold it; only what was never booked can be larger."""
    return max(-(2**63), min(2**63 - 1, figure))


SCHEMA_SQL: Final = """
create table if not exists {schema}.intakes (
    id uuid primary key, source text not null, sha256 bytea not null, name_sealed bytea, format text not null,
    mapping text, size_bytes bigint not null, received_at timestamptz not null, certificate uuid,
    set_aside text, repairs uuid, request text, fingerprint bytea, number bigint generated always as identity);
alter table {schema}.intakes add column if not exists repairs uuid,
    add column if not exists request text, add column if not exists fingerprint bytea,
    add column if not exists again uuid;
create index if not exists intakes_open on {schema}.intakes (source)
    where certificate is null and set_aside is null;
create index if not exists intakes_bytes on {schema}.intakes (source, sha256);
create table if not exists {schema}.intake_chunks (
    content uuid not null, number int not null, sealed bytea not null, primary key (content, number));
create table if not exists {schema}.statements (
    number bigint generated always as identity primary key, source text not null, intakes uuid[] not null,
    sealed bytea not null);
create index if not exists statements_of on {schema}.statements (source);
create table if not exists {schema}.quarantine (
    id uuid primary key, source text not null, intake uuid not null, line bigint not null,
    "column" text, reason text not null, detail text not null, raw_sealed text not null,
    quarantined_at timestamptz not null, status text not null default 'waiting', kind text,
    whole_file boolean not null default false, "row" uuid, number bigint generated always as identity);
alter table {schema}.quarantine add column if not exists kind text,
    add column if not exists whole_file boolean not null default false, add column if not exists "row" uuid;
create index if not exists quarantine_rows on {schema}.quarantine ("row") where "row" is not null;
create table if not exists {schema}.proposals (
    entry uuid primary key, repair uuid not null, repaired bytea not null, records int not null,
    amounts_minor jsonb not null, proposed_by text not null, reason text not null, proposed_at timestamptz not null);
create index if not exists quarantine_waiting on {schema}.quarantine (source, number);
create index if not exists quarantine_intakes on {schema}.quarantine (intake) where status = 'waiting';
create index if not exists intakes_repairs on {schema}.intakes (source) where repairs is not null;
create table if not exists {schema}.certificates (
    id uuid primary key, source text not null, certified_at timestamptz not null, status text not null,
    findings bytea not null, number bigint generated always as identity);
create index if not exists certificates_latest on {schema}.certificates (source, number desc);
create table if not exists {schema}.certified_balances (
    account uuid not null, currency text not null, balance_minor bigint not null, source text not null,
    primary key (account, currency));
create table if not exists {schema}.descriptions (subject uuid primary key, revision int not null, digest text not null);
create table if not exists {schema}.awaited_originals (
    quarantine uuid primary key, source text not null, original uuid not null);
create index if not exists awaited_originals_of on {schema}.awaited_originals (source);
create table if not exists {schema}.source_names (look text primary key, name text not null);
drop table if exists {schema}.requests;
"""
TOTALS_SQL: Final = """
drop table if exists {schema}.certified_balances;
create table if not exists {schema}.account_totals (
    account uuid not null, currency text not null, source text not null, version int not null,
    postings bigint not null, credits_minor bigint not null, debits_minor bigint not null,
    certified_postings bigint not null, certified_credits_minor bigint not null, certified_debits_minor bigint not null,
    last_on date, printed bigint not null, within bigint not null, beyond bigint not null, uncompared bigint not null,
    drift_minor bigint not null, off_minor bigint not null, largest_minor bigint not null,
    primary key (account, currency)) with (fillfactor = 80);
create index if not exists intakes_uncertified on {schema}.intakes (source) where certificate is null;
create index if not exists account_totals_open on {schema}.account_totals (source)
    where postings <> certified_postings;
create table if not exists {schema}.account_days (
    account uuid not null, currency text not null, day date not null, body bytea not null,
    primary key (account, currency, day));
create table if not exists {schema}.turnovers (
    source text not null, currency text not null, turnover_minor bigint not null, primary key (source, currency));
create table if not exists {schema}.number_series (
    source text not null, scope text not null, body bytea not null, primary key (source, scope));
create table if not exists {schema}.contradictions (
    id uuid primary key, source text not null, kind text not null, scope text not null, code text not null,
    account uuid, currency text, expected bigint not null, found bigint not null, detail text,
    status text not null, certificate uuid, number bigint generated always as identity);
create index if not exists contradictions_standing on {schema}.contradictions (source, kind, account)
    where status <> 'resolved';
create table if not exists {schema}.schedules (source text primary key, every_seconds bigint not null);
"""
"""Tables folded from the events. Where they are empty, the next run of an account folds it from the
beginning."""
COUNTS_SQL: Final = """
create index if not exists intakes_latest on {schema}.intakes (source, number desc);
create table if not exists {schema}.source_counts (
    source text primary key, posted bigint not null, duplicates bigint not null, quarantined bigint not null);
insert into {schema}.source_counts
select source, sum((f ->> 'posted')::bigint), sum((f ->> 'duplicates')::bigint), sum((f ->> 'quarantined')::bigint)
from (select source, convert_from(findings, 'UTF8')::jsonb as f from {schema}.certificates) as c
group by source on conflict do nothing;
"""
"""Sums over the certificates of a source, for monitoring."""
NAMES_SQL: Final = """
alter table {schema}.intakes add column if not exists name_sealed bytea;
do $body$ begin
    update {schema}.intakes set name = '';
    alter table {schema}.intakes drop column name;
exception when undefined_column then null;
end $body$;
do $body$ begin
    update {schema}.quarantine set file = '';
    alter table {schema}.quarantine drop column file;
exception when undefined_column then null;
end $body$;
update {schema}.contradictions set detail = regexp_replace(detail, ', .*:[0-9]+$', '')
    where kind = 'control' and detail ~ ', .*:[0-9]+$';
update {schema}.certificates as c set findings = convert_to(jsonb_set(f.f, '{{problems}}', (
        select jsonb_agg(case when p ->> 'detail' ~ ', .*:[0-9]+$'
            then p || jsonb_build_object('detail', regexp_replace(p ->> 'detail', ', .*:[0-9]+$', '')) else p end)
        from jsonb_array_elements(f.f -> 'problems') as p))::text, 'UTF8')
    from (select id, convert_from(findings, 'UTF8')::jsonb as f from {schema}.certificates) as f
    where f.id = c.id and jsonb_path_exists(f.f, '$.problems[*].detail ? (@ like_regex ", .*:[0-9]+$")');
"""
"""Names of files were in clear here. They are blanked, since this step knows no keys: later names are sealed.

A column that is dropped keeps its bytes in old rows, so it is emptied first; they go with the next vacuum.
"""
PARTIAL_SUMS_SQL: Final = """
create unlogged table if not exists {schema}.partial_sums (
    source text not null, run bigint not null, kind text not null, account uuid not null, body bytea not null);
create index if not exists partial_sums_of on {schema}.partial_sums (source, run, kind, account);
"""
"""Partial sums of runs that are under way. A crash of the server may empty it: its runs end with it."""
TABLES: Final = Tables(
    "ingest",
    "ingest",
    writer_role(STORE_SCHEMA),
    (SCHEMA_SQL, TOTALS_SQL, COUNTS_SQL, NAMES_SQL, PARTIAL_SUMS_SQL),
)
"""Ingest's own tables, for `migrate`; the role of its event store may read and write them."""


class Archive:
    """One connection to ingest's tables; not shared between threads."""

    def __init__(
        self, connection: "psycopg.Connection[Any]", locks: Locks, ids: ExternalIds, schema: str = "ingest"
    ) -> None:
        self._connection = connection
        self._locks = locks
        self._ids = ids
        self._schema = sql.Identifier(schema)
        self._fence: LockFence | None = None
        self._runs = count()
        self._partial_sums_of: str | None = None
        """The source that is locked and has partial sums."""

    @classmethod
    @contextmanager
    def connect(
        cls,
        url: str,
        ids: ExternalIds,
        monotonic: Callable[[], float],
        schema: str = "ingest",
        *,
        lock_wait_seconds_max: int = LOCK_WAIT_SECONDS_MAX,
    ) -> Iterator["Archive"]:
        """Opens the tables, which `migrate` made."""
        locks = Locks(url, STORE_SCHEMA, monotonic, wait_seconds_max=lock_wait_seconds_max)
        with (
            closing(locks),
            connect(url, role=TABLES.role, statement_seconds=2 * LOCK_WAIT_SECONDS_MAX) as connection,
        ):
            connection.execute(
                sql.SQL("set idle_in_transaction_session_timeout = {}").format(
                    sql.Literal(f"{IN_TRANSACTION_SECONDS_MAX:.0f}s")
                )
            )
            yield cls(connection, locks, ids, schema)

    @contextmanager
    def locked(self, source: str, command: Command | None = None) -> Iterator[LockFence]:
        """Holds the source's run lock, and that of a command's key before it: a key never runs twice at once.

        From when another run has the lock nothing more is stored here, and the fence says so to the event
        store. Raises SourceBusy after `lock_wait_seconds_max` for either.
        """
        with ExitStack() as stack:
            try:
                if command is not None:
                    stack.enter_context(self._locks.held(f"ingest command {command.key}"))
                fence = stack.enter_context(self._locks.fenced(f"ingest run {source}"))
            except LockBusy:
                raise SourceBusy(source) from None
            self._fence = fence
            stack.callback(self._unfenced)
            yield fence
            if self._partial_sums_of is not None:
                self._write("delete from {s}.partial_sums where source = %s", (source,))

    def _unfenced(self) -> None:
        self._fence = self._partial_sums_of = None

    # partial sums

    def partial_sums(self, source: str) -> "ArchivedSums":
        """A place for the partial sums of one run. The source must be locked while it is used."""
        return ArchivedSums(self, source, next(self._runs))

    def store_sums(self, source: str, run: int, kind: str, rows: Iterable[tuple[UUID, bytes]]) -> None:
        """Stores partial sums. The first ones under a lock replace those that a crash left of the source."""
        with self._writing():
            if self._partial_sums_of is None:
                self._execute("delete from {s}.partial_sums where source = %s", (source,))
            statement = "copy {s}.partial_sums (source, run, kind, account, body) from stdin (format binary)"
            with self._connection.cursor() as cursor, cursor.copy(self._sql(statement)) as copy:
                copy.set_types(["text", "int8", "text", "uuid", "bytea"])
                for account, body in rows:
                    copy.write_row((source, run, kind, account, body))
        self._partial_sums_of = source

    def stored_sums(self, source: str, run: int, kind: str) -> Iterator[tuple[UUID, bytes]]:
        """Partial sums in the order of accounts, by a cursor of the server that outlasts its transaction."""
        name = f"partial_sums_{next(self._runs)}"
        with self._connection.cursor(name, binary=True, withhold=True) as cursor:
            cursor.itersize = SUMS_AT_ONCE
            cursor.execute(
                self._sql(
                    "select account, body from {s}.partial_sums where source = %s and run = %s and kind = %s"
                    " order by account"
                ),
                (source, run, kind),
            )
            yield from cursor

    def stored_sums_of(
        self, source: str, run: int, kind: str, accounts: Sequence[UUID]
    ) -> list[tuple[Any, ...]]:
        """Partial sums of these accounts: account and sum."""
        return self._rows(
            "select account, body from {s}.partial_sums"
            " where source = %s and run = %s and kind = %s and account = any(%s)",
            (source, run, kind, list(accounts)),
        )

    def accounts_of_sums(self, source: str, run: int, kind: str) -> int:
        """The number of accounts with partial sums."""
        return int(
            self._row(
                "select count(distinct account) from {s}.partial_sums"
                " where source = %s and run = %s and kind = %s",
                (source, run, kind),
            )[0]
        )

    # intakes

    def take_in(
        self,
        source: str,
        name: str,
        content: BinaryIO,
        *,
        format: str,
        mapping: str | None,
        reading: str,
        received_at: datetime,
        seal: SealPart,
        command: Command | None = None,
        repairs: QuarantineId | None = None,
        statement: int | None = None,
    ) -> Intake:
        """Keeps the bytes, sealed chunk by chunk, before they are read. The same bytes are kept once.

        `statement`: the control totals beside the batch that these bytes are of, by their number.

        The same bytes to be read in another way are another intake of the same content. A first pass says
        whether they are known; what is kept is hashed once more while it is kept, and only under the hash
        of its own bytes. Raises IntakeOversized, and FeedChanging where no two passes give the same bytes.
        """
        digest, size = _hashed(name, content)
        for _ in range(PASSES_MAX):
            intake = intake_id(self._ids, source, digest, reading)
            known = self.intake(intake)
            if known is not None:
                with self._writing():
                    self._state_of(statement, intake)
                return known
            kept = content_id(self._ids, source, digest)
            fresh = Intake(
                intake,
                kept,
                source,
                digest,
                seal(kept, NAME, name.encode()),
                format,
                mapping,
                size,
                received_at,
                certified=False,
                repairs=repairs,
                request=command.key if command else None,
                fingerprint=command.fingerprint if command else None,
            )
            try:
                with self._writing():
                    if not self._intakes("where source = %s and sha256 = %s limit 1", (source, digest)):
                        content.seek(0)
                        found = _hashed(name, content, partial(self._keep, fresh.content, seal))
                        if found != (digest, size):
                            raise _Changed(found)
                    self._execute(
                        "insert into {s}.intakes (id, source, sha256, name_sealed, format, mapping, size_bytes,"
                        " received_at, repairs, request, fingerprint)"
                        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                        (
                            intake,
                            source,
                            digest,
                            fresh.name_sealed,
                            format,
                            mapping,
                            size,
                            received_at,
                            repairs,
                            fresh.request,
                            fresh.fingerprint,
                        ),
                    )
                    self._state_of(statement, intake)
            except _Changed as changed:
                digest, size = changed.found
            else:
                return fresh
        raise FeedChanging(masked_file(name))

    def _state_of(self, statement: int | None, intake: IntakeId) -> None:
        if statement is not None:
            self._execute(
                "update {s}.statements set intakes = array_append(intakes, %s) where number = %s",
                (intake, statement),
            )

    def state(self, source: str, sealed: bytes) -> int:
        """Keeps control totals beside a batch, of which nothing has been taken in yet; their number."""
        with self._writing():
            return int(
                self._row(
                    "insert into {s}.statements (source, intakes, sealed) values (%s, '{{}}', %s)"
                    " returning number",
                    (source, sealed),
                )[0]
            )

    def statements(self, source: str) -> list[Statement]:
        """Control totals beside batches of a source that are not checked yet, the oldest first."""
        rows = self._rows(
            "select number, intakes, sealed from {s}.statements where source = %s order by number", (source,)
        )
        return [Statement(number, tuple(intakes), bytes(sealed)) for number, intakes, sealed in rows]

    def checked(self, statements: Sequence[int]) -> None:
        """Forgets control totals beside batches: they are checked, or nothing came of their batch."""
        self._write("delete from {s}.statements where number = any(%s)", (list(statements),))

    def take_in_again(
        self, intake: Intake, identity: IntakeId, received_at: datetime, command: Command | None
    ) -> Intake:
        """The bytes of a certified intake as another intake, which brings what of them can be booked now."""
        fresh = replace(
            intake,
            id=identity,
            received_at=received_at,
            certified=False,
            request=command.key if command else None,
            fingerprint=command.fingerprint if command else None,
            again=intake.id,
        )
        self._write(
            "insert into {s}.intakes (id, source, sha256, name_sealed, format, mapping, size_bytes, received_at, request,"
            " fingerprint, again) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                fresh.id,
                fresh.source,
                fresh.sha256,
                fresh.name_sealed,
                fresh.format,
                fresh.mapping,
                fresh.size_bytes,
                fresh.received_at,
                fresh.request,
                fresh.fingerprint,
                fresh.again,
            ),
        )
        return fresh

    def waiting_lines(self, intake: IntakeId) -> frozenset[int]:
        """The lines of an intake of which entries wait."""
        rows = self._rows(
            "select line from {s}.quarantine where intake = %s and status = 'waiting'", (intake,)
        )
        return frozenset(row[0] for row in rows)

    def _keep(self, content: ContentId, seal: SealPart, number: int, chunk: bytes) -> None:
        sealed = seal(content, str(number), chunk)
        self._execute("insert into {s}.intake_chunks values (%s, %s, %s)", (content, number, sealed))

    def intake(self, intake: IntakeId) -> Intake | None:
        """The intake of that id, if it was kept."""
        rows = self._intakes("where id = %s", (intake,))
        return rows[0] if rows else None

    def intakes(self, ids: Sequence[IntakeId]) -> dict[IntakeId, Intake]:
        """The intakes among `ids` that were kept."""
        return {intake.id: intake for intake in self._intakes("where id = any(%s)", (list(ids),))}

    def open_intakes(self, source: str) -> list[Intake]:
        """Intakes that no certificate covers yet, oldest first."""
        return self._intakes(
            "where source = %s and certificate is null and set_aside is null order by number", (source,)
        )

    def sources_with_open(self, format: str) -> list[str]:
        """Sources with an intake of `format` that no certificate covers yet."""
        return [
            row[0]
            for row in self._rows(
                "select distinct source from {s}.intakes"
                " where certificate is null and set_aside is null and format = %s order by source",
                (format,),
            )
        ]

    def set_aside(self, intakes: Sequence[IntakeId], reason: str | None) -> None:
        """Records why booking these intakes failed, or that it no longer does."""
        self._write("update {s}.intakes set set_aside = %s where id = any(%s)", (reason, list(intakes)))

    def discard(self, intakes: Sequence[Intake]) -> None:
        """Removes intakes from which nothing was booked, and their bytes where no other intake reads them."""
        with self._writing():
            self._execute("delete from {s}.intakes where id = any(%s)", ([intake.id for intake in intakes],))
            for intake in intakes:
                if not self._intakes(
                    "where source = %s and sha256 = %s limit 1", (intake.source, intake.sha256)
                ):
                    self._execute("delete from {s}.intake_chunks where content = %s", (intake.content,))

    def _intakes(self, where: str, values: tuple[object, ...]) -> list[Intake]:
        columns = (
            "id, source, sha256, name_sealed, format, mapping, size_bytes, received_at, certificate is not null,"
            " set_aside, repairs, request, fingerprint, again"
        )
        rows = self._rows(f"select {columns} from {{s}}.intakes {where}", values)
        return [Intake(row[0], content_id(self._ids, row[1], row[2]), *row[1:]) for row in rows]

    def read(self, intake: Intake, open_chunk: OpenPart) -> BinaryIO:
        """The bytes as they came; chunks are fetched one by one."""

        def chunk(number: int) -> bytes | None:
            rows = self._rows(
                "select sealed from {s}.intake_chunks where content = %s and number = %s",
                (intake.content, number),
            )
            return open_chunk(intake.content, str(number), rows[0][0]) if rows else None

        return io.BufferedReader(_Chunks(chunk), CHUNK_BYTES)

    # quarantine

    def quarantine(self, entries: Iterable[QuarantineEntry]) -> None:
        """Stores entries; existing ones are not changed."""
        with self._writing(), self._connection.cursor() as cursor:
            cursor.executemany(
                self._sql(
                    'insert into {s}.quarantine (id, source, intake, line, "column", reason, detail,'
                    ' raw_sealed, quarantined_at, kind, whole_file, "row")'
                    " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                    " on conflict do nothing"
                ),
                [
                    (
                        e.id,
                        e.source,
                        e.intake,
                        e.line,
                        e.column,
                        e.reason,
                        e.detail,
                        e.raw_sealed,
                        e.quarantined_at,
                        e.kind,
                        e.whole_file,
                        e.row,
                    )
                    for e in entries
                ],
            )

    def quarantined(self, ids: Sequence[QuarantineId]) -> dict[QuarantineId, QuarantineEntry]:
        """The entries among `ids` that are there."""
        return {e.id: e for e in self._entries("where id = any(%s)", (list(ids),))}

    def quarantine_page(
        self, source: str | None, status: str | None, after: int, limit: int
    ) -> list[tuple[int, QuarantineEntry]]:
        """A page of entries in the order they came, each with the number to go on after."""
        rows = self._rows(
            "select number, " + _ENTRY + " from {s}.quarantine where number > %s"
            " and (%s::text is null or source = %s) and (%s::text is null or status = %s) order by number limit %s",
            (after, source, source, status, status, min(limit, PAGE_MAX)),
        )
        return [(row[0], QuarantineEntry(*row[1:])) for row in rows]

    def read_before(self, intakes: Sequence[Intake]) -> dict[QuarantineId, IntakeId]:
        """Entries that wait since the bytes of these intakes were read in another way, each with the intake
        of now."""
        rows = self._rows(
            "select q.id, now.id from {s}.intakes as now"
            " join {s}.intakes as before using (source, sha256)"
            " join {s}.quarantine as q on q.intake = before.id and q.status = 'waiting'"
            " where now.id = any(%s) and before.id <> now.id order by q.number",
            ([intake.id for intake in intakes],),
        )
        return {QuarantineId(entry): IntakeId(intake) for entry, intake in rows}

    def rows_resolved(self, source: str, rows: Sequence[UUID]) -> set[UUID]:
        """Returns those of these rows that were released or dismissed in any file of the source."""
        found = self._rows(
            'select distinct "row" from {s}.quarantine'
            " where \"row\" = any(%s) and source = %s and status <> 'waiting'",
            (list(rows), source),
        )
        return {row[0] for row in found}

    def same_row(self, entry: QuarantineEntry) -> list[QuarantineId]:
        """Other entries that wait for the same row, which came in other files."""
        if entry.row is None:
            return []
        found = self._rows(
            "select id from {s}.quarantine where \"row\" = %s and source = %s and id <> %s and status = 'waiting'"
            " order by number limit %s",
            (entry.row, entry.source, entry.id, SAME_ROW_MAX),
        )
        return [QuarantineId(row[0]) for row in found]

    def resolved(self, entries: Sequence[QuarantineId], status: QuarantineStatus) -> None:
        """Marks entries as released or dismissed; a repair that was proposed for them is proposed no more."""
        with self._writing():
            self._execute(
                "update {s}.quarantine set status = %s where id = any(%s) and status = 'waiting'",
                (status, list(entries)),
            )
            self._execute("delete from {s}.proposals where entry = any(%s)", (list(entries),))

    def superseded(self, entries: Sequence[QuarantineId]) -> None:
        """Marks entries as released because their bytes are read in another way now.

        Their rows are resolved by what that reading made of them, so these entries say nothing of them any
        more.
        """
        with self._writing():
            self._execute('update {s}.quarantine set "row" = null where id = any(%s)', (list(entries),))
            self.resolved(entries, "released")

    def propose(self, proposal: Proposal) -> None:
        """Keeps a repair for a second person; it takes the place of one that was proposed before."""
        self._write(
            "insert into {s}.proposals values (%s, %s, %s, %s, %s::jsonb, %s, %s, %s) on conflict (entry) do update"
            " set (repair, repaired, records, amounts_minor, proposed_by, reason, proposed_at) = (excluded.repair,"
            " excluded.repaired, excluded.records, excluded.amounts_minor, excluded.proposed_by, excluded.reason,"
            " excluded.proposed_at)",
            (
                proposal.entry,
                proposal.repair,
                proposal.repaired,
                proposal.records,
                msgspec.json.encode(proposal.amounts_minor).decode(),
                proposal.proposed_by,
                proposal.reason,
                proposal.proposed_at,
            ),
        )

    def proposals(self, entries: Sequence[QuarantineId]) -> dict[QuarantineId, Proposal]:
        """The repairs that wait for a second person, by entry."""
        rows = self._rows(
            "select entry, repair, repaired, records, amounts_minor::text, proposed_by, reason, proposed_at"
            " from {s}.proposals where entry = any(%s)",
            (list(entries),),
        )
        return {
            QuarantineId(entry): Proposal(
                entry,
                repair,
                repaired,
                records,
                msgspec.json.decode(amounts, type=dict[str, int]),
                by,
                why,
                at,
            )
            for entry, repair, repaired, records, amounts, by, why, at in rows
        }

    def waiting(self, source: str | None = None) -> int:
        """How many entries wait for repair."""
        row = self._rows(
            "select count(*) from {s}.quarantine where status = 'waiting' and (%s::text is null or source = %s)",
            (source, source),
        )[0]
        return int(row[0])

    def _entries(self, where: str, values: tuple[object, ...]) -> list[QuarantineEntry]:
        return [
            QuarantineEntry(*row)
            for row in self._rows(f"select {_ENTRY} from {{s}}.quarantine {where}", values)
        ]

    # certificates

    def totals(self, accounts: Sequence[UUID]) -> dict[Purse, AccountTotal]:
        """Returns the folded totals of these accounts."""
        rows = self._rows(
            f"select account, currency, {_TOTAL} from {{s}}.account_totals where account = any(%s)",
            (list(accounts),),
        )
        return {Purse(account, currency): AccountTotal(*values) for account, currency, *values in rows}

    def all_balances(self, source: str) -> dict[Purse, int]:
        """The balance of every account of a source, as far as it is folded."""
        rows = self._rows(
            "select account, currency, credits_minor - debits_minor from {s}.account_totals where source = %s",
            (source,),
        )
        return {Purse(account, currency): balance for account, currency, balance in rows}

    def others_open(self, source: str, intakes: Sequence[UUID]) -> bool:
        """Whether intakes beside these are covered by no certificate."""
        return bool(
            self._row(
                "select exists (select from {s}.intakes"
                " where source = %s and certificate is null and not id = any(%s))",
                (source, list(intakes)),
            )[0]
        )

    def certified_among(self, intakes: Sequence[UUID]) -> set[UUID]:
        """Those of these intakes that a certificate covers."""
        return {
            row[0]
            for row in self._rows(
                "select id from {s}.intakes where id = any(%s) and certificate is not null", (list(intakes),)
            )
        }

    def days(self, since: Mapping[Purse, date]) -> dict[Purse, dict[date, bytes]]:
        """The days of each purse from a day on, and the last one before it."""
        purses = list(since)
        rows = self._rows(
            "select w.account, w.currency, d.day, d.body"
            " from unnest(%s::uuid[], %s::text[], %s::date[]) as w(account, currency, since)"
            " cross join lateral ((select day, body from {s}.account_days as a"
            " where a.account = w.account and a.currency = w.currency and a.day >= w.since)"
            " union all (select day, body from {s}.account_days as a where a.account = w.account"
            " and a.currency = w.currency and a.day < w.since order by a.day desc limit 1)) as d",
            ([p.account for p in purses], [p.currency for p in purses], list(since.values())),
        )
        found: dict[Purse, dict[date, bytes]] = {}
        for account, currency, day, body in rows:
            found.setdefault(Purse(account, currency), {})[day] = bytes(body)
        return found

    def turnovers(self, source: str) -> dict[str, int]:
        """The sum of absolute amounts of a source's accounts by currency, as far as they are folded."""
        return dict(
            self._rows("select currency, turnover_minor from {s}.turnovers where source = %s", (source,))
        )

    def fold(
        self,
        source: str,
        totals: Mapping[Purse, AccountTotal],
        days: Mapping[tuple[Purse, date], bytes],
        turnovers: Mapping[str, int],
        contradictions: "Contradictions",
    ) -> None:
        """Stores the result of a fold in one transaction."""
        columns = [[*map(attrgetter(name), totals.values())] for name in AccountTotal.__struct_fields__]
        with self._writing():
            self._execute(
                f"insert into {{s}}.account_totals (source, account, currency, {_TOTAL})"
                f" select %s, * from unnest({_TOTAL_ARRAYS})"
                f" on conflict (account, currency) do update set {_TOTAL_SET}",
                (source, [p.account for p in totals], [p.currency for p in totals], *columns),
            )
            if days:
                self._execute(
                    "insert into {s}.account_days select * from"
                    " unnest(%s::uuid[], %s::text[], %s::date[], %s::bytea[])"
                    " on conflict (account, currency, day) do update set body = excluded.body",
                    (
                        [p.account for p, _ in days],
                        [p.currency for p, _ in days],
                        [day for _, day in days],
                        list(days.values()),
                    ),
                )
            self._execute(
                "insert into {s}.turnovers as t select %s, * from unnest(%s::text[], %s::bigint[])"
                " on conflict (source, currency)"
                " do update set turnover_minor = t.turnover_minor + excluded.turnover_minor",
                (source, list(turnovers), list(turnovers.values())),
            )
            self._contradict(source, contradictions)

    def standing(
        self,
        source: str,
        kind: str,
        *,
        accounts: Sequence[UUID] | None = None,
        scopes: Sequence[str] | None = None,
    ) -> dict[UUID, str]:
        """Contradictions that are not resolved, each with its scope; of these accounts or of these scopes."""
        return dict(
            self._rows(
                "select id, scope from {s}.contradictions where source = %s and kind = %s and status <> 'resolved'"
                " and (%s::uuid[] is null or account = any(%s)) and (%s::text[] is null or scope = any(%s))",
                (source, kind, *[accounts and list(accounts)] * 2, *[scopes and list(scopes)] * 2),
            )
        )

    def standing_among(self, source: str, kind: str, statements: Sequence[str]) -> dict[UUID, str]:
        """Contradictions of these statements that are not resolved, each with its scope, which begins with
        one."""
        rows = self._rows(
            "select id, scope from {s}.contradictions where source = %s and kind = %s and status <> 'resolved'"
            " and split_part(scope, '|', 1) = any(%s)",
            (source, kind, list(statements)),
        )
        return dict(rows)

    def standing_of(self, source: str, kind: str, limit: int) -> list[Contradiction]:
        """Contradictions of a kind that are not resolved, the newest first."""
        rows = self._rows(
            f"select {_CONTRADICTION} from {{s}}.contradictions where source = %s and kind = %s"
            " and status <> 'resolved' order by number desc limit %s",
            (source, kind, limit),
        )
        return [Contradiction(*row) for row in rows]

    def contradict(self, source: str, contradictions: "Contradictions") -> None:
        """Notes contradictions that were found and those that are resolved."""
        with self._writing():
            self._contradict(source, contradictions)

    def _contradict(self, source: str, contradictions: "Contradictions") -> None:
        found, gone = contradictions.found, list(contradictions.gone)
        if gone:
            self._execute(
                "delete from {s}.contradictions where id = any(%s) and certificate is null and status = 'open'",
                (gone,),
            )
            self._execute(
                "update {s}.contradictions set status = 'resolved', certificate = null where id = any(%s)",
                (gone,),
            )
        if found:
            with self._connection.cursor() as cursor:
                cursor.executemany(
                    self._sql(
                        "insert into {s}.contradictions as c (id, source, kind, scope, code, account, currency,"
                        " expected, found, detail, status) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'open')"
                        " on conflict (id) do update set status = 'open' where c.status = 'resolved'"
                    ),
                    [
                        (
                            c.id,
                            source,
                            c.kind,
                            c.scope,
                            c.code,
                            c.account,
                            c.currency,
                            bounded(c.expected),
                            bounded(c.found),
                            c.detail,
                        )
                        for c in found
                    ],
                )

    def contradictions(self, source: str, limit: int) -> tuple[list[Contradiction], int, list[str]]:
        """Open contradictions of a source, those that no certificate names first; how many; and their codes."""
        rows = self._rows(
            f"select {_CONTRADICTION} from {{s}}.contradictions where source = %s and status = 'open'"
            " order by certificate is not null, number limit %s",
            (source, limit),
        )
        codes = self._rows(
            "select code, count(*) from {s}.contradictions where source = %s and status = 'open'"
            " group by code order by code",
            (source,),
        )
        return [Contradiction(*row) for row in rows], sum(n for _, n in codes), [code for code, _ in codes]

    def acknowledge(self, source: str, contradictions: Sequence[UUID]) -> None:
        """Open contradictions that a person has acknowledged count no longer."""
        self._write(
            "update {s}.contradictions set status = 'acknowledged'"
            " where source = %s and id = any(%s) and status = 'open'",
            (source, list(contradictions)),
        )

    def open_under(self, source: str, certificate: int, only: Sequence[UUID]) -> list[UUID]:
        """Open contradictions that a certificate, by its number, or an earlier one counts; `only` these, if
        any."""
        rows = self._rows(
            "select x.id from {s}.contradictions as x join {s}.certificates as c on c.id = x.certificate"
            " where x.source = %s and x.status = 'open' and c.number <= %s"
            " and (%s or x.id = any(%s)) order by x.number",
            (source, certificate, not only, list(only)),
        )
        return [row[0] for row in rows]

    def unnamed(self, source: str) -> int:
        """How many open contradictions no certificate names yet."""
        return int(
            self._row(
                "select count(*) from {s}.contradictions"
                " where source = %s and status = 'open' and certificate is null",
                (source,),
            )[0]
        )

    def series(self, source: str, scopes: Sequence[str]) -> dict[str, bytes]:
        """The running numbers that were read in each scope."""
        rows = self._rows(
            "select scope, body from {s}.number_series where source = %s and scope = any(%s)",
            (source, list(scopes)),
        )
        return {scope: bytes(body) for scope, body in rows}

    def keep_series(self, source: str, series: Iterable[Mapping[str, bytes]]) -> None:
        """Keeps running numbers where no certificate is due; else they are kept with it."""
        with self._writing():
            for some in series:
                self._keep_series(source, some)

    def _keep_series(self, source: str, series: Mapping[str, bytes]) -> None:
        self._execute(
            "insert into {s}.number_series select %s, * from unnest(%s::text[], %s::bytea[])"
            " on conflict (source, scope) do update set body = excluded.body",
            (source, list(series), list(series.values())),
        )

    def certify(
        self,
        certificate: UUID,
        source: str,
        *,
        certified_at: datetime,
        status: str,
        findings: bytes,
        intakes: Sequence[IntakeId],
        flows: Iterable[Mapping[Purse, Flow]] | None,
        series: Iterable[Mapping[str, bytes]],
    ) -> None:
        """Keeps a certificate and what it covers, in one transaction: `flows`, or everything that no other
        covers.

        `series` are the running numbers with those of its intakes: until they are certified, their own
        numbers are new.
        """
        with self._writing():
            for some in series:
                self._keep_series(source, some)
            self._execute(
                "with fresh as (insert into {s}.certificates (id, source, certified_at, status, findings)"
                " values (%s, %s, %s, %s, %s) on conflict do nothing returning source, findings)"
                " insert into {s}.source_counts as n select source, (f ->> 'posted')::bigint,"
                " (f ->> 'duplicates')::bigint, (f ->> 'quarantined')::bigint"
                " from (select source, convert_from(findings, 'UTF8')::jsonb as f from fresh) as told"
                " on conflict (source) do update set posted = n.posted + excluded.posted,"
                " duplicates = n.duplicates + excluded.duplicates,"
                " quarantined = n.quarantined + excluded.quarantined",
                (certificate, source, certified_at, status, findings),
            )
            if flows is None:
                self._execute(
                    "update {s}.account_totals set certified_postings = postings,"
                    " certified_credits_minor = credits_minor, certified_debits_minor = debits_minor"
                    " where source = %s and postings <> certified_postings",
                    (source,),
                )
            for covered in flows or ():
                self._cover(covered)
            self._execute(
                "update {s}.contradictions set certificate = %s"
                " where source = %s and status = 'open' and certificate is null",
                (certificate, source),
            )
            self._execute(
                "update {s}.intakes set certificate = %s where id = any(%s)", (certificate, list(intakes))
            )

    def _cover(self, flows: Mapping[Purse, Flow]) -> None:
        self._execute(
            "update {s}.account_totals as t set certified_postings = t.certified_postings + f.postings,"
            " certified_credits_minor = t.certified_credits_minor + f.credits_minor,"
            " certified_debits_minor = t.certified_debits_minor + f.debits_minor"
            " from unnest(%s::uuid[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[])"
            " as f(account, currency, postings, credits_minor, debits_minor)"
            " where t.account = f.account and t.currency = f.currency",
            (
                [purse.account for purse in flows],
                [purse.currency for purse in flows],
                [flow.postings for flow in flows.values()],
                [flow.credits_minor for flow in flows.values()],
                [flow.debits_minor for flow in flows.values()],
            ),
        )

    # schedules

    def schedule(self, source: str, every_seconds: int) -> None:
        """Remembers how often a source sends."""
        self._write(
            "insert into {s}.schedules values (%s, %s)"
            " on conflict (source) do update set every_seconds = excluded.every_seconds",
            (source, every_seconds),
        )

    def scheduled(self, source: str) -> int | None:
        """How often a source was said to send, in seconds."""
        rows = self._rows("select every_seconds from {s}.schedules where source = %s", (source,))
        return int(rows[0][0]) if rows else None

    def streams(self, source: str) -> bool:
        """Whether the last that a source sent came over the branch topic."""
        rows = self._rows(
            "select format from {s}.intakes where source = %s and repairs is null"
            " order by number desc limit 1",
            (source,),
        )
        return bool(rows) and rows[0][0] == "topic"

    def last_received(self, source: str) -> datetime | None:
        """The time at which data of a source was last received.

        A repair does not count as data of the source.
        """
        rows = self._rows(
            "select received_at from {s}.intakes where source = %s and repairs is null"
            " order by number desc limit 1",
            (source,),
        )
        return rows[0][0].astimezone(UTC) if rows else None

    def certificates(self, source: str | None, before: int | None, limit: int) -> list[tuple[Any, ...]]:
        """Certificates, newest first: number, id, source, certified_at, status, findings."""
        return self._rows(
            "select number, id, source, certified_at, status, findings from {s}.certificates"
            " where (%s::text is null or source = %s) and (%s::bigint is null or number < %s)"
            " order by number desc limit %s",
            (source, source, before, before, min(limit, PAGE_MAX)),
        )

    def certificate(self, certificate: UUID) -> tuple[Any, ...] | None:
        """One certificate by its id."""
        rows = self._rows(
            "select number, id, source, certified_at, status, findings from {s}.certificates where id = %s",
            (certificate,),
        )
        return rows[0] if rows else None

    def known_source(self, look: str, name: str) -> str:
        """The name of the source that looks so; `name` where it is the first."""
        self._write(
            "insert into {s}.source_names values (%s, %s) on conflict (look) do nothing", (look, name)
        )
        return str(self._row("select name from {s}.source_names where look = %s", (look,))[0])

    def sources(self) -> list[str]:
        """Every source from which data was ever received."""
        return [row[0] for row in self._rows("select distinct source from {s}.intakes order by source", ())]

    # descriptions and reversals

    def descriptions(self, subjects: Sequence[UUID]) -> dict[UUID, tuple[int, str]]:
        """Revision and digest of what was last said about each subject."""
        rows = self._rows(
            "select subject, revision, digest from {s}.descriptions where subject = any(%s)",
            (list(subjects),),
        )
        return {subject: (revision, digest) for subject, revision, digest in rows}

    def describe(self, revisions: Mapping[UUID, tuple[int, str]]) -> None:
        """Remembers the last description of subjects."""
        with self._writing(), self._connection.cursor() as cursor:
            cursor.executemany(
                self._sql(
                    "insert into {s}.descriptions values (%s, %s, %s) on conflict (subject)"
                    " do update set revision = excluded.revision, digest = excluded.digest"
                ),
                [(subject, revision, digest) for subject, (revision, digest) in revisions.items()],
            )

    def await_originals(self, source: str, originals: Mapping[QuarantineId, UUID]) -> None:
        """Remembers for which postings quarantined reversals wait."""
        with self._writing(), self._connection.cursor() as cursor:
            cursor.executemany(
                self._sql("insert into {s}.awaited_originals values (%s, %s, %s) on conflict do nothing"),
                [(entry, source, original) for entry, original in originals.items()],
            )

    def await_no_longer(self, entry: QuarantineId) -> None:
        """Records that the original came and the reversal cannot be booked, so that a person decides."""
        self._write("delete from {s}.awaited_originals where quarantine = %s", (entry,))

    def awaited_originals(self, source: str, after: UUID | None, limit: int) -> dict[QuarantineId, UUID]:
        """Reversals of a source that wait in quarantine, each with the posting that it waits for, in the
        order of ids."""
        rows = self._rows(
            "select a.quarantine, a.original from {s}.awaited_originals as a join {s}.quarantine as q"
            " on q.id = a.quarantine and q.status = 'waiting' where a.source = %s"
            " and (%s::uuid is null or a.quarantine > %s) order by a.quarantine limit %s",
            (source, after, after, limit),
        )
        return {QuarantineId(entry): original for entry, original in rows}

    def readings(self, intakes: Sequence[Intake]) -> dict[IntakeId, frozenset[UUID]]:
        """Of each intake all that are of the same bytes, and what took the place of records of these bytes."""
        rows = self._rows(
            "with same as (select one.id as of, other.id from {s}.intakes as one"
            " join {s}.intakes as other using (source, sha256) where one.id = any(%s))"
            " select of, id from same union all"
            " select same.of, r.id from {s}.intakes as r join {s}.quarantine as q on q.id = r.repairs"
            " join same on same.id = q.intake where r.repairs is not null and r.source = any(%s)",
            ([intake.id for intake in intakes], list({intake.source for intake in intakes})),
        )
        found: dict[IntakeId, set[UUID]] = {}
        for intake, other in rows:
            found.setdefault(intake, set()).add(other)
        return {intake: frozenset(others) for intake, others in found.items()}

    # statements

    def _sql(self, statement: str) -> sql.Composed:
        return sql.SQL(statement).format(s=self._schema)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction, which is undone where another run took the source meanwhile."""
        with self._connection.transaction():
            yield
            if self._fence is not None:
                self._fence.hold(self._connection)

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        """One statement in a transaction of its own."""
        with self._writing():
            self._execute(statement, values)

    def _execute(self, statement: str, values: tuple[object, ...]) -> None:
        self._connection.execute(self._sql(statement), values)

    def _rows(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        return self._connection.execute(self._sql(statement), values, binary=True).fetchall()

    def _row(self, statement: str, values: tuple[object, ...]) -> tuple[Any, ...]:
        return self._rows(statement, values)[0]


@dataclass(frozen=True, slots=True)
class ArchivedSums:
    """The partial sums of one run, in the archive."""

    archive: Archive
    source: str
    run: int

    def store(self, kind: str, rows: Iterable[tuple[UUID, bytes]]) -> None:
        """Stores a sum for each account named; one account may come any number of times."""
        self.archive.store_sums(self.source, self.run, kind, rows)

    def stored(self, kind: str) -> Iterator[tuple[UUID, bytes]]:
        """All sums of a kind, in the order of accounts. Others may be stored meanwhile."""
        return self.archive.stored_sums(self.source, self.run, kind)

    def stored_of(self, kind: str, accounts: Sequence[UUID]) -> Iterator[tuple[UUID, bytes]]:
        """Those of these accounts."""
        for account, body in self.archive.stored_sums_of(self.source, self.run, kind, accounts):
            yield account, bytes(body)

    def accounts(self, kind: str) -> int:
        """The number of different accounts with a sum of a kind."""
        return self.archive.accounts_of_sums(self.source, self.run, kind)


_ENTRY: Final = 'id, source, intake, line, "column", reason, detail, raw_sealed, quarantined_at, status, kind, whole_file, "row"'


class _Changed(Exception):
    """The bytes that were kept are not those that were hashed before: digest and size of what was found."""

    def __init__(self, found: tuple[bytes, int]) -> None:
        super().__init__("changed while it was read")
        self.found = found


def _hashed(
    name: str, content: BinaryIO, keep: Callable[[int, bytes], None] = lambda _, __: None
) -> tuple[bytes, int]:
    """Digest and size of a stream, whose chunks go to `keep` as they are hashed."""
    hasher, size, number = sha256(), 0, 0
    while chunk := content.read(CHUNK_BYTES):
        hasher.update(chunk)
        size += len(chunk)
        if size > INTAKE_BYTES_MAX:
            raise IntakeOversized(masked_file(name))
        keep(number, chunk)
        number += 1
    return hasher.digest(), size


_CONTRADICTION: Final = "id, kind, scope, code, account, currency, expected, found, detail, certificate"
_TOTAL: Final = ", ".join(AccountTotal.__struct_fields__)
_TOTAL_SET: Final = ", ".join(f"{name} = excluded.{name}" for name in AccountTotal.__struct_fields__)
_TOTAL_ARRAYS: Final = ", ".join(
    ["%s::uuid[]", "%s::text[]"]
    + [
        "%s::int[]" if name == "version" else "%s::date[]" if name == "last_on" else "%s::bigint[]"
        for name in AccountTotal.__struct_fields__
    ]
)


class _Chunks(io.RawIOBase):
    """A raw stream over numbered chunks."""

    def __init__(self, chunk: Callable[[int], bytes | None]) -> None:
        super().__init__()
        self._chunk = chunk
        self._number = 0
        self._rest = memoryview(b"")

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            found = self._chunk(self._number)
            if found is None:
                return 0
            self._number += 1
            self._rest = memoryview(found)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
