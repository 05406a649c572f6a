"""A root key in a KMS: a real client against a server that speaks the protocol."""

import socket
from typing import Any
from uuid import UUID, uuid5

import boto3
import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.transient import is_transient
from chassis.privacy.key_encryption import (
    KeyEncryptionUnavailable,
    KeyEncryptionUnusable,
    WrongKeyEncryption,
)
from chassis.privacy.keys import KeyRing
from chassis.privacy.kms import KmsKeyEncryption
from chassis.privacy.rotating import replace_root_key, rotate

from tests.support.aws import STRANGE, answering
from tests.support.fixtures import empty_keys

ROOT = UUID("2d0f1f50-6a4e-4c3e-8e9b-3c9b54dfd6d4")
SUBJECTS = [uuid5(ROOT, str(number)) for number in range(500)]


@pytest.fixture
def kms(endpoint: str) -> Any:
    return boto3.client("kms", endpoint_url=endpoint)


@pytest.fixture
def keys_url(postgres_url: str) -> str:
    """A key database of its own: a rotation changes all of it."""
    return empty_keys(postgres_url)


def key_of(kms: Any) -> str:
    return str(kms.create_key()["KeyMetadata"]["KeyId"])


def test_a_key_is_unwrapped_at_its_place_by_its_own_key_alone(endpoint: str, kms: Any) -> None:
    one, other = (KmsKeyEncryption(key_of(kms), endpoint) for _ in range(2))
    wrapped = one.wrap(bytes(range(32)), b"place")
    assert bytes(range(32)) not in wrapped
    assert one.unwrap(wrapped, b"place") == bytes(range(32))
    for encryption, told, place in (
        (one, wrapped, b"elsewhere"),
        (other, wrapped, b"place"),
        (one, wrapped[:-1] + bytes([wrapped[-1] ^ 1]), b"place"),
        (one, b"nothing of the KMS", b"place"),
    ):
        with pytest.raises((WrongKeyEncryption, KeyEncryptionUnusable)) as refused:
            encryption.unwrap(told, place)
        assert is_transient(refused.value)


def test_a_ring_over_a_kms_asks_it_once_and_not_for_each_key(endpoint: str, kms: Any, keys_url: str) -> None:
    key = key_of(kms)
    asked: list[str] = []
    first = KmsKeyEncryption(key, endpoint)
    first._client.meta.events.register("before-call.kms.*", lambda model, **_: asked.append(model.name))
    ring = KeyRing.open(keys_url, first, SystemClock().monotonic)
    made = {subject: one.material for subject, one in ring.keys_for(SUBJECTS).items()}
    ring.keys_for([uuid5(ROOT, "later")])
    secret = ring.secret("of the bank")
    assert sorted(asked) == ["Decrypt", "Decrypt", "Encrypt"]
    again = KeyRing.open(keys_url, KmsKeyEncryption(key, endpoint), SystemClock().monotonic)
    found = again.keys_for(SUBJECTS, create=False)
    assert {subject: one.material for subject, one in found.items()} == made
    assert again.secret("of the bank") == secret
    with psycopg.connect(keys_url) as connection:
        numbers = connection.execute("select distinct encryption from data_keys").fetchall()
    assert numbers == [(1,)]
    for each in (ring, again):
        each.close()


def test_a_bank_moves_from_a_file_to_a_kms(endpoint: str, kms: Any, key_ring: KeyRing, keys_url: str) -> None:
    made = {subject: one.material for subject, one in key_ring.keys_for(SUBJECTS[:20]).items()}
    rotate(keys_url, key_ring.encryption)
    moved = KmsKeyEncryption(key_of(kms), endpoint)
    assert replace_root_key(keys_url, key_ring.encryption, moved) == 1
    ring = KeyRing.open(keys_url, moved, SystemClock().monotonic)
    found = ring.keys_for(SUBJECTS[:20], create=False)
    assert {subject: one.material for subject, one in found.items()} == made
    ring.close()


def test_a_key_that_is_not_there_is_no_tampering(endpoint: str) -> None:
    with pytest.raises(KeyEncryptionUnusable, match="the KMS refuses: NotFoundException") as refused:
        KmsKeyEncryption("6b8f3a4e-0000-4000-8000-000000000000", endpoint).wrap(bytes(32), b"place")
    assert is_transient(refused.value)


def test_a_kms_that_answers_nothing_is_not_waited_for(endpoint: str) -> None:
    clock = SystemClock()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = clock.monotonic()
        with pytest.raises(KeyEncryptionUnavailable, match="does not answer"):
            KmsKeyEncryption("key", f"http://127.0.0.1:{silent.getsockname()[1]}", answer_seconds=0.3).wrap(
                bytes(32), b"place"
            )
        assert clock.monotonic() - began < 10
    with pytest.raises(KeyEncryptionUnavailable, match="does not answer"):
        KmsKeyEncryption("key", "http://127.0.0.1:1", answer_seconds=0.3).wrap(bytes(32), b"place")


@pytest.mark.parametrize("answer", STRANGE)
def test_what_is_no_answer_of_a_kms_is_told_from_one(endpoint: str, answer: str) -> None:
    with answering(STRANGE[answer]) as strange:
        encryption = KmsKeyEncryption("key", strange, answer_seconds=0.3)
        for ask in (encryption.wrap, encryption.unwrap):
            with pytest.raises((KeyEncryptionUnavailable, KeyEncryptionUnusable)):
                ask(bytes(32), b"place")
