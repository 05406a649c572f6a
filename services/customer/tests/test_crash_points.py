"""A process that dies at a named point of a command or a policy: the same again has one effect, whoever carries it out."""

from collections import Counter
from types import SimpleNamespace
from uuid import UUID

import pytest
from chassis.clock import SystemClock
from chassis.write.deciding import CommandContext
from chassis.write.handling import CommandHandler
from customer.application import CustomerService
from customer.catalogue import catalogue
from customer.claims import Claims
from customer.connections import reaching
from customer.domain.commands import Details, Reference, RegisterCustomer
from customer.domain.customer import customer_decider
from customer.domain.state import Need
from customer.identities import customer_of_party
from customer.policies.when_customer_erased_then_destroy_keys import EVENT, DestroyKeys
from customer.policies.when_party_described_then_register_customer import RegisterDescribed
from customer.settings import CustomerSettings
from pydantic import ValidationError

from .test_policy import IDS, PARTY, START, described
from .told import dated

POINTS = ("before-append", "after-append")
PERSON = RegisterCustomer(Details(name="张伟", phone="13800001234"), (Reference("core", "4711", PARTY),))


class CutOff(BaseException):
    """As a killed process: nothing that comes after it runs, not even what handles errors."""


class Process:
    """A process that dies when it comes to a point for the n-th time, and lives on where it has none."""

    def __init__(self, store, key_ring, point=None, nth=1):
        self.points = Counter()
        self._dies_at = (point, nth)
        self.handler = CommandHandler(customer_decider, store, catalogue(), key_ring, reached=self.reached)
        self.service = CustomerService(
            self.handler, store, catalogue(), None, IDS, SystemClock(), START.date, self._nothing_shown, dated
        )
        self.policy = RegisterDescribed(self.handler, store, key_ring, SystemClock(), IDS, START.date)

    def reached(self, point):
        self.points[point] += 1
        if (point, self.points[point]) == self._dies_at:
            raise CutOff

    async def _nothing_shown(self, context, position, seconds):
        return True


def context(number):
    return CommandContext(
        actor="chen", now=START, command_id=UUID(int=number), idempotency_key=f"key-{number}", reason="asked"
    )


async def names(store):
    return [one.name for one in await store.read_after(0, 1_000)]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("same", [True, False], ids=["the same process", "another one"])
async def test_a_command_that_is_cut_off_is_carried_out_once(store, key_ring, point, same):
    first = Process(store, key_ring, point)
    with pytest.raises(CutOff):
        await first.service.register(PERSON, context(1))
    stored = ["customer-registered", "reference-claimed"]
    assert await names(store) == (stored if point == "after-append" else [])
    again = first if same else Process(store, key_ring)
    outcome = await again.service.register(PERSON, context(1))
    assert (outcome.version, outcome.replayed) == (2, point == "after-append")
    assert await names(store) == stored


@pytest.mark.parametrize("point", POINTS)
async def test_a_need_and_a_consent_that_are_cut_off_are_recorded_once(store, key_ring, point):
    customer = (await Process(store, key_ring).service.register(PERSON, context(1))).stream_id
    stated = Need("fund", None, "x")

    async def need(process):
        return await process.service.needs.record(customer, stated, "visit", None, context(2))

    async def consent(process):
        return await process.service.consents.give(customer, ("sms", "marketing"), "S-1", None, context(3))

    for command in (need, consent):
        with pytest.raises(CutOff):
            await command(Process(store, key_ring, point))
        outcome = await command(Process(store, key_ring))
        assert outcome.replayed == (point == "after-append")
    assert (await names(store))[2:] == ["need-recorded", "consent-given"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("step", [1, 2])
async def test_a_move_that_is_cut_off_is_finished_by_the_same_command(store, key_ring, point, step):
    whole = Process(store, key_ring)
    await whole.policy(described(key_ring))
    owner = customer_of_party(PARTY)
    to = (await whole.service.register(RegisterCustomer(Details(name="李娜")), context(1))).stream_id
    before = (await whole.handler.load(owner)).version
    dying = Process(store, key_ring, point, step)
    with pytest.raises(CutOff):
        await dying.service.move_reference(owner, PARTY, to, None, context(2), before)
    claim = await Claims(Process(store, key_ring).handler, store).of_party(PARTY, START.date())
    steps_done = step - 1 + (point == "after-append")
    assert claim.holder == (owner, None, to)[steps_done]
    for _ in range(2):
        other = Process(store, key_ring)
        await other.service.move_reference(owner, PARTY, to, None, context(2), before)
    counted = Counter(await names(store))
    assert (counted["reference-unlinked"], counted["reference-linked"]) == (1, 2)
    assert (await Claims(whole.handler, store).of_party(PARTY, START.date())).holder == to


@pytest.mark.parametrize("point", [*POINTS, "after-reaction"])
async def test_an_event_whose_policy_is_cut_off_has_one_effect(store, key_ring, point):
    dying = Process(store, key_ring, point)
    with pytest.raises(CutOff):
        await reaching(dying.policy, dying.reached)(described(key_ring))
    for _ in range(2):
        other = Process(store, key_ring)
        await reaching(other.policy, other.reached)(described(key_ring))
    assert await names(store) == ["customer-registered", "reference-linked"]


async def test_an_erasure_that_is_cut_off_between_two_keys_destroys_the_others_when_its_event_comes_again(
    key_ring,
):
    own, account = UUID(int=71), UUID(int=72)
    key_ring.keys_for([own, account])

    accounts = [{"account": str(account), "others": []}]
    event = SimpleNamespace(type=EVENT, subject=own, data={"parties": [], "accounts": accounts})

    def reached(point):
        if point == "keys-destroyed":
            raise CutOff

    with pytest.raises(CutOff):
        await DestroyKeys(key_ring, reached)(event)
    assert key_ring.erased([own, account]) == {own}
    for _ in range(2):
        await DestroyKeys(key_ring)(event)
    assert key_ring.erased([own, account]) == {own, account}


def test_points_are_for_development_only_and_have_names():
    with pytest.raises(ValueError, match="for development only"):
        CustomerSettings(environment="production", crash_at="after-append").reached("x")
    with pytest.raises(ValidationError):
        CustomerSettings(environment="development", crash_at="nowhere")
    CustomerSettings(environment="production").reached("after-append")
