"""Connections to PostgreSQL, and what they leave when they break."""

import gc
import warnings

import psycopg
import pytest
from chassis.connections.postgres import connect, connect_async


def test_a_server_cursor_whose_connection_breaks_before_it_closes_is_closed(postgres_url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with connect(postgres_url) as reading, connect(postgres_url) as other:
            reading.execute("begin")
            cursor = reading.cursor("numbers")
            cursor.execute("select generate_series(1, 10)")
            assert cursor.fetchone() == (1,)
            other.execute("select pg_terminate_backend(%s, 5000)", (reading.info.backend_pid,))
            with pytest.raises(psycopg.OperationalError):
                cursor.close()
            assert cursor.closed
            del cursor
            gc.collect()


def test_a_server_cursor_whose_rows_cannot_be_computed_is_closed_and_its_connection_goes_on(
    postgres_url: str,
) -> None:
    with connect(postgres_url) as reading:
        reading.execute("begin")
        cursor = reading.cursor("numbers")
        cursor.execute("select 1 / (3 - number) from generate_series(1, 10) as number")
        with pytest.raises(psycopg.errors.DivisionByZero):
            cursor.fetchall()
        cursor.close()
        assert cursor.closed
        reading.execute("rollback")
        assert reading.execute("select 1").fetchone() == (1,)


async def test_text_is_sent_as_utf8_whatever_the_environment_says(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    name = "\U00020bb7野"
    with connect(postgres_url) as connection:
        assert connection.execute("select %s::text", [name]).fetchone() == (name,)
    async with await connect_async(postgres_url) as opened:
        assert await (await opened.execute("select %s::text", [name])).fetchone() == (name,)
