"""Roles in one process: health from the first moment, restarts after lost servers, bounded ends; over real sockets."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import httpx
import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import StoreUnavailable
from chassis.privacy.tokens import development_token
from chassis.process.roles import CLOSING_SECONDS_MAX, WebRole, main, run_roles
from chassis.web import PortTaken, create_app, dependencies
from chassis.web.streams import EventStream, Source
from fastapi import APIRouter, Depends
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.support.rights import over_all
from tests.support.waiting import until


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(postgres_url="postgresql://nowhere/", data=tmp_path, environment="development", port=0)


class Working:
    """A role that does what the test says."""

    def __init__(self, *, failing: list[Exception] | None = None, reasons: list[str] | None = None) -> None:
        self.name = "boxes-views"
        self.failing = failing if failing is not None else []
        self.reasons = reasons or []
        self.runs = 0
        self.stopped = False

    async def run(self, stopping: asyncio.Event) -> None:
        self.runs += 1
        if self.failing:
            raise self.failing.pop(0)
        await stopping.wait()
        self.stopped = True

    def not_ready(self) -> list[str]:
        return self.reasons


class Process:
    """The roles of one test, run in its loop."""

    def __init__(
        self, settings: Settings, limits: Mapping[str, float] = MappingProxyType({}), **hosted: object
    ) -> None:
        self.stopping = asyncio.Event()
        self.port = 0
        self.task = asyncio.create_task(
            run_roles(
                {name.replace("_", "-"): lambda role=role: role for name, role in hosted.items()},
                settings,
                stopping=self.stopping,
                listening=self._at,
                **limits,
            )
        )

    def _at(self, port: int) -> None:
        self.port = port

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as client:
            return await client.get(path)

    async def answers(self, path: str) -> httpx.Response:
        async with asyncio.timeout(10):
            for pause in (0.02,) * 400:
                answer = await self.get(path) if self.port else None
                if answer is not None and answer.status_code == 200:
                    return answer
                await asyncio.sleep(pause)
        raise AssertionError(path)

    async def lost(self) -> None:
        """Until a role said what it waits for."""
        async with asyncio.timeout(10):
            for pause in (0.02,) * 400:
                if self.port and "Error: " in (await self.get("/health/ready")).text:
                    return
                await asyncio.sleep(pause)

    async def ready(self) -> httpx.Response:
        return await self.answers("/health/ready")

    async def end(self) -> int:
        self.stopping.set()
        return await asyncio.wait_for(self.task, 20)


async def test_a_role_works_until_it_is_told_to_stop(settings):
    role = Working()
    process = Process(settings, boxes_views=role)
    await process.ready()
    assert 'crm_role_ready{role="boxes-views"} 1.0' in (await process.get("/metrics")).text
    assert (await process.get("/elsewhere")).status_code == 404
    assert await process.end() == 0
    assert role.stopped
    with pytest.raises(httpx.ConnectError):
        await process.get("/health/live")


async def test_bytes_that_are_no_request_are_a_problem_too(settings):
    process = Process(settings, boxes_views=Working())
    await process.ready()
    for wrong in (
        b"GET /x\x00 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(wrong)
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        writer.close()
        assert b"content-type: application/problem+json" in head
        assert json.loads(body)["code"] == "request-malformed"
    await process.end()


async def test_a_role_that_lost_a_server_is_live_says_why_and_comes_back(settings):
    role = Working(failing=[psycopg.OperationalError("gone"), StoreUnavailable("gone")])
    process = Process(settings, {"back_off_seconds_first": 1.0}, boxes_views=role)
    await process.lost()
    assert (await process.get("/health/live")).status_code == 200
    answer = await process.get("/health/ready")
    assert (answer.status_code, answer.json()["reasons"]) == (
        503,
        ["boxes-views: OperationalError: gone"],
    )
    # A role that begins is ready, unless it says otherwise, until it fails.
    await until(lambda: role.runs == 3)
    await process.ready()
    assert await process.end() == 0


async def test_a_role_that_fails_otherwise_ends_the_process_with_all_its_roles(settings):
    other = Working()
    process = Process(
        settings, boxes_views=Working(failing=[KeyError("a broken invariant")]), boxes_api=other
    )
    assert await asyncio.wait_for(process.task, 5) == 1
    assert other.stopped


async def test_a_role_that_ends_unasked_is_a_failure(settings):
    class Ending(Working):
        async def run(self, stopping: asyncio.Event) -> None:
            return

    assert await asyncio.wait_for(Process(settings, boxes_views=Ending()).task, 5) == 1


async def test_a_role_that_waits_for_a_server_is_cut_off_in_time_to_close(settings):
    closed: list[str] = []

    class Waiting(Working):
        async def run(self, stopping: asyncio.Event) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.1)
                closed.append("database")

    process = Process(settings, {"stop_seconds_max": CLOSING_SECONDS_MAX + 0.1}, boxes_views=Waiting())
    await asyncio.sleep(0.05)
    process.stopping.set()
    assert await asyncio.wait_for(process.task, CLOSING_SECONDS_MAX) == 0
    assert closed == ["database"]


async def test_a_role_that_does_not_stop_is_stopped(settings):
    class Deaf(Working):
        async def run(self, stopping: asyncio.Event) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(60)

    process = Process(settings, {"stop_seconds_max": 0.2}, boxes_views=Deaf())
    await asyncio.sleep(0.05)
    process.stopping.set()
    assert await asyncio.wait_for(process.task, 20) == 1


async def test_a_taken_port_is_told_before_anything_starts(settings):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        role = Working()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1 port {port}: Address already in use"):
            await run_roles({"boxes-views": lambda: role}, settings.model_copy(update={"port": port}))
    assert role.runs == 0


async def test_the_web_role_answers_what_is_in_flight_before_it_closes_what_it_holds(settings):
    closed: list[str] = []
    begun = asyncio.Event()

    async def slow(_: object) -> PlainTextResponse:
        begun.set()
        await asyncio.sleep(0.3)
        return PlainTextResponse("closed too early" if closed else "whole")

    @asynccontextmanager
    async def opened():
        yield Starlette(routes=[Route("/slow", slow), Route("/quick", lambda _: PlainTextResponse("here"))])
        closed.append("database")

    process = Process(settings, boxes_api=WebRole("boxes-api", opened))
    await process.answers("/quick")
    asking = asyncio.create_task(process.get("/slow"))
    await asyncio.wait_for(begun.wait(), 5)
    assert await process.end() == 0
    assert (await asking).text == "whole"
    assert closed == ["database"]


class Silent(Source):
    """Has nothing to send."""

    place = "0"
    ended = None

    def next(self):
        return None


async def test_a_process_that_is_told_to_stop_does_not_wait_for_its_event_streams(settings):
    @asynccontextmanager
    async def nothing(_):
        yield Silent()

    async def never(*_):
        return False

    router = APIRouter(
        dependencies=[Depends(dependencies(never, over_all({"watch": {"administrator"}})).caller)]
    )

    @router.get("/changes", response_class=EventStream)
    async def watch():
        return EventStream(nothing)

    @asynccontextmanager
    async def opened():
        yield create_app("boxes", [router], settings)

    process = Process(settings, boxes_api=WebRole("boxes-api", opened))
    await process.answers("/openapi.json")
    token = development_token(settings, SystemClock().now())
    address = f"http://127.0.0.1:{process.port}/changes"
    async with (
        httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=20) as client,
        client.stream("GET", address) as stream,
    ):
        lines = stream.aiter_lines()
        assert await anext(lines) == "retry: 2000"
        process.stopping.set()
        assert 'data: {"code":"stopping"}' in [line async for line in lines]
    assert await process.end() == 0


async def test_callers_come_again_while_the_web_role_lost_a_server(settings):
    lost = [ConnectionRefusedError("the database")]

    @asynccontextmanager
    async def opened():
        if lost:
            raise lost.pop()
        yield Starlette(routes=[Route("/quick", lambda _: PlainTextResponse("here"))])

    process = Process(settings, {"back_off_seconds_first": 1.0}, boxes_api=WebRole("boxes-api", opened))
    await process.lost()
    early = await process.get("/quick")
    assert (early.status_code, early.json()["code"]) == (503, "not-ready")
    assert int(early.headers["Retry-After"]) > 0
    assert (await process.get("/health/ready")).json()["reasons"] == [
        "boxes-api: ConnectionRefusedError: the database"
    ]
    await process.answers("/quick")
    assert await process.end() == 0


async def test_the_web_role_answers_for_the_health_of_the_whole_process(settings):
    @asynccontextmanager
    async def opened():
        yield create_app("boxes", (), settings)

    process = Process(
        settings, boxes_api=WebRole("boxes-api", opened), boxes_views=Working(reasons=["the view is behind"])
    )
    await process.answers("/openapi.json")
    assert (await process.get("/health/ready")).json()["reasons"] == ["the view is behind"]
    await process.end()


PROGRAM = """
import asyncio, sys
from chassis.process.roles import main
from chassis.connections.settings import Settings

class Views:
    name = "boxes-views"
    async def run(self, stopping):
        await stopping.wait()
    def not_ready(self):
        return []

sys.exit(main("boxes", {"views": Views, "api": Views}, Settings(postgres_url="postgresql://nowhere/"), (), sys.argv[1:]))
"""


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_process_ends_cleanly_on_a_signal(tmp_path, ending):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "views"],
        env={"CRM_PORT": str(port), "CRM_DATA": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = SystemClock().monotonic() + 20
    while True:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/health/ready")
            break
        except httpx.ConnectError:
            assert SystemClock().monotonic() < deadline
    assert answer.json() == {"status": "ready"}
    process.send_signal(ending)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 0, told
    assert '"event":"process started"' in told


def test_a_role_that_does_not_exist_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main("boxes", {"views": Working}, Settings(postgres_url="postgresql://nowhere/"), (), ["printer"])
    assert ended.value.code == 2
    assert "printer" in capsys.readouterr().err
