"""The route that edits the basic information of a customer, and what an outdated edit is told (R060)."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from chassis.privacy.masking import HIDDEN
from chassis.privacy.tokens import Caller
from chassis.web import Asking, CommandBody, DatedBody, Dependencies, Problem, entity_tag, refusals, tagged
from chassis.web.formats import StatedDay
from chassis.write.deciding import (
    CommandContext,
    CommandKeyReused,
    Outcome,
    TooManyConflicts,
    VersionMismatch,
)
from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from customer.application import CustomerService
from customer.claims import ClaimedTooOften, IdentityNumberKnown
from customer.domain.commands import EditDetails
from customer.domain.events import DETAILS, IDENTITY, PROFILE_FIELDS, CustomerEvent, Detail, ProfileField
from customer.domain.refusals import CustomerIsErased, CustomerNotRegistered
from customer.done import done
from customer.editing import EditOutdated, FieldCompared
from customer.facts import PROFILE
from customer.normalising import DetailInvalid
from customer.queries.presenting import mask_of
from customer.selecting import may_of
from customer.shapes import Done, LongText, Text

CustomerPath = Annotated[UUID, Path(description="the customer")]


class DetailChanges(BaseModel):
    """The details that change, and null where there is none any more. A detail that is left out stays as it is."""

    name: Text | SkipJsonSchema[None] = Field(default=None, examples=["张伟"])
    phone: Text | None = None
    email: Text | None = None
    address: LongText | None = None
    born_on: StatedDay | None = None
    identity_number: Text | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        changes = self.changes()
        if not changes:
            raise ValueError("no detail changes")
        if changes.get("name", "") is None:
            raise ValueError("a customer has a name")
        return self

    def changes(self) -> dict[Detail, str | None]:
        """By detail that is stated, its value."""
        stated = {field: getattr(self, field) for field in DETAILS if field in self.model_fields_set}
        return {field: None if value is None else str(value) for field, value in stated.items()}


class EditDetailsBody(DatedBody, DetailChanges):
    """What staff change of the basic information."""


class FieldComparedShown(BaseModel):
    """A field that the caller edits, or that was changed since: what the caller had read (`base`), what stands (`theirs`), both masked as
    everywhere, and what the caller wants (`mine`). `conflict`: it was changed and is edited, so a person decides."""

    field: Literal[Detail, ProfileField] = Field(examples=["phone"])
    base: str | None = Field(examples=["138****1234"])
    theirs: str | None = Field(examples=["139****5678"])
    mine: str | None = Field(examples=["13700001111"])
    edited: bool
    conflict: bool


class EditConflict(Problem):
    """The customer was changed since the caller read it. `etag` is its version now, for `If-Match`.

    `proposal` is the body with what does not conflict, to be sent by PATCH as it is to `/customers/{customer_id}/details` or `/profile`,
    with `etag` and a key of its own; null where all of it conflicts. All three are null where the caller names a version that there never was.
    """

    etag: str | None = Field(default=None, examples=['"7"'])
    fields: list[FieldComparedShown] | None = None
    proposal: dict[str, Any] | None = Field(default=None, examples=[{"email": "zhang.wei@example.com"}])


OUTDATED: Final[dict[int | str, dict[str, Any]]] = {
    412: {**refusals(VersionMismatch)[412], "model": EditConflict}
}
"""For `responses` of a route that edits fields of a customer."""
_EDITED: Final[dict[int | str, dict[str, Any]]] = {
    **tagged("customer"),
    **refusals(CustomerNotRegistered),
    **refusals(CustomerIsErased, IdentityNumberKnown, ClaimedTooOften, TooManyConflicts),
    **refusals(CommandKeyReused, DetailInvalid),
    **OUTDATED,
}


async def edited(
    outcome: Awaitable[Outcome[CustomerEvent]], caller: Caller, body: CommandBody
) -> Outcome[CustomerEvent]:
    """The outcome of an edit; where it is outdated, the refusal says what was changed since, as the caller may see it."""
    try:
        return await outcome
    except EditOutdated as outdated:
        may = may_of(caller)
        outdated.more = {
            "etag": entity_tag(outdated.actual),
            "fields": [_shown(one, outdated.kind, may).model_dump() for one in outdated.fields],
            "proposal": _proposal(outdated.fields, body),
        }
        raise


def _shown(one: FieldCompared, kind: str, may: frozenset[str]) -> FieldComparedShown:
    def masked(value: str | None) -> str | None:
        if one.field in PROFILE_FIELDS:
            return value if value is None or PROFILE in may else HIDDEN
        return mask_of(one.field, kind)(value)

    return FieldComparedShown.model_validate(
        {
            "field": one.field,
            "base": masked(one.base),
            "theirs": masked(one.theirs),
            "mine": one.mine,
            "edited": one.edited,
            "conflict": one.conflict,
        }
    )


def _proposal(fields: tuple[FieldCompared, ...], body: CommandBody) -> dict[str, Any] | None:
    """The body without what conflicts; of one that replaces a group of details, what is left out of it is null.

    A date of birth and an identity number are judged together, so neither is proposed where one of them conflicts.
    """
    conflicting: set[str] = {one.field for one in fields if one.conflict}
    if conflicting & IDENTITY:
        conflicting |= IDENTITY
    left = {one.field: one.mine for one in fields if one.edited and one.field not in conflicting}
    stated = body.model_dump(mode="json", exclude_unset=True)
    rest = {name: value for name, value in stated.items() if name not in conflicting}
    return {**rest, **left} if left else None


def add_edits(
    router: APIRouter,
    service: CustomerService,
    dependencies: Dependencies,
    identified: Callable[[Caller, Awaitable[Outcome[CustomerEvent]]], Awaitable[Outcome[CustomerEvent]]],
) -> None:
    """Adds the route that edits the basic information. `identified` tells who has an identity number already within scope alone."""
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]
    Expected = Annotated[int, Depends(dependencies.expected_version)]

    @router.patch("/customers/{customer_id}/details", responses=_EDITED)
    async def edit_details(
        response: Response,
        caller: Asking,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: EditDetailsBody,
    ) -> Done:
        """Edits the basic information of a customer, any details at once, and leaves the others (R060). What was saved already
        changes nothing. A number that a source stated while it was another customer's is this customer's once it is stated again here."""
        edit = service.edit(customer_id, EditDetails(body.changes()), context, version)
        return done(response, await edited(identified(caller, edit), caller, body))
