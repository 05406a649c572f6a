"""The routes of the extended profiles of persons (扩展资料)."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from chassis.privacy.keys import ERASED
from chassis.privacy.masking import HIDDEN
from chassis.web import (
    Asking,
    DatedBody,
    Dependencies,
    Page,
    Paging,
    cursor,
    cursor_values,
    entity_tag,
    paging,
    refusals,
    tagged,
)
from chassis.web.formats import Day, Instant
from chassis.web.paging import CursorInvalid
from chassis.web.problems import RequestInvalid
from chassis.write.deciding import (
    CommandContext,
    CommandKeyReused,
    SubjectUnknown,
    TooManyConflicts,
)
from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, Field, StringConstraints, WithJsonSchema, model_validator

from customer.application import CustomerService
from customer.domain.events import PROFILE_FIELDS, ProfileExtended, ProfileField
from customer.domain.profile import DICTIONARIES
from customer.domain.refusals import (
    CustomerIsErased,
    CustomerNotRegistered,
    ProfileOfCompany,
    ProfileValueUnknown,
    TooManyProfileChanges,
)
from customer.done import done
from customer.edit_routes import OUTDATED, edited
from customer.facts import PROFILE
from customer.profiles import ProfileFieldThen
from customer.selecting import may_of
from customer.shapes import AtInstant, Done, KnownAt, require_past

_CODE: Final = StringConstraints(pattern=r"^[a-z][a-z-]{0,63}$")


def _codes(field: ProfileField) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": [one.code for one in DICTIONARIES[field]]})


Occupation = Annotated[str, _CODE, _codes("occupation")]
MaritalStatus = Annotated[str, _CODE, _codes("marital_status")]
FamilyStructure = Annotated[str, _CODE, _codes("family_structure")]
Children = Annotated[str, _CODE, _codes("children")]
Education = Annotated[str, _CODE, _codes("education")]


class ProfileChanges(BaseModel):
    """The fields that change, each with a code of `GET /profile-fields`, or null where it is no longer known. A field that is left out
    stays as it is."""

    occupation: Occupation | None = Field(default=None, examples=["teacher"])
    marital_status: MaritalStatus | None = Field(default=None, examples=["married"])
    family_structure: FamilyStructure | None = Field(default=None, examples=["nuclear"])
    children: Children | None = Field(default=None, examples=["one"])
    education: Education | None = Field(default=None, examples=["bachelor"])

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.changes():
            raise ValueError("no field changes")
        return self

    def changes(self) -> dict[ProfileField, str | None]:
        """By field that is stated, its code."""
        return {field: getattr(self, field) for field in PROFILE_FIELDS if field in self.model_fields_set}


class ExtendProfileBody(DatedBody, ProfileChanges):
    """What staff note of a person, and how the bank learned it. `effective_at`: from when it is so."""

    channel: Literal["counter", "phone", "visit", "online"]


class ProfileValue(BaseModel):
    """A field of a profile from `since` on: `value` is null where it is not known, and `***` where you may not see it or it was erased.

    Who recorded it, when, why, and how the bank learned it; null where nothing ever was.
    """

    field: ProfileField = Field(examples=["occupation"])
    value: str | None = Field(examples=["teacher"])
    since: Instant | None
    recorded_at: Instant | None
    channel: Literal["counter", "phone", "visit", "online"] | None
    actor: str | None
    post: str | None
    reason: str | None
    sequence: int | None


class ProfilePage(Page[ProfileValue]):
    """Each field at `at`, of what was recorded up to `known_at`; they fit into one page."""

    at: datetime
    known_at: datetime


class ProfileHistory(Page[ProfileValue]):
    """A page of the changes of a field, in the order in which they were recorded."""


class ProfileCodeShown(BaseModel):
    """A code of the dictionary of a field, for what is recorded from the business date `since` on and before `until`."""

    field: ProfileField = Field(examples=["occupation"])
    code: str = Field(examples=["teacher"])
    zh: str = Field(examples=["教师"])
    en: str = Field(examples=["teacher"])
    since: Day
    until: Day | None


class ProfileCodePage(Page[ProfileCodeShown]):
    """All codes of all fields; they fit into one page."""


CustomerPath = Annotated[UUID, Path(description="the customer")]
FieldPath = Annotated[ProfileField, Path(description="the field of the profile")]
Paged = Annotated[Paging, Depends(paging)]
_EXTENDED: Final[dict[int | str, dict[str, Any]]] = {
    **tagged("customer"),
    **refusals(CustomerNotRegistered),
    **refusals(CustomerIsErased, ProfileOfCompany, TooManyProfileChanges, TooManyConflicts),
    **OUTDATED,
    **refusals(CommandKeyReused, ProfileValueUnknown),
}
_SHOWN: Final[dict[int | str, dict[str, Any]]] = {
    **tagged("customer"),
    **refusals(CustomerNotRegistered, SubjectUnknown, RequestInvalid),
}


def add_profiles(router: APIRouter, service: CustomerService, dependencies: Dependencies) -> None:
    """Adds the routes of the extended profiles of persons."""
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]
    Expected = Annotated[int, Depends(dependencies.expected_version)]

    @router.patch("/customers/{customer_id}/profile", responses=_EXTENDED)
    async def extend_profile(
        response: Response,
        caller: Asking,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: ExtendProfileBody,
    ) -> Done:
        """Notes more of a person than the basic information (R016). To save what is there changes nothing."""
        extended = service.extend_profile(customer_id, body.changes(), body.channel, context, version)
        return done(response, await edited(extended, caller, body))

    @router.get("/customers/{customer_id}/profile", responses=_SHOWN)
    async def get_profile(
        response: Response,
        caller: Asking,
        customer_id: CustomerPath,
        at: AtInstant = None,
        known_at: KnownAt = None,
    ) -> ProfilePage:
        """The extended profile at a time, as it was known at another. The ETag is the version that a change must name in `If-Match`."""
        now = service.clock.now()
        require_past(now, at, known_at)
        found = await service.profiles.then(customer_id, at, known_at, now)
        response.headers["ETag"] = entity_tag(found.version)
        items = [_shown(one, open_=PROFILE in may_of(caller)) for one in found.fields]
        return ProfilePage(items=items, next=None, at=found.at, known_at=found.known_at)

    @router.get(
        "/customers/{customer_id}/profile/{field}/history",
        responses=refusals(CustomerNotRegistered, SubjectUnknown, CursorInvalid),
    )
    async def list_profile_history(
        caller: Asking, customer_id: CustomerPath, field: FieldPath, page: Paged
    ) -> ProfileHistory:
        """The history of a field of a profile: what it was, from when on, and who recorded it when, how and why."""
        after = 0 if page.after is None else cursor_values(page.after, int)[0]
        found = await service.profiles.history(customer_id, field, after, page.limit)
        items = [_shown(one, open_=PROFILE in may_of(caller)) for one in found]
        last = items[-1].sequence if len(items) == page.limit else None
        return ProfileHistory(items=items, next=None if last is None else cursor(last))

    @router.get("/profile-fields")
    async def list_profile_fields() -> ProfileCodePage:
        """The fields of a profile with their codes, those that are given up included."""
        codes = [
            ProfileCodeShown(
                field=field,
                code=one.code,
                zh=one.zh,
                en=one.en,
                since=one.since.isoformat(),
                until=None if one.until is None else one.until.isoformat(),
            )
            for field, entries in DICTIONARIES.items()
            for one in entries
        ]
        return ProfileCodePage(items=codes, next=None)


def _shown(one: ProfileFieldThen, *, open_: bool) -> ProfileValue:
    change, recorded = one.change, one.recorded
    if change is None or recorded is None:
        return ProfileValue(
            field=one.field,
            **dict.fromkeys(
                ("value", "since", "recorded_at", "channel", "actor", "post", "reason", "sequence")
            ),
        )
    shown = change.value if open_ or change.value in {None, ERASED} else HIDDEN
    return ProfileValue(
        field=one.field,
        value=shown,
        since=change.at.isoformat(),
        recorded_at=change.recorded_at.isoformat(),
        channel=recorded.event.channel if isinstance(recorded.event, ProfileExtended) else None,
        actor=recorded.metadata.actor,
        post=recorded.metadata.post,
        reason=recorded.metadata.reason,
        sequence=change.sequence,
    )
