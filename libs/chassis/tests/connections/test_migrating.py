"""Schema changes as a step of their own: in order, once, twice at once, behind readers, and by nobody but the owner."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import pytest
from chassis.connections.migrating import (
    MigrationBlocked,
    SchemaBehind,
    SchemaShared,
    Tables,
    migrate,
    require,
)
from chassis.write.events import StoredEvent
from chassis.write.store import Recorder, tables
from psycopg import errors
from psycopg.conninfo import make_conninfo

_NUMBERS = count(1)
FIRST = "create table if not exists {schema}.notes (id integer primary key);"
SECOND = "alter table {schema}.notes add column if not exists text text;"


@pytest.fixture
def url(postgres_url: str) -> str:
    """A database of its own."""
    name = f"migrating{next(_NUMBERS)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return make_conninfo(postgres_url, dbname=name)


@pytest.fixture
def logins(url: str) -> Iterator[tuple[str, str]]:
    """The owner's address, and that of a service that owns nothing."""
    owner, service = f"owner{next(_NUMBERS)}", f"service{next(_NUMBERS)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create role {owner} login createrole")
        connection.execute(f"create role {service} login")
        connection.execute(f"grant create on database {connection.info.dbname} to {owner}")
    return make_conninfo(url, user=owner), make_conninfo(url, user=service)


def notes(*steps: str) -> Tables:
    return Tables("notes", "notes", "crm_notes_writer", steps)


def rows(url: str, question: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(question).fetchall()


def test_steps_are_run_in_order_and_once(url: str) -> None:
    assert migrate(url, [notes(FIRST)]) == 2
    assert migrate(url, [notes(FIRST)]) == 0
    assert migrate(url, [notes(FIRST, SECOND)]) == 2
    assert rows(url, "select version from migrations.applied order by version") == [(0,), (1,), (2,)]
    assert migrate(url, [notes(FIRST + " ", SECOND)]) == 2, "a text that was edited is run once more"


def test_two_at_once_leave_what_one_leaves(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: migrate(url, [tables("store_twice"), notes(FIRST)]), range(4)))
    assert sorted(done)[:3] == [0, 0, 0]
    require(url, [tables("store_twice"), notes(FIRST)])


def test_what_was_not_migrated_is_said_and_nothing_is_made(url: str) -> None:
    with pytest.raises(SchemaBehind, match=r"crm migrate.*notes"):
        require(url, [notes(FIRST)])
    migrate(url, [notes(FIRST)])
    with pytest.raises(SchemaBehind):
        require(url, [notes(FIRST, SECOND)])
    require(url, [notes(FIRST)])
    migrate(url, [notes(FIRST, SECOND)])
    require(url, [notes(FIRST)]), "an older program runs on a newer schema"


def test_an_open_reader_does_not_stop_those_who_write(url: str) -> None:
    """A statement that waits for a table stops everybody behind it: the step gives up and comes again."""
    store = tables("store_busy")
    migrate(url, [store])
    recorder, said = Recorder(url, "store_busy"), threading.Event()
    stream = UUID(int=1)
    changed = replace(
        store, steps=(*store.steps, "alter table {schema}.events add column if not exists more text;")
    )
    with psycopg.connect(url) as reader, ThreadPoolExecutor(1) as pool:
        reader.execute("select count(*) from store_busy.events")
        migrating = pool.submit(migrate, url, [changed], said=lambda _: said.set())
        assert said.wait(10)
        recorder.append_bulk([StoredEvent(stream, 1, "n", b"{}")])
        reader.rollback()
        assert migrating.result(30) == 2
    recorder.close()


def test_a_table_that_stays_in_use_ends_the_migration_with_its_name(url: str) -> None:
    migrate(url, [notes(FIRST)])
    with psycopg.connect(url) as reader:
        reader.execute("select * from notes.notes")
        with pytest.raises(MigrationBlocked, match="notes, step 2"):
            migrate(url, [notes(FIRST, SECOND)], tries_max=1)


def test_tables_beside_events_in_one_schema_are_refused_because_events_could_be_changed_then(
    url: str,
) -> None:
    beside = replace(notes(FIRST), schema="store_shared")
    with pytest.raises(SchemaShared, match="notes may write all tables"):
        migrate(url, [tables("store_shared"), beside])
    assert rows(url, "select to_regclass('store_shared.notes')") == [(None,)]
    migrate(url, [tables("store_shared"), notes(FIRST)])


def test_a_service_works_and_owns_nothing(logins: tuple[str, str]) -> None:
    owner, service = logins
    all_tables = [tables("store_own"), replace(notes(FIRST), role="crm_own_writer")]
    assert migrate(owner, all_tables, service_url=service) > 0
    assert migrate(owner, all_tables, service_url=service) == 0
    recorder = Recorder(service, "store_own")
    recorder.append_bulk([StoredEvent(UUID(int=1), 1, "n", b"{}")])
    recorder.close()
    with psycopg.connect(service, autocommit=True) as connection:
        connection.execute("insert into notes.notes values (1)")
        connection.execute("update notes.notes set id = 2")
        for statement in (
            "reset role",
            "set role crm_own_writer",
        ):
            connection.execute(statement)
            for refused in (
                "delete from store_own.events",
                "update store_own.events set name = 'x'",
                "truncate store_own.events",
                "drop table store_own.events",
                "alter table store_own.events disable trigger all",
                "create table store_own.more ()",
                "alter table notes.notes add column x int",
                "truncate notes.notes",
                "update migrations.applied set version = 9",
                f"set role {connection.info.user.replace('service', 'owner')}",
            ):
                with pytest.raises((errors.InsufficientPrivilege, errors.InvalidParameterValue)):
                    connection.execute(refused)  # type: ignore[arg-type, unused-ignore]
    assert rows(owner, "select count(*) from store_own.events") == [(1,)]
