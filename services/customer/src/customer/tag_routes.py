"""The routes of tags (标签), and of the tags of customers."""

from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from chassis.bulk import BulkOversized
from chassis.bulk.routes import PREPARED, BulkAnswer, prepared
from chassis.lists import ConditionInvalid, FieldNotPermitted, QueryTooSlow, question
from chassis.web import (
    Asking,
    CommandBody,
    DatedBody,
    DatedExplainedBody,
    Dependencies,
    ExplainedBody,
    Page,
    Paging,
    cursor,
    cursor_values,
    entity_tag,
    paging,
    refusals,
    tagged,
)
from chassis.web.formats import Instant
from chassis.web.paging import CursorInvalid
from chassis.write.deciding import (
    CommandContext,
    CommandKeyReused,
    Outcome,
    TooManyConflicts,
    VersionMismatch,
)
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from customer.application import CustomerService
from customer.catalogue import CONTEXT
from customer.domain.refusals import CustomerIsErased, CustomerNotRegistered, TagOfAnother, TooManyTags
from customer.domain.spelling import key_of
from customer.domain.tag import (
    NAME_CHARACTERS_MAX,
    TagEvent,
    TagIsMerged,
    TagIsRetired,
    TagMergeCircular,
    TagNameTaken,
    TagUnknown,
    TooManyTagNames,
    TooManyTagsMerged,
    code_of,
    looks_like_code,
)
from customer.done import add_outcome, done
from customer.lists import FACTS_LIST, scope_of
from customer.normalising import name as normalised_name
from customer.selecting import may_of
from customer.shapes import Done, SelectionBody
from customer.tags import TAGS_AT_ONCE_MAX, TagsRefused

TagPath = Annotated[str, Path(pattern=r"^tag-[a-z2-7]{16}$", description="the code of the tag")]
CustomerPath = Annotated[UUID, Path(description="the customer")]
Paged = Annotated[Paging, Depends(paging)]


def _readable(text: str) -> str:
    name = normalised_name(text)
    if len(name) > NAME_CHARACTERS_MAX:
        raise ValueError(f"a name of more than {NAME_CHARACTERS_MAX} characters")
    if not key_of(name):
        raise ValueError("a name of which nothing is seen")
    return name


_Said = Annotated[
    str,
    StringConstraints(min_length=1, max_length=NAME_CHARACTERS_MAX, pattern=r"^[^\x00-\x1f\x7f]+$"),
    AfterValidator(_readable),
]


def _no_code(text: str) -> str:
    if looks_like_code(text):
        raise ValueError("a name that looks like a code")
    return text


TagName = Annotated[_Said, AfterValidator(_no_code)]
"""What a tag is called. Two spellings that differ in nothing that is seen are one name."""
TagSaid = Annotated[_Said, Field(description="a tag by its code, or by a name that it has or had")]
Tags = Annotated[list[TagSaid], Field(max_length=TAGS_AT_ONCE_MAX)]


class DefineTagBody(CommandBody):
    """A tag for the dictionary."""

    name: TagName = Field(examples=["房贷客户"])


class RenameTagBody(DefineTagBody):
    """Another name of a tag."""


class MergeTagBody(ExplainedBody):
    """The tag that stands for this one from now on."""

    into: TagSaid = Field(examples=["高净值潜力客户"])


class TagChange(BaseModel):
    """Which tags are added and removed, all or none."""

    add: Tags = Field(default=[], examples=[["房贷客户", "高净值潜力客户"]])
    remove: Tags = Field(default=[], examples=[["学生"]])

    @model_validator(mode="after")
    def _anything(self) -> Self:
        if not self.add and not self.remove:
            raise ValueError("neither a tag to add nor one to remove")
        return self


class ChangeTagsBody(DatedBody, TagChange):
    """What is changed of the tags of a customer."""


class TagsByRuleBody(ChangeTagsBody):
    """What a rule of the system changes of the tags of a customer."""

    rule: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$")] = Field(
        examples=["loan-granted"]
    )


class RemoveTagsBody(DatedExplainedBody):
    """Tags that are removed, whoever added them."""

    remove: Tags = Field(min_length=1, examples=[["房贷客户"]])


class TaggingBody(SelectionBody, TagChange):
    """What is changed of the tags of customers, and of which: these, or those who meet a condition on their facts now."""


class TagDone(BaseModel):
    """The result of a command to a tag: its version after it (its ETag), and the position of its last event."""

    tag: str
    version: int
    position: int


class TagShown(BaseModel):
    """A tag. `former`: the names that it had, which no other tag gets. `into`: the tag that it was merged into, which may be
    merged itself."""

    tag: str
    version: int
    name: str = Field(examples=["房贷客户"])
    former: list[str] = Field(examples=[["房贷"]])
    kind: Literal["dictionary", "free"]
    status: Literal["active", "merged", "retired"] = Field(examples=["active"])
    into: str | None = Field(examples=["tag-ekujt3eskqqgg5hp"])
    defined_at: Instant
    changed_at: Instant


class TagPage(Page[TagShown]):
    """A page of tags by name."""


class TagEventShown(BaseModel):
    """That a customer was given a tag, or lost it: by whom, when and why; by which rule, where it was no person. The tag is the one
    that was added then, under its present name."""

    event_id: UUID
    sequence: int
    change: Literal["added", "removed"]
    tag: str
    name: str = Field(examples=["房贷客户"])
    rule: str | None
    recorded_at: Instant
    effective_at: Instant
    actor: str
    post: str | None
    reason: str | None


class TagEventPage(Page[TagEventShown]):
    """A page of the history of a customer's tags, oldest first."""


_VERSIONED: Final = tagged("tag")
_DEFINED: Final[dict[int | str, dict[str, Any]]] = {
    **tagged("tag", at="where the tag is"),
    **refusals(TagNameTaken, CommandKeyReused, TooManyConflicts),
}
_CHANGED: Final = {
    **_VERSIONED,
    **refusals(TagUnknown, VersionMismatch, TooManyConflicts, TagIsMerged, CommandKeyReused),
}
_TAGGED: Final[dict[int | str, dict[str, Any]]] = {
    **tagged("customer"),
    **refusals(
        *(CustomerNotRegistered, TagsRefused, TagOfAnother, TooManyTags),
        *(CustomerIsErased, CommandKeyReused, TooManyConflicts),
    ),
}


def add_tags(router: APIRouter, service: CustomerService, dependencies: Dependencies) -> None:
    """Adds the routes of tags and of the tags of customers."""
    _add_tag_commands(router, service, dependencies)
    _add_customer_commands(router, service, dependencies)
    _add_questions(router, service, dependencies)


def _add_tag_commands(router: APIRouter, service: CustomerService, dependencies: Dependencies) -> None:
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]
    Expected = Annotated[int, Depends(dependencies.expected_version)]

    @router.post(
        "/tags",
        status_code=201,
        responses=_DEFINED,
    )
    async def define_tag(response: Response, context: Commanding, body: DefineTagBody) -> TagDone:
        """Defines a tag of the dictionary. A name that another tag has or had is refused, and that tag is named."""
        defined = _done(
            response, code_of(body.name), await service.tagging.tags.define(body.name, "dictionary", context)
        )
        response.headers["Location"] = f"/tags/{defined.tag}"
        return defined

    @router.put(
        "/tags/{tag}/name",
        responses={**_CHANGED, **refusals(TagNameTaken, TooManyTagNames, TagIsMerged, TooManyConflicts)},
    )
    async def rename_tag(
        response: Response, context: Commanding, version: Expected, tag: TagPath, body: RenameTagBody
    ) -> TagDone:
        """Gives a tag another name. Its code stays, and so do the customers who have it and the conditions that ask for it; the
        former name means this tag for ever."""
        return _done(response, tag, await service.tagging.tags.rename(tag, body.name, context, version))

    @router.post(
        "/tags/{tag}/merge",
        responses={
            **_CHANGED,
            **refusals(TagIsRetired, TagMergeCircular, TooManyTagsMerged, TagIsMerged, TooManyConflicts),
        },
    )
    async def merge_tag(
        response: Response, context: Commanding, version: Expected, tag: TagPath, body: MergeTagBody
    ) -> TagDone:
        """Merges a tag into another one, for ever: who has it counts as having that one, and its names mean that one."""
        return _done(response, tag, await service.tagging.tags.merge(tag, body.into, context, version))

    @router.post("/tags/{tag}/retire", responses=_CHANGED)
    async def retire_tag(
        response: Response, context: Commanding, version: Expected, tag: TagPath, body: ExplainedBody
    ) -> TagDone:
        """Retires a tag: nobody is given it any more, and who has it keeps it until it is removed."""
        return _done(response, tag, await service.tagging.tags.retire(tag, context, version))

    @router.post("/tags/{tag}/reinstate", responses=_CHANGED)
    async def reinstate_tag(
        response: Response, context: Commanding, version: Expected, tag: TagPath, body: ExplainedBody
    ) -> TagDone:
        """Takes back that a tag was retired: customers are given it again."""
        return _done(response, tag, await service.tagging.tags.reinstate(tag, context, version))

    @router.post("/tags/{tag}/accept", responses=_CHANGED)
    async def accept_tag(
        response: Response, context: Commanding, version: Expected, tag: TagPath, body: CommandBody
    ) -> TagDone:
        """Puts a free tag into the dictionary. Its code, its names and who has it stay."""
        return _done(response, tag, await service.tagging.tags.accept(tag, context, version))


def _add_customer_commands(router: APIRouter, service: CustomerService, dependencies: Dependencies) -> None:
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]

    @router.post("/customers/{customer_id}/tags", responses=_TAGGED)
    async def change_tags(
        response: Response, context: Commanding, customer_id: CustomerPath, body: ChangeTagsBody
    ) -> Done:
        """Adds and removes tags, all or none (R007, R061). A name that no tag has becomes a free tag; what is there already gives
        no event, and a tag that a rule of the system added is not removed here."""
        return done(response, await service.tagging.change(customer_id, body.add, body.remove, context))

    @router.post("/customers/{customer_id}/tags/by-rule", responses=_TAGGED)
    async def change_tags_by_rule(
        response: Response, context: Commanding, customer_id: CustomerPath, body: TagsByRuleBody
    ) -> Done:
        """Adds and removes tags as a rule of the system says, all or none. It removes only what the same rule added."""
        changed = service.tagging.change(customer_id, body.add, body.remove, context, rule=body.rule)
        return done(response, await changed)

    @router.post("/customers/{customer_id}/tags/remove", responses=_TAGGED)
    async def remove_tags(
        response: Response, context: Commanding, customer_id: CustomerPath, body: RemoveTagsBody
    ) -> Done:
        """Removes tags whoever added them, those of rules of the system too. The rule may add them again."""
        changed = service.tagging.change(customer_id, (), body.remove, context, overriding=True)
        return done(response, await changed)

    @router.post(
        "/customers/taggings",
        status_code=201,
        responses={
            **PREPARED,
            **refusals(ConditionInvalid, FieldNotPermitted, QueryTooSlow, CommandKeyReused, BulkOversized),
            **refusals(TooManyConflicts, CustomerNotRegistered, TagsRefused),
        },
    )
    async def prepare_tagging(
        response: Response, context: Commanding, caller: Asking, body: TaggingBody
    ) -> BulkAnswer:
        """Lists customers whose tags are to be changed, of a condition those who meet it now. Nothing is done until the run is
        started."""
        asked = question(FACTS_LIST, may_of(caller), body.where)
        those = await service.to_change(scope_of(caller), asked, body.customers)
        run = await service.tagging.prepare(
            service.bulk,
            body.add,
            body.remove,
            those.customers,
            context,
            asked=[body.add, body.remove, *those.asked],
            selection=those.words,
        )
        return prepared(response, CONTEXT, run)


def _add_questions(router: APIRouter, service: CustomerService, dependencies: Dependencies) -> None:
    asking = [Depends(dependencies.at_least)]

    @router.get("/tags", dependencies=asking, responses=refusals(CursorInvalid, QueryTooSlow))
    async def list_tags(
        caller: Asking,
        page: Paged,
        kind: Annotated[
            Literal["dictionary", "free"] | None,
            Query(description="only of the dictionary, or only free ones"),
        ] = None,
        status: Annotated[
            Literal["active", "merged", "retired"] | None, Query(description="only of this status")
        ] = None,
    ) -> TagPage:
        """All tags by name."""
        found, following = await service.tagging.page(kind, status, caller.subject, page.limit, page.after)
        return TagPage(items=[TagShown(**one) for one in found], next=following)

    @router.get("/tags/{tag}", dependencies=asking, responses={**_VERSIONED, **refusals(TagUnknown)})
    async def get_tag(response: Response, tag: TagPath) -> TagShown:
        """A tag. The ETag is the version that a change must name in `If-Match`."""
        found = TagShown(**await service.tagging.tag(tag))
        response.headers["ETag"] = entity_tag(found.version)
        return found

    @router.get(
        "/customers/{customer_id}/tags/history",
        dependencies=asking,
        responses=refusals(CustomerNotRegistered, CursorInvalid),
    )
    async def list_tag_history(customer_id: CustomerPath, page: Paged) -> TagEventPage:
        """Which tags the customer was given and lost, by whom, when and why, oldest first."""
        after = 0 if page.after is None else cursor_values(page.after, int)[0]
        found = await service.tagging.history(customer_id, after, page.limit)
        following = cursor(found[-1]["sequence"]) if len(found) == page.limit else None
        return TagEventPage(items=[TagEventShown(**one) for one in found], next=following)


def _done(response: Response, tag: str, outcome: Outcome[TagEvent]) -> TagDone:
    add_outcome(response, outcome)
    return TagDone(tag=tag, version=outcome.version, position=outcome.position)
