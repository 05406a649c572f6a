"""Keys that live apart, erasure, and what the files of PostgreSQL show to somebody who has them."""

import asyncio
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import is_transient
from chassis.privacy.key_encryption import FileKeyEncryption, KeyEncryptionMissing, Tampered
from chassis.privacy.keys import KEYS_CACHED_SECONDS, KeyRing, open_bytes, seal_bytes
from chassis.write.catalogue import NewEvent
from chassis.write.handling import CommandHandler
from chassis.write.snapshots import Snapshots
from chassis.write.store import EventStore

from tests.support.jars import JAR, FillJar, JarOpened, OpenJar, catalogue, context, jar, metadata
from tests.support.specification import ManualClock
from tests.support.waiting import until

A, B, C = jar("a"), jar("b"), jar("c")


def test_a_key_is_made_once_and_found_again(key_ring: KeyRing, keys_url: str, tmp_path: Path) -> None:
    made = key_ring.keys_for([A, B, A])
    assert made[A].id != made[B].id
    assert made[A].derive("d") != made[B].derive("d")
    again = KeyRing(keys_url, FileKeyEncryption.at(tmp_path / "kek", create=True), SystemClock().monotonic)
    found = again.keys_for([A, B, C])
    assert {one: found[one].derive("d") for one in (A, B)} == {one: made[one].derive("d") for one in (A, B)}
    assert again.keys_for([jar("never")], create=False) == {}
    again.close()


def test_makers_at_once_agree(keys_url: str, key_ring: KeyRing, tmp_path: Path) -> None:
    subjects = [uuid5(A, str(n)) for n in range(300)]
    found: list[dict[UUID, bytes]] = []

    def make(order: int) -> None:
        ring = KeyRing(keys_url, FileKeyEncryption.at(tmp_path / "kek", create=True), SystemClock().monotonic)
        keys = ring.keys_for(subjects[::order])
        found.append({subject: key.derive("d") for subject, key in keys.items()})
        ring.close()

    threads = [threading.Thread(target=make, args=(order,)) for order in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(one == found[0] for one in found)
    assert len(found[0]) == 300


def test_services_that_ask_at_once_share_one_secret_per_purpose(
    keys_url: str, key_ring: KeyRing, tmp_path: Path
) -> None:
    found: list[bytes] = []

    def ask() -> None:
        ring = KeyRing(keys_url, FileKeyEncryption.at(tmp_path / "kek", create=True), SystemClock().monotonic)
        found.append(ring.secret("ids"))
        ring.close()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [key_ring.secret("ids")] * 6
    assert len(found[0]) == 32
    assert key_ring.secret("others") != found[0]
    assert found[0].hex() not in repr(key_ring)
    with psycopg.connect(keys_url) as connection:
        kept = connection.execute("select wrapped from secrets").fetchall()
        assert not any(found[0] in row[0] for row in kept), "a secret is kept wrapped"
        connection.execute("update secrets set purpose = 'moved' where purpose = 'others'")
    with pytest.raises(Tampered):
        key_ring.secret("moved")


@pytest.mark.requirement("M48")
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    FileKeyEncryption.at(tmp_path / "kek", create=True)
    assert (tmp_path / "kek").stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["kek"]
    for mode in (0o644, 0o640, 0o604, 0o444, 0o460, 0o441):
        (tmp_path / "kek").chmod(mode)
        with pytest.raises(PermissionError, match=f"mode {mode:o}"):
            FileKeyEncryption.at(tmp_path / "kek", create=True)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600])
def test_a_key_file_as_a_pod_has_it_is_read(tmp_path: Path, mode: int) -> None:
    FileKeyEncryption.at(tmp_path / "kek", create=True)
    (tmp_path / "kek").chmod(mode)
    FileKeyEncryption.at(tmp_path / "kek", create=True)


def test_a_key_that_is_gone_is_made_anew_in_development_only(keys_url: str, tmp_path: Path) -> None:
    settings = Settings(postgres_url=keys_url, keys_url=keys_url, data=tmp_path, environment="production")
    with pytest.raises(
        KeyEncryptionMissing, match=f"^there is no key-encryption key at {tmp_path}/keys/kek$"
    ):
        KeyRing.of(settings, SystemClock().monotonic)
    assert list(tmp_path.iterdir()) == []
    assert is_transient(KeyEncryptionMissing()), "a role waits, and says why"
    for environment in ("development", "production"):
        of = settings.model_copy(update={"environment": environment})
        KeyRing.of(of, SystemClock().monotonic).close()


def test_another_key_encryption_key_opens_nothing(key_ring: KeyRing, keys_url: str, tmp_path: Path) -> None:
    key_ring.keys_for([A])
    thief = KeyRing(keys_url, FileKeyEncryption.at(tmp_path / "other", create=True), SystemClock().monotonic)
    with pytest.raises(Tampered):
        thief.keys_for([A])
    thief.close()


def test_a_wrapped_key_moved_to_another_subject_does_not_open(key_ring: KeyRing, keys_url: str) -> None:
    key_ring.keys_for([A, B])
    with psycopg.connect(keys_url) as connection:
        connection.execute(
            "update data_keys set wrapped = (select wrapped from data_keys where subject = %s) where subject = %s",
            (A, B),
        )
    fresh = KeyRing(keys_url, key_ring.encryption, SystemClock().monotonic)
    with pytest.raises(Tampered):
        fresh.keys_for([B])
    fresh.close()


@pytest.mark.requirement("M22")
def test_an_erased_subject_has_no_key_ever_again(key_ring: KeyRing, keys_url: str) -> None:
    key_ring.keys_for([A, B])
    assert key_ring.erase([A, C]) == 1
    assert set(key_ring.keys_for([A, B, C])) == {B}
    assert key_ring.cached(A) is None
    with psycopg.connect(keys_url) as connection:
        row = connection.execute("select wrapped from data_keys where subject = %s", (A,)).fetchone()
    assert row == (None,)


def test_an_erasure_elsewhere_is_noticed_within_the_stated_time(key_ring: KeyRing, keys_url: str) -> None:
    clock = ManualClock()
    elsewhere = KeyRing(keys_url, key_ring.encryption, clock.monotonic)
    assert set(elsewhere.keys_for([A])) == {A}
    key_ring.erase([A])
    clock.advance(KEYS_CACHED_SECONDS + 1)
    assert elsewhere.cached(A) is None
    assert elsewhere.keys_for([A]) == {}
    elsewhere.close()


def test_the_cache_is_bounded(key_ring: KeyRing, keys_url: str) -> None:
    small = KeyRing(keys_url, key_ring.encryption, SystemClock().monotonic, cached_max=3)
    subjects = [uuid5(A, str(n)) for n in range(10)]
    assert len(small.keys_for(subjects)) == 10
    assert sum(small.cached(one) is not None for one in subjects) == 3
    small.close()


def test_a_key_at_hand_is_given_while_the_database_is_waited_for(key_ring: KeyRing, keys_url: str) -> None:
    key_ring.keys_for([A, B])
    with psycopg.connect(keys_url) as holding:
        holding.execute("lock table data_keys in access exclusive mode")
        erasing = threading.Thread(target=key_ring.erase, args=([A],))
        erasing.start()
        erasing.join(0.2)
        assert erasing.is_alive()
        assert key_ring.cached(B) is not None
    erasing.join()
    assert key_ring.cached(A) is None


def test_an_erasure_while_others_load_leaves_no_key_at_hand(key_ring: KeyRing) -> None:
    subjects = [uuid5(A, f"erased {n}") for n in range(40)]

    def load() -> None:
        for subject in subjects:
            key_ring.keys_for([subject])
            key_ring.keys_for(subjects[:5])

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for subject in subjects:
        key_ring.erase([subject])
    for thread in threads:
        thread.join()
    assert [one for one in subjects if key_ring.cached(one) is not None] == []
    assert key_ring.keys_for(subjects) == {}


async def test_a_state_in_memory_does_not_outlive_the_key_that_opened_it(
    store: EventStore, keys_url: str, key_ring: KeyRing
) -> None:
    clock = ManualClock()
    ring = KeyRing(keys_url, key_ring.encryption, clock.monotonic)
    handler = CommandHandler(JAR, store, catalogue(), ring)
    await handler.handle(A, OpenJar("Li Wei", "for rainy days", "bean"), context("1"))
    assert (await handler.load(A)).state.owner == "Li Wei"
    key_ring.erase([A])
    clock.advance(KEYS_CACHED_SECONDS + 1)
    assert (await handler.load(A)).state.owner == "***"
    await handler.handle(A, FillJar(1), context("2"))
    assert (await handler.load(A)).state.owner == "***"
    ring.close()


def test_a_lost_connection_is_opened_again(key_ring: KeyRing, keys_url: str) -> None:
    key_ring.keys_for([A])
    with psycopg.connect(keys_url, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    assert set(key_ring.keys_for([B])) == {B}


async def test_a_key_database_that_answers_nothing_is_not_waited_for(
    key_ring: KeyRing, keys_url: str
) -> None:
    clock = SystemClock()
    ring = KeyRing(keys_url, key_ring.encryption, clock.monotonic, statement_seconds=0.5, turn_seconds=0.2)
    ring.keys_for([A])
    backend: int = ring._connected().info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    try:
        began = clock.monotonic()
        asking = asyncio.create_task(asyncio.to_thread(ring.keys_for, [B]))
        await until(ring._database.locked)
        with pytest.raises(psycopg.OperationalError, match="others have asked"):
            await asyncio.to_thread(ring.keys_for, [C])
        assert ring.cached(A) is not None
        assert set(await asking) == {B}, "a new connection was not asked"
        assert clock.monotonic() - began < 20
    finally:
        os.kill(backend, signal.SIGCONT)
    assert set(ring.keys_for([C])) == {C}
    ring.close()


def test_bytes_open_only_where_they_belong(key_ring: KeyRing) -> None:
    keys = key_ring.keys_for([A, B])
    sealed = seal_bytes(keys[A], "chunk|1", b"as it came")
    assert open_bytes(keys[A], "chunk|1", sealed) == b"as it came"
    assert open_bytes(keys[B], "chunk|1", sealed) is None
    assert open_bytes(None, "chunk|1", sealed) is None
    for place, changed in (("chunk|2", sealed), ("chunk|1", sealed[:-1] + b"?")):
        with pytest.raises(Tampered):
            open_bytes(keys[A], place, changed)


@pytest.mark.requirement("R087")
async def test_no_file_of_postgresql_holds_a_personal_value(
    postgres_url: str, schema: str, store: EventStore, key_ring: KeyRing
) -> None:
    secrets = ["Zweistein-Erasmus", "quarterly-note-about-him", "Ürümqi-Straße 欧阳娜娜"]
    visible = "unit-that-is-no-secret"
    snapshots = Snapshots(store, key_ring, kind="jar", decider=JAR, every_events=1)
    handler = CommandHandler(JAR, store, catalogue(), key_ring, snapshots=snapshots)
    await handler.handle(A, OpenJar(secrets[0], secrets[1], visible), context("1", idempotency_key="k"))
    await handler.handle(A, FillJar(1), context("2"))
    await snapshots.settle()
    keys = key_ring.keys_for([B])
    events = [NewEvent(B, 1, JarOpened(secrets[2], None, visible), metadata())]
    await store.append_bulk(catalogue().stored(events, keys))

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        row = connection.execute("show data_directory").fetchone()
        assert row is not None
        connection.execute("checkpoint")
    files = [path for path in Path(str(row[0])).rglob("*") if path.is_file()]  # noqa: ASYNC240 (a test may wait)
    content = []
    for path in files:
        with suppress(FileNotFoundError):  # PostgreSQL removes and makes some of its caches at any time
            content.append(path.read_bytes())
    assert any(visible.encode() in one for one in content), "the search itself finds nothing"
    kept = {material for key in key_ring.keys_for([A, B]).values() for material in (key.material,)}
    for one in content:
        for secret in secrets:
            assert secret.encode() not in one
            assert secret.encode().hex().encode() not in one
        for material in kept:
            assert material not in one


def test_a_connection_that_is_given_up_is_closed(key_ring: KeyRing) -> None:
    key_ring.keys_for([A])
    given_up, tries = key_ring._connection, []

    def cancelled_once() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise psycopg.errors.QueryCanceled
        return len(tries)

    assert key_ring._asked(cancelled_once) == 2
    assert given_up is not None
    assert given_up.closed
