"""The loop of the sagas over a real store: it tries again with back-off, and one saga holds back no other."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from chassis.clock import SystemClock
from chassis.privacy.keys import KeyRing
from chassis.process.leases import Lease, PostgresLease
from chassis.sagas import (
    SAGAS,
    Came,
    Compensate,
    End,
    Give,
    Move,
    Peer,
    PeerUnanswered,
    Refused,
    Request,
    Saga,
    Sagas,
    Started,
    saga_handler,
)
from chassis.sagas.loop import BROKEN, SagaLoop
from chassis.sagas.peers import Carried, Outcome, RefusedForGood
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext
from chassis.write.store import EventStore
from typing_extensions import override

from tests.support.waiting import until

SILENT, OTHER, FAULTY = UUID(int=1), UUID(int=2), UUID(int=3)
CATALOGUE = Catalogue(store="jars", entries=SAGAS)
CLOCK = SystemClock()
TRIES, FIRST_SECONDS, MAX_SECONDS = 10, 0.05, 0.2


def decide(to: str, came: Came) -> Sequence[Move]:
    """One step; then the end. A saga that is faulty ends before its step is answered."""
    match came:
        case Started():
            return [Give("one", to, Request.of("/one")), *([End("early")] if to == "faulty" else [])]
        case Refused(code=code):
            return [Compensate(code)]
        case _:
            return [End("done")]


KIND: Saga[str] = Saga(
    "one",
    "",
    lambda to, came: came.data["to"] if isinstance(came, Started) else to,
    decide,
    timedelta(days=1),
)


class Silent(Peer):
    """Answers from the `TRIES`-th command on, and notes when each came, in seconds."""

    def __init__(self) -> None:
        self.came: list[float] = []

    @override
    async def give(self, id: UUID, request: Request, context: CommandContext) -> Outcome:
        self.came.append(CLOCK.monotonic())
        if len(self.came) < TRIES:
            raise PeerUnanswered("silent")
        return Carried()


class Broken(Peer):
    """Fails as no peer should."""

    @override
    async def give(self, id: UUID, request: Request, context: CommandContext) -> Outcome:
        raise ZeroDivisionError


class Refusing(Peer):
    """Refuses."""

    @override
    async def give(self, id: UUID, request: Request, context: CommandContext) -> Outcome:
        return RefusedForGood("no")


@pytest.fixture
def silent() -> Silent:
    return Silent()


@pytest.fixture
def sagas(store: EventStore, key_ring: KeyRing, silent: Silent) -> Sagas:
    handler = saga_handler(store, CATALOGUE, key_ring, [KIND])
    return Sagas(store, handler, CLOCK, {"silent": silent, "broken": Broken(), "refusing": Refusing()})


async def start(sagas: Sagas, id: UUID, to: str) -> None:
    context = CommandContext(actor="lin", now=CLOCK.now(), command_id=UUID(int=id.int + 100))
    await sagas.start("one", id, {"to": to}, context)


@asynccontextmanager
async def leading(sagas: Sagas, store: EventStore, url: str, schema: str) -> AsyncIterator[SagaLoop]:
    row, stopping = PostgresLease(url, schema, "sagas"), asyncio.Event()
    loop = SagaLoop(
        "jars-sagas",
        sagas,
        store,
        Lease(row, CLOCK),
        CLOCK,
        poll_seconds=0.02,
        again_seconds_first=FIRST_SECONDS,
        again_seconds_max=MAX_SECONDS,
    )
    running = asyncio.create_task(loop.run(stopping))
    try:
        yield loop
    finally:
        stopping.set()
        await running
        await row.close()


async def test_a_peer_that_does_not_answer_is_asked_again_later_each_time_up_to_a_limit(
    sagas: Sagas, store: EventStore, postgres_url: str, schema: str, silent: Silent
) -> None:
    await start(sagas, SILENT, "silent")
    async with leading(sagas, store, postgres_url, schema) as loop:

        async def over() -> bool:
            return (await sagas.shown(SILENT)).status == "ended" and not loop.counts()

        await until(over, what=lambda: silent.came)
    assert len(silent.came) == TRIES
    waited = [after - before for before, after in pairwise(silent.came)]
    wanted = [min(FIRST_SECONDS * 2**number, MAX_SECONDS) for number in range(TRIES - 1)]
    assert all(seconds >= least for seconds, least in zip(waited, wanted, strict=True)), waited
    assert sum(waited) < FIRST_SECONDS * 2 ** (TRIES - 2), "no wait is longer than the limit"


async def test_a_saga_that_breaks_is_told_and_holds_back_no_other(
    sagas: Sagas, store: EventStore, postgres_url: str, schema: str, silent: Silent
) -> None:
    await start(sagas, FAULTY, "broken")
    async with leading(sagas, store, postgres_url, schema) as loop:
        await until(lambda: loop.counts() == {("unknown", BROKEN): 1})
        await start(sagas, OTHER, "refusing")

        async def over() -> bool:
            shown = await sagas.shown(OTHER)
            return (shown.status, shown.because) == ("ended", "no")

        await until(over)
        await until(lambda: loop.counts() == {("unknown", BROKEN): 1})
