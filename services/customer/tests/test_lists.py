"""The lists of customers over HTTP: what they are asked, who may ask it, and which customers are in a caller's scope."""

import json
from datetime import date, datetime, time
from functools import partial
from itertools import pairwise
from uuid import UUID

import pytest
from chassis.conditions import from_text
from chassis.conditions.language import CONDITION, IsAmong, Not
from chassis.lists import Scope, question
from chassis.privacy.tokens import Caller
from chassis.read.deriving import MongoInputs
from chassis.read.mongo import MongoDocuments
from chassis.read.summing import Summed, Summing, bucket_id
from chassis.web import Paging, cursor
from chassis.web.paging import CURSOR_CHARACTERS_MAX
from chassis.write.deciding import CommandContext
from chassis.write.handling import CommandHandler
from customer.branches import SUMS, page_of, shows
from customer.catalogue import catalogue
from customer.derived import DERIVED
from customer.domain.commands import AssignBranch, Details, RegisterCustomer
from customer.domain.customer import customer_decider
from customer.facts import AMOUNTS
from customer.lists import CUSTOMERS_LIST, FACTS_LIST, scope_of
from customer.queries import MovementsWanted, Queries
from customer.settings import CustomerSettings
from customer.views import VIEWS
from jsonschema import Draft202012Validator
from msgspec import structs

from tests.support.specification import ManualClock

from .test_api import api, key
from .test_queries import IDS, LI, NOW, ZHANG, Live, bank, queries, still

__all__ = ["api", "bank", "queries"]

WU = UUID(int=1003)
ZHANGS, LIS = "支行007", '支行"1.*'


@pytest.fixture
async def branches(bank, mongo):
    """Zhang and Li in a branch each, Wu in none; with their facts."""
    bank.customer(WU, "吴用")
    bank.tell(ZHANG, "customer.branch_assigned", branch=ZHANGS)
    bank.tell(LI, "customer.branch_assigned", branch=LIS)


@pytest.fixture
async def asking(branches, api, bank, mongo):
    await bank.keep_facts(mongo)
    return api


def acting(api, role, post=None, subject="lin"):
    api.headers["Authorization"] = f"Bearer {api.token_of(role, post, subject)}"


async def ids(api, path="/customers", **asked):
    found = await api.get(path, params=asked)
    assert found.status_code == 200, found.text
    return [UUID(one["customer_id"]) for one in found.json()["items"]]


def test_the_lists_are_over_collections_that_there_are():
    known = {view.name: view for view in (*VIEWS, *DERIVED)}
    for listing in (CUSTOMERS_LIST, FACTS_LIST):
        [collection] = [c for c in known[listing.view].collections if c.name == listing.collection]
        assert set(listing.indexes) <= set(collection.indexes)


async def test_the_lists_say_what_a_condition_can_ask_for_and_who_may_ask(asking):
    """A client that knows nothing of us writes a condition by the schema, and asks what it is told that it may ask."""
    for role in ("relationship-manager", "teller", "analyst", "operator"):
        acting(asking, role, "支行007/desk")
        told = (await asking.get("/conditions/customer")).json()
        fields = {one["name"]: {field["name"]: field for field in one["fields"]} for one in told["lists"]}
        assert fields.keys() == {"customers", "facts"}
        aum, questions = fields["facts"]["aum"], fields["facts"]["questions"]
        assert aum["roles"] == ["administrator", "analyst", "compliance", "relationship-manager"]
        assert (aum["type"], aum["data_class"]) == ("amount", "confidential")
        assert aum["label"] == {"zh": "管理资产", "en": "assets under management"}
        assert aum["permitted"] == (role in aum["roles"])
        assert {"value": "invalid", "label": {"zh": "数据无效", "en": "invalid"}} in questions["values"]
        schema = Draft202012Validator(told["condition"])
        asked = {
            "aum": {"op": "amount", "relation": "above", "currency": "CNY", "amount_minor": 1},
            "questions": {"op": "has", "values": ["invalid"]},
            "accounts": {"op": "known"},
        }
        for name, clause in asked.items():
            where = {"field": name, **clause}
            schema.validate(where)
            if role == "operator":
                continue  # may assign, and not select
            answer = await asking.get("/customers/selection/count", params={"where": json.dumps(where)})
            permitted = fields["facts"][name]["permitted"]
            assert answer.status_code == (200 if permitted else 403), (role, name, answer.text)
    acting(asking, "feed")
    assert (await asking.get("/conditions/customer")).status_code == 403


async def test_the_document_has_the_schema_of_a_condition(api):
    document = (await api.get("/openapi.json")).json()
    schema = {"$ref": "#/components/schemas/Condition", "components": document["components"]}
    taken = Draft202012Validator(schema)
    where = from_text("aum > CNY 1.00 and not (last_movement_on within last 3 days)", FACTS_LIST.fields)
    written = json.loads(CONDITION.dump_json(where))
    taken.validate(written)
    assert not taken.is_valid({**written, "op": "nor"})


async def test_customers_are_filtered_sorted_and_counted(asking):
    api = asking
    assert await ids(api) == [ZHANG, LI, WU]
    assert await ids(api, sort="branch") == [LI, ZHANG, WU]
    assert await ids(api, sort="-branch") == [ZHANG, LI, WU]
    assert await ids(api, where='branch begins "支行"') == [ZHANG, LI]
    for other in ({"sort": "branch"}, {"where": "kind is person"}, {"total": True}, {"after": "x"}):
        both = await api.get("/customers", params={"reference": "core:P1", **other})
        assert (both.status_code, both.json()["code"]) == (422, "request-invalid"), other
    assert await ids(api, where='branch begins "支行\\"1.*"') == [LI]
    assert await ids(api, where='branch begins ".*"') == []
    assert await ids(api, where='{"op":"not","condition":{"op":"known","field":"branch"}}') == [WU]
    facts = "/customers/selection"
    assert await ids(api, facts, sort="-aum.CNY") == [ZHANG, LI, WU]
    assert await ids(api, facts, sort="-last_movement_on", where="aum >= CNY 0.01") == [ZHANG, LI]
    for path in ("/customers", facts):
        page = (await api.get(path, params={"sort": "branch", "limit": 2, "total": True})).json()
        assert page["total"] == {"count": 3, "more": False}
        rest = {"sort": "branch", "limit": 2, "after": page["next"]}
        last = (await api.get(path, params=rest)).json()
        assert ([one["customer_id"] for one in last["items"]], last["next"], last["total"]) == (
            [str(WU)],
            None,
            None,
        )
        for other in (
            {**rest, "sort": "-branch"},
            {**rest, "where": "kind is person"},
            {**rest, "after": "x"},
        ):
            refused = await api.get(path, params=other)
            assert (refused.status_code, refused.json()["code"]) == (400, "cursor-invalid")
        acting(api, "administrator", subject="wu")
        refused = await api.get(path, params=rest)
        assert (refused.status_code, refused.json()["code"]) == (400, "cursor-invalid"), "of another caller"
        acting(api, "administrator")


async def test_who_has_more_than_in_a_month_is_counted_as_paged_whenever_the_facts_were_derived(
    asking, mongo
):
    collection, selection = "customer_facts_v1_facts", "/customers/selection"
    for index in FACTS_LIST.indexes:
        await mongo.index(collection, index.fields)
    asked = {"where": "aum > CNY 1,500.00 and aum_month_average in last month < CNY 1,500.00"}
    for of in (None, "2026-01", "2026-03"):
        if of is not None:
            await mongo.update(collection, {"_id": str(ZHANG)}, {"$set": {"ago.of": of}})
        found = await ids(asking, selection, **asked)
        assert ZHANG in found
        assert (await asking.get(f"{selection}/count", params=asked)).json()["count"] == len(found)


@pytest.fixture
def falling(bank):
    """Customers with their average AUM of the last months up to January 2026, in ten thousand yuan."""
    series = [
        ("private", [700, 650, 600, 590]),
        ("private", [700, 650, 660, 600]),
        ("wealth", [90, 80, 70, 60]),
    ]
    customers = [UUID(int=2_000 + number) for number in range(len(series))]
    for customer, (tier, averages) in zip(customers, series, strict=True):
        party = f"P{customer.int}"
        bank.customer(customer, "钱某", ("core", party))
        assessed = {"month": "2026-01", "tier": tier, "because": "met", "rules": 1, "currency": "CNY"}
        bank.tell(customer, "customer.tier_assessed", **assessed)
        account = bank.account("core", f"6222{customer.int}", "deposit", (party, "owner"))
        months = ("2025-10", "2025-11", "2025-12", "2026-01")
        for month, (before, average) in zip(months, pairwise([0, *averages]), strict=True):
            bank.posting(account, (average - before) * 1_000_000, f"{month}-01")
    return customers


@pytest.mark.requirement("R054")
async def test_private_customers_whose_average_aum_fell_three_months_in_a_row_are_a_list(
    falling, api, bank, mongo
):
    await bank.keep_facts(mongo)
    selection, loss = "/customers/selection", "aum_months_falling >= 3"
    lost, once, poorer = falling
    assert await ids(api, selection, where=f"tier is private and {loss}") == [lost]
    assert set(await ids(api, selection, where=loss)) == {lost, poorer}
    assert once in await ids(api, selection, where="aum_months_falling = 1")
    acting(api, "marketer", subject="mei")
    refused = await api.get(selection, params={"where": loss})
    assert refused.status_code == 403, "who may not ask for amounts learns of no fall either"


async def test_days_are_counted_from_the_business_date_and_not_from_the_clock(asking, bank, mongo, key_ring):
    """Lists, derived documents and what is held are of one day: from the cut-off on, the next one."""
    settings = CustomerSettings(postgres_url="postgresql://nowhere", cut_off=time(17, 30))
    clock = ManualClock(datetime.fromisoformat("2036-01-05T17:29:59+08:00"))
    today = partial(settings.business_date, clock)
    facts = Queries(mongo, Live(), key_ring, today=today).facts
    inputs = MongoInputs(mongo, [], today)
    await mongo.update(
        "customer_facts_v1_facts", {"_id": str(LI)}, {"$set": {"last_movement_on": "2036-01-06"}}
    )
    asked = question(FACTS_LIST, frozenset(), "last_movement_on within last 1 days")
    as_of = question(FACTS_LIST, frozenset(), "last_movement_on within last 1 days", as_of=date(2036, 1, 6))
    found, derived_on = [], []
    for _ in range(2):
        found.append((await facts.count(Scope.all(), asked)).count)
        derived_on.append(inputs.day())
        named = await facts.page(Scope.all(), as_of, "lin", limit=9)
        assert [one["_id"] for one in named.documents] == [str(LI)], "a day that is named does not move"
        clock.advance(1)
    assert found == [0, 1]
    assert derived_on == ["2036-01-05", "2036-01-06"]


@pytest.mark.requirement("R083", "M05")
async def test_no_query_shows_what_is_out_of_scope(branches, bank, queries):
    """Also where a route forgets its guard: what is asked of the views is narrowed there."""
    of_li = scope_of(Caller("lin", f"{LIS}/desk", frozenset({"teller"})))
    account, wanted = bank.mine, MovementsWanted()
    for scope, seen in ((Scope.all(), True), (of_li, False), (Scope.nothing(), False)):
        found = [
            await queries.customers.one(scope, ZHANG),
            await queries.customers.some(scope, [str(ZHANG)]),
            await queries.customers.of_party(scope, IDS.party("core", "P1")),
            await queries.holdings.panorama(scope, ZHANG, NOW, None),
            await queries.holdings.accounts(scope, ZHANG),
            held := await queries.holdings.held_account(scope, ZHANG, account),
        ]
        assert [bool(one) for one in found] == [seen] * len(found)
        if held is not None:
            assert await queries.movements.page(held, wanted, 0, 1)
    assert await queries.customers.one(of_li, LI), "its own branch"
    assert await queries.customers.one(of_li, WU), "of no branch yet"


@pytest.mark.requirement("R083")
async def test_an_account_that_waits_is_of_the_branch_that_its_source_states(asking, bank, queries, mongo):
    before = (await asking.get("/accounts/unlinked")).json()
    waiting = [one["account_id"] for one in before["items"]]
    await mongo.update("asset_panorama_v1_accounts", {"_id": waiting[0]}, {"$set": {"branch": ZHANGS}})
    for post, missing in ((f"{ZHANGS}/desk", []), (f"{LIS}/desk", waiting[:1]), (None, waiting[:1])):
        acting(asking, "teller", post)
        page = (await asking.get("/accounts/unlinked")).json()
        assert [one["account_id"] for one in page["items"]] == [one for one in waiting if one not in missing]
        assert page["counted"] == before["counted"] - len(missing)


async def test_a_condition_on_days_is_asked_as_of_a_day(asking, mongo):
    selection, moved = "/customers/selection", {"where": "last_movement_on within last 3 days"}
    review = {"due_on": "2026-06-30", "reviewed_on": None, "reminded_at": None}
    await mongo.update("customers_v1_customers", {"_id": str(ZHANG)}, {"$set": {"review": review}})
    due = {"where": "review_due_on within next 3 days"}
    for as_of, found in (({"as_of": "2026-01-11"}, [ZHANG]), ({}, [])):
        asked = moved | as_of
        assert await ids(asking, selection, **asked) == found
        assert (await asking.get(f"{selection}/count", params=asked)).json()["count"] == len(found)
        [step] = (await asking.get(f"{selection}/funnel", params=asked)).json()["steps"]
        assert step["so_far"]["count"] == len(found)
        explained = await asking.get(f"/customers/{ZHANG}/selection", params=asked)
        assert explained.json()["holds"] is bool(found)
    assert await ids(asking, **due, as_of="2026-06-29") == [ZHANG]
    assert await ids(asking, **due) == []


async def test_what_a_caller_may_not_see_decides_nothing_that_it_is_shown(asking):
    acting(asking, "teller", f"{ZHANGS}/柜员")
    for asked, status, code in (
        ({"where": "aum > CNY 1"}, 403, "field-not-permitted"),
        ({"where": "kind is person or not aum > CNY 1"}, 403, "field-not-permitted"),
        ({"sort": "aum.CNY"}, 403, "field-not-permitted"),
        ({"sort": "aum"}, 422, "sort-invalid"),
        ({"sort": "name"}, 422, "sort-invalid"),
        ({"where": "name is 张伟"}, 422, "condition-invalid"),
        ({"where": "{"}, 422, "condition-invalid"),
        ({"limit": "201"}, 422, "request-invalid"),
        ({"order": "aum"}, 422, "request-invalid"),
        ({"where": "last_movement_on within last 3660 days", "as_of": "0001-01-01"}, 422, "request-invalid"),
        ({"where": "last_movement_on within last 3660 days", "as_of": "1767225600"}, 422, "request-invalid"),
        ({"where": "last_movement_on within next 3660 days", "as_of": "9999-12-31"}, 422, "request-invalid"),
    ):
        for path in ("", "/count", "/funnel") if "where" in asked else ("",):
            refused = await asking.get(f"/customers/selection{path}", params=asked)
            assert (refused.status_code, refused.json()["code"]) == (status, code), asked


async def test_customers_with_one_open_question_are_asked_for(asking, mongo):
    path = "/data-quality/customers"
    assert await ids(asking, path) == []
    for customer, questions in ((ZHANG, ["invalid"]), (LI, ["invalid", "identity-number"])):
        changed = {"$set": {"questions": questions}}
        await mongo.update("customers_v1_customers", {"_id": str(customer)}, changed)
    assert await ids(asking, path) == await ids(asking, path, question="invalid") == [ZHANG, LI]
    assert await ids(asking, path, question="identity-number") == [LI]
    assert await ids(asking, path, question="contradiction") == []


@pytest.mark.requirement("R083", "R084", "R085")
async def test_a_customer_out_of_scope_is_not_there(asking, bank):
    api = asking
    acting(api, "relationship-manager", f"{ZHANGS}/客户经理")
    assert await ids(api) == await ids(api, "/customers/selection") == [ZHANG, WU]
    for path in ("/customers", "/customers/selection"):
        counted = await api.get(path, params={"total": True})
        assert counted.json()["total"] == {"count": 2, "more": False}, path
    where = {"where": "accounts >= 0"}
    assert (await api.get("/customers/selection/count", params=where)).json()["count"] == 2
    [step] = (await api.get("/customers/selection/funnel", params=where)).json()["steps"]
    assert step["so_far"] == {"count": 2, "more": False}
    assert await ids(api, reference="core:P1") == [ZHANG]
    assert await ids(api, reference="core:P2") == []
    for path in (
        "",
        "/panorama",
        "/accounts",
        f"/accounts/{bank.ours}/movements",
        f"/accounts/{bank.ours}/loans",
        "/events",
        "/selection?where=accounts>=0",
    ):
        hidden = await api.get(f"/customers/{LI}{path}")
        assert (hidden.status_code, hidden.json()["code"]) == (404, "customer-not-registered"), path
    for customer, status in ((LI, 404), (ZHANG, 503)):  # no hub runs here, which is seen after the scope
        watched = await api.get("/customers/changes", params={"customer": str(customer)})
        assert watched.status_code == status
    assert (await api.get("/customers/changes")).json()["code"] == "request-invalid"
    unknown = await api.get(f"/customers/{UUID(int=77)}")
    hidden = await api.get(f"/customers/{LI}")
    assert {**unknown.json(), "trace_id": ""} == {**hidden.json(), "trace_id": ""}
    renamed = await api.put(
        f"/customers/{LI}/name", json={"name": "李"}, headers=key("k") | {"If-Match": '"3"'}
    )
    assert (renamed.status_code, renamed.json()["code"]) == (404, "customer-not-registered")
    assert (await api.get(f"/customers/{ZHANG}")).status_code == 200
    assert (await api.get("/customers/no-id")).status_code == 422


@pytest.mark.requirement("R084")
async def test_nothing_is_moved_to_a_customer_out_of_scope(asking, handler):
    for customer, branch in ((ZHANG, ZHANGS), (LI, LIS), (WU, None)):
        said = CommandContext(actor="lin", now=NOW, command_id=customer)
        await handler.handle(customer, RegisterCustomer(Details(name="张伟", branch=branch)), said)
    acting(asking, "relationship-manager", f"{ZHANGS}/客户经理")
    codes = []
    for to in (WU, LI, UUID(int=77)):
        path = f"/customers/{ZHANG}/references/{UUID(int=5)}/move"
        asked = {"to": str(to), "reason": "x"}
        refused = await asking.post(path, json=asked, headers=key(f"m{to}") | {"If-Match": '"1"'})
        codes.append(refused.json()["code"])
    assert codes == ["reference-not-linked", "customer-not-registered", "customer-not-registered"]


@pytest.mark.requirement("R084")
async def test_a_customer_that_the_view_does_not_show_yet_is_out_of_scope_too(asking, handler):
    new = UUID(int=1005)
    said = CommandContext(actor="lin", now=NOW, command_id=new)
    await handler.handle(new, RegisterCustomer(Details(name="张伟")), said)
    await handler.handle(new, AssignBranch(LIS), structs.replace(said, command_id=UUID(int=1)))
    for branch, code in ((ZHANGS, "customer-not-registered"), (LIS, "version-mismatch")):
        acting(asking, "relationship-manager", f"{branch}/客户经理")
        asked = await asking.put(
            f"/customers/{new}/name", json={"name": "李"}, headers=key(code) | {"If-Match": '"9"'}
        )
        assert asked.json()["code"] == code


@pytest.mark.requirement("R084")
async def test_the_former_branch_commands_nothing_while_the_view_is_behind(asking, handler, store, key_ring):
    """Another process has changed the branch, and the view still shows the former one."""
    said = CommandContext(actor="lin", now=NOW, command_id=ZHANG)
    await handler.handle(ZHANG, RegisterCustomer(Details(name="张伟", branch=ZHANGS)), said)
    other = CommandHandler(customer_decider, store, catalogue(), key_ring)
    await other.handle(ZHANG, AssignBranch(LIS), structs.replace(said, command_id=UUID(int=1)))
    await handler.handle(WU, RegisterCustomer(Details(name="吴用")), structs.replace(said, command_id=WU))
    move = f"/customers/{WU}/references/{UUID(int=5)}/move"
    for branch, status, code in (
        (ZHANGS, 404, "customer-not-registered"),
        (LIS, 200, "reference-not-linked"),
    ):
        acting(asking, "relationship-manager", f"{branch}/客户经理")
        asked, name = {"to": str(ZHANG), "reason": "x"}, {"name": "张三"}
        moved = await asking.post(move, json=asked, headers=key(f"m{status}") | {"If-Match": '"1"'})
        assert moved.json()["code"] == code
        at = key(f"n{status}") | {"If-Match": '"2"'}
        renamed = await asking.put(f"/customers/{ZHANG}/name", json=name, headers=at)
        assert renamed.status_code == status, renamed.text


@pytest.mark.requirement("R083", "R084", "R085")
def test_who_sees_which_customers():
    def seen(role, post=None):
        return scope_of(Caller("lin", post, frozenset([role])))

    for role in ("administrator", "compliance", "auditor", "analyst", "operator"):
        assert seen(role).everything
    for role in ("marketer", "feed", "nobody"):
        assert not seen(role).everything
        assert seen(role).condition is None
    for role in ("teller", "relationship-manager"):
        assert not seen(role).everything
        assert "支行007" in CONDITION.dump_json(seen(role, "支行007/柜员").condition).decode()
        of_none = seen(role).condition
        assert of_none is not None
        assert [seen(role, post).condition for post in ("支行007", "/柜员", "")] == [of_none] * 3


@pytest.mark.requirement("R081")
async def test_a_condition_that_nobody_meets_names_the_parts_that_no_customer_meets_together(asking):
    where = {"where": "kind is person and aum >= CNY 700 and not accounts >= 1"}
    found = (await asking.get("/customers/selection/funnel", params=where)).json()
    assert [step["so_far"]["count"] for step in found["steps"]] == [3, 1, 0]
    assert [part["where"] for part in found["emptied_by"]] == ["aum >= CNY 700.00", "not accounts >= 1"]
    assert found["emptied_by"][0]["sentence"]["zh"] == "管理资产不低于CNY 700.00"
    some = (await asking.get("/customers/selection/funnel", params={"where": "kind is person"})).json()
    assert (some["emptied_by"], len(some["steps"])) == ([], 1)
    many = {"where": " and ".join(["accounts >= 0"] * 13)}
    refused = await asking.get("/customers/selection/funnel", params=many)
    assert (refused.status_code, refused.json()["code"]) == (422, "condition-invalid")


async def test_the_same_search_again_shows_nobody_whom_its_event_does_not_name(branches, api, bank, mongo):
    asked = {"field": "phone", "value": "13800001234", "reason": "来电核实"}
    before = await api.post("/customers/search", json=asked, headers=key("s0"))
    assert (before.status_code, before.json()["items"]) == (200, [])
    await bank.keep_facts(mongo)
    assert (await api.post("/customers/search", json=asked, headers=key("s0"))).json() == before.json()
    found = await api.post("/customers/search", json=asked, headers=key("s1"))
    assert len(found.json()["items"]) == 3


@pytest.mark.requirement("R083")
async def test_a_search_by_a_whole_value_is_stored_before_it_is_shown(
    branches, api, bank, mongo, store, key_ring
):
    await bank.keep_facts(mongo)
    sealed = (await mongo.find("customer_facts_v1_facts", {"_id": str(ZHANG)}))[0]["blind"]
    assert sealed["email"] is None
    assert len(sealed["phone"]) == 32
    assert sealed["phone"] not in {None, "13800001234"}
    before = await store.head_position()
    asked = {"field": "phone", "value": "13800001234", "reason": "来电核实"}
    found = await api.post("/customers/search", json=asked, headers=key("s1"))
    assert found.status_code == 200, found.text
    assert [UUID(one["customer_id"]) for one in found.json()["items"]] == [ZHANG, LI, WU]
    assert found.json()["more"] is False
    assert found.headers["Consistency-Token"] == f"customer-{await store.head_position()}"
    assert "13800001234" not in found.text
    [event] = await store.read_after(before)
    assert event.name == "value-searched"
    assert key_ring.keys_for([event.stream_id], create=False) == {}
    assert b"13800001234" not in event.body
    assert str(ZHANG).encode() in event.body
    again = await api.post("/customers/search", json=asked, headers=key("s1"))
    assert again.json() == found.json()
    other = await api.post("/customers/search", json=asked | {"value": "13800001235"}, headers=key("s1"))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert await store.head_position() == before + 1
    for number, value in enumerate(("1380000123", "1380000123.", ".*", '"', "a\nb", "***", "张")):
        nobody = await api.post("/customers/search", json=asked | {"value": value}, headers=key(f"n{number}"))
        assert (nobody.status_code, nobody.json()["items"]) == (200, []), value
    as_email = await api.post("/customers/search", json=asked | {"field": "email"}, headers=key("e"))
    assert as_email.json()["items"] == [], "a digest is of one field"
    refused = await api.post("/customers/search", json={"field": "phone", "value": "1"}, headers=key("r"))
    assert refused.status_code == 422
    acting(api, "teller", f"{LIS}/柜员")
    within = await api.post("/customers/search", json=asked, headers=key("s1"))
    assert [UUID(one["customer_id"]) for one in within.json()["items"]] == [LI, WU]


async def branches_of(api, **asked):
    found = await api.get("/customers/branches", params=asked)
    assert found.status_code == 200, found.text
    page = found.json()
    return page, {one["branch"]: (one["customer_count"], one["aum"]) for one in page["items"]}


async def test_the_customers_of_each_branch_are_counted_and_their_aum_added_up(asking):
    facts = (await asking.get("/customers/selection")).json()["items"]
    aum = {UUID(one["customer_id"]): one["aum"] for one in facts}
    assert all(aum[one] for one in (ZHANG, LI))
    page, found = await branches_of(asking)
    assert found == {None: (1, aum[WU]), LIS: (1, aum[LI]), ZHANGS: (1, aum[ZHANG])}
    currencies = {currency for one in aum.values() for currency in one}
    added = {currency: sum(one.get(currency, 0) for one in aum.values()) for currency in sorted(currencies)}
    assert page["all_branches"] == {"customer_count": 3, "aum": added}
    assert (page["settled"], page["next"]) == (True, None)


async def test_branches_are_paged_by_name(asking):
    seen, after = [], {}
    while True:
        page, found = await branches_of(asking, limit=1, **after)
        assert page["all_branches"]["customer_count"] == 3
        seen += found
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == [None, LIS, ZHANGS]
    for after in ("x", cursor(""), cursor(1, 2, 3)):
        refused = await asking.get("/customers/branches", params={"after": after})
        assert (refused.status_code, refused.json()["code"]) == (400, "cursor-invalid")


async def test_every_branch_is_on_one_page_whatever_a_source_calls_it(asking, mongo):
    long = "支" * 1_024
    branches = [None, "", " ", 'a"b', "line\nend", long, long[:-1], long[:-1] + "行"]
    sums = [{"group": one, "sums": [["customers", "1"]]} for one in branches]
    bucket = {"_id": bucket_id(0), "_seq": 1, "groups": sums}
    assert await mongo.insert_new("customer_facts_v1_branches", bucket)
    seen, after = [], {}
    while True:
        page, found = await branches_of(asking, limit=1, **after)
        seen += found
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    others = [one for one in seen if one not in {LIS, ZHANGS}]
    assert others[:5] == branches[:5]
    assert (len(others), set(others)) == (len(branches), set(branches))


async def test_a_sum_larger_than_64_bits_is_shown_exactly(asking, mongo):
    largest = [["aum.CNY", str(9 * 10**15 * 10**6 + 1)], ["customers", "1000000"]]
    sums = [{"group": "总行", "sums": largest}]
    bucket = {"_id": bucket_id(0), "_seq": 1, "groups": sums}
    assert await mongo.insert_new("customer_facts_v1_branches", bucket)
    _, found = await branches_of(asking)
    assert found["总行"] == (1_000_000, {"CNY": 9_000_000_000_000_000_000_001})


@pytest.mark.requirement("R084")
async def test_what_a_branch_adds_up_to_is_seen_within_scope_alone(asking):
    for role, post, seen in (
        ("analyst", None, [None, LIS, ZHANGS]),
        ("relationship-manager", f"{ZHANGS}/经理", [None, ZHANGS]),
        ("relationship-manager", None, [None]),
    ):
        acting(asking, role, post)
        page, found = await branches_of(asking)
        assert list(found) == seen, role
        assert page["all_branches"]["customer_count"] == len(seen)
    for role in ("teller", "auditor", "marketer", "operator"):
        acting(asking, role, f"{ZHANGS}/柜员")
        refused = await asking.get("/customers/branches")
        assert refused.status_code == 403, role


async def test_branches_that_wait_to_be_summed_are_said_to_be_unsettled(asking, mongo):
    summing = Summing(SUMS, MongoDocuments(mongo, "customer_facts_v1_"), FACTS_LIST.collection)
    await mongo.update("customer_facts_v1_facts", {"_id": str(ZHANG)}, {"$set": {"branch": LIS}})
    await summing.mark([str(ZHANG)])
    page, found = await branches_of(asking)
    assert (page["settled"], found[LIS][0]) == (False, 1)
    await summing.sum_marked(still)
    page, found = await branches_of(asking)
    assert (page["settled"], found[LIS][0]) == (True, 2)
    assert ZHANGS not in found


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        (Scope.nothing(), []),
        (Scope.all(), [None, "a"]),
        (Scope.where(IsAmong(field="branch", values=("a",))), ["a"]),
        (Scope.where(IsAmong(field="kind", values=("person",))), []),
        (Scope.where(Not(condition=IsAmong(field="kind", values=("company",)))), []),
    ],
)
def test_a_scope_that_asks_for_more_than_the_branch_shows_no_branch(scope, shown):
    may = shows(scope, NOW.date())
    assert [branch for branch in (None, "a") if may(branch)] == shown


def test_amounts_of_branches_are_shown_to_who_may_ask_for_them():
    summed = Summed({"a": {"customers": 2, "aum.CNY": 5}}, settled=True)
    [shown] = page_of(summed, frozenset(), Paging()).items
    assert (shown.customer_count, shown.aum) == (2, None)
    assert page_of(summed, frozenset({AMOUNTS}), Paging()).all_branches.aum == {"CNY": 5}


def test_each_branch_is_on_one_page_whatever_its_name():
    """The cursor after a name with a NUL was refused, and the branches behind it were on no page."""
    names = [
        None,
        "",
        "a\0b",
        "a\0c",
        "'; drop",
        "line\nend",
        "支行007",
        "支行００７",
        "x" * 200,
        "x" * 200 + "\0",
    ]
    names += ["x" * 1_024, "\U0001f600" * 300, "\x01" * 300, '"' * 300, "z"]
    summed = Summed({name: {"customers": 1} for name in names}, settled=True)
    seen, after = [], None
    while not seen or after is not None:
        page = page_of(summed, frozenset(), Paging(limit=1, after=after))
        seen += [one.branch for one in page.items]
        after = page.next
        assert after is None or len(after) <= CURSOR_CHARACTERS_MAX
    assert len(seen) == len(names)
    assert set(seen) == set(names)
