"""What may be asked of the lists of a context, published: the JSON schema of conditions, and each list with its fields.

The schema says all that it can of a condition. What depends on a list (its fields and their values), the number of
clauses, the depth, and the first and last day are checked when the condition is asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import BaseModel
from pydantic import Field as Described

from chassis.conditions import CONDITION, DataClass, Field, Type
from chassis.lists.declaring import Listing
from chassis.lists.routes import Sentence
from chassis.web import Asking

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
CONDITION_NAME: Final = "Condition"
"""The component of an OpenAPI document that is the schema of a condition."""

EXAMPLES: Final[Mapping[str, Any]] = {
    "condition": {"$ref": f"#/$defs/{CONDITION_NAME}"},
    "indexed_currencies": ["CNY"],
    "roles": ["relationship-manager"],
    "routes": ["list_customers"],
    "searched": ["phone"],
    "sorts": ["branch"],
}
"""Examples of the names of fields here, for the `EXAMPLES` of a service."""

Permissions = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class AskedList:
    """A list as a service lets it be asked.

    `routes`: the names of the routes that take conditions on it. `permissions`: what each role may ask for beyond the
    fields that everybody may ask for who may call one of them.
    """

    listing: Listing
    routes: tuple[str, ...]
    permissions: Permissions

    def asking(self, callers: Permissions) -> frozenset[str]:
        """The roles that may call a route of the list; `callers` are those of each route."""
        return frozenset[str]().union(*(callers[route] for route in self.routes))

    def may_ask(self, field: Field, callers: Permissions) -> frozenset[str]:
        """The roles that may ask for a field."""
        return frozenset(
            role
            for role in self.asking(callers)
            if field.permission is None or field.permission in self.permissions.get(role, ())
        )


class ValueAsked(BaseModel):
    """A value that a field may have, and what it is called."""

    value: str
    label: Sentence


class FieldAsked(BaseModel):
    """A field that a condition may ask for. `roles` may ask for it; `permitted` says whether the caller may."""

    name: str
    type: Type
    label: Sentence
    data_class: DataClass
    values: list[ValueAsked]
    roles: list[str]
    permitted: bool


class ListAsked(BaseModel):
    """A list, and what it can be asked for.

    `sorts`: what it can be sorted by. `indexed_currencies`: those of which amounts have an index. `searched`: what is sealed,
    and found by its whole value.
    """

    name: str
    routes: list[str]
    fields: list[FieldAsked]
    sorts: list[str]
    indexed_currencies: list[str]
    searched: list[str]


class Conditions(BaseModel):
    """The JSON schema of a condition, and the lists of which one can be asked."""

    condition: Annotated[dict[str, Any], Described(description="a JSON schema, draft 2020-12")]
    lists: list[ListAsked]


def condition_schema() -> dict[str, Any]:
    """The JSON schema of a condition, standing alone."""
    return {"$schema": DIALECT, **CONDITION.json_schema()}


def condition_components() -> dict[str, Any]:
    """The schema of a condition, and of what it is made of, as components of an OpenAPI document."""
    found: dict[str, Any] = CONDITION.json_schema(ref_template="#/components/schemas/{model}")["$defs"]
    return found


def described(lists: Sequence[AskedList], callers: Permissions, roles: frozenset[str]) -> Iterator[ListAsked]:
    """The lists as a caller with these roles is told of them. `callers`: the roles that may call each route."""
    for one in lists:
        listing = one.listing
        yield ListAsked(
            name=listing.name,
            routes=list(one.routes),
            fields=[_field(one, each, callers, roles) for each in listing.fields.values()],
            sorts=list(listing.sorts),
            indexed_currencies=list(listing.currencies),
            searched=list(listing.searched),
        )


def _field(of: AskedList, field: Field, callers: Permissions, roles: frozenset[str]) -> FieldAsked:
    asking = of.may_ask(field, callers)
    return FieldAsked(
        name=field.name,
        type=field.type,
        label=Sentence.of(field.label),
        data_class=field.data_class,
        values=[ValueAsked(value=name, label=Sentence.of(label)) for name, label in field.values.items()],
        roles=sorted(asking),
        permitted=not asking.isdisjoint(roles),
    )


def add_conditions(router: APIRouter, lists: Sequence[AskedList], callers: Permissions, context: str) -> None:
    """Adds the route that says what may be asked of the lists of `context`; `permissions.py` names it.

    It is `get_<context>_conditions`.
    """

    @router.get(f"/conditions/{context}", name=f"get_{context}_conditions")
    async def get_conditions(caller: Asking) -> Conditions:
        """What a condition can ask for: its JSON schema, and the fields of each list with who may ask for them."""
        told = list(described(lists, callers, frozenset(caller.roles)))
        return Conditions(condition=condition_schema(), lists=told)
