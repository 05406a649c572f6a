"""Every way to change or remove what was stored, tried as the service's role and as the owner of the tables."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.write.events import StoredEvent
from chassis.write.store import Append, Command, Recorder, writer_role
from psycopg import errors
from psycopg.conninfo import make_conninfo

STREAM = uuid5(UUID(int=1), "kept")
Connection = psycopg.Connection[Any]

REFUSED = (errors.InsufficientPrivilege, errors.RestrictViolation)
"""What a refusal is; a mistake in a statement of this test would be another error."""

CHANGES = [
    "update {s}.events set body = 'changed'",
    "update {s}.events set position = default",
    "update only {s}.events set version = 7 where false or version = 1",
    "delete from {s}.events",
    "delete from {s}.events using {s}.commands as c where c.stream_id = events.stream_id",
    "truncate {s}.events",
    "truncate {s}.events, {s}.commands restart identity cascade",
    "with gone as (delete from {s}.events returning *) select count(*) from gone",
    "with changed as (update {s}.events set body = 'x' returning *) select count(*) from changed",
    "insert into {s}.events (stream_id, version, name, body) values ('{stream}', 1, 'n', 'x')"
    " on conflict (stream_id, version) do update set body = excluded.body",
    "merge into {s}.events as e using (select 1) as one(n) on e.version = 1"
    " when matched then update set body = 'x'",
    "merge into {s}.events as e using (select 1) as one(n) on e.version = 1 when matched then delete",
    "update {s}.commands set version = 9",
    "delete from {s}.commands",
    "truncate {s}.commands",
]
"""Refused by privilege for the service, and by trigger for the owner."""

ONLY_THE_OWNER = [
    "insert into {s}.events (stream_id, version, name, body) values ('{stream}', 2, 'n', 'outside the lock')",
    "insert into {s}.events (position, stream_id, version, name, body) overriding system value"
    " values (-1, '{stream}', 2, 'n', 'before all others')",
    "insert into {s}.commands (key, fingerprint, stream_id, version, event_count) values ('k2', '', '{stream}', 1, 1)",
    "copy {s}.events (stream_id, version, name, body) from stdin",
    "copy {s}.events from program 'echo'",
    "copy {s}.events to program 'cat'",
    "select * from {s}.events for update",
    "select * from {s}.events for share",
    "lock table {s}.events in access exclusive mode",
    "drop table {s}.events",
    "drop table {s}.events cascade",
    "drop schema {s} cascade",
    "drop owned by {owner} cascade",
    "reassign owned by {owner} to {role}",
    "drop index {s}.events_identity",
    "drop trigger refuse_change on {s}.events",
    "drop function {s}.refuse_change() cascade",
    "create or replace function {s}.refuse_change() returns trigger language plpgsql"
    " as $$ begin return new; end $$",
    "create or replace function {s}.append_events(uuid[], integer[], text[], bytea[], uuid[], boolean)"
    " returns bigint[] language sql as $$ select null::bigint[] $$",
    "create trigger swallow before insert on {s}.events for each row execute function suppress_redundant_updates_trigger()",
    "create rule swallow as on insert to {s}.events do instead nothing",
    "create table {s}.heir () inherits ({s}.events)",
    "create index on {s}.events (name)",
    "alter table {s}.events disable trigger refuse_change",
    "alter table {s}.events disable trigger all",
    "alter table {s}.events disable trigger user",
    "alter table {s}.events alter column body type text using 'x'",
    "alter table {s}.events drop column body",
    "alter table {s}.events drop constraint events_stream_version",
    "alter table {s}.events rename to past",
    "alter table {s}.events set schema public",
    "alter table {s}.events owner to {role}",
    "alter table {s}.events enable row level security",
    "alter table {s}.events set unlogged",
    "alter table {s}.events alter column position drop identity",
    "alter sequence {s}.events_position_seq restart",
    "select setval('{s}.events_position_seq', 1)",
    "select nextval('{s}.events_position_seq')",
    "cluster {s}.events using events_stream_version",
    "alter role {role} superuser",
    "alter default privileges for role {owner} grant all on tables to {role}",
    "set role {owner}",
    "set session authorization {owner}",
    "set session_replication_role = replica",
    "set local session_replication_role = replica",
    "alter role {role} set session_replication_role = replica",
    "update pg_catalog.pg_trigger set tgenabled = 'D'",
    "delete from pg_catalog.pg_class where relname = 'events'",
    "select lo_import('/etc/hostname')",
    "select pg_read_file('PG_VERSION')",
]
"""Refused for the service by privilege; the owner of a table may do some of these, which is a stated limit."""


@pytest.fixture
def kept(recorder: Recorder) -> list[StoredEvent]:
    recorder.append_items(
        [Append(STREAM, (StoredEvent(STREAM, 1, "kept", b"as it was"),), Command("k1", b"f"))]
    )
    return recorder.read_after(0)


@pytest.fixture
def service(postgres_url: str, schema: str) -> Iterator[Connection]:
    """A login that is what a service is in production: a member of the writer role, and nothing else."""
    login = f"{schema}_service"
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(f"create role {login} login password 'service' in role {writer_role(schema)}")
        try:
            with psycopg.connect(make_conninfo(postgres_url, user=login, password="service")) as connection:
                connection.execute(f"set role {writer_role(schema)}")
                connection.commit()
                yield connection
        finally:
            owner.execute(f"drop role {login}")


def attempt(connection: Connection, statement: str, schema: str, owner: str) -> Exception | None:
    """What happens to a statement whose transaction would be committed."""
    text = statement.format(s=schema, stream=STREAM, role=writer_role(schema), owner=owner)
    try:
        with connection.transaction():
            if text.endswith("from stdin"):
                with connection.cursor().copy(text) as copy:  # type: ignore[arg-type, unused-ignore]
                    copy.write_row((STREAM, 2, "n", "x"))
            else:
                connection.execute(text)  # type: ignore[arg-type, unused-ignore]
    except psycopg.Error as error:
        return error
    return None


def owner_of(url: str, schema: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select tableowner from pg_tables where schemaname = %s and tablename = 'events'", (schema,)
        ).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.requirement("D05")
@pytest.mark.parametrize("statement", CHANGES + ONLY_THE_OWNER)
def test_the_service_cannot(
    statement: str,
    service: Connection,
    postgres_url: str,
    schema: str,
    recorder: Recorder,
    kept: list[StoredEvent],
) -> None:
    error = attempt(service, statement, schema, owner_of(postgres_url, schema))
    assert isinstance(error, REFUSED), error
    assert recorder.read_after(-10) == kept
    assert list(recorder.commands(["k1", "k2"])) == ["k1"]


def test_the_service_cannot_grant_itself_more(service: Connection, postgres_url: str, schema: str) -> None:
    """PostgreSQL answers such a grant with a warning only, so what counts is that nothing came of it."""
    attempt(service, "grant update, delete, truncate on {s}.events to {role}", schema, "")
    error = attempt(service, "delete from {s}.events", schema, "")
    assert isinstance(error, errors.InsufficientPrivilege), error


@pytest.mark.requirement("D05")
@pytest.mark.parametrize("replica", [False, True])
@pytest.mark.parametrize("statement", CHANGES)
def test_nor_can_the_owner_by_mistake(
    statement: str, replica: bool, postgres_url: str, schema: str, recorder: Recorder, kept: list[StoredEvent]
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        if replica:
            owner.execute("set session_replication_role = replica")
        error = attempt(owner, statement, schema, "postgres")
    assert isinstance(error, errors.RestrictViolation), error
    assert recorder.read_after(-10) == kept


def test_the_service_can_append_and_read(service: Connection, schema: str, kept: list[StoredEvent]) -> None:
    with service.transaction():
        service.execute(
            f"select {schema}.append_events(%s, %s, %s, %s, %s, true)",
            ([STREAM], [2], ["kept"], [b"more"], [None]),
        )
    assert service.execute(f"select count(*) from {schema}.events").fetchone() == (2,)


def test_a_table_put_before_ours_is_not_written_to(
    service: Connection, schema: str, recorder: Recorder, kept: list[StoredEvent]
) -> None:
    """The functions run with their owner's rights, so nothing of the caller's may stand in for what they name."""
    with service.transaction():
        service.execute("create temporary table events (like pg_class)")
        service.execute(
            "create function pg_temp.pg_notify(text, text) returns void language sql as $$ select $$"
        )
        service.execute("set local search_path = pg_temp, public")
        service.execute(
            f"select {schema}.append_events(%s, %s, %s, %s, %s, true)",
            ([STREAM], [2], ["kept"], [b"more"], [None]),
        )
    assert len(recorder.read_after(0)) == 2


def test_commands_that_are_too_old_are_forgotten_some_at_a_time_and_no_fresh_one_ever(
    service: Connection, postgres_url: str, schema: str, recorder: Recorder, kept: list[StoredEvent]
) -> None:
    statement = (
        f"insert into {schema}.commands (key, fingerprint, stream_id, version, event_count, recorded_at)"
        f" select 'old' || n, ''::bytea, '{STREAM}'::uuid, 1, 1, now() - interval '31 days' from generate_series(1, 5) as n"
        f" union all select 'younger', ''::bytea, '{STREAM}'::uuid, 1, 1, now() - interval '29 days'"
    )
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(statement)  # type: ignore[call-overload, unused-ignore]
    assert [recorder.prune_commands(30, 3) for _ in range(3)] == [3, 2, 0]
    assert set(recorder.commands(["old1", "old5", "younger", "k1"])) == {"younger", "k1"}
    assert recorder.prune_commands(0, 100) == 1, "whatever is asked, a command is kept for a day"
    assert list(recorder.commands(["k1", "younger"])) == ["k1"]
    assert isinstance(attempt(service, "delete from {s}.commands", schema, ""), errors.InsufficientPrivilege)
    assert recorder.read_after(-10) == kept
