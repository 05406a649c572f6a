"""Tags over HTTP: the dictionary, the tags of customers, conditions that ask for them, and bulk runs."""

import asyncio
import json
from functools import partial
from itertools import count, pairwise
from uuid import UUID, uuid5

import pytest
from chassis.bulk import Bulk, listed
from chassis.write.deciding import Approved, CommandContext
from chassis.write.handling import CommandHandler
from customer.application import TAGGED_ALONE_MAX
from customer.catalogue import catalogue
from customer.domain.commands import Details, EraseCustomer, RegisterCustomer
from customer.domain.tag import MERGED_MAX, NAME_CHARACTERS_MAX, TagNameTaken, code_of, stream_of, tag_decider
from customer.normalising import name as normalised_name
from customer.tags import Tags
from msgspec import structs

from .showing import show
from .test_api import CLOCK, WANG, api, key
from .test_bulk import finished, results
from .test_lists import acting
from .test_queries import NOW, bank, queries

__all__ = ["api", "bank", "queries"]

WHY = {"reason": "she said so at the counter"}
KEYS = count(1)
HOUSE, RICH, YOUNG = "房贷客户", "高净值潜力客户", "学生"


def once():
    return key(f"k{next(KEYS)}")


async def registered(api, branch=None, name="王芳"):
    body = WANG | {"references": [], "branch": branch, "name": name, "born_on": None}
    made = await api.post("/customers", json=body, headers=once())
    assert made.status_code == 201, made.text
    return made.json()["customer_id"]


async def defined(api, name):
    made = await api.post("/tags", json={"name": name}, headers=once())
    assert made.status_code == 201, made.text
    return made.json()["tag"]


async def tagged(api, customer, *add, remove=(), by="", **more):
    body = {"add": add, "remove": remove, **more}
    return await api.post(f"/customers/{customer}/tags{by}", json=body, headers=once())


async def changed(api, tag, what, body, version=None):
    call, path = (api.put, "name") if what == "name" else (api.post, what)
    version = version or (await api.service.tagging.tags.handler.load(stream_of(tag))).version
    headers = once() | {"If-Match": f'"{version}"'}
    return await call(f"/tags/{tag}/{path}", json=body, headers=headers)


@pytest.fixture
async def shown(api, store, mongo):
    """Shows in the views what is stored by now."""
    api.views_stand = True

    async def showing():
        await show(store, mongo, api.service.handler.keys, NOW.date)

    await showing()
    return showing


async def found(api, where):
    answer = await api.get("/customers/selection", params={"where": where, "limit": 200})
    assert answer.status_code == 200, answer.text
    return {one["customer_id"] for one in answer.json()["items"]}


async def code_of_refusal(answer):
    return answer.status_code, answer.json()["code"]


# the dictionary


async def test_a_command_to_a_customer_with_the_id_of_a_tag_is_404(api):
    other = stream_of(await defined(api, HOUSE))
    renamed = await api.put(
        f"/customers/{other}/name", json={"name": "x"}, headers=once() | {"If-Match": '"1"'}
    )
    assert await code_of_refusal(renamed) == (404, "subject-unknown")
    assert await code_of_refusal(await tagged(api, other, HOUSE)) == (404, "subject-unknown")


@pytest.mark.requirement("R025")
async def test_a_tag_is_defined_renamed_and_retired(api, shown):
    tag = await defined(api, HOUSE)
    await shown()
    one = await api.get(f"/tags/{tag}")
    assert (one.headers["ETag"], one.json()["name"], one.json()["kind"]) == ('"1"', HOUSE, "dictionary")
    renamed = await changed(api, tag, "name", {"name": "按揭客户"})
    assert (renamed.status_code, renamed.headers["ETag"]) == (200, '"2"'), renamed.text
    assert await code_of_refusal(await changed(api, tag, "name", {"name": "x"}, 1)) == (
        412,
        "version-mismatch",
    )
    assert (await changed(api, tag, "retire", WHY)).status_code == 200
    await shown()
    one = (await api.get(f"/tags/{tag}")).json()
    assert (one["name"], one["former"], one["status"]) == ("按揭客户", [HOUSE], "retired")
    assert [one["tag"] for one in (await api.get("/tags", params={"status": "retired"})).json()["items"]] == [
        tag
    ]
    assert (await api.get("/tags", params={"kind": "free"})).json()["items"] == []
    assert (await api.get(f"/tags/{code_of('none')}")).status_code == 404
    assert (await changed(api, code_of("none"), "retire", WHY, 1)).status_code == 404


async def test_a_tag_is_no_customer_whose_tags_have_a_history(api):
    tag = await defined(api, HOUSE)
    answer = await api.get(f"/customers/{stream_of(tag)}/tags/history")
    assert await code_of_refusal(answer) == (404, "subject-unknown")


async def test_a_free_tag_is_put_into_the_dictionary_and_a_retired_one_comes_back(api, shown):
    customer, tag = await registered(api), code_of(HOUSE)
    assert (await tagged(api, customer, HOUSE)).status_code == 200
    assert (await changed(api, tag, "accept", {})).status_code == 200
    assert (await changed(api, tag, "retire", WHY)).status_code == 200
    assert await code_of_refusal(await tagged(api, customer, HOUSE)) == (409, "tags-refused")
    assert (await changed(api, tag, "reinstate", {})).status_code == 422, "a reason is missing"
    acting(api, "relationship-manager")
    for what in ("accept", "reinstate"):
        assert (await changed(api, tag, what, WHY)).status_code == 403
    acting(api, "marketer")
    assert await code_of_refusal(await changed(api, tag, "reinstate", WHY, 1)) == (412, "version-mismatch")
    assert (await changed(api, tag, "reinstate", WHY)).headers["ETag"] == '"4"'
    acting(api, "administrator")
    assert (await tagged(api, customer, remove=[HOUSE])).status_code == 200
    assert (await tagged(api, customer, HOUSE)).status_code == 200
    await shown()
    one = (await api.get(f"/tags/{tag}")).json()
    assert (one["version"], one["kind"], one["status"]) == (4, "dictionary", "active")
    assert await found(api, f"tags has {HOUSE}") == {customer}


async def test_two_tags_never_share_a_name_also_a_former_one(api):
    tag, other = await defined(api, HOUSE), await defined(api, RICH)
    await changed(api, tag, "name", {"name": "ＶＩＰ 客户"})
    for taken in (HOUSE, f" {HOUSE} ", "vip  客户"):
        refused = await api.post("/tags", json={"name": taken}, headers=once())
        assert await code_of_refusal(refused) == (409, "tag-name-taken")
        assert tag in refused.json()["detail"]
        refused = await changed(api, other, "name", {"name": taken})
        assert await code_of_refusal(refused) == (409, "tag-name-taken")
    assert (await changed(api, tag, "name", {"name": HOUSE})).status_code == 200, "a former name of its own"


async def test_a_name_that_is_defined_twice_at_once_is_one_tag_and_the_other_caller_is_told_which(api):
    tag = await defined(api, RICH)
    first, second = await asyncio.gather(
        *(api.post("/tags", json={"name": HOUSE}, headers=once()) for _ in range(2))
    )
    won, lost = sorted((first, second), key=lambda one: one.status_code)
    assert (won.status_code, *await code_of_refusal(lost)) == (201, 409, "tag-name-taken")
    assert won.json()["tag"] in lost.json()["detail"]
    both = await asyncio.gather(
        api.post("/tags", json={"name": YOUNG}, headers=once()), changed(api, tag, "name", {"name": YOUNG})
    )
    assert sorted(one.status_code for one in both) in ([200, 409], [201, 409])


@pytest.mark.parametrize(
    "name",
    [
        *('含"引号"的', "ＶＩＰ", "长" * NAME_CHARACTERS_MAX, "O'Brien & <Söhne>", "\\", "❤️客户", "ВИП"),
        *("{$ne: 1}", "买买提・艾力", "or", "-1", "עברית", "\U0001d7d9 𠮷", "e\u0301té"),
    ],
)
async def test_a_tag_is_found_by_its_name_whatever_its_characters(api, shown, name):
    await defined(api, name)
    customer = await registered(api)
    assert (await tagged(api, customer, name)).status_code == 200
    await shown()
    quoted = json.dumps(name, ensure_ascii=False)
    assert await found(api, f"tags has {quoted}") == {customer}
    assert [one["name"] for one in (await api.get("/tags")).json()["items"]] == [normalised_name(name)]


@pytest.mark.parametrize(
    "name",
    [
        *("长" * (NAME_CHARACTERS_MAX + 1), "长" * 200, "有\0空", "换\n行", "零\u200b宽", " ", code_of("x")),
        *(code_of("x").upper(), code_of("x").replace("-", "－"), "\u3164", "右\u200f左", "\ufffe", "\u2028"),
        "\U0001d160" * NAME_CHARACTERS_MAX,  # three times as long in NFC
    ],
)
async def test_a_name_that_cannot_be_told_from_another_is_refused(api, name):
    assert (await api.post("/tags", json={"name": name}, headers=once())).status_code == 422
    used = await tagged(api, await registered(api), name)
    assert (used.status_code, used.json()["code"]) in {(422, "request-invalid"), (409, "tags-refused")}
    assert (await api.service.store.read_after(0, 10))[-1].name == "customer-registered"


async def test_a_name_with_a_surrogate_is_refused_and_no_condition_breaks_at_one(api, shown):
    for path, body in (("/tags", b'{"name": "\\ud800"}'), ("/tags", b'{"name": "\xff"}')):
        made = await api.post(path, content=body, headers=once() | {"Content-Type": "application/json"})
        assert 400 <= made.status_code < 500
    for where in (
        'tags has "\\ud800"',
        'tags has "\\u0000"',
        '{"op":"has","field":"tags","values":["\\ud800"]}',
    ):
        asked = await api.get("/customers/selection", params={"where": where})
        assert await code_of_refusal(asked) == (422, "condition-invalid")


async def test_of_two_processes_that_give_a_name_at_once_one_is_refused(api, store, key_ring):
    def process():
        return Tags(CommandHandler(tag_decider, store, catalogue(), key_ring), store)

    tag = await defined(api, RICH)
    context = partial(CommandContext, actor="lin", now=CLOCK.now())
    for number in range(5):
        name = f"{HOUSE} {number}"
        version = (await api.service.tagging.tags.handler.load(stream_of(tag))).version
        answers = await asyncio.gather(
            process().define(name, "dictionary", context(command_id=UUID(int=10 * number + 1))),
            process().define(name, "free", context(command_id=UUID(int=10 * number + 2))),
            process().rename(tag, name, context(command_id=UUID(int=10 * number + 3)), version),
            return_exceptions=True,
        )
        won = [one for one in answers if not isinstance(one, Exception)]
        lost = [one for one in answers if isinstance(one, TagNameTaken)]
        assert (len(won), len(lost)) == (1, 2), answers
        holder = won[0].events[0].code
        assert {one.tag for one in lost} == {holder}
        api.service.tagging.tags.handler.forget(stream_of(tag))


# merges


@pytest.mark.requirement("R025")
async def test_a_merged_tag_and_its_names_mean_the_other_over_any_number_of_merges(api, shown):
    house, rich, young = [await defined(api, name) for name in (HOUSE, RICH, YOUNG)]
    customer = await registered(api)
    await tagged(api, customer, HOUSE)
    assert (await changed(api, house, "merge", WHY | {"into": RICH})).status_code == 200
    assert (await changed(api, rich, "merge", WHY | {"into": young})).status_code == 200
    position = await api.service.store.head_position()
    for into in (HOUSE, RICH, YOUNG):
        for tag, code in ((young, "tag-merge-circular"), (house, "tag-merged")):
            refused = await changed(api, tag, "merge", WHY | {"into": into})
            assert await code_of_refusal(refused) == (409, code)
        assert (await changed(api, rich, "merge", WHY | {"into": into})).status_code == 200, "it is already"
    assert await api.service.store.head_position() == position
    await shown()
    for said in (HOUSE, RICH, YOUNG, house, rich, young):
        assert await found(api, f'tags has "{said}"') == {customer}
    assert await found(api, f'not tags has "{HOUSE}"') == set()
    told = (await api.get(f"/customers/{customer}")).json()["tags"]
    assert [(one["tag"], one["name"]) for one in told] == [(young, YOUNG)]
    before = await api.service.store.head_position()
    assert (await tagged(api, customer, RICH)).status_code == 200
    assert await api.service.store.head_position() == before, "who has the one has the other"
    assert (await tagged(api, customer, remove=[YOUNG])).status_code == 200
    assert (await api.service.handler.load(UUID(customer))).state.tags == {}
    assert (await tagged(api, customer, HOUSE)).status_code == 200
    assert (await api.service.handler.load(UUID(customer))).state.tags == {young: None}


@pytest.mark.parametrize("number", range(5))
async def test_merges_at_once_never_make_a_circle(api, number):
    tags = [await defined(api, f"{number} {name}") for name in (HOUSE, RICH, YOUNG)]
    answers = await asyncio.gather(
        *(changed(api, tag, "merge", WHY | {"into": tags[at - 1]}, 1) for at, tag in enumerate(tags))
    )
    assert {one.status_code for one in answers} <= {200, 409, 412}
    ends = [await api.service.tagging.tags.called(tag) for tag in tags]
    assert all(end is not None and end.into is None for end in ends)
    assert sum(one.status_code == 200 for one in answers) == len({*tags} - {end.code for end in ends})


async def test_the_longest_chain_of_merges_has_one_end(api, shown):
    """Each tag is merged into the next one, so the last takes over all before."""
    tags = [await defined(api, f"{HOUSE} {number}") for number in range(MERGED_MAX + 2)]
    customer = await registered(api)
    await tagged(api, customer, tags[0])
    for tag, into in pairwise(tags[:-1]):
        assert (await changed(api, tag, "merge", WHY | {"into": into})).status_code == 200
    last, beyond = tags[-2:]
    refused = await changed(api, last, "merge", WHY | {"into": beyond})
    assert await code_of_refusal(refused) == (409, "too-many-tags-merged")
    end = await api.service.tagging.tags.called(f"{HOUSE} 0")
    assert (end.code, len(end.merged)) == (last, MERGED_MAX)
    assert (await tagged(api, customer, tags[0])).json()["version"] == 2
    await shown()
    assert await found(api, f"tags has {tags[0]}") == {customer}
    assert [one["tag"] for one in (await api.get(f"/customers/{customer}")).json()["tags"]] == [last]


async def test_the_same_merge_again_answers_as_the_first_time(api):
    house, _ = await defined(api, HOUSE), await defined(api, RICH)
    headers = once() | {"If-Match": '"1"'}
    body = WHY | {"into": RICH}
    first = await api.post(f"/tags/{house}/merge", json=body, headers=headers)
    again = await api.post(f"/tags/{house}/merge", json=body, headers=headers)
    assert (first.status_code, first.json()) == (200, again.json())
    other = await api.post(f"/tags/{house}/merge", json=WHY | {"into": YOUNG}, headers=headers)
    assert await code_of_refusal(other) == (422, "idempotency-key-reused")


async def test_a_tag_that_is_added_while_it_is_merged_counts_as_the_other(api, shown):
    house, rich = await defined(api, HOUSE), await defined(api, RICH)
    customers = [await registered(api) for _ in range(3)]
    answers = await asyncio.gather(
        *(tagged(api, customer, HOUSE) for customer in customers),
        changed(api, house, "merge", WHY | {"into": RICH}),
    )
    assert {one.status_code for one in answers} == {200}
    await shown()
    assert await found(api, f"tags has {rich}") == {*customers}


# the tags of customers


@pytest.mark.requirement("R007", "R061")
async def test_several_tags_are_added_in_one_request_and_are_shown_with_their_origin(api, shown, store):
    house, customer = await defined(api, HOUSE), await registered(api)
    tags = [HOUSE, RICH, YOUNG, "a", "b"]
    headers = once()
    body = {"add": tags, "effective_at": "2026-01-01T09:00:00+08:00"} | WHY
    made = await api.post(f"/customers/{customer}/tags", json=body, headers=headers)
    assert made.status_code == 200, made.text
    *_, last = await store.read_stream(UUID(customer))
    assert last.version == 6
    assert (
        len(
            {
                api.service.catalogue.metadata_of(one).command_id
                for one in await store.read_stream(UUID(customer), 1)
            }
        )
        == 1
    )
    again = await api.post(f"/customers/{customer}/tags", json=body, headers=headers)
    assert again.json() == made.json()
    acting(api, "service")
    assert (await tagged(api, customer, HOUSE, by="/by-rule", rule="loan")).json()["version"] == 6
    await defined_by(api, "贷款")
    assert (await tagged(api, customer, "贷款", by="/by-rule", rule="loan")).json()["version"] == 7
    acting(api, "administrator")
    await shown()
    told = (await api.get(f"/customers/{customer}")).json()["tags"]
    assert [(one["name"], one["origin"], one["rule"]) for one in told] == [
        *((name, "manual", None) for name in tags),
        ("贷款", "system", "loan"),
    ]
    assert (told[0]["tag"], told[0]["since"]) == (house, told[1]["since"])
    five = await api.get("/customers/selection/count", params={"where": f"tags has all ({', '.join(tags)})"})
    assert (five.json()["count"], five.json()["sentence"]["zh"]) == (1, f"标签含全部{'、'.join(tags)}")
    free = (await api.get("/tags", params={"kind": "free"})).json()["items"]
    assert {one["name"] for one in free} == {RICH, YOUNG, "a", "b"}


async def defined_by(api, name):
    acting(api, "administrator")
    tag = await defined(api, name)
    acting(api, "service")
    return tag


async def test_all_or_none_of_the_tags_are_changed_and_the_refused_are_named(api):
    retired = await defined(api, HOUSE)
    await changed(api, retired, "retire", WHY)
    customer = await registered(api)
    refused = await tagged(api, customer, "new", HOUSE, remove=["nobody", "new"])
    assert await code_of_refusal(refused) == (409, "tags-refused")
    assert refused.json()["detail"] == f"'{HOUSE}': tag-retired, 'nobody': tag-unknown, 'new': tag-unknown"
    assert await api.service.tagging.tags.called("new") is None, "nothing is defined either"
    acting(api, "service")
    refused = await tagged(api, customer, "new", by="/by-rule", rule="loan")
    assert await code_of_refusal(refused) == (409, "tags-refused")
    acting(api, "administrator")
    for wrong in ({}, {"add": [], "remove": []}, {"add": ["x"] * 51}, {"add": ["x"], "other": 1}):
        answer = await api.post(f"/customers/{customer}/tags", json=wrong, headers=once())
        assert answer.status_code == 422, wrong


@pytest.mark.requirement("R007")
async def test_what_a_rule_added_staff_removes_with_a_reason_and_high_privilege_alone(api, store):
    await defined(api, HOUSE)
    customer = await registered(api)
    acting(api, "service")
    assert (await tagged(api, customer, HOUSE, by="/by-rule", rule="loan")).status_code == 200
    acting(api, "relationship-manager")
    assert await code_of_refusal(await tagged(api, customer, remove=[HOUSE])) == (409, "tag-of-another")
    body = {"remove": [HOUSE]}
    path = f"/customers/{customer}/tags/remove"
    assert (await api.post(path, json=body | WHY, headers=once())).status_code == 403
    acting(api, "compliance")
    assert (await api.post(path, json=body, headers=once())).status_code == 422
    assert (await api.post(path, json=body | WHY, headers=once())).status_code == 200
    *_, last = await store.read_stream(UUID(customer))
    meta = api.service.catalogue.metadata_of(last)
    assert (last.name, meta.privilege, meta.reason) == ("tag-removed", "high", WHY["reason"])
    acting(api, "administrator")
    await tagged(api, customer, HOUSE)
    acting(api, "service")
    refused = await tagged(api, customer, remove=[HOUSE], by="/by-rule", rule="loan")
    assert await code_of_refusal(refused) == (409, "tag-of-another")


@pytest.mark.requirement("R007")
async def test_the_history_of_tags_says_who_when_and_why_also_of_removed_ones(api, shown):
    customer = await registered(api)
    await tagged(api, customer, HOUSE, RICH, **WHY)
    await tagged(api, customer, remove=[HOUSE], reason="paid back")
    await shown()
    path = f"/customers/{customer}/tags/history"
    page = (await api.get(path, params={"limit": 2})).json()
    rest = (await api.get(path, params={"limit": 2, "after": page["next"]})).json()
    told = [*page["items"], *rest["items"]]
    assert [(one["change"], one["name"], one["reason"], one["actor"]) for one in told] == [
        ("added", HOUSE, WHY["reason"], "lin"),
        ("added", RICH, WHY["reason"], "lin"),
        ("removed", HOUSE, "paid back", "lin"),
    ]
    assert rest["next"] is None
    assert (await api.get(f"/customers/{UUID(int=9)}/tags/history")).status_code == 404


async def test_of_a_customer_out_of_scope_no_tag_is_changed_or_shown(api, shown):
    mine, other = await registered(api, "支行1"), await registered(api, "支行2", "李娜")
    await tagged(api, mine, HOUSE)
    await tagged(api, other, HOUSE)
    await shown()
    acting(api, "teller", "支行1/柜台")
    assert (await tagged(api, mine, YOUNG)).status_code == 200
    assert await code_of_refusal(await tagged(api, other, YOUNG)) == (404, "customer-not-registered")
    assert (await api.get(f"/customers/{other}/tags/history")).status_code == 404
    acting(api, "relationship-manager", "支行1/柜台")
    assert await found(api, f"tags has {HOUSE}") == {mine}
    for role, path in (("teller", "/tags"), ("operator", "/tags"), ("relationship-manager", "/tags")):
        acting(api, role, "支行1/柜台")
        assert (await api.post(path, json={"name": "x"}, headers=once())).status_code == 403
    acting(api, "marketer")
    assert (await api.post("/tags", json={"name": "x"}, headers=once())).status_code == 201
    assert (await tagged(api, mine, YOUNG)).status_code == 403


async def test_an_erased_customer_has_no_tags_and_is_in_no_condition(api, shown):
    customer, other = await registered(api), await registered(api)
    await tagged(api, customer, HOUSE)
    await tagged(api, other, HOUSE)
    context = CommandContext(actor="lin", now=CLOCK.now(), command_id=UUID(int=9))
    await api.service.handler.handle(UUID(customer), EraseCustomer((), (), CLOCK.now().date()), context)
    assert await code_of_refusal(await tagged(api, customer, YOUNG)) == (409, "customer-erased")
    assert await api.service.tagging.tags.called(YOUNG) is None, "a refused command defines no tag"
    await shown()
    assert await found(api, f"tags has {HOUSE}") == {other}
    assert (await api.get(f"/customers/{customer}")).json()["tags"] == []


# conditions


@pytest.mark.requirement("R025")
async def test_a_condition_keeps_its_members_when_a_tag_is_renamed(api, shown):
    tag, customer = await defined(api, HOUSE), await registered(api)
    await tagged(api, customer, HOUSE)
    await shown()
    assert await found(api, f"标签 has {HOUSE}") == {customer}
    await changed(api, tag, "name", {"name": "按揭客户"})
    await shown()
    for said in (HOUSE, "按揭客户", tag):
        assert await found(api, f"tags has {said}") == {customer}
        counted = await api.get("/customers/selection/count", params={"where": f"tags has {said}"})
        assert counted.json()["sentence"]["zh"] == "标签含按揭客户之一"
        why = await api.get(f"/customers/{customer}/selection", params={"where": f"tags has {said}"})
        assert (why.json()["holds"], "按揭客户" in why.json()["because"][0]["sentence"]["zh"]) == (True, True)
        funnel = await api.get("/customers/selection/funnel", params={"where": f"tags has {said}"})
        assert funnel.json()["steps"][0]["where"] == "tags has any 按揭客户"


@pytest.mark.requirement("R026")
async def test_conditions_ask_who_has_any_or_all_of_several_tags_and_who_has_not(api, shown):
    both, house, rich, none = [await registered(api) for _ in range(4)]
    await tagged(api, both, HOUSE, RICH)
    await tagged(api, house, HOUSE)
    await tagged(api, rich, RICH, YOUNG)
    await tagged(api, none, YOUNG)
    await tagged(api, none, remove=[YOUNG])
    await shown()
    for where, wanted in (
        (f"tags has {HOUSE}", {both, house}),
        (f"tags has any ({HOUSE}, {RICH})", {both, house, rich}),
        (f"tags has all ({HOUSE}, {RICH})", {both}),
        (f"not tags has {HOUSE}", {rich, none}),
        (f"not tags has any ({HOUSE}, {RICH})", {none}),
        (f"not tags has all ({HOUSE}, {RICH})", {house, rich, none}),
        (f"tags has {RICH} and not tags has {HOUSE}", {rich}),
        (f'{{"op":"has","field":"tags","values":["{YOUNG}"]}}', {rich}),
    ):
        assert await found(api, where) == wanted, where
    unknown = await api.get("/customers/selection", params={"where": "tags has 房贷客"})
    assert await code_of_refusal(unknown) == (422, "condition-invalid")
    assert unknown.json()["detail"] == f"tags has no value '房贷客'; did you mean '{HOUSE}'?"


# bulk runs


async def test_two_runs_at_once_and_a_merge_leave_each_customer_with_what_both_gave(
    api, store, handler, shown
):
    """Every item of both has a result, though they conflict, and the tag of one is merged into that of the other meanwhile."""
    house, rich = await defined(api, HOUSE), await defined(api, RICH)
    customers = [await registered(api) for _ in range(20)]
    runs = []
    for tag in (house, rich):
        body = WHY | {"add": [tag, f"{tag} too"], "customers": customers}
        made = await api.post("/customers/taggings", json=body, headers=once())
        assert made.status_code == 201, made.text
        await api.post(f"{made.headers['Location']}/start", json=WHY, headers=once())
        runs.append(UUID(made.json()["run_id"]))

    def process():
        kinds = api.service.bulk.kinds
        return Bulk(store, catalogue(), handler.keys, kinds, CLOCK, items_at_once=5)

    merge = changed(api, house, "merge", WHY | {"into": rich})
    *ends, merged = await asyncio.gather(*(process().run(run) for run in (*runs, *runs)), merge)
    assert (ends, merged.status_code) == (4 * ["finished"], 200)
    for run in runs:
        result = await api.service.bulk.shown(run)
        assert (result.done, result.refused) == (len(customers), 0)
    await shown()
    for said in (house, rich, f"{house} too", f"{rich} too"):
        assert await found(api, f'tags has "{said}"') == {*customers}


@pytest.mark.requirement("M33", "M46")
async def test_the_tags_of_many_are_changed_and_taken_back(api, shown):
    customers = [await registered(api) for _ in range(3)]
    await tagged(api, customers[0], HOUSE)
    await tagged(api, customers[1], YOUNG)
    nobody = str(uuid5(UUID(int=1), "nobody"))
    body = WHY | {"add": [HOUSE], "remove": [YOUNG], "customers": [*customers, nobody]}
    made = await api.post("/customers/taggings", json=body, headers=once())
    assert (made.status_code, made.json()["items"]) == (201, 4), made.text
    where = made.headers["Location"]
    preview = (await api.get(f"{where}/preview")).json()
    assert (preview["changed"], preview["unchanged"]) == (2, 1)
    assert preview["refused"] == [{"code": "customer-not-registered", "items": 1}]
    await api.post(f"{where}/start", json=WHY, headers=once())
    await finished(api, where)
    assert await results(api, where) == ["unchanged", "done", "done", "customer-not-registered"]
    await tagged(api, customers[2], "since then")
    undo = await api.post(f"{where}/undo", json=WHY, headers=once())
    await api.post(f"{undo.headers['Location']}/start", json=WHY, headers=once())
    await finished(api, undo.headers["Location"])
    assert await results(api, undo.headers["Location"]) == ["done", "version-mismatch"]
    state = (await api.service.handler.load(UUID(customers[1]))).state
    assert state.tags == {code_of(YOUNG): None}


async def test_a_run_over_a_condition_on_tags_lists_who_meets_it_and_words_it_with_names(api, shown):
    customers = [await registered(api) for _ in range(2)]
    tag = await defined(api, HOUSE)
    await tagged(api, customers[0], tag)
    await shown()
    body = WHY | {"add": [RICH], "where": f"tags has {tag}"}
    made = await api.post("/customers/taggings", json=body, headers=once())
    assert (made.status_code, made.json()["items"]) == (201, 1), made.text
    assert made.json()["selection"] == f"tags has any {HOUSE} as of {NOW.date()}"
    for wrong in ({"where": "tags has nobody"}, {"where": None}, {"customers": customers}, {"add": []}):
        assert (await api.post("/customers/taggings", json=body | wrong, headers=once())).status_code == 422


async def test_a_run_is_prepared_again_under_its_key_also_after_its_tags_were_merged_and_retired(api):
    house, rich, young = [await defined(api, name) for name in (HOUSE, RICH, YOUNG)]
    body = WHY | {"add": [HOUSE, YOUNG], "customers": [await registered(api)]}
    headers = once()
    made = await api.post("/customers/taggings", json=body, headers=headers)
    await changed(api, house, "merge", WHY | {"into": rich})
    await changed(api, young, "retire", WHY)
    again = await api.post("/customers/taggings", json=body, headers=headers)
    assert (again.status_code, again.json()) == (201, made.json())
    for other in (body | {"add": [HOUSE]}, body | {"add": ["another"]}, body | {"reason": "another"}):
        refused = await api.post("/customers/taggings", json=other, headers=headers)
        assert await code_of_refusal(refused) == (422, "idempotency-key-reused")
    assert await api.service.tagging.tags.called("another") is None


@pytest.mark.parametrize("what", ["retire", "merge"])
async def test_a_run_that_a_crash_ends_is_finished_where_its_tag_was_changed_meanwhile(
    api, store, handler, what
):
    """What was done before the crash is done, and is taken back by an undo."""
    house, rich = await defined(api, HOUSE), await defined(api, RICH)
    customer = UUID(await registered(api))
    await tagged(api, customer, RICH)
    context = partial(CommandContext, actor="lin", now=CLOCK.now())
    bulk = api.service.bulk
    prepared = await api.service.tagging.prepare(
        bulk,
        *([HOUSE], [RICH], listed([customer]), context(command_id=UUID(int=7))),
        asked="all",
        selection="",
    )
    await bulk.begin(prepared.run_id, context(command_id=UUID(int=8)))

    def crashes(at):
        if at == "before-advance":
            raise KeyboardInterrupt

    def process(reached=lambda _: None):
        return Bulk(store, catalogue(), handler.keys, bulk.kinds, CLOCK, reached=reached)

    with pytest.raises(KeyboardInterrupt):
        await process(crashes).run(prepared.run_id)
    await changed(api, house, what, WHY | ({"into": rich} if what == "merge" else {}))
    assert await process().run(prepared.run_id) == "finished"
    assert (await bulk.shown(prepared.run_id)).done == 1
    undo = await bulk.prepare_undo(prepared.run_id, context(command_id=UUID(int=9)))
    await bulk.begin(undo.run_id, context(command_id=UUID(int=10)))
    assert await process().run(undo.run_id) == "finished"
    handler.forget(customer)
    assert (await handler.load(customer)).state.tags == {rich: None}


async def test_more_customers_than_one_person_may_tag_are_tagged_by_two(api):
    nobody = [str(uuid5(UUID(int=1), f"nobody {number}")) for number in range(TAGGED_ALONE_MAX)]
    body = WHY | {"add": [HOUSE], "customers": [await registered(api), *nobody]}
    made = await api.post("/customers/taggings", json=body, headers=once())
    where = made.headers["Location"]
    alone = await api.post(f"{where}/start", json=WHY, headers=once())
    assert await code_of_refusal(alone) == (409, "bulk-needs-approval")
    waiting = await api.post(f"{where}/propose", json=WHY, headers=once())
    assert waiting.status_code == 202, waiting.text
    acting(api, "compliance", subject="chen")
    approving = {"digest": waiting.json()["digest"], "reason": "seen"}
    approved = await api.post(f"{waiting.headers['Location']}/approve", json=approving, headers=once())
    assert approved.status_code == 200, approved.text
    assert (await finished(api, where))["done"] == 1


async def test_a_run_over_a_thousand_customers_that_a_crash_ends_is_finished_and_taken_back(
    api, store, handler
):
    """The process ends between two parts, with items done whose results are not stored yet."""
    customers = [uuid5(UUID(int=2), str(number)) for number in range(1_000)]
    details = Details(name="王芳", phone="13911112222")
    for at, customer in enumerate(customers):
        context = CommandContext(actor="lin", now=CLOCK.now(), command_id=UUID(int=1_000 + at))
        await handler.handle(customer, RegisterCustomer(details), context)
    run = await api.service.tagging.prepare(
        api.service.bulk,
        [HOUSE],
        [],
        listed(customers),
        CommandContext(actor="lin", now=CLOCK.now(), command_id=UUID(int=7)),
        asked="all",
        selection="",
    )
    start = CommandContext(
        actor="lin", now=CLOCK.now(), command_id=UUID(int=8), approved=Approved(UUID(int=5), "wu")
    )
    await api.service.bulk.begin(run.run_id, start)

    def crashes(at):
        if at == "before-advance":
            raise KeyboardInterrupt

    def process(reached):
        kinds, keys = api.service.bulk.kinds, handler.keys
        return Bulk(store, catalogue(), keys, kinds, CLOCK, items_at_once=400, reached=reached)

    with pytest.raises(KeyboardInterrupt):
        await process(crashes).run(run.run_id)
    assert (await api.service.bulk.shown(run.run_id)).settled == 0
    assert (await handler.load(customers[0])).state.tags == {code_of(HOUSE): None}
    assert await process(lambda _: None).run(run.run_id) == "finished"
    shown = await api.service.bulk.shown(run.run_id)
    assert (shown.done, shown.unchanged, shown.refused) == (1_000, 0, 0)
    ends = await store.stream_heads(customers)
    assert set(ends.values()) == {2}, "each was tagged once"
    undoing = CommandContext(actor="lin", now=CLOCK.now(), command_id=UUID(int=11))
    undo = await api.service.bulk.prepare_undo(run.run_id, undoing)
    begin = structs.replace(start, command_id=UUID(int=12))
    await api.service.bulk.begin(undo.run_id, begin)
    assert await process(lambda _: None).run(undo.run_id) == "finished"
    for customer in customers[::100]:
        handler.forget(customer)
        assert (await handler.load(customer)).state.tags == {}
    assert (await api.service.bulk.shown(undo.run_id)).done == 1_000
