import io
from datetime import date
from hashlib import blake2b, sha256

import msgspec
import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.migrating import migrate
from chassis.privacy.key_encryption import FileKeyEncryption
from chassis.privacy.keys import KEYS, KeyRing
from contracts.identity import EXTERNAL_IDS, ExternalIds
from sync_ingest.domain.events import UPCASTS, IntakeReceived
from sync_ingest.domain.identities import (
    certificate_id,
    content_digest,
    intake_id,
    posting_ids,
    quarantine_id,
    row_id,
)
from sync_ingest.domain.records import Posting
from sync_ingest.opening import opened
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings

KEY = bytes(32)
IDS = ExternalIds(KEY)


def posting(account="1", transaction="t", leg=1, **changes):
    values = {"amount_minor": 1, "currency": "CNY", "booked_on": date(2026, 1, 1)} | changes
    return Posting(account=account, core_transaction_id=transaction, leg=leg, **values)


def test_the_identity_of_a_posting_is_that_of_its_account_transaction_and_leg():
    found = posting_ids(IDS, "core", [posting("1", "t", 1), posting("1", "t", 2), posting("12", "t", 1)])
    assert found == [IDS.posting("core", a, "t", leg) for a, leg in (("1", 1), ("1", 2), ("12", 1))]


@pytest.mark.parametrize("source", ["", "a:b"])
def test_a_source_is_named_without_a_colon(source):
    with pytest.raises(ValueError, match="colon"):
        posting_ids(IDS, source, [])


def test_a_digest_tells_content_apart_and_nothing_without_its_key():
    assert content_digest(posting(), KEY) == content_digest(posting(), KEY)
    assert content_digest(posting(), KEY) != content_digest(posting(amount_minor=2), KEY)
    assert content_digest(posting(), KEY) != content_digest(posting(), b"\1" * 32)


def test_ids_of_feeds_depend_on_all_that_makes_them_one():
    intakes = [intake_id(IDS, "a", b"1", "r"), intake_id(IDS, "a", b"2", "r"), intake_id(IDS, "b", b"1", "r")]
    assert len({quarantine_id(IDS, "a", intake, line) for intake in intakes for line in (0, 1)}) == 6
    assert len({row_id(IDS, s, raw, n) for s in "ab" for raw in (b"x", b"y") for n in (1, 12)}) == 8
    first = certificate_id(IDS, "a", None, intakes[:1])
    assert first != certificate_id(IDS, "a", first, intakes[:1])


def test_processes_over_one_key_database_agree_on_ids_and_others_do_not(ingest, postgres_url, data, tmp_path):
    with opened(SyncIngestSettings(postgres_url=postgres_url, data=data)) as other:
        assert other.ids.account("core", "1") == ingest.ids.account("core", "1")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create database crm_other_keys")
    elsewhere = psycopg.conninfo.make_conninfo(postgres_url, dbname="crm_other_keys")
    migrate(elsewhere, [KEYS])
    ring = KeyRing.open(
        elsewhere, FileKeyEncryption.at(tmp_path / "kek", create=True), SystemClock().monotonic
    )
    ids = ExternalIds(ring.secret(EXTERNAL_IDS))
    ring.close()
    assert ids.account("core", "1") != ingest.ids.account("core", "1")


def test_no_event_holds_a_digest_of_bytes_that_can_be_found_by_trying(ingest, source):
    content = b'{"record":"posting","account":"A1","core_transaction_id":"t1","amount_minor":1,"currency":"CNY","booked_on":"2026-03-02"}'
    before = ingest.ledger.head_position()
    ingest.run(source, [FeedContent("f", lambda: io.BytesIO(content))], format="canonical")
    bodies = b"".join(one.body for one in ingest.ledger._recorder.read_after(before))
    assert b"intake" in bodies
    for plain in (sha256(content), blake2b(content), blake2b(content, digest_size=32)):
        assert plain.hexdigest().encode() not in bodies


def test_an_intake_of_version_one_is_read_without_its_plain_digest(source):
    stored = {
        "source": source,
        "intake": str(IDS.account("core", "1")),
        "sha256": "00",
        "format": "csv",
        "size_bytes": 1,
    }
    lifted = UPCASTS["intake-received", 1](stored)
    event = msgspec.convert(lifted, IntakeReceived)
    assert (event.content, event.format, event.size_bytes) == (None, "csv", 1)
