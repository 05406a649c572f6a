"""Work whose progress and result are a stream of events."""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
from chassis.clock import SystemClock
from chassis.connections.transient import StoreUnavailable
from chassis.privacy.tokens import development_token
from chassis.web import create_app, dependencies
from chassis.web.streams import EventStream
from chassis.web.working import PROGRESS_SECONDS, Tell, Work, working
from fastapi import APIRouter, Depends
from typing_extensions import override

from tests.support.rights import over_all
from tests.support.waiting import until


class Clock(SystemClock):
    """The machine's clock, moved on by a test."""

    ahead = 0.0

    @override
    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


async def _never(context: str, position: int, seconds: float) -> bool:
    return False


CLOCK = SystemClock()


@pytest.fixture
def asked(settings: Any) -> Callable[..., Any]:
    """Asks for the stream of a work; returns its events."""

    async def ask(work: Work, seconds: int = 60, clock: SystemClock = CLOCK) -> list[tuple[str, Any]]:
        router = APIRouter(
            dependencies=[Depends(dependencies(_never, over_all({"work_on": {"administrator"}})).caller)]
        )

        @router.get("/work", response_class=EventStream)
        async def work_on() -> Any:
            return working(work, "7", seconds, clock)

        app = create_app("working", [router], settings)
        token = development_token(settings, now(), subject="lin")
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://crm",
            headers={"Authorization": f"Bearer {token}"},
        ) as client:
            answer = await client.get("/work")
        assert answer.status_code == 200, answer.text
        parts = [
            dict(line.split(": ", 1) for line in part.splitlines()) for part in answer.text.split("\n\n")
        ]
        return [(one["event"], json.loads(one["data"])) for one in parts if "event" in one]

    return ask


def now() -> datetime:
    return CLOCK.now()


async def test_the_result_ends_the_stream(asked: Callable[..., Any]) -> None:
    async def work(tell: Tell) -> Any:
        tell({"done": 1})
        await asyncio.sleep(0.1)
        return {"sum": 3, "text": 'a "line"\nend'}

    assert await asked(work) == [
        ("progress", {"done": 1}),
        ("result", {"sum": 3, "text": 'a "line"\nend'}),
        ("end", {"code": "done"}),
    ]


async def test_progress_is_told_each_second_at_most(asked: Callable[..., Any]) -> None:
    clock = Clock()

    async def work(tell: Tell) -> Any:
        for number in range(10):
            tell(number)
            clock.ahead += PROGRESS_SECONDS / 2
            await asyncio.sleep(0.01)
        return "done"

    assert [data for _, data in await asked(work, clock=clock)][:-2] == [0, 2, 4, 6, 8]


async def test_a_server_that_does_not_answer_ends_the_stream_without_a_result(
    asked: Callable[..., Any],
) -> None:
    async def work(tell: Tell) -> Any:
        tell(1)
        await asyncio.sleep(0.1)
        raise StoreUnavailable("away")

    assert await asked(work) == [("progress", 1), ("end", {"code": "unavailable"})]


async def test_a_fault_is_no_result(asked: Callable[..., Any]) -> None:
    async def work(_: Tell) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asked(work)


async def test_work_ends_with_the_time_of_its_stream(asked: Callable[..., Any]) -> None:
    ended = list[str]()

    async def work(_: Tell) -> Any:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("ended")

    assert await asked(work, seconds=1) == [("end", {"code": "time-up"})]
    await until(lambda: ended == ["ended"])
