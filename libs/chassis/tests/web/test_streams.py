"""Event streams over the real server: they last, they are bounded, and they end when they must."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from chassis.clock import SystemClock
from chassis.observability import metrics
from chassis.privacy.tokens import LEEWAY_SECONDS, development_token
from chassis.web import create_app, dependencies
from chassis.web.edge import Edge
from chassis.web.streams import EventStream, Sent, Source, Streams
from chassis.write.deciding import Refusal
from fastapi import APIRouter, Depends
from typing_extensions import override

from tests.support.rights import over_all
from tests.support.serving import served
from tests.support.waiting import until

SECONDS = 30.0


class BoxUnknown(Refusal):
    code = "box-unknown"
    status = 404
    title = "There is no such box"
    title_zh = "没有该箱子"


class Told(Source):
    """Sends what a test puts into it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.waiting: list[Sent] = []
        self.told = 0

    @property
    @override
    def place(self) -> str:
        return str(self.told)

    @property
    @override
    def ended(self) -> str | None:
        return None

    def put(self, data: Any) -> None:
        self.told += 1
        self.waiting.append(Sent("changed", data, self.place))
        self.wake()

    @override
    def next(self) -> Sent | None:
        return self.waiting.pop(0) if self.waiting else None


class Clock(SystemClock):
    """The machine's clock, moved on by a test."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    @override
    def now(self) -> datetime:
        return super().now() + self.ahead


class House:
    """An application with one stream, served."""

    def __init__(self, settings: Any, **options: Any) -> None:
        self.open: list[Told] = []
        self.outdated: str | BaseException | None = None
        self.clock = Clock()
        self.options = {"heartbeat_seconds": 0.2, **options}
        self.settings = settings
        self.stopping = asyncio.Event()
        router = APIRouter(
            dependencies=[Depends(dependencies(_never, over_all({"watch": {"administrator"}})).caller)]
        )

        @router.get("/changes", response_class=EventStream)
        async def watch(seconds: float = 60.0, unknown: bool = False) -> Any:
            return EventStream(
                lambda wake: self.source(wake, unknown),
                outdated=self.asked_again,
                seconds_max=seconds,
                **self.options,
            )

        self.app = create_app("house", [router], settings, clock=self.clock)

    async def asked_again(self) -> str | None:
        if isinstance(self.outdated, BaseException):
            raise self.outdated
        return self.outdated

    @asynccontextmanager
    async def source(self, wake: Callable[[], None], unknown: bool) -> AsyncIterator[Told]:
        if unknown:
            raise BoxUnknown
        told = Told(wake)
        self.open.append(told)
        try:
            yield told
        finally:
            self.open.remove(told)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[httpx.AsyncClient]:
        async with served(self.app, self.stopping) as self.port:
            url = f"http://127.0.0.1:{self.port}"
            try:
                async with httpx.AsyncClient(base_url=url, headers=self.headers(), timeout=SECONDS) as client:
                    yield client
            finally:
                self.stopping.set()
                await self.app.state.streams.close()

    def headers(self, subject: str = "lin", seconds: int = 600) -> dict[str, str]:
        token = development_token(self.settings, self.clock.now(), subject=subject, seconds=seconds)
        return {"Authorization": f"Bearer {token}"}

    async def are_open(self, count: int) -> None:
        await until(lambda: len(self.open) == count)


async def _never(context: str, position: int, seconds: float) -> bool:
    return False


@pytest.fixture
def house(settings):
    return House(settings)


async def events(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """The events of a stream as a client sees them."""
    event: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            event[name] = value
        else:
            yield event
            event = {}


async def test_a_stream_sends_what_comes_and_heartbeats_in_between(house):
    async with house.served() as client, client.stream("GET", "/changes") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        stream = events(answer)
        assert await anext(stream) == {"retry": "2000"}
        assert await anext(stream) == {"id": "0"}
        house.open[0].put({"a": "line\nend"})
        house.open[0].put([])
        assert await anext(stream) == {"event": "changed", "data": '{"a":"line\\nend"}', "id": "1"}
        assert await anext(stream) == {"event": "changed", "data": "[]", "id": "2"}
        assert await anext(stream) == {"id": "2"}
        assert await anext(stream) == {"id": "2"}
        assert metrics.STREAMS_OPEN._value.get() == 1
    await house.are_open(0)
    assert metrics.STREAMS_OPEN._value.get() == 0


async def test_a_stream_of_no_time_sends_what_there_is_and_ends(house):
    async with house.served() as client:
        answer = await client.get("/changes", params={"seconds": 0})
        assert answer.text == 'retry: 2000\n\nid: 0\n\nevent: end\ndata: {"code":"time-up"}\n\n'
        head = await client.head("/changes")
        assert (head.status_code, head.content) == (200, b"")


async def test_a_stream_ends_when_it_is_outdated_and_not_when_that_cannot_be_asked(house):
    async with house.served() as client, client.stream("GET", "/changes") as answer:
        stream = events(answer)
        house.outdated = ConnectionError("away")
        assert [await anext(stream) for _ in range(4)] == [{"retry": "2000"}, *3 * [{"id": "0"}]]
        house.outdated = "box-moved"
        while (event := await anext(stream)) == {"id": "0"}:
            pass
        assert event == {"event": "end", "data": '{"code":"box-moved"}'}
    await house.are_open(0)


async def test_a_refusal_before_a_stream_is_a_problem(house):
    async with house.served() as client:
        answer = await client.get("/changes", params={"unknown": True})
        assert (answer.status_code, answer.json()["code"]) == (404, "box-unknown")
        assert metrics.STREAMS_OPEN._value.get() == 0


async def test_the_time_limit_of_requests_ends_no_stream_and_streams_leave_room_for_requests(house):
    edge = next(each for each in house.app.user_middleware if each.cls is Edge)
    edge.kwargs.update(request_seconds=0.3, requests_max=1)
    async with house.served() as client, client.stream("GET", "/changes") as answer:
        stream = events(answer)
        beats = [await anext(stream) for _ in range(6)]
        assert beats[1:] == [{"id": "0"}] * 5
        assert (await client.get("/health/live")).status_code == 200


async def test_one_caller_and_all_callers_have_so_many_streams_at_most(house):
    house.app.state.streams = Streams(streams_max=3, of_caller_max=2)
    async with house.served() as client:
        first = [asyncio.create_task(client.get("/changes")) for _ in range(2)]
        await house.are_open(2)
        more = await client.get("/changes")
        assert (more.status_code, more.json()["code"]) == (429, "too-many-streams")
        other = asyncio.create_task(client.get("/changes", headers=house.headers("wang")))
        await house.are_open(3)
        full = await client.get("/changes", headers=house.headers("zhao"))
        assert (full.status_code, full.json()["code"]) == (503, "overloaded")
        assert "Retry-After" in full.headers
        first.pop().cancel()
        await house.are_open(2)
        assert (await client.get("/changes", params={"seconds": 0})).status_code == 200
        for task in (*first, other):
            task.cancel()


async def test_a_token_that_expires_ends_the_stream(house):
    async with house.served() as client:
        headers = house.headers(seconds=100)
        async with client.stream("GET", "/changes", headers=headers) as answer:
            stream = events(answer)
            await anext(stream)
            house.clock.ahead = timedelta(seconds=101 + LEEWAY_SECONDS)
            assert [each async for each in stream][-1] == {
                "event": "end",
                "data": '{"code":"unauthenticated"}',
            }
        house.clock.ahead = timedelta()
        assert (await client.get("/changes", params={"seconds": 0}, headers=headers)).status_code == 200


async def test_a_process_that_stops_ends_its_streams_at_once(house):
    async with house.served() as client, client.stream("GET", "/changes") as answer:
        stream = events(answer)
        await anext(stream)
        house.stopping.set()
        async with asyncio.timeout(SECONDS):
            await house.app.state.streams.close()
        last = [each async for each in stream][-1]
        assert json.loads(last["data"]) == {"code": "stopping"}
    await house.are_open(0)


async def test_a_client_that_does_not_read_is_cut_off_and_delays_no_other(settings):
    house = House(settings, send_seconds_max=0.5)
    async with house.served() as client:
        _, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=2**10)
        authorization = house.headers("stalled")["Authorization"]
        writer.write(f"GET /changes HTTP/1.1\r\nHost: h\r\nAuthorization: {authorization}\r\n\r\n".encode())
        await house.are_open(1)
        slow = metrics.STREAMS_ENDED.labels("slow")._value
        before = slow.get()
        async with client.stream("GET", "/changes") as answer:
            stream = events(answer)
            await anext(stream)
            stalled = house.open[0]
            while stalled in house.open:
                if len(stalled.waiting) < 4:
                    stalled.put("x" * 500_000)
                house.open[-1].put("quick")
                while (await anext(stream)).get("data") != '"quick"':
                    pass
        assert slow.get() == before + 1
        writer.transport.abort()
    assert not house.open
