"""Other key-encryption keys, while keys are made, read and destroyed: what was sealed opens, what was destroyed does not."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.privacy.key_encryption import (
    AesKeyEncryption,
    KeyEncryption,
    KeyEncryptionUnusable,
    WrongKeyEncryption,
)
from chassis.privacy.keys import KeyEncryptionKeys, KeyRing, seal, unseal
from chassis.privacy.rotating import (
    RootKeyWraps,
    RotationRuns,
    Wrapping,
    _alone,
    replace_root_key,
    rotate,
    wrappings,
)
from typing_extensions import override

from tests.support.fixtures import empty_keys

ROOT = UUID("9d1d8d1e-7a0f-4c43-9a52-63cf6a0c5f11")
SUBJECTS = [uuid5(ROOT, str(number)) for number in range(40)]


@pytest.fixture
def keys_url(postgres_url: str) -> str:
    """A key database of its own: a rotation changes all of it."""
    return empty_keys(postgres_url)


class Failing(KeyEncryption):
    """A root key whose process ends after some calls."""

    def __init__(self, inner: KeyEncryption, calls: int) -> None:
        self._inner, self._left = inner, calls

    def _call(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise InterruptedError("the process ends here")

    @override
    def wrap(self, material: bytes, aad: bytes) -> bytes:
        self._call()
        return self._inner.wrap(material, aad)

    @override
    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        self._call()
        return self._inner.unwrap(wrapped, aad)


class Overtaken(KeyEncryption):
    """A root key, during whose next uses somebody rotates."""

    def __init__(self, inner: KeyEncryption, url: str, times: int) -> None:
        self._inner, self._url, self._left = inner, url, times

    @override
    def wrap(self, material: bytes, aad: bytes) -> bytes:
        return self._inner.wrap(material, aad)

    @override
    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        found = self._inner.unwrap(wrapped, aad)
        if self._left:
            self._left -= 1
            rotate(self._url, self._inner)
        return found


class OnlyWraps(KeyEncryption):
    """A root key of a KMS that this identity may wrap with, and not unwrap; `comes_out` instead, where that is given."""

    remote = True

    def __init__(self, comes_out: bytes | None = None) -> None:
        self._comes_out = comes_out

    @override
    def wrap(self, material: bytes, aad: bytes) -> bytes:
        return bytes(40)

    @override
    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        if self._comes_out is None:
            raise KeyEncryptionUnusable("the KMS refuses: AccessDeniedException")
        return self._comes_out


def opens(url: str, root: KeyEncryption) -> dict[UUID, bytes]:
    """The materials that a process finds that starts now."""
    ring = KeyRing(url, root, SystemClock().monotonic)
    try:
        return {subject: key.material for subject, key in ring.keys_for(SUBJECTS, create=False).items()}
    finally:
        ring.close()


def test_after_a_rotation_another_key_wraps_everything_and_everything_opens(
    key_ring: KeyRing, keys_url: str
) -> None:
    before = {subject: key.material for subject, key in key_ring.keys_for(SUBJECTS).items()}
    secret = key_ring.secret("rotated")
    token = seal(key_ring.keys_for(SUBJECTS)[SUBJECTS[0]], b"place", "张伟")
    key_ring.erase(SUBJECTS[:3])
    kept = {subject: before[subject] for subject in SUBJECTS[3:]}
    assert wrappings(keys_url)[0].number is None

    first = rotate(keys_url, key_ring.encryption, rows_per_statement=7)
    assert (first.number, first.data_keys >= len(kept), first.resumed) == (1, True, False)
    second = rotate(keys_url, key_ring.encryption)
    assert (second.number, second.data_keys, second.secrets) == (2, first.data_keys, first.secrets)
    assert wrappings(keys_url) == [Wrapping(None, 0, 0), Wrapping(2, second.data_keys, second.secrets)]

    assert opens(keys_url, key_ring.encryption) == kept
    assert key_ring.secret("rotated") == secret
    assert unseal(key_ring.keys_for(SUBJECTS, create=False).get(SUBJECTS[0]), b"place", token) == "***"
    with psycopg.connect(keys_url) as connection:
        rows = connection.execute("select subject, encryption from data_keys where wrapped is not null")
        assert {number for _, number in rows} == {2}


@pytest.mark.parametrize("calls", range(0, 46, 5))
def test_an_interrupted_rotation_is_ended_by_the_next_one(
    key_ring: KeyRing, keys_url: str, calls: int
) -> None:
    before = {subject: key.material for subject, key in key_ring.keys_for(SUBJECTS).items()}
    try:
        rotate(keys_url, Failing(key_ring.encryption, calls), rows_per_statement=6)
        interrupted = False
    except InterruptedError:
        interrupted = True
    assert opens(keys_url, key_ring.encryption) == before, "between the two"
    made = [one.number for one in wrappings(keys_url) if one.number is not None]
    ended = rotate(keys_url, key_ring.encryption)
    assert ended.number == (1 if interrupted else 2)
    assert ended.resumed == (interrupted and made == [1])
    assert [one.number for one in wrappings(keys_url)] == [None, ended.number]
    assert opens(keys_url, key_ring.encryption) == before


@pytest.mark.parametrize("seed", range(3))
def test_keys_are_made_and_destroyed_while_others_rotate(key_ring: KeyRing, keys_url: str, seed: int) -> None:
    chance = Random(seed)
    of_process = SystemClock().monotonic
    rings = [KeyRing(keys_url, key_ring.encryption, of_process, cached_max=1) for _ in range(3)]
    gone = set(chance.sample(SUBJECTS, 10))
    seen: list[tuple[UUID, bytes]] = []
    orders = [chance.sample(SUBJECTS, len(SUBJECTS)) for _ in rings]

    def use(ring: KeyRing, order: list[UUID], erases: bool) -> None:
        for subject in order:
            seen.extend((subject, key.material) for key in ring.keys_for([subject]).values())
            if erases and subject in gone:
                ring.erase([subject])

    threads = [
        threading.Thread(target=use, args=(ring, order, number == 0))
        for number, (ring, order) in enumerate(zip(rings, orders, strict=True))
    ]
    for thread in threads:
        thread.start()
    numbers = [rotate(keys_url, key_ring.encryption, rows_per_statement=3).number for _ in range(4)]
    for thread in threads:
        thread.join()
    last = rotate(keys_url, key_ring.encryption)
    assert [*numbers, last.number] == sorted({*numbers, last.number}), (
        "a rotation that was whole was taken up"
    )
    found = opens(keys_url, key_ring.encryption)
    assert found.keys() == set(SUBJECTS) - gone
    assert len({material for subject, material in seen if subject not in gone}) == len(found), "made twice"
    assert all(found[subject] == material for subject, material in seen if subject not in gone)
    for ring in rings:
        ring.close()


def test_one_rotation_runs_at_a_time(key_ring: KeyRing, keys_url: str) -> None:
    def meanwhile(_: object) -> None:
        with pytest.raises(RotationRuns):
            rotate(keys_url, key_ring.encryption)
        with pytest.raises(RotationRuns):
            replace_root_key(keys_url, key_ring.encryption, key_ring.encryption)

    _alone(keys_url, meanwhile)
    rotate(keys_url, key_ring.encryption)


@pytest.mark.parametrize("held", [0, 1])
def test_a_rotation_that_meets_a_deadlock_goes_on(key_ring: KeyRing, keys_url: str, held: int) -> None:
    """Somebody holds the rows of two keys in the other order than the rotation, in either order."""
    pair = sorted(SUBJECTS[:2])
    key_ring.keys_for(pair)
    lock = "select from data_keys where subject = %s for update"
    waiting = "select count(*) from pg_locks where not granted"
    with psycopg.connect(keys_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("set deadlock_timeout = '60s'")  # the rotation is who looks
        other.execute(lock, (pair[held],))
        rotation = pool.submit(rotate, keys_url, key_ring.encryption)
        with psycopg.connect(keys_url, autocommit=True) as looking:
            until = time.monotonic() + 30
            while looking.execute(waiting).fetchone() == (0,):
                assert time.monotonic() < until, "the rotation does not wait for the row that is held"
        other.execute(lock, (pair[1 - held],))
        other.rollback()
        assert rotation.result(60).data_keys == 2


def test_another_root_key_opens_what_the_one_before_opens_no_more(key_ring: KeyRing, keys_url: str) -> None:
    before = {subject: key.material for subject, key in key_ring.keys_for(SUBJECTS).items()}
    new = AesKeyEncryption(bytes(range(32)))
    with pytest.raises(RootKeyWraps):
        replace_root_key(keys_url, key_ring.encryption, new)
    rotate(keys_url, key_ring.encryption)
    with pytest.raises(InterruptedError):
        replace_root_key(keys_url, key_ring.encryption, Failing(new, 0))
    assert opens(keys_url, key_ring.encryption) == before, "nothing was changed"
    assert replace_root_key(keys_url, key_ring.encryption, new) == 1
    assert opens(keys_url, new) == before
    with pytest.raises(WrongKeyEncryption):
        opens(keys_url, key_ring.encryption)
    late = uuid5(ROOT, "a process that goes on")
    assert set(key_ring.keys_for([SUBJECTS[0]])) == {SUBJECTS[0]}
    with pytest.raises(WrongKeyEncryption):
        key_ring.keys_for([late])
    assert replace_root_key(keys_url, new, key_ring.encryption) == 1
    assert set(key_ring.keys_for([late])) == {late}


def test_another_root_key_makes_no_key_encryption_key(key_ring: KeyRing, keys_url: str) -> None:
    rotate(keys_url, key_ring.encryption)
    with pytest.raises(WrongKeyEncryption):
        rotate(keys_url, AesKeyEncryption(bytes(range(32))))
    assert [one.number for one in wrappings(keys_url)] == [None, 1]


@pytest.mark.parametrize("root", [OnlyWraps(), OnlyWraps(bytes(32))])
def test_a_root_key_that_opens_nothing_locks_nobody_out(
    key_ring: KeyRing, keys_url: str, root: KeyEncryption
) -> None:
    ring = KeyRing(keys_url, root, SystemClock().monotonic)
    with pytest.raises((KeyEncryptionUnusable, WrongKeyEncryption)):
        ring.keys_for(SUBJECTS)
    ring.close()
    assert wrappings(keys_url) == [Wrapping(None, 0, 0)], "no key-encryption key is stored"
    before = {subject: key.material for subject, key in key_ring.keys_for(SUBJECTS).items()}
    rotate(keys_url, key_ring.encryption)
    with pytest.raises((KeyEncryptionUnusable, WrongKeyEncryption)):
        replace_root_key(keys_url, key_ring.encryption, root)
    assert opens(keys_url, key_ring.encryption) == before


@pytest.mark.parametrize("times", [1, 2, 3])
def test_keys_and_secrets_are_made_however_often_a_rotation_ends_meanwhile(
    key_ring: KeyRing, keys_url: str, times: int
) -> None:
    """The key-encryption key that a process has opened is gone when it stores under it, twice in a row too."""
    rotate(keys_url, key_ring.encryption)
    for make in (
        lambda ring: ring.keys_for(SUBJECTS[:2], purposes=["contact"]),
        lambda ring: ring.secret("x"),
    ):
        ring = KeyRing(keys_url, Overtaken(key_ring.encryption, keys_url, times), SystemClock().monotonic)
        assert make(ring)  # type: ignore[no-untyped-call]
        ring.close()
    assert len(opens(keys_url, key_ring.encryption)) == 2


def test_rows_that_were_wrapped_again_between_reading_and_opening_are_read_again(
    key_ring: KeyRing, keys_url: str
) -> None:
    """In the middle of a first rotation: one key is still wrapped by the root key, another one is not."""
    first, second = SUBJECTS[:2]
    before = key_ring.keys_for([first])[first].material
    with psycopg.connect(keys_url, autocommit=True) as connection:
        KeyEncryptionKeys(key_ring.encryption).make(connection, 1)
    key_ring.keys_for([second])
    ring = KeyRing(keys_url, Overtaken(key_ring.encryption, keys_url, 1), SystemClock().monotonic)
    found = ring.keys_for([first, second], create=False)
    assert (found[first].material, len(found)) == (before, 2)
    ring.close()
