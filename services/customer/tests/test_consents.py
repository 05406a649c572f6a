"""Consents of customers: given, when, then; against a fold by hand over both clocks; and over HTTP."""

import json
from datetime import UTC, date, datetime, timedelta
from itertools import product
from uuid import UUID

import pytest
from chassis.privacy.keys import ERASED
from customer.domain.commands import EraseCustomer, GiveConsent, WithdrawConsent
from customer.domain.consenting import CHANNELS, PURPOSES, ConsentChange, consented, standing
from customer.domain.customer import customer_decider
from customer.domain.events import ConsentGiven, ConsentWithdrawn, CustomerErased, CustomerRegistered
from customer.domain.refusals import ConsentTermInvalid, CustomerIsErased, CustomerNotRegistered
from customer.publishing import published
from customer.views import customers
from hypothesis import given
from hypothesis import strategies as st

from tests.support.specification import Specification

from .test_api import CLOCK, api, key
from .test_lists import acting
from .test_queries import NOW, bank, queries
from .test_tags_api import code_of_refusal, found, once, registered, shown
from .test_tiers_api import by_timer
from .told import Teller, Told

__all__ = ["api", "bank", "queries", "shown"]

customer = Specification(customer_decider)
registered_event = CustomerRegistered(name="张伟", kind="person", origin="staff")
DAY = date(2026, 1, 15)
START = datetime(2026, 1, 1, tzinfo=UTC)


# given, when, then


@pytest.mark.requirement("M36")
def test_a_consent_has_evidence_and_ends_after_the_day_on_which_it_was_given():
    had = customer.given(registered_event)
    for until in (None, DAY + timedelta(days=1), date(2199, 12, 31)):
        had.when(GiveConsent("sms", "marketing", "S-1", until, DAY)).then(
            ConsentGiven("sms", "marketing", "S-1", until)
        )
    for until in (DAY, date(1900, 1, 1)):
        had.when(GiveConsent("sms", "marketing", "S-1", until, DAY)).then_rejected(ConsentTermInvalid)
    customer.given().when(WithdrawConsent("sms", "marketing")).then_rejected(CustomerNotRegistered)
    erased = customer.given(registered_event, CustomerErased((), ()))
    erased.when(GiveConsent("sms", "marketing", "S-1", None, DAY)).then_rejected(CustomerIsErased)


@pytest.mark.requirement("M36")
def test_a_refusal_without_a_consent_before_it_is_kept():
    customer.given(registered_event).when(WithdrawConsent("phone", "marketing", "call")).then(
        ConsentWithdrawn("phone", "marketing", "call")
    )


# both clocks

moments = st.integers(0, 12).map(lambda hours: START + timedelta(hours=hours))
days = st.sampled_from([None, START.date(), START.date() + timedelta(days=1)])


@st.composite
def ledgers(draw):
    """Changes in the order of their recording; each is effective when it is recorded or before."""
    made, recorded_at = [], START
    for sequence in range(1, draw(st.integers(0, 8)) + 1):
        recorded_at += timedelta(hours=draw(st.integers(0, 3)))
        at = min(draw(moments), recorded_at)
        channel, purpose = draw(st.sampled_from(CHANNELS[:2])), draw(st.sampled_from(PURPOSES[:2]))
        given_now = draw(st.booleans())
        until = draw(days) if given_now else None
        made.append(ConsentChange(channel, purpose, given_now, until, at, recorded_at, sequence))
    return made


def by_hand(ledger, channel, purpose, at, known_at):
    """Plays what was known in the order of when it was so, and looks whether a consent is left."""
    known = [one for one in ledger if (one.channel, one.purpose) == (channel, purpose)]
    known = [one for one in known if one.recorded_at <= known_at]
    there, until = False, None
    for instant in sorted({one.at for one in known if one.at <= at}):
        at_once = [one for one in known if one.at == instant]
        refused = any(not one.given for one in at_once)
        there, until = (False, None) if refused else (True, at_once[-1].valid_until)
    return there and (until is None or at.date() < until)


@pytest.mark.requirement("M36")
@given(ledgers(), moments, moments)
def test_what_was_consented_at_a_time_as_known_at_another_is_what_a_fold_by_hand_says(ledger, at, known_at):
    for channel, purpose in product(CHANNELS, PURPOSES):
        found_now = consented(ledger, channel, purpose, at=at, known_at=known_at, on=at.date())
        assert found_now == by_hand(ledger, channel, purpose, at, known_at)


@pytest.mark.requirement("M36")
@given(ledgers())
def test_the_view_holds_what_stands_of_all_that_is_recorded(ledger):
    teller, subject = Teller(), UUID(int=7)
    document = customers.project(
        None, None, teller.tell(subject, "customer.registered", kind="person", origin="staff")
    )
    for one in ledger:
        name = "customer.consent_given" if one.given else "customer.consent_withdrawn"
        data = {"channel": one.channel, "purpose": one.purpose, "valid_until": one.valid_until}
        event = Told(name, subject, one.sequence + 1, data, 1, name, one.recorded_at, one.at)
        document = customers.project(None, document, event)
    last = datetime.max.replace(tzinfo=UTC)
    held = {
        (one["channel"], one["purpose"]): (one["given"], one["sequence"] - 1) for one in document["consents"]
    }
    assert held == {pair: (one.given, one.sequence) for pair, one in standing(ledger, last, last).items()}


# over HTTP


async def said(api, at, how="", headers=None, **body):
    asked = {"channel": "sms", "purpose": "marketing"} | body
    return await api.post(f"/customers/{at}/consents{how}", json=asked, headers=headers or once())


async def stood(api, at, **params):
    answer = await api.get(f"/customers/{at}/consents", params=params)
    assert answer.status_code == 200, answer.text
    return {(one["channel"], one["purpose"]): one for one in answer.json()["items"]}


def ago(**times):
    return (CLOCK.now() - timedelta(**times)).isoformat()


SMS = ("sms", "marketing")


@pytest.mark.requirement("M36")
async def test_what_was_known_of_a_consent_is_answered_for_both_clocks(api):
    at = await registered(api)
    assert {one["state"] for one in (await stood(api, at)).values()} == {"unknown"}
    before = CLOCK.now().isoformat()
    assert (await said(api, at, evidence="授权书 S-0042", effective_at=ago(days=9))).status_code == 200
    between = CLOCK.now().isoformat()
    # A paper that came late says that she withdrew three days ago.
    withdrawn = await said(api, at, "/withdraw", evidence="来信", effective_at=ago(days=3))
    assert withdrawn.status_code == 200, withdrawn.text
    for as_of, known_at, valid, state in (
        (ago(days=10), None, False, "unknown"),
        (ago(days=5), None, True, "given"),
        (ago(days=1), None, False, "withdrawn"),
        (ago(days=1), between, True, "given"),
        (ago(days=5), before, False, "unknown"),
    ):
        asked = {"as_of": as_of} | ({} if known_at is None else {"known_at": known_at})
        one = (await stood(api, at, **asked))[SMS]
        assert (one["valid"], one["state"]) == (valid, state), asked
    given_then = (await stood(api, at, as_of=ago(days=5)))[SMS]
    assert (given_then["evidence"], given_then["actor"]) == ("授权书 S-0042", "lin")
    ahead = await api.get(f"/customers/{at}/consents", params={"as_of": "2999-01-01T00:00:00Z"})
    assert await code_of_refusal(ahead) == (422, "request-invalid")


@pytest.mark.requirement("M36")
async def test_a_refusal_stands_against_a_consent_of_before_and_of_the_same_instant(api):
    at = await registered(api)
    refused = ago(hours=1)
    await said(api, at, "/withdraw", effective_at=refused)
    for when in (ago(days=1), refused):
        assert (await said(api, at, evidence="S-1", effective_at=when)).status_code == 200
        assert not (await stood(api, at))[SMS]["valid"], when
    assert (await said(api, at, evidence="S-2", effective_at=ago(minutes=5))).status_code == 200
    assert (await stood(api, at))[SMS]["valid"]
    assert not (await stood(api, at))["phone", "marketing"]["valid"]


@pytest.mark.requirement("M36", "R079")
async def test_conditions_ask_for_a_valid_consent_until_its_day(api, shown):
    at = await registered(api)
    tomorrow = str(NOW.date() + timedelta(days=1))
    await said(api, at, evidence="S-1", valid_until=tomorrow, effective_at="2026-01-01T00:00:00Z")
    await shown()
    assert await found(api, "consents has sms-marketing") == {at}
    assert await found(api, "consents has phone-marketing") == set()
    [one] = (await api.get(f"/customers/{at}")).json()["consents"]
    assert (one["given"], one["valid_until"]) == (True, tomorrow)
    await said(api, at, "/withdraw")
    await shown()
    assert await found(api, "consents has sms-marketing") == set()


@pytest.mark.requirement("M36")
async def test_what_cannot_be_a_consent_is_refused_and_one_key_gives_one(api, store):
    at = await registered(api)
    for wrong in (
        {},
        {"evidence": " "},
        {"evidence": "a\0b"},
        {"evidence": "S-1", "channel": None},
        {"evidence": "S-1", "channel": "all"},
        {"evidence": "S-1", "purpose": "anything"},
        {"evidence": "S-1", "given": True},
    ):
        assert await code_of_refusal(await said(api, at, **wrong)) == (422, "request-invalid"), wrong
    ended = await said(api, at, evidence="S-1", valid_until="2020-01-01")
    assert await code_of_refusal(ended) == (422, "consent-term-invalid")
    body = {"evidence": 'S-1 "x"\n' + "长" * 900}
    first = await said(api, at, headers=key("c"), **body)
    assert first.json() == (await said(api, at, headers=key("c"), **body)).json()
    [event] = [one for one in await store.read_stream(UUID(at)) if one.name == "consent-given"]
    assert "evidence" not in json.loads(published(event).body)
    assert b"S-1" not in event.body
    acting(api, "teller", "徐汇/柜台")
    other = await registered(api, "浦东")
    assert await code_of_refusal(await said(api, other, evidence="x")) == (404, "customer-not-registered")
    assert (await api.get(f"/customers/{other}/consents")).status_code == 404


@pytest.mark.requirement("M36", "M22")
async def test_an_erasure_ends_consents_and_keeps_when_and_to_what_they_were_given(api, shown, key_ring):
    at = await registered(api)
    await said(api, at, evidence="S-1", effective_at=ago(days=2))
    await api.service.handler.handle(UUID(at), EraseCustomer((), (), NOW.date()), by_timer(at, "erased"))
    key_ring.erase([UUID(at)])
    await shown()
    now, then = (await stood(api, at))[SMS], (await stood(api, at, as_of=ago(days=1)))[SMS]
    assert (now["valid"], now["state"], now["evidence"]) == (False, "erased", None)
    assert (then["valid"], then["state"], then["evidence"], then["actor"]) == (True, "given", ERASED, "lin")
    assert (await api.get(f"/customers/{at}")).json()["consents"] == []
    assert await code_of_refusal(await said(api, at, evidence="S-2")) == (409, "customer-erased")
    unknown = await api.get(f"/customers/{UUID(int=9)}/consents")
    assert await code_of_refusal(unknown) == (404, "customer-not-registered")
