"""Every stored event has its public words, and they fit the published models exactly."""

import json
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from chassis.privacy.keys import DataKey
from chassis.write.catalogue import NewEvent
from chassis.write.events import Metadata
from contracts.identity import ExternalIds
from contracts.ingest import FeedCertified, FeedCertifiedV2, FeedRecordQuarantinedV2
from contracts.ingest import FeedRecordQuarantined as FeedRecordQuarantined1
from msgspec import structs
from sync_ingest.domain.booking import Reversed, booked, described
from sync_ingest.domain.certificate import Comparison, Judgement, certify
from sync_ingest.domain.events import (
    STORED_NAMES,
    AccountSeen,
    ContradictionsAcknowledged,
    FeedRecordQuarantined,
    HolderNamed,
    HolderRemoved,
    IntakeReceived,
    PostingBooked,
    PostingReversed,
    PostingUndone,
    QuarantinedRecordDismissed,
    QuarantinedRecordReleased,
    QuarantinedRecordShown,
    ReconciliationCertified,
    RecordsMoved,
    ReleasesClosed,
    ReleasesOpened,
    RepairProposed,
    RepairRejected,
    RepairWithdrawn,
    SourceScheduled,
)
from sync_ingest.domain.records import (
    AccountClosedRecord,
    AccountRecord,
    CardRecord,
    LoanRecord,
    PartyRecord,
    Posting,
    StandingOrderRecord,
)
from sync_ingest.domain.totals import ControlTotals
from sync_ingest.ledger import CATALOGUE
from sync_ingest.publishing import STORED_NAMES_TOLD, published

DAY = date(2026, 1, 5)
ID = UUID(int=5)
NOW = datetime(2026, 1, 5, tzinfo=UTC)
KEY = DataKey(ID, UUID(int=9), bytes(32))
META = Metadata(
    effective_at=NOW, recorded_at=NOW, actor="a", command_id=ID, correlation_id=ID, causation_id=ID
)
POSTING = Posting(
    account="1",
    core_transaction_id="t",
    amount_minor=-5,
    currency="CNY",
    booked_on=DAY,
    counterparty_account="6222",
    counterparty_name="王小明",
    text="房租",
)


def one_of_each():
    yield AccountSeen(source="s", account="6222")
    for record in (
        AccountRecord(account="6222", opened_on=DAY, name="家"),
        AccountClosedRecord(account="6222", closed_on=DAY),
        AccountClosedRecord(account="6222", closed_on=None),
        CardRecord(card="6222", account="1", issued_on=DAY, party="P"),
        LoanRecord(
            loan="L",
            account="1",
            granted_on=DAY,
            amount_minor=1,
            currency="CNY",
            duration_months=1,
            payment_minor=1,
        ),
        StandingOrderRecord(
            order="S", account="1", amount_minor=1, currency="CNY", counterparty_account="6222"
        ),
        PartyRecord(party="P", name="王小明", born_on=DAY, gender="male", phone="138"),
    ):
        yield described(ExternalIds(bytes(32)), "s", record)
    yield HolderNamed(source="s", party_id=ID, role="signatory", held_from=DAY)
    yield HolderRemoved(source="s", party_id=ID, role="joint", held_from=None, held_until=DAY)
    yield RecordsMoved(source="s", account_id=ID, sequences=(1, 2))
    for reverses in (None, Reversed(ID, "card", DAY)):
        yield booked("s", POSTING, identity=ID, digest="d", intake=ID, line=3, reverses=reverses)
    yield PostingUndone(source="s", posting_id=ID, undone_by=ID)
    yield IntakeReceived(source="s", intake=ID, content=ID, format="berka", size_bytes=1)
    yield FeedRecordQuarantined(
        source="s",
        quarantine=ID,
        intake=ID,
        file="f",
        line=1,
        column=None,
        reason="r",
        detail="d",
        raw="6222",
    )
    yield QuarantinedRecordReleased(source="s", quarantine=ID, replaced_by=ID, repair=ID, proposed_by="anna")
    yield QuarantinedRecordDismissed(source="s", quarantine=ID)
    yield QuarantinedRecordShown(source="s", quarantine=ID, purpose="to repair it")
    yield RepairProposed(source="s", quarantine=ID, repair=ID, records=1, amounts_minor={"CNY": 5})
    yield RepairRejected(source="s", quarantine=ID, repair=ID, proposed_by="anna")
    yield RepairWithdrawn(source="s", quarantine=ID, repair=ID)
    findings = certify(ControlTotals(), Comparison(ControlTotals()), Judgement())
    yield ReconciliationCertified(source="s", certificate=ID, intakes=(ID,), findings=findings)
    yield ContradictionsAcknowledged(source="s", certificate=ID, contradictions=(ID,))
    yield SourceScheduled(source="s", every_seconds=900)
    yield ReleasesClosed(source="s", party_id=ID)
    yield ReleasesOpened(source="s", party_id=ID)


EVENTS = list(one_of_each())


def test_every_stored_event_has_its_words():
    assert {type(event) for event in EVENTS} == set(STORED_NAMES.values())
    assert set(STORED_NAMES) == STORED_NAMES_TOLD


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_goes_out_is_exactly_what_the_model_says_and_personal_values_stay_sealed(event):
    (stored,) = CATALOGUE.stored([NewEvent(ID, 1, event, META)], {ID: KEY})
    words = published(stored)
    if isinstance(
        event,
        IntakeReceived
        | PostingUndone
        | QuarantinedRecordShown
        | RepairProposed
        | RepairRejected
        | RepairWithdrawn
        | ContradictionsAcknowledged
        | SourceScheduled
        | ReleasesClosed
        | ReleasesOpened,
    ):
        assert words is None
        return
    sent = json.loads(words.body)
    assert set(sent) == set(words.event.model_fields)
    words.event.model_validate_json(words.body)
    for name in words.event.PERSONAL:
        assert sent[name] is None or sent[name].startswith("k1.")
    # A sealed value is made of chance, and has any three digits in it now and then.
    text = str({name: value for name, value in sent.items() if name not in words.event.PERSONAL})
    assert [secret for secret in ("6222", "王小明", "房租", "138", "家") if secret in text] == []


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_is_stored_is_read_back(event):
    (stored,) = CATALOGUE.stored([NewEvent(ID, 1, event, META)], {ID: KEY})
    assert CATALOGUE.open(stored, KEY).event == event


def test_a_booked_and_a_reversed_posting_say_the_same_but_for_what_is_reversed():
    assert set(PostingReversed.__struct_fields__) - set(PostingBooked.__struct_fields__) == {
        "reverses",
        "reversed_kind",
        "reversed_booked_on",
    }


def test_a_quarantined_record_whose_file_was_in_clear_stays_published_so_and_is_read_without_the_name():
    event = next(event for event in EVENTS if isinstance(event, FeedRecordQuarantined))
    (stored,) = CATALOGUE.stored([NewEvent(ID, 1, event, META)], {ID: KEY})
    assert published(stored).event is FeedRecordQuarantinedV2
    body = json.loads(stored.body)
    body["data"] |= {"v": 1, "file": "张伟 6222021234566789.csv"}
    old = structs.replace(stored, body=json.dumps(body).encode())
    words = published(old)
    assert (words.event, json.loads(words.body)["file"]) == (FeedRecordQuarantined1, body["data"]["file"])
    for read in (CATALOGUE.open(old, KEY), CATALOGUE.decode(old), CATALOGUE.open(old, None)):
        assert (read.event.file, read.event.line) == ("***", event.line)


def test_a_certificate_of_before_amber_stays_published_as_it_was_and_is_read_as_one_of_now():
    event = next(event for event in EVENTS if isinstance(event, ReconciliationCertified))
    (stored,) = CATALOGUE.stored([NewEvent(ID, 1, event, META)], {ID: KEY})
    assert published(stored).event is FeedCertifiedV2
    body = json.loads(stored.body)
    body["data"]["v"] = 1
    body["data"]["findings"]["status"] = "GREEN"
    for name in ("reasons", "acknowledges"):
        del body["data"]["findings"][name]
    for name in ("expected_every_seconds", "received_at"):
        del body["data"][name]
    old = structs.replace(stored, body=json.dumps(body).encode())
    words = published(old)
    assert words.event is FeedCertified
    assert set(json.loads(words.body)) == set(FeedCertified.model_fields)
    read = CATALOGUE.open(old, KEY).event
    assert (read.findings.status, read.findings.reasons, read.expected_every_seconds) == ("GREEN", (), None)


def test_a_certificate_of_before_it_said_when_the_source_sent_is_published_and_read_without_it():
    event = next(event for event in EVENTS if isinstance(event, ReconciliationCertified))
    (stored,) = CATALOGUE.stored([NewEvent(ID, 1, event, META)], {ID: KEY})
    body = json.loads(stored.body)
    del body["data"]["received_at"]
    old = structs.replace(stored, body=json.dumps(body).encode())
    assert json.loads(published(old).body)["received_at"] is None
    assert CATALOGUE.open(old, KEY).event.received_at is None
