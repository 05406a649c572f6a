"""Customers are told of changes of their contact data, where they were reached before; approvers of proposals."""

from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid5

import httpx
import msgspec
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.notices import Inboxes, InboxTable, Notices, Wanted, of_role
from chassis.notices.loop import NoticeLoop
from chassis.notices.signing import signed_headers
from chassis.notices.table import NOTICES_LEASE, Limit, PostgresNotices
from chassis.privacy.tokens import development_token
from chassis.process.leases import Lease, PostgresLease
from chassis.proposals import FourEyes, Proposable
from chassis.proposals.deciding import ProposalHasExpired
from chassis.proposals.telling import waiting_timer
from chassis.timers import Due
from chassis.web import create_app, dependencies
from chassis.write.deciding import CommandContext
from chassis.write.events import EventId
from contracts.purposes import CONTACT
from customer import permissions
from customer.api import create_router
from customer.application import ERASE, LIFT_LEGAL_HOLD, CustomerService, Erase
from customer.catalogue import catalogue
from customer.domain.commands import ChangeContactDetails, Details, RegisterCustomer
from customer.notices import CLAIM_WAITS, PROPOSAL_WAITS, TEMPLATES
from customer.policies.when_contact_details_change_then_tell_customer import TellCustomer

from tests.support.fixtures import delivered
from tests.support.specification import ManualClock

ZHANG = UUID(int=71)
OLD, NEW = "+8613800001234", "+8613900005678"
CLOCK = ManualClock()
SECRET = bytes(range(32))
PINNED = {
    "contact-changed-sms": (1, "c73da9d543ed8250"),
    "contact-changed-email": (1, "e458248979a76693"),
    "contact-changed-push": (1, "00bc47a493af384b"),
    "proposal-waits": (1, "43af77026aa16dfc"),
    "claim-waits": (1, "7e1b9b0bdb35d2c7"),
}


@pytest.fixture
def notices(store, key_ring):
    return Notices(store, catalogue(), key_ring, TEMPLATES, purpose=CONTACT)


@pytest.fixture
def policy(notices, handler):
    return TellCustomer(notices, handler, CLOCK)


async def registered(handler, **details):
    context = CommandContext(actor="teller-7", now=CLOCK.now(), command_id=uuid5(ZHANG, "register"))
    await handler.handle(ZHANG, RegisterCustomer(Details(name="张伟", **details)), context)


async def changed(handler, **details):
    """Staff change the contact details; the event as a consumer gets it."""
    values = {"phone": None, "email": None, "address": None, **details}
    context = CommandContext(actor="teller-7", now=CLOCK.now(), command_id=uuid5(ZHANG, repr(details)))
    outcome = await handler.handle(ZHANG, ChangeContactDetails(**values), context)
    return delivered(
        "customer.contact_details_changed",
        ZHANG,
        outcome.version,
        ring=handler.keys,
        **values,
    )


async def told(store, notices):
    """What is to be sent: recipient and text of each notice, in order."""
    requests = [one for one in await store.read_after(0) if one.name == "notice-requested"]
    found = []
    for one in requests:
        requested = catalogue().decode(one).event
        message = await notices.message(one.stream_id, requested)
        found.append((message.to, message.text) if message else None)
    return found


async def test_a_customer_is_told_once_at_the_number_that_it_had_before(policy, handler, store, notices):
    await registered(handler, phone=OLD)
    event = await changed(handler, phone=NEW)
    await policy(event)
    await policy(event)
    [(to, text)] = await told(store, notices)
    assert to == OLD
    assert "手机号码" in text
    assert NEW not in text


async def test_who_had_no_address_is_told_at_the_new_one_and_each_channel_is_used(
    policy, handler, store, notices
):
    await registered(handler, phone=OLD)
    await policy(await changed(handler, phone=OLD, email="zhang@example.com"))
    assert sorted(to for to, _ in await told(store, notices)) == [OLD, "zhang@example.com"]
    assert all("电子邮箱" in text for _, text in await told(store, notices))


async def test_the_app_tells_a_customer_by_its_id_once_also_where_no_other_way_is_known(
    notices, handler, store, key_ring
):
    await registered(handler)
    with_app = TellCustomer(notices, handler, CLOCK, app=True)
    event = await changed(handler, address="长安街1号")
    for _ in range(2):
        await with_app(event)
    [requested] = [one for one in await store.read_after(0) if one.name == "notice-requested"]
    assert catalogue().decode(requested).event.channel == "push"
    [(to, text)] = await told(store, notices)
    assert (to, "联系地址" in text, "长安街" in text) == (str(ZHANG), True, False)
    await with_app(await changed(handler, address="长安街1号", phone=NEW))
    assert [to for to, _ in await told(store, notices)] == [str(ZHANG), NEW, str(ZHANG)]
    key_ring.erase([ZHANG])
    assert await told(store, notices) == [None] * 3


async def test_the_app_tells_nothing_of_what_a_source_states(notices, handler, store, key_ring):
    await registered(handler, phone=OLD)
    await changed(handler, phone=NEW)
    of_source = delivered(
        "customer.contact_details_changed", ZHANG, 2, ring=key_ring, source="core", phone=NEW
    )
    await TellCustomer(notices, handler, CLOCK, app=True)(of_source)
    assert await told(store, notices) == []


async def test_the_change_of_a_source_and_of_an_erased_customer_is_not_told(
    policy, handler, store, notices, key_ring
):
    await registered(handler, phone=OLD)
    event = await changed(handler, phone=NEW)
    of_source = delivered(
        "customer.contact_details_changed", ZHANG, 2, ring=key_ring, source="core", phone=NEW
    )
    await policy(of_source)
    key_ring.erase([ZHANG])
    await policy(event)
    assert await told(store, notices) == []


async def test_nothing_is_sent_once_the_contact_values_of_a_customer_are_erased(
    policy, handler, store, notices, key_ring
):
    await registered(handler, phone=OLD)
    await policy(await changed(handler, phone=NEW))
    assert key_ring.erase([ZHANG], CONTACT) == 1
    assert await told(store, notices) == [None]


async def test_a_number_that_nobody_can_have_stops_nothing(policy, handler, store, notices):
    await registered(handler, phone="none", email="zhang@example.com")
    await policy(await changed(handler, phone=NEW, email="zhang@example.com"))
    assert [to for to, _ in await told(store, notices)] == ["zhang@example.com"]


def test_the_text_of_a_template_changes_with_its_version():
    assert {one.name: (one.version, one.digest()) for one in TEMPLATES} == PINNED


@pytest.fixture
async def inboxes(notices, postgres_url, schema):
    table = InboxTable(postgres_url, schema)
    yield Inboxes(notices, table, {"sms": SECRET}, SystemClock())
    await table.close()


@asynccontextmanager
async def folded(postgres_url, schema, store, notices):
    """The role has seen all that is stored."""
    row, table = PostgresLease(postgres_url, schema, NOTICES_LEASE), PostgresNotices(postgres_url, schema)
    lease = Lease(row, CLOCK)
    each = Limit(1_000, 1.0)
    loop = NoticeLoop(
        "notices", notices, store, catalogue(), table, {}, lease, CLOCK, limits={}, to_each=each
    )
    try:
        await loop.begin()
        while await loop.turn(await lease.acquire()):
            await loop.under_way()
        yield
    finally:
        await lease.release()
        await row.close()
        await table.close()


@pytest.fixture
async def api(handler, store, inboxes, tmp_path, postgres_url):
    """Callers with tokens of their roles."""
    settings = Settings(postgres_url=postgres_url, environment="development", data=tmp_path)

    async def wait_for(context, position, seconds):
        return True

    nothing = None
    service = CustomerService(
        handler,
        store,
        catalogue(),
        nothing,
        nothing,
        CLOCK,
        CLOCK.now().date,
        wait_for,
        lambda at: at.date(),
        inboxes=inboxes,
    )
    entered = dependencies(wait_for, permissions.ROUTES, high=permissions.HIGH_PRIVILEGE)
    app = create_app("customer", [create_router(service, entered)], settings)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://crm") as client:

        def of(role, subject="lin", post=None):
            now = SystemClock().now()
            token = development_token(settings, now, subject=subject, post=post, roles=[role])
            return {"Authorization": f"Bearer {token}"}

        client.of, client.service = of, service
        yield client


async def proposed(store, key_ring, handler, *, lives=timedelta(days=14)):
    """Somebody proposes to erase a customer."""
    await registered(handler, phone=OLD)
    eyes = eyes_of(store, key_ring, lives)
    context = CommandContext(
        actor="lin", now=CLOCK.now(), command_id=uuid5(ZHANG, "propose"), reason="asked for"
    )
    return await eyes.propose(ERASE, ZHANG, Erase(), context)


def eyes_of(store, key_ring, lives=timedelta(days=14)):
    kind = Proposable(Erase, permissions.ERASURE_APPROVERS, lives, None, "销毁客户数据")
    return FourEyes(store, catalogue(), key_ring, {ERASE: kind})


async def given(store, notices, key_ring, at):
    """What the timers do at that time, twice."""
    [made] = [one for one in await store.read_after(0) if one.name == "proposal-made"]
    timer = waiting_timer(eyes_of(store, key_ring).kinds, notices, PROPOSAL_WAITS)
    [setting] = timer.changes(catalogue().decode(made))
    due = Due(
        timer.name, made.stream_id, "", EventId(uuid5(made.stream_id, "1")), 1, setting.due_at, setting.data
    )
    for _ in range(2):
        await timer.give(due, due.context(at), 1)


@pytest.mark.requirement("R084", "M05")
async def test_a_notice_about_a_customer_of_a_branch_is_in_the_inbox_of_no_other_branch(
    api, notices, handler, postgres_url, schema, store
):
    await registered(handler, phone=OLD)
    context = CommandContext(actor="timers", now=CLOCK.now(), command_id=uuid5(ZHANG, "told"))
    notice, inbox = uuid5(ZHANG, "claim"), of_role("relationship-manager", "支行007")
    await notices.request(notice, Wanted(ZHANG, inbox, CLAIM_WAITS.name, {"customer": str(ZHANG)}), context)
    async with folded(postgres_url, schema, store, notices):
        for role, post, told in (
            ("relationship-manager", "支行007/经理", 1),
            ("relationship-manager", "支行008/经理", 0),
            ("relationship-manager", None, 0),
            ("teller", "支行007/柜员", 0),
        ):
            headers = api.of(role, post=post)
            assert len((await api.get("/inbox/customer", headers=headers)).json()["items"]) == told
            assert (await api.get("/inbox/customer/unread", headers=headers)).json()["unread"] == told
            given = headers | {"Idempotency-Key": f"k{role}{told}"}
            read = await api.post(f"/inbox/customer/{notice}/read", json={}, headers=given)
            assert read.status_code == (204 if told else 404)


def test_what_every_kind_of_proposal_is_called_fits_the_notice(api):
    kinds = api.service.eyes.kinds
    assert LIFT_LEGAL_HOLD in kinds
    for kind in kinds.values():
        assert kind.title in PROPOSAL_WAITS.rendered({"what": kind.title, "proposal": str(ZHANG)}).text


@pytest.mark.requirement("R049")
async def test_who_may_approve_a_proposal_finds_it_in_the_inbox_once(
    api, store, notices, key_ring, handler, postgres_url, schema
):
    shown = await proposed(store, key_ring, handler)
    await given(store, notices, key_ring, CLOCK.now())
    async with folded(postgres_url, schema, store, notices):
        pass
    compliance, teller = api.of("compliance", "chen"), api.of("teller", "wu")
    [item] = (await api.get("/inbox/customer", headers=compliance)).json()["items"]
    assert str(shown.proposal_id) in item["text"]
    assert (item["subject_id"], item["read"]) == (str(ZHANG), False)
    assert (await api.get("/inbox/customer", headers=teller)).json() == {"items": [], "next": None}
    assert (await api.get("/inbox/customer/unread", headers=compliance)).json() == {
        "unread": 1,
        "more": False,
    }
    place = f"/inbox/customer/{item['notice_id']}/read"
    for number in (1, 2):
        key = {"Idempotency-Key": f"read-{number}"}
        assert (await api.post(place, json={}, headers={**compliance, **key})).status_code == 204
        assert (await api.post(place, json={}, headers={**teller, **key})).status_code == 404
    assert (await api.get("/inbox/customer/unread", headers=compliance)).json() == {
        "unread": 0,
        "more": False,
    }
    unread = await api.get("/inbox/customer", params={"unread": True}, headers=compliance)
    assert unread.json()["items"] == []


async def test_a_proposal_of_each_kind_is_told_to_each_role_that_may_approve_it(api, store, notices, handler):
    await registered(handler, phone=OLD)
    timer, now = waiting_timer(api.service.eyes.kinds, notices, PROPOSAL_WAITS), CLOCK.now()
    for kind, proposable in api.service.eyes.kinds.items():
        about = {"kind": kind, "subject": str(ZHANG), "expires_at": (now + timedelta(days=1)).isoformat()}
        due = Due(timer.name, uuid5(ZHANG, kind), "", EventId(uuid5(ZHANG, f"{kind} made")), 1, now, about)
        before = len(await told(store, notices))
        await timer.give(due, due.context(now), 1)
        assert len(await told(store, notices)) == before + len(proposable.approvers), kind


async def test_a_proposal_that_has_expired_is_told_to_nobody(store, notices, key_ring, handler):
    await proposed(store, key_ring, handler, lives=timedelta(hours=1))
    with pytest.raises(ProposalHasExpired):
        await given(store, notices, key_ring, CLOCK.now() + timedelta(hours=1))
    assert await told(store, notices) == []


async def test_a_receipt_comes_over_http_signed_and_only_from_a_service(api, policy, handler, store, notices):
    await registered(handler, phone=OLD)
    await policy(await changed(handler, phone=NEW))
    [requested] = [one for one in await store.read_after(0) if one.name == "notice-requested"]
    at = SystemClock().now()
    body = msgspec.json.encode(
        {"notice_id": requested.stream_id, "outcome": "bounced", "code": "absent", "occurred_at": at}
    )
    signed = signed_headers(SECRET, "r-1", at, body)
    place, json = "/notices/customer/sms/receipts", {"Content-Type": "application/json"}
    service = api.of("service")
    for _ in range(2):
        answer = await api.post(place, content=body, headers={**json, **signed, **service})
        assert answer.status_code == 204
    assert (await notices.current(requested.stream_id)).status == "bounced"
    wrong = {**signed, "webhook-signature": "v1,AAAA"}
    refused = await api.post(place, content=body, headers={**json, **wrong, **service})
    assert (refused.status_code, refused.json()["code"]) == (403, "signature-invalid")
    longer = await api.post(place, content=body + b" ", headers={**json, **signed, **service})
    assert longer.status_code == 403
    unsigned = await api.post(place, content=body, headers={**json, **service})
    assert unsigned.status_code == 422
    teller = await api.post(place, content=body, headers={**json, **signed, **api.of("teller")})
    assert (teller.status_code, teller.json()["code"]) == (403, "forbidden")
