"""A route that reads its own parameters answers, and is described, as one whose parameters the framework reads."""

from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from chassis.web import OwnParameters
from chassis.web.described import Described
from fastapi import FastAPI, Path, Query, Request

BoxPath = Annotated[UUID, Path(description="the box")]
MonthWanted = Annotated[str | None, Query(pattern="^[0-9]{4}-[0-9]{2}$", description="YYYY-MM")]
SizeWanted = Annotated[int | None, Query(ge=1, description="at least so large")]
BOX = "8522d6b8-a7a8-5035-9121-0c738edd57b0"

app = FastAPI()
_WANTED = OwnParameters(box_id=BoxPath, month=MonthWanted, size=SizeWanted)


@app.get("/framework/{box_id}")
async def framework(box_id: BoxPath, month: MonthWanted = None, size: SizeWanted = None) -> list[Any]:
    return [box_id, month, size]


@app.get("/own/{box_id}", openapi_extra=_WANTED.described)
async def own(request: Request) -> list[Any]:
    box_id, month, size = _WANTED.read(request)
    return [box_id, month, size]


@pytest.mark.parametrize(
    "asked",
    [
        BOX,
        BOX.upper(),
        BOX.replace("-", ""),
        f"{{{BOX}}}",
        f"{BOX}?month=2026-01",
        f"{BOX}?month=2026-01&size=7",
        f"{BOX}?size=7&size=8",
        f"{BOX}?unknown=1",
        f"{BOX}?month=",
        f"{BOX}?month=2026-01%0A",
        f"{BOX}?month=2026-1&size=0",
        f"{BOX}?size=x",
        "7",
        "é?month=foo",
        f"{BOX}x?size=",
    ],
)
async def test_it_answers_and_refuses_as_the_framework_does(asked):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://boxes") as client:
        expected = await client.get(f"/framework/{asked}")
        found = await client.get(f"/own/{asked}")
    assert (found.status_code, found.json()) == (expected.status_code, expected.json())


def test_it_is_described_as_the_framework_does():
    paths = app.openapi()["paths"]
    assert paths["/own/{box_id}"]["get"]["parameters"] == paths["/framework/{box_id}"]["get"]["parameters"]


def test_no_parameter_of_its_own_counts_as_undescribed():
    route = next(each for each in app.routes if getattr(each, "name", "") == "own")
    assert Described.of(route).parameters == {"month", "size"}
