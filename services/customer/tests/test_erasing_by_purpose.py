"""What is kept for contact goes before what is kept of the relation, and nothing goes while a legal hold stands."""

import asyncio
import json
from binascii import a2b_base64
from contextlib import asynccontextmanager
from datetime import date, timedelta
from uuid import UUID, uuid5

import msgspec
import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import is_transient
from chassis.lists.declaring import BLIND
from chassis.privacy.keys import ERASED, KeyRing, is_token
from chassis.privacy.personal import TRANSACTION, marked
from chassis.privacy.rotating import rotate
from chassis.privacy.tokens import development_token
from chassis.process.leases import Lease, PostgresLease
from chassis.proposals import SecondPersonNeeded
from chassis.timers import TimerLoop
from chassis.timers.table import TIMERS_LEASE, PostgresTimers
from chassis.write.deciding import CommandContext, CommandKeyReused, Refusal, VersionMismatch
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore
from contracts import purposes
from contracts.roles import COMPLIANCE, ROLES
from customer import permissions
from customer.application import CustomerService
from customer.catalogue import catalogue
from customer.derived import customer_facts
from customer.domain.commands import (
    AdoptDescription,
    DeferErasure,
    Details,
    EndErasurePreparation,
    EraseContact,
    EraseCustomer,
    LiftLegalHold,
    PlaceLegalHold,
    Reference,
    RenameCustomer,
)
from customer.domain.customer import customer_decider
from customer.domain.events import (
    CONTACT,
    STORED_NAMES,
    ContactDetailsChanged,
    CustomerContactErased,
    CustomerErased,
    CustomerRegistered,
    DetailsContradicted,
    ErasureDeferred,
    ErasurePreparationBegun,
    ErasurePreparationEnded,
    LegalHoldLifted,
    LegalHoldPlaced,
    NamedKeyCustomer,
    ReferenceClaimed,
    ReferenceDisputed,
    ReferenceLinked,
    ReferenceUnlinked,
)
from customer.domain.refusals import (
    CustomerIsErased,
    LegalHoldEnded,
    LegalHoldStands,
    LegalHoldUnknown,
    TooManyLegalHolds,
)
from customer.domain.state import Customer, Link
from customer.identities import customer_of_party
from customer.policies.when_customer_erased_then_destroy_keys import DestroyKeys
from customer.policies.when_party_described_then_register_customer import RegisterDescribed
from customer.publishing import published
from customer.retention import RetentionHolds
from customer.timers import erasure_timer
from customer.views import customers
from msgspec import structs

from tests.support.specification import ManualClock, Specification

from .test_api import CLOCK, api, key
from .test_policy import NUMBER, PARTY, START, described
from .test_queries import IDS, NOW, Bank, queries
from .test_timers import CALENDAR
from .told import Teller, Told, dated

__all__ = ["api", "queries"]

customer = Specification(customer_decider)
CUSTOMER = customer_of_party(PARTY)
TODAY, LATER, HOLD, OTHER = NOW.date(), date(2031, 5, 1), UUID(int=7), UUID(int=8)
REGISTERED = CustomerRegistered(name="张伟", kind="person", origin="staff", phone="13800001234")
CONTACT_ERASED = CustomerContactErased(parties=(PARTY,), rest_from=LATER)
ERASE, ERASE_CONTACT = EraseCustomer((PARTY,), (), TODAY), EraseContact((PARTY,), LATER, TODAY)
PLACE = PlaceLegalHold(HOLD, None, TODAY)
WHY = {"reason": "he asked for it"}
PHONE = "13800001234"
CLOSED_ON = ("asset_panorama_v1_accounts", {})


def test_whatever_says_how_a_customer_is_reached_is_marked_for_contact() -> None:
    for event in STORED_NAMES.values():
        for place, mark in marked(event).marks().items():
            assert mark.purpose == (purposes.CONTACT if place in CONTACT else TRANSACTION), (event, place)


def test_contact_is_erased_once_and_then_the_rest() -> None:
    customer.given(REGISTERED).when(ERASE_CONTACT).then(CONTACT_ERASED)
    customer.given(REGISTERED, CONTACT_ERASED).when(ERASE_CONTACT).then()
    customer.given(REGISTERED, CONTACT_ERASED).when(ERASE).then(CustomerErased((PARTY,), ()))
    customer.given(REGISTERED, CONTACT_ERASED).when(RenameCustomer("李娜")).then_rejected(CustomerIsErased)
    later = date(2032, 1, 1)
    customer.given(REGISTERED, CONTACT_ERASED).when(DeferErasure(later)).then(ErasureDeferred(later))
    customer.given(REGISTERED, CONTACT_ERASED).when(DeferErasure(LATER)).then(ErasureDeferred(LATER))
    customer.given(REGISTERED).when(DeferErasure(later)).then()
    prepared = ErasurePreparationBegun(UUID(int=1), ())
    ended = ErasurePreparationEnded(UUID(int=1), "erased")
    customer.given(REGISTERED, prepared).when(ERASE_CONTACT).then(CONTACT_ERASED, ended)


def test_what_comes_after_an_erasure_by_a_program_changes_nothing_and_is_not_refused() -> None:
    """The source goes on to describe the party, and the saga ends its preparation."""
    adopting = AdoptDescription(Reference("core", NUMBER, PARTY), Details(name="李娜"), TODAY)
    erased = CustomerErased((PARTY,), ())
    for history in ([CONTACT_ERASED], [erased], [CONTACT_ERASED, erased]):
        for command in (adopting, EndErasurePreparation("failed", UUID(int=1))):
            customer.given(REGISTERED, *history).when(command).then_nothing()
    customer.given(REGISTERED, erased).when(ERASE).then_nothing()
    for command in (ERASE_CONTACT, DeferErasure(LATER), LiftLegalHold(HOLD), RenameCustomer("李娜")):
        customer.given(REGISTERED, erased).when(command).then_rejected(CustomerIsErased)


def test_a_legal_hold_forbids_every_erasure_while_it_stands() -> None:
    placed, until = LegalHoldPlaced(HOLD, None), LegalHoldPlaced(OTHER, TODAY + timedelta(days=1))
    customer.given(REGISTERED).when(PLACE).then(placed)
    customer.given(REGISTERED, placed).when(PLACE).then()
    for erase in (ERASE, ERASE_CONTACT):
        customer.given(REGISTERED, placed).when(erase).then_rejected(LegalHoldStands)
        customer.given(REGISTERED, until).when(erase).then_rejected(LegalHoldStands)
    lifted = LegalHoldLifted(HOLD, None)
    customer.given(REGISTERED, placed).when(LiftLegalHold(HOLD)).then(lifted)
    customer.given(REGISTERED, placed, lifted).when(LiftLegalHold(HOLD)).then_rejected(LegalHoldUnknown)
    customer.given(REGISTERED, placed, lifted).when(ERASE_CONTACT).then(CONTACT_ERASED)
    customer.given(REGISTERED, placed, until, lifted).when(ERASE).then_rejected(LegalHoldStands)
    ended = LegalHoldPlaced(OTHER, TODAY)  # the business date before which it stood
    customer.given(REGISTERED, ended).when(ERASE_CONTACT).then(CONTACT_ERASED)
    for day in (TODAY, TODAY - timedelta(days=1)):
        customer.given(REGISTERED).when(PlaceLegalHold(HOLD, day, TODAY)).then_rejected(LegalHoldEnded)
    many = [LegalHoldPlaced(UUID(int=number), None) for number in range(20)]
    one_more = PlaceLegalHold(UUID(int=99), None, TODAY)
    customer.given(REGISTERED, *many).when(one_more).then_rejected(TooManyLegalHolds)
    customer.given(REGISTERED, *many).when(PlaceLegalHold(UUID(int=5), None, TODAY)).then_nothing()
    # One that has ended does not count.
    over = LegalHoldPlaced(UUID(int=50), TODAY)
    customer.given(REGISTERED, *many[1:], over).when(one_more).then(LegalHoldPlaced(UUID(int=99), None))
    longest = [LegalHoldPlaced(UUID(int=days), TODAY + timedelta(days=days)) for days in (3, 9, 6)]
    refused = customer.given(REGISTERED, *longest).when(ERASE).decided
    assert str(refused) == f"until {TODAY + timedelta(days=9)}"


def test_a_legal_hold_comes_too_late_where_the_keys_are_gone_and_holds_what_is_left() -> None:
    erased = CustomerErased((PARTY,), ())
    customer.given(REGISTERED, erased).when(PLACE).then_rejected(CustomerIsErased)
    placed = LegalHoldPlaced(HOLD, None)
    customer.given(REGISTERED, CONTACT_ERASED).when(PLACE).then(placed)
    customer.given(REGISTERED, CONTACT_ERASED, placed).when(ERASE).then_rejected(LegalHoldStands)
    customer.given(REGISTERED, CONTACT_ERASED, placed).when(ERASE_CONTACT).then_nothing()
    lifted = LegalHoldLifted(HOLD, LATER)
    customer.given(REGISTERED, CONTACT_ERASED, placed).when(LiftLegalHold(HOLD)).then(lifted)


def test_the_state_keeps_no_value_that_was_erased() -> None:
    own = ReferenceLinked(source="core", party_id=PARTY, key=NUMBER)
    said = {"source": "core", "party_id": PARTY}
    claimed = ReferenceClaimed(source="fund", party_id=OTHER, key="F1")
    history = [
        REGISTERED,
        own,
        DetailsContradicted(phone="13900005678", name="李娜", **said),
        ContactDetailsChanged(phone=PHONE, email="zhang@qq.com", address=None, changed=("email",), **said),
        claimed,
        ReferenceDisputed(source="fund", party_id=OTHER, phone="13700000001", name="王芳"),
        NamedKeyCustomer(LATER),
    ]
    contact = customer_decider.fold([*history, CONTACT_ERASED])
    kept = msgspec.json.encode(contact).decode()
    assert "张伟" in kept
    assert [one for one in (PHONE, "13900005678", "zhang@qq.com", "13700000001") if one in kept] == []
    assert (contact.review_due_on, contact.rest_from, set(contact.links)) == (None, LATER, {PARTY, OTHER})
    bare = Link("core", "", True)
    for before in (history, [*history, CONTACT_ERASED]):
        customer.given(*before, CustomerErased((PARTY,), ())).then_state(
            Customer(origin="staff", links={PARTY: bare}, erased=True)
        )
    disputed = customer_decider.fold([*history[:-1], CustomerErased((PARTY, OTHER), ())])
    assert disputed.links == {PARTY: bare, OTHER: Link("fund", "", False)}


def test_no_description_of_a_claim_that_was_given_up_keeps_a_value_for_contact() -> None:
    claimed = ReferenceClaimed(source="core", party_id=PARTY, key=NUMBER)
    disputed = ReferenceDisputed(source="core", party_id=PARTY, name="李娜", phone="13900005678")
    given_up = ReferenceUnlinked(source="core", party_id=PARTY, until=TODAY)
    again = structs.replace(claimed, claim=UUID(int=5))
    story = [REGISTERED, claimed, disputed, given_up, again, CONTACT_ERASED]
    for history in (story, [*story[:3], CONTACT_ERASED]):
        kept = msgspec.json.encode(customer_decider.fold(history))
        assert b"13900005678" not in kept
        assert PHONE.encode() not in kept


@pytest.fixture
def bank(key_ring, request):
    """An account that was closed some years ago, with a posting, and its owner as the view knows it."""
    bank = Bank(key_ring)
    bank.own = bank.account("core", "6222021234566789", "deposit", (NUMBER, "owner"))
    bank.posting(bank.own, 500, "2020-02-28", counterparty_name="王五", text="工资")
    bank.closed_on = getattr(request, "param", "2020-02-29")
    bank.tell(bank.own, "account.closed", source="core", closed_on=bank.closed_on)
    return bank


@pytest.fixture
def register(handler, store, key_ring):
    return RegisterDescribed(handler, store, key_ring, SystemClock(), IDS, START.date)


@pytest.fixture
def days():
    """The bank's dates; the last one is today's."""
    return [TODAY]


@pytest.fixture
def service(handler, store, queries, days):
    return service_of(handler, store, queries, days)


def service_of(handler, store, queries, days):
    async def reached(context, position, seconds):
        return True

    return CustomerService(handler, store, catalogue(), queries, IDS, CLOCK, lambda: days[-1], reached, dated)


@pytest.fixture
def destroy(key_ring):
    return DestroyKeys(key_ring)


def by(actor="chen", reason="he asked for it"):
    return CommandContext(actor=actor, now=NOW, command_id=uuid5(CUSTOMER, actor), reason=reason)


async def told(store, name="customer-contact-erased"):
    """The event as its readers get it."""
    [stored] = [one for one in await store.read_stream(CUSTOMER) if one.name == name]
    data = json.loads(published(stored).body)
    return Teller().tell(CUSTOMER, name.replace("customer-", "customer.").replace("-", "_"), **data)


async def names(store):
    return [one.name for one in await store.read_stream(CUSTOMER)]


@pytest.mark.requirement("M22")
async def test_contact_goes_first_and_the_rest_on_its_day(
    service, register, destroy, store, key_ring, bank, days
):
    await register(described(key_ring, email="zhang@qq.com", address="北京市海淀区"))
    outcome = await service.erase(CUSTOMER, by())
    rest_from = date(2030, 3, 1)  # ten years after a leap day
    assert outcome.events == (CustomerContactErased((PARTY,), rest_from),)
    for _ in range(2):
        await destroy(await told(store))
    assert key_ring.erased([CUSTOMER, PARTY], purposes.CONTACT) == {CUSTOMER, PARTY}
    assert key_ring.erased([CUSTOMER, PARTY, bank.own]) == set()
    # The same again, another time, and before the day: nothing.
    again = await service.erase(CUSTOMER, by())
    assert (again.events, again.replayed) == ((), True)
    with pytest.raises(CommandKeyReused):
        await service.erase(CUSTOMER, by(reason="another one"))
    with pytest.raises(RetentionHolds, match="until 2030-03-01"):
        await service.erase(CUSTOMER, by("li"))
    version = (await service.erasure(CUSTOMER)).version
    days.append(rest_from - timedelta(days=1))
    early = await service.finish_erasure(CUSTOMER, by("early", None), version)
    assert early.events == (ErasureDeferred(rest_from),)
    version = early.version
    days.append(rest_from)
    with pytest.raises(VersionMismatch):
        await service.finish_erasure(CUSTOMER, by("timer", None), version - 1)
    done = await service.finish_erasure(CUSTOMER, by("timer", None), version)
    assert [type(one) for one in done.events] == [CustomerErased]
    assert (await service.finish_erasure(CUSTOMER, by("timer", None), version)).replayed
    await destroy(await told(store, "customer-erased"))
    assert key_ring.erased([CUSTOMER, PARTY, bank.own]) == {CUSTOMER, PARTY, bank.own}


@pytest.mark.requirement("M22")
async def test_after_contact_is_erased_no_byte_that_is_left_opens_it_and_the_rest_opens(
    service, register, destroy, store, key_ring, keys_url, bank, handler, postgres_url, schema
):
    """Event store, public events and views hold the same tokens. None of contact names a key that still exists."""
    await register(described(key_ring, email="zhang@qq.com", address="北京市海淀区"))
    await service.erase(CUSTOMER, by())
    await destroy(await told(store))
    with psycopg.connect(keys_url) as connection:
        left = {
            row[0]
            for row in connection.execute(
                "select key_id from data_keys where wrapped is not null union all"
                " select key_id from purpose_keys where wrapped is not null"
            )
        }
    bodies = [one.body for one in await store.read_stream(CUSTOMER)]
    public = [found.body for one in await store.read_stream(CUSTOMER) if (found := published(one))]
    document = None
    for one in await store.read_stream(CUSTOMER):
        found = published(one)
        data = json.loads(found.body)
        event = Told(found.event.TYPE, CUSTOMER, one.version, data, stored_name=one.name)
        document = customers.project(customers.keys(event)[0], document, event)
    view = [json.dumps(one, default=str).encode() for one in (document, *bank.folded.values())]
    seen = set()
    for body in (*bodies, *public, *view):
        for plain in (PHONE, "zhang@qq.com", "海淀"):
            assert plain.encode() not in body
        for field, token in tokens_of(json.loads(body)):
            named = UUID(bytes=a2b_base64(token.split(".")[1]))
            assert (named in left) == (field not in CONTACT), field
            seen.add(field)
    assert {*CONTACT, "name", "key", "counterparty_name", "text"} <= seen
    handler.forget(CUSTOMER)
    state = (await handler.load(CUSTOMER)).state
    assert state.values["name"] == "张伟"
    assert not CONTACT & state.values.keys()
    ring = KeyRing(keys_url, key_ring.encryption, SystemClock().monotonic)
    keys = ring.keys_for([CUSTOMER], create=False)
    ring.close()
    [first, *_] = catalogue().open_all(await store.read_stream(CUSTOMER), keys)
    assert (first.event.name, first.event.phone, first.event.email) == ("张伟", ERASED, ERASED)


def tokens_of(value, field=""):
    """Each sealed value of a document, with the field that holds it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from tokens_of(inner, field if name == "t" else name)
    elif isinstance(value, list):
        for inner in value:
            yield from tokens_of(inner, field)
    elif is_token(value):
        yield field, value


async def test_nobody_who_was_registered_before_there_were_purposes_is_erased_in_part(
    service, store, key_ring, register, bank, days
):
    """The customer's key or its party's seals everything: all of it goes together, later."""
    key_ring.keys_for([PARTY])
    await register(described(key_ring))
    with pytest.raises(RetentionHolds, match="until 2030-03-01"):
        await service.erase(CUSTOMER, by())
    days.append(date(2030, 3, 1))
    [erased] = (await service.erase(CUSTOMER, by())).events
    assert isinstance(erased, CustomerErased)


@pytest.mark.parametrize("bank", ["2025-12-01"], indirect=True)
async def test_contact_has_a_period_of_its_own(service, register, key_ring, bank, days):
    await register(described(key_ring))
    with pytest.raises(RetentionHolds, match="until 2028-11-30"):
        await service.erase(CUSTOMER, by())
    days.append(date(2028, 11, 30))
    [erased] = (await service.erase(CUSTOMER, by())).events
    assert erased == CustomerContactErased((PARTY,), date(2035, 12, 1))
    days.append(date(2035, 11, 30))
    with pytest.raises(RetentionHolds, match="until 2035-12-01"):
        await service.erase(CUSTOMER, by("li"))
    days.append(date(2035, 12, 1))
    [erased] = (await service.erase(CUSTOMER, by("li"))).events
    assert isinstance(erased, CustomerErased)


async def test_the_rest_waits_for_a_customer_that_comes_back_and_for_a_hold(
    service, register, destroy, store, key_ring, bank, days, mongo
):
    await register(described(key_ring))
    await service.erase(CUSTOMER, by())
    await destroy(await told(store))
    # What its source says later brings no value for contact back, and no key.
    before = await names(store)
    await register(described(key_ring, 2, name="张伟明", phone="13900005678"))
    assert await names(store) == before
    assert key_ring.keys_for([PARTY], purposes=[purposes.CONTACT])[PARTY].parts == {purposes.CONTACT: None}
    days.append(date(2030, 3, 1))
    await mongo.update(*CLOSED_ON, {"$set": {"closed_on": None}})
    version = (await service.erasure(CUSTOMER)).version
    back = await service.finish_erasure(CUSTOMER, by("t1", None), version)
    assert back.events == (ErasureDeferred(date(2040, 3, 1)),)
    await mongo.update(*CLOSED_ON, {"$set": {"closed_on": "2029-12-31"}})
    days.append(date(2040, 3, 1))
    await service.place_legal_hold(CUSTOMER, date(2041, 1, 1), by("hold"))
    waits = await service.finish_erasure(CUSTOMER, by("t2", None), back.version + 1)
    assert waits.events == (ErasureDeferred(date(2041, 1, 1)),)
    days.append(date(2041, 1, 1))
    placed = await service.place_legal_hold(CUSTOMER, None, by("endless"))
    with pytest.raises(LegalHoldStands):
        await service.finish_erasure(CUSTOMER, by("t3", None), placed.version)
    hold = placed.events[0].hold
    lifted = await service.handler.handle(CUSTOMER, LiftLegalHold(hold), by("wu"))
    assert lifted.events == (LegalHoldLifted(hold, date(2041, 1, 1)),)
    done = await service.finish_erasure(CUSTOMER, by("t4", None), lifted.version)
    assert [type(one) for one in done.events] == [CustomerErased]
    with pytest.raises(CustomerIsErased):
        await service.place_legal_hold(CUSTOMER, None, by("late"))


@asynccontextmanager
async def timers_of(handler, store, queries, postgres_url, schema, clock):
    """The timer of erasures in the loop of its role, and the service, by one clock."""

    async def reached(context, position, seconds):
        return True

    today = lambda: CALENDAR.business_date(clock.now())  # noqa: E731
    service = CustomerService(handler, store, catalogue(), queries, IDS, clock, today, reached, dated)
    row, table = PostgresLease(postgres_url, schema, TIMERS_LEASE), PostgresTimers(postgres_url, schema)
    lease, decode = Lease(row, clock), catalogue().decode
    timers = [erasure_timer(service, CALENDAR)]
    loop = TimerLoop("timers", timers, store, decode, table, lease, clock, generation="1")
    await loop.begin()

    async def until(at):
        clock.advance((at - clock.now()).total_seconds())
        while await loop.turn(await lease.acquire()):
            pass

    try:
        yield service, until
    finally:
        await lease.release()
        await row.close()
        await table.close()


@pytest.mark.requirement("M22")
async def test_a_timer_erases_the_rest_on_its_day_and_as_soon_as_a_hold_is_lifted_that_had_put_it_off(
    handler, queries, register, destroy, store, key_ring, bank, postgres_url, schema
):
    await register(described(key_ring))
    clock = ManualClock(NOW)

    def now(actor):
        return structs.replace(by(actor), now=clock.now())

    async with timers_of(handler, store, queries, postgres_url, schema, clock) as (service, until):
        await service.erase(CUSTOMER, now("chen"))
        await destroy(await told(store))
        held = await service.place_legal_hold(CUSTOMER, date(2041, 1, 1), now("court"))
        endless = await service.place_legal_hold(CUSTOMER, None, now("other court"))
        morning = CALENDAR.at(date(2030, 3, 1), CALENDAR.hours[0].start)
        await until(morning - timedelta(seconds=1))
        before = await names(store)
        await until(morning)
        assert await names(store) == before, "a hold without an end stands"
        await handler.handle(CUSTOMER, LiftLegalHold(endless.events[0].hold), now("wu"))
        await until(clock.now())
        assert (await names(store))[-1] == "erasure-deferred"
        assert (await service.erasure(CUSTOMER)).rest_from == date(2041, 1, 1)
        await until(CALENDAR.at(date(2031, 5, 5), CALENDAR.hours[0].start))
        assert (await names(store))[-1] == "erasure-deferred"
        await handler.handle(CUSTOMER, LiftLegalHold(held.events[0].hold), now("li"))
        await until(clock.now())
        assert (await names(store))[-2:] == ["legal-hold-lifted", "customer-erased"]
        await until(CALENDAR.at(date(2041, 1, 2), CALENDAR.hours[0].start))
        assert (await names(store)).count("customer-erased") == 1


async def test_a_hold_that_is_lifted_before_the_day_erases_nothing_before_it(
    handler, queries, register, destroy, store, key_ring, bank, postgres_url, schema
):
    await register(described(key_ring))
    clock = ManualClock(NOW)
    async with timers_of(handler, store, queries, postgres_url, schema, clock) as (service, until):
        await service.erase(CUSTOMER, by())
        await destroy(await told(store))
        held = await service.place_legal_hold(CUSTOMER, None, by("court"))
        await handler.handle(CUSTOMER, LiftLegalHold(held.events[0].hold), by("wu"))
        await until(clock.now())
        morning = CALENDAR.at(date(2030, 3, 1), CALENDAR.hours[0].start)
        await until(morning - timedelta(seconds=1))
        assert (await names(store))[-2:] == ["legal-hold-lifted", "erasure-deferred"]
        await until(morning)
        assert (await names(store))[-1] == "customer-erased"


@pytest.mark.parametrize("many", [1, 4])
async def test_of_a_hold_and_an_erasure_at_once_one_wins(
    service, register, destroy, store, key_ring, bank, queries, keys_url, postgres_url, schema, many
):
    """In processes of their own, while key-encryption keys are rotated. What is erased is held by nobody."""
    await register(described(key_ring))
    stores = [EventStore(postgres_url, schema) for _ in range(2 * many)]
    try:
        work = [_other(one, key_ring, queries) for one in stores]
        tried = [one.erase(CUSTOMER, by(f"e{n}")) for n, one in enumerate(work[:many])]
        tried += [one.place_legal_hold(CUSTOMER, None, by(f"h{n}")) for n, one in enumerate(work[many:])]
        *outcomes, _ = await asyncio.gather(
            *tried, asyncio.to_thread(rotate, keys_url, key_ring.encryption), return_exceptions=True
        )
    finally:
        for one in stores:
            await one.close()
    assert all(isinstance(one, Refusal) or not isinstance(one, BaseException) for one in outcomes), outcomes
    log = await names(store)
    if "customer-contact-erased" in log:
        assert "legal-hold-placed" not in log[: log.index("customer-contact-erased")]
        await destroy(await told(store))
    else:
        assert log.count("legal-hold-placed") == many
        service.handler.forget(CUSTOMER)
        state = (await service.handler.load(CUSTOMER)).state
        assert state.values["phone"] == f"+86{PHONE}", "what is held opens"


def _other(store, ring, queries):
    handler = CommandHandler(customer_decider, store, catalogue(), ring)
    return service_of(handler, store, queries, [TODAY])


async def test_keys_for_contact_are_destroyed_after_an_outage_of_the_key_database(
    service, register, destroy, store, key_ring, keys_url, bank
):
    await register(described(key_ring))
    await service.erase(CUSTOMER, by())
    event = await told(store)
    nowhere = psycopg.conninfo.make_conninfo(keys_url, port=1, host="127.0.0.1", connect_timeout=2)
    ring = KeyRing(nowhere, key_ring.encryption, SystemClock().monotonic)
    with pytest.raises(psycopg.OperationalError) as lost:
        await DestroyKeys(ring)(event)
    assert is_transient(lost.value), "the event waits for the database, and is no dead letter"
    assert key_ring.erased([CUSTOMER, PARTY], purposes.CONTACT) == set()
    await destroy(event)
    assert key_ring.erased([CUSTOMER, PARTY], purposes.CONTACT) == {CUSTOMER, PARTY}


def test_the_view_closes_open_questions_and_says_when_contact_was_erased(key_ring):
    bank = Bank(key_ring)
    bank.customer(CUSTOMER, "张伟", ("core", NUMBER))
    bank.tell(
        CUSTOMER, "customer.details_contradicted", source="core", party_id=str(PARTY), name="李娜", invalid=[]
    )
    bank.tell(CUSTOMER, "customer.contact_erased", parties=[str(PARTY)], rest_from="2030-03-01")
    [document] = [one for (view, _), one in bank.folded.items() if view is customers]
    assert (document["questions"], document["contradictions"]) == ([], [])
    assert document["contact_erased_at"][:4] == "2026"
    assert document.get("erased_at") is None


async def test_no_digest_of_what_is_erased_is_made_while_the_key_is_still_in_memory(key_ring, mongo):
    bank = Bank(key_ring)
    bank.customer(CUSTOMER, "张伟", ("core", NUMBER))
    bank.customer(OTHER, "李娜")
    bank.tell(CUSTOMER, "customer.contact_erased", parties=[str(PARTY)], rest_from="2030-03-01")
    await bank.keep(mongo)
    await bank.keep_facts(mongo)
    found = await mongo.find(f"{customer_facts.VIEW.name}_v1_{customer_facts.FACTS}", {}, limit=9)
    digests = {one["_id"]: one[BLIND] for one in found}
    assert digests[str(CUSTOMER)].keys() == digests[str(OTHER)].keys()
    assert digests[str(CUSTOMER)]["phone"] is None
    assert digests[str(OTHER)]["phone"] is not None


@pytest.mark.requirement("M22")
async def test_only_compliance_holds_and_two_of_them_lift(
    api, register, store, key_ring, tmp_path, postgres_url, bank
):
    for route in ("place_legal_hold", "lift_legal_hold"):
        assert [role for role in ROLES if role in permissions.ROLES[route]] == [COMPLIANCE]
        assert route in permissions.HIGH_PRIVILEGE
    await register(described(key_ring))
    settings = Settings(postgres_url=postgres_url, environment="development", data=tmp_path)

    def headers(name, subject="chen", role=COMPLIANCE):
        token = development_token(settings, CLOCK.now(), subject=subject, roles=[role])
        return key(name) | {"Authorization": f"Bearer {token}"}

    path = f"/customers/{CUSTOMER}/legal-holds"
    assert (await api.post(path, json=WHY, headers=headers("h", role="administrator"))).status_code == 403
    assert (await api.post(path, json={}, headers=headers("h"))).status_code == 422
    past = await api.post(path, json=WHY | {"until": "2020-01-01"}, headers=headers("p"))
    assert (past.status_code, past.json()["code"]) == (422, "legal-hold-ended")
    nobody = await api.post(f"/customers/{OTHER}/legal-holds", json=WHY, headers=headers("n"))
    assert nobody.status_code == 404
    placed = [await api.post(path, json=WHY, headers=headers("h")) for _ in range(2)]
    assert [one.status_code for one in placed] == [200, 200], placed[0].text
    assert placed[0].json() == placed[1].json()
    shown = (await api.get(f"/customers/{CUSTOMER}/erasure", headers=headers("g", "wu", "auditor"))).json()
    [hold] = shown.pop("legal_holds")
    assert hold["until"] is None
    assert shown == {
        "customer_id": str(CUSTOMER),
        "erased": False,
        "contact_erased": False,
        "rest_from": None,
    }
    assert (
        await api.get(f"/customers/{CUSTOMER}/erasure", headers=headers("g", role="teller"))
    ).status_code == 403

    erase = headers("e") | {"If-Match": placed[0].headers["ETag"]}
    refused = await api.post(f"/customers/{CUSTOMER}/erase", json=WHY, headers=erase)
    assert (refused.status_code, refused.json()["code"]) == (409, "legal-hold-stands")
    lift = f"{path}/{hold['hold_id']}/lift"
    unknown = await api.post(f"{path}/{OTHER}/lift", json=WHY, headers=headers("u"))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "legal-hold-unknown")
    proposed = await api.post(lift, json=WHY, headers=headers("l"))
    assert proposed.status_code == 202
    approval = WHY | {"digest": proposed.json()["digest"]}
    where = f"{proposed.headers['Location']}/approve"
    alone = await api.post(where, json=approval, headers=headers("a"))
    assert (alone.status_code, alone.json()["code"]) == (403, SecondPersonNeeded.code)
    done = await api.post(where, json=approval, headers=headers("a", "wu"))
    assert done.status_code == 200, done.text
    log = await store.read_stream(CUSTOMER)
    assert [one.name for one in log][-2:] == ["legal-hold-placed", "legal-hold-lifted"]
    first, second = (catalogue().metadata_of(one) for one in log[-2:])
    assert (first.actor, first.reason, first.privilege) == ("chen", WHY["reason"], "high")
    assert (second.actor, second.proposed_by, second.privilege) == ("wu", "chen", "high")
    assert [published(one) for one in log[-2:]] == [None, None], "its customer must not learn of it"
    for role, seen in ((COMPLIANCE, log), ("auditor", log), ("relationship-manager", log[:-2])):
        events = await api.get(f"/customers/{CUSTOMER}/events", headers=headers("v", "li", role))
        assert [one["name"] for one in events.json()["items"]] == [one.name for one in seen], role
