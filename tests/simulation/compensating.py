"""Sagas that close items at a peer, are refused, time out and take back, while processes die and requests arrive late.

Sagas, their loop, the timers, the command handler and the store are those of the chassis. A request to the peer is an
actor of its own: whoever gave it may be dead, or have given up, when it arrives. The peer carries out whatever it is
given, so that nothing but its memory of commands keeps a command that comes twice from having its effect twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, assert_never, cast
from uuid import UUID, uuid5

import msgspec
from chassis.connections.transient import StoreUnavailable
from chassis.privacy.keys import DataKey
from chassis.process.leases import Lease
from chassis.sagas import (
    SAGAS,
    Answered,
    Came,
    Compensate,
    End,
    Give,
    Heard,
    Move,
    PeerUnanswered,
    Refused,
    Request,
    Saga,
    Sagas,
    Started,
    TimedOut,
    saga_timer,
)
from chassis.sagas.deciding import (
    SagaCommand,
    SagaEnded,
    SagaEvent,
    SagaState,
    StepGiven,
    TimeOut,
    saga_decider,
)
from chassis.sagas.loop import SagaLoop
from chassis.sagas.peers import Carried as CarriedOut
from chassis.sagas.peers import Outcome, Peer, RefusedForGood
from chassis.timers import Timer, TimerLoop
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Decider, Refusal, TooManyConflicts
from chassis.write.events import Event
from chassis.write.handling import CommandHandler
from typing_extensions import override

from tests.simulation.kernel import Faults, Injected, Kernel
from tests.simulation.scenario import NAMESPACE, Broken
from tests.simulation.servers import Flaws, LogServer, PositionServer
from tests.simulation.store import SimulatedKeys, StoreClient
from tests.simulation.timing import TableFlaws, TimerClient, TimerServer

SAGAS_STARTED = 4
GIVERS = 2
ITEMS_MAX = 3
TRIES_MAX = 200
LASTS_SECONDS = 1.5
ANSWER_SECONDS_MAX = 0.2
LATE, LATE_SECONDS_MAX = 0.2, 1.0
PLANNING_SECONDS = 2.5
CATCH_UP_SECONDS_MAX = 60.0
LEASE_SECONDS, RENEWED_SECONDS, MARGIN_SECONDS, ASKED_SECONDS = 0.5, 0.1, 0.1, 0.05
FAULTS = Faults(crash=0.006, unanswered=0.02, freeze=0.003, freezes_max=3, freeze_seconds=0.8)
CLOSE = "close-items"


# the peer


class Closed(Event, frozen=True):
    """An item is closed for a saga."""

    saga: UUID


class Opened(Event, frozen=True):
    """It is open again."""

    saga: UUID


class Close(msgspec.Struct, frozen=True):
    """Closes; refused where the item cannot be closed."""

    saga: UUID
    refused: bool


class Open(msgspec.Struct, frozen=True):
    """Opens; refused until an operator has mended the item."""

    saga: UUID
    refused: bool


class ItemFixed(Refusal):
    """The item stays as it is."""

    code = "item-fixed"


def decide_item(command: Close | Open, _: int) -> list[Closed | Opened]:
    """Nothing is passed over: a command that comes anew has its effect anew."""
    if command.refused:
        raise ItemFixed
    match command:
        case Close(saga):
            return [Closed(saga)]
        case Open(saga):
            return [Opened(saga)]
        case _:
            assert_never(command)


ITEM: Decider[Close | Open, int, Closed | Opened] = Decider(
    0, decide_item, lambda count, _: count + 1, Closed | Opened
)
CATALOGUE = Catalogue(store="simulation", entries={"item-closed": Closed, "item-opened": Opened, **SAGAS})


# the saga: one item after the other, or all at once


class Closing(msgspec.Struct, frozen=True):
    """What is to be closed, and what is."""

    items: tuple[str, ...] = ()
    at_once: bool = False
    waits: bool = False
    closed: frozenset[str] = frozenset()


def evolve_closing(closing: Closing, came: Came) -> Closing:
    """The state after what came."""
    match came:
        case Started(data):
            return Closing(tuple(data["items"]), data["at_once"], data["waits"])
        case Answered(step):
            return msgspec.structs.replace(closing, closed=closing.closed | {step})
        case Refused() | Heard() | TimedOut():
            return closing
        case _:
            assert_never(came)


def decide_closing(closing: Closing, came: Came) -> Sequence[Move]:
    """The next item; the end once all are closed, unless the saga waits for its time to be over."""
    left = [item for item in closing.items if item not in closing.closed]
    match came:
        case Started():
            return [close(item) for item in (left if closing.at_once else left[:1])]
        case Answered():
            if not left:
                return [] if closing.waits else [End("closed")]
            return [] if closing.at_once else [close(left[0])]
        case Refused():
            return [Compensate("refused")]
        case Heard() | TimedOut():
            return []
        case _:
            assert_never(came)


def close(item: str) -> Give:
    """The step of an item."""
    return Give(item, "peer", Request.of("close", item=item), Request.of("open", item=item))


KIND: Saga[Closing] = Saga(CLOSE, Closing(), evolve_closing, decide_closing, timedelta(seconds=LASTS_SECONDS))
Deciding = Decider[SagaCommand, SagaState, SagaEvent]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the processes work with; a planted bug is another part."""

    sagas: Callable[..., Sagas] = Sagas
    decider: Callable[[Deciding], Deciding] = lambda decider: decider
    timer: Callable[[Timer], Timer] = lambda timer: timer
    flaws: Flaws = field(default_factory=Flaws)


@dataclass(slots=True)
class Office:
    """All there is in one run."""

    kernel: Kernel
    parts: Parts
    log: LogServer
    there: LogServer
    timers: TimerServer
    lease: PositionServer
    keys: dict[UUID, DataKey] = field(default_factory=dict)
    keys_there: dict[UUID, DataKey] = field(default_factory=dict)
    started: list[UUID] = field(default_factory=list)
    not_closed: set[str] = field(default_factory=set)
    not_opened: set[str] = field(default_factory=set)
    stopping: list[asyncio.Event] = field(default_factory=list)
    starters_left: int = 1
    requests: int = 0
    over: bool = False
    broken: list[Broken] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int, parts: Parts) -> "Office":
        """Everything for a seed."""
        kernel = Kernel(seed, FAULTS)
        timers = TimerServer(kernel, TableFlaws(), PositionServer(kernel, Flaws()))
        log, there = LogServer(kernel, Flaws()), LogServer(kernel, parts.flaws)
        return cls(kernel, parts, log, there, timers, PositionServer(kernel, Flaws()))

    def opened(
        self, peer: Peer | None = None, reached: Callable[[str], None] = lambda _: None
    ) -> tuple[StoreClient, Any, Sagas]:
        """Store, command handler and sagas of a process that starts."""
        store, keys = StoreClient(self.log), SimulatedKeys(self.kernel, self.keys)
        decider = self.parts.decider(saga_decider({KIND.name: KIND}))
        handler = CommandHandler(decider, store, CATALOGUE, keys, reached=reached)
        peers = {"peer": peer or PeerClient(self)}
        return store, handler, self.parts.sagas(store, handler, self.kernel, peers, reached=reached)

    def is_given(self, saga: UUID, item: str) -> bool:
        """Whether the store knows that the item is to be closed."""
        return any(
            isinstance(event := CATALOGUE.decode(row).event, StepGiven) and event.step == item
            for row in self.log.rows
            if row.stream_id == saga
        )


class PeerClient(Peer):
    """The peer as one process has it. A request arrives late, twice, or after its giver is dead."""

    def __init__(self, office: Office) -> None:
        self._office = office

    @override
    async def give(self, id: UUID, request: Request, context: CommandContext) -> Outcome:
        office, answers = self._office, list[Outcome]()
        kernel = office.kernel
        saga = cast(UUID, context.correlation_id)
        item = msgspec.json.decode(request.body)["item"]
        late_seconds = 0.0
        if not kernel.healed and kernel.chance.random() < LATE:
            late_seconds = kernel.chance.random() * LATE_SECONDS_MAX
            kernel.met["late"] += 1

        async def arrives() -> None:
            await kernel.gate("request", after_seconds=late_seconds)
            with suppress(StoreUnavailable, TooManyConflicts):
                answers.append(await self.carried_out(id, saga, request.path, item))

        office.requests += 1
        kernel.spawn(f"request-{office.requests}", arrives, mortal=False)
        if not await kernel.comes(lambda: bool(answers), ANSWER_SECONDS_MAX):
            raise PeerUnanswered("no answer")
        try:
            return await kernel.call("answer", lambda: answers[0])
        except Injected:
            raise PeerUnanswered("the answer is lost") from None

    async def carried_out(self, id: UUID, saga: UUID, path: str, item: str) -> Outcome:
        """What the peer makes of a request."""
        office = self._office
        store = StoreClient(office.there)
        handler = CommandHandler(ITEM, store, CATALOGUE, SimulatedKeys(office.kernel, office.keys_there))
        command: Close | Open
        if path == "close":
            if not office.is_given(saga, item):
                office.broken.append(Broken("I7", f"{item} of {saga} was given before it was stored"))
            command = Close(saga, item in office.not_closed)
        else:
            command = Open(saga, item in office.not_opened)
        context = CommandContext(actor="service", now=office.kernel.now(), command_id=id)
        try:
            # The same command whatever it is refused for meanwhile.
            await handler.handle(uuid5(NAMESPACE, item), command, context, asked=(path, saga, item))
        except TooManyConflicts:
            raise
        except Refusal as refusal:
            return RefusedForGood(refusal.code)
        return CarriedOut()


class PromptPeer(PeerClient):
    """The same without a network: it answers at once."""

    @override
    async def give(self, id: UUID, request: Request, context: CommandContext) -> Outcome:
        item = msgspec.json.decode(request.body)["item"]
        return await self.carried_out(id, cast(UUID, context.correlation_id), request.path, item)


class Killed(BaseException):
    """The process ends here."""


async def killed_at(
    number: int, data: dict[str, Any], not_closed: set[str], not_opened: set[str]
) -> tuple[Office, int]:
    """A saga whose process is killed at its n-th point, and goes on in another one; how many points there were."""
    office = Office.of(0, Parts())
    office.kernel.heal()
    office.log.abort = office.there.abort = 0.0
    office.not_closed, office.not_opened = set(not_closed), set(not_opened)
    saga, points = uuid5(NAMESPACE, "killed"), 0
    office.started.append(saga)

    def reached(_: str) -> None:
        nonlocal points
        points += 1
        if points == number:
            raise Killed

    def said(actor: str, text: str) -> CommandContext:
        return CommandContext(actor=actor, now=office.kernel.now(), command_id=uuid5(saga, text))

    for _ in range(2):
        try:
            _, handler, sagas = office.opened(PromptPeer(office), reached)
            await sagas.start(CLOSE, saga, data, said("policy", "start"))
            while (state := (await sagas.advance(saga)).state).status != "ended":
                if state.status == "running":
                    await handler.handle(saga, TimeOut(), said("timer", "time-out"))
                else:
                    office.not_opened.discard(state.refused or "")
                    await sagas.try_again(saga, said("operator", f"again-{state.refused}"))
        except Killed:
            continue
        break
    return office, points


async def answered(office: Office, act: Callable[[], Awaitable[object]]) -> None:
    """Acts until it is answered."""
    for _ in range(TRIES_MAX):
        try:
            await act()
        except (StoreUnavailable, Injected, TooManyConflicts, PeerUnanswered):
            await office.kernel.sleep(0.01)
        else:
            return
    office.broken.append(Broken("I10", "no answer"))


def starting(office: Office) -> Callable[[], Awaitable[None]]:
    """The policy that starts sagas; an event may come to it twice."""
    chance = office.kernel.chance
    planned: list[tuple[UUID, dict[str, Any]]] = []
    for number in range(SAGAS_STARTED):
        items = [f"{number}-{item}" for item in range(1 + chance.randrange(ITEMS_MAX))]
        data = {"items": items, "at_once": chance.random() < 0.4, "waits": chance.random() < 0.2}
        planned.append((uuid5(NAMESPACE, f"saga-{number}"), data))
        if chance.random() < 0.4:
            office.not_closed.add(items[-1])
        if chance.random() < 0.5:
            office.not_opened.add(items[0])
    done = [0]

    async def main() -> None:
        _, _, sagas = office.opened()
        while done[0] < len(planned):
            id, data = planned[done[0]]

            def begun(id: UUID = id, data: dict[str, Any] = data) -> Awaitable[None]:
                now = office.kernel.now()
                context = CommandContext(actor="policy", now=now, command_id=uuid5(id, "start"))
                return sagas.start(CLOSE, id, data, context)

            await answered(office, begun)
            if id not in office.started:
                office.started.append(id)
            done[0] += 1
            await office.kernel.sleep(office.kernel.chance.random() * PLANNING_SECONDS / SAGAS_STARTED)
        office.starters_left = 0

    return main


def lease(office: Office, row: PositionServer) -> Lease:
    """A process's hold on a lease."""
    return Lease(
        row,
        office.kernel,
        seconds=LEASE_SECONDS,
        renewed_seconds=RENEWED_SECONDS,
        margin_seconds=MARGIN_SECONDS,
        asked_seconds=ASKED_SECONDS,
    )


def stopping_of(office: Office) -> asyncio.Event:
    """What tells a process to end."""
    stopping = asyncio.Event()
    office.stopping.append(stopping)
    if office.over:
        stopping.set()
    return stopping


def giving(office: Office) -> Callable[[], Awaitable[None]]:
    """A process that gives the commands of sagas."""

    async def main() -> None:
        store, _, sagas = office.opened()
        loop = SagaLoop(
            "simulation",
            sagas,
            store,
            lease(office, office.lease),
            office.kernel,
            read_events_max=5,
            working_max=3,
            poll_seconds=0.05,
            again_seconds_first=0.05,
            again_seconds_max=0.4,
        )
        await loop.run(stopping_of(office))

    return main


def timing_out(office: Office) -> Callable[[], Awaitable[None]]:
    """A process that ends the time of sagas."""

    async def main() -> None:
        store, handler, _ = office.opened()
        loop = TimerLoop(
            "simulation",
            [office.parts.timer(saga_timer(handler))],
            store,
            CATALOGUE.decode,
            TimerClient(office.timers),
            lease(office, office.timers.lease),
            office.kernel,
            generation="1",
            given_per_second_max=1_000.0,
            poll_seconds=0.05,
        )
        await loop.run(stopping_of(office))

    return main


def operating(office: Office) -> Callable[[], Awaitable[None]]:
    """An operator: finds what is stuck, mends it, and has it given again."""

    async def main() -> None:
        _, _, sagas = office.opened()
        while not office.over:
            await office.kernel.sleep(0.3)
            for id in list(office.started):
                with suppress(StoreUnavailable, Injected, TooManyConflicts):
                    found = await sagas.shown(id)
                    if found.status == "stuck":
                        office.kernel.met["stuck"] += 1
                        if office.kernel.chance.random() < 0.7:
                            office.not_opened.discard(found.refused or "")
                        now = office.kernel.now()
                        said = uuid5(id, f"again-{office.kernel.turns}")
                        context = CommandContext(actor="operator", now=now, command_id=said)
                        await sagas.try_again(id, context)

    return main


def supervising(office: Office) -> Callable[[], Awaitable[None]]:
    """Heals the world once all is started; every saga must end then."""

    async def main() -> None:
        while office.starters_left:
            await office.kernel.sleep(0.05)
        await office.kernel.sleep(LASTS_SECONDS)
        office.kernel.heal()
        if not await office.kernel.comes(lambda: not still_open(office), CATCH_UP_SECONDS_MAX):
            office.broken.append(Broken("I10", f"{still_open(office)} did not end"))
        await office.kernel.sleep(2 * LASTS_SECONDS)  # what fires after the end, or arrives late, does so now
        office.over = True
        for stopping in office.stopping:
            stopping.set()

    return main


# what must hold


def outcome_of(office: Office, saga: UUID) -> list[str]:
    """How often, and as what, a saga ended."""
    events = [CATALOGUE.decode(row).event for row in office.log.rows if row.stream_id == saga]
    return [event.outcome for event in events if isinstance(event, SagaEnded)]


def still_open(office: Office) -> list[UUID]:
    """The sagas that have not ended."""
    return [saga for saga in office.started if not outcome_of(office, saga)]


def check(office: Office) -> list[Broken]:
    """Everything, when all is over."""
    return [*office.broken, *(one for saga in office.started for one in check_saga(office, saga))]


def check_saga(office: Office, saga: UUID) -> Iterator[Broken]:
    """What a saga came to, against what the peer did."""
    outcomes = outcome_of(office, saga)
    if len(outcomes) != 1:
        yield Broken("I2", f"{saga} ended as {outcomes}")
        return
    rows = [row for row in office.log.rows if row.stream_id == saga]
    if rows[-1].name != "saga-ended":
        yield Broken("I3", f"{saga}: {rows[-1].name} after the end")
    steps = [event.step for row in rows if isinstance(event := CATALOGUE.decode(row).event, StepGiven)]
    opened: list[str] = []
    by_stream = {uuid5(NAMESPACE, step): step for step in steps}
    did: dict[str, list[str]] = {step: [] for step in steps}
    for row in office.there.rows:
        event = cast("Closed | Opened", CATALOGUE.decode(row).event)
        if event.saga == saga:
            did[by_stream[row.stream_id]].append(row.name)
            if isinstance(event, Opened):
                opened.append(by_stream[row.stream_id])
    wanted = [["item-closed"]] if outcomes == ["closed"] else [[], ["item-closed", "item-opened"]]
    for step, names in did.items():
        if names not in wanted:
            yield Broken("I5", f"{saga} ended as {outcomes[0]}, and of {step} the peer did {names}")
    if opened != sorted(opened, key=steps.index, reverse=True):
        yield Broken("I3", f"{saga} was taken back in the order {opened}")


async def lived(seed: int, parts: Parts | None = None) -> Office:
    """All that is left after a seed's schedule."""
    office = Office.of(seed, parts or Parts())
    kernel = office.kernel
    kernel.spawn("policy", starting(office))
    for number in range(GIVERS):
        kernel.spawn(f"sagas-{number}", giving(office))
    kernel.spawn("timers", timing_out(office))
    kernel.spawn("operator", operating(office), mortal=False)
    kernel.spawn("supervisor", supervising(office), mortal=False)
    await kernel.run()
    return office
