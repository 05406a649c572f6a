"""What the customers of each branch add up to: how many there are, and their AUM by currency.

The sums are kept in buckets beside the facts of customers, and hold nothing of a single one.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from hashlib import blake2b
from typing import Final

from chassis.conditions import ConditionRefused, Fields, checked
from chassis.lists import Scope
from chassis.read.documents import Document
from chassis.read.summing import Group, Summed, Sums
from chassis.web import Page, Paging, cursor, cursor_values
from pydantic import BaseModel

from customer.facts import AMOUNTS, FIELDS
from customer.lists import BRANCH
from customer.selecting import AmountsByCurrency

BUCKETS: Final = 256
"""Of 4,000 customers each where there are a million."""
_ORDERED_CHARACTERS_MAX: Final = 200
"""Of a name longer than this, the rest does not fit into a cursor: its order is that of a digest."""
_COUNT: Final = "customers"
_AUM: Final = "aum."
_ONLY_BRANCH: Final = Fields([FIELDS[BRANCH]])


def _summands(facts: Document) -> Iterable[tuple[Group, Mapping[str, int]]]:
    amounts = {_AUM + currency: minor for currency, minor in facts["aum"].items()}
    yield facts[BRANCH], {_COUNT: 1, **amounts}


SUMS: Final = Sums("branches", BUCKETS, (BRANCH, "aum"), _summands)
"""By branch; customers without a branch are a group of their own."""


class BranchFigures(BaseModel):
    """What customers add up to. `aum` is by currency, in integer minor units; a joint account counts in full for each of
    its owners. A sum is exact, and may be larger than 2^53."""

    customer_count: int
    aum: AmountsByCurrency


class FiguresOfBranch(BranchFigures):
    """What the customers of a branch add up to; without a branch, those that have none."""

    branch: str | None


class BranchesPage(Page[FiguresOfBranch]):
    """A page of branches by name, those without one first, and the sum over all branches that you may see.

    `settled`: whether no change was known that is not added yet. Facts are added within seconds after they changed, or a
    minute where those of many customers did.
    """

    all_branches: BranchFigures
    settled: bool


def shows(scope: Scope, on: date) -> Callable[[Group], bool]:
    """Of which branches a scope holds every customer. A scope that asks for more than the branch holds all of none."""
    if scope.condition is not None:
        try:
            checked(scope.condition, _ONLY_BRANCH)
        except ConditionRefused:
            return lambda _: False
    return lambda branch: scope.covers({BRANCH: branch}, _ONLY_BRANCH, on)


def page_of(summed: Summed, may: frozenset[str], page: Paging) -> BranchesPage:
    """A page of what a caller may see; amounts are null where it may not ask for them. Raises CursorInvalid."""
    after = None if page.after is None else cursor_values(page.after, int, str, str)
    wanted = sorted(summed.groups, key=_place)
    shown = [branch for branch in wanted if after is None or _place(branch) > after][: page.limit + 1]
    items = [
        FiguresOfBranch(branch=branch, **_figures([summed.groups[branch]], may))
        for branch in shown[: page.limit]
    ]
    return BranchesPage(
        items=items,
        next=cursor(*_place(items[-1].branch)) if len(shown) > page.limit else None,
        all_branches=BranchFigures(**_figures(summed.groups.values(), may)),
        settled=summed.settled,
    )


def _place(branch: Group) -> tuple[int, str, str]:
    """The place of a branch in the order of pages, short enough for a cursor."""
    if branch is None:
        return 0, "", ""
    digest = blake2b(branch.encode(), digest_size=16).hexdigest()
    return 1, branch[:_ORDERED_CHARACTERS_MAX].replace("\0", "\ufffd"), digest  # a cursor has no NUL


def _figures(groups: Iterable[Mapping[str, int]], may: frozenset[str]) -> Document:
    count, aum = 0, dict[str, int]()
    for group in groups:
        for name, value in group.items():
            if name == _COUNT:
                count += value
            else:
                currency = name.removeprefix(_AUM)
                aum[currency] = aum.get(currency, 0) + value
    return {"customer_count": count, "aum": dict(sorted(aum.items())) if AMOUNTS in may else None}
