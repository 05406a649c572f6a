"""The routes of a context's sagas: those that have not ended, and one of them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field

from chassis.sagas.deciding import SagaUnknown
from chassis.sagas.running import Sagas, SagaShown
from chassis.web import Page, Paging, cursor, cursor_values, paging, refusals

EXAMPLES: Final[Mapping[str, Any]] = {
    "saga": "prepare-erasure",
    "because": "timed-out",
    "open_steps": ["accept"],
    "refused_step": "accept",
}
"""Examples of the names of fields here, for the `EXAMPLES` of a service."""

SagaPath = Annotated[UUID, Path(description="the saga")]
Paged = Annotated[Paging, Depends(paging)]


class SagaAnswer(BaseModel):
    """A saga as it is now."""

    saga_id: UUID
    saga: str
    status: Literal["running", "compensating", "stuck", "ended"]
    times_out_at: datetime | None
    open_steps: list[str] = Field(description="steps whose command is to be given, and is not answered yet")
    because: str | None = Field(description="why it is compensated")
    refused_step: str | None = Field(description="the step that cannot be taken back")
    code: str | None = Field(description="why it cannot")


class SagaPage(Page[SagaAnswer]):
    """A page of sagas that have not ended, in the order of their ids."""


def add_sagas(router: APIRouter, sagas: Callable[[], Sagas], context: str) -> None:
    """Adds the routes of the sagas of `context`; `permissions.py` names them.

    They are `list_<context>_sagas` and `get_<context>_saga`.
    """
    place = f"/sagas/{context}"

    @router.get(place, name=f"list_{context}_sagas")
    async def list_sagas(page: Paged) -> SagaPage:
        """The sagas that have not ended."""
        after = None if page.after is None else cursor_values(page.after, UUID)[0]
        found = await sagas().page(after, page.limit)
        following = cursor(found[-1].id) if len(found) == page.limit else None
        return SagaPage(items=[answered(one) for one in found], next=following)

    @router.get(f"{place}/{{saga_id}}", name=f"get_{context}_saga", responses=refusals(SagaUnknown))
    async def get_saga(saga_id: SagaPath) -> SagaAnswer:
        """A saga, also one that has ended."""
        return answered(await sagas().shown(saga_id))


def answered(shown: SagaShown) -> SagaAnswer:
    """A saga over HTTP."""
    return SagaAnswer(
        saga_id=shown.id,
        saga=shown.saga,
        status=shown.status,  # type: ignore[arg-type]
        times_out_at=shown.times_out_at,
        open_steps=list(shown.open_steps),
        because=shown.because,
        refused_step=shown.refused,
        code=shown.code,
    )
