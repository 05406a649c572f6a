"""References that go from customer to customer, contradictions, and identity numbers, over HTTP."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import count
from uuid import UUID, uuid5

import pytest
from chassis.clock import SystemClock
from chassis.write.deciding import CommandContext, CommandKeyReused
from customer.application import CustomerService
from customer.catalogue import catalogue
from customer.claims import ClaimedTooOften, Claims, nth
from customer.domain.commands import (
    CorrectIdentityDetails,
    Details,
    LinkReference,
    Reference,
    RegisterCustomer,
    RejectReference,
)
from customer.domain.events import ContactDetailsChanged
from customer.domain.refusals import REFERENCES_MAX
from customer.identities import customer_of_party
from customer.policies.when_party_described_then_register_customer import RegisterDescribed
from msgspec import structs

from .test_api import WANG, api, key
from .test_policy import PARTY, START, described, told
from .test_queries import IDS, bank, queries
from .told import dated

__all__ = ["api", "bank", "queries"]

LI = {"name": "李娜", "phone": "13911113333", "stated_assets": WANG["stated_assets"]}
NUMBER = "110101199001310026"
WHY = {"reason": "the customer showed the card"}
NOBODY = RegisterCustomer(Details(name="李娜", phone="13911113333"))


def at(version, name):
    return key(name) | {"If-Match": f'"{version}"'}


async def register(api, name, **body):
    made = await api.post("/customers", json=LI | body, headers=key(name))
    assert made.status_code == 201, made.text
    return made.json()["customer_id"]


@pytest.fixture
def policy(handler, store, key_ring):
    return RegisterDescribed(handler, store, key_ring, SystemClock(), IDS, START.date)


async def names(store, customer):
    return [one.name for one in await store.read_stream(UUID(customer))]


@pytest.mark.requirement("M28")
async def test_a_second_registration_with_the_same_identity_number_is_refused(api, store):
    both = [
        api.post("/customers", json=LI | {"identity_number": number}, headers=key(name))
        for name, number in (("a", NUMBER), ("b", " 110101 19900131 0026"))
    ]
    first, second = sorted(await asyncio.gather(*both), key=lambda answer: answer.status_code)
    assert (first.status_code, second.status_code) == (201, 409)
    assert second.json()["code"] == "identity-number-known"
    assert first.json()["customer_id"] in second.json()["detail"]
    assert NUMBER not in second.text
    customer = first.json()["customer_id"]
    changed = {"born_on": "1990-01-31", "identity_number": "110101199001310034"}
    done = await api.put(f"/customers/{customer}/identity-details", json=changed, headers=at(1, "c"))
    assert done.status_code == 200, done.text
    taken = await register(api, "d", identity_number=NUMBER)
    again = await api.post("/customers", json=LI | {"identity_number": NUMBER}, headers=key("d"))
    assert (again.status_code, again.json()["customer_id"]) == (201, taken)
    back = {"identity_number": NUMBER}
    refused = await api.put(f"/customers/{customer}/identity-details", json=back, headers=at(2, "e"))
    assert (refused.status_code, refused.json()["code"]) == (409, "identity-number-known")
    assert taken in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"phone": "12"}, "phone"),
        ({"email": "li"}, "email"),
        ({"identity_number": "110101199001310021"}, "identity_number"),
        ({"identity_number": NUMBER, "born_on": "1990-02-01"}, "born_on"),
        ({"born_on": "2999-01-01"}, "born_on"),
        ({"name": "李\u200b娜"}, "name"),
    ],
)
async def test_an_invalid_value_is_refused_with_its_field(api, store, body, field):
    refused = await api.post("/customers", json=LI | body, headers=key("a"))
    assert (refused.status_code, refused.json()["code"]) == (422, "detail-invalid")
    assert refused.json()["detail"].startswith(f"{field}: ")
    assert await store.head_position() == 0


async def test_a_name_that_stands_twice_in_a_body_is_refused(api, store):
    body = b'{"name": "a", "phone": "13911113333", "name": "b"}'
    headers = key("a") | {"Content-Type": "application/json"}
    refused = await api.post("/customers", content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "request-invalid")
    assert await store.head_position() == 0


async def test_a_number_goes_from_customer_to_customer_and_the_same_command_again_changes_nothing(
    api, store, policy, key_ring
):
    await policy(described(key_ring))
    first, second = str(customer_of_party(PARTY)), await register(api, "a")
    move = {"to": second, "effective_on": "2026-02-01", **WHY}
    path = f"/customers/{first}/references/{PARTY}"
    moved = [await api.post(f"{path}/move", json=move, headers=at(2, "m")) for _ in range(2)]
    assert [one.status_code for one in moved] == [200, 200], moved[0].text
    assert moved[0].json() == moved[1].json()
    assert moved[0].json()["position"] == await store.head_position(), "both customers are shown after it"
    assert await names(store, first) == ["customer-registered", "reference-linked", "reference-unlinked"]
    assert await names(store, second) == ["customer-registered", "reference-linked"]
    for target in (second, first):
        body = {"source": "core", "key": "4711"}
        answer = await api.post(
            f"/customers/{target}/references", json=body, headers=at(2 + (target == first), f"l{target}")
        )
        assert answer.status_code == (200 if target == second else 409), answer.text
    back = {"to": first, **WHY}
    returned = await api.post(f"/customers/{second}/references/{PARTY}/move", json=back, headers=at(2, "n"))
    assert returned.status_code == 200, returned.text
    assert (await names(store, first))[-1] == "reference-linked"


@pytest.mark.parametrize(
    ("source", "number"),
    [
        (" core", "4711"),
        ("core\u200b", "4711"),
        ("core\uff1a1", "4711"),
        ("core", " 4711"),
        ("core", "4711\u3000"),
        ("core", "47\u200b11"),
    ],
)
async def test_a_reference_that_no_feed_can_have_is_refused(api, store, source, number):
    """It would wait for ever, or hide a colon: under `core\uff1a1` stands what the source `core` knows as `1:...`."""
    body = LI | {"references": [{"source": source, "key": number}]}
    refused = await api.post("/customers", json=body, headers=key("a"))
    assert (refused.status_code, refused.json()["code"]) == (422, "request-invalid")
    asked = await api.get("/customers", params={"reference": f"{source}:{number}"})
    assert (asked.status_code, asked.json()["code"]) == (422, "request-invalid")
    assert await store.head_position() == 0


async def test_a_reference_is_recorded_under_the_one_spelling_of_its_source(api, store, policy, key_ring):
    customer = await register(api, "a", references=[{"source": "\uff43ore", "key": "4711"}])
    assert (await api.get("/customers", params={"reference": "\uff43ore:4711"})).status_code == 200
    await policy(described(key_ring))
    assert (await names(store, customer))[1:] == ["reference-claimed", "reference-disputed"]


async def test_an_announced_end_is_brought_forward_by_an_unlinking_and_by_a_move(
    api, store, policy, key_ring
):
    await policy(described(key_ring))
    first, second = str(customer_of_party(PARTY)), await register(api, "a")
    path = f"/customers/{first}/references/{PARTY}"
    for version, day in ((2, "2030-01-01"), (3, "2029-01-01")):
        body = WHY | {"effective_on": day}
        unlinked = await api.post(f"{path}/unlink", json=body, headers=at(version, day))
        assert unlinked.status_code == 200, unlinked.text
    moved = await api.post(f"{path}/move", json=WHY | {"to": second}, headers=at(4, "m"))
    assert moved.status_code == 200, moved.text
    assert await names(store, second) == ["customer-registered", "reference-linked"]


async def test_an_external_id_that_is_another_customers_from_a_later_day_is_not_free_before_it(
    api, store, policy, key_ring
):
    await policy(described(key_ring))
    first, heir, third = str(customer_of_party(PARTY)), await register(api, "a"), await register(api, "b")
    path = f"/customers/{first}/references/{PARTY}"
    move = WHY | {"to": heir, "effective_on": "2030-01-01"}
    assert (await api.post(f"{path}/move", json=move, headers=at(2, "m"))).status_code == 200
    assert (await api.post(f"{path}/unlink", json=WHY, headers=at(3, "u"))).status_code == 200
    body = {"source": "core", "key": "4711"}
    refused = await api.post(f"/customers/{third}/references", json=body, headers=at(1, "l"))
    assert (refused.status_code, refused.json()["code"]) == (409, "already-recorded")


@pytest.mark.parametrize("why", ["another had it that day", "full"])
async def test_a_move_that_its_target_refuses_unlinks_nothing(api, store, policy, key_ring, why):
    await policy(described(key_ring))
    many = [{"source": "fund", "key": str(number)} for number in range(REFERENCES_MAX)]
    first, second = str(customer_of_party(PARTY)), await register(api, "a")
    third = await register(api, "b", references=many if why == "full" else [])
    path = f"/customers/{first}/references/{PARTY}"
    loser, version, day = first, 2, "2026-02-01"
    if why != "full":
        move = WHY | {"to": second, "effective_on": day}
        assert (await api.post(f"{path}/move", json=move, headers=at(2, "m"))).status_code == 200
        loser, version, day = second, 2, "2025-01-01"
    before = await names(store, loser)
    move = WHY | {"to": third, "effective_on": day}
    path = f"/customers/{loser}/references/{PARTY}"
    refused = await api.post(f"{path}/move", json=move, headers=at(version, "n"))
    assert refused.status_code == 409, refused.text
    assert await names(store, loser) == before


async def test_a_command_that_comes_again_gets_its_answer_whatever_was_looked_up_for_it(
    store, handler, queries, policy, key_ring
):
    """An identity number that is taken now, a party that has moved on, another day: none of it is in the request."""
    days = [START.date()]

    async def reached(context, position, seconds):
        return True

    service = CustomerService(
        handler, store, catalogue(), queries, IDS, SystemClock(), lambda: days[-1], reached, dated
    )

    def context(name):
        return CommandContext(
            actor="chen", now=START, command_id=uuid5(IDS.party("core", name), name), idempotency_key=name
        )

    first = customer_of_party(PARTY)
    await policy(described(key_ring))
    second, third = [(await service.register(NOBODY, context(name))).stream_id for name in ("s", "t")]
    commands = [
        lambda: service.register(
            structs.replace(
                NOBODY, details=Details(name="李娜", phone="13911113333", identity_number=NUMBER)
            ),
            context("r"),
        ),
        lambda: service.change(second, CorrectIdentityDetails(None, "110101199001310034"), context("i"), 1),
        lambda: service.move_reference(first, PARTY, second, None, context("m"), 2),
        lambda: service.move_reference(second, PARTY, third, None, context("n"), 3),
        lambda: service.unlink_reference(third, PARTY, None, context("u"), 2),
    ]
    before = [await command() for command in commands]
    days.append(START.date() + timedelta(days=1))
    for outcome, command in zip(before, commands, strict=True):
        again = await command()
        assert (again.version, again.position, again.replayed) == (outcome.version, outcome.position, True)
    with pytest.raises(CommandKeyReused):
        await service.unlink_reference(third, PARTY, days[-1], context("u"), 2)


async def test_an_external_id_moves_back_to_the_customer_that_had_it_on_an_earlier_day(
    api, store, policy, key_ring
):
    await policy(described(key_ring))
    first, second = str(customer_of_party(PARTY)), await register(api, "a")
    there = WHY | {"to": second, "effective_on": "2026-02-01"}
    path = f"/customers/{first}/references/{PARTY}/move"
    assert (await api.post(path, json=there, headers=at(2, "m"))).status_code == 200
    back = WHY | {"to": first, "effective_on": "2025-01-01"}
    path = f"/customers/{second}/references/{PARTY}/move"
    returned = await api.post(path, json=back, headers=at(2, "n"))
    assert returned.status_code == 200, returned.text
    assert (await names(store, second))[-1] == "reference-unlinked"
    assert (await names(store, first))[-1] == "reference-linked"


async def test_one_of_two_customers_gets_an_external_id_that_both_claim_at_once(api, store, policy, key_ring):
    await policy(described(key_ring))
    first = str(customer_of_party(PARTY))
    gone = await api.post(f"/customers/{first}/references/{PARTY}/unlink", json=WHY, headers=at(2, "u"))
    assert gone.status_code == 200, gone.text
    rivals = [await register(api, name) for name in ("a", "b")]
    body = {"source": "core", "key": "4711"}
    answers = await asyncio.gather(
        *(api.post(f"/customers/{one}/references", json=body, headers=at(1, f"l{one}")) for one in rivals)
    )
    assert sorted(one.status_code for one in answers) == [200, 409]


async def test_a_number_that_was_claimed_too_often_says_so_until_a_person_allows_more(
    handler, store, queries, key_ring
):
    async def reached(context, position, seconds):
        return True

    def service(claims_max):
        return CustomerService(
            handler,
            store,
            catalogue(),
            queries,
            IDS,
            SystemClock(),
            START.date,
            reached,
            dated,
            claims_max=claims_max,
        )

    made = count()

    def context():
        return CommandContext(actor="chen", now=START, command_id=UUID(int=next(made)))

    outcome = await service(1).register(NOBODY, context())
    customer, link = outcome.stream_id, LinkReference(Reference("core", "4711", PARTY))

    async def round_of(claims_max, version):
        linked = await service(claims_max).change(customer, link, context(), version)
        rejected = await service(claims_max).change(
            customer, RejectReference(PARTY), context(), linked.version
        )
        return rejected.version

    version = outcome.version
    for _ in range(3):
        version = await round_of(3, version)
    with pytest.raises(ClaimedTooOften, match="3 times; CRM_CLAIMS_MAX allows more"):
        await round_of(3, version)
    described_then = RegisterDescribed(handler, store, key_ring, SystemClock(), IDS, START.date, 3)
    with pytest.raises(ClaimedTooOften):
        await described_then(described(key_ring))
    assert await round_of(4, version) == version + 2
    allowing = replace(described_then, claims_max=5)
    await allowing(described(key_ring))
    assert (await handler.load(customer_of_party(PARTY))).state.registered
    claim = await Claims(handler, store, 5).of_party(PARTY, START.date())
    assert (claim.holder, claim.identity) == (customer_of_party(PARTY), nth(PARTY, 4))


async def test_a_claimed_number_is_confirmed_or_rejected_with_a_reason(api, store):
    customer = await register(api, "a", references=[{"source": "core", "key": "4711"}])
    path = f"/customers/{customer}/references/{PARTY}"
    assert (await api.post(f"{path}/confirm", json={}, headers=at(2, "c"))).status_code == 422
    assert (await api.post(f"{path}/confirm", json=WHY, headers=at(2, "c"))).status_code == 200
    assert (await api.post(f"{path}/confirm", json=WHY, headers=at(2, "c"))).status_code == 200
    other = await api.post(f"{path}/confirm", json={"reason": "another one"}, headers=at(2, "c"))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    settled = await api.post(f"{path}/reject", json=WHY, headers=at(3, "r"))
    assert (settled.status_code, settled.json()["code"]) == (409, "reference-settled")
    other = await register(api, "b", references=[{"source": "core", "key": "1"}])
    party = IDS.party("core", "1")
    path = f"/customers/{other}/references/{party}"
    assert (await api.post(f"{path}/reject", json=WHY, headers=at(2, "r2"))).status_code == 200
    unknown = await api.post(f"{path}/confirm", json=WHY, headers=at(3, "c2"))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "reference-not-linked")
    third = await register(api, "d", references=[{"source": "core", "key": "1"}])
    assert await names(store, third) == ["customer-registered", "reference-claimed"]
    reasons = [one["reason"] for one in (await api.get(f"/customers/{other}/events")).json()["items"]]
    assert reasons == [None, None, WHY["reason"]]


async def test_a_confirmed_description_claims_its_identity_number_and_names_what_is_invalid(
    api, store, policy, key_ring, handler
):
    customer = await register(api, "a", references=[{"source": "core", "key": "4711"}])
    await policy(described(key_ring, name="李娜", identity_number=NUMBER, email="li"))
    path = f"/customers/{customer}/references/{PARTY}"
    assert (await api.post(f"{path}/confirm", json=WHY, headers=at(3, "c"))).status_code == 200
    assert (await names(store, customer))[3] == "reference-confirmed"
    events = await told(store, handler, UUID(customer))
    assert [one.invalid for one in events if isinstance(one, ContactDetailsChanged)] == [("email",)]
    refused = await api.post("/customers", json=LI | {"identity_number": NUMBER}, headers=key("b"))
    assert (refused.status_code, refused.json()["code"]) == (409, "identity-number-known")
    other = await register(api, "d", references=[{"source": "core", "key": "2"}])
    await policy(described(key_ring, number="2", name="李娜", identity_number=NUMBER))
    path = f"/customers/{other}/references/{IDS.party('core', '2')}"
    assert (await api.post(f"{path}/confirm", json=WHY, headers=at(3, "e"))).status_code == 200
    assert (await names(store, other))[-1] == "identity-number-shared"


async def test_a_shared_identity_number_is_claimed_by_who_states_it_again_once_the_other_has_given_it_up(
    api, store, policy, key_ring, handler
):
    async def stated(customer, version, number=NUMBER):
        path, headers = (
            f"/customers/{customer}/identity-details",
            at(version, f"{customer}-{version}-{number}"),
        )
        return await api.put(path, json={"identity_number": number}, headers=headers)

    other = await register(api, "a", identity_number=NUMBER)
    wrong = {"identity_number": NUMBER, "born_on": "1990-02-01"}
    for party in ("2", "3"):
        await policy(described(key_ring, number=party, name="李娜", **wrong))
    one, two = (customer_of_party(IDS.party("core", party)) for party in ("2", "3"))
    # The day of birth that the source stated is not that of the number: it can be corrected meanwhile.
    assert (await stated(one, 3)).status_code == 200
    last = (await told(store, handler, one))[-1]
    assert (last.changed, last.number_claim) == (("born_on",), None)
    refused = await stated(one, 4)
    assert (refused.status_code, refused.json()["code"]) == (409, "identity-number-known")
    assert other in refused.json()["detail"]
    assert (await stated(other, 1, "110101199001310034")).status_code == 200
    answers = await asyncio.gather(stated(one, 4), stated(two, 3))
    assert 200 in {answer.status_code for answer in answers}
    events = {each: (await told(store, handler, each))[-1] for each in (one, two)}
    [holder] = [each for each, event in events.items() if getattr(event, "number_claim", None) is not None]
    assert "identity_number" in events[holder].changed
    third = await api.post("/customers", json=LI | {"identity_number": NUMBER}, headers=key("g"))
    assert (third.status_code, third.json()["code"]) == (409, "identity-number-known")
    assert str(holder) in third.json()["detail"]


async def test_a_contradiction_is_resolved_by_a_person(api, store, policy, key_ring, handler):
    await policy(described(key_ring))
    customer = customer_of_party(PARTY)
    staff = {"phone": "13700000001"}
    await api.put(f"/customers/{customer}/contact-details", json=staff, headers=at(2, "p"))
    await policy(described(key_ring, 2, address="北京市"))
    assert (await handler.load(customer)).state.values["phone"] == "+8613700000001"
    await policy(described(key_ring, 3, address="北京市", phone="13900005678"))
    path = f"/customers/{customer}/contradictions/phone/resolve"
    body = {"party_id": str(PARTY), "accept": True, **WHY}
    assert (await api.post(path, json=body, headers=at(5, "r"))).status_code == 200
    again = await api.post(path, json=body, headers=at(6, "r2"))
    assert (again.status_code, again.json()["code"]) == (404, "contradiction-unknown")
    assert (await handler.load(customer)).state.values["phone"] == "+8613900005678"
    assert [type(one).__name__ for one in await told(store, handler, customer)][-2:] == [
        "DetailsContradicted",
        "ContradictionResolved",
    ]
    await api.put(f"/customers/{customer}/contact-details", json=staff, headers=at(6, "p2"))
    await policy(described(key_ring, 4, address="北京市", phone="13900009999"))
    refused = await api.post(path, json=body | {"accept": False}, headers=at(8, "r3"))
    assert refused.status_code == 200, refused.text
    state = (await handler.load(customer)).state
    assert (state.values["phone"], state.contradictions) == ("+8613700000001", {})
