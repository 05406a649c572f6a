"""Extended profiles of persons: given, when, then; against a fold by hand over both clocks; and over HTTP."""

import asyncio
import json
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from chassis.privacy.keys import ERASED
from customer.domain.commands import EraseCustomer, ExtendProfile
from customer.domain.customer import customer_decider
from customer.domain.events import PROFILE_FIELDS, CustomerErased, CustomerRegistered, ProfileExtended
from customer.domain.profile import DICTIONARIES, ProfileChange, standing, stated_at
from customer.domain.refusals import (
    PROFILE_CHANGES_MAX,
    CustomerIsErased,
    CustomerNotRegistered,
    ProfileOfCompany,
    ProfileValueUnknown,
    TooManyProfileChanges,
)
from customer.domain.state import Customer
from customer.publishing import published
from customer.views import customers
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.support.specification import Specification

from .test_api import CLOCK, api, key
from .test_lists import acting
from .test_queries import NOW, bank, queries
from .test_tags_api import code_of_refusal, found, once, registered, shown
from .test_tiers_api import by_timer
from .told import Teller

__all__ = ["api", "bank", "queries", "shown"]

customer = Specification(customer_decider)
registered_event = CustomerRegistered(name="张伟", kind="person", origin="staff")
DAY = date(2026, 1, 15)
START = datetime(2026, 1, 1, tzinfo=UTC)


def at(hours):
    return START + timedelta(hours=hours)


def noting(since, *, stated=False, **changes):
    return ExtendProfile(changes, "counter", since, DAY, stated)


def noted(since, **changes):
    return ProfileExtended(since, "counter", tuple(changes), **changes)


# given, when, then


@pytest.mark.requirement("R016")
def test_a_profile_is_extended_field_by_field_with_codes_of_its_dictionaries():
    had = customer.given(registered_event, noted(at(1), occupation="teacher"))
    had.when(noting(at(2), occupation="retired", children="one")).then(
        noted(at(2), occupation="retired", children="one")
    )
    had.when(noting(at(2), occupation=None)).then(noted(at(2), occupation=None))
    had.when(noting(at(2), children="teacher")).then_rejected(ProfileValueUnknown)
    had.when(noting(at(2), occupation="Teacher")).then_rejected(ProfileValueUnknown)
    customer.given().when(noting(at(1), children="one")).then_rejected(CustomerNotRegistered)
    erased = customer.given(registered_event, CustomerErased((), ()))
    erased.when(noting(at(1), children="one")).then_rejected(CustomerIsErased)
    firm = customer.given(CustomerRegistered(name="三一", kind="company", origin="staff"))
    firm.when(noting(at(1), occupation="teacher")).then_rejected(ProfileOfCompany)


@pytest.mark.requirement("R016", "R060")
def test_what_stands_is_no_change_but_a_statement_about_another_time_is_one():
    had = customer.given(registered_event, noted(at(1), occupation="teacher"))
    had.when(noting(at(5), occupation="teacher")).then()
    had.when(noting(at(5), children=None)).then()
    dated = had.when(noting(at(5), stated=True, occupation="teacher"))
    dated.then(noted(at(5), occupation="teacher"))
    had.when(noting(at(1), stated=True, occupation="teacher")).then()
    had.when(noting(at(0), stated=True, occupation="teacher")).then(noted(at(0), occupation="teacher"))


@pytest.mark.requirement("R016")
def test_what_is_saved_now_stands_though_the_clock_of_this_process_is_behind():
    had = customer.given(registered_event, noted(at(3), occupation="teacher"))
    had.when(noting(at(2), occupation="retired")).then(noted(at(3), occupation="retired"))


@pytest.mark.requirement("R016")
def test_a_field_changes_a_bounded_number_of_times():
    codes = ["one", "two"]
    many = [noted(at(each), children=codes[each % 2]) for each in range(PROFILE_CHANGES_MAX)]
    had = customer.given(registered_event, *many)
    had.when(noting(at(10_000), children="none")).then_rejected(TooManyProfileChanges)
    had.when(noting(at(10_000), children="none", occupation="other")).then_rejected(TooManyProfileChanges)
    had.when(noting(at(10_000), occupation="other")).then(noted(at(10_000), occupation="other"))
    had.when(noting(at(3), stated=True, children="none")).then(noted(at(3), children="none"))


def test_no_two_codes_of_a_dictionary_have_one_name():
    assert tuple(DICTIONARIES) == PROFILE_FIELDS
    for entries in DICTIONARIES.values():
        names = [name for one in entries for name in {one.code, one.zh, one.en}]
        assert len(names) == len(set(names))


# both clocks

hours = st.integers(0, 12)


@st.composite
def statements(draw):
    """(recorded at, from when on, fields), in the order of recording; each is effective when it is recorded or before."""
    made, now = [], 0
    for _ in range(draw(st.integers(0, 9))):
        now += draw(st.integers(0, 3))
        changes = {
            field: draw(st.sampled_from([None, *(one.code for one in DICTIONARIES[field][:2])]))
            for field in draw(st.sets(st.sampled_from(PROFILE_FIELDS[:3]), min_size=1))
        }
        made.append((now, min(draw(hours), now), changes))
    return made


def by_hand(made, field, as_of, known_at):
    """The value of a field, hour by hour: of what was known of an hour, what was said last."""
    value = None
    for hour in range(as_of + 1):
        said = [
            changes[field]
            for now, since, changes in made
            if now <= known_at and since == hour and field in changes
        ]
        value = said[-1] if said else value
    return value


@pytest.mark.requirement("R016")
@given(statements(), hours, hours)
def test_a_field_at_a_time_as_known_at_another_is_what_a_fold_by_hand_says(made, as_of, known_at):
    state, changes = customer_decider.fold([registered_event]), []
    for sequence, (now, since, said) in enumerate(made):
        for event in customer_decider.decide(noting(at(since), stated=True, **said), state):
            state = customer_decider.evolve(state, event)
            changes += [
                ProfileChange(field, getattr(event, field), event.since, at(now), sequence)
                for field in event.changed
            ]
    stood = standing(changes, at(as_of), at(known_at))
    for field in PROFILE_FIELDS:
        found = stood[field].value if field in stood else None
        assert found == by_hand(made, field, as_of, known_at)
        assert stated_at(state.profile.get(field, ()), at(as_of)) == by_hand(made, field, as_of, 99)


@given(statements())
def test_what_is_saved_without_a_time_stands_whatever_the_clocks_say(made):
    state = Customer(origin="staff")
    for _, since, said in made:
        for event in customer_decider.decide(noting(at(since), **said), state):
            state = customer_decider.evolve(state, event)
        for field, value in said.items():
            assert stated_at(state.profile.get(field, ()), at(99)) == value


@st.composite
def instants(draw):
    """Changes of one field, recorded in this order, each from an instant on that may be of part of a second."""
    micros = draw(st.lists(st.sampled_from([0, 1, 500_000, 1_000_000]), max_size=6))
    return [START + timedelta(microseconds=each) for each in micros]


@pytest.mark.requirement("R016")
@given(instants())
def test_the_view_holds_what_stands_of_all_that_is_recorded(since):
    teller, subject = Teller(), UUID(int=7)
    document = customers.project(
        None, None, teller.tell(subject, "customer.registered", kind="person", origin="staff")
    )
    for one in since:
        written = msgspec.to_builtins(one)
        event = teller.tell(
            subject, "customer.profile_extended", since=written, changed=["children"], children="sealed"
        )
        document = customers.project(None, document, event)
    changes = [ProfileChange("children", "one", one, START, number) for number, one in enumerate(since, 2)]
    last = datetime.max.replace(tzinfo=UTC)
    stood = {field: change.sequence for field, change in standing(changes, last, last).items()}
    assert {field: one["sequence"] for field, one in document["profile"].items()} == stood


# over HTTP


async def version_of(api, one):
    return (await api.get(f"/customers/{one}/profile")).headers["ETag"]


async def extended(api, one, headers=None, version=None, **body):
    tag = version or await version_of(api, one)
    asked = {"channel": "counter"} | body
    return await api.patch(
        f"/customers/{one}/profile", json=asked, headers=(headers or once()) | {"If-Match": tag}
    )


async def profile(api, one, **params):
    answer = await api.get(f"/customers/{one}/profile", params=params)
    assert answer.status_code == 200, answer.text
    return {each["field"]: each for each in answer.json()["items"]}


def ago(**times):
    return (CLOCK.now() - timedelta(**times)).isoformat()


@pytest.mark.requirement("R016")
async def test_a_profile_is_extended_later_and_each_field_has_its_history(api, shown):
    one = await registered(api)
    await shown()
    before = (await api.get(f"/customers/{one}")).json()
    assert {each["value"] for each in (await profile(api, one)).values()} == {None}
    done = await extended(api, one, occupation="teacher", effective_at=ago(days=9), reason="她出示了工作证")
    assert (done.status_code, done.headers["ETag"]) == (200, '"2"'), done.text
    between = CLOCK.now().isoformat()
    late = await extended(api, one, channel="phone", occupation="student", effective_at=ago(days=12))
    assert late.status_code == 200, late.text
    retired = await extended(api, one, occupation="retired", family_structure="couple")
    assert retired.status_code == 200, retired.text
    assert (await extended(api, one, family_structure=None)).status_code == 200
    for as_of, known_at, value in (
        (None, None, "retired"),
        (None, between, "teacher"),
        (ago(days=1), None, "teacher"),
        (ago(days=10), None, "student"),
        (ago(days=10), between, None),
        (ago(days=13), None, None),
    ):
        asked = {name: moment for name, moment in (("at", as_of), ("known_at", known_at)) if moment}
        assert (await profile(api, one, **asked))["occupation"]["value"] == value, asked
    history = (await api.get(f"/customers/{one}/profile/occupation/history")).json()["items"]
    assert [(each["value"], each["channel"], each["sequence"]) for each in history] == [
        ("teacher", "counter", 2),
        ("student", "phone", 3),
        ("retired", "counter", 4),
    ]
    assert (history[0]["actor"], history[0]["reason"]) == ("lin", "她出示了工作证")
    families = (await api.get(f"/customers/{one}/profile/family_structure/history")).json()["items"]
    assert [each["value"] for each in families] == ["couple", None]
    await shown()
    unchanged = ("name", "phone", "born_on", "provenance", "invalid")
    after = (await api.get(f"/customers/{one}")).json()
    assert [after[each] for each in unchanged] == [before[each] for each in unchanged]
    ahead = await api.get(f"/customers/{one}/profile", params={"known_at": "2999-01-01T00:00:00Z"})
    assert await code_of_refusal(ahead) == (422, "request-invalid")


@pytest.mark.requirement("R016")
async def test_a_history_comes_in_pages(api):
    one = await registered(api)
    for children in ("none", "one", "two"):
        assert (await extended(api, one, children=children, education=None)).status_code == 200
    at = f"/customers/{one}/profile/children/history"
    first = (await api.get(at, params={"limit": 2})).json()
    rest = (await api.get(at, params={"limit": 2, "after": first["next"]})).json()
    assert [each["value"] for each in first["items"] + rest["items"]] == ["none", "one", "two"]
    assert rest["next"] is None
    assert (await api.get(at, params={"after": "x"})).json()["code"] == "cursor-invalid"
    assert (await api.get(f"/customers/{one}/profile/income/history")).status_code == 422


@pytest.mark.requirement("R060", "M46")
async def test_a_profile_that_is_saved_twice_is_one_event(api, store):
    one = await registered(api)
    asked = {"occupation": "teacher", "version": '"1"'}
    first, again = await asyncio.gather(*(extended(api, one, key("save"), **asked) for _ in range(2)))
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert first.json()["version"] == 2
    assert await code_of_refusal(await extended(api, one, key("save"), occupation="retired")) == (
        422,
        "idempotency-key-reused",
    )
    same = await extended(api, one, occupation="teacher")
    assert (same.status_code, same.headers["ETag"]) == (200, '"2"')
    assert len(await store.read_stream(UUID(one))) == 2


@pytest.mark.requirement("R016")
async def test_what_cannot_be_a_profile_is_refused(api, store):
    one = await registered(api)
    for wrong in (
        {},
        {"occupation": ""},
        {"occupation": "a\0b"},
        {"occupation": "teacher\n"},
        {"occupation": "教师"},
        {"occupation": 1},
        {"occupation": "teacher", "channel": None},
        {"occupation": "teacher", "channel": "feed"},
        {"occupation": "teacher", "income": "1"},
    ):
        answer = await extended(api, one, **wrong)
        assert await code_of_refusal(answer) == (422, "request-invalid"), wrong
    unknown = await extended(api, one, occupation="x" * 64)
    assert (await code_of_refusal(unknown), unknown.json()["detail"]) == (
        (422, "profile-value-unknown"),
        "occupation",
    )
    blind = await api.patch(
        f"/customers/{one}/profile", json={"occupation": "teacher", "channel": "phone"}, headers=once()
    )
    assert blind.status_code == 428
    nobody = await extended(api, UUID(int=9), version='"1"', occupation="teacher")
    assert await code_of_refusal(nobody) == (404, "customer-not-registered")
    assert await code_of_refusal(await api.get(f"/customers/{UUID(int=9)}/profile")) == (
        404,
        "customer-not-registered",
    )
    assert len(await store.read_stream(UUID(one))) == 1


@pytest.mark.requirement("R016", "R083")
async def test_a_profile_is_sealed_and_shown_to_who_may_see_it_alone(api, store):
    one = await registered(api, "徐汇")
    await extended(api, one, occupation="teacher", version='"1"')
    [event] = [each for each in await store.read_stream(UUID(one)) if each.name == "profile-extended"]
    assert b"teacher" not in event.body
    assert "teacher" not in published(event).body.decode()
    assert json.loads(published(event).body)["changed"] == ["occupation"]
    for role, post, value in (
        ("relationship-manager", "徐汇/rm", "teacher"),
        ("compliance", None, "teacher"),
        ("teller", "徐汇/柜台", "***"),
        ("auditor", None, "***"),
    ):
        acting(api, role, post)
        assert (await profile(api, one))["occupation"]["value"] == value, role
        assert (await profile(api, one))["children"]["value"] is None
        [told] = (await api.get(f"/customers/{one}/profile/occupation/history")).json()["items"]
        assert told["value"] == value, role
    acting(api, "relationship-manager", "浦东/rm")
    assert (await api.get(f"/customers/{one}/profile")).status_code == 404
    assert (await api.get(f"/customers/{one}/profile/occupation/history")).status_code == 404
    assert (await extended(api, one, version='"2"', occupation="other")).status_code == 404
    acting(api, "marketer")
    assert (await api.get(f"/customers/{one}/profile")).status_code == 403


@pytest.mark.requirement("R016", "M22")
async def test_an_erasure_leaves_no_value_of_a_history(api, key_ring):
    one = await registered(api)
    await extended(api, one, occupation="teacher", effective_at=ago(days=2))
    await extended(api, one, occupation="retired", effective_at=ago(days=1))
    await api.service.handler.handle(UUID(one), EraseCustomer((), (), NOW.date()), by_timer(one, "erased"))
    key_ring.erase([UUID(one)])
    assert (await profile(api, one))["occupation"]["value"] is None
    assert (await profile(api, one, at=ago(hours=30)))["occupation"]["value"] == ERASED
    told = (await api.get(f"/customers/{one}/profile/occupation/history")).json()["items"]
    assert [each["value"] for each in told] == [ERASED, ERASED, None]
    assert await code_of_refusal(await extended(api, one, occupation="other")) == (409, "customer-erased")


@pytest.mark.requirement("R016", "M22")
async def test_an_erasure_ends_what_is_known_though_the_clock_of_its_process_is_behind(api):
    one = await registered(api)
    await extended(api, one, occupation="teacher")
    behind = structs.replace(by_timer(one, "erased"), now=CLOCK.now() - timedelta(seconds=30))
    await api.service.handler.handle(UUID(one), EraseCustomer((), (), NOW.date()), behind)
    assert (await profile(api, one))["occupation"]["value"] is None


# conditions

TEACHERS = "职业 is 教师"


@pytest.mark.requirement("R017", "R079")
async def test_a_condition_selects_exactly_the_customers_of_an_occupation(api, shown):
    teacher, retired, nobody, former = [await registered(api) for _ in range(4)]
    await extended(api, teacher, occupation="teacher", children="one")
    await extended(api, retired, occupation="retired", children="one")
    await extended(api, former, occupation="teacher", effective_at=ago(days=2))
    await extended(api, former, occupation="student", effective_at=ago(days=9))
    await extended(api, former, children="two")
    await shown()
    for where, wanted in (
        (TEACHERS, {teacher, former}),
        ('occupation is "teacher"', {teacher, former}),
        ("occupation is (teacher, retired) and children is one", {teacher, retired}),
        ("not (occupation is teacher)", {retired, nobody}),
        ("occupation is student", set()),
        ("occupation is known", {teacher, retired, former}),
    ):
        assert await found(api, where) == wanted, where
    await extended(api, former, occupation="student")
    await extended(api, teacher, occupation=None)
    await shown()
    assert await found(api, TEACHERS) == set()
    assert await found(api, "occupation is student") == {former}
    by_json = json.dumps({"op": "is", "field": "occupation", "values": ["student"]})
    assert await found(api, by_json) == {former}


@pytest.mark.requirement("R017", "R081")
async def test_a_condition_on_a_profile_is_told_in_words_and_never_in_digests(api, shown):
    teacher, other = [await registered(api) for _ in range(2)]
    await extended(api, teacher, occupation="teacher")
    await shown()
    counted = (await api.get("/customers/selection/count", params={"where": TEACHERS})).json()
    assert (counted["count"], counted["sentence"]["zh"]) == (1, "职业为教师")
    for one, holds in ((teacher, True), (other, False)):
        told = await api.get(f"/customers/{one}/selection", params={"where": TEACHERS})
        [because] = told.json()["because"]
        assert (told.json()["holds"], because["holds"]) == (holds, holds)
        assert because["sentence"]["en"] == "occupation is teacher"
    empty = (
        await api.get("/customers/selection/funnel", params={"where": f"{TEACHERS} and 职业 is 学生"})
    ).json()
    assert "教师" in str(empty)
    assert "学生" in str(empty)
    digest = await api.service.queries.blind.digest("occupation", "teacher")
    assert digest not in str(empty)
    asked = await api.get("/customers/selection", params={"where": f'occupation is "{digest}"'})
    assert await code_of_refusal(asked) == (422, "condition-invalid")
    reason = {"reason": "teachers' day", "where": TEACHERS, "branch": "徐汇"}
    acting(api, "operator")
    run = await api.post("/customers/branch-assignments", json=reason, headers=once())
    assert await code_of_refusal(run) == (403, "field-not-permitted")
    acting(api, "administrator")
    run = await api.post("/customers/branch-assignments", json=reason, headers=once())
    assert digest not in run.text
    assert "occupation is teacher" in run.text


@pytest.mark.requirement("R017", "R083")
async def test_who_may_not_see_a_profile_may_not_ask_for_it(api, shown):
    await shown()
    for role, status in (
        ("relationship-manager", 200),
        ("administrator", 200),
        ("compliance", 200),
        ("analyst", 200),
        ("teller", 403),
    ):
        acting(api, role, "徐汇/1")
        answer = await api.get("/customers/selection", params={"where": TEACHERS})
        assert answer.status_code == status, role
    lists = (await api.get("/conditions/customer")).json()["lists"]
    [field] = [one for each in lists for one in each["fields"] if one["name"] == "occupation"]
    assert (field["data_class"], field["permitted"]) == ("personal", False)


@pytest.mark.requirement("R017", "M22")
async def test_the_facts_hold_digests_of_a_profile_and_none_of_who_is_erased(api, shown, mongo, key_ring):
    one, other = [await registered(api) for _ in range(2)]
    for each in (one, other):
        await extended(api, each, occupation="teacher")
    await shown()
    digest = await api.service.queries.blind.digest("occupation", "teacher")

    async def stored():
        views = ("customers_v1_customers", "customer_facts_v1_facts")
        return {name: {each["_id"]: each for each in await mongo.find(name, {})} for name in views}

    before = await stored()
    assert "teacher" not in str(before)
    facts = before["customer_facts_v1_facts"]
    assert [facts[each]["blind"]["occupation"] for each in (one, other)] == [digest, digest]
    await api.service.handler.handle(UUID(one), EraseCustomer((), (), NOW.date()), by_timer(one, "erased"))
    key_ring.erase([UUID(one)])
    await shown()
    after = await stored()
    assert one not in after["customer_facts_v1_facts"]
    assert after["customers_v1_customers"][one]["profile"] == {}
    assert await found(api, TEACHERS) == {other}
    await shown()
    assert await stored() == after, "a rebuild gives the same"


async def test_the_codes_of_all_fields_are_listed(api):
    told = (await api.get("/profile-fields")).json()["items"]
    assert {each["field"] for each in told} == set(PROFILE_FIELDS)
    assert {"field": "occupation", "code": "teacher", "zh": "教师", "en": "teacher"}.items() <= next(
        each for each in told if each["code"] == "teacher"
    ).items()
