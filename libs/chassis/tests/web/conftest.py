"""A small application with every convention in use."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import StoreUnavailable
from chassis.privacy.tokens import development_token
from chassis.web import (
    Asking,
    Commanding,
    DatedBody,
    Expected,
    Page,
    Paging,
    consistency_token,
    create_app,
    cursor,
    cursor_values,
    dependencies,
    entity_tag,
    paging,
    refusals,
    unchanged,
)
from chassis.write.deciding import Refusal, VersionMismatch
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi import Path as InPath
from pydantic import BaseModel, Field

from tests.support.rights import over_all


class BoxUnknown(Refusal):
    code = "box-unknown"
    status = 404
    title = "There is no such box"
    title_zh = "没有该箱子"


class NewBox(DatedBody):
    label: str = Field(min_length=1, max_length=40)
    more: dict[str, Any] = Field(default={})


class Box(BaseModel):
    number: int
    label: str
    version: int


Number = Annotated[int, InPath(ge=0, le=2**31)]


def boxes_router(views: "Views") -> APIRouter:
    names = ("add", "list_boxes", "get", "rename", "broken", "away", "taken")
    guards = dependencies(
        views.wait_for,
        over_all({**{name: {"administrator"} for name in names}, "secret": {"keeper"}}),
        ["boxes"],
        {"boxes": views.head},
    )
    router = APIRouter(prefix="/boxes", dependencies=[Depends(guards.caller)])
    boxes: dict[int, Box] = {number: Box(number=number, label=f"b{number}", version=1) for number in range(7)}

    @router.post("", status_code=201)
    async def add(response: Response, context: Commanding, body: NewBox) -> dict[str, Any]:
        response.headers["Consistency-Token"] = consistency_token("boxes", 7)
        return {
            "actor": context.actor,
            "key": context.key,
            "trace": context.trace.get("traceparent"),
            "address": context.client_address,
            "post": context.post,
            "reason": context.reason,
            "privilege": context.privilege,
            "effective_at": context.metadata().effective_at.isoformat(),
        }

    @router.get("")
    async def list_boxes(
        _: Asking,
        page: Annotated[Paging, Depends(paging)],
        __: Annotated[None, Depends(guards.at_least)],
        number: Annotated[list[int], Query(description="only these")] = [],  # noqa: B006 (FastAPI copies it)
    ) -> Page[Box]:
        after = -1 if page.after is None else cursor_values(page.after, int)[0]
        wanted = [boxes[one] for one in number] if number else list(boxes.values())
        found = [box for box in wanted if box.number > after][: page.limit]
        return Page(items=found, next=cursor(found[-1].number) if len(found) == page.limit else None)

    @router.get(
        "/{number}", responses=refusals(BoxUnknown) | {304: {"description": "unchanged"}}, response_model=Box
    )
    async def get(_: Asking, request: Request, response: Response, number: Number) -> Box | Response:
        if number not in boxes:
            raise BoxUnknown
        tag = entity_tag(boxes[number].version)
        if unchanged(request, tag):
            return Response(status_code=304, headers={"ETag": tag})
        response.headers["ETag"] = tag
        return boxes[number]

    @router.put("/{number}/label", responses=refusals(BoxUnknown, VersionMismatch))
    async def rename(context: Commanding, version: Expected, number: Number, body: NewBox) -> Box:
        if number not in boxes:
            raise BoxUnknown
        if version != boxes[number].version:
            raise VersionMismatch(version, boxes[number].version)
        return boxes[number]

    @router.get("/{number}/secret")
    async def secret(number: Number) -> dict[str, int]:
        return {"number": number}

    @router.get("/{number}/broken")
    async def broken(_: Asking, number: Number) -> dict[str, int]:
        raise RuntimeError("the name of Zhang San")

    @router.get("/{number}/away")
    async def away(_: Asking, number: Number) -> dict[str, int]:
        raise StoreUnavailable("the database")

    @router.post("/{number}/bytes")
    async def taken(_: Asking, request: Request, number: Number) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    return router


class Views:
    """A view that somebody moves on."""

    def __init__(self) -> None:
        self.position = 0
        self.stored = 7
        self.asked: list[float] = []
        self.moved = asyncio.Event()

    async def head(self) -> int:
        return self.stored

    async def wait_for(self, context: str, position: int, timeout: float) -> bool:  # noqa: ASYNC109 (the port's own word)
        self.asked.append(timeout)
        return context == "boxes" and position <= self.position


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        postgres_url="postgresql://nowhere/",
        data=tmp_path,
        environment="development",
        port=0,
        log_level="info",
    )


@pytest.fixture
def views() -> Views:
    return Views()


@pytest.fixture
def app(settings: Settings, views: Views) -> FastAPI:
    return create_app("boxes", [boxes_router(views)], settings, body_limits={"/boxes/1/bytes": 5_000_000})


@pytest.fixture
def token(settings: Settings) -> str:
    return development_token(settings, SystemClock().now(), subject="teller-7", post="P1")


@pytest.fixture
async def anybody(app: FastAPI) -> Any:
    transport = httpx.ASGITransport(app, client=("10.1.2.3", 99))
    async with httpx.AsyncClient(transport=transport, base_url="http://boxes") as client:
        yield client


@pytest.fixture
async def client(anybody: httpx.AsyncClient, token: str) -> httpx.AsyncClient:
    anybody.headers["Authorization"] = f"Bearer {token}"
    return anybody
