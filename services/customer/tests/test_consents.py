"""Consents of customers: given, when, then; against a fold by hand over both clocks; and over HTTP."""

import asyncio
import json
from datetime import UTC, date, datetime, timedelta
from itertools import product
from random import Random
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.privacy.keys import ERASED
from chassis.write.deciding import CommandContext
from chassis.write.handling import CommandHandler
from contracts.purposes import CONTACT
from customer.consents import CustomerConsents
from customer.derived.customer_facts import facts
from customer.domain.commands import EraseContact, EraseCustomer, GiveConsent, WithdrawConsent
from customer.domain.consenting import CHANNELS, PURPOSES, ConsentChange, standing
from customer.domain.customer import customer_decider
from customer.domain.events import ConsentGiven, ConsentWithdrawn, CustomerErased, CustomerRegistered
from customer.domain.refusals import ConsentTermInvalid, CustomerIsErased, CustomerNotRegistered
from customer.facts import FIELDS
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
from .told import Teller, Told, dated

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
    """Changes in the order in which they are stored; each is effective when it is recorded or before. The clocks of the processes that
    store them differ by an hour. An erasure may be the last."""
    made, clock = [], START
    for sequence in range(1, draw(st.integers(0, 8)) + 1):
        clock += timedelta(hours=draw(st.integers(0, 3)))
        recorded_at = clock + timedelta(hours=draw(st.integers(0, 1)))
        at = min(draw(moments), recorded_at)
        channel, purpose = draw(st.sampled_from(CHANNELS[:2])), draw(st.sampled_from(PURPOSES[:2]))
        given_now = draw(st.booleans())
        until = draw(days) if given_now else None
        made.append(ConsentChange(channel, purpose, given_now, until, at, recorded_at, sequence))
    if draw(st.booleans()):
        ended = [False, None, clock, clock, len(made) + 1, True]
        made += [ConsentChange(*pair, *ended) for pair in product(CHANNELS, PURPOSES)]
    return made


def consented(ledger, pair, at, known_at):
    """Whether a consent stood by the function that answers are made of."""
    stood_then = standing(ledger, at, known_at).get(pair)
    return stood_then is not None and stood_then.valid_on(at.date())


def by_hand(ledger, pair, at, known_at, day):
    """Plays what was known in the order of when it was so, and looks whether a consent is left on the day of `at`."""
    known = [one for one in ledger if (one.channel, one.purpose) == pair]
    known = [one for one in known if one.recorded_at <= known_at]
    if any(one.erased and one.at <= at for one in known):
        return False
    there, until = False, None
    for instant in sorted({one.at for one in known if one.at <= at}):
        at_once = [one for one in known if one.at == instant]
        refused = any(not one.given for one in at_once)
        there, until = (False, None) if refused else (True, at_once[-1].valid_until)
    return there and (until is None or day < until)


@pytest.mark.requirement("M36")
@given(ledgers(), moments, moments)
def test_what_was_consented_at_a_time_as_known_at_another_is_what_a_fold_by_hand_says(ledger, at, known_at):
    for pair in product(CHANNELS, PURPOSES):
        assert consented(ledger, pair, at, known_at) == by_hand(ledger, pair, at, known_at, at.date()), pair


@pytest.mark.requirement("M36")
@given(ledgers())
def test_the_view_and_the_facts_hold_what_stands_of_all_that_is_recorded(ledger):
    teller, subject = Teller(), UUID(int=7)
    document = customers.project(
        None, None, teller.tell(subject, "customer.registered", kind="person", origin="staff")
    )
    for one in {one.sequence: one for one in ledger}.values():
        name = "customer.consent_given" if one.given else "customer.consent_withdrawn"
        name = "customer.erased" if one.erased else name
        data = {
            "channel": one.channel,
            "purpose": one.purpose,
            "valid_until": one.valid_until and str(one.valid_until),
        }
        event = Told(name, subject, one.sequence + 1, data, 1, name, one.recorded_at, one.at)
        document = customers.project(None, document, event)
    last = datetime.max.replace(tzinfo=UTC)
    held = {
        (one["channel"], one["purpose"]): (one["given"], one["sequence"] - 1) for one in document["consents"]
    }
    left = {pair: one for pair, one in standing(ledger, last, last).items() if not one.erased}
    assert held == {pair: (one.given, one.sequence) for pair, one in left.items()}
    for day in (START.date() + timedelta(days=days) for days in range(3)):
        valid = {f"{channel}-{purpose}" for (channel, purpose), one in left.items() if one.valid_on(day)}
        assert set(facts(document, [], str(day))["consents"]) == valid


# over HTTP


async def said(api, at, how="", headers=None, **body):
    asked = {"channel": "sms", "purpose": "marketing"} | body
    return await api.post(f"/customers/{at}/consents{how}", json=asked, headers=headers or once())


async def stood(api, customer_id, /, **params):
    answer = await api.get(f"/customers/{customer_id}/consents", params=params)
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
    for then, known_at, valid, state in (
        (ago(days=10), None, False, "unknown"),
        (ago(days=5), None, True, "given"),
        (ago(days=1), None, False, "withdrawn"),
        (ago(days=1), between, True, "given"),
        (ago(days=5), before, False, "unknown"),
    ):
        asked = {"at": then} | ({} if known_at is None else {"known_at": known_at})
        one = (await stood(api, at, **asked))[SMS]
        assert (one["valid"], one["state"]) == (valid, state), asked
    given_then = (await stood(api, at, at=ago(days=5)))[SMS]
    assert (given_then["evidence"], given_then["actor"]) == ("授权书 S-0042", "lin")
    ahead = await api.get(f"/customers/{at}/consents", params={"at": "2999-01-01T00:00:00Z"})
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
        {"evidence": "\u200b\ufeff"},
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
    now, then = (await stood(api, at))[SMS], (await stood(api, at, at=ago(days=1)))[SMS]
    assert (now["valid"], now["state"], now["evidence"]) == (False, "erased", None)
    assert (then["valid"], then["state"], then["evidence"], then["actor"]) == (True, "given", ERASED, "lin")
    assert (await api.get(f"/customers/{at}")).json()["consents"] == []
    assert await code_of_refusal(await said(api, at, evidence="S-2")) == (409, "customer-erased")
    unknown = await api.get(f"/customers/{UUID(int=9)}/consents")
    assert await code_of_refusal(unknown) == (404, "customer-not-registered")


# two clocks, and more than one process


def context(name, now, **more):
    return CommandContext(actor="lin", now=now, command_id=uuid5(UUID(int=5), name), **more)


@pytest.mark.requirement("M36")
async def test_a_message_that_was_sent_without_a_consent_as_it_was_known_then_is_found_and_no_other(api):
    at, consents, now = UUID(await registered(api)), api.service.consents, CLOCK.now()

    def sooner(days):
        return now - timedelta(days=days)

    for number, (days, evidence, until) in enumerate(
        ((30, "S-1", None), (20, None, None), (15, "S-2", dated(sooner(8))), (5, "S-3", None))
    ):
        made = context(f"{number}", sooner(days))
        if evidence is None:
            await consents.withdraw(at, SMS, None, made)
        else:
            await consents.give(at, SMS, evidence, until, made)
    # A paper that is recorded today says that she consented all the time.
    dated_back = context("dated back", now, effective_at=sooner(40))
    await consents.give(at, SMS, "S-4", None, dated_back)
    chance = Random(7)
    spans = ((30, 20), (15, 9), (5, 0.1))
    sent = [sooner(chance.uniform(*chance.choice(spans))) for _ in range(1_231)]
    planted = [sooner(days) for days in (31, 17, 6)]
    for one in planted:
        sent.insert(chance.randrange(len(sent)), one)

    async def without_consent(one):
        stood_then = {each.pair: each for each in (await consents.then(at, one, one, now)).consents}
        return not stood_then[SMS].valid

    assert [one for one in sent if await without_consent(one)] == sorted(planted, key=sent.index)


@pytest.mark.requirement("M36")
async def test_what_is_stored_is_answered_as_a_fold_by_hand_for_any_two_instants(api):
    consents, chance, base = api.service.consents, Random(11), CLOCK.now() - timedelta(days=30)

    def drawn():
        return base + timedelta(hours=chance.randint(0, 24 * 20))

    for customer_number in range(4):
        at, ledger = UUID(await registered(api)), []
        recorded = sorted(drawn() for _ in range(12))
        for sequence, recorded_at in enumerate(recorded, 2):
            pair = chance.choice(CHANNELS[:2]), chance.choice(PURPOSES[:2])
            effective = min(chance.choice([drawn(), recorded_at, *recorded]), recorded_at)
            made = context(f"{customer_number} {sequence}", recorded_at, effective_at=effective)
            given_now = chance.random() < 0.6
            until = dated(effective) + timedelta(days=chance.randint(1, 9)) if chance.random() < 0.4 else None
            if given_now:
                await consents.give(at, pair, "S-1", until, made)
            else:
                until = None
                await consents.withdraw(at, pair, None, made)
            ledger.append(ConsentChange(*pair, given_now, until, effective, recorded_at, sequence))
        for _ in range(100):
            then, known_at = (chance.choice([drawn(), *recorded]) for _ in range(2))
            stood_then = await consents.then(at, then, known_at, CLOCK.now())
            assert (stood_then.at, stood_then.known_at) == (then, known_at)
            for one in stood_then.consents:
                by_then = by_hand(ledger, one.pair, then, known_at, dated(then))
                assert one.valid == by_then, (then, known_at, one)


@pytest.mark.requirement("M36")
async def test_what_was_stored_is_answered_at_once_also_where_the_clock_that_stored_it_is_ahead(api):
    at, consents, ahead = await registered(api), api.service.consents, CLOCK.now() + timedelta(seconds=30)
    await consents.give(UUID(at), SMS, "S-1", None, context("given", ahead))
    assert (await stood(api, at))[SMS]["valid"]
    later = ahead + timedelta(seconds=1)
    await consents.withdraw(UUID(at), SMS, None, context("withdrawn", later))
    one = (await stood(api, at))[SMS]
    assert (one["valid"], one["state"]) == (False, "withdrawn")
    answer = (await api.get(f"/customers/{at}/consents")).json()
    assert datetime.fromisoformat(answer["at"]) == datetime.fromisoformat(answer["known_at"]) == later


@pytest.mark.requirement("M36", "M22")
async def test_an_erasure_ends_a_consent_that_a_clock_ahead_stored_before_it(api):
    at, now = await registered(api), CLOCK.now()
    ahead = context("given", now + timedelta(seconds=30))
    await api.service.consents.give(UUID(at), SMS, "S-1", None, ahead)
    await api.service.handler.handle(UUID(at), EraseCustomer((), (), NOW.date()), by_timer(at, "erased"))
    one = (await stood(api, at))[SMS]
    assert (one["valid"], one["state"]) == (False, "erased")


@pytest.mark.requirement("M36")
async def test_who_asks_with_a_clock_a_little_ahead_is_answered_for_now(api):
    at = await registered(api)
    await said(api, at, evidence="S-1")
    asked = {"at": ago(seconds=-50), "known_at": ago(seconds=-50)}
    answer = await api.get(f"/customers/{at}/consents", params=asked)
    assert answer.status_code == 200, answer.text
    assert (await stood(api, at, **asked))[SMS]["valid"]
    for clock in ("at", "known_at"):
        assert datetime.fromisoformat(answer.json()[clock]) <= CLOCK.now()
        refused = await api.get(f"/customers/{at}/consents", params={clock: ago(seconds=-90)})
        assert await code_of_refusal(refused) == (422, "request-invalid")


@pytest.mark.requirement("M36")
async def test_a_consent_stands_from_its_instant_on_and_ends_with_the_first_instant_of_its_day(api):
    """Of the bank's days: that of the sixteenth begins at 16:00 UTC of the fifteenth."""
    at = await registered(api)
    begun = "2026-01-10T03:04:05.000006Z"
    body = {"evidence": "S-1", "valid_until": "2026-01-16", "effective_at": begun}
    assert (await said(api, at, **body)).status_code == 200
    for then, valid, state in (
        ("2026-01-10T03:04:05.000005Z", False, "unknown"),
        (begun, True, "given"),
        ("2026-01-15T15:59:59.999999Z", True, "given"),
        ("2026-01-15T16:00:00Z", False, "given"),
        ("2026-01-16T00:00:00+08:00", False, "given"),
        ("0001-01-03T00:00:00Z", False, "unknown"),
    ):
        one = (await stood(api, at, at=then))[SMS]
        assert (one["valid"], one["state"]) == (valid, state), then
    for wrong in ("2026-01-10", "2026-01-10T00:00:00", "1", "0001-01-02T00:00:00Z"):
        answer = await api.get(f"/customers/{at}/consents", params={"at": wrong})
        assert await code_of_refusal(answer) == (422, "request-invalid"), wrong


@pytest.mark.requirement("M36", "M22")
async def test_an_erasure_of_the_contact_ends_consents_and_keeps_their_evidence(api, key_ring):
    at = await registered(api)
    await said(api, at, evidence="S-1", effective_at=ago(days=2))
    command = EraseContact((), NOW.date() + timedelta(days=400), NOW.date())
    await api.service.handler.handle(UUID(at), command, by_timer(at, "contact"))
    key_ring.erase([UUID(at)], CONTACT)
    now, then = (await stood(api, at))[SMS], (await stood(api, at, at=ago(days=1)))[SMS]
    assert (now["valid"], now["state"], now["evidence"]) == (False, "erased", None)
    assert (then["valid"], then["state"], then["evidence"]) == (True, "given", "S-1")
    for how in ("", "/withdraw"):
        assert await code_of_refusal(await said(api, at, how, evidence="S-2")) == (409, "customer-erased")


# two at once, and the same again


@pytest.mark.requirement("M36")
async def test_one_key_has_one_effect_and_none_with_other_content(api, store, key_ring):
    at, other = await registered(api), await registered(api)
    assert (await said(api, at, headers=key("c"), evidence="S-1")).status_code == 200
    for to, how, more in (
        (at, "", {"evidence": "S-2"}),
        (at, "", {"evidence": "S-1", "purpose": "sharing"}),
        (at, "", {"evidence": "S-1", "valid_until": "2199-12-31"}),
        (at, "", {"evidence": "S-1", "effective_at": ago(hours=1)}),
        (at, "", {"evidence": "S-1", "reason": "another"}),
        (at, "/withdraw", {"evidence": "S-1"}),
        (other, "", {"evidence": "S-1"}),
    ):
        refused = await said(api, to, how, key("c"), **more)
        assert await code_of_refusal(refused) == (422, "idempotency-key-reused"), (how, more)
    second = CommandHandler(customer_decider, store, api.service.catalogue, key_ring)
    elsewhere = CustomerConsents(second, dated)
    made = context("at once", CLOCK.now())
    processes = [api.service.consents, elsewhere] * 3
    both = await asyncio.gather(*(one.give(UUID(at), SMS, "S-9", None, made) for one in processes))
    assert len({one.version for one in both}) == 1
    assert [one.name for one in await store.read_stream(UUID(at))].count("consent-given") == 2


@pytest.mark.requirement("M36")
async def test_a_consent_that_is_sent_again_after_its_outcome_was_forgotten_does_not_overrule_a_withdrawal(
    api, store, postgres_url, schema
):
    at = await registered(api)
    signed, replied = {"evidence": "S-1", "headers": key("signed")}, {"headers": key("replied")}
    assert (await said(api, at, **signed)).status_code == 200
    assert (await said(api, at, "/withdraw", **replied)).status_code == 200
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"alter table {schema}.commands disable trigger all")
        connection.execute(f"delete from {schema}.commands")
    assert await code_of_refusal(await said(api, at, **signed)) == (409, "already-recorded")
    assert not (await stood(api, at))[SMS]["valid"]
    assert (await said(api, at, evidence="S-2")).status_code == 200
    assert await code_of_refusal(await said(api, at, "/withdraw", **replied)) == (409, "already-recorded")
    assert (await stood(api, at))[SMS]["valid"]
    *_, last = [one for one in await store.read_stream(UUID(at)) if one.name == "consent-given"]
    assert "consent" not in json.loads(published(last).body)


@pytest.mark.requirement("M36")
async def test_of_a_consent_and_a_withdrawal_at_one_instant_the_withdrawal_stands_whichever_is_stored_first(
    api,
):
    when = ago(minutes=5)
    for _ in range(4):
        at = await registered(api)
        both = await asyncio.gather(
            said(api, at, evidence="S-1", effective_at=when), said(api, at, "/withdraw", effective_at=when)
        )
        assert [one.status_code for one in both] == [200, 200]
        one = (await stood(api, at))[SMS]
        assert (one["valid"], one["state"]) == (False, "withdrawn")


async def test_the_longest_evidence_with_every_sign_is_kept_and_a_lone_surrogate_is_refused(api, store):
    at = await registered(api)
    longest = ("签\"'\\\r\n\t{$ne: 1}" * 200)[:999] + "尾"
    for how in ("", "/withdraw"):
        assert (await said(api, at, how, evidence=longest)).status_code == 200
        assert (await stood(api, at))[SMS]["evidence"] == longest
        assert (await said(api, at, how, evidence=longest + "x")).status_code == 422
        lone = await api.post(
            f"/customers/{at}/consents{how}",
            content=b'{"channel":"sms","purpose":"marketing","evidence":"\\ud800"}',
            headers=once() | {"Content-Type": "application/json"},
        )
        assert lone.status_code == 422, lone.text
    assert len(await store.read_stream(UUID(at))) == 3


# who may


@pytest.mark.requirement("M36", "R083")
async def test_consents_of_a_customer_of_another_branch_are_as_if_they_were_not_there(api):
    at = await registered(api, "浦东")
    assert (await said(api, at, evidence="S-1")).status_code == 200
    for role, post, reads, says in (
        ("teller", "浦东/柜台", 200, 200),
        ("teller", "徐汇/柜台", 404, 404),
        ("teller", None, 404, 404),
        ("relationship-manager", "浦东/RM-1", 200, 200),
        ("relationship-manager", "徐汇/RM-1", 404, 404),
        ("service", None, 200, 200),
        ("auditor", None, 200, 403),
        ("compliance", None, 200, 403),
        ("analyst", None, 403, 403),
        ("marketer", None, 403, 403),
        ("operator", None, 403, 403),
        ("feed", None, 403, 403),
    ):
        acting(api, role, post)
        answers = (
            await api.get(f"/customers/{at}/consents"),
            await said(api, at, evidence="S-1"),
            await said(api, at, "/withdraw", purpose="sharing"),
        )
        assert [one.status_code for one in answers] == [reads, says, says], (role, post)
        if reads == 404:
            nobody = await api.get(f"/customers/{UUID(int=9)}/consents")
            assert {**nobody.json(), "trace_id": ""} == {**answers[0].json(), "trace_id": ""}


# conditions


def test_conditions_know_every_channel_and_purpose():
    assert set(FIELDS["consents"].values) == {f"{one}-{other}" for one, other in product(CHANNELS, PURPOSES)}


@pytest.mark.requirement("M36", "R079")
async def test_who_is_found_by_consents_is_who_meets_the_condition_alone_and_the_sentence_says_so(api, shown):
    """The day of the facts is in January; consents are asked for on it."""
    today, early = NOW.date(), {"effective_at": "2026-01-01T00:00:00Z"}
    had = {}
    for consents, withdrawn in (
        ({"sms-marketing": None, "phone-sharing": None}, ()),
        ({"sms-marketing": None}, ("sms-marketing",)),
        ({}, ()),
        ({"email-profiling": today + timedelta(days=1)}, ()),
        ({"email-profiling": today, "push-sharing": None}, ("phone-marketing",)),
    ):
        at = await registered(api)
        for pair, until in consents.items():
            channel, purpose = pair.split("-")
            body = {"channel": channel, "purpose": purpose, "evidence": "S-1", **early}
            given_now = await said(api, at, **body, valid_until=until and str(until))
            assert given_now.status_code == 200, given_now.text
        for pair in withdrawn:
            channel, purpose = pair.split("-")
            await said(api, at, "/withdraw", channel=channel, purpose=purpose)
        ended = {pair for pair, until in consents.items() if until == today}
        had[at] = consents.keys() - set(withdrawn) - ended
    await shown()
    for where, meets, words in (
        ("consents has sms-marketing", lambda has: "sms-marketing" in has, "短信营销"),
        ("not consents has sms-marketing", lambda has: "sms-marketing" not in has, "短信营销"),
        (
            "consents has any (sms-marketing, email-profiling)",
            lambda has: has & {"sms-marketing", "email-profiling"},
            "电子邮件画像",
        ),
        (
            "consents has all (sms-marketing, phone-sharing)",
            lambda has: {"sms-marketing", "phone-sharing"} <= has,
            "电话共享",
        ),
        ("consents has phone-marketing", lambda has: "phone-marketing" in has, "电话营销"),
        (
            "consents has push-sharing and not consents has email-profiling",
            lambda has: "push-sharing" in has,
            "推送共享",
        ),
    ):
        wanted = {at for at, has in had.items() if meets(has)}
        assert await found(api, where) & had.keys() == wanted, where
        for at in had:
            explained = (await api.get(f"/customers/{at}/selection", params={"where": where})).json()
            assert explained["holds"] == (at in wanted), (where, explained)
        counted = (await api.get("/customers/selection/count", params={"where": where})).json()
        assert words in json.dumps(counted["sentence"], ensure_ascii=False)
    unknown = await api.get("/customers/selection", params={"where": "consents has sms-all"})
    assert await code_of_refusal(unknown) == (422, "condition-invalid")
