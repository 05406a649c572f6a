"""No route shows a caller of one branch the id or the name of a customer of another, whatever the two have in common."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from chassis.privacy.tokens import Caller
from customer.lists import scope_of
from customer.permissions import ROUTES

from .test_api import api, key
from .test_lists import ZHANGS, acting, branches
from .test_queries import IDS, LI, ZHANG, bank, queries

__all__ = ["api", "bank", "branches", "queries"]

NOBODY = UUID(int=77)
NARROWED = ("relationship-manager", "teller")
ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Asked(NamedTuple):
    """A request by the document of the routes."""

    name: str
    method: str
    path: str
    content: dict[str, Any]


def of_document(document: dict[str, Any], customer: UUID, account: UUID) -> Iterator[Asked]:
    """The example of a request to each route, in which every id names this customer, but in the place of an account. Its
    condition is one that every role may ask for."""
    instead = {"account_id": str(account), "where": "accounts >= 0"}

    def named(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {one: named(each, one) for one, each in value.items()}
        if isinstance(value, list):
            return [named(each) for each in value]
        return instead.get(name, str(customer) if ID.fullmatch(str(value)) else value)

    for path, methods in document["paths"].items():
        for method, route in methods.items():
            given: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}}
            for one in route.get("parameters", ()):
                if one.get("required") or one["name"] == "customer":
                    given[one["in"]][one["name"]] = named(one["example"], one["name"])
            given["header"] |= {"If-Match": '"1"', "Idempotency-Key": f"{route['operationId']}-{customer}"}
            content = {"params": given["query"], "headers": given["header"]}
            bodies = route.get("requestBody", {}).get("content", {})
            if "application/json" in bodies:
                content["json"] = named(bodies["application/json"]["example"])
            elif bodies:
                content["content"] = b"a letter"
                content["headers"]["Content-Type"] = "text/plain"
            yield Asked(route["operationId"], method, path.format(**given["path"]), content)


@pytest.fixture
async def sharing(branches, bank):
    """Zhang, who owns an account with Li of another branch, and has the same identity number."""
    shared = {"source": "core", "party_id": str(IDS.party("core", "P1")), "customer_id": str(LI)}
    bank.tell(ZHANG, "customer.identity_number_shared", **shared)


@pytest.fixture
async def asking(sharing, api, bank, mongo):
    await bank.keep_facts(mongo)
    return api


async def answers(api, role, customer, account):
    """What each route answers that the role may call."""
    acting(api, role, f"{ZHANGS}/柜台")
    document = (await api.get("/openapi.json")).json()
    found = {}
    for asked in of_document(document, customer, account):
        if asked.name not in ROUTES or role not in ROUTES[asked.name].roles:
            continue
        answer = await api.request(asked.method, asked.path, **asked.content)
        found[asked.name] = (asked, answer)
    return found


def same(answer):
    """What does not distinguish two requests."""
    return answer.status_code, {**answer.json(), "trace_id": ""}


def test_the_narrowed_roles_are_those_that_are_asked_for():
    with_post = {
        role
        for rights in ROUTES.values()
        for role in rights.roles
        if scope_of(Caller("lin", f"{ZHANGS}/柜台", frozenset({role}))).condition is not None
    }
    assert with_post == set(NARROWED)


@pytest.mark.requirement("R083", "M05")
@pytest.mark.parametrize("role", NARROWED)
async def test_a_customer_of_another_branch_is_on_every_route_as_if_it_were_not_there(asking, bank, role):
    of_li = await answers(asking, role, LI, bank.ours)
    of_nobody = await answers(asking, role, NOBODY, bank.ours)
    of_one = {name for name, (asked, _) in of_li.items() if asked.path.startswith(f"/customers/{LI}")}
    assert len(of_one) > 15
    for name, (asked, answer) in of_li.items():
        assert "李" not in answer.text, asked
        if name in of_one:
            assert (answer.status_code, answer.json()["code"]) == (404, "customer-not-registered"), asked
            assert same(answer) == same(of_nobody[name][1]), asked
        assert str(LI) not in answer.text, asked


@pytest.mark.requirement("R083", "M05")
@pytest.mark.parametrize("role", NARROWED)
async def test_what_a_customer_has_in_common_with_one_of_another_branch_tells_nobody_who_that_is(
    asking, bank, role
):
    found = await answers(asking, role, ZHANG, bank.ours)
    read = [answer for asked, answer in found.values() if asked.method == "get"]
    assert sum(answer.status_code == 200 for answer in read) > 12
    for asked, answer in found.values():
        assert str(LI) not in answer.text, asked
        assert "李" not in answer.text, asked
    _, accounts = found["list_accounts"]
    [ours] = [one for one in accounts.json()["items"] if one["account_id"] == str(bank.ours)]
    assert (ours["joint"], ours["holders_named"]) == (True, 2)
    assert [(one["role"], one["out_of_scope"], one["customer_id"]) for one in ours["holders"]] == [
        ("owner", True, None),
        ("joint", False, str(ZHANG)),
    ]
    shown = found["get_customer"][1].json()
    assert (shown["shares_number_with"], shown["shares_number_out_of_scope"]) == ([], 1)


async def test_within_scope_it_is_told_who_that_is(asking, bank):
    acting(asking, "compliance")
    accounts = (await asking.get(f"/customers/{ZHANG}/accounts")).json()["items"]
    [ours] = [one for one in accounts if one["account_id"] == str(bank.ours)]
    assert [(one["customer_id"], one["name"], one["out_of_scope"]) for one in ours["holders"]] == [
        (str(LI), "李*", False),
        (str(ZHANG), None, False),
    ]
    shown = (await asking.get(f"/customers/{ZHANG}")).json()
    assert (shown["shares_number_with"], shown["shares_number_out_of_scope"]) == ([str(LI)], 0)


@pytest.mark.requirement("R083")
async def test_who_has_an_identity_number_is_named_to_who_may_see_that_customer(api):
    number, wanted = (
        "110101199001310026",
        {"name": "李娜", "phone": "13911113333", "identity_number": "110101199001310026"},
    )
    wanted["stated_assets"] = [{"product": "fund", "amount": "1", "currency": "CNY"}]
    first = await api.post("/customers", json=wanted | {"branch": "B2"}, headers=key("a"))
    other = await api.post("/customers", json={**wanted, "identity_number": None}, headers=key("b"))
    had, wants = first.json()["customer_id"], other.json()["customer_id"]
    for branch, named in (("B1", False), ("B2", True)):
        acting(api, "relationship-manager", f"{branch}/经理")
        again = await api.post("/customers", json=wanted, headers=key(f"r{branch}"))
        corrected = await api.put(
            f"/customers/{wants}/identity-details",
            json={"identity_number": number},
            headers=key(f"c{branch}") | {"If-Match": '"1"'},
        )
        for refused in (again, corrected):
            assert (refused.status_code, refused.json()["code"]) == (409, "identity-number-known")
            assert (had in refused.text) is named
