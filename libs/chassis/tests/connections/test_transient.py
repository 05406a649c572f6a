"""What is laid to a record and what to our own surroundings: one list, and nothing in between is held against a record."""

import errno

import psycopg
import pytest
from aiokafka.errors import KafkaConnectionError, NotEnoughReplicasError
from bson.errors import InvalidDocument
from chassis.connections.transient import StoreUnavailable, is_transient, why
from chassis.messaging.delivered import BodyInvalid
from chassis.messaging.transport import BrokerUnavailable, PublishFailed, TopicDiffers
from chassis.privacy.key_encryption import (
    FileKeyEncryption,
    KeyEncryptionUnusable,
    Tampered,
    WrongKeyEncryption,
)
from chassis.read.documents import DocumentsUnavailable
from chassis.read.parking import GroupHeld, PoisonEvent, is_of_the_record
from chassis.write.deciding import CommandKeyReused, TooManyConflicts
from chassis.write.store.appender import StoreOverloaded
from contracts.envelope import EnvelopeInvalid
from psycopg import errors
from pymongo.errors import AutoReconnect, DuplicateKeyError, NotPrimaryError, ServerSelectionTimeoutError

OURS = [
    PermissionError(errno.EACCES, "Permission denied", "/etc/crm/keys/kek"),
    FileNotFoundError(errno.ENOENT, "No such file", "/etc/crm/keys/kek"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EMFILE, "Too many open files"),
    MemoryError(),
    ConnectionResetError(),
    TimeoutError(),
    StoreUnavailable("gone"),
    StoreOverloaded("10000 appends wait"),
    TooManyConflicts(),
    DocumentsUnavailable("not primary"),
    BrokerUnavailable("gone"),
    PublishFailed("gone"),
    TopicDiffers("retention"),
    GroupHeld("too much waits"),
    KeyEncryptionUnusable("12 bytes"),
    WrongKeyEncryption("another key"),
    AutoReconnect(),
    NotPrimaryError(),
    ServerSelectionTimeoutError(),
    KafkaConnectionError(),
    NotEnoughReplicasError(),
]
SQLSTATES = (
    "08006", "25006", "25P03", "40001", "40P01", "53000", "53100", "53200", "53300", "55P03", "55000",
    "57014", "57P01", "57P02", "57P03", "58000", "58030", "XX000", "42501", "42P01", "3D000", "3F000", "28000", "28P01",
)  # fmt: skip
THE_RECORDS = [
    ValueError("x"), KeyError("x"), TypeError("x"), ZeroDivisionError(), BodyInvalid("x"), EnvelopeInvalid("x"),
    PoisonEvent("x"), Tampered("x"), CommandKeyReused(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    RecursionError(), psycopg.DataError(), errors.UniqueViolation(),
]  # fmt: skip
NOBODYS = [RuntimeError("Event loop is closed"), DuplicateKeyError("x"), Exception("unheard of")]


@pytest.mark.parametrize("error", OURS, ids=lambda error: f"{type(error).__name__} {error}"[:40])
def test_an_error_of_our_surroundings_is_transient_and_never_held_against_a_record(error):
    assert is_transient(error)
    assert not is_of_the_record(error)
    assert is_transient(ExceptionGroup("both", [error, TimeoutError()]))
    assert not is_transient(ExceptionGroup("one", [error, KeyError()]))


@pytest.mark.parametrize("state", SQLSTATES)
def test_what_postgresql_says_of_itself_is_transient(state):
    error = errors.lookup(state)("x")
    assert is_transient(error)
    assert not is_of_the_record(error)


@pytest.mark.parametrize("error", THE_RECORDS, ids=lambda error: type(error).__name__)
def test_what_a_record_or_the_code_that_reads_it_raises_is_held_against_it(error):
    assert is_of_the_record(error)
    assert not is_transient(error)


@pytest.mark.parametrize("error", [*NOBODYS, InvalidDocument("x")], ids=lambda error: type(error).__name__)
def test_what_nobody_thought_of_is_no_fault_of_a_record(error):
    assert not is_transient(error)
    assert not is_of_the_record(error)


def test_a_reason_names_what_is_wrong_and_quotes_no_record():
    assert why(OURS[0]) == "PermissionError: [Errno 13] Permission denied: '/etc/crm/keys/kek'"
    assert why(ExceptionGroup("x", [StoreUnavailable("gone\nDETAIL: 62220001")])) == "StoreUnavailable: gone"
    assert why(ValueError("Zhang San")) == "ValueError"


def test_a_key_file_that_is_cut_off_or_another_is_no_fault_of_a_record(tmp_path):
    with pytest.raises(KeyEncryptionUnusable):
        FileKeyEncryption(b"short")
    one, other = FileKeyEncryption(bytes(32)), FileKeyEncryption(b"1" * 32)
    with pytest.raises(WrongKeyEncryption):
        other.unwrap(one.wrap(b"k" * 32, b"aad"), b"aad")
