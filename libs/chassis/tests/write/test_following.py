"""Writers at once, some of which fail, and a reader that follows: does it see everything, in order?

The same race is run against our recorder, where nothing may be missed, and against the library's database functions,
which draw positions without a lock: there something must be missed, or this test could not fail at all. In both, a
transaction stays open for a moment after its positions are drawn, as it does on a busy disk: so the outcome does not
hang on how the threads happen to run.
"""

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg
import pytest
from chassis.write.store.library import OneRoundTripRecorder
from eventsourcing.persistence import ApplicationRecorder, IntegrityError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg.conninfo import conninfo_to_dict

WRITERS = 6
SECONDS_MAX = 6.0
BATCHES_PER_WRITER = 120
PAGE_EVENTS = 200
OPEN_SECONDS_MAX = 0.004


@dataclass
class Race:
    """What was stored, by whom, and what the reader saw."""

    written: set[tuple[UUID, int]] = field(default_factory=set)
    seen: list[tuple[UUID, int]] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    aborted: int = 0

    @property
    def missed(self) -> set[tuple[UUID, int]]:
        return self.written - set(self.seen)


def run(recorder: ApplicationRecorder, seed: int) -> Race:
    race, done, lock, started = Race(), threading.Event(), threading.Lock(), monotonic()

    def write(number: int) -> None:
        chance = random.Random(f"{seed}-{number}")
        heads = {UUID(int=number * 100 + n): 0 for n in range(20)}
        for _ in range(BATCHES_PER_WRITER):
            if monotonic() - started > SECONDS_MAX:
                return
            stream = chance.choice(list(heads))
            head, size = heads[stream], chance.choice([1, 1, 2, 5, 50, 300])
            versions = list(range(head + 1, head + 1 + size))
            failing = head > 0 and chance.random() < 0.3
            batch = [StoredEvent(stream, version, "noted", b"x" * 200) for version in versions]
            if failing:
                batch.append(StoredEvent(stream, head, "noted", b"taken"))
            try:
                recorder.insert_events(batch)
            except IntegrityError:
                assert failing
                with lock:
                    race.aborted += 1
            else:
                assert not failing
                heads[stream] += size
                with lock:
                    race.written.update((stream, version) for version in versions)

    def follow() -> None:
        last = 0
        while True:
            ending = done.is_set()
            page = recorder.select_notifications(last, PAGE_EVENTS, inclusive_of_start=False)
            race.seen.extend((UUID(str(one.originator_id)), one.originator_version) for one in page)
            race.positions.extend(one.id for one in page)
            last = race.positions[-1] if race.positions else 0
            if ending and not page:
                return

    reader = threading.Thread(target=follow)
    writers = [threading.Thread(target=write, args=(number,)) for number in range(1, WRITERS + 1)]
    for thread in [reader, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    return race


def linger(postgres_url: str, schema: str, table: str) -> None:
    """Keeps every transaction that inserts into the table open for a random moment before it commits."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            f"create function {schema}.linger() returns trigger language plpgsql as "
            f"'begin perform pg_sleep({OPEN_SECONDS_MAX} * random()); return null; end'"
        )
        connection.execute(
            f"create trigger linger after insert on {schema}.{table} execute function {schema}.linger()"
        )


@pytest.mark.parametrize("seed", [1, 2])
def test_a_following_reader_misses_nothing_and_sees_it_in_order(
    postgres_url: str, schema: str, seed: int
) -> None:
    linger(postgres_url, schema, "events")
    recorder = OneRoundTripRecorder(postgres_url, schema)
    try:
        race = run(recorder, seed)
    finally:
        recorder.close()
    assert race.aborted > 20
    assert len(race.written) > 2_000
    assert race.missed == set()
    assert len(race.seen) == len(race.written)
    assert race.positions == sorted(set(race.positions))
    heads: dict[UUID, int] = {}
    for stream, version in race.seen:
        assert version == heads.get(stream, 0) + 1
        heads[stream] = version


@pytest.fixture
def with_database_functions(postgres_url: str) -> Iterator[PostgresApplicationRecorder]:
    parts: dict[str, Any] = conninfo_to_dict(postgres_url)
    schema = "library_functions"
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"drop schema if exists {schema} cascade")
        connection.execute(f"create schema {schema}")
    datastore = PostgresDatastore(
        dbname=parts["dbname"],
        host=parts.get("host", ""),
        port=str(parts.get("port", "5432")),
        user=parts.get("user", "postgres"),
        password=parts.get("password", ""),
        schema=schema,
        pool_size=WRITERS + 2,
        enable_db_functions=True,
    )
    recorder = PostgresApplicationRecorder(datastore, events_table_name="noted")
    recorder.create_table()
    linger(postgres_url, schema, "noted")
    yield recorder
    datastore.close()


def test_the_same_reader_does_miss_events_of_the_librarys_functions(
    with_database_functions: PostgresApplicationRecorder,
) -> None:
    assert run(with_database_functions, seed=1).missed != set()
