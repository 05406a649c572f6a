"""The preparation of an erasure: what the customer decides, what its saga gives, and over HTTP."""

from uuid import UUID

import pytest
from chassis.clock import SystemClock
from chassis.sagas import Sagas, saga_handler, saga_timer
from chassis.sagas.deciding import (
    Answer,
    Hear,
    Refuse,
    SagaCommand,
    SagaEnded,
    SagaStarted,
    SagaState,
    Start,
    TimeOut,
    saga_decider,
)
from chassis.timers import SetTimer, WithdrawTimer
from chassis.write.deciding import CommandContext
from chassis.write.events import RecordedEvent
from contracts.topics import CUSTOMER_EVENTS
from customer.catalogue import catalogue
from customer.domain.commands import (
    AcceptErasurePreparation,
    BeginErasurePreparation,
    ConfirmErasurePreparation,
    EndErasurePreparation,
    EraseCustomer,
)
from customer.domain.customer import customer_decider
from customer.domain.events import (
    CustomerErased,
    CustomerRegistered,
    ErasurePreparationBegun,
    ErasurePreparationEnded,
    ErasurePrepared,
    PartyOfSource,
)
from customer.domain.refusals import CustomerIsErased, ErasurePreparationOver
from customer.policies.when_erasure_preparation_changes_then_run_saga import POLICY, RunSaga
from customer.sagas import KINDS, PREPARE_ERASURE, PREPARING
from msgspec import json

from tests.support.fixtures import delivered
from tests.support.specification import Specification

from .test_api import api, key
from .test_erasure import CUSTOMER, WHY, bank, register
from .test_policy import PARTY, described
from .test_queries import NOW, queries

__all__ = ["api", "bank", "queries", "register"]

customer = Specification(customer_decider)
REGISTERED = CustomerRegistered(name="张伟", kind="person", origin="staff")
ONE, OTHER = UUID(int=1), UUID(int=2)
PARTIES = (PartyOfSource("core", UUID(int=3)), PartyOfSource("cards", UUID(int=4)))
BEGUN = ErasurePreparationBegun(ONE, PARTIES)
ERASED = CustomerErased(parties=(), accounts=())


def test_an_erasure_is_prepared_once_at_a_time():
    begin = BeginErasurePreparation(ONE, PARTIES)
    customer.given(REGISTERED).when(begin).then(BEGUN)
    customer.given(REGISTERED, BEGUN).when(BeginErasurePreparation(OTHER, PARTIES)).then()
    customer.given(REGISTERED, ERASED).when(begin).then_rejected(CustomerIsErased)


def test_a_preparation_is_confirmed_once_while_it_is_under_way():
    customer.given(REGISTERED, BEGUN).when(AcceptErasurePreparation(ONE)).then()
    customer.given(REGISTERED, BEGUN).when(ConfirmErasurePreparation(ONE)).then(ErasurePrepared(ONE))
    customer.given(REGISTERED, BEGUN, ErasurePrepared(ONE)).when(ConfirmErasurePreparation(ONE)).then()
    for over in (AcceptErasurePreparation(OTHER), ConfirmErasurePreparation(OTHER)):
        customer.given(REGISTERED, BEGUN).when(over).then_rejected(ErasurePreparationOver)
    ended = ErasurePreparationEnded(ONE, "withdrawn")
    customer.given(REGISTERED, BEGUN, ended).when(AcceptErasurePreparation(ONE)).then_rejected(
        ErasurePreparationOver
    )


@pytest.mark.parametrize("because", ["withdrawn", "failed", "erased"])
def test_a_preparation_after_another_one_is_not_prepared_yet(because):
    over = [BEGUN, ErasurePrepared(ONE), ErasurePreparationEnded(ONE, because)]
    again = customer.given(REGISTERED, *over).when(BeginErasurePreparation(OTHER, PARTIES))
    again.then(ErasurePreparationBegun(OTHER, PARTIES)).when(ConfirmErasurePreparation(OTHER)).then(
        ErasurePrepared(OTHER)
    )


def test_the_end_of_a_preparation_names_the_one_that_is_under_way():
    withdrawn = ErasurePreparationEnded(ONE, "withdrawn")
    customer.given(REGISTERED, BEGUN).when(EndErasurePreparation("withdrawn")).then(withdrawn)
    customer.given(REGISTERED, BEGUN).when(EndErasurePreparation("failed", OTHER)).then()
    customer.given(REGISTERED).when(EndErasurePreparation("withdrawn")).then()
    customer.given(REGISTERED, ERASED).when(EndErasurePreparation("failed", ONE)).then()


def test_an_erasure_ends_its_preparation():
    erase = EraseCustomer((), (), NOW.date())
    customer.given(REGISTERED, BEGUN).when(erase).then(ERASED, ErasurePreparationEnded(ONE, "erased"))
    customer.given(REGISTERED).when(erase).then(ERASED)


# the saga

DATA = json.encode({"customer": str(CUSTOMER), "preparation": str(ONE), "parties": PARTIES}).decode()
CLOSES = [f"close:{party.party_id}" for party in PARTIES]
FORWARD = ["accept", *CLOSES, "confirm"]


def over(*commands: SagaCommand) -> SagaState:
    """The saga after these commands."""
    decider = saga_decider({PREPARE_ERASURE: PREPARING})
    state = decider.fold(decider.decide(Start(PREPARE_ERASURE, DATA, NOW), SagaState()))
    for command in commands:
        state = decider.fold(decider.decide(command, state), state)
    return state


def heard(because: str) -> Hear:
    """The preparation has ended."""
    return Hear(UUID(int=9), "customer.erasure_preparation_ended", json.encode({"because": because}).decode())


def answers(steps, *, undoes=False):
    return [Answer(step, undoes) for step in steps]


def test_the_sources_are_closed_one_after_the_other_and_then_it_is_confirmed():
    for done in range(len(FORWARD)):
        [pending] = over(*answers(FORWARD[:done])).pending()
        assert (pending.step, pending.undoes) == (FORWARD[done], False)
    state = over(*answers(FORWARD))
    assert (state.status, state.pending()) == ("running", [])
    [close] = over(*answers(FORWARD[:1])).pending()
    assert (close.to, close.request.path) == (
        "ingest",
        f"/ingest/parties/{PARTIES[0].party_id}/close-releases",
    )
    assert json.decode(close.request.body)["source"] == "core"


def test_a_customer_without_parties_is_prepared_at_once():
    decider = saga_decider({PREPARE_ERASURE: PREPARING})
    data = json.encode({"customer": str(CUSTOMER), "preparation": str(ONE), "parties": ()}).decode()
    state = decider.fold(decider.decide(Start(PREPARE_ERASURE, data, NOW), SagaState()))
    state = decider.fold(decider.decide(Answer("accept", undoes=False), state), state)
    assert [one.step for one in state.pending()] == ["confirm"]


@pytest.mark.parametrize(
    ("commands", "taken_back"),
    [
        ([*answers(FORWARD), heard("withdrawn")], [*reversed(CLOSES), "accept"]),
        ([*answers(FORWARD), TimeOut()], [*reversed(CLOSES), "accept"]),
        (
            [*answers(FORWARD[:2]), Refuse(CLOSES[1], undoes=False, code="party-unknown")],
            [CLOSES[0], "accept"],
        ),
        (
            [*answers(FORWARD[:3]), Refuse("confirm", undoes=False, code="over")],
            [*reversed(CLOSES), "accept"],
        ),
        ([Refuse("accept", undoes=False, code="over")], []),
    ],
)
def test_what_was_closed_is_opened_again_the_last_one_first(commands, taken_back):
    state = over(*commands)
    for step in taken_back:
        [pending] = state.pending()
        assert (pending.step, pending.undoes) == (step, True)
        state = over(*commands, *answers(taken_back[: taken_back.index(step) + 1], undoes=True))
    assert (state.status, state.outcome) == ("ended", "compensated")


def test_what_is_closed_when_the_customer_is_erased_stays_closed():
    assert over(*answers(FORWARD), heard("erased")).outcome == "erased"
    # It is erased while a source is asked: that is answered first.
    asked = [*answers(FORWARD[:1]), heard("erased")]
    assert [one.step for one in over(*asked).pending()] == CLOSES[:1]
    assert over(*asked, Answer(CLOSES[0], undoes=False)).outcome == "erased"
    assert over(*asked, Refuse(CLOSES[0], undoes=False, code="no")).outcome == "erased"
    # The customer refuses a step because it is erased, before the news of that has come.
    for at in (0, len(FORWARD) - 1):
        refused = Refuse(FORWARD[at], undoes=False, code=CustomerIsErased.code)
        assert over(*answers(FORWARD[:at]), refused).outcome == "erased"


async def test_the_policy_starts_the_saga_once_and_has_it_hear(store, key_ring):
    handler = saga_handler(store, catalogue(), key_ring, KINDS)
    policy = RunSaga(Sagas(store, handler, SystemClock()), SystemClock())
    parties = [{"source": "core", "party_id": str(PARTY)}]
    begun = delivered(
        "customer.erasure_preparation_begun", CUSTOMER, 2, preparation=str(ONE), parties=parties
    )
    ended = delivered(
        "customer.erasure_preparation_ended", CUSTOMER, 3, preparation=str(ONE), because="withdrawn"
    )
    assert {begun.type, ended.type} == POLICY.events
    assert POLICY.sources == (CUSTOMER_EVENTS.name,)
    for event in (begun, begun, ended, ended):
        await policy(event)
    names = [one.name for one in await store.read_stream(ONE)]
    assert names == ["saga-started", "saga-step-given", "saga-heard", "saga-compensation-begun"]


async def test_sagas_are_listed_over_http_to_whom_they_concern(api, store, key_ring):
    handler, clock = saga_handler(store, catalogue(), key_ring, KINDS), SystemClock()
    sagas, three = Sagas(store, handler, clock), UUID(int=3)
    data = {"customer": str(CUSTOMER), "preparation": str(ONE), "parties": []}
    for number, saga in enumerate((ONE, OTHER, three)):
        given = CommandContext(actor="lin", now=clock.now(), command_id=UUID(int=100 + number))
        await sagas.start(PREPARE_ERASURE, saga, data, given)
    given = CommandContext(actor="lin", now=clock.now(), command_id=UUID(int=200))
    await handler.handle(OTHER, Refuse("accept", undoes=False, code="over"), given)

    assert key_ring.keys_for([ONE, OTHER, three], create=False) == {}

    first = (await api.get("/sagas/customer", params={"limit": 1})).json()
    [one] = first["items"]
    assert (one["saga_id"], one["saga"], one["status"], one["open_steps"]) == (
        str(ONE),
        PREPARE_ERASURE,
        "running",
        ["accept"],
    )
    rest = (await api.get("/sagas/customer", params={"after": first["next"]})).json()
    assert ([one["saga_id"] for one in rest["items"]], rest["next"]) == ([str(three)], None)
    ended = (await api.get(f"/sagas/customer/{OTHER}")).json()
    assert (ended["status"], ended["because"], ended["open_steps"]) == ("ended", "over", [])
    unknown = await api.get(f"/sagas/customer/{CUSTOMER}")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "saga-unknown")
    for cursor in ("x", "WzFd", "WyJhIl0"):
        refused = await api.get("/sagas/customer", params={"after": cursor})
        assert (refused.status_code, refused.json()["code"]) == (400, "cursor-invalid"), cursor
    api.headers["Authorization"] = f"Bearer {api.token_of('teller', 'B1/P1')}"
    for path in ("/sagas/customer", f"/sagas/customer/{ONE}"):
        assert (await api.get(path)).status_code == 403


def test_the_time_of_a_saga_is_a_durable_timer():
    started = SagaStarted(PREPARE_ERASURE, DATA, NOW)
    timer = saga_timer(None)
    assert list(timer.changes(RecordedEvent(1, ONE, 1, "saga-started", started, None))) == [SetTimer(NOW)]
    ended = RecordedEvent(2, ONE, 2, "saga-ended", SagaEnded("erased"), None)
    assert list(timer.changes(ended)) == [WithdrawTimer()]


async def test_compliance_prepares_an_erasure_and_withdraws_it_over_http(api, register, key_ring, store):
    await register(described(key_ring))
    path = f"/customers/{CUSTOMER}/erasure-preparation"
    compliance = {"Authorization": f"Bearer {api.token_of('compliance')}"}
    headers = key("p") | {"If-Match": '"2"'}
    assert (await api.post(path, json=WHY, headers=headers)).status_code == 403
    assert (await api.post(path, json={}, headers=headers | compliance)).status_code == 422
    for _ in range(2):
        answer = await api.post(path, json=WHY, headers=headers | compliance)
        assert (answer.status_code, answer.json()["version"]) == (200, 3), answer.text
    [begun] = [one for one in await store.read_stream(CUSTOMER) if one.name == "erasure-preparation-begun"]
    said = json.decode(begun.body)
    assert [one["party_id"] for one in said["data"]["parties"]] == [str(PARTY)]
    assert said["meta"]["privilege"] == "high"
    ended = await api.post(f"{path}/end", json=WHY, headers=key("e") | compliance | {"If-Match": '"3"'})
    assert (ended.status_code, ended.json()["version"]) == (200, 4)


@pytest.mark.parametrize("bank", ["open"], indirect=True)
async def test_what_cannot_be_erased_is_not_prepared(api, register, key_ring, bank, store):
    await register(described(key_ring))
    headers = key("p") | {"If-Match": '"2"', "Authorization": f"Bearer {api.token_of('compliance')}"}
    answer = await api.post(f"/customers/{CUSTOMER}/erasure-preparation", json=WHY, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "retention-holds")
    assert len(await store.read_stream(CUSTOMER)) == 2
