"""What we write as arrays, PostgreSQL reads as the same values."""

from uuid import UUID

import psycopg
import pytest
from chassis.write.store import arrays
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

WITHOUT_NULL = some.text(some.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=20)
ROWS = some.lists(
    some.tuples(
        some.none() | some.uuids(),
        some.integers(-(2**31), 2**31 - 1),
        WITHOUT_NULL,
        some.binary(max_size=50),
    ),
    max_size=20,
)


@pytest.fixture(scope="module")
def connection(postgres_url: str):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        arrays.register(connection)
        yield connection


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_arrays_come_back_as_they_went(
    connection: psycopg.Connection, rows: list[tuple[UUID | None, int, str, bytes]]
) -> None:
    ids, numbers, names, bodies = ([row[at] for row in rows] for at in range(4))
    found = connection.execute(
        "select %b::uuid[], %b::int[], %b::text[], %b::bytea[]",
        (arrays.uuids(ids), arrays.integers(numbers), arrays.texts(names), arrays.binaries(bodies)),
        binary=True,
    ).fetchone()
    assert found == (ids, numbers, names, bodies)
