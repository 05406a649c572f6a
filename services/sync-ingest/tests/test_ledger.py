"""What is stored in bulk is what the catalogue would have stored, sealed for its place and nowhere else."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from chassis.privacy.key_encryption import Tampered
from chassis.privacy.keys import ERASED
from chassis.write.events import personal_fields
from sync_ingest.domain.events import PartyDescribed, PostingUndone
from sync_ingest.ledger import CATALOGUE
from sync_ingest.pipeline.ports import Entry

NOW = datetime(2026, 1, 5, tzinfo=UTC)
INTAKE = UUID(int=99)


def party(number, **changes):
    values = {"name": "王小明", "born_on": None, "gender": None, "identity_number": "110101", "phone": None}
    return PartyDescribed(
        **{
            "source": "s",
            "party": f"P{number}",
            "kind": "person",
            "email": None,
            "address": None,
            "branch": None,
        }
        | values
        | changes
    )


def test_what_is_sealed_in_bulk_opens_as_what_it_was(ingest, source):
    streams = [UUID(int=hash(source) % 10**9 + number) for number in range(3)]
    entries = [
        Entry(stream, version, party(version, phone="1" * version), None, NOW, INTAKE)
        for stream in streams
        for version in (1, 2)
    ]
    keys = ingest.ledger._keys.keys_for(streams)
    for entry, stored in zip(entries, ingest.ledger.sealed(entries), strict=True):
        assert b"110101" not in stored.body
        opened = CATALOGUE.open(stored, keys[entry.stream_id])
        assert opened.event == entry.event
        assert (opened.metadata.effective_at, opened.metadata.correlation_id) == (NOW, INTAKE)
        assert CATALOGUE.metadata_of(stored).actor == "sync-ingest"
        elsewhere = msgspec.structs.replace(stored, version=stored.version + 1)
        with pytest.raises(Tampered):
            CATALOGUE.open(elsewhere, keys[entry.stream_id])


def test_an_event_without_personal_values_has_no_key_made_for_its_stream(ingest):
    stream = UUID(int=816)
    undone = PostingUndone("s", stream, UUID(int=817))
    ingest.ledger.sealed([Entry(stream, 1, undone, stream, NOW, INTAKE)])
    assert ingest.ledger._keys.keys_for([stream], create=False) == {}


def test_no_two_values_are_sealed_under_the_same_nonce(ingest):
    full = party(7, phone="1", email="2", address="3", born_on="4", gender="5", identity_number="6")
    assert all(getattr(full, name) is not None for name in personal_fields(PartyDescribed))
    entries = [Entry(UUID(int=4711), version, full, None, NOW, INTAKE) for version in range(1, 200)]
    tokens = [
        value
        for stored in ingest.ledger.sealed(entries)
        for value in msgspec.json.decode(stored.body)["data"].values()
        if isinstance(value, str) and value.startswith("k1.")
    ]
    assert (
        len(tokens)
        == len({token.rpartition(".")[2][:16] for token in tokens})
        == 199 * len(personal_fields(PartyDescribed))
    )


@pytest.mark.requirement("M22")
def test_an_erased_subject_leaves_no_plain_value(ingest):
    stream = UUID(int=815)
    ingest.ledger._keys.keys_for([stream])
    ingest.ledger._keys.erase([stream])
    (stored,) = ingest.ledger.sealed([Entry(stream, 1, party(1), None, NOW, INTAKE)])
    assert CATALOGUE.open(stored, None).event.name == ERASED
    assert "王小明".encode() not in stored.body
