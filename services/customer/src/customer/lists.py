"""The lists of customers, and which customers a caller may see.

`CUSTOMERS_LIST` is over the customers themselves, `FACTS_LIST` over what is derived of them.
"""

from typing import Final

from chassis.conditions import DataClass, Field, Fields, Label, Type
from chassis.conditions.language import IsAmong, IsKnown, Not, Or
from chassis.lists import Ago, Listing, Scope
from chassis.lists.describing import AskedList
from chassis.privacy.tokens import Caller
from contracts.roles import (
    ADMINISTRATOR,
    ANALYST,
    AUDITOR,
    COMPLIANCE,
    OPERATOR,
    RELATIONSHIP_MANAGER,
    SERVICE,
    TELLER,
)

from customer.facts import FIELDS, PERMISSIONS

BRANCH: Final = "branch"
CURRENCIES_INDEXED: Final = ("CNY", "USD")
"""Conditions on amounts of other currencies read the documents."""
_AMOUNTS: Final = ("aum", "liabilities", "net_worth", "deposits", "wealth", "loans")
_LAST_MONTH: Final = Ago("aum_month_average", 1, "CNY")

FACTS_LIST: Final = Listing(
    name="facts",
    view="customer_facts",
    collection="facts",
    fields=FIELDS,
    sorts=(
        *(f"{amount}.{currency}" for amount in _AMOUNTS for currency in CURRENCIES_INDEXED),
        *("branch", "accounts", "cards", "first_opened_on", "last_movement_on"),
    ),
    currencies=CURRENCIES_INDEXED,
    together=(
        ("last_movement_on", "aum.CNY"),
        (_LAST_MONTH, "aum.CNY"),
        (_LAST_MONTH, Ago("aum_month_end", 12, "CNY")),
        (Ago("aum_month_end", 3, "CNY"), "aum.CNY"),
    ),
    behind=(("aum.CNY", "branch", "first_opened_on"), ("deposits.CNY", "kind")),
    searched=("phone", "email", "identity_number"),
)
CUSTOMERS_LIST: Final = Listing(
    name="customers",
    view="customers",
    collection="customers",
    fields=Fields(
        [
            *(FIELDS[name] for name in ("kind", "origin", BRANCH, "questions")),
            Field(
                "review_due_on",
                Type.DAY,
                Label("回顾到期日", "day of the next review"),
                "review.due_on",
                DataClass.INTERNAL,
            ),
        ]
    ),
    sorts=(BRANCH, "review_due_on"),
)

TAGS_LIST: Final = Listing(
    name="tags",
    view="tags",
    collection="tags",
    fields=Fields(
        [
            Field(
                "kind",
                Type.CHOICE,
                Label("标签类型", "kind of tag"),
                "kind",
                DataClass.INTERNAL,
                {"dictionary": Label("标签库", "dictionary"), "free": Label("自由标签", "free")},
            ),
            Field(
                "status",
                Type.CHOICE,
                Label("标签状态", "status of the tag"),
                "status",
                DataClass.INTERNAL,
                {
                    "active": Label("使用中", "active"),
                    "merged": Label("已合并", "merged"),
                    "retired": Label("已停用", "retired"),
                },
            ),
            Field("name", Type.CHOICE, Label("标签名称", "name of the tag"), "name", DataClass.INTERNAL),
        ]
    ),
    sorts=("name",),
)
"""Tags are no personal data, so everybody sees all of them; a route asks for what its parameters say."""

_OF_A_BRANCH: Final = frozenset({RELATIONSHIP_MANAGER, TELLER})
_OF_THE_BANK: Final = frozenset({ADMINISTRATOR, COMPLIANCE, AUDITOR, ANALYST, OPERATOR, SERVICE})


SCOPE: Final = (
    "A relationship manager or teller sees and changes the customers of the branch that its post names (`BRANCH/POST`), and\n"
    "those that have no branch yet. Any other customer is as if it were not there: 404, on no page, in no count. The other\n"
    "roles see all customers. Until it has a customer, an account is of the branch that its source states."
)
"""The rule of `scope_of` in words, for the page of routes."""


def scope_of(caller: Caller) -> Scope:
    """The customers that a caller may see (R083 to R085).

    A relationship manager or teller sees those of the branch that its post names, `BRANCH/POST`, and those that have no
    branch yet. The other roles see all. This is the rule until the access context knows who looks after whom.
    """
    if caller.roles & _OF_THE_BANK:
        return Scope.all()
    if not caller.roles & _OF_A_BRANCH:
        return Scope.nothing()
    of_nobody = Not(condition=IsKnown(field=BRANCH))
    branch = branch_of(caller)
    if branch is None:
        return Scope.where(of_nobody)
    return Scope.where(Or(conditions=(IsAmong(field=BRANCH, values=(branch,)), of_nobody)))


def branch_of(caller: Caller) -> str | None:
    """The branch that a caller's post names, `BRANCH/POST`."""
    branch, named, _ = (caller.post or "").partition("/")
    return branch if named and branch else None


ASKED: Final = (
    AskedList(CUSTOMERS_LIST, ("list_customers",), PERMISSIONS),
    AskedList(
        FACTS_LIST,
        (
            "select_customers",
            "count_customers",
            "funnel_customers",
            "explain_customer",
            "watch_customers",
            "prepare_branch_assignment",
            "prepare_tagging",
            "prepare_tier_overrides",
        ),
        PERMISSIONS,
    ),
)
"""The lists as their routes take conditions on them."""
