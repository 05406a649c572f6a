"""Overrides of tiers: given, when, then; over months and timers; and over HTTP, by one person and by two."""

import json
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid5

import pytest
from chassis.write.deciding import Refusal
from customer.domain.commands import (
    AssessTier,
    Details,
    EndTierOverride,
    EraseCustomer,
    OverrideTier,
    RegisterCustomer,
)
from customer.domain.customer import customer_decider
from customer.domain.events import (
    CustomerContactErased,
    CustomerErased,
    CustomerRegistered,
    TierAssessed,
    TierOverridden,
    TierOverrideEnded,
)
from customer.domain.refusals import (
    CustomerIsErased,
    CustomerNotRegistered,
    TierOverrideChanged,
    TierOverrideNeedsApproval,
    TierOverrideTermInvalid,
)
from customer.domain.state import TierOverride
from customer.domain.tier_rules import TIERS
from customer.publishing import published
from customer.tier_overrides import OVERRIDE_DAYS_MAX
from customer.timers import override_timer
from customer.views.customers import project
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from tests.support.specification import Specification

from .test_api import api, key
from .test_lists import acting
from .test_publishing import stored
from .test_queries import NOW, bank, queries
from .test_tags_api import code_of_refusal, found, once, registered, shown
from .test_tiers import MASS, PRIVATE, WEALTH, Tiered, assessed
from .test_tiers_api import assessed as assess
from .test_tiers_api import by_timer, tier_of
from .test_timers import CALENDAR, LI, WANG, ZHANG
from .told import START, Told

__all__ = ["api", "bank", "once", "queries", "shown"]

customer = Specification(customer_decider)
registered_event = CustomerRegistered(name="张伟", kind="person", origin="staff")
TODAY, DUE, LATEST = date(2026, 1, 15), date(2026, 3, 31), date(2027, 1, 16)
WHY = {"reason": '大客户推荐，见"会议纪要"第3条'}
POTENTIAL = TierOverridden("potential", DUE)


def overriding(tier="potential", valid_until=DUE, **more):
    return OverrideTier(tier, valid_until, TODAY, LATEST, **more)


# given, when, then


@pytest.mark.requirement("R022")
def test_an_override_stands_from_the_day_after_today_to_the_end_of_its_longest_term_at_the_most():
    for day in (TODAY + timedelta(days=1), LATEST):
        customer.given(registered_event).when(overriding(valid_until=day)).then(
            TierOverridden("potential", day)
        )
    for day in (date(1900, 1, 1), TODAY, LATEST + timedelta(days=1), date(2199, 12, 31)):
        customer.given(registered_event).when(overriding(valid_until=day)).then_rejected(
            TierOverrideTermInvalid
        )


@pytest.mark.requirement("R022", "M06")
def test_an_override_is_replaced_by_another_and_the_same_again_changes_nothing():
    had = customer.given(registered_event, POTENTIAL)
    had.when(overriding()).then()
    had.when(overriding("mass")).then(TierOverridden("mass", DUE))
    had.when(overriding(valid_until=LATEST)).then(TierOverridden("potential", LATEST))


@pytest.mark.requirement("R022")
@pytest.mark.parametrize("tier", ["wealth", "private"])
def test_it_takes_two_persons_to_put_a_customer_into_a_privileged_tier(tier):
    before = customer.given(registered_event, assessed(tier, "met", WEALTH))
    before.when(overriding(tier)).then_rejected(TierOverrideNeedsApproval)
    before.when(overriding(tier, approved=True)).then(TierOverridden(tier, DUE))


@pytest.mark.requirement("R022", "M06")
def test_an_override_is_assessed_under_and_the_assessed_tier_stands_again_after_it():
    had = customer.given(registered_event, assessed("wealth", "met", WEALTH, month="2026-01"), POTENTIAL)
    had.when(AssessTier("2026-02", MASS, WEALTH)).then(assessed("wealth", "grace", MASS, WEALTH))
    had.when(EndTierOverride("withdrawn")).then(TierOverrideEnded("withdrawn", "wealth"))
    had.when(EndTierOverride("lapsed", DUE)).then(TierOverrideEnded("lapsed", "wealth"))
    customer.given(registered_event, POTENTIAL).when(EndTierOverride("withdrawn")).then(
        TierOverrideEnded("withdrawn", None)
    )


@pytest.mark.requirement("R022")
def test_a_timer_that_comes_late_ends_no_other_override_than_its_own():
    extended = customer.given(registered_event, POTENTIAL, TierOverridden("potential", LATEST))
    extended.when(EndTierOverride("lapsed", DUE)).then()
    ended = customer.given(registered_event, POTENTIAL, TierOverrideEnded("withdrawn", None))
    ended.when(EndTierOverride("lapsed", DUE)).then()
    ended.when(EndTierOverride("withdrawn")).then()
    ended.when(overriding()).then(POTENTIAL)


@pytest.mark.requirement("R022", "M06")
def test_what_was_approved_replaces_no_other_override_than_the_one_that_was_seen():
    had = customer.given(registered_event, POTENTIAL)
    had.when(overriding("mass", replaces=None)).then_rejected(TierOverrideChanged)
    had.when(overriding("mass", replaces=TierOverride("potential", LATEST))).then_rejected(
        TierOverrideChanged
    )
    had.when(overriding("mass", replaces=TierOverride("potential", DUE))).then(TierOverridden("mass", DUE))


def test_an_erased_customer_has_no_override_and_is_given_none():
    customer.given().when(overriding()).then_rejected(CustomerNotRegistered)
    for erased in (CustomerErased(parties=(), accounts=()), CustomerContactErased((), LATEST)):
        gone = customer.given(registered_event, POTENTIAL, erased)
        gone.when(overriding()).then_rejected(CustomerIsErased)
        gone.when(EndTierOverride("lapsed", DUE)).then_rejected(CustomerIsErased)
        state = customer_decider.fold([registered_event, POTENTIAL, erased], customer_decider.initial)
        assert state.tier_override is None


COMMANDS = st.one_of(
    st.builds(
        overriding,
        st.sampled_from(TIERS),
        st.sampled_from([DUE, LATEST, TODAY]),
        approved=st.booleans(),
        replaces=st.sampled_from([UNSET, None, TierOverride("potential", DUE)]),
    ),
    st.builds(EndTierOverride, st.just("withdrawn")),
    st.builds(EndTierOverride, st.just("lapsed"), st.sampled_from([DUE, LATEST])),
    st.builds(
        AssessTier,
        st.sampled_from([f"2026-{month:02d}" for month in range(1, 13)]),
        st.sampled_from([None, MASS, WEALTH, PRIVATE]),
        st.sampled_from([None, MASS, WEALTH, PRIVATE]),
    ),
)


@pytest.mark.requirement("R022", "M06")
@given(st.lists(COMMANDS, max_size=12))
def test_the_document_of_a_customer_has_the_tiers_of_its_events_whatever_was_commanded(commands):
    state, events = customer_decider.fold([registered_event]), [registered_event]
    for command in commands:
        try:
            decided = customer_decider.decide(command, state)
        except Refusal:
            continue
        assert len(decided) <= 1
        state, events = customer_decider.fold(decided, state), [*events, *decided]
    document = None
    for sequence, event in enumerate(events, 1):
        told = published(stored(event))
        at = START + timedelta(days=sequence)
        data = json.loads(told.body)
        document = project(
            None, document, Told(told.event.TYPE, ZHANG, sequence, data, sequence, recorded_at=at)
        )
    tier = document.get("tier") or {"tier": None, "assessed": None, "override": None}
    override = state.tier_override
    assert (tier["tier"], tier["assessed"]) == (state.tier_in_force, state.tier)
    found = tier["override"] and (tier["override"]["tier"], tier["override"]["valid_until"])
    assert found == (override and (override.tier, str(override.valid_until)))
    assert state.tier_in_force == (state.tier if override is None else override.tier)


# months and timers


class Overridden(Tiered):
    """A year with the timers of the assessments and of the overrides."""

    def __init__(self, start: datetime, average: int) -> None:
        super().__init__(start, average)
        self.loop = self.looping([self.assessing(), override_timer(self.customers, CALENDAR)])

    async def override(self, subject: UUID, tier, valid_until: date) -> None:
        on = CALENDAR.business_date(self.clock.now())
        latest = on + timedelta(days=OVERRIDE_DAYS_MAX)
        await self.do(subject, OverrideTier(tier, valid_until, on, latest, approved=True))


@pytest.mark.requirement("R022", "M06")
async def test_an_override_survives_the_automatic_runs_and_lapses_on_its_date():
    year = Overridden(datetime(2026, 1, 15, tzinfo=UTC), WEALTH)
    for subject, name in ((ZHANG, "张伟"), (LI, "李娜"), (WANG, "王芳")):
        await year.do(subject, RegisterCustomer(Details(name=name)))
        await year.override(subject, "private", date(2026, 4, 15))
    await year.pass_until(datetime(2026, 3, 10, tzinfo=UTC))
    assert [event.tier for event, _ in year.happened(ZHANG, TierAssessed)] == ["wealth", "wealth"]
    assert (await year.customers.load(ZHANG)).state.tier_override == TierOverride(
        "private", date(2026, 4, 15)
    )
    await year.override(LI, "mass", date(2026, 5, 2))  # it replaces the one that would have lapsed before
    await year.do(WANG, EraseCustomer(date(2026, 3, 10), (), ()))
    before = CALENDAR.business_date_begins(date(2026, 4, 15)) - timedelta(seconds=1)
    await year.pass_until(before)
    assert year.happened(ZHANG, TierOverrideEnded) == []
    await year.pass_until(datetime(2026, 12, 31, tzinfo=UTC))
    lapsed = TierOverrideEnded("lapsed", "wealth")
    for subject, day in ((ZHANG, date(2026, 4, 15)), (LI, date(2026, 5, 2))):
        assert year.happened(subject, TierOverrideEnded) == [(lapsed, CALENDAR.business_date_begins(day))]
        assert (await year.customers.load(subject)).state.tier_override is None
    assert year.happened(WANG, TierOverrideEnded) == []
    assert len(year.happened(ZHANG, TierAssessed)) == 11, "every month is assessed, under an override too"


async def test_overrides_whose_date_an_outage_passed_over_lapse_once_after_it():
    year = Overridden(datetime(2026, 1, 15, tzinfo=UTC), WEALTH)
    await year.do(ZHANG, RegisterCustomer(Details(name="张伟")))
    await year.override(ZHANG, "mass", date(2026, 2, 1))
    year.clock.advance(timedelta(days=90).total_seconds())
    back = year.clock.now()
    await year.pass_until(back + timedelta(days=1))
    [(_, at)] = year.happened(ZHANG, TierOverrideEnded)
    assert CALENDAR.business_date(at) == CALENDAR.business_date(back)


# over HTTP


async def version_of(api, customer):
    api.service.handler.forget(UUID(customer))
    return (await api.service.handler.load(UUID(customer))).version


async def overridden(api, customer, tier, valid_until, how="", headers=None, **more):
    headers = once() | {"If-Match": f'"{await version_of(api, customer)}"'} | (headers or {})
    body = WHY | ({} if how == "/end" else {"tier": tier, "valid_until": str(valid_until)}) | more
    return await api.post(f"/customers/{customer}/tier-override{how}", json=body, headers=headers)


def as_of(api, role, subject, post=None):
    return {"Authorization": f"Bearer {api.token_of(role, subject=subject, post=post)}"}


SOON = NOW.date() + timedelta(days=90)


@pytest.mark.requirement("R022", "M06", "R091")
async def test_an_override_is_shown_with_what_the_rules_give_and_asked_for_until_it_is_withdrawn(
    api, shown, store
):
    customer = await registered(api, "浦东")
    await assess(api, customer, "2025-12", 50_000_000)
    await shown()
    before = await tier_of(api, customer)
    assert (before["tier"], before["assessed"], before["override"]) == ("wealth", "wealth", None)
    done = await overridden(api, customer, "potential", SOON)
    assert done.status_code == 200, done.text
    *_, last = await store.read_stream(UUID(customer))
    meta = api.service.catalogue.metadata_of(last)
    assert (last.name, meta.actor, meta.reason, meta.privilege) == (
        "tier-overridden",
        "lin",
        WHY["reason"],
        "high",
    )
    await shown()
    now = await tier_of(api, customer)
    assert (now["tier"], now["assessed"], now["because"], now["month"]) == (
        "potential",
        "wealth",
        "met",
        "2025-12",
    )
    assert (now["override"]["tier"], now["override"]["valid_until"]) == ("potential", str(SOON))
    assert now["since"] == now["override"]["since"] > before["since"]
    assert await found(api, "tier is potential") == {customer}
    await assess(api, customer, "2026-01", 600_000_000, 50_000_000)
    await shown()
    under = await tier_of(api, customer)
    assert (under["tier"], under["assessed"], under["since"]) == ("potential", "private", now["since"])
    for _ in range(2):
        assert (await overridden(api, customer, None, None, "/end")).status_code == 200
    await shown()
    after = await tier_of(api, customer)
    assert (after["tier"], after["override"], after["month"]) == ("private", None, "2026-01")
    assert await found(api, "tier is potential") == set()
    assert [one.name for one in await store.read_stream(UUID(customer))].count("tier-override-ended") == 1


async def test_a_customer_without_an_assessment_has_the_tier_of_its_override_and_none_after_it(api, shown):
    customer = await registered(api)
    assert (await overridden(api, customer, "potential", SOON)).status_code == 200
    await shown()
    now = await tier_of(api, customer)
    assert (now["tier"], now["assessed"], now["month"], now["rules"]) == ("potential", None, None, None)
    await overridden(api, customer, None, None, "/end")
    await shown()
    assert await tier_of(api, customer) is None


async def test_what_cannot_be_an_override_is_refused_and_one_key_gives_one(api, store):
    customer = await registered(api)
    for wrong, status, code in (
        ({"tier": "gold"}, 422, "request-invalid"),
        ({"valid_until": str(NOW.date())}, 422, "tier-override-term-invalid"),
        (
            {"valid_until": str(NOW.date() + timedelta(days=OVERRIDE_DAYS_MAX + 1))},
            422,
            "tier-override-term-invalid",
        ),
        ({"valid_until": "2026-02-30"}, 422, "request-invalid"),
        ({"reason": "  "}, 422, "request-invalid"),
        ({"reason": "two\nlines"}, 422, "request-invalid"),
        ({"reason": "\0"}, 422, "request-invalid"),
        ({"tier": "private"}, 409, "tier-override-needs-approval"),
    ):
        asked = {"tier": "potential", "valid_until": SOON, **wrong}
        refused = await overridden(api, customer, **asked)
        assert await code_of_refusal(refused) == (status, code), wrong
    version = await version_of(api, customer)
    once_only = key("the-key") | {"If-Match": f'"{version}"'}
    first = await overridden(api, customer, "potential", SOON, headers=once_only)
    again = await overridden(api, customer, "potential", SOON, headers=once_only)
    assert (first.status_code, first.json()) == (200, again.json())
    other = await overridden(api, customer, "mass", SOON, headers=once_only)
    assert await code_of_refusal(other) == (422, "idempotency-key-reused")
    stale = await overridden(api, customer, "mass", SOON, headers={"If-Match": f'"{version}"'})
    assert await code_of_refusal(stale) == (412, "version-mismatch")
    assert [one.name for one in await store.read_stream(UUID(customer))].count("tier-overridden") == 1
    nobody = str(uuid5(UUID(int=1), "nobody"))
    for how in ("", "/propose", "/end"):
        gone = await overridden(api, nobody, "potential", SOON, how, headers={"If-Match": '"1"'})
        assert await code_of_refusal(gone) == (404, "customer-not-registered"), how


@pytest.mark.requirement("R082", "R083")
async def test_a_teller_and_another_branch_override_nothing(api):
    customer = await registered(api, "浦东")
    for how in ("", "/propose", "/end"):
        acting(api, "teller", "浦东/柜台")
        assert await code_of_refusal(await overridden(api, customer, "potential", SOON, how)) == (
            403,
            "forbidden",
        )
        acting(api, "relationship-manager", "徐汇/RM-1")
        other = await overridden(api, customer, "potential", SOON, how)
        assert await code_of_refusal(other) == (404, "customer-not-registered")
        acting(api, "relationship-manager", "浦东/RM-1")
        done = await overridden(api, customer, "potential", SOON, how)
        assert done.status_code in {200, 202}, done.text


async def proposed(api, customer, tier="private", valid_until=SOON, **more):
    answer = await overridden(api, customer, tier, valid_until, "/propose", **more)
    assert answer.status_code == 202, answer.text
    return answer


@pytest.mark.requirement("R022", "R091")
async def test_two_persons_put_a_customer_into_a_privileged_tier(api, store, shown):
    customer = await registered(api)
    again = key("proposed-once") | {"If-Match": f'"{await version_of(api, customer)}"'}
    waiting = await proposed(api, customer, headers=again)
    assert waiting.json() == (await proposed(api, customer, headers=again)).json()
    command, at = waiting.json()["command"], waiting.headers["Location"]
    assert command == {"tier": "private", "valid_until": str(SOON), "replaces": None}
    approving = {"digest": waiting.json()["digest"], "reason": "met her"}
    own = await api.post(f"{at}/approve", json=approving, headers=once() | as_of(api, "compliance", "LIN "))
    assert await code_of_refusal(own) == (403, "second-person-needed")
    other = await api.post(
        f"{at}/approve", json=approving, headers=once() | as_of(api, "administrator", "wu")
    )
    assert await code_of_refusal(other) == (403, "forbidden")
    assert "tier-overridden" not in [one.name for one in await store.read_stream(UUID(customer))]
    # What changes of the customer meanwhile, an assessment too, is in nobody's way.
    await assess(api, customer, "2025-12", 0)
    for _ in range(2):
        approved = await api.post(
            f"{at}/approve", json=approving, headers=key("a") | as_of(api, "compliance", "chen")
        )
        assert approved.status_code == 200, approved.text
    events = [one for one in await store.read_stream(UUID(customer)) if one.name == "tier-overridden"]
    meta = api.service.catalogue.metadata_of(*events)
    assert (meta.actor, meta.proposed_by, meta.reason, meta.privilege) == (
        "chen",
        "lin",
        WHY["reason"],
        "high",
    )
    await shown()
    now = await tier_of(api, customer)
    assert (now["tier"], now["assessed"]) == ("private", "mass")


@pytest.mark.requirement("R022")
async def test_an_approval_that_comes_after_another_override_or_after_the_date_overrides_nothing(api, store):
    customer = await registered(api)
    first, second = await proposed(api, customer), await proposed(api, customer, "wealth")
    tomorrow = await proposed(api, customer, valid_until=NOW.date() + timedelta(days=1))

    async def approve(waiting):
        body = {"digest": waiting.json()["digest"], "reason": "seen"}
        headers = once() | as_of(api, "compliance", "chen")
        return await api.post(f"{waiting.headers['Location']}/approve", json=body, headers=headers)

    assert (await approve(first)).status_code == 200
    for late in (second, tomorrow):
        assert await code_of_refusal(await approve(late)) == (409, "tier-override-changed")
    assert (await overridden(api, customer, None, None, "/end")).status_code == 200
    overrides = api.service.overrides
    today = overrides.today
    object.__setattr__(overrides, "today", lambda: today() + timedelta(days=1))
    assert await code_of_refusal(await approve(tomorrow)) == (422, "tier-override-term-invalid")
    assert [one.name for one in await store.read_stream(UUID(customer))].count("tier-overridden") == 1
    assert (await approve(second)).status_code == 200


async def test_a_version_that_nobody_saw_is_refused_and_not_an_error(api):
    customer = await registered(api)
    for how in ("", "/propose", "/end"):
        headers = {"If-Match": f'"{2**63 - 1}"'}
        refused = await overridden(api, customer, "potential", SOON, how, headers=headers)
        assert await code_of_refusal(refused) == (412, "version-mismatch"), how


@pytest.mark.requirement("M22")
async def test_an_erased_customer_shows_no_override(api, shown):
    customer = await registered(api)
    await overridden(api, customer, "potential", SOON)
    await api.service.handler.handle(
        UUID(customer), EraseCustomer((), (), NOW.date()), by_timer(customer, "erased")
    )
    await shown()
    assert await tier_of(api, customer) is None
    assert await found(api, "tier is potential") == set()
    for how in ("", "/propose", "/end"):
        refused = await overridden(api, customer, "potential", SOON, how)
        assert await code_of_refusal(refused) == (409, "customer-erased"), how
