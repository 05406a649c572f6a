"""Names, versions, sealing in place, and what an old version becomes."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid5

import msgspec
import pytest
from chassis.clock import uuid7
from chassis.privacy.key_encryption import Tampered
from chassis.privacy.keys import ERASED, DataKey, KeyRing, open_value, seal
from chassis.privacy.personal import MarkMisplaced
from chassis.read.documents import open_sealed, sealed
from chassis.write.catalogue import Catalogue, NewEvent, UnknownEvent
from chassis.write.events import Event, Personal, StoredEvent, event_id, personal, personal_fields
from msgspec import structs

from tests.support.jars import JarEmptied, JarFilled, JarOpened, catalogue, jar, lift_opened, metadata

STREAM = jar("catalogue")
OPENED = JarOpened("Li Wei", "for rainy days", "bean")


def stored(event: Event, key: DataKey | None, version: int = 1) -> StoredEvent:
    new = NewEvent(STREAM, version, event, metadata())
    return catalogue().stored([new], {STREAM: key} if key else {})[0]


@pytest.fixture
def key() -> DataKey:
    return DataKey(STREAM, uuid5(STREAM, "key"), b"k" * 32)


def test_there_and_back(key: DataKey) -> None:
    for version, event in enumerate([OPENED, JarFilled(5), JarEmptied()], 1):
        one = stored(event, key, version)
        read = catalogue().open(one, key)
        assert read.event == event
        assert read.metadata == metadata()
        assert read.event_id == event_id(STREAM, version)
        assert catalogue().metadata_of(one) == metadata()


def test_personal_values_are_tokens_that_open_only_where_they_stand(key: DataKey) -> None:
    one = stored(OPENED, key)
    assert b"Li Wei" not in one.body
    assert b"rainy" not in one.body
    assert b"bean" in one.body
    sealed = catalogue().decode(one).event
    assert isinstance(sealed, JarOpened)
    origin = catalogue().origin(one)
    assert open_value(key, origin, "owner", sealed.owner) == "Li Wei"
    moved = [
        (origin._replace(store="other"), "owner"),
        (origin._replace(stream_id=UUID(int=1)), "owner"),
        (origin._replace(version=2), "owner"),
        (origin._replace(name="jar-filled"), "owner"),
        (origin, "note"),
    ]
    for place, field in moved:
        with pytest.raises(Tampered):
            open_value(key, place, field, sealed.owner)
    with pytest.raises(Tampered):
        catalogue().open(structs.replace(one, version=2), key)
    for broken in (sealed.owner[:-4] + "AAAA", sealed.owner + "=", "plain text"):
        with pytest.raises(Tampered):
            open_value(key, origin, "owner", broken)


def test_the_same_value_never_gives_the_same_token(key: DataKey) -> None:
    assert stored(OPENED, key).body != stored(OPENED, key).body


def test_without_a_key_nothing_personal_is_written_and_a_fallback_is_read(key: DataKey) -> None:
    one = stored(OPENED, None)
    assert b"Li Wei" not in one.body
    assert catalogue().open(one, None).event == JarOpened(ERASED, ERASED, "bean")
    assert catalogue().open(one, key).event == JarOpened(ERASED, ERASED, "bean")
    erased_later = stored(OPENED, key)
    assert catalogue().open(erased_later, None).event == JarOpened(ERASED, ERASED, "bean")
    other = DataKey(STREAM, UUID(int=9), b"o" * 32)
    assert catalogue().open(erased_later, other).event == JarOpened(ERASED, ERASED, "bean")


def first_version(key: DataKey) -> StoredEvent:
    origin = catalogue().origin(StoredEvent(STREAM, 1, "jar-opened", b""))
    data = {
        "v": 1,
        "holder_name": seal(key, origin.aad("holder_name", key), "Li Wei"),
        "note": seal(key, origin.aad("note", key), "old"),
    }
    body = msgspec.json.encode({"meta": metadata(), "data": data})
    return StoredEvent(STREAM, 1, "jar-opened", body)


def test_an_old_version_is_opened_and_lifted(key: DataKey) -> None:
    one = first_version(key)
    assert catalogue().open(one, key).event == JarOpened("Li Wei", "old", "bean")
    assert catalogue().open(one, None).event == JarOpened(ERASED, ERASED, "bean")
    sealed = catalogue().decode(one).event
    assert isinstance(sealed, JarOpened)
    assert sealed.owner.startswith("k1.")


def test_the_current_version_is_written(key: DataKey) -> None:
    assert catalogue().version_of("jar-opened") == 2
    assert msgspec.json.decode(stored(OPENED, key).body)["data"]["v"] == 2
    assert msgspec.json.decode(stored(JarEmptied(), key).body)["data"] == {"v": 1}


def test_a_newer_version_and_an_unknown_name_are_not_guessed(key: DataKey) -> None:
    one = stored(JarFilled(1), key)
    newer = structs.replace(one, body=one.body.replace(b'"v":1', b'"v":2'))
    for strange in (newer, structs.replace(one, name="jar-broken")):
        with pytest.raises(UnknownEvent):
            catalogue().decode(strange)
        with pytest.raises(UnknownEvent):
            catalogue().check(strange)
    catalogue().check(one)
    catalogue().check(first_version(key))


def test_a_catalogue_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="two stored names"):
        Catalogue(store="s", entries={"a": JarFilled, "b": JarFilled})
    with pytest.raises(ValueError, match="leave a version out"):
        Catalogue(store="s", entries={"a": JarOpened}, upcasts={("a", 2): lift_opened})
    with pytest.raises(ValueError, match="not an older version"):
        Catalogue(store="s", entries={"a": JarOpened}, upcasts={("b", 1): lift_opened})


def test_personal_fields_are_found_and_only_text() -> None:
    class Several(Event, frozen=True):
        plain: str
        name: Personal
        phone: Personal | None

    assert personal_fields(JarOpened) == {"owner": "C2", "note": "C1"}
    assert personal_fields(JarFilled) == {}
    assert list(personal_fields(Several)) == ["name", "phone"]


class Street(msgspec.Struct, frozen=True):
    line: Personal
    town: str


class Guest(msgspec.Struct, frozen=True):
    name: Annotated[str, personal("C1")]
    lives: Street | None = None


class PartyGiven(Event, frozen=True):
    host: Personal
    home: Street
    theme: str
    guests: tuple[Guest, ...]
    nicknames: list[Personal]


PARTY = PartyGiven(
    "Li Wei",
    Street("Lane 7", "Wuxi"),
    "k1.not.sealed",
    (Guest("Ma Fei", Street("Lane 9", "Suzhou")), Guest("He Xiu")),
    ["Old Li", "Brother Wei"],
)
PARTIES = Catalogue(store="parties", entries={"party-given": PartyGiven})


def test_personal_values_are_sealed_however_deep_they_stand(key: DataKey) -> None:
    [one] = PARTIES.stored([NewEvent(STREAM, 1, PARTY, metadata())], {STREAM: key})
    assert personal_fields(PartyGiven) == {
        "host": "C2",
        "home.line": "C2",
        "guests[].name": "C1",
        "guests[].lives.line": "C2",
        "nicknames[]": "C2",
    }
    for value in (b"Li Wei", b"Lane 7", b"Lane 9", b"Ma Fei", b"He Xiu", b"Old Li"):
        assert value not in one.body
    assert b"Wuxi" in one.body
    assert PARTIES.open(one, key).event == PARTY
    [erased] = PARTIES.stored([NewEvent(STREAM, 1, PARTY, metadata())], {})
    assert erased.body.count(ERASED.encode()) == 7


def test_a_nested_token_opens_only_at_its_place(key: DataKey) -> None:
    [one] = PARTIES.stored([NewEvent(STREAM, 1, PARTY, metadata())], {STREAM: key})
    body = msgspec.json.decode(one.body)
    first, second = body["data"]["guests"]
    first["name"], second["name"] = second["name"], first["name"]
    with pytest.raises(Tampered):
        PARTIES.open(structs.replace(one, body=msgspec.json.encode(body)), key)


def test_a_nested_value_is_carried_into_a_document_and_opened_there(key: DataKey) -> None:
    [one] = PARTIES.stored([NewEvent(STREAM, 1, PARTY, metadata())], {STREAM: key})

    class Given:
        sequence, stored_name, data = 1, "party-given", msgspec.json.decode(one.body)["data"]

    def opened(place: str) -> str | None:
        value = sealed(Given(), place)
        return open_sealed(value, key, context="parties", subject=STREAM, field=place)

    assert opened("host") == "Li Wei"
    assert opened("guests[0].lives.line") == "Lane 9"
    assert opened("guests[1].lives.line") is None
    assert opened("guests[7].name") is None


def test_nested_values_of_an_older_version_are_opened_before_they_are_lifted(key: DataKey) -> None:
    [one] = PARTIES.stored([NewEvent(STREAM, 1, PARTY, metadata())], {STREAM: key})

    def renamed(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "theme": data["theme"].upper()}

    newer = Catalogue(
        store="parties", entries={"party-given": PartyGiven}, upcasts={("party-given", 1): renamed}
    )
    assert newer.open(one, key).event == structs.replace(PARTY, theme="K1.NOT.SEALED")


class Holding(msgspec.Struct, frozen=True):
    inside: "Holding | None" = None
    name: Personal | None = None


@dataclass
class Plain:
    name: Personal


@pytest.mark.parametrize(
    "hint",
    [
        dict[str, Personal],
        dict[str, Street],
        set[Personal],
        tuple[Personal, int],
        tuple[Street, Guest],
        Street | Guest,
        Personal | int,
        list[list[Personal]],
        Annotated[int, personal()],
        Annotated[tuple[str, ...], personal()],
        Holding,
        Plain,
    ],
    ids=str,
)
def test_a_mark_that_could_not_be_sealed_is_refused_when_the_class_is_read(hint: Any) -> None:
    event_class = msgspec.defstruct("Odd", [("field", hint)], bases=(Event,), frozen=True)
    with pytest.raises(MarkMisplaced):
        Catalogue(store="odd", entries={"odd": event_class})


def test_uuid7_is_ordered_by_time() -> None:
    ids = [uuid7(datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)) for second in range(20)]
    assert ids == sorted(ids)
    assert {one.version for one in ids} == {7}
    assert {one.variant for one in ids} == {"specified in RFC 4122"}
    assert uuid7(datetime(2026, 1, 1, tzinfo=UTC), b"0123456789") == uuid7(
        datetime(2026, 1, 1, tzinfo=UTC), b"0123456789"
    )


def test_a_key_ring_opens_what_another_sealed(key_ring: KeyRing) -> None:
    keys = key_ring.keys_for([STREAM])
    one = stored(OPENED, keys[STREAM])
    assert catalogue().open(one, key_ring.keys_for([STREAM])[STREAM]).event == OPENED
