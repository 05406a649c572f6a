"""Needs of customers: given, when, then; over HTTP as a device sends them; and in the view."""

import asyncio
from base64 import urlsafe_b64encode
from datetime import date, datetime, timedelta
from random import Random
from uuid import UUID

import psycopg
import pytest
from chassis.privacy.keys import ERASED
from chassis.write.handling import CommandHandler
from contracts.purposes import CONTACT
from customer.catalogue import catalogue
from customer.domain.commands import CloseNeed, CorrectNeed, EraseContact, EraseCustomer, RecordNeed
from customer.domain.customer import customer_decider
from customer.domain.dictionary import Entry
from customer.domain.events import (
    CustomerErased,
    CustomerRegistered,
    NeedClosed,
    NeedCorrected,
    NeedRecorded,
)
from customer.domain.needs import KINDS, require_kind
from customer.domain.refusals import (
    NEEDS_OPEN_MAX,
    CustomerIsErased,
    CustomerNotRegistered,
    NeedChanged,
    NeedKindUnknown,
    NeedNotOpen,
    NeedTooOld,
    TooManyNeeds,
)
from customer.domain.state import Need
from customer.masking import masked_note
from customer.needs import NEED_DAYS_MAX, CustomerNeeds
from customer.views import needs

from tests.support.specification import Specification

from .test_api import CLOCK, api, key
from .test_lists import acting
from .test_queries import NOW, bank, queries
from .test_tags_api import code_of_refusal, once, registered, shown
from .test_tiers_api import by_timer
from .told import START, Teller, Told

__all__ = ["api", "bank", "queries", "shown"]

customer = Specification(customer_decider)
registered_event = CustomerRegistered(name="张伟", kind="person", origin="staff")
ONE, OTHER = UUID(int=1), UUID(int=2)
DAY = date(2026, 1, 15)
STUDY = Need("study-abroad", None, "咨询留学汇款")
FREE = Need(None, "古董鉴定", "想出售古董")


def recording(need=ONE, stated=STUDY, at=NOW, earliest=NOW - timedelta(days=7)):
    return RecordNeed(need, stated, "counter", "北京", "teller-7", at, DAY, earliest)


def recorded(need=ONE, stated=STUDY):
    return NeedRecorded(need, stated.kind, stated.kind_text, stated.text, "counter", "北京", "teller-7")


# given, when, then


@pytest.mark.requirement("R065", "M40")
def test_a_need_is_recorded_of_a_kind_or_in_other_words():
    for stated in (STUDY, FREE):
        customer.given(registered_event).when(recording(stated=stated)).then(recorded(stated=stated))
    customer.given().when(recording()).then_rejected(CustomerNotRegistered)
    customer.given(registered_event, CustomerErased((), ())).when(recording()).then_rejected(CustomerIsErased)
    unknown = recording(stated=Need("gold", None, "x"))
    customer.given(registered_event).when(unknown).then_rejected(NeedKindUnknown)


@pytest.mark.requirement("R065")
def test_a_need_is_recorded_up_to_its_greatest_age():
    earliest = NOW - timedelta(days=7)
    customer.given(registered_event).when(recording(at=earliest)).then(recorded())
    late = recording(at=earliest - timedelta(microseconds=1))
    customer.given(registered_event).when(late).then_rejected(NeedTooOld)


def test_a_kind_stands_from_its_first_day_until_before_its_last():
    kinds = [Entry("gold", "黄金", "gold", date(2026, 1, 2), date(2026, 2, 1))]
    for day in (date(2026, 1, 2), date(2026, 1, 31)):
        require_kind("gold", day, kinds)
    for code, day in (("gold", date(2026, 1, 1)), ("gold", date(2026, 2, 1)), ("silver", date(2026, 1, 2))):
        with pytest.raises(NeedKindUnknown):
            require_kind(code, day, kinds)
    assert len({one.code for one in KINDS}) == len(KINDS)


def test_a_customer_has_so_many_open_needs_at_most_and_closed_ones_do_not_count():
    full = [recorded(UUID(int=number)) for number in range(NEEDS_OPEN_MAX)]
    more = recording(UUID(int=NEEDS_OPEN_MAX))
    customer.given(registered_event, *full).when(more).then_rejected(TooManyNeeds)
    closed = NeedClosed(UUID(int=0), "fulfilled")
    customer.given(registered_event, *full, closed).when(more).then(recorded(more.need))


@pytest.mark.requirement("R065")
def test_an_open_need_is_corrected_as_it_was_seen_and_closed_once():
    had = customer.given(registered_event, recorded())
    corrected = NeedCorrected(ONE, None, "古董鉴定", "想出售古董")
    had.when(CorrectNeed(ONE, FREE, 0, DAY)).then(corrected)
    had.when(CorrectNeed(ONE, STUDY, 5, DAY)).then()
    had.when(CorrectNeed(ONE, FREE, 1, DAY)).then_rejected(NeedChanged)
    had.when(CorrectNeed(OTHER, FREE, 0, DAY)).then_rejected(NeedNotOpen)
    again = customer.given(registered_event, recorded(), corrected)
    again.when(CorrectNeed(ONE, STUDY, 0, DAY)).then_rejected(NeedChanged)
    again.when(CorrectNeed(ONE, STUDY, 1, DAY)).then(NeedCorrected(ONE, "study-abroad", None, "咨询留学汇款"))
    had.when(CloseNeed(ONE, "dropped", "改去英国")).then(NeedClosed(ONE, "dropped", "改去英国"))
    closed = customer.given(registered_event, recorded(), NeedClosed(ONE, "fulfilled"))
    for command in (CloseNeed(ONE, "fulfilled"), CorrectNeed(ONE, FREE, 0, DAY)):
        closed.when(command).then_rejected(NeedNotOpen)


def test_the_text_of_a_kind_that_was_given_up_can_still_be_corrected():
    old = customer.given(registered_event, recorded(stated=Need("gold", None, "x")))
    old.when(CorrectNeed(ONE, Need("gold", None, "y"), 0, DAY)).then(NeedCorrected(ONE, "gold", None, "y"))
    old.when(CorrectNeed(ONE, Need("silver", None, "y"), 0, DAY)).then_rejected(NeedKindUnknown)


# masked


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("留学汇款 2万美元/年", "留学汇款 2万美元/年"),
        ("电话13800001234，或 a.b@example.com 联系", "电话***，或 *** 联系"),
        ("卡 6222 0212 3456 7890", "卡 ***"),
        ("手机138—0000—1234或１３８－００００－１２３４", "手机***或***"),
        ("卡6222\u30000212\u30003456\u30007890", "卡***"),
        ("写信到 a.b＠example.com", "写信到 ***"),
        ("年息3.85%，2/3首付", "年息3.85%，2/3首付"),
        (ERASED, ERASED),
        (None, None),
    ],
)
def test_numbers_and_addresses_in_a_note_are_masked(text, seen):
    assert masked_note(text) == seen


# the view


def test_events_of_a_need_fold_into_its_document_and_no_other():
    teller = Teller()
    said = {"need": str(ONE), "kind": "study-abroad", "kind_text": None, "text": "k1.a.b"}
    more = {"channel": "counter", "branch": None, "served_by": "teller-7"}
    events = [
        teller.tell(OTHER, "customer.need_recorded", **said, **more),
        teller.tell(OTHER, "customer.need_corrected", **said | {"kind": None, "kind_text": "k1.c.d"}),
        teller.tell(OTHER, "customer.need_closed", need=str(ONE), outcome="dropped", text=None),
    ]
    document = None
    for event in events:
        [one] = needs.keys(event)
        document = needs.project(one, document, event)
    assert one.id == str(ONE)
    assert (document["kind"], document["kind_text"]["v"], document["corrections"]) == (None, 2, 1)
    assert (document["closed"]["outcome"], document["customer"]) == ("dropped", str(OTHER))
    with pytest.raises(needs.NotRecorded):
        needs.project(one, None, events[1])
    with pytest.raises(needs.NotTaken):
        needs.project(one, document, Told("customer.renamed", OTHER, 4, {}, 4, "x", START))


# over HTTP

BODY = {"kind": "study-abroad", "text": '咨询"留学汇款"：\n每年两次', "channel": "counter", "branch": "北京"}


async def told(api, at, headers=None, **more):
    return await api.post(f"/customers/{at}/needs", json=BODY | more, headers=headers or once())


async def listed(api, at, **params):
    answer = await api.get(f"/customers/{at}/needs", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def of_needs(store, at):
    return [one for one in await store.read_stream(UUID(at)) if one.name.startswith("need-")]


def ago(**times):
    return (CLOCK.now() - timedelta(**times)).isoformat()


@pytest.mark.requirement("R065", "M40", "R011", "R064")
async def test_what_was_queued_offline_for_two_hours_and_sent_twice_is_recorded_once_with_both_times(
    api, store, shown
):
    at = await registered(api)
    queued, noted = key("device-7:1"), ago(hours=2)
    first = await told(api, at, queued, effective_at=noted)
    again = await told(api, at, queued, effective_at=noted)
    assert (first.status_code, first.json()) == (200, again.json()), first.text
    [event] = await of_needs(store, at)
    meta = catalogue().metadata_of(event)
    assert meta.effective_at == datetime.fromisoformat(noted)
    assert meta.recorded_at - meta.effective_at > timedelta(hours=2)
    await shown()
    [need] = (await listed(api, at))["items"]
    assert need["need_id"] == first.json()["need_id"]
    assert (need["at"], need["recorded_at"]) == (meta.effective_at.isoformat(), meta.recorded_at.isoformat())
    assert (need["text"], need["served_by"], need["closed"]) == (BODY["text"], "lin", None)
    other = await told(api, at, queued, effective_at=ago(hours=1))
    assert await code_of_refusal(other) == (422, "idempotency-key-reused")
    other = await told(api, at, queued, effective_at=noted, text="another")
    assert await code_of_refusal(other) == (422, "idempotency-key-reused")


@pytest.mark.requirement("R065", "M40")
async def test_one_key_at_once_from_two_processes_records_one_need_and_two_keys_two(api, store, key_ring):
    at = await registered(api)
    service = api.service
    second = CommandHandler(customer_decider, store, catalogue(), key_ring)
    elsewhere = CustomerNeeds(second, store, service.queries, service.business_date)
    first = (await told(api, at, key("k"))).json()
    for number in range(4):
        context = by_timer(at, f"device {number}")
        both = await asyncio.gather(
            *(
                one.record(UUID(at), STUDY, "visit", None, context)
                for one in (service.needs, elsewhere, service.needs, elsewhere)
            )
        )
        assert len({one.version for one in both}) == 1
    assert len(await of_needs(store, at)) == 5
    assert (await told(api, at, key("another"))).json()["need_id"] != first["need_id"]
    assert (await told(api, at, key("k"))).json() == first
    api.headers["Authorization"] = f"Bearer {api.token_of('teller', None, 'wu')}"
    assert (await told(api, at, key("k"))).json()["need_id"] != first["need_id"]


@pytest.mark.requirement("R065", "M40")
@pytest.mark.parametrize("seed", range(3))
async def test_what_queues_send_again_and_in_any_order_is_recorded_once_each_as_it_was_noted(
    api, shown, seed
):
    chance, customers = Random(seed), [await registered(api) for _ in range(2)]
    noted = {
        f"{seed}:{number}": (
            chance.choice(customers),
            {"text": f"{number}", "effective_at": ago(hours=hours)},
        )
        for number, hours in enumerate(chance.choices(range(100), k=30))
    }
    sent = [name for name in noted for _ in range(chance.randint(1, 3))]
    chance.shuffle(sent)
    while sent:
        together = [sent.pop() for _ in range(min(len(sent), chance.randint(1, 5)))]
        answers = await asyncio.gather(
            *(told(api, noted[name][0], key(name), **noted[name][1]) for name in together)
        )
        assert [one.status_code for one in answers] == [200] * len(together)
    await shown()
    for at in customers:
        wanted = [(body["effective_at"], body["text"]) for to, body in noted.values() if to == at]
        listed_then = [(one["at"], one["text"]) for one in (await listed(api, at))["items"]]
        assert sorted(listed_then) == sorted(wanted)
        assert [came_up for came_up, _ in listed_then] == sorted((one for one, _ in wanted), reverse=True)


@pytest.mark.requirement("R065")
async def test_a_clock_that_is_a_little_ahead_is_taken_for_ours_and_another_one_is_refused(api, store):
    at = await registered(api)
    ahead = {"effective_at": ago(seconds=-50)}
    assert (await told(api, at, key("ahead"), **ahead)).json() == (
        await told(api, at, key("ahead"), **ahead)
    ).json()
    [event] = await of_needs(store, at)
    meta = catalogue().metadata_of(event)
    assert meta.effective_at == meta.recorded_at
    for times, code in (
        ({"seconds": -90}, "effective-time-ahead"),
        ({"days": NEED_DAYS_MAX, "seconds": 1}, "need-too-old"),
        ({"days": 40_000}, "need-too-old"),
    ):
        refused = await told(api, at, effective_at=ago(**times))
        assert await code_of_refusal(refused) == (422, code), times
    assert (await told(api, at, effective_at=ago(days=NEED_DAYS_MAX, minutes=-1))).status_code == 200


@pytest.mark.requirement("R065")
async def test_what_was_recorded_has_its_outcome_also_when_it_has_become_too_old(
    api, store, postgres_url, schema
):
    at = await registered(api)
    week = ago(days=NEED_DAYS_MAX, minutes=-1)
    first = await told(api, at, key("k"), effective_at=week)
    object.__setattr__(api.service.needs, "days_max", 1)
    assert (await told(api, at, key("k"), effective_at=week)).json() == first.json()
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"alter table {schema}.commands disable trigger all")
        connection.execute(f"delete from {schema}.commands")
    forgotten = await told(api, at, key("k"), effective_at=ago(hours=1))
    assert await code_of_refusal(forgotten) == (409, "already-recorded")
    by_then = await told(api, at, key("k"), effective_at=week)
    assert await code_of_refusal(by_then) == (409, "already-recorded"), "it is too old, and it is recorded"
    assert await code_of_refusal(await told(api, at, effective_at=week)) == (422, "need-too-old")


async def test_what_was_recorded_is_known_also_when_no_other_need_is_taken(api, store, postgres_url, schema):
    at = await registered(api)
    for number in range(NEEDS_OPEN_MAX):
        assert (await told(api, at, key(f"full-{number}"))).status_code == 200
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"alter table {schema}.commands disable trigger all")
        connection.execute(f"delete from {schema}.commands")
    assert await code_of_refusal(await told(api, at, key("full-0"))) == (409, "already-recorded")
    assert await code_of_refusal(await told(api, at)) == (409, "too-many-needs")
    assert await code_of_refusal(await told(api, at, key("full-0"), kind="gold")) == (409, "already-recorded")


async def test_what_was_refused_because_of_a_clock_ahead_is_taken_when_its_time_has_come(api, store):
    at, ahead = await registered(api), {"effective_at": ago(seconds=-61)}
    assert await code_of_refusal(await told(api, at, key("k"), **ahead)) == (422, "effective-time-ahead")
    await asyncio.sleep(1.5)
    assert (await told(api, at, key("k"), **ahead)).status_code == 200
    assert len(await of_needs(store, at)) == 1


@pytest.mark.requirement("R011", "R064")
async def test_needs_come_in_pages_what_came_up_last_first_in_whatever_order_they_were_sent(api, shown):
    at = await registered(api)
    for hours in (3, 1, 5, 2, 2, 4):
        assert (await told(api, at, effective_at=ago(hours=hours), text=f"{hours}")).status_code == 200
    await told(api, await registered(api), text="another customer's")
    await shown()
    seen, page = [], await listed(api, at, limit=2)
    for _ in range(3):
        seen += [one["text"] for one in page["items"]]
        if page["next"] is not None:
            page = await listed(api, at, limit=2, after=page["next"])
    assert seen == ["1", "2", "2", "3", "4", "5"]
    wrong = await api.get(f"/customers/{at}/needs", params={"after": "x"})
    assert await code_of_refusal(wrong) == (400, "cursor-invalid")


@pytest.mark.requirement("R011")
async def test_needs_that_come_between_two_pages_move_none_of_those_that_were_there(api, shown):
    at, instants = await registered(api), [ago(hours=hours) for hours in (5, 4, 3)]
    there = [
        (await told(api, at, effective_at=instants[number % 3])).json()["need_id"] for number in range(11)
    ]
    await shown()
    seen, after = [], {}
    for _ in range(8):
        page = await listed(api, at, limit=2, **after)
        seen += [one["need_id"] for one in page["items"]]
        for came_up in (ago(hours=1), ago(hours=6), instants[1]):
            await told(api, at, effective_at=came_up)
        await shown()
        after = {"after": page["next"]}
    assert [seen.count(one) for one in there] == [1] * len(there)
    assert len(seen) == len(set(seen))


async def test_a_cursor_that_no_page_gave_out_is_refused(api):
    at = await registered(api)
    for content in (
        b'["\\ud800","x"]',
        b'["a\\u0000","x"]',
        b'["a"]',
        b'["a","b","c"]',
        b"[1,2]",
        b'[{"$gt":""},"x"]',
    ):
        text = urlsafe_b64encode(content).rstrip(b"=").decode()
        refused = await api.get(f"/customers/{at}/needs", params={"after": text})
        assert await code_of_refusal(refused) == (400, "cursor-invalid"), content


@pytest.mark.requirement("R065", "M46")
async def test_a_need_is_corrected_and_closed_with_what_came_of_it(api, store, shown):
    at = await registered(api)
    need = (await told(api, at)).json()["need_id"]

    async def to(what, **body):
        return await api.post(f"/customers/{at}/needs/{need}/{what}", json=body, headers=once())

    free = {"kind_text": "古董鉴定", "text": "电话 13800001234", "corrections": 0}
    assert (await to("correct", **free)).status_code == 200
    unseen = await to("correct", kind="fund", text="x", corrections=0)
    assert await code_of_refusal(unseen) == (409, "need-changed")
    closing = {"outcome": "fulfilled", "text": "已办理"}
    both = await asyncio.gather(to("close", **closing), to("close", outcome="dropped"))
    assert sorted(one.status_code for one in both) == [200, 409]
    assert await code_of_refusal(await to("correct", **free)) == (409, "need-not-open")
    await shown()
    [shown_need] = (await listed(api, at))["items"]
    assert (shown_need["kind"], shown_need["kind_text"], shown_need["text"]) == (None, "古董鉴定", "电话 ***")
    assert (shown_need["corrections"], shown_need["closed"]["outcome"]) in {(1, "fulfilled"), (1, "dropped")}
    assert [one.name for one in await of_needs(store, at)] == [
        "need-recorded",
        "need-corrected",
        "need-closed",
    ]


@pytest.mark.requirement("R065")
async def test_what_cannot_be_a_need_is_refused_and_the_longest_text_is_none(api, store, shown):
    at = await registered(api)
    for wrong in (
        {"text": ""},
        {"text": " \n "},
        {"text": "\u200b\n\u3000"},
        {"kind": None, "kind_text": " "},
        {"kind": None, "kind_text": "\u2060"},
        {"text": "a\0b"},
        {"text": "a\x1bb"},
        {"text": "长" * 1_001},
        {"kind": None},
        {"kind": "study-abroad", "kind_text": "x"},
        {"kind": None, "kind_text": "two\nlines"},
        {"channel": "fax"},
        {"served_by": "somebody"},
        {"effective_at": "yesterday"},
    ):
        refused = await told(api, at, **wrong)
        assert await code_of_refusal(refused) == (422, "request-invalid"), wrong
    lone = await api.post(
        f"/customers/{at}/needs",
        content=b'{"kind":"fund","channel":"visit","text":"\\ud800"}',
        headers=once() | {"Content-Type": "application/json"},
    )
    assert lone.status_code == 422, lone.text
    assert await code_of_refusal(await told(api, at, kind="gold")) == (422, "need-kind-unknown")
    assert await of_needs(store, at) == []
    longest = ("长\"'\\\r\n\t" * 200)[:999] + "尾"
    assert (await told(api, at, text=longest)).status_code == 200
    await shown()
    [need] = (await listed(api, at))["items"]
    assert need["text"] == longest


@pytest.mark.requirement("R011", "R083")
async def test_a_teller_sees_and_records_needs_of_customers_of_the_own_branch_alone(api, shown):
    at = await registered(api, "浦东")
    need = (await told(api, at)).json()["need_id"]
    await shown()
    for role, post, there in (
        ("teller", "浦东/柜台", True),
        ("teller", "徐汇/柜台", False),
        ("relationship-manager", "浦东/RM-1", True),
        ("relationship-manager", "徐汇/RM-1", False),
        ("auditor", None, True),
    ):
        acting(api, role, post)
        seen = await api.get(f"/customers/{at}/needs")
        assert seen.status_code == (200 if there else 404), (role, post)
        asked = await told(api, at)
        expected = 403 if role == "auditor" else 200 if there else 404
        assert asked.status_code == expected, (role, post)
        if not there:
            closing = await api.post(
                f"/customers/{at}/needs/{need}/close", json={"outcome": "dropped"}, headers=once()
            )
            assert await code_of_refusal(closing) == (404, "customer-not-registered")
    acting(api, "compliance")
    unknown = await api.get(f"/customers/{UUID(int=9)}/needs")
    assert await code_of_refusal(unknown) == (404, "customer-not-registered")


@pytest.mark.requirement("M22")
async def test_an_erasure_takes_the_texts_of_needs_and_no_other_need_comes(api, shown, key_ring):
    at = await registered(api)
    need = (await told(api, at)).json()["need_id"]
    await api.service.handler.handle(UUID(at), EraseCustomer((), (), NOW.date()), by_timer(at, "erased"))
    key_ring.erase([UUID(at)])
    await shown()
    [left] = (await listed(api, at))["items"]
    assert (left["need_id"], left["text"], left["kind"]) == (need, ERASED, "study-abroad")
    assert await code_of_refusal(await told(api, at)) == (409, "customer-erased")


@pytest.mark.requirement("M22")
async def test_an_erasure_of_the_contact_leaves_the_texts_of_needs_and_no_need_changes(api, shown, key_ring):
    at = await registered(api)
    need = (await told(api, at)).json()["need_id"]
    command = EraseContact((), NOW.date() + timedelta(days=400), NOW.date())
    await api.service.handler.handle(UUID(at), command, by_timer(at, "contact"))
    key_ring.erase([UUID(at)], CONTACT)
    await shown()
    [left] = (await listed(api, at))["items"]
    assert (left["text"], left["closed"]) == (BODY["text"], None)
    assert await code_of_refusal(await told(api, at)) == (409, "customer-erased")
    closing = await api.post(
        f"/customers/{at}/needs/{need}/close", json={"outcome": "dropped"}, headers=once()
    )
    assert await code_of_refusal(closing) == (409, "customer-erased")


async def test_the_kinds_of_needs_can_be_asked_for(api):
    answer = await api.get("/need-kinds")
    assert {one["code"] for one in answer.json()["items"]} == {one.code for one in KINDS}
