"""What others learn of a customer, old versions included, with every personal value still sealed."""

import json
from datetime import UTC, date, datetime
from uuid import UUID, uuid5

import pytest
from chassis.privacy.keys import DataKey, is_token
from chassis.timers.business_days import STORED_BUSINESS_DAYS, BusinessDayOpened
from chassis.write.catalogue import NewEvent
from chassis.write.events import Metadata, StoredEvent
from chassis.write.operations import OperatorActed
from customer.catalogue import catalogue
from customer.domain.events import (
    STORED_NAMES,
    BranchAssigned,
    ConsentGiven,
    ConsentWithdrawn,
    ContactDetailsChanged,
    ContradictionResolved,
    CustomerContactErased,
    CustomerErased,
    CustomerRegistered,
    CustomerRenamed,
    CustomerReviewed,
    DeclaredAsset,
    DetailsConfirmed,
    DetailsContradicted,
    ErasureDeferred,
    ErasurePreparationBegun,
    ErasurePreparationEnded,
    ErasurePrepared,
    HeldAccount,
    IdentityDetailsCorrected,
    IdentityNumberShared,
    LegalHoldLifted,
    LegalHoldPlaced,
    NamedKeyCustomer,
    NeedClosed,
    NeedCorrected,
    NeedRecorded,
    NoLongerKeyCustomer,
    PartyOfSource,
    ProfileExtended,
    ReferenceClaimed,
    ReferenceConfirmed,
    ReferenceDisputed,
    ReferenceLinked,
    ReferenceRejected,
    ReferenceUnlinked,
    ReviewFellDue,
    TagAdded,
    TagRemoved,
    TierAssessed,
    TierOverridden,
    TierOverrideEnded,
)
from customer.domain.tag import (
    TAGS,
    TagAccepted,
    TagDefined,
    TagMerged,
    TagReinstated,
    TagRenamed,
    TagRetired,
    TagTookOver,
)
from customer.publishing import NOT_TOLD, SAID_ALREADY, STORED_NAMES_TOLD, published

SUBJECT = UUID(int=7)
KEY = DataKey(SUBJECT, UUID(int=8), b"k" * 32)
NOW = datetime(2026, 1, 5, tzinfo=UTC)
METADATA = Metadata(
    effective_at=NOW,
    recorded_at=NOW,
    actor="t",
    command_id=SUBJECT,
    correlation_id=SUBJECT,
    causation_id=SUBJECT,
)
EVENTS = [
    CustomerRegistered(
        name="张伟", kind="person", origin="staff", stated_assets=(DeclaredAsset("wealth", 1, "CNY"),)
    ),
    ReferenceLinked(source="core", party_id=uuid5(SUBJECT, "p"), key="4711"),
    CustomerRenamed(name="张伟明"),
    ContactDetailsChanged(phone="13800001234", email="z@example.com", address="北京市朝阳区"),
    IdentityDetailsCorrected(born_on="1980-02-29", identity_number="110101198002290011"),
    ReferenceClaimed(source="core", party_id=SUBJECT, key="4711", claim=SUBJECT),
    ReferenceConfirmed(source="core", party_id=SUBJECT),
    ReferenceDisputed(source="core", party_id=SUBJECT, name="李娜", phone="13900005678"),
    ReferenceRejected(source="core", party_id=SUBJECT),
    ReferenceUnlinked(source="core", party_id=SUBJECT, until=NOW.date()),
    BranchAssigned(branch="浦东", source="core", party_id=SUBJECT),
    DetailsConfirmed(source="core", party_id=SUBJECT, fields=("name",)),
    DetailsContradicted(source="core", party_id=SUBJECT, phone="13900005678", born_on="1980-02-29"),
    ContradictionResolved(source="core", party_id=SUBJECT, field="phone", accepted=True),
    IdentityNumberShared(source="core", party_id=SUBJECT, customer_id=SUBJECT),
    CustomerErased(parties=(SUBJECT,), accounts=(HeldAccount(SUBJECT, (KEY.id,)),)),
    CustomerContactErased(parties=(SUBJECT,), rest_from=date(2036, 1, 6)),
    NamedKeyCustomer(date(2026, 2, 28)),
    NoLongerKeyCustomer(),
    CustomerReviewed(date(2026, 2, 27), date(2026, 3, 27)),
    ReviewFellDue(date(2026, 3, 27)),
    ErasurePreparationBegun(KEY.id, (PartyOfSource("core", SUBJECT),)),
    ErasurePrepared(KEY.id),
    ErasurePreparationEnded(KEY.id, "erased"),
    TagAdded(code="tag-a", origin="system", rule="loan-granted"),
    TagRemoved(code="tag-a"),
    TierAssessed("2026-01", "wealth", "met", 1, "CNY", 50_000_000, None),
    TierOverridden("private", date(2026, 12, 31)),
    TierOverrideEnded("lapsed", None),
    NeedRecorded(KEY.id, None, "古董鉴定", "想出售古董", "counter", "北京", "teller-7"),
    NeedCorrected(KEY.id, "study-abroad", None, "咨询留学汇款"),
    NeedClosed(KEY.id, "fulfilled", "已办理"),
    ConsentGiven("sms", "marketing", "授权书", date(2027, 1, 1)),
    ConsentWithdrawn("sms", "marketing", "短信回复"),
    ProfileExtended(NOW, "counter", ("occupation", "education"), "teacher", education="master"),
    TagDefined("tag-a", "房贷客户", "dictionary", KEY.id),
    TagRenamed("tag-a", "房贷", None),
    TagMerged("tag-a", "tag-b"),
    TagRetired("tag-a"),
    TagReinstated("tag-a"),
    TagAccepted("tag-a"),
    BusinessDayOpened(on=date(2026, 11, 26), kind="working-day", announced=True),
]


def stored(event):
    return catalogue().stored([NewEvent(SUBJECT, 1, event, METADATA)], {SUBJECT: KEY})[0]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_public_events_are_valid_and_their_personal_values_sealed(event):
    told = published(stored(event))
    read = told.event.model_validate_json(told.body)
    assert set(json.loads(told.body)) <= set(told.event.model_fields)
    for field in told.event.PERSONAL:
        value = getattr(read, field)
        assert value is None or is_token(value), field


def test_the_number_of_the_source_declared_assets_and_amounts_of_a_tier_are_not_published():
    assert "key" not in json.loads(published(stored(EVENTS[1])).body)
    assert "stated_assets" not in json.loads(published(stored(EVENTS[0])).body)
    [tier] = [event for event in EVENTS if isinstance(event, TierAssessed)]
    assert (
        json.loads(published(stored(tier)).body).keys().isdisjoint({"average_minor", "average_before_minor"})
    )
    [disputed] = [event for event in EVENTS if isinstance(event, ReferenceDisputed)]
    assert json.loads(published(stored(disputed)).body) == {"source": "core", "party_id": str(SUBJECT)}


def test_every_stored_name_has_a_public_event_or_none_on_purpose():
    stored_here = set(STORED_NAMES | STORED_BUSINESS_DAYS | TAGS)
    assert stored_here == STORED_NAMES_TOLD | NOT_TOLD | SAID_ALREADY
    holds = LegalHoldPlaced(KEY.id, None), LegalHoldLifted(KEY.id, None), ErasureDeferred(NOW.date())
    for event in (*holds, TagTookOver("tag-b", ("tag-a",))):
        assert published(stored(event)) is None


def test_a_registration_of_version_1_is_read_and_published_as_one_of_version_2():
    now = stored(CustomerRegistered(name="张伟", kind="person", origin="staff", phone="13800001234"))
    body = json.loads(now.body)
    body["data"] = {"v": 1} | {k: body["data"][k] for k in ("name", "phone")}
    old = StoredEvent(SUBJECT, 1, "customer-registered", json.dumps(body).encode())
    opened = catalogue().open(old, KEY).event
    assert opened == CustomerRegistered(name="张伟", kind="person", origin="staff", phone="13800001234")
    told = published(old)
    read = told.event.model_validate_json(told.body)
    assert (read.kind, read.origin, read.name) == ("person", "staff", body["data"]["name"])


def test_an_act_of_an_operator_is_stored_and_not_published():
    assert published(stored(OperatorActed("view-rebuilt", "customers"))) is None
