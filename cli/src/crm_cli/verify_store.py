"""Checks a store alone, in SQL, with other code than the code that wrote it: I2, I3, I6, I8 and the money of
I5."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from chassis.connections.postgres import connect
from chassis.read.documents import ID, SEQUENCE
from chassis.read.mongo import Frozen, Mongo, exact_sum
from chassis.relay import Held
from chassis.write.store import writer_role
from chassis.write.store.items import NIL
from psycopg import sql

from crm_cli.contexts import Context
from crm_cli.verify_report import Report

POSTING_NAMES: Final = ["posting-booked", "posting-reversed"]
CERTIFICATE_NAMES: Final = ["reconciliation-certified"]
ACCOUNTS_AT_ONCE: Final = 2_000
ROWS_AT_ONCE: Final = 2_000
STREAMS_PER_PAGE: Final = 200
SECONDS_MAX: Final = 600
TABLES: Final = (
    "events",
    "commands",
    "relay",
    "leases",
    "unpublishable",
    "timers",
    "timer_folds",
    "notices",
    "notice_folds",
)


def data_of(column: str) -> str:
    """SQL for the data of a stored body.

    A null character, which JSON may escape and `jsonb` refuses, is left out: no figure has one.
    """
    text = f"convert_from({column}, 'UTF8')"
    without = rf"regexp_replace({text}, '(?<!\\)((?:\\\\)*)\\u0000', '\1', 'g')"
    has_one = rf"position(convert_to('\u0000', 'UTF8') in {column}) > 0"  # converting most bodies once
    return f"(case when {has_one} then {without} else {text} end)::jsonb -> 'data'"


_TABLES_THEMSELVES: Final = (
    "set local enable_indexscan = off; set local enable_indexonlyscan = off; set local enable_bitmapscan = off;"
    " set local work_mem = '64MB'"
)
_STREAMS: Final = (
    "select distinct stream_id from {events} where name = %s and stream_id > %s order by stream_id limit %s"
)
_DOUBLED: Final = (
    "select identity, count(*) from {events} where identity is not null group by 1 having count(*) > 1"
)
_GAPS: Final = (
    "select stream_id, count(*), min(version), max(version) from {events} group by 1"
    " having count(*) <> max(version) or min(version) <> 1"
)
_FORGOTTEN: Final = (
    "select key, stream_id, version from {commands} as c where event_count > 0 and not exists"
    " (select from {events} as e where e.stream_id = c.stream_id and e.version = c.version)"
)
_DISORDERED: Final = (
    "select stream_id, version from (select stream_id, version, position, lag(position) over"
    " (partition by stream_id order by version) as before from {events}) as o where before >= position"
)
_POSTED_TWICE: Final = (
    "select d ->> 'posting_id', count(*) from (select " + data_of("body") + " as d"
    " from {events} where name = any(%s) and position <> all(%s)) as p group by 1 having count(*) > 1"
)
_SUMS: Final = (
    "select w.id, coalesce(d ->> 'currency', 'no currency'), count(*), sum(greatest((d ->> 'amount_minor')::bigint, 0)),"
    " sum(greatest(-(d ->> 'amount_minor')::bigint, 0))"
    " from unnest(%s::uuid[], %s::int[]) as w(id, version) join lateral"
    " (select " + data_of("e.body") + " as d from {events} as e"
    " where e.stream_id = w.id and e.version <= w.version and e.name = any(%s) and e.position <> all(%s) offset 0) as p on true group by 1, 2"
)
_CERTIFIED: Final = (
    "select d ->> 'certificate', l ->> 'currency', (l ->> 'opening_minor')::numeric, (l ->> 'credits_minor')::numeric,"
    " (l ->> 'debits_minor')::numeric, (l ->> 'closing_minor')::numeric from"
    " (select " + data_of("body") + " as d from {events}"
    " where name = any(%s) and position <> all(%s)) as c cross join jsonb_array_elements(d -> 'findings' -> 'lines') as l"
)
_GUARDS: Final = (
    "select t.tgname, t.tgrelid::regclass::text, t.tgenabled = 'A' from pg_trigger as t"
    " where t.tgrelid = any(%s::regclass[]) and t.tgname in ('refuse_change', 'refuse_truncate')"
)
_MAY: Final = "select p, has_table_privilege(%s, %s, p) from unnest(%s::text[]) as p"
CHANGING: Final = ["INSERT", "UPDATE", "DELETE", "TRUNCATE"]
_BY_ACCOUNT: Final = (
    "select stream_id, currency, count(*), coalesce(sum(minor) filter (where minor > 0), 0),"
    " coalesce(-sum(minor) filter (where minor < 0), 0), count(*) filter (where posting is distinct from identity::text)"
    " from (select stream_id, identity, coalesce(d ->> 'currency', 'no currency') as currency, (d ->> 'amount_minor')::bigint as minor,"
    " d ->> 'posting_id' as posting from"
    " (select stream_id, identity, " + data_of("body") + " as d from {events}"
    " where name = any(%s) and position <= %s and position <> all(%s) offset 0) as b offset 0) as p group by 1, 2 order by 1, 2"
)
"""`offset 0`, or the planner parses a body anew for every figure that is taken out of it."""


_SUMMED: Final = (
    "select sum((d ->> 'amount_minor')::bigint) from (select " + data_of("body") + " as d from {events}"
    " where name = any(%s) and position = any(%s) offset 0) as p"
)
_CLOSED: Final = _CERTIFIED.replace("<> all", "= any")
_NAMED: Final = (
    "select position, stream_id, version, name from {events} where name = any(%s) and position > %s"
    " order by position limit %s"
)

Rows = Callable[..., Iterator[tuple[Any, ...]]]
"""From a query and its values to its rows, by a cursor of the server."""


class Summed(NamedTuple):
    """The postings of one account in one currency; `unlike`: of how many the body names another posting than
    the identity under which it is stored."""

    account: UUID
    currency: str
    postings: int
    credits_minor: int
    debits_minor: int
    unlike: int


class _Balance(msgspec.Struct):
    movements: int
    minor: int


class _Account(msgspec.Struct):
    id: UUID = msgspec.field(name=ID)
    sequence: int = msgspec.field(name=SEQUENCE)
    balances: dict[str, _Balance]
    position: int = 0

    @property
    def shown(self) -> dict[str, tuple[int, int]]:
        """By currency, the movements and their sum."""
        return {currency: (one.movements, one.minor) for currency, one in self.balances.items()}


class Store:
    """Queries of one store over a connection of its own. They block."""

    def __init__(self, url: str, context: Context, report: Report) -> None:
        self._connection = connect(url, statement_seconds=SECONDS_MAX)
        self._context = context
        self._report = report
        self._names = {name: sql.Identifier(context.schema, name) for name in TABLES}

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def ask(self, question: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        statement = sql.SQL(question).format(**self._names)  # type: ignore[arg-type, unused-ignore]
        return self._connection.execute(statement, values).fetchall()

    def streams_with(self, name: str, after: UUID = NIL) -> list[UUID]:
        """The next streams after one that have an event of this name, by id: at most `STREAMS_PER_PAGE`."""
        return [row[0] for row in self.ask(_STREAMS, name, after, STREAMS_PER_PAGE)]

    def rows(self, question: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """The rows of a query that may return many, by a cursor of the server."""
        statement = sql.SQL(question).format(**self._names)  # type: ignore[arg-type, unused-ignore]
        with self._connection.transaction(), self._connection.cursor("verify") as cursor:
            cursor.itersize = ROWS_AT_ONCE
            cursor.execute(statement, values)
            yield from cursor

    @contextmanager
    def one_moment(self) -> Iterator[Rows]:
        """Gives the rows of queries that see the store as of one moment; each is read while others are."""
        opened = 0

        def rows(question: str, *values: object) -> Iterator[tuple[Any, ...]]:
            nonlocal opened
            opened += 1
            statement = sql.SQL(question).format(**self._names)  # type: ignore[arg-type, unused-ignore]
            with self._connection.cursor(f"verify-{opened}") as cursor:
                cursor.itersize = ROWS_AT_ONCE
                cursor.execute(statement, values)
                yield from cursor

        with self._connection.transaction():
            self._connection.execute("set transaction isolation level repeatable read, read only")
            yield rows

    def exists(self, table: str) -> bool:
        """Whether the store has this table."""
        return self.ask("select to_regclass(%s) is not null", f"{self._context.schema}.{table}")[0][0] is True

    def head(self) -> int:
        """Position of the last event."""
        return int(self.ask("select coalesce(max(position), 0) from {events}")[0][0])

    def relay(self) -> tuple[int, int]:
        """Epoch and position that the relay saved; zeros where none ever ran."""
        found = (
            self.ask(
                "select coalesce((select epoch from {leases} where name = 'relay'), 0), position from {relay}"
                " where context = %s",
                self._context.name,
            )
            if self.exists("relay")
            else []
        )
        return found[0] if found else (0, 0)

    def held(self) -> list[Held]:
        """The subjects that the relay holds, because an event of theirs cannot be published."""
        if not self.exists("unpublishable"):
            return []
        found = self.ask(
            "select subject, position, version, name, reason, again from {unpublishable} order by position"
        )
        return [Held(*row) for row in found]

    def doubled(self) -> list[tuple[UUID, int]]:
        """Identities that several events have, with how many."""
        return self._of_all(_DOUBLED)

    def check(self) -> None:
        """Checks the store itself: identities once, versions dense and in order, commands remembered with
        their events."""
        report, name = self._report, self._context.name
        events, identities = self._of_all("select count(*), count(identity) from {events}")[0]
        report.passed("I2", identities)
        for identity, count in self.doubled():
            report.broken("I2", f"{name}: identity {identity} is taken by {count} events")
        report.passed("I3", events)
        for stream, count, lowest, highest in self._of_all(_GAPS):
            report.broken("I3", f"{name}: stream {stream} has {count} events, versions {lowest} to {highest}")
        for stream, version in self._of_all(_DISORDERED):
            report.broken("I3", f"{name}: version {version} of {stream} lies before the one it follows")
        report.passed("I8", int(self._of_all("select count(*) from {commands}")[0][0]))
        for key, stream, version in self._of_all(_FORGOTTEN):
            report.broken("I8", f"{name}: command {key} was acknowledged with version {version} of {stream}")

    def _of_all(self, question: str) -> list[tuple[Any, ...]]:
        """The rows of a query about every event, answered from the table itself.

        An index may be what is wrong, and is slower where a table was filled or restored since its last vacuum.
        """
        with self._connection.transaction():
            self._connection.execute(_TABLES_THEMSELVES)
            return self.ask(question)

    def check_guards(self) -> None:
        """Checks that stored events cannot be changed: the triggers exist, and the writer's role has no right
        to do it."""
        report, name, schema = self._report, self._context.name, self._context.schema
        tables = [f"{schema}.events", f"{schema}.commands"]
        standing = {(table, trigger) for trigger, table, always in self.ask(_GUARDS, tables) if always}
        for table in tables:
            for trigger in ("refuse_change", "refuse_truncate"):
                report.passed("I6")
                if (table, trigger) not in standing:
                    report.broken("I6", f"{name}: the trigger {trigger} of {table} is missing or disabled")
            for right, may in self.ask(_MAY, writer_role(schema), table, CHANGING):
                report.passed("I6")
                if may:
                    report.broken("I6", f"{name}: {writer_role(schema)} may {right} {table}")


async def check_money(
    url: str, context: Context, mongo: Mongo, prefix: str, head: int, report: Report
) -> None:
    """Opening + movements = closing: PostgreSQL sums the stored postings, MongoDB the movements, and both
    must give the balance that the view folded, per account and currency; every certificate must close.

    An event of which PostgreSQL can take no sum is named, and left out. Only where there is one, each is looked at."""
    found = Report()
    try:
        await _check_money(url, context, mongo, prefix, head, found)
    except psycopg.DataError:
        without = await asyncio.to_thread(_unsummable, url, context, report)
        found = Report()
        await _check_money(url, context, mongo, prefix, head, found, without)
    finally:
        report.plus(found)
        report.figures |= found.figures


def _unsummable(url: str, context: Context, report: Report) -> list[int]:
    """The positions of the events of which PostgreSQL can take no sum; they are named."""
    store, found = Store(url, context, report), list[int]()
    try:
        for names, question in ((POSTING_NAMES, _SUMMED), (CERTIFICATE_NAMES, _CLOSED)):
            after = 0
            while page := store.ask(_NAMED, names, after, ROWS_AT_ONCE):
                after = page[-1][0]
                with suppress(psycopg.DataError):
                    store.ask(question, names, [position for position, *_ in page])
                    continue
                for position, stream, version, name in page:
                    found.append(position)
                    with report.reading("I5", f"{context.name}: version {version} of {stream} ({name})"):
                        store.ask(question, names, [position])
                        found.pop()
    finally:
        store.close()
    return found


async def _check_money(
    url: str,
    context: Context,
    mongo: Mongo,
    prefix: str,
    head: int,
    report: Report,
    without: Sequence[int] = (),
) -> None:
    store = await asyncio.to_thread(Store, url, context, report)
    try:
        await _check_certificates(store, without, report)
        await _check_sums(store, mongo, prefix, head, list(without), report)
    finally:
        store.close()


async def _check_certificates(store: Store, without: Sequence[int], report: Report) -> None:
    for certificate, currency, opening, credits, debits, closing in await asyncio.to_thread(
        store.ask, _CERTIFIED, CERTIFICATE_NAMES, list(without)
    ):
        where = f"certificate {certificate} {currency}"
        with report.reading("I5", where):
            report.compare(
                "I5", f"{where} closes at", int(opening) + int(credits) - int(debits), int(closing)
            )


async def _check_sums(
    store: Store, mongo: Mongo, prefix: str, head: int, without: list[int], report: Report
) -> None:
    balances: dict[str, int] = {}
    summed = SummedByAccount(store, head, without)
    async for raw in mongo.raw_pages(f"{prefix}accounts"):
        page = list(_accounts(raw, report))
        if not page:
            continue
        sums = await asyncio.to_thread(summed.up_to, page[-1].id)
        ahead = [one for one in page if not _as_summed(one, sums.get(str(one.id), {}), head)]
        sums |= await asyncio.to_thread(_summed_again, store, ahead, without)
        for one in page:
            of_account = sums.pop(str(one.id), {})
            for currency, (movements, balance) in one.shown.items():
                count, minor = of_account.pop(currency, (0, 0))
                where = f"account {one.id} {currency}"
                report.compare("I5", f"{where}: closing", minor, balance)
                report.compare("I5", f"{where}: movements", count, movements)
                balances[currency] = balances.get(currency, 0) + balance
            _without_balance(str(one.id), of_account, report)
        for id, of_account in sums.items():
            _without_balance(id, of_account, report)
    for id, of_account in (await asyncio.to_thread(summed.up_to, None)).items():
        _without_balance(id, of_account, report)
    totals = summed.totals
    # Where each posting has the id of its identity, and no identity is taken twice, none is booked twice.
    doubled = await asyncio.to_thread(store.doubled)
    if summed.unlike or doubled:
        for twice, count in await asyncio.to_thread(store.ask, _POSTED_TWICE, POSTING_NAMES, without):
            report.broken("I2", f"posting {twice} is booked {count} times")
    with report.reading("I5", "the sums of all movements"):
        moved = await mongo.aggregate(
            f"{prefix}movements",
            [
                {"$match": {"position": {"$lte": head}}},
                {"$group": {"_id": "$currency", "minor": exact_sum("$amount_minor")}},
            ],
        )
        found = {each["_id"]: each["minor"] for each in moved}
        report.compare("I5", "the sums of all movements", totals, found)
    if store.head() == head:
        report.compare("I5", "the sums of all balances", totals, balances)
    report.figures["money"] = {currency: str(total) for currency, total in sorted(totals.items())}


Sums = dict[str, dict[str, tuple[int, int]]]
"""By account and currency: how many postings there are, and their sum in minor units."""


class SummedByAccount:
    """The stored postings up to a position, summed by account in the order of their ids, each body parsed
    once."""

    def __init__(self, store: Store, head: int, without: Sequence[int] = ()) -> None:
        found = store.rows(_BY_ACCOUNT, POSTING_NAMES, head, list(without))
        self._rows = (Summed(*row) for row in found)
        self._next: Summed | None = None
        self.totals: dict[str, int] = {}
        self.unlike = 0

    def up_to(self, last: UUID | None) -> Sums:
        """The next accounts, up to `last` and with it; all that are left where it is None. Blocks."""
        found: Sums = {}
        while (row := self._next or next(self._rows, None)) is not None:
            self._next = row
            if last is not None and row.account > last:
                break
            self._next = None
            minor = int(row.credits_minor) - int(row.debits_minor)
            found.setdefault(str(row.account), {})[row.currency] = (row.postings, minor)
            self.totals[row.currency] = self.totals.get(row.currency, 0) + minor
            self.unlike += row.unlike
        return found


def _accounts(page: Sequence[bytes], report: Report) -> Iterator[_Account]:
    """The accounts of a page that can be read."""
    for raw in page:
        with report.reading("I5", "a document in accounts"):
            document = Frozen(raw).thawed()
            with report.reading("I5", f"account {document[ID]}"):
                yield msgspec.convert(document, _Account)


def _as_summed(one: _Account, sums: Mapping[str, tuple[int, int]], head: int) -> bool:
    """Whether the view's account is what the postings up to `head` come to, and no further."""
    return one.shown == sums and one.position <= head


def _summed_again(store: Store, accounts: Sequence[_Account], without: list[int]) -> Sums:
    """The sums of these accounts up to the version that the view shows, which may have gone on meanwhile."""
    found: Sums = {str(one.id): {} for one in accounts}
    for at in range(0, len(accounts), ACCOUNTS_AT_ONCE):
        some = accounts[at : at + ACCOUNTS_AT_ONCE]
        ids, versions = [one.id for one in some], [one.sequence for one in some]
        for id, currency, count, credits, debits in store.ask(_SUMS, ids, versions, POSTING_NAMES, without):
            found[str(id)][currency] = (count, int(credits) - int(debits))
    return found


def _without_balance(id: str, sums: Mapping[str, tuple[int, int]], report: Report) -> None:
    for currency in sums:
        report.broken("I5", f"account {id} {currency}: postings are stored, the view has no balance")
