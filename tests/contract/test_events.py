"""Who writes events and who reads them agree on each version that was ever published: the golden files say which."""

import json
from copy import deepcopy
from pathlib import Path
from uuid import UUID

import pytest
from chassis.messaging.delivered import BodyInvalid, Delivered, read, read_body
from chassis.messaging.records import Record
from chassis.read.documents import Document, DocumentKey
from chassis.read.projecting import View
from chassis.service import services
from contracts.envelope import Envelope
from contracts.registry import BY_CONTEXT, context_of, lifts_of, model_of
from customer.policies import when_party_described_then_register_customer as described

GOLDEN = Path(__file__).parents[2] / "libs" / "contracts" / "golden"
FILES = sorted(GOLDEN.glob("*.json"))
VIEWS = [view for service in services() for view in service.views]
SUBJECT = UUID("0b5a3c8e-6d5f-5b1c-9a57-6b1f0c3a9d11")


def named(path: Path) -> tuple[str, int]:
    """Type and version of a golden file."""
    name, _, version = path.stem.rpartition(".v")
    return name, int(version.partition("+")[0])


def delivered(path: Path) -> Delivered:
    """The golden event as it comes from the topic."""
    name, version = named(path)
    at = "2026-01-05T08:00:00+00:00"
    envelope = {
        "ce_specversion": "1.0",
        "ce_id": str(SUBJECT),
        "ce_source": f"/crm/{context_of(name, version)}",
        "ce_type": name,
        "ce_subject": str(SUBJECT),
        "ce_time": at,
        "content-type": "application/json",
        "ce_sequence": "1",
        "ce_position": "7",
        "ce_dataversion": str(version),
        "ce_storedname": name.replace(".", "-"),
        "ce_effectiveat": at,
        "ce_correlationid": str(SUBJECT),
        "ce_causationid": str(SUBJECT),
    }
    headers = [(key, value.encode()) for key, value in envelope.items()]
    assert dict(Envelope.of(headers).headers()) == dict(headers)
    found = read(Record("t", 0, b"", headers, path.read_bytes(), 0))
    assert isinstance(found, Delivered)
    return found


def test_every_version_of_every_event_has_its_golden_file() -> None:
    events = {(event.TYPE, event.VERSION) for events in BY_CONTEXT.values() for event in events}
    assert {named(path) for path in FILES} == events


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_readers_get_what_writers_wrote(path: Path) -> None:
    """Views read with another decoder than the contract's models: both must see the same, and views the newest version."""
    event = delivered(path)
    model = model_of(event.type, event.version).model_validate_json(path.read_bytes())
    golden = json.loads(path.read_bytes())
    newest = golden
    for lift in lifts_of(event.type, event.version):
        newest = lift(newest)
    assert event.data == newest
    assert golden.items() <= json.loads(model.model_dump_json()).items()  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_readers_refuse_a_body_without_what_is_required(path: Path) -> None:
    name, version = named(path)
    body = json.loads(path.read_bytes())
    for field in model_of(name, version).model_json_schema().get("required", ()):
        without = {key: value for key, value in body.items() if key != field}
        with pytest.raises(BodyInvalid):
            read_body(name, version, json.dumps(without).encode())


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_views_digest_every_event_that_they_take(view: View) -> None:
    taken = [path for path in FILES if named(path)[0] in view.events]
    assert {named(path)[0] for path in taken} == view.events
    documents: dict[DocumentKey, Document | None] = {}
    while taken:
        # A view may refuse an event of a subject that it does not know yet: the others go first.
        refused: dict[Path, Exception] = {}
        for path in taken:
            event = delivered(path)
            try:
                documents |= {
                    key: view.project(key, deepcopy(documents.get(key)), event) for key in view.keys(event)
                }
            except Exception as error:  # noqa: BLE001 (whatever it is, it is shown where it stays)
                refused[path] = error
        assert len(refused) < len(taken), refused
        taken = list(refused)
    assert any(documents.values())


def test_policies_take_what_is_published() -> None:
    assert described.EVENT in {named(path)[0] for path in FILES}
