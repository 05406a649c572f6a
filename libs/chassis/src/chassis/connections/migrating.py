"""Changes of the schema. `migrate` runs them as the owner.

Services only check which were run, and wait for them.

To add a table: write its DDL into a step of the module it belongs to (`Tables`), with `{schema}` for its
schema; the services' role may then select, insert, update and delete in it. Steps are written so that they
can be run again (`if not exists`, `or replace`). Until the first release a step may be edited: a changed
text is run once more. After it, a step is never edited; a change is a further step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from chassis.connections.postgres import connect

LOCK_SECONDS_MAX: Final = 3.0
"""How long a step may wait for a table. Every later statement on the table waits behind it."""
STEP_SECONDS_MAX: Final = 600.0
TRIES_MAX: Final = 20
PAUSE_SECONDS: Final = 2.0
"""The pause between two tries. The statements that waited behind the step run in it. The server waits, so no
clock is needed."""
TURN_SECONDS_MAX: Final = 300
"""How long one migration waits for another one of the same database."""

READER: Final = "crm_auditor"
"""The role that may read event stores and has no other right. It needs no login of its own."""
READER_CONNECTIONS_MAX: Final = 20

_LOCK: Final = int.from_bytes(blake2b(b"chassis.connections.migrating", digest_size=8).digest(), signed=True)
_GRANTS_VERSION: Final = 0
_TABLE: Final = """
create schema if not exists migrations;
create table if not exists migrations.applied (
    module text not null,
    version integer not null,
    digest text not null,
    applied_at timestamptz not null default clock_timestamp(),
    primary key (module, version)
);
grant usage on schema migrations to public;
grant select on migrations.applied to public;
"""
_ROLE: Final = """
do $body$ begin
    create role {role} nologin noinherit;
exception when duplicate_object or unique_violation then null;
end $body$;
"""
_READER: Final = """
do $body$ begin
    create role {reader} nologin;
    alter role {reader} set default_transaction_read_only = on;
exception when duplicate_object or unique_violation then null;
end $body$;
"""
_LARGE_OBJECTS: Final = (
    "select oid::regprocedure::text from pg_proc where pronamespace = 'pg_catalog'::regnamespace"
    " and (proname like 'lo\\_%' or proname = 'lowrite') and has_function_privilege('public', oid, 'EXECUTE')"
)
_OWN_TABLES: Final = """
revoke all on schema {schema} from public;
grant usage on schema {schema} to {role};
grant select, insert, update, delete on all tables in schema {schema} to {role};
grant usage on all sequences in schema {schema} to {role};
"""


class SchemaBehind(ConnectionError):
    """The database lacks the schema that this program needs: `migrate` was not run yet."""


class SchemaShared(Exception):
    """A module with the rights on all tables of its schema shares the schema: it could then change events."""

    own_words = True


class MigrationBlocked(Exception):
    """A table stayed in use, or another migration went on, for the whole time of waiting."""

    own_words = True


@dataclass(frozen=True)
class Tables:
    """The tables of one module: ordered steps of DDL, the role that services work as, and what it may do.

    `names` are further names that stand in the steps. Without `grants` the role may read and write all
    tables of the schema, so that no other module may have tables there; DDL and TRUNCATE it may in no case.
    `read_grants` is what `READER` may read, by default nothing.
    """

    module: str
    schema: str
    role: str
    steps: tuple[str, ...]
    grants: str = _OWN_TABLES
    names: tuple[tuple[str, sql.Composable], ...] = ()
    read_grants: str = ""

    def filled(self, text: str) -> sql.Composed:
        """A step with its names filled in."""
        known = {
            "schema": sql.Identifier(self.schema),
            "role": sql.Identifier(self.role),
            "reader": sql.Identifier(READER),
            **dict(self.names),
        }
        return sql.SQL(text).format(**known)  # type: ignore[arg-type, unused-ignore]


def migrate(
    owner_url: str,
    tables: Sequence[Tables],
    *,
    service_url: str | None = None,
    reader_url: str | None = None,
    private: bool = False,
    said: Callable[[str], None] = lambda _: None,
    tries_max: int = TRIES_MAX,
) -> int:
    """Brings a database to what `tables` say, as its owner; returns how many steps were run.

    Safe to repeat, and to run twice at once: the second waits for the first and finds nothing to do. The
    login of `service_url` becomes a member of the roles, unless it is the owner itself. The login of
    `reader_url` is made where it is missing and gets the rights of `READER` alone. Nobody but owner and
    service may connect to a `private` database. Raises MigrationBlocked, SchemaShared.
    """
    _refuse_shared(tables)
    login = None if service_url is None else conninfo_to_dict(service_url).get("user")
    with connect(owner_url, statement_seconds=STEP_SECONDS_MAX, lock_seconds=LOCK_SECONDS_MAX) as connection:
        connection.execute("set client_min_messages = warning")
        with _turn(connection):
            if not _recorded(connection):
                connection.execute(_TABLE)
            member = _login(connection, None if login is None else str(login))
            done = 0
            for each in tables:
                steps = _due(connection, each, member)
                for version, digest, statement in steps:
                    _run(connection, each.module, version, digest, statement, tries_max, said)
                done += len(steps)
            if reader_url is not None:
                _make_reader(connection, reader_url)
                close_to_public(connection, "temporary", said)
            if private:
                close_to_public(connection, "connect", said, but=member)
            return done


def missing(connection: "psycopg.Connection[Any]", tables: Sequence[Tables]) -> list[str]:
    """Returns the modules whose last step was not run in this database yet."""
    if not _recorded(connection):
        return [each.module for each in tables]
    reached = dict(
        connection.execute(
            "select module, max(version) from migrations.applied where module = any(%s) group by module",
            ([each.module for each in tables],),
        ).fetchall()
    )
    return [each.module for each in tables if reached.get(each.module, 0) < len(each.steps)]


def require(url: str, tables: Sequence[Tables]) -> None:
    """Raises SchemaBehind where a step was not run yet, OperationalError where the server does not answer.

    Changes nothing.
    """
    with connect(url) as connection:
        behind = missing(connection, tables)
    if behind:
        raise SchemaBehind(f"waits for `crm migrate`: the schema of {', '.join(behind)} is not there yet")


def _refuse_shared(tables: Sequence[Tables]) -> None:
    for each in tables:
        for other in tables:
            if each is not other and each.schema == other.schema and each.grants == _OWN_TABLES:
                raise SchemaShared(
                    f"{each.module} may write all tables of its schema, and {other.module} is in it too"
                )


def _recorded(connection: "psycopg.Connection[Any]") -> bool:
    row = connection.execute("select to_regclass('migrations.applied') is not null").fetchone()
    return row is not None and row[0] is True


def _login(connection: "psycopg.Connection[Any]", login: str | None) -> str | None:
    """Returns the login that services use, where it differs from this connection's."""
    row = connection.execute("select current_user").fetchone()
    return None if row is None or login == row[0] else login


@contextmanager
def _turn(connection: "psycopg.Connection[Any]") -> Iterator[None]:
    """One migration of a database at a time."""
    connection.execute("select set_config('lock_timeout', %s, false)", (f"{TURN_SECONDS_MAX}s",))
    try:
        connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
    except errors.LockNotAvailable:
        raise MigrationBlocked(f"another migration is at work for {TURN_SECONDS_MAX} s") from None
    connection.execute("select set_config('lock_timeout', %s, false)", (f"{LOCK_SECONDS_MAX * 1000:.0f}ms",))
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select pg_advisory_unlock(%s)", (_LOCK,))


def _due(
    connection: "psycopg.Connection[Any]", tables: Tables, member: str | None
) -> list[tuple[int, str, sql.Composed]]:
    """Returns the steps that were never run, or were run with another text. The grants follow each of them."""
    known: dict[int, str] = dict(
        connection.execute(
            "select version, digest from migrations.applied where module = %s", (tables.module,)
        ).fetchall()
    )
    steps = [
        (version, _digest(text), tables.filled(text))
        for version, text in enumerate(tables.steps, 1)
        if known.get(version) != _digest(text)
    ]
    rights = tables.grants + (_READER + tables.read_grants if tables.read_grants else "")
    granted = _digest("".join((rights, *tables.steps, tables.role, member or "")))
    if steps or known.get(_GRANTS_VERSION) != granted:
        steps.append((_GRANTS_VERSION, granted, tables.filled(rights + _membership(tables, member))))
    if not known:
        before = tables.filled(_ROLE + "create schema if not exists {schema};")
        version, digest, first = steps[0]
        steps[0] = version, digest, before + first
    return steps


def _membership(tables: Tables, member: str | None) -> str:
    if member is None:
        return "grant {role} to current_user;"
    quoted = sql.Identifier(member).as_string(None).replace("{", "{{").replace("}", "}}")
    return f"grant {{role}} to {quoted} with inherit true, set true;"


def _make_reader(connection: "psycopg.Connection[Any]", url: str) -> None:
    """Lets the login of that address act as the reader.

    An existing login keeps its password unless `migrate` made it.
    """
    known = conninfo_to_dict(url)
    login, password = str(known.get("user") or READER), known.get("password")
    found = connection.execute("select from pg_roles where rolname = %s", [login]).fetchone()
    with connection.transaction():
        connection.execute(sql.SQL(_READER).format(reader=sql.Identifier(READER)))
        name = sql.Identifier(login)
        if found is None or login == READER:
            how = sql.SQL("alter" if found is not None or login == READER else "create")
            sealed = None if password is None else _sealed(connection, login, str(password))
            connection.execute(
                sql.SQL("{} role {} login connection limit {} password {}").format(
                    how, name, READER_CONNECTIONS_MAX, sealed
                )
            )
        if login != READER:
            connection.execute(
                sql.SQL("grant {} to {} with inherit true").format(sql.Identifier(READER), name)
            )
            if found is None:
                connection.execute(
                    sql.SQL("alter role {} set default_transaction_read_only = on").format(name)
                )


def _sealed(connection: "psycopg.Connection[Any]", login: str, password: str) -> str:
    """The password as the server keeps it, so that no log of statements has it in clear."""
    return connection.pgconn.encrypt_password(password.encode(), login.encode(), b"scram-sha-256").decode()


def close_to_public(
    connection: "psycopg.Connection[Any]",
    right: str,
    said: Callable[[str], None] = lambda _: None,
    *,
    but: str | None = None,
) -> None:
    """Revokes a right on this database from `public`. Reports it where only the database's owner can do that.

    `right` is `temporary` or `connect`. With `temporary`, a superuser also revokes large objects, which
    every login could write otherwise.
    """
    database = sql.Identifier(connection.info.dbname)
    taken = sql.SQL("revoke {} on database {} from public").format(sql.SQL(right), database)
    row = connection.execute(
        "select pg_has_role(datdba, 'USAGE'), rolsuper, has_database_privilege('public', datname, %s)"
        " from pg_database, pg_roles where datname = current_database() and rolname = current_user",
        [right],
    ).fetchone()
    owns, superuser, open_to_all = row or (False, False, True)
    if not owns:
        if open_to_all:
            said(f"the owner of the database has to do this: {taken.as_string(connection)}")
        return
    with connection.transaction():
        if but is not None:
            given = sql.SQL("grant {} on database {} to {}")
            connection.execute(given.format(sql.SQL(right), database, sql.Identifier(but)))
        connection.execute(taken)
        if superuser and right == "temporary":
            for (function,) in connection.execute(_LARGE_OBJECTS).fetchall():
                connection.execute(
                    sql.SQL("revoke execute on function {} from public").format(sql.SQL(function))
                )


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _run(
    connection: "psycopg.Connection[Any]",
    module: str,
    version: int,
    digest: str,
    statement: sql.Composed,
    tries_max: int,
    said: Callable[[str], None],
) -> None:
    """Runs one step in one transaction with its record.

    Where a table is in use it tries again, a bounded number of times.
    """
    for turn in range(1, tries_max + 1):
        try:
            with connection.transaction():
                connection.execute(statement)
                connection.execute(
                    "insert into migrations.applied (module, version, digest) values (%s, %s, %s)"
                    " on conflict (module, version) do update"
                    " set digest = excluded.digest, applied_at = excluded.applied_at",
                    (module, version, digest),
                )
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            if turn == tries_max:
                raise MigrationBlocked(f"{module}, step {version}: a table is in use") from error
            said(f"{module}, step {version}: a table is in use; tried again in {PAUSE_SECONDS:g} s")
            connection.execute("select pg_sleep(%s)", (PAUSE_SECONDS,))
        else:
            return
