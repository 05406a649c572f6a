"""The routes of the needs of customers (客户需求)."""

from typing import Annotated, Any, Final, Self
from uuid import UUID

from chassis.web import (
    Asking,
    DatedBody,
    Dependencies,
    Page,
    Paging,
    cursor,
    cursor_values,
    paging,
    refusals,
    tagged,
)
from chassis.web.formats import Day, Id, Instant
from chassis.web.paging import CursorInvalid
from chassis.write.deciding import (
    AlreadyRecorded,
    CommandContext,
    CommandKeyReused,
    Outcome,
    TooManyConflicts,
)
from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, Field, StringConstraints, WithJsonSchema, model_validator

from customer.application import CustomerService
from customer.domain.events import NeedChannel, NeedOutcome
from customer.domain.needs import KINDS
from customer.domain.refusals import (
    CustomerIsErased,
    CustomerNotRegistered,
    NeedChanged,
    NeedKindUnknown,
    NeedNotOpen,
    NeedTooOld,
    TooManyNeeds,
)
from customer.domain.state import Need
from customer.done import add_outcome
from customer.lists import scope_of
from customer.needs import need_of
from customer.shapes import BranchName, Note, Wording

KindCode = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z-]{0,63}$"),
    WithJsonSchema({"type": "string", "enum": [one.code for one in KINDS]}),
]


class NeedStated(BaseModel):
    """What the customer needs: a kind of the dictionary, or one in other words (`kind_text`), and a text."""

    kind: KindCode | None = Field(default=None, examples=["study-abroad"])
    kind_text: Wording | None = Field(default=None, examples=[None])
    text: Note = Field(examples=["咨询留学汇款：每年两次，"])

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.kind is None) == (self.kind_text is None):
            raise ValueError("either kind or kind_text")
        return self

    def said(self) -> Need:
        """As the domain says it."""
        return Need(self.kind, self.kind_text, self.text)


class RecordNeedBody(DatedBody, NeedStated):
    """What the customer needs, and how and where that came up: at `effective_at` by the clock of the device, which may be 60 seconds
    ahead, or now."""

    channel: NeedChannel
    branch: BranchName | None = None


class CorrectNeedBody(DatedBody, NeedStated):
    """What the customer really needs. `corrections`: how often the need was corrected when it was read."""

    corrections: int = Field(ge=0, le=2**31, examples=[0])


class CloseNeedBody(DatedBody):
    """What came of a need: it was fulfilled or not, the customer has it no more (`dropped`), or it was noted by mistake."""

    outcome: NeedOutcome = Field(examples=["fulfilled"])
    text: Note | None = Field(default=None, examples=["已办理"])


class NeedDone(BaseModel):
    """The result of a command to a need: the customer's version after it, and the position of its last event."""

    need_id: UUID
    customer_id: UUID
    version: int
    position: int


class NeedClosedShown(BaseModel):
    """What came of a need, at `at`, stored at `recorded_at`."""

    outcome: NeedOutcome = Field(examples=["fulfilled"])
    text: str | None = Field(examples=["已办理"])
    at: Instant
    recorded_at: Instant


class NeedShown(BaseModel):
    """A need that came up at `at`, and was stored at `recorded_at`; numbers and e-mail addresses in its texts are masked. `closed` is
    null while it is open."""

    need_id: Id
    kind: KindCode | None = Field(examples=["study-abroad"])
    kind_text: str | None = Field(examples=[None])
    text: str = Field(examples=["咨询留学汇款：每年两次"])
    channel: NeedChannel
    branch: str | None
    served_by: str = Field(examples=["teller-7"])
    at: Instant
    recorded_at: Instant
    corrections: int = Field(examples=[0])
    closed: NeedClosedShown | None


class NeedPage(Page[NeedShown]):
    """A page of the needs of a customer, what came up last first."""


class NeedKindShown(BaseModel):
    """A kind of need, for needs that come up from the business date `since` on and before `until`."""

    code: str = Field(examples=["study-abroad"])
    zh: str = Field(examples=["留学金融"])
    en: str = Field(examples=["finance of studies abroad"])
    since: Day
    until: Day | None


class NeedKindPage(Page[NeedKindShown]):
    """All kinds of needs; they fit into one page."""


CustomerPath = Annotated[UUID, Path(description="the customer")]
NeedPath = Annotated[UUID, Path(description="the need")]
Paged = Annotated[Paging, Depends(paging)]
_DONE: Final[dict[int | str, dict[str, Any]]] = {
    **tagged("customer"),
    **refusals(CustomerNotRegistered),
}
_RECORDED: Final = {
    **_DONE,
    **refusals(CustomerIsErased, TooManyNeeds, AlreadyRecorded, TooManyConflicts),
    **refusals(CommandKeyReused, NeedTooOld, NeedKindUnknown),
}
_CORRECTED: Final = {
    **_DONE,
    **refusals(CustomerIsErased, NeedNotOpen, NeedChanged, TooManyConflicts),
    **refusals(CommandKeyReused, NeedKindUnknown),
}
_CLOSED: Final = {
    **_DONE,
    **refusals(CustomerIsErased, NeedNotOpen, TooManyConflicts),
    **refusals(CommandKeyReused),
}


def add_needs(router: APIRouter, service: CustomerService, dependencies: Dependencies) -> None:
    """Adds the routes of the needs of customers."""
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]

    @router.post("/customers/{customer_id}/needs", responses=_RECORDED)
    async def record_need(
        response: Response, context: Commanding, customer_id: CustomerPath, body: RecordNeedBody
    ) -> NeedDone:
        """Records what the customer needs (R065). A device without a connection keeps the request with its key and its time, and sends
        it later, as often as it likes: it is recorded once, with both times."""
        recorded = service.needs.record(customer_id, body.said(), body.channel, body.branch, context)
        return _done(response, need_of(customer_id, context), await recorded)

    @router.post("/customers/{customer_id}/needs/{need_id}/correct", responses=_CORRECTED)
    async def correct_need(
        response: Response,
        context: Commanding,
        customer_id: CustomerPath,
        need_id: NeedPath,
        body: CorrectNeedBody,
    ) -> NeedDone:
        """Corrects what was noted of an open need; refused where somebody else has corrected it since it was read."""
        corrected = service.needs.correct(customer_id, need_id, body.said(), body.corrections, context)
        return _done(response, need_id, await corrected)

    @router.post("/customers/{customer_id}/needs/{need_id}/close", responses=_CLOSED)
    async def close_need(
        response: Response,
        context: Commanding,
        customer_id: CustomerPath,
        need_id: NeedPath,
        body: CloseNeedBody,
    ) -> NeedDone:
        """Closes an open need with what came of it."""
        closed = service.needs.close(customer_id, need_id, body.outcome, body.text, context)
        return _done(response, need_id, await closed)

    @router.get(
        "/customers/{customer_id}/needs",
        dependencies=[Depends(dependencies.at_least)],
        responses=refusals(CustomerNotRegistered, CursorInvalid),
    )
    async def list_needs(caller: Asking, customer_id: CustomerPath, page: Paged) -> NeedPage:
        """What the customer needs and needed, what came up last first, with what came of it (R011)."""
        after = None if page.after is None else cursor_values(page.after, str, str)
        found = await service.needs.page(scope_of(caller), customer_id, after, page.limit)
        last = found[-1] if len(found) == page.limit else None
        following = None if last is None else cursor(last["at"], last["need_id"])
        return NeedPage(items=[NeedShown(**one) for one in found], next=following)

    @router.get("/need-kinds")
    async def list_need_kinds() -> NeedKindPage:
        """The kinds of needs, those that are given up included."""
        kinds = [
            NeedKindShown(
                code=one.code,
                zh=one.zh,
                en=one.en,
                since=one.since.isoformat(),
                until=None if one.until is None else one.until.isoformat(),
            )
            for one in KINDS
        ]
        return NeedKindPage(items=kinds, next=None)


def _done(response: Response, need: UUID, outcome: Outcome[Any]) -> NeedDone:
    add_outcome(response, outcome)
    return NeedDone(
        need_id=need, customer_id=outcome.stream_id, version=outcome.version, position=outcome.position
    )
