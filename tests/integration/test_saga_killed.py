"""The erasure of a customer is prepared by a process that dies at every point of it, over the API of ingest and PostgreSQL.

The policy, the saga and the commands are those of customer. Another process then goes on, and gets every event again.
"""

import asyncio
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.sagas import HttpPeer, Peer, Sagas
from chassis.sagas.deciding import SagaEnded, SagaState, StepGiven, TimeOut
from chassis.sagas.peers import ServiceToken
from chassis.write.deciding import CommandContext
from chassis.write.handling import CommandHandler
from chassis.write.store import Recorder
from crm_cli.migrate import migrated
from customer.catalogue import INGEST, catalogue
from customer.catalogue import SCHEMA as CUSTOMER_SCHEMA
from customer.connections import Write, write_side
from customer.domain.commands import (
    BeginErasurePreparation,
    CustomerCommand,
    Details,
    EndErasurePreparation,
    EraseCustomer,
    RegisterCustomer,
)
from customer.domain.customer import customer_decider
from customer.domain.events import PartyOfSource
from customer.policies.when_erasure_preparation_changes_then_run_saga import POLICY
from customer.publishing import published
from customer.sagas import giving, handler_of
from customer.settings import CustomerSettings
from psycopg.conninfo import make_conninfo
from sync_ingest import bootstrap as ingest_service
from sync_ingest.domain.events import ReleasesClosed, ReleasesOpened
from sync_ingest.domain.identities import feed_id
from sync_ingest.ledger import CATALOGUE, SCHEMA
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings
from typing_extensions import override

from tests.integration.conftest import lines
from tests.support.fixtures import delivered
from tests.support.serving import served

CLOCK = SystemClock()
NAMESPACE = UUID("7d3f9f0a-2f0e-5f5e-9a8e-5c1f6a2b9d10")
SOURCES = ("killed-first", "killed-second")
PARTIES = 400
"""More than there are points of all preparations."""
TURNS_MAX = 20
POINTS = {"before-append", "after-append", "after-reaction", "before-give", "after-give"}


class Killed(BaseException):
    """The process ends here: nothing that comes after it runs, not even what handles errors."""


class Ending(NamedTuple):
    """How a preparation ends: which parties no source has described, and what somebody does once it is prepared."""

    unknown: frozenset[int] = frozenset()
    then: str = ""


class Ended(NamedTuple):
    """What a preparation has come to, without its ids. `commands`: how many each peer remembers."""

    outcome: str
    saga: tuple[str, ...]
    given: tuple[str, ...]
    customer: tuple[str, ...]
    switched: tuple[tuple[str, int], ...]
    commands: tuple[int, int]


WITHDRAWN, TIMED_OUT, ERASED = Ending(then="withdrawn"), Ending(then="timed-out"), Ending(then="erased")
REFUSED = Ending(unknown=frozenset({1}))
BOTH_CLOSED = (("closed", 0), ("closed", 1))
OPENED_AGAIN = (("opened", 1), ("opened", 0))


@dataclass
class Bank:
    """Both contexts: the write side of customer as every process of it opens it, and ingest over HTTP."""

    write: Write
    peer: Peer
    ingest: SyncIngestSettings
    parties: tuple[tuple[UUID, ...], ...]
    used: int = 0

    def next_parties(self, unknown: frozenset[int]) -> tuple[PartyOfSource, ...]:
        """One party of each source that no preparation has named yet."""
        self.used += 1
        return tuple(
            PartyOfSource(
                source, uuid5(NAMESPACE, f"{self.used}") if at in unknown else self.parties[at][self.used]
            )
            for at, source in enumerate(SOURCES)
        )

    def commands(self, customer: UUID) -> tuple[int, int]:
        """How many commands the customer has had, and how many ingest."""
        asked = (
            f"select (select count(*) from {CUSTOMER_SCHEMA}.commands where stream_id = %s),"
            f" (select count(*) from {SCHEMA}.commands)"
        )
        with psycopg.connect(self.ingest.postgres_url) as connection:
            [(own, of_ingest)] = connection.execute(asked, (customer,)).fetchall()
        return own, of_ingest

    def switched(self, parties: Sequence[PartyOfSource]) -> tuple[tuple[str, int], ...]:
        """What ingest has closed and opened of these parties, in order."""
        recorder = Recorder(self.ingest.postgres_url, SCHEMA)
        try:
            stored = [one for source in SOURCES for one in recorder.read_stream(feed_id(source))]
        finally:
            recorder.close()
        numbers = {party.party_id: at for at, party in enumerate(parties)}
        found = []
        for one in sorted(stored, key=lambda one: one.position or 0):
            event = CATALOGUE.open(one, None).event
            if isinstance(event, ReleasesClosed | ReleasesOpened) and event.party_id in numbers:
                verb = "closed" if isinstance(event, ReleasesClosed) else "opened"
                found.append((verb, numbers[event.party_id]))
        return tuple(found)


@pytest.fixture(scope="module")
async def bank(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    """Databases of their own, with parties at two sources."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in ("saga_killed", "saga_killed_keys"):
            connection.execute(f"create database {name}")
    data: Path = tmp_path_factory.mktemp("data")
    places: dict[str, Any] = {
        "postgres_url": make_conninfo(postgres_url, dbname="saga_killed"),
        "keys_url": make_conninfo(postgres_url, dbname="saga_killed_keys"),
        "data": data,
        "environment": "development",
    }
    customer, ingest = CustomerSettings(**places), SyncIngestSettings(**places)
    await asyncio.to_thread(migrated, ingest)
    parties = await asyncio.to_thread(described, ingest)
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(ingest_service.web_app(ingest))
        url = f"http://127.0.0.1:{await stack.enter_async_context(served(app))}"
        peer = await stack.enter_async_context(HttpPeer(url, ServiceToken(customer, "customer", CLOCK)))
        write = await stack.enter_async_context(write_side(customer, CLOCK))
        yield Bank(write, peer, ingest, parties)


def described(settings: SyncIngestSettings) -> tuple[tuple[UUID, ...], ...]:
    """Has each source describe its parties; their ids."""
    numbers = [f"P{number}" for number in range(PARTIES)]
    with ingest_service.opened(settings) as ingest:
        for source in SOURCES:
            records = [{"record": "party", "party": number, "name": "周慧"} for number in numbers]
            content = lines(*records)
            ingest.run(source, [FeedContent("feed.jsonl", lambda: io.BytesIO(content))], format="canonical")  # noqa: B023 (read at once)
        return tuple(tuple(ingest.ids.party(source, number) for number in numbers) for source in SOURCES)


class Process:
    """A process of customer that starts: it has nothing in memory. It dies at its n-th point, or at none."""

    def __init__(self, bank: Bank, points: list[str], dies_at: int) -> None:
        def reached(point: str) -> None:
            points.append(point)
            if len(points) == dies_at:
                raise Killed

        class Settings(CustomerSettings):
            @property
            @override
            def reached(self) -> Callable[[str], None]:
                return reached

        write = bank.write
        settings = Settings.model_construct(**dict(write.settings))
        handler = CommandHandler(customer_decider, write.store, catalogue(), write.ring, reached=reached)
        self.write = replace(write, handler=handler, settings=settings)
        self.react = POLICY.reaction(self.write).react
        self.sagas: Sagas = giving(self.write, {INGEST: bank.peer})

    async def prepares(self, customer: UUID, parties: tuple[PartyOfSource, ...], ending: Ending) -> None:
        """Does what the roles do, until the saga has ended and has heard all that was published."""
        preparation = uuid5(customer, "prepare")
        await self._gives(customer, "register", RegisterCustomer(Details(name="周慧")))
        await self._gives(customer, "prepare", BeginErasurePreparation(preparation, parties))
        for _ in range(TURNS_MAX):
            await self._told(customer)
            state, unanswered = await self.sagas.advance(preparation)
            assert unanswered is None, unanswered
            if state.status == "ended":
                return await self._told(customer)
            await self._then(customer, preparation, state, ending.then)
        raise AssertionError(f"after {TURNS_MAX} turns the saga has not ended")

    async def _then(self, customer: UUID, preparation: UUID, state: SagaState, then: str) -> None:
        if state.status != "running" or not state.own.prepared:
            return
        if then == "timed-out":
            context = self._context(customer, "time-out")
            await handler_of(self.write).handle(preparation, TimeOut(), context)
        elif then == "erased":
            await self._gives(customer, "erase", EraseCustomer((), (), CLOCK.now().date()))
        else:
            await self._gives(customer, "withdraw", EndErasurePreparation("withdrawn"))

    async def _gives(self, customer: UUID, said: str, command: CustomerCommand) -> None:
        await self.write.handler.handle(customer, command, self._context(customer, said), asked=said)

    async def _told(self, customer: UUID) -> None:
        """Gives the policy all that the relay has published of the customer. It had some of it before."""
        for stored in await self.write.store.read_stream(customer):
            public = published(stored)
            if public is not None and public.event.TYPE in POLICY.events:
                type, version = public.event.TYPE, public.event.VERSION
                data = json.loads(public.body)
                await self.react(delivered(type, customer, stored.version, version=version, **data))

    @staticmethod
    def _context(customer: UUID, said: str) -> CommandContext:
        return CommandContext(
            actor="chen", now=CLOCK.now(), command_id=uuid5(customer, said), reason="he asked for it"
        )


async def prepared(bank: Bank, ending: Ending, dies_at: int = 0) -> tuple[Ended, list[str]]:
    """A preparation whose first process dies at its n-th point; what it came to, and the points of that process."""
    parties, points = bank.next_parties(ending.unknown), list[str]()
    customer = uuid5(NAMESPACE, f"customer-{bank.used}")
    _, before = await asyncio.to_thread(bank.commands, customer)
    try:
        await Process(bank, points, dies_at).prepares(customer, parties, ending)
    except Killed:
        await Process(bank, [], 0).prepares(customer, parties, ending)
    store, known = bank.write.store, catalogue()
    saga = await store.read_stream(uuid5(customer, "prepare"))
    events = [known.decode(one).event for one in saga]
    [ended] = [one for one in events if isinstance(one, SagaEnded)]
    own, after = await asyncio.to_thread(bank.commands, customer)
    return Ended(
        ended.outcome,
        tuple(one.name for one in saga),
        tuple(one.step.partition(":")[0] for one in events if isinstance(one, StepGiven)),
        tuple(one.name for one in await store.read_stream(customer)),
        await asyncio.to_thread(bank.switched, parties),
        (own, after - before),
    ), points


@pytest.mark.parametrize(
    ("ending", "outcome", "switched"),
    [
        pytest.param(WITHDRAWN, "compensated", (*BOTH_CLOSED, *OPENED_AGAIN), id="withdrawn"),
        pytest.param(REFUSED, "compensated", (("closed", 0), ("opened", 0)), id="a source refuses"),
        pytest.param(TIMED_OUT, "compensated", (*BOTH_CLOSED, *OPENED_AGAIN), id="its time is over"),
        pytest.param(ERASED, "erased", BOTH_CLOSED, id="erased"),
    ],
)
async def test_a_preparation_that_is_killed_at_any_point_ends_as_one_that_is_not(
    bank: Bank, ending: Ending, outcome: str, switched: tuple[tuple[str, int], ...]
) -> None:
    whole, points = await prepared(bank, ending)
    assert (whole.outcome, whole.switched) == (outcome, switched)
    assert Counter(whole.customer)["erasure-preparation-ended"] == 1
    assert set(points) == POINTS
    for number in range(1, len(points) + 1):
        found, _ = await prepared(bank, ending, number)
        assert found == whole, f"killed at point {number}, {points[number - 1]}"
