"""A store is written under one secret; another one is told before anything is written under it."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest
from chassis.connections.postgres import connect
from chassis.connections.transient import is_transient, why
from chassis.privacy.keys import KeyRing
from chassis.write.events import StoredEvent
from chassis.write.secret_checks import SecretDiffers, secret_of
from chassis.write.store import Recorder, writer_role

PURPOSE = "ids"


def lose(keys_url: str) -> None:
    with psycopg.connect(keys_url, autocommit=True) as connection:
        connection.execute("delete from secrets")


def count(keys_url: str) -> int:
    with psycopg.connect(keys_url) as connection:
        row = connection.execute("select count(*) from secrets").fetchone()
        return int(row[0]) if row else 0


def test_who_comes_first_makes_the_secret_and_all_agree(
    postgres_url: str, schema: str, key_ring: KeyRing
) -> None:
    with ThreadPoolExecutor(6) as threads:
        found = [
            threads.submit(secret_of, key_ring, postgres_url, schema, PURPOSE).result() for _ in range(6)
        ]
    assert set(found) == {key_ring.secret(PURPOSE, create=False)}


def test_a_lost_secret_is_said_and_no_second_one_is_made(
    postgres_url: str, schema: str, key_ring: KeyRing, keys_url: str
) -> None:
    secret_of(key_ring, postgres_url, schema, PURPOSE)
    lose(keys_url)
    with pytest.raises(SecretDiffers, match="is not in the key database") as refused:
        secret_of(key_ring, postgres_url, schema, PURPOSE)
    assert is_transient(refused.value)
    assert "\n" not in why(refused.value)
    assert count(keys_url) == 0


def test_another_secret_than_the_one_that_a_store_was_written_with_is_refused(
    postgres_url: str, schema: str, key_ring: KeyRing, keys_url: str
) -> None:
    secret_of(key_ring, postgres_url, schema, PURPOSE)
    lose(keys_url)
    key_ring.secret(PURPOSE)
    with pytest.raises(SecretDiffers, match="another one"):
        secret_of(key_ring, postgres_url, schema, PURPOSE)


def test_a_store_that_was_written_before_checks_were_kept_takes_the_secret_that_is_there_and_makes_none(
    postgres_url: str, schema: str, key_ring: KeyRing, keys_url: str, recorder: Recorder
) -> None:
    recorder.append_bulk([StoredEvent(UUID(int=1), 1, "noted", b"{}")])
    with pytest.raises(SecretDiffers):
        secret_of(key_ring, postgres_url, schema, PURPOSE)
    assert count(keys_url) == 0
    secret = key_ring.secret(PURPOSE)
    assert secret_of(key_ring, postgres_url, schema, PURPOSE) == secret


@pytest.mark.parametrize("change", ["update secret_checks set digest = ''", "delete from secret_checks"])
def test_a_service_cannot_change_a_check_value(
    postgres_url: str, schema: str, key_ring: KeyRing, change: str
) -> None:
    secret_of(key_ring, postgres_url, schema, PURPOSE)
    with connect(postgres_url, role=writer_role(schema)) as connection:
        connection.execute(f"set search_path = {schema}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(change)
