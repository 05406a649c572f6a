"""A reason says what happened and quotes nothing that a person wrote."""

import json
from enum import Enum
from uuid import UUID

import msgspec
import psycopg
import pydantic
import pytest
from chassis.connections.transient import StoreUnavailable, why
from chassis.messaging.delivered import BodyInvalid, read_body
from chassis.observability.reasons import REASON_CHARACTERS_MAX, reason_of
from chassis.read.documents import Unwritable
from chassis.read.mongo import MongoDocuments
from chassis.write.deciding import Refusal
from contracts.customer import CustomerRegistered
from contracts.envelope import EnvelopeInvalid
from contracts.registry import TypeUnknown, model_of

SECRET = "O'Hara 王小明\\n13800001111"


class Grade(Enum):
    ONE = "one"


class Model(pydantic.BaseModel):
    number: int


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    grade: Grade = Grade.ONE


class Fields(Refusal):
    """A refusal of a domain, which quotes nothing."""


def keyed():
    return {}[SECRET]


def attributed():
    return getattr(object(), SECRET)


def numbered():
    return int(SECRET)


def encoded():
    return SECRET.encode("ascii")


def modelled():
    return Model(number=SECRET)


def of_an_enum():
    return msgspec.json.decode(json.dumps({"grade": SECRET}), type=Closed)


def with_a_field():
    return msgspec.json.decode(json.dumps({SECRET: 1}), type=Closed)


def asserted():
    raise AssertionError(SECRET)


def of_several():
    raise ExceptionGroup(SECRET, [ValueError(SECRET)])


def written():
    documents = MongoDocuments(None, "x_")
    return documents.freeze({"_id": 1, "name": Unspeakable()})


def unknown():
    return model_of(SECRET, 1)


class Unspeakable:
    def __repr__(self):
        return SECRET


QUOTING = [
    keyed,
    attributed,
    numbered,
    encoded,
    modelled,
    of_an_enum,
    with_a_field,
    asserted,
    of_several,
    written,
    unknown,
]


@pytest.mark.parametrize("failing", QUOTING, ids=lambda each: each.__name__)
def test_what_an_error_quotes_is_in_no_reason(failing):
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of each kind
        failing()
    for said in (reason_of(raised.value), why(raised.value)):
        assert "Hara" not in said
        assert "王" not in said
        assert "1380" not in said
        assert said.startswith(("ValueError", type(raised.value).__name__))


def test_an_error_that_is_not_our_own_is_told_by_its_class_and_place():
    with pytest.raises(KeyError) as raised:
        keyed()
    assert reason_of(raised.value).startswith("KeyError at test_reasons.py:")
    assert reason_of(raised.value).endswith(" keyed")
    assert why(raised.value) == "KeyError"


def test_a_row_that_a_database_refuses_is_told_by_its_table_and_constraint(postgres_url):
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create temporary table people (name text constraint one_name unique, age int)")
        connection.execute("insert into people values (%s)", (SECRET,))
        with pytest.raises(psycopg.errors.UniqueViolation) as twice, connection.transaction():
            connection.execute("insert into people values (%s)", (SECRET,))
        with pytest.raises(psycopg.DataError) as no_number, connection.transaction():
            connection.execute("insert into people (age) values (%s::text::int)", (SECRET,))
    assert "Hara" in str(twice.value)
    assert reason_of(twice.value) == why(twice.value) == "UniqueViolation: people, one_name"
    assert "Hara" in str(no_number.value)
    assert reason_of(no_number.value).startswith("InvalidTextRepresentation at ")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreUnavailable("no answer\nDETAIL: Key (name)=(x)"), "StoreUnavailable: no answer"),
        (Fields("at most 5"), "Fields: at most 5"),
        (EnvelopeInvalid("no header ce_id"), "EnvelopeInvalid: no header ce_id"),
        (Unwritable("17 bytes where at most 5 fit"), "Unwritable: 17 bytes where at most 5 fit"),
        (Fields("x" * 1_000), "Fields: " + "x" * 200),
    ],
)
def test_our_own_words_are_told(error, told):
    assert reason_of(error) == told
    assert len(reason_of(error)) <= REASON_CHARACTERS_MAX


def test_a_body_that_breaks_its_contract_is_told_by_its_place():
    name, version = CustomerRegistered.TYPE, CustomerRegistered.VERSION
    with pytest.raises(BodyInvalid) as raised:
        read_body(name, version, json.dumps({"customer_id": SECRET}).encode())
    assert SECRET not in reason_of(raised.value)
    assert reason_of(raised.value).startswith(f"BodyInvalid: {name} {version}")
    with pytest.raises(TypeUnknown) as newer:
        model_of(name, 99)
    assert reason_of(newer.value) == f"VersionNewer: {name} version 99 is newer than this code"
    assert str(UUID(int=0)) not in reason_of(newer.value)
