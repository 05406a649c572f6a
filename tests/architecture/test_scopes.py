"""No query of customers does without a scope, and each route says over which rows it is."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
from chassis.lists import Reader, Scope
from chassis.privacy.rights import OWN, WHOLE, RowScope, no_rows
from chassis.privacy.tokens import Caller
from chassis.service import services
from contracts.roles import ROLES
from customer.lists import scope_of
from customer.permissions import BRANCH, ROUTES
from customer.queries.branches import BranchQueries
from customer.queries.customers import CustomerQueries
from customer.queries.holdings import HoldingQueries
from customer.queries.movements import AccountInScope, MovementQueries
from customer.queries.needs import NeedQueries
from customer.queries.unlinked import UnlinkedQueries

from tools.generate import routes_of

WITHOUT = {
    "HoldingQueries.relations": "of the parties of a customer that is erased, which another person approved",
    "HoldingQueries.described": "it says of a party alone whether master data names it, to who has the party's number",
    "MovementQueries.add_outflows_of": "it adds to accounts that were found in a scope",
}
"""Why a query takes none."""


def unscoped(*classes: type[Any]) -> Iterator[str]:
    """The queries of these classes whose first argument says not what the caller may see."""
    for each in classes:
        for name, function in inspect.getmembers(each, inspect.isfunction):
            asks = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
            if name.startswith("_") or not asks:
                continue
            _, *taken = inspect.signature(function).parameters.values()
            hints = get_type_hints(function)
            first = taken[0] if taken else None
            if (
                first is None
                or first.default is not first.empty
                or hints[first.name] not in {Scope, AccountInScope}
            ):
                yield f"{each.__name__}.{name}"


@pytest.mark.requirement("R083", "M05")
def test_no_query_does_without_a_scope() -> None:
    found = set(
        unscoped(
            BranchQueries,
            CustomerQueries,
            HoldingQueries,
            MovementQueries,
            NeedQueries,
            UnlinkedQueries,
            Reader,
        )
    )
    assert found == WITHOUT.keys()


def test_a_query_without_a_scope_is_found() -> None:
    class Loose:
        async def all_of_them(self) -> None: ...

        async def one(self, id: str, scope: Scope) -> None: ...

        async def perhaps(self, scope: Scope = Scope.all()) -> None: ...  # noqa: B008 (that is the fault)

        async def within(self, scope: Scope, id: str) -> None: ...

    assert set(unscoped(Loose)) == {"Loose.all_of_them", "Loose.one", "Loose.perhaps"}


@pytest.mark.requirement("R082", "R083", "M05")
def test_who_sees_a_part_of_the_customers_calls_no_route_over_the_whole_bank() -> None:
    narrowed = {role for role in ROLES if not scope_of(Caller("lin", roles=frozenset({role}))).everything}
    assert {"teller", "relationship-manager"} <= narrowed
    of_people = narrowed - {"service", "feed"}
    over_all = {
        name for name, rights in ROUTES.items() if rights.scope == WHOLE and of_people & set(rights.roles)
    }
    assert over_all == set()


@pytest.mark.requirement("R083", "M05")
def test_a_route_of_one_customer_is_over_the_customers_of_the_caller() -> None:
    [customer] = [service for service in services() if service.context.name == "customer"]
    of_one = {route.name for route in routes_of(customer) if re.search(r"\{customer_id\}", route.path)}
    assert len(of_one) > 20
    assert {name for name in of_one if ROUTES[name].scope != BRANCH} == set()


@pytest.mark.parametrize("wrong", [("none", ""), ("none", " "), ("branch", "because")])
def test_no_rows_have_a_reason_and_rows_have_none(wrong: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="reason"):
        RowScope(*wrong)
    assert no_rows("it shows nothing").text == "none: it shows nothing"
    assert OWN.text == "own"
