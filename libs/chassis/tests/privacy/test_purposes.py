"""A subject has a key for each purpose: one is destroyed and the others open what they sealed."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Annotated
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.privacy.key_encryption import AesKeyEncryption
from chassis.privacy.keys import ERASED, DataKey, KeyRing, Origin, open_bytes, open_value, seal_bytes
from chassis.privacy.personal import TRANSACTION, personal
from chassis.privacy.rotating import replace_root_key, rotate, wrappings
from chassis.write.catalogue import Catalogue
from chassis.write.events import Event, StoredEvent, personal_fields

from tests.support.fixtures import empty_keys
from tests.support.jars import jar, metadata

CONTACT = "contact"
A, B, C = jar("a"), jar("b"), jar("c")


class Met(Event, frozen=True):
    """A person was met."""

    name: Annotated[str, personal("C2")]
    phone: Annotated[str | None, personal("C2", purpose=CONTACT)] = None
    others: tuple[Annotated[str, personal("C1", purpose=CONTACT)], ...] = ()


CATALOGUE = Catalogue(store="purposes", entries={"met": Met})
MET = Met(name="张伟", phone="13800001234", others=("021-1", "021-2"))


@pytest.fixture
def keys_url(postgres_url: str) -> str:
    return empty_keys(postgres_url)


def stored(key: DataKey | None, subject: UUID = A, event: Event = MET) -> StoredEvent:
    body = CATALOGUE.encode(event, metadata(), stream_id=subject, version=1, key=key)
    return StoredEvent(subject, 1, "met", body)


def opened(ring: KeyRing, event: StoredEvent) -> Event:
    keys = ring.keys_for([event.stream_id], create=False)
    return CATALOGUE.open(event, keys.get(event.stream_id)).event


@pytest.fixture
def fresh(keys_url: str, key_ring: KeyRing) -> Iterator[Callable[[], KeyRing]]:
    """Rings as processes have them that start now."""
    with ExitStack() as closing:

        def made() -> KeyRing:
            ring = KeyRing(keys_url, key_ring.encryption, SystemClock().monotonic)
            closing.callback(ring.close)
            return ring

        yield made


def test_marks_name_their_purpose() -> None:
    assert CATALOGUE.purposes == {CONTACT}
    assert personal_fields(Met) == {"name": "C2", "phone": "C2", "others[]": "C1"}
    for nonsense in ("", "Contact", "con tact", "a-", "x" * 33, "contact\n"):
        with pytest.raises(ValueError, match="is no purpose"):
            personal("C2", purpose=nonsense)


def test_the_values_of_one_purpose_are_erased_and_the_others_open(
    key_ring: KeyRing, keys_url: str, fresh: Callable[[], KeyRing]
) -> None:
    key = key_ring.keys_for([A], purposes=CATALOGUE.purposes)[A]
    event = stored(key)
    assert b"13800001234" not in event.body
    other = fresh()
    assert opened(other, event) == MET
    assert key_ring.erase([A], CONTACT) == 1
    assert key_ring.erase([A], CONTACT) == 0, "the same again"
    for ring in (key_ring, fresh()):
        assert opened(ring, event) == Met(name="张伟", phone=ERASED, others=(ERASED, ERASED))
    assert key_ring.erased([A, B], CONTACT) == {A}
    assert key_ring.erased([A]) == set()
    # What comes later has no value of that purpose, and no new key.
    later = key_ring.keys_for([A], purposes=CATALOGUE.purposes)[A]
    assert CATALOGUE.decode(stored(later)).event.phone == ERASED  # type: ignore[attr-defined]
    assert opened(key_ring, stored(later)) == Met(name="张伟", phone=ERASED, others=(ERASED, ERASED))
    key_ring.erase([A])
    assert opened(key_ring, event) == Met(name=ERASED, phone=ERASED, others=(ERASED, ERASED))
    assert key_ring.erased([A], CONTACT) == {A}
    with psycopg.connect(keys_url) as connection:
        [rows] = connection.execute(
            "select array_agg(wrapped) from (select wrapped from data_keys union all select wrapped from purpose_keys) w"
        ).fetchall()
        assert rows[0] == [None, None]


def test_the_keys_of_a_subject_go_together_where_all_are_erased(key_ring: KeyRing, keys_url: str) -> None:
    event = stored(key_ring.keys_for([A], purposes=[CONTACT])[A])
    assert key_ring.erase([A]) == 1
    assert opened(key_ring, event) == Met(name=ERASED, phone=ERASED, others=(ERASED, ERASED))
    with psycopg.connect(keys_url) as connection:
        assert connection.execute("select wrapped from purpose_keys").fetchall() == [(None,)]
    with pytest.raises(ValueError, match="with all others"):
        key_ring.erase([A], TRANSACTION)


def test_a_subject_of_before_has_one_key_for_everything(
    key_ring: KeyRing, fresh: Callable[[], KeyRing]
) -> None:
    """Its values open, later ones are sealed under the same key, and nothing of it is erased apart."""
    before = stored(key_ring.keys_for([A])[A])
    ring = fresh()
    key = ring.keys_for([A], purposes=[CONTACT])[A]
    assert key.parts is None
    assert opened(ring, before) == opened(ring, stored(key)) == MET
    ring.keys_for([B], purposes=[CONTACT])
    assert ring.inseparable([A, B, C], CONTACT) == {A}
    assert key.whole is key


def test_a_purpose_that_was_erased_before_the_first_key_never_gets_one(key_ring: KeyRing) -> None:
    assert key_ring.erase([A, B], CONTACT) == 0
    for subject, purposes in ((A, [CONTACT]), (B, [])):
        key = key_ring.keys_for([subject, C], purposes=purposes)[subject]
        assert key.parts == {CONTACT: None}
        assert opened(key_ring, stored(key, subject)) == Met(
            name="张伟", phone=ERASED, others=(ERASED, ERASED)
        )
    assert key_ring.inseparable([A, B], CONTACT) == set()


def test_what_holds_values_of_all_purposes_dies_with_any_of_them(key_ring: KeyRing) -> None:
    key = key_ring.keys_for([A], purposes=[CONTACT])[A]
    assert key.of("contact") is not key
    assert key.of("another") is key
    sealed, digest = seal_bytes(key.whole, "snapshot", b"13800001234"), key.whole.derive("command")
    assert open_bytes(key_ring.keys_for([A])[A].whole, "snapshot", sealed) == b"13800001234"
    key_ring.erase([A], CONTACT)
    after = key_ring.keys_for([A])[A]
    assert open_bytes(after.whole, "snapshot", sealed) is None
    assert open_bytes(after, "snapshot", sealed) is None
    assert after.whole.derive("command") != digest


def test_keys_of_all_purposes_are_wrapped_again(key_ring: KeyRing, keys_url: str) -> None:
    event = stored(key_ring.keys_for([A], purposes=[CONTACT])[A])
    key_ring.keys_for([B], purposes=[CONTACT])
    key_ring.erase([B], CONTACT)
    assert rotate(keys_url, key_ring.encryption, rows_per_statement=1).data_keys == 3
    assert [(one.number, one.data_keys) for one in wrappings(keys_url)] == [(None, 0), (1, 3)]
    rotate(keys_url, key_ring.encryption)
    root = AesKeyEncryption(bytes(32))
    replace_root_key(keys_url, key_ring.encryption, root)
    ring = KeyRing(keys_url, root, SystemClock().monotonic)
    assert opened(ring, event) == MET
    assert ring.erased([B], CONTACT) == {B}
    ring.close()


@pytest.mark.parametrize("purpose", [None, CONTACT])
def test_makers_and_an_erasure_at_once_leave_no_key_of_what_is_erased(
    key_ring: KeyRing, keys_url: str, fresh: Callable[[], KeyRing], purpose: str | None
) -> None:
    subjects = [uuid5(A, str(number)) for number in range(150)]
    begun = threading.Barrier(4)

    def make(order: int) -> int:
        ring = fresh()
        begun.wait(30)
        for subject in subjects[::order]:
            ring.keys_for([subject], purposes=[CONTACT])
        return order

    def erase() -> None:
        begun.wait(30)
        for at in range(0, len(subjects), 10):
            key_ring.erase(subjects[at : at + 10], purpose)

    def turn() -> None:
        begun.wait(30)
        for _ in range(3):
            rotate(keys_url, key_ring.encryption, rows_per_statement=20)

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(make, 1), pool.submit(make, -1), pool.submit(erase), pool.submit(turn)]
        for one in working:
            one.result(60)
    ring = fresh()
    keys = ring.keys_for(subjects, create=False)
    assert len(keys) == (0 if purpose is None else 150)
    assert all(key.parts == {CONTACT: None} for key in keys.values())
    with psycopg.connect(keys_url) as connection:
        assert connection.execute(
            "select count(*) from purpose_keys where wrapped is not null"
        ).fetchall() == [(0,)]


def test_a_token_of_another_subject_or_place_opens_nowhere(key_ring: KeyRing) -> None:
    keys = key_ring.keys_for([A, B], purposes=[CONTACT])
    token = CATALOGUE.decode(stored(keys[A])).event.phone  # type: ignore[attr-defined]
    origin = Origin("purposes", A, 1, "met")
    assert open_value(keys[A], origin, "phone", token) == "13800001234"
    assert open_value(keys[B], origin, "phone", token) == ERASED
    assert open_value(keys[A].of(CONTACT), origin, "phone", token) == "13800001234"
