"""A customer is erased: by compliance, with a reason, after the retention period, once, and whatever comes in between."""

import asyncio
import json
from datetime import date, timedelta
from uuid import UUID

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import is_transient
from chassis.privacy.aging import EXPIRED_EVERY_SECONDS, expire_all
from chassis.privacy.key_encryption import FileKeyEncryption
from chassis.privacy.keys import ERASED, KEYS_CACHED_SECONDS, KeyRing
from chassis.privacy.tokens import development_token
from chassis.write.deciding import CommandContext
from chassis.write.handling import STATES_CACHED_SECONDS, CommandHandler
from contracts.roles import ROLES
from customer import permissions
from customer.application import CustomerService
from customer.catalogue import catalogue
from customer.domain.commands import (
    Details,
    LinkReference,
    Reference,
    RegisterCustomer,
    RenameCustomer,
    UnlinkReference,
)
from customer.domain.customer import customer_decider
from customer.domain.events import CustomerErased, HeldAccount
from customer.domain.refusals import CustomerIsErased
from customer.identities import customer_of_party
from customer.policies.when_customer_erased_then_destroy_keys import DestroyKeys
from customer.policies.when_party_described_then_register_customer import RegisterDescribed
from customer.retention import Kept, Retention, RetentionHolds, kept_until
from customer.settings import CustomerSettings
from customer.views import customers
from pydantic import ValidationError

from tests.support.specification import ManualClock

from .test_api import CLOCK, api, key
from .test_policy import NUMBER, PARTY, START, described
from .test_queries import IDS, NOW, Bank, queries
from .told import Teller, dated

__all__ = ["api", "queries"]

WIFE = IDS.party("core", "W")
CUSTOMER, OF_WIFE = customer_of_party(PARTY), customer_of_party(WIFE)
ENDED = "2010-01-01"
WHY = {"reason": "he asked for it"}
TEN_YEARS = Retention(0, 10)


@pytest.fixture
def bank(key_ring, request):
    """Two accounts that were closed long ago: the customer's own, and one that he had together with his wife."""
    bank = Bank(key_ring)
    bank.own = bank.account("core", "6222021234566789", "deposit", (NUMBER, "owner"))
    bank.joint = bank.account("core", "6222020000000001", "deposit", (NUMBER, "owner"), ("W", "joint"))
    for account in () if getattr(request, "param", "") == "open" else (bank.own, bank.joint):
        bank.tell(account, "account.closed", source="core", closed_on=ENDED)
    return bank


@pytest.fixture
def register(handler, store, key_ring):
    return RegisterDescribed(handler, store, key_ring, SystemClock(), IDS, START.date)


@pytest.fixture
def service(handler, store, queries, register):
    async def reached(context, position, seconds):
        return True

    return CustomerService(handler, store, catalogue(), queries, IDS, CLOCK, NOW.date, reached, dated)


@pytest.fixture
def destroy(key_ring):
    return DestroyKeys(key_ring)


def by(actor="chen"):
    return CommandContext(
        actor=actor,
        now=NOW,
        command_id=UUID(int=NOW.microsecond + hash(actor) % 10**9),
        reason="he asked for it",
    )


async def published(store, customer):
    """The erasure as its readers get it."""
    [stored] = [one for one in await store.read_stream(customer) if one.name == "customer-erased"]
    data = json.loads(stored.body)["data"]
    assert set(data) == {"v", "parties", "accounts"}, "nothing about the person"
    return Teller().tell(customer, "customer.erased", parties=data["parties"], accounts=data["accounts"])


async def test_erasure_destroys_the_keys_of_the_customer_and_not_of_an_account_with_another_owner(
    service, register, destroy, store, key_ring, bank, handler
):
    await register(described(key_ring))
    await register(described(key_ring, number="W", name="王芳"))
    outcome = await service.erase(CUSTOMER, by())
    assert outcome.events == (
        CustomerErased(
            parties=(PARTY,),
            accounts=tuple(
                sorted(
                    (HeldAccount(bank.own, ()), HeldAccount(bank.joint, (WIFE,))), key=lambda one: one.account
                )
            ),
        ),
    )
    event = await published(store, CUSTOMER)
    for _ in range(2):  # it comes twice
        await destroy(event)
        assert key_ring.erased([CUSTOMER, PARTY, bank.own, bank.joint, WIFE]) == {CUSTOMER, PARTY, bank.own}
    handler.forget(CUSTOMER)
    [registered] = [one for one in await told_of(store, key_ring, CUSTOMER) if hasattr(one, "phone")]
    assert (registered.name, registered.phone) == (ERASED, ERASED)
    # ...until she is erased too.
    await service.erase(OF_WIFE, by("wu"))
    await destroy(await published(store, OF_WIFE))
    assert key_ring.erased([bank.joint]) == {bank.joint}


async def told_of(store, ring, stream):
    keys = ring.keys_for([stream], create=False)
    return [one.event for one in catalogue().open_all(await store.read_stream(stream), keys)]


async def test_two_owners_that_are_erased_at_once_leave_no_key_of_their_account(
    service, register, destroy, store, key_ring, bank
):
    await register(described(key_ring))
    await register(described(key_ring, number="W", name="王芳"))
    await asyncio.gather(service.erase(CUSTOMER, by()), service.erase(OF_WIFE, by("li")))
    his, hers = await published(store, CUSTOMER), await published(store, OF_WIFE)
    await asyncio.gather(destroy(his), destroy(hers))
    assert key_ring.erased([bank.joint, bank.own]) == {bank.joint, bank.own}


async def test_two_erasures_at_once_and_a_third_erase_once(service, register, destroy, store, key_ring):
    await register(described(key_ring))
    outcomes = await asyncio.gather(
        *(service.erase(CUSTOMER, by(str(n))) for n in range(4)), return_exceptions=True
    )
    assert sum(not isinstance(one, Exception) and bool(one.events) for one in outcomes) == 1
    await destroy(await published(store, CUSTOMER))
    again = await service.erase(CUSTOMER, by("0"))
    assert (again.version, again.events, again.replayed) == (3, (), True)
    assert [one.name for one in await store.read_stream(CUSTOMER)].count("customer-erased") == 1


@pytest.mark.requirement("M22")
async def test_keys_are_destroyed_after_a_crash_and_after_an_outage_of_the_key_database(
    service, register, destroy, store, key_ring, tmp_path, keys_url
):
    """The process that erased is gone after its event; the policy has the rest of it to do, and does it when it can."""
    await register(described(key_ring))
    await service.erase(CUSTOMER, by())
    event = await published(store, CUSTOMER)
    assert key_ring.erased([CUSTOMER, PARTY]) == set()
    nowhere = psycopg.conninfo.make_conninfo(keys_url, port=1, host="127.0.0.1", connect_timeout=2)
    ring = KeyRing(nowhere, FileKeyEncryption.at(tmp_path / "kek"), SystemClock().monotonic)
    with pytest.raises(psycopg.OperationalError) as lost:
        await DestroyKeys(ring)(event)
    assert is_transient(lost.value), "the event waits for the database, and is no dead letter"
    with psycopg.connect(keys_url) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid()"
        )
    await destroy(event)
    assert key_ring.erased([CUSTOMER, PARTY]) == {CUSTOMER, PARTY}


@pytest.mark.requirement("M22")
async def test_later_events_restore_no_erased_value(service, register, destroy, store, key_ring, handler):
    late = described(key_ring, 2, name="张伟明", phone="13900005678")
    await register(described(key_ring))
    await service.erase(CUSTOMER, by())
    await register(late)  # its value still opens: the keys are not destroyed yet
    with pytest.raises(CustomerIsErased):
        await service.change(CUSTOMER, RenameCustomer("张伟明"), by("lin"), 3)
    await destroy(await published(store, CUSTOMER))
    await register(late)
    with pytest.raises(CustomerIsErased):
        await service.change(CUSTOMER, RenameCustomer("张伟明"), by("lin"), 3)
    assert len(await store.read_stream(CUSTOMER)) == 3
    assert key_ring.keys_for([CUSTOMER, PARTY]) == {}, "nor does anybody get a key again"


async def test_the_identity_number_of_an_erased_customer_is_free_again(
    service, register, destroy, store, key_ring
):
    number = {"identity_number": "11010519491231002X"}
    await register(described(key_ring, **number))
    await service.erase(CUSTOMER, by())
    await register(described(key_ring, number="W", name="王芳", **number))
    [event] = [one for one in await told_of(store, key_ring, OF_WIFE) if hasattr(one, "number_claim")]
    assert event.number_claim is not None
    assert "identity-number-shared" not in [one.name for one in await store.read_stream(OF_WIFE)]


async def test_an_unconfirmed_external_id_of_an_erased_customer_is_free_again(
    service, register, store, key_ring, handler
):
    """The party that comes under it later is somebody else."""
    registration = RegisterCustomer(Details(name="李娜"), (Reference("core", NUMBER, PARTY),))
    typed = (await service.register(registration, by("teller"))).stream_id
    await service.erase(typed, by())
    await register(described(key_ring))
    state = (await handler.load(CUSTOMER)).state
    assert (state.registered, state.has(PARTY, NOW.date())) == (True, True)
    assert [one.name for one in await store.read_stream(typed)][2:] == ["customer-erased"]


@pytest.mark.parametrize(
    ("until", "claimed", "named"),
    [
        (ENDED, False, ()),
        (ENDED, True, ()),
        (NOW.date().isoformat(), False, ()),
        ((NOW.date() + timedelta(1)).isoformat(), False, (PARTY,)),
    ],
)
async def test_of_a_number_that_is_not_the_customers_today_or_only_claimed_no_key_is_destroyed(
    service, register, destroy, store, handler, key_ring, bank, until, claimed, named
):
    await register(described(key_ring))
    await handler.handle(CUSTOMER, UnlinkReference(PARTY, date.fromisoformat(until)), by("wu"))
    if claimed:
        again = Reference("core", NUMBER, PARTY, claim=UUID(int=5))
        await handler.handle(CUSTOMER, LinkReference(again), by("lin"))
    outcome = await service.erase(CUSTOMER, by())
    [erased] = outcome.events
    assert erased.parties == named
    assert [one.account for one in erased.accounts] == (sorted((bank.own, bank.joint)) if named else [])
    await destroy(await published(store, CUSTOMER))
    assert key_ring.erased([CUSTOMER, PARTY]) == {CUSTOMER, *named}


@pytest.mark.parametrize("bank", ["open"], indirect=True)
async def test_unlinking_first_does_not_shorten_the_retention(service, register, handler, key_ring, bank):
    await register(described(key_ring))
    with pytest.raises(RetentionHolds, match="is open"):
        await service.erase(CUSTOMER, by())
    await handler.handle(CUSTOMER, UnlinkReference(PARTY, NOW.date()), by("wu"))
    with pytest.raises(RetentionHolds, match=f"until {NOW.year + 3}"):
        await service.erase(CUSTOMER, by())


@pytest.mark.requirement("M22")
@pytest.mark.parametrize("bank", ["open"], indirect=True)
async def test_a_number_that_is_claimed_again_does_not_shorten_the_retention(
    service, register, handler, key_ring, bank
):
    await register(described(key_ring))
    await handler.handle(CUSTOMER, UnlinkReference(PARTY, NOW.date()), by("wu"))
    again = Reference("core", NUMBER, PARTY, claim=UUID(int=5))
    await handler.handle(CUSTOMER, LinkReference(again), by("lin"))
    for withdrawn in (False, True):
        if withdrawn:
            await handler.handle(CUSTOMER, UnlinkReference(PARTY, NOW.date()), by("zhou"))
        with pytest.raises(RetentionHolds, match=f"until {NOW.year + 3}"):
            await service.erase(CUSTOMER, by())
        with pytest.raises(RetentionHolds, match=f"until {NOW.year + 3}"):
            await service.prepare_erasure(CUSTOMER, by("li"), 4 + withdrawn)


@pytest.mark.parametrize(
    ("closed_on", "until", "booked_through", "described_on", "unlinked_on", "held"),
    [
        (ENDED, None, None, ENDED, None, None),
        (None, ENDED, None, ENDED, None, None),
        (None, None, None, ENDED, None, "is open"),
        ("2999-01-01", None, None, ENDED, None, "is open"),
        ("2026-01-05", None, None, ENDED, None, "until 2036-01-05"),
        ("2015-12-31", None, None, ENDED, None, None),
        ("2016-01-07", None, None, ENDED, None, "until 2026-01-07"),
        ("2016-02-29", None, None, ENDED, None, "until 2026-03-01"),
        (ENDED, None, "2020-05-01", ENDED, None, "until 2030-05-01"),
        (ENDED, None, None, "2021-05-01", None, "until 2031-05-01"),
        (ENDED, None, "9991-05-01", ENDED, None, "until 9999-12-31"),
        ("2020-01-01", ENDED, None, ENDED, None, None),
        (None, None, "2025-05-01", "2025-05-01", "2026-01-06", "until 2036-01-06"),
        (None, None, "2025-05-01", "2025-05-01", "2010-01-01", None),
        (None, None, None, ENDED, "2026-01-07", "is open"),
    ],
)
def test_erasure_is_refused_within_ten_years_after_the_relation_ended(
    closed_on, until, booked_through, described_on, unlinked_on, held
):
    account = {
        "_id": "a",
        "closed_on": closed_on,
        "booked_through": booked_through,
        "holders": [{"party_id": "p", "until": until}, {"party_id": "other", "until": None}],
    }

    def kept(day="2026-01-06", retention=TEN_YEARS):
        described = [{"_id": "p", "described_at": f"{described_on}T10:00:00+00:00"}]
        parties, on = {"p": unlinked_on}, date.fromisoformat(day)
        return kept_until([account], described, parties, day=on, retention=retention, dated=dated)

    if held == "is open":
        with pytest.raises(RetentionHolds, match=held):
            kept()
    elif held is None:
        assert kept().until <= date(2026, 1, 6)
    else:
        until = date.fromisoformat(held.removeprefix("until "))
        assert kept().until == until > date(2026, 1, 6)
        assert kept(held.removeprefix("until ")).until == until


@pytest.mark.parametrize(
    ("ended_on", "days", "years", "contact_until", "until"),
    [
        ("2024-02-29", 1095, 10, date(2027, 2, 28), date(2034, 3, 1)),
        ("2024-02-28", 366, 10, date(2025, 2, 28), date(2034, 2, 28)),
        ("2023-02-28", 366, 1, date(2024, 2, 28), date(2024, 2, 28)),
        ("2025-12-31", 0, 10, date(2025, 12, 31), date(2035, 12, 31)),
        ("2025-12-31", 36525, 10, date(2035, 12, 31), date(2035, 12, 31)),
        ("2025-12-31", 1, 0, date(2025, 12, 31), date(2025, 12, 31)),
    ],
)
def test_each_purpose_has_its_period_and_none_is_longer_than_that_of_the_relation(
    ended_on, days, years, contact_until, until
):
    def found(clock):
        described = [{"_id": "p", "described_at": f"{ended_on}T{clock}+00:00"}]
        retention = Retention(days, years)
        return kept_until([], described, {"p": None}, day=date(2026, 1, 6), retention=retention, dated=dated)

    assert found("15:59:59") == Kept(contact_until, until), "the last second of the bank's day"
    assert found("16:00:00") > Kept(contact_until, until)


def test_a_customer_without_any_relation_is_kept_no_longer():
    day = date(2026, 1, 6)
    assert kept_until([], [], {}, day=day, retention=Retention(), dated=dated) == Kept(day, day)


def test_a_shorter_retention_than_the_law_says_is_for_development():
    assert CustomerSettings(environment="development", retention_years=0).retention_years == 0
    assert CustomerSettings(environment="production").retention_years == 10
    for environment in ("production", "staging"):
        with pytest.raises(ValidationError, match="the law says 10"):
            CustomerSettings(environment=environment, retention_years=9)


@pytest.mark.requirement("M22")
async def test_only_compliance_may_erase_over_http_and_with_a_reason(
    api, register, store, key_ring, tmp_path, postgres_url
):
    assert [role for role in ROLES if role in permissions.ROLES["erase_customer"]] == ["compliance"]
    await register(described(key_ring))
    path, headers = f"/customers/{CUSTOMER}/erase", key("e") | {"If-Match": '"2"'}
    refused = await api.post(path, json=WHY, headers=headers)
    assert refused.status_code == 403, "not even an administrator"
    settings = Settings(postgres_url=postgres_url, environment="development", data=tmp_path)
    token = development_token(settings, CLOCK.now(), subject="chen", roles=["compliance"])
    headers |= {"Authorization": f"Bearer {token}"}
    for nothing in ({}, {"reason": " "}, {"reason": ""}):
        assert (await api.post(path, json=nothing, headers=headers)).status_code == 422
    other = await api.post(path, json=WHY, headers=headers | {"If-Match": '"1"'})
    assert other.status_code == 412
    proposed = await api.post(path, json=WHY, headers=headers)
    assert (proposed.status_code, proposed.json()["status"]) == (202, "waiting"), proposed.text
    again = await api.post(path, json=WHY, headers=headers)
    assert (again.status_code, again.json()) == (202, proposed.json())
    other = await api.post(path, json={"reason": "another one"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert len(await store.read_stream(CUSTOMER)) == 2, "nothing is erased yet"

    where, approval = proposed.headers["Location"], WHY | {"digest": proposed.json()["digest"]}
    for subject, roles, status, code in (
        ("CHEN ", ["compliance"], 403, "second-person-needed"),
        ("wu", ["administrator"], 403, "forbidden"),
    ):
        token = development_token(settings, CLOCK.now(), subject=subject, roles=roles)
        headers = key("a") | {"Authorization": f"Bearer {token}"}
        refused = await api.post(f"{where}/approve", json=approval, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    token = development_token(settings, CLOCK.now(), subject="wu", roles=["compliance"])
    headers = key("a") | {"Authorization": f"Bearer {token}"}
    other = await api.post(f"{where}/approve", json=approval | {"digest": "0" * 64}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "digest-differs")
    for _ in range(2):
        done = await api.post(f"{where}/approve", json=approval, headers=headers)
        assert (done.status_code, done.json()["version"]) == (200, 3), done.text
    assert (await api.get(where, headers=headers)).json()["status"] == "approved"
    *_, last = await store.read_stream(CUSTOMER)
    metadata = catalogue().metadata_of(last)
    assert (metadata.actor, metadata.proposed_by) == ("wu", "chen")
    assert (metadata.reason, metadata.privilege) == (WHY["reason"], "high")


@pytest.mark.parametrize("step", ["withdraw", "reject"])
async def test_a_withdrawn_or_rejected_erasure_erases_nothing(
    api, register, store, key_ring, tmp_path, postgres_url, step
):
    await register(described(key_ring))
    settings = Settings(postgres_url=postgres_url, environment="development", data=tmp_path)

    def headers(subject, text):
        token = development_token(settings, CLOCK.now(), subject=subject, roles=["compliance"])
        return key(text) | {"If-Match": '"2"', "Authorization": f"Bearer {token}"}

    proposed = await api.post(f"/customers/{CUSTOMER}/erase", json=WHY, headers=headers("chen", "e"))
    where = proposed.headers["Location"]
    by_whom = {"withdraw": "chen", "reject": "wu"}
    [other] = {"chen", "wu"} - {by_whom[step]}
    assert (await api.post(f"{where}/{step}", json=WHY, headers=headers(other, "x"))).status_code == 403
    done = await api.post(f"{where}/{step}", json=WHY, headers=headers(by_whom[step], "d"))
    assert (done.status_code, done.json()["status"]) == (
        200,
        {"withdraw": "withdrawn", "reject": "rejected"}[step],
    )
    approval = WHY | {"digest": proposed.json()["digest"]}
    late = await api.post(f"{where}/approve", json=approval, headers=headers("wu", "a"))
    assert (late.status_code, late.json()["code"]) == (409, "proposal-settled")
    assert len(await store.read_stream(CUSTOMER)) == 2


async def test_a_process_forgets_opened_values_within_its_limit(
    store, key_ring, keys_url, tmp_path, register
):
    """The key is remembered for a minute, and what was opened with it for another one, in a process that is told nothing."""
    await register(described(key_ring))
    clock = ManualClock()
    ring = KeyRing(keys_url, FileKeyEncryption.at(tmp_path / "kek"), clock.monotonic)
    other = CommandHandler(customer_decider, store, catalogue(), ring)
    ring.keys_for([CUSTOMER])
    key_ring.erase([CUSTOMER, PARTY])
    clock.advance(KEYS_CACHED_SECONDS - 1)
    assert (await other.load(CUSTOMER)).state.values["name"] == "张伟", "the key was at hand"
    clock.advance(STATES_CACHED_SECONDS + EXPIRED_EVERY_SECONDS)
    expire_all()
    assert (len(other._states), len(ring._cache)) == (0, 0)
    assert (await other.load(CUSTOMER)).state.values["name"] == ERASED
    ring.close()


def test_a_view_shows_that_a_customer_is_erased_and_has_no_open_question_about_it(key_ring):
    bank = Bank(key_ring)
    bank.customer(CUSTOMER, "张伟", ("core", NUMBER))
    bank.tell(
        CUSTOMER, "customer.details_contradicted", source="core", party_id=str(PARTY), name="李娜", invalid=[]
    )
    bank.tell(CUSTOMER, "customer.erased", parties=[str(PARTY)], accounts=[])
    [document] = [one for (view, _), one in bank.folded.items() if view is customers]
    assert (document["questions"], document["contradictions"]) == ([], [])
    assert date.fromisoformat(document["erased_at"][:10]) >= START.date() - timedelta(days=1)
