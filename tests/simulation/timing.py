"""Timers over the event store: clients set, move and withdraw them while two processes give what is due.

The loop, the lease, the command handler and the store are those of the chassis; what the table does in SQL is done in a
dictionary. The command of a timer is carried out whatever the state of its subject is, so that nothing but the mechanism
keeps a withdrawn timer from having its effect.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Protocol, assert_never, cast
from uuid import UUID, uuid5

import msgspec
from chassis.connections.transient import StoreUnavailable
from chassis.privacy.keys import DataKey
from chassis.process.leases import Lease
from chassis.timers import Change, Due, SetTimer, Setting, Timer, TimerLoop, TimerTable, WithdrawTimer
from chassis.timers.declaring import Give, given_by
from chassis.timers.table import Folded, Given, key_of
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Decider, TooManyConflicts
from chassis.write.events import Event, RecordedEvent, event_id
from chassis.write.handling import CommandHandler
from chassis.write.store.items import Fenced
from typing_extensions import override

from tests.simulation.kernel import Faults, Injected, Kernel
from tests.simulation.scenario import NAMESPACE, Broken
from tests.simulation.servers import Flaws, LogServer, PositionServer
from tests.simulation.store import SimulatedKeys, StoreClient

SUBJECTS = tuple(uuid5(NAMESPACE, f"reminded-{number}") for number in range(4))
PROCESSES = 2
CLIENTS = 2
COMMANDS_PER_CLIENT = 8
TRIES_MAX = 60
FOLDED_EVENTS_MAX = 3
GIVEN_AT_ONCE_MAX = 2
DUE_SECONDS_MAX = 0.4
PAUSE_SECONDS_MAX = 0.25
LEASE_SECONDS, RENEWED_SECONDS, MARGIN_SECONDS, ASKED_SECONDS = 0.5, 0.1, 0.1, 0.05
CATCH_UP_SECONDS_MAX = 20.0
FAULTS = Faults(crash=0.006, unanswered=0.02, freeze=0.004, freezes_max=4, freeze_seconds=0.8)
RING = "ring"


class Planned(Event, frozen=True):
    """It is to ring so many seconds from now."""

    seconds: float


class Cancelled(Event, frozen=True):
    """It is not to ring."""


class Rung(Event, frozen=True):
    """It rang."""


class Plan(msgspec.Struct, frozen=True):
    """Sets or moves."""

    seconds: float


class Cancel(msgspec.Struct, frozen=True):
    """Withdraws."""


class Ring(msgspec.Struct, frozen=True):
    """What the timer gives."""


Command = Plan | Cancel | Ring
Happened = Planned | Cancelled | Rung


def decide(command: Command, _: int) -> list[Happened]:
    """Nothing is refused and nothing is passed over."""
    match command:
        case Plan(seconds):
            return [Planned(seconds)]
        case Cancel():
            return [Cancelled()]
        case Ring():
            return [Rung()]
        case _:
            assert_never(command)


DECIDER: Decider[Command, int, Happened] = Decider(0, decide, lambda count, _: count + 1, Happened)
CATALOGUE = Catalogue(store="simulation", entries={"planned": Planned, "cancelled": Cancelled, "rung": Rung})
Handler = CommandHandler[Command, int, Happened]


def changes(recorded: RecordedEvent) -> Sequence[Change]:
    """What rings when."""
    match recorded.event:
        case Planned(seconds):
            return [SetTimer(recorded.metadata.effective_at + timedelta(seconds=seconds))]
        case Cancelled():
            return [WithdrawTimer()]
        case _:
            return []


@dataclass(frozen=True, slots=True)
class TableFlaws:
    """What the table does not do in a planted bug."""

    position_first: bool = False
    settles_what_was_set_anew: bool = False


@dataclass(slots=True)
class Row:
    """A timer as the table has it."""

    set: Setting
    due_at: datetime
    generation: str
    run_at: datetime | None
    outcome: str | None = None
    tries: int = 0

    def due(self) -> Due:
        """As a process reads it."""
        one = self.set
        data = {} if one.set is None else one.set.data
        return Due(one.name, one.subject, one.slot, one.cause, one.position, self.due_at, data, self.tries)


@dataclass(slots=True)
class TimerServer:
    """The tables of the timers, and the lease of who may write them."""

    kernel: Kernel
    flaws: TableFlaws
    lease: PositionServer
    rows: dict[tuple[UUID, str, str], Row] = field(default_factory=dict)
    folded: Folded | None = None


class TimerClient(TimerTable):
    """The table as one process has it."""

    def __init__(self, server: TimerServer) -> None:
        self._server = server

    @override
    async def folded(self) -> Folded | None:
        return await self._ask("timers folded", lambda: self._server.folded)

    @override
    async def fold(self, epoch: int, folded: Folded, settings: Sequence[Setting]) -> None:
        def keep() -> None:
            self._checked(epoch)
            for setting in settings:
                self._keep(setting, folded.generation)
            self._server.folded = folded

        if self._server.flaws.position_first:
            await self._ask("timers fold", lambda: self._save(epoch, folded))
        await self._ask("timers fold", keep)

    @override
    async def complete(self, epoch: int, folded: Folded) -> None:
        def remove() -> None:
            self._checked(epoch)
            rows = self._server.rows
            stale = [
                key
                for key, row in rows.items()
                if row.outcome is None and row.generation != folded.generation
            ]
            for key in stale:
                del rows[key]
            self._server.folded = folded._replace(complete=True)

        await self._ask("timers complete", remove)

    @override
    async def due(self, now: datetime, limit: int) -> list[Due]:
        def found() -> list[Due]:
            rows = [row for row in self._server.rows.values() if row.run_at is not None and row.run_at <= now]
            rows.sort(key=longest)
            places = defaultdict[str, "count[int]"](count)
            parts = sorted(rows, key=lambda row: next(places[row.set.name]))
            return [row.due() for row in sorted(parts[:limit], key=longest)]

        def longest(row: Row) -> tuple[datetime | None, str]:
            return row.run_at, str(row.set.subject)

        return await self._ask("timers due", found)

    @override
    async def settle(self, epoch: int, now: datetime, given: Sequence[Given]) -> None:
        def keep() -> None:
            self._checked(epoch)
            for one in given:
                row = self._server.rows.get(key_of(one.due))
                same = row is not None and row.set.position == one.due.position
                if row is not None and (same or self._server.flaws.settles_what_was_set_anew):
                    row.outcome, row.run_at, row.tries = one.outcome, one.again_at, row.tries + 1

        await self._ask("timers settle", keep)

    @override
    async def next_at(self) -> datetime | None:
        def soonest() -> datetime | None:
            times = [row.run_at for row in self._server.rows.values() if row.run_at is not None]
            return min(times, default=None)

        return await self._ask("timers next", soonest)

    def _checked(self, epoch: int) -> None:
        if epoch != self._server.lease.epoch and not self._server.flaws.settles_what_was_set_anew:
            self._server.kernel.met["fenced"] += 1
            raise Fenced(f"epoch {epoch} is over")

    def _save(self, epoch: int, folded: Folded) -> None:
        self._checked(epoch)
        self._server.folded = folded

    def _keep(self, setting: Setting, generation: str) -> None:
        rows, key = self._server.rows, key_of(setting)
        before = rows.get(key)
        if setting.set is None:
            if before is not None and before.set.position < setting.position:
                del rows[key]
            return
        newer = before is None or setting.position > before.set.position
        if newer or (before is not None and before.outcome is None and before.generation != generation):
            rows[key] = Row(setting, setting.set.due_at, generation, setting.set.due_at)

    async def _ask(self, point: str, effect: Callable[[], Any]) -> Any:
        try:
            return await self._server.kernel.call(point, effect)
        except Injected as error:
            raise StoreUnavailable(point) from error


CommandOf = Callable[["Ringing", Due, CommandContext], CommandContext]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the processes work with; a planted bug is another part."""

    loop: Callable[..., TimerLoop] = TimerLoop
    context: CommandOf = lambda _, __, context: context
    table: TableFlaws = TableFlaws()


@dataclass(slots=True)
class Ringing:
    """All there is in one run."""

    kernel: Kernel
    log: LogServer
    timers: TimerServer
    keys: dict[UUID, DataKey] = field(default_factory=dict)
    clients_left: int = CLIENTS
    stopping: list[asyncio.Event] = field(default_factory=list)
    lives: int = 0
    over: bool = False
    broken: list[Broken] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int, parts: Parts) -> "Ringing":
        """Everything for a seed."""
        kernel = Kernel(seed, FAULTS)
        lease = PositionServer(kernel, Flaws())
        return cls(kernel, LogServer(kernel, Flaws()), TimerServer(kernel, parts.table, lease))

    def handler(self) -> tuple[StoreClient, Handler]:
        """Store and command handler of a process that starts."""
        store = StoreClient(self.log)
        return store, CommandHandler(DECIDER, store, CATALOGUE, SimulatedKeys(self.kernel, self.keys))


class Timed(Protocol):
    """A run with timers, as a process sees it that gives them."""

    kernel: Kernel
    timers: TimerServer
    stopping: list[asyncio.Event]
    over: bool


async def given(
    run: Timed,
    loop: Callable[..., TimerLoop],
    timer: Timer,
    store: StoreClient,
    catalogue: Catalogue,
    **how: Any,
) -> None:
    """Gives what is due until the run is over. `how`: what else the loop is made with."""
    stopping = asyncio.Event()
    run.stopping.append(stopping)
    if run.over:
        stopping.set()
    lease = Lease(
        run.timers.lease,
        run.kernel,
        seconds=LEASE_SECONDS,
        renewed_seconds=RENEWED_SECONDS,
        margin_seconds=MARGIN_SECONDS,
        asked_seconds=ASKED_SECONDS,
    )
    made = loop(
        "simulation",
        [timer],
        store,
        catalogue.decode,
        TimerClient(run.timers),
        lease,
        run.kernel,
        given_per_second_max=1_000.0,
        poll_seconds=0.05,
        **how,
    )
    await made.run(stopping)


def giving(run: Ringing, parts: Parts) -> Callable[[], Awaitable[None]]:
    """A process that gives what is due. Some of them come with another generation of the timers."""

    async def main() -> None:
        store, handler = run.handler()
        run.lives += 1
        give: Give = given_by(handler, lambda _: Ring())

        async def changed(due: Due, context: CommandContext, version: int) -> None:
            await give(due, parts.context(run, due, context), version)

        ring = Timer(RING, 1, frozenset({"planned", "cancelled"}), changes, changed)
        await given(
            run,
            parts.loop,
            ring,
            store,
            CATALOGUE,
            generation=f"g{run.lives // 4}",
            given_at_once_max=GIVEN_AT_ONCE_MAX,
            folded_events_max=FOLDED_EVENTS_MAX,
        )

    return main


def planning(run: Ringing, number: int) -> Callable[[], Awaitable[None]]:
    """A client that sets, moves and withdraws; each command is repeated until it is answered."""
    chance = run.kernel.chance
    wanted: list[tuple[UUID, Command]] = []
    for _ in range(COMMANDS_PER_CLIENT):
        command = Cancel() if chance.random() < 0.4 else Plan(round(chance.random() * DUE_SECONDS_MAX, 3))
        wanted.append((chance.choice(SUBJECTS), command))
    done = [0]

    async def main() -> None:
        _, handler = run.handler()
        while done[0] < len(wanted):
            subject, command = wanted[done[0]]
            id = uuid5(NAMESPACE, f"client-{number}-{done[0]}")
            for _ in range(TRIES_MAX):
                context = CommandContext(actor="client", now=run.kernel.now(), command_id=id)
                with suppress(StoreUnavailable, Injected, TooManyConflicts):
                    await handler.handle(subject, command, context)
                    break
                await run.kernel.sleep(0.01)
            else:
                run.broken.append(Broken("I10", f"client {number} was not answered"))
            done[0] += 1
            await run.kernel.sleep(run.kernel.chance.random() * PAUSE_SECONDS_MAX)
        run.clients_left -= 1

    return main


def supervising(run: Ringing) -> Callable[[], Awaitable[None]]:
    """Heals the world when the clients are done; all that is set must ring then."""

    async def main() -> None:
        while run.clients_left > 0:
            await run.kernel.sleep(0.02)
        run.kernel.heal()
        if not await run.kernel.comes(lambda: not standing(run), CATCH_UP_SECONDS_MAX):
            run.broken.append(Broken("I1", f"{standing(run)} did not ring"))
        run.over = True
        for stopping in run.stopping:
            stopping.set()

    return main


# what must hold


def history(run: Ringing) -> Iterator[tuple[UUID, Happened, UUID, UUID, datetime, datetime]]:
    """Of each event: subject, event, command id, event id, when it was effective and when it was recorded."""
    for row in run.log.rows:
        recorded = CATALOGUE.decode(row)
        meta = recorded.metadata
        yield (
            row.stream_id,
            cast(Happened, recorded.event),
            meta.command_id,
            event_id(row.stream_id, row.version),
            meta.effective_at,
            meta.recorded_at,
        )


def standing(run: Ringing) -> list[UUID]:
    """The subjects that have a timer which has not rung."""
    stands: dict[UUID, UUID] = {}
    for subject, event, command, cause, _, _ in history(run):
        match event:
            case Planned():
                stands[subject] = uuid5(cause, f"{RING}:")
            case Cancelled():
                stands.pop(subject, None)
            case Rung():
                if stands.get(subject) == command:
                    del stands[subject]
            case _:
                assert_never(event)
    return sorted(stands)


def check(run: Ringing) -> list[Broken]:
    """Everything, when all is over."""
    return [*run.broken, *check_rings(run)]


def check_rings(run: Ringing) -> Iterator[Broken]:
    """Each ring against the timer that stood when it was stored."""
    stands: dict[UUID, tuple[UUID, datetime]] = {}
    rung: set[UUID] = set()
    for subject, event, command, cause, effective_at, recorded_at in history(run):
        match event:
            case Planned(seconds):
                stands[subject] = uuid5(cause, f"{RING}:"), effective_at + timedelta(seconds=seconds)
            case Cancelled():
                stands.pop(subject, None)
            case Rung():
                id, due_at = stands.get(subject, (None, None))
                if command in rung:
                    yield Broken("I2", f"{subject} rang twice for {command}")
                elif id != command:
                    yield Broken("I3", f"{subject} rang for {command}, and {id} stood")
                elif due_at is not None and recorded_at < due_at:
                    yield Broken("I3", f"{subject} rang at {recorded_at}, and was due at {due_at}")
                rung.add(command)
            case _:
                assert_never(event)


async def lived(seed: int, parts: Parts | None = None) -> Ringing:
    """All that is left after a seed's schedule."""
    parts = parts or Parts()
    run = Ringing.of(seed, parts)
    for number in range(CLIENTS):
        run.kernel.spawn(f"client-{number}", planning(run, number))
    for number in range(PROCESSES):
        run.kernel.spawn(f"timers-{number}", giving(run, parts))
    run.kernel.spawn("supervisor", supervising(run), mortal=False)
    await run.kernel.run()
    return run
