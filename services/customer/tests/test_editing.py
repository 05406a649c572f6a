"""Edits of customers as people make them: saved twice, saved over somebody else's change, and merged."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from customer.domain.commands import AssignBranch, EditDetails, EraseCustomer
from customer.domain.customer import customer_decider
from customer.domain.events import (
    ContactDetailsChanged,
    CustomerErased,
    CustomerRegistered,
    CustomerRenamed,
    IdentityDetailsCorrected,
)
from customer.domain.refusals import CustomerIsErased, CustomerNotRegistered
from customer.editing import compared
from hypothesis import given
from hypothesis import strategies as st

from tests.support.specification import Specification

from .test_api import CLOCK, api, key
from .test_lists import acting
from .test_queries import NOW, bank, queries
from .test_tags_api import code_of_refusal, once, registered, shown
from .test_tiers_api import by_timer

__all__ = ["api", "bank", "queries", "shown"]

customer = Specification(customer_decider)
registered_event = CustomerRegistered(
    name="张伟", kind="person", origin="staff", phone="+8613800001234", email="z@qq.com"
)
NUMBER = "11010519491231002X"


# given, when, then


@pytest.mark.requirement("R060")
def test_an_edit_changes_what_it_names_and_leaves_the_rest():
    had = customer.given(registered_event)
    had.when(EditDetails({"phone": None})).then(
        ContactDetailsChanged(phone=None, email="z@qq.com", address=None, changed=("phone",))
    )
    had.when(EditDetails({"name": "张三", "born_on": "1990-01-31"})).then(
        CustomerRenamed("张三"),
        IdentityDetailsCorrected(born_on="1990-01-31", identity_number=None, changed=("born_on",)),
    )
    had.when(EditDetails({"name": "张伟", "phone": "+8613800001234", "address": None})).then()
    customer.given().when(EditDetails({"name": "张三"})).then_rejected(CustomerNotRegistered)
    erased = customer.given(registered_event, CustomerErased((), ()))
    erased.when(EditDetails({"name": "张三"})).then_rejected(CustomerIsErased)


values = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([None, "1", "2"]))


@pytest.mark.requirement("R060", "M46")
@given(values, values, values)
def test_what_is_merged_keeps_every_change_of_the_other_and_mine_where_the_other_made_none(
    base, theirs, mine
):
    fields = compared(base, theirs, mine)
    merged = {**theirs} | {one.field: one.mine for one in fields if one.edited and not one.conflict}
    for field in "abcd":
        changed, edited = base.get(field) != theirs.get(field), field in mine
        assert merged.get(field) == (mine[field] if edited and not changed else theirs.get(field))
    assert {one.field for one in fields} == mine.keys() | {
        field for field in "abcd" if base.get(field) != theirs.get(field)
    }


# over HTTP


async def edited(api, one, version, headers=None, at="details", **body):
    tag = version if isinstance(version, str) else f'"{version}"'
    sent = (headers or once()) | {"If-Match": tag}
    return await api.patch(f"/customers/{one}/{at}", json=body, headers=sent)


def fields_of(answer):
    assert answer.status_code == 412, answer.text
    return {one["field"]: one for one in answer.json()["fields"]}


async def names(store, one):
    return [each.name for each in await store.read_stream(UUID(one))]


@pytest.mark.requirement("R060", "M46")
async def test_saving_over_the_change_of_somebody_else_shows_both_and_a_proposal_that_can_be_sent(api, shown):
    one = await registered(api)
    acting(api, "relationship-manager", subject="chen")
    theirs = await edited(api, one, 1, phone="13700001111", address="北京市海淀区中关村大街1号")
    assert (theirs.status_code, theirs.headers["ETag"]) == (200, '"2"'), theirs.text
    acting(api, "relationship-manager", subject="lin")
    body = {"phone": "13600002222", "email": "wang@qq.com", "name": "王芳芳", "reason": "her card"}
    refused = await edited(api, one, 1, key("mine"), **body)
    assert await code_of_refusal(refused) == (412, "version-mismatch")
    found = fields_of(refused)
    assert {name for name, each in found.items() if each["conflict"]} == {"phone"}
    assert {name for name, each in found.items() if each["edited"]} == {"phone", "email", "name"}
    assert (found["phone"]["base"], found["phone"]["theirs"], found["phone"]["mine"]) == (
        "139****2222",
        "137****1111",
        "+8613600002222",
    )
    assert found["address"]["theirs"] == "北京市海淀区***"
    assert "13700001111" not in refused.text
    told = refused.json()
    assert told["proposal"] == {"email": "wang@qq.com", "name": "王芳芳", "reason": "her card"}
    merged = await edited(api, one, told["etag"], key("mine"), **told["proposal"])
    assert merged.status_code == 200, merged.text
    await shown()
    now = (await api.get(f"/customers/{one}")).json()
    assert [now[name] for name in ("phone", "email", "name")] == ["137****1111", "w***@qq.com", "王*"]
    all_of_it = await edited(api, one, 1, phone="13600003333")
    assert all_of_it.json()["proposal"] is None


@pytest.mark.requirement("R060", "M46")
async def test_two_saves_of_the_same_at_once_are_one_event(api, store):
    one = await registered(api)
    body = {"phone": "13700001111", "name": "王芳芳"}
    answers = await asyncio.gather(*(edited(api, one, 1, **body) for _ in range(3)))
    assert {(each.status_code, each.headers["ETag"]) for each in answers} == {(200, '"3"')}
    assert await names(store, one) == ["customer-registered", "customer-renamed", "contact-details-changed"]
    again = await edited(api, one, 1, phone="137 0000 1111")
    assert (again.status_code, again.headers["ETag"]) == (200, '"3"')
    assert (await edited(api, one, 1, phone="13700001111", email="w@qq.com")).status_code == 412
    noted = {"channel": "counter", "occupation": "teacher"}
    answers = await asyncio.gather(*(edited(api, one, 3, at="profile", **noted) for _ in range(3)))
    assert {(each.status_code, each.headers["ETag"]) for each in answers} == {(200, '"4"')}


@pytest.mark.requirement("R060")
async def test_a_refusal_does_not_tell_whether_a_guess_of_a_masked_value_is_right(api, store):
    one = await registered(api)
    acting(api, "relationship-manager", subject="chen")
    assert (await edited(api, one, 1, phone="13700001111")).status_code == 200
    acting(api, "relationship-manager", subject="lin")
    told = []
    for guess in ("13700001111", "13700001112"):
        answer = await edited(api, one, 1, phone=guess)
        fields = fields_of(answer)
        assert fields["phone"].pop("mine") == f"+86{guess}"
        told.append((fields, answer.json()["proposal"]))
    assert told[0] == told[1]
    for guess in ("王芳", "王方"):  # which nobody has changed
        assert (await edited(api, one, 1, name=guess)).json()["proposal"] == {"name": guess}
    assert len(await names(store, one)) == 2


async def test_another_branch_is_no_part_of_the_difference_of_an_edit(api):
    one = await registered(api)
    command = AssignBranch("浦东支行")
    await api.service.handler.handle(UUID(one), command, by_timer(one, "assigned"))
    refused = await edited(api, one, 1, email="a@qq.com")
    assert fields_of(refused).keys() == {"email"}
    assert "浦东" not in refused.text


@pytest.mark.requirement("R060", "M46")
async def test_replacing_a_group_of_details_is_refused_with_the_same_difference(api):
    one = await registered(api)
    assert (await edited(api, one, 1, email="a@qq.com")).status_code == 200
    acting(api, "relationship-manager", subject="chen")
    headers = once() | {"If-Match": '"1"'}
    at = f"/customers/{one}/contact-details"
    refused = await api.put(at, json={"phone": "13700001111", "email": "b@qq.com"}, headers=headers)
    assert {name for name, each in fields_of(refused).items() if each["conflict"]} == {"email"}
    told = refused.json()
    assert told["proposal"] == {"phone": "+8613700001111", "address": None}
    assert (await edited(api, one, told["etag"], **told["proposal"])).status_code == 200
    for path, body in (("name", {"name": "王"}), ("identity-details", {"born_on": "1990-01-01"})):
        headers = once() | {"If-Match": '"2"'}
        refused = await api.put(f"/customers/{one}/{path}", json=body, headers=headers)
        assert refused.json()["proposal"].items() >= body.items()
    twice = [
        await api.put(f"/customers/{one}/name", json={"name": "王"}, headers=once() | {"If-Match": '"3"'})
        for _ in range(2)
    ]
    assert [each.headers["ETag"] for each in twice] == ['"4"', '"4"']


@pytest.mark.requirement("R016", "R060", "M46")
async def test_a_profile_that_somebody_else_has_extended_is_merged_as_each_may_see_it(api):
    one = await registered(api, "徐汇")
    noted = {"channel": "counter", "occupation": "teacher", "children": "one"}
    first = await edited(api, one, 1, at="profile", **noted)
    assert first.status_code == 200, first.text
    mine = {"channel": "phone", "occupation": "retired", "education": "master", "reason": "she called"}
    for role, base, theirs in (("relationship-manager", None, "teacher"), ("teller", None, "***")):
        acting(api, role, "徐汇/1", subject="chen")
        refused = await edited(api, one, 1, at="profile", **mine)
        found = fields_of(refused)
        assert (found["occupation"]["base"], found["occupation"]["theirs"]) == (base, theirs)
        assert (found["children"]["edited"], found["children"]["conflict"]) == (False, False)
        told = refused.json()
        assert told["proposal"] == {"channel": "phone", "education": "master", "reason": "she called"}
    assert (await edited(api, one, told["etag"], at="profile", **told["proposal"])).status_code == 200
    earlier = (CLOCK.now() - timedelta(days=9)).isoformat()
    dated = await edited(
        api, one, 1, at="profile", channel="phone", occupation="student", effective_at=earlier
    )
    assert dated.json()["proposal"]["occupation"] == "student", "nobody has said what it was then"
    assert (await edited(api, one, dated.json()["etag"], at="profile", **dated.json()["proposal"])).is_success


@pytest.mark.requirement("R060")
async def test_a_version_that_never_was_and_an_erased_customer_are_refused_without_a_difference(
    api, key_ring
):
    one = await registered(api)
    assert (await edited(api, one, 1, email="a@qq.com")).status_code == 200
    for version in (0, 3, 10**17, "*", 'W/"1"', '"x"'):
        refused = await edited(api, one, version, email="b@qq.com")
        assert await code_of_refusal(refused) == (412, "version-mismatch"), version
        assert "fields" not in refused.json()
    nobody = await edited(api, UUID(int=9), 1, email="b@qq.com")
    assert await code_of_refusal(nobody) == (404, "customer-not-registered")
    await api.service.handler.handle(UUID(one), EraseCustomer((), (), NOW.date()), by_timer(one, "erased"))
    key_ring.erase([UUID(one)])
    refused = await edited(api, one, 1, email="b@qq.com")
    assert await code_of_refusal(refused) == (412, "version-mismatch")
    assert "fields" not in refused.json()
    assert await code_of_refusal(await edited(api, one, 3, email="b@qq.com")) == (409, "customer-erased")


@pytest.mark.requirement("R060")
async def test_what_cannot_be_an_edit_is_refused(api, store):
    one = await registered(api)
    for wrong in (
        {},
        {"reason": "none"},
        {"name": None},
        {"name": "a\0b"},
        {"phone": "1\n"},
        {"phone": 1},
        {"branch": "徐汇"},
        {"born_on": "31.1.1990"},
    ):
        assert await code_of_refusal(await edited(api, one, 1, **wrong)) == (422, "request-invalid"), wrong
    for wrong, field in (
        ({"phone": "1"}, "phone"),
        ({"email": '"@'}, "email"),
        ({"identity_number": NUMBER[:-1] + "1"}, "identity_number"),
        ({"identity_number": NUMBER, "born_on": "1990-01-31"}, "born_on"),
    ):
        refused = await edited(api, one, 1, **wrong)
        assert await code_of_refusal(refused) == (422, "detail-invalid"), wrong
        assert refused.json()["detail"].startswith(f"{field}:")
    assert await names(store, one) == ["customer-registered"]


@pytest.mark.requirement("R060")
async def test_an_identity_number_that_is_edited_names_the_day_of_birth_and_is_one_customers(api, shown):
    one, other = await registered(api), await registered(api)
    assert (await edited(api, one, 1, identity_number=NUMBER)).status_code == 200
    await shown()
    assert (await api.get(f"/customers/{one}")).json()["born_on"] == "1949-**-**"
    for guess in (
        "1990-01-31",
        "1949-12-31",
        None,
    ):  # a refusal of the wrong ones alone would tell the right one
        later = await edited(api, one, 2, born_on=guess)
        assert await code_of_refusal(later) == (422, "detail-invalid"), guess
    taken = await edited(api, other, 1, identity_number=NUMBER)
    assert await code_of_refusal(taken) == (409, "identity-number-known")
    assert (await edited(api, one, 2, identity_number=None)).status_code == 200
    assert (await edited(api, other, 1, identity_number=NUMBER)).status_code == 200


@pytest.mark.requirement("R060")
async def test_an_identity_number_brings_its_day_of_birth_so_that_no_refusal_tells_the_day_that_stood(
    api, store
):
    one, other = await registered(api), await registered(api)
    for customer, day in ((one, "1949-12-31"), (other, "1990-01-31")):
        assert (await edited(api, customer, 1, born_on=day)).status_code == 200
    for customer in (one, other):
        done = await edited(api, customer, 2, identity_number=NUMBER)
        assert (done.status_code, done.headers["ETag"]) == (200, '"3"'), done.text
        assert (await edited(api, customer, 3, identity_number=None)).status_code == 200
    state = (await api.service.handler.load(UUID(other))).state
    assert state.values["born_on"] == "1949-12-31"


@pytest.mark.requirement("R060", "M46")
async def test_a_day_of_birth_and_an_identity_number_are_proposed_together_or_not_at_all(api):
    one = await registered(api)
    acting(api, "relationship-manager", subject="chen")
    assert (await edited(api, one, 1, born_on="1990-01-31")).status_code == 200
    acting(api, "relationship-manager", subject="lin")
    refused = await edited(api, one, 1, identity_number=NUMBER, email="a@qq.com")
    assert fields_of(refused)["born_on"]["conflict"]
    assert refused.json()["proposal"] == {"email": "a@qq.com"}


@pytest.mark.requirement("R016", "R060")
async def test_a_value_that_was_saved_for_an_earlier_time_is_not_taken_for_one_of_a_later_time(api, store):
    one = await registered(api)

    async def noted(days):
        when = (CLOCK.now() - timedelta(days=days)).isoformat()
        body = {"channel": "counter", "occupation": "teacher", "effective_at": when}
        return await edited(api, one, 1, at="profile", **body), body

    assert (await noted(9))[0].status_code == 200
    refused, body = await noted(5)
    assert fields_of(refused)["occupation"]["conflict"]
    assert (await edited(api, one, 2, at="profile", **body)).headers["ETag"] == '"3"'
    assert len(await names(store, one)) == 3


@pytest.mark.requirement("R060")
async def test_after_an_edit_the_new_phone_number_finds_the_customer_and_the_old_one_does_not(api, shown):
    one = await registered(api)
    await edited(api, one, 1, phone="13700001111")
    await shown()

    async def search(value):
        body = {"field": "phone", "value": value, "reason": "she calls"}
        answer = await api.post("/customers/search", json=body, headers=once())
        return [each["customer_id"] for each in answer.json()["items"]]

    assert await search("137 0000 1111") == [one]
    assert await search("13911112222") == []
    await edited(api, one, 2, phone=None)
    await shown()
    assert await search("13700001111") == []
