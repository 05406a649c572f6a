"""HTTP of the files of customers."""

from collections.abc import Callable
from typing import Annotated, Any, Final
from uuid import UUID

from chassis.files import Offered
from chassis.files.routes import (
    ATTACHED,
    READ,
    REMOVED,
    FileAnswer,
    FileList,
    FileName,
    FilePath,
    FileResponse,
    answered,
    body_of,
    named,
)
from chassis.web import Dependencies, ExplainedBody, Reason, consistency_token, refusals
from chassis.web.edge import BODY_BYTES_MAX
from chassis.web.formats import StatedInstant
from chassis.write.deciding import CommandContext
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel

from customer.catalogue import CONTEXT
from customer.domain.refusals import CustomerIsErased, CustomerNotRegistered
from customer.files import LIMITS, CustomerFiles, Purpose

CustomerPath = Annotated[UUID, Path(description="the customer")]

_OF_NOBODY: Final = refusals(CustomerNotRegistered)


class Removed(BaseModel):
    """The file that is kept no more, and the position of the event."""

    file_id: UUID
    position: int


def body_limits(bytes_max: int) -> dict[str, int]:
    """The limits of bodies of these routes; reading takes longer than other requests too."""
    place = "/customers/{}/files"
    return {place: bytes_max, f"{place}/{{}}/content": BODY_BYTES_MAX}


def add_files(router: APIRouter, files: Callable[[], CustomerFiles], dependencies: Dependencies) -> None:
    """Adds the routes of the files of customers."""
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]
    place = "/customers/{customer_id}/files"
    one = f"{place}/{{file_id}}"
    attached: dict[int | str, dict[str, Any]] = {
        **_OF_NOBODY,
        **ATTACHED,
        **refusals(CustomerIsErased),
    }

    @router.post(place, status_code=201, responses=attached, openapi_extra=body_of(LIMITS))
    async def attach_file(
        request: Request,
        response: Response,
        context: Commanding,
        customer_id: CustomerPath,
        name: FileName,
        purpose: Annotated[Purpose, Query(description="what the file is")],
        expires_at: Annotated[
            StatedInstant | None,
            Query(description="from when on it is kept no more; without it, until it is removed"),
        ] = None,
        reason: Annotated[Reason | None, Query(description="why it is kept")] = None,
    ) -> FileAnswer:
        """Keeps a file of a customer. Its content is sealed under the customer's key."""
        offered = Offered(
            named(name),
            request.headers.get("content-type", ""),
            purpose,
            expires_at,
        )
        kept = await files().attach(customer_id, offered, request.stream(), context)
        response.headers["Location"] = f"/customers/{customer_id}/files"
        response.headers["Consistency-Token"] = consistency_token(CONTEXT, kept.outcome.position)
        return answered(kept.shown)

    @router.get(place, responses=_OF_NOBODY)
    async def list_files(request: Request, customer_id: CustomerPath) -> FileList:
        """The files of a customer, without their content."""
        now = request.app.state.clock.now()
        return FileList(items=[answered(each) for each in await files().of_customer(customer_id, now)])

    @router.post(f"{one}/content", responses={**READ, **_OF_NOBODY}, response_class=Response)
    async def read_file(
        context: Commanding, customer_id: CustomerPath, file_id: FilePath, body: ExplainedBody
    ) -> Response:
        """The content of a file, as a download. Who reads it, when and why is stored before, each time."""
        return FileResponse(await files().read(customer_id, file_id, context))

    @router.post(f"{one}/remove", responses={**_OF_NOBODY, **REMOVED})
    async def remove_file(
        response: Response,
        context: Commanding,
        customer_id: CustomerPath,
        file_id: FilePath,
        body: ExplainedBody,
    ) -> Removed:
        """Keeps a file no more. Its content is deleted."""
        outcome = await files().remove(customer_id, file_id, context)
        response.headers["Consistency-Token"] = consistency_token(CONTEXT, outcome.position)
        return Removed(file_id=file_id, position=outcome.position)
