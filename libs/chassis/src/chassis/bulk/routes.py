"""The routes of a context's bulk runs: shown, previewed, proposed, started, paused, undone, with a result for each item."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, Field

from chassis.bulk.approving import propose_start
from chassis.bulk.deciding import BulkNeedsApproval, BulkNotFinished, BulkNotReady, BulkUnknown
from chassis.bulk.running import Bulk, BulkShown
from chassis.proposals import FourEyes
from chassis.proposals.routes import PROPOSED, ProposalAnswer, proposed
from chassis.web import (
    Dependencies,
    ExplainedBody,
    Page,
    Paging,
    consistency_token,
    cursor,
    cursor_values,
    located,
    paging,
    refusals,
)
from chassis.write.deciding import CommandContext, TooManyConflicts

EXAMPLES: Final[Mapping[str, Any]] = {
    "gives": "assign-branch",
    "result": "done",
    "code": "customer-not-registered",
    "selection": "branch is 310000 as of 2026-11-26",
}
"""Examples of the names of fields here, for the `EXAMPLES` of a service."""

RunPath = Annotated[UUID, Path(description="the bulk run")]
Paged = Annotated[Paging, Depends(paging)]
Status = Literal["listing", "ready", "running", "paused", "finished"]
PREPARED: Final = located(201, "where the bulk run is")
"""Belongs to the `responses` of a route that prepares a run."""
_KNOWN: Final = refusals(BulkUnknown)
_STEP: Final = {**_KNOWN, **refusals(BulkNotReady, BulkNotFinished, TooManyConflicts)}
_STARTED: Final = {**_KNOWN, **refusals(BulkNotReady, BulkNeedsApproval, TooManyConflicts)}


class BulkAnswer(BaseModel):
    """A bulk run: what it gives to how many items, and how many of them have which result so far."""

    run_id: UUID
    gives: str
    status: Status
    items: int
    settled: int = Field(description="items with a result")
    done: int
    unchanged: int
    refused: int
    undoes_id: UUID | None = Field(description="the run that this one takes back")
    command: dict[str, Any]
    selection: str = Field(
        description="the condition that gave the list, with its day; empty where the caller listed the items"
    )
    needs_approval: bool = Field(
        description="whether its start must be proposed, and approved by another person"
    )


class RefusedCount(BaseModel):
    """How many of the tried items are refused for one reason."""

    code: str
    items: int


class BulkPreview(BaseModel):
    """What the first items would come to now. Nothing was stored."""

    items: int
    tried: int
    changed: int
    unchanged: int
    refused: list[RefusedCount]


class ListedItem(BaseModel):
    """An item of a run, by its number in the list."""

    number: int
    subject_id: UUID


class ListedItemPage(Page[ListedItem]):
    """A page of the list of a run."""


class ItemResultShown(BaseModel):
    """What became of an item: `done` with its version, `unchanged`, or the code of the refusal."""

    number: int
    subject_id: UUID
    result: str
    version: int | None


class ItemResultPage(Page[ItemResultShown]):
    """A page of results in the order of the list."""


def add_bulk(
    router: APIRouter,
    bulk: Callable[[], Bulk],
    dependencies: Dependencies,
    context: str,
    eyes: Callable[[], FourEyes] | None = None,
) -> None:
    """Adds the routes of the bulk runs of `context`; `permissions.py` names them.

    They are `get_<context>_bulk`, `preview_`, `start_`, `pause_` and `undo_<context>_bulk`, and
    `list_<context>_bulk_items` and `_results`; with `eyes`, which have the `starts` of the runs, `propose_<context>_bulk` too.
    """
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]
    place = f"/bulk/{context}/{{run_id}}"

    @router.get(place, name=f"get_{context}_bulk", responses=_KNOWN)
    async def get_bulk(run_id: RunPath) -> BulkAnswer:
        """A bulk run and its progress."""
        return answered(await bulk().shown(run_id))

    @router.get(f"{place}/preview", name=f"preview_{context}_bulk", responses=_KNOWN)
    async def preview_bulk(run_id: RunPath) -> BulkPreview:
        """What the first items of a run would come to now."""
        found, shown = await bulk().preview(run_id), await bulk().shown(run_id)
        refused = [RefusedCount(code=code, items=count) for code, count in sorted(found.refused.items())]
        return BulkPreview(
            items=shown.items,
            tried=found.tried,
            changed=found.changed,
            unchanged=found.unchanged,
            refused=refused,
        )

    @router.get(f"{place}/items", name=f"list_{context}_bulk_items", responses=_KNOWN)
    async def list_bulk_items(run_id: RunPath, page: Paged) -> ListedItemPage:
        """What is listed, before and after it is done."""
        after = -1 if page.after is None else cursor_values(page.after, int)[0]
        found = await bulk().items(run_id, after, page.limit)
        items = [ListedItem(number=number, subject_id=one) for number, one in enumerate(found, after + 1)]
        return ListedItemPage(
            items=items, next=cursor(after + len(found)) if len(found) == page.limit else None
        )

    @router.get(f"{place}/results", name=f"list_{context}_bulk_results", responses=_KNOWN)
    async def list_bulk_results(run_id: RunPath, page: Paged) -> ItemResultPage:
        """The result of each item that has one."""
        after = -1 if page.after is None else cursor_values(page.after, int)[0]
        found = await bulk().results(run_id, after, page.limit)
        items = [
            ItemResultShown(number=one.number, subject_id=one.subject, result=one.result, version=one.version)
            for one in found
        ]
        return ItemResultPage(
            items=items, next=cursor(found[-1].number) if len(found) == page.limit else None
        )

    if eyes is not None:
        _add_proposing(router, bulk, eyes, dependencies, context)

    @router.post(f"{place}/start", name=f"start_{context}_bulk", responses=_STARTED)
    async def start_bulk(
        response: Response, given: Commanding, run_id: RunPath, body: ExplainedBody
    ) -> BulkAnswer:
        """Starts a run, or resumes it after a pause. It goes on by itself, also after a crash.

        What needs the approval of another person is proposed instead, and its approval starts it."""
        return _stepped(response, context, await bulk().start(run_id, given))

    @router.post(f"{place}/pause", name=f"pause_{context}_bulk", responses=_STEP)
    async def pause_bulk(
        response: Response, given: Commanding, run_id: RunPath, body: ExplainedBody
    ) -> BulkAnswer:
        """Lets the items under way end, and begins no others."""
        return _stepped(response, context, await bulk().pause(run_id, given))

    @router.post(
        f"{place}/undo", name=f"undo_{context}_bulk", status_code=201, responses={**PREPARED, **_STEP}
    )
    async def undo_bulk(
        response: Response, given: Commanding, run_id: RunPath, body: ExplainedBody
    ) -> BulkAnswer:
        """Prepares a run that takes back what this one changed and nobody has changed since; it is started as any."""
        return prepared(response, context, await bulk().prepare_undo(run_id, given))


def _add_proposing(
    router: APIRouter,
    bulk: Callable[[], Bulk],
    eyes: Callable[[], FourEyes],
    dependencies: Dependencies,
    context: str,
) -> None:
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]
    answers = {**PROPOSED, **_KNOWN, **refusals(BulkNotReady, TooManyConflicts)}

    @router.post(
        f"/bulk/{context}/{{run_id}}/propose",
        name=f"propose_{context}_bulk",
        status_code=202,
        responses=answers,
    )
    async def propose_bulk(
        response: Response, given: Commanding, run_id: RunPath, body: ExplainedBody
    ) -> ProposalAnswer:
        """Proposes to start a run. Its list does not change any more, so another person approves what was previewed."""
        return proposed(response, context, await propose_start(bulk(), eyes(), run_id, given))


def prepared(response: Response, context: str, shown: BulkShown) -> BulkAnswer:
    """The answer of a route that prepares a run, with its headers."""
    response.headers["Location"] = f"/bulk/{context}/{shown.run_id}"
    return _stepped(response, context, shown)


def _stepped(response: Response, context: str, shown: BulkShown) -> BulkAnswer:
    response.headers["Consistency-Token"] = consistency_token(context, shown.position)
    return answered(shown)


def answered(shown: BulkShown) -> BulkAnswer:
    """A bulk run over HTTP."""
    return BulkAnswer(
        run_id=shown.run_id,
        gives=shown.kind,
        status=shown.status,  # type: ignore[arg-type]
        items=shown.items,
        settled=shown.settled,
        done=shown.done,
        unchanged=shown.unchanged,
        refused=shown.refused,
        undoes_id=shown.undoes,
        command=shown.command,
        selection=shown.selection,
        needs_approval=shown.needs_approval,
    )
