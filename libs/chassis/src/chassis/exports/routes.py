"""The routes of a context's exports: asked for, proposed, listed by who asked, shown, and given as a file."""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field

from chassis.conditions.language import CalendarDay
from chassis.exports.approving import propose_export
from chassis.exports.deciding import (
    ROWS_MAX,
    ExportListUnknown,
    ExportNotMade,
    ExportNotPermitted,
    ExportNotWaiting,
    ExportOversized,
    ExportRightsChanged,
    ExportUnknown,
    TooManyExports,
)
from chassis.exports.running import Asked, Exports, ExportShown
from chassis.files.deciding import FileGone
from chassis.files.routes import READ, FileResponse
from chassis.lists import ConditionInvalid, FieldNotPermitted, QueryTooSlow, SortInvalid
from chassis.lists.asking import SORT_CHARACTERS_MAX, WHERE_CHARACTERS_MAX
from chassis.privacy.tokens import Caller
from chassis.proposals import FourEyes
from chassis.proposals.routes import PROPOSED, ProposalAnswer, proposed
from chassis.web import Dependencies, ExplainedBody, consistency_token, located, refusals
from chassis.web.edge import BODY_BYTES_MAX
from chassis.write.deciding import CommandContext, CommandKeyReused, TooManyConflicts

COLUMNS_MAX: Final = 100
EXAMPLES: Final[Mapping[str, Any]] = {
    "listing": "selection",
    "columns": ["branch", "aum"],
    "language": "zh",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "failed_code": "export-outgrown",
    "failed_reason": "at most 200 rows",
    "asked_by": "manager-3",
}
"""Examples of the names of fields here, for the `EXAMPLES` of a service."""

ExportPath = Annotated[UUID, Path(description="the export")]
Status = Literal["waiting", "released", "made", "failed"]
_KNOWN: Final = refusals(ExportUnknown)
_REQUESTED: Final = {
    **located(201, "where the export is"),
    **refusals(ConditionInvalid, SortInvalid, ExportListUnknown, CommandKeyReused, ExportNotWaiting),
    **refusals(FieldNotPermitted, ExportNotPermitted),
    **refusals(ExportOversized),
    **refusals(TooManyExports, TooManyConflicts),
    **refusals(QueryTooSlow),
}
_PROPOSED: Final = {**PROPOSED, **_KNOWN, **refusals(ExportNotWaiting, TooManyConflicts)}
_READ: Final[dict[int | str, dict[str, Any]]] = {
    **READ,
    **refusals(ExportUnknown),
    **refusals(ExportNotMade),
    **refusals(ExportRightsChanged, ExportNotPermitted),
    **refusals(FileGone),
}


class ExportBody(ExplainedBody):
    """What a file is asked for: a list, a condition and an order as its page takes them, and columns."""

    listing: str = Field(min_length=1, max_length=50, description="the list of which the file is made")
    where: str | None = Field(
        default=None,
        min_length=1,
        max_length=WHERE_CHARACTERS_MAX,
        description="a condition, as a line of text or as JSON",
    )
    sort: str | None = Field(default=None, min_length=1, max_length=SORT_CHARACTERS_MAX)
    as_of: CalendarDay | None = Field(
        default=None, description="the day that windows of days end with; by default the business date"
    )
    columns: Annotated[list[str], Field(max_length=COLUMNS_MAX)] = Field(
        default=[], description="columns of the list; without any, all that you may see"
    )
    language: Literal["zh", "en"] = Field(default="zh", description="the language of the header")


class ExportMadeAnswer(BaseModel):
    """The file of an export: how many rows it has, when they were read, and until when it is kept."""

    rows: int = Field(le=ROWS_MAX)
    size_bytes: int
    sha256: str
    read_at: datetime
    expires_at: datetime


class ExportAnswer(BaseModel):
    """An export. `selection` is its condition in words. `waiting`: another person has to approve it; `released`: it is being
    made. `failed_code` says why there is no file."""

    export_id: UUID
    listing: str
    selection: str
    sort: str | None
    as_of: date
    columns: list[str]
    language: Literal["zh", "en"]
    asked_by: str
    asked_at: datetime
    status: Status
    needs_approval: bool
    rows_counted: int = Field(description="when it was asked for")
    rows_max: int = Field(description="with more rows than these no file is made")
    attempts: int
    file: ExportMadeAnswer | None
    failed_code: str | None
    failed_reason: str | None


class ExportList(BaseModel):
    """The exports that the caller has asked for in the last 14 days, the latest first."""

    items: list[ExportAnswer]
    next: None = None


def body_limits(context: str) -> dict[str, int]:
    """The limits of bodies of these routes; giving a file takes longer than other requests."""
    return {f"/exports/{context}/{{}}/content": BODY_BYTES_MAX}


def add_exports(
    router: APIRouter,
    exports: Callable[[], Exports],
    dependencies: Dependencies,
    context: str,
    eyes: Callable[[], FourEyes],
) -> None:
    """Adds the routes of the exports of `context`; `permissions.py` names them.

    They are `request_<context>_export`, `list_<context>_exports`, `get_`, `propose_` and `read_<context>_export`.
    """
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]
    Asking = Annotated[Caller, Depends(dependencies.caller)]
    every = f"/exports/{context}"
    place = f"{every}/{{export_id}}"

    @router.post(every, name=f"request_{context}_export", status_code=201, responses=_REQUESTED)
    async def request_export(
        response: Response, asking: Asking, given: Commanding, body: ExportBody
    ) -> ExportAnswer:
        """Asks for a CSV file of what a list finds, masked as its page is. It is made soon; more rows than one person may
        have alone are proposed, and approved by another one."""
        asked = Asked(body.listing, body.where, body.sort, body.as_of, tuple(body.columns), body.language)
        shown = await exports().request(asked, asking, given)
        response.headers["Location"] = f"{every}/{shown.contents.export_id}"
        response.headers["Consistency-Token"] = consistency_token(context, shown.position)
        return answered(shown)

    @router.get(every, name=f"list_{context}_exports")
    async def list_exports(request: Request, asking: Asking) -> ExportList:
        """The exports that you have asked for."""
        now = request.app.state.clock.now()
        return ExportList(items=[answered(each) for each in await exports().of(asking, now)])

    @router.get(place, name=f"get_{context}_export", responses=_KNOWN)
    async def get_export(asking: Asking, export_id: ExportPath) -> ExportAnswer:
        """An export that you have asked for, and what became of it."""
        return answered(await exports().shown(export_id, asking))

    @router.post(f"{place}/propose", name=f"propose_{context}_export", status_code=202, responses=_PROPOSED)
    async def propose(
        response: Response, asking: Asking, given: Commanding, export_id: ExportPath, body: ExplainedBody
    ) -> ProposalAnswer:
        """Proposes that an export is made which takes two persons."""
        shown = await propose_export(exports(), eyes(), export_id, asking, given)
        return proposed(response, context, shown)

    @router.post(f"{place}/content", name=f"read_{context}_export", responses=_READ, response_class=Response)
    async def read_export(
        asking: Asking, given: Commanding, export_id: ExportPath, body: ExplainedBody
    ) -> Response:
        """The file, as a download, for who asked for it. Each time it is an event with its reason."""
        return FileResponse(await exports().read(export_id, asking, given))


def answered(shown: ExportShown) -> ExportAnswer:
    """An export over HTTP."""
    contents, made = shown.contents, shown.made
    return ExportAnswer(
        export_id=contents.export_id,
        listing=contents.listing,
        selection=contents.selection,
        sort=contents.sort,
        as_of=contents.as_of,
        columns=list(contents.columns),
        language=shown.language,
        asked_by=contents.asked_by,
        asked_at=shown.asked_at,
        status=shown.status,  # type: ignore[arg-type]
        needs_approval=shown.needs_approval,
        rows_counted=contents.rows_counted,
        rows_max=contents.rows_max,
        attempts=shown.attempts,
        file=None
        if made is None
        else ExportMadeAnswer(
            rows=made.rows,
            size_bytes=made.size_bytes,
            sha256=made.sha256,
            read_at=made.read_at,
            expires_at=made.expires_at,
        ),
        failed_code=shown.failed_code,
        failed_reason=shown.failed_reason,
    )
