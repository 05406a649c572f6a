"""A day in the life of one context, as far as its log: clients and a sealer; and what must hold after it.

Clients move money: by commands on one subject, and by records between two subjects that may arrive more than once.
Everything in between may crash, be repeated, arrive late or twice. When the clients are done there are no more
faults, the rest catches up, and the invariants are checked.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID, uuid5

import msgspec
from chassis.connections.transient import StoreUnavailable
from chassis.write.events import StoredEvent
from chassis.write.store.appender import Appender
from chassis.write.store.items import (
    Append,
    Appended,
    AppendResult,
    Command,
    IdentityConflict,
    VersionConflict,
)

from tests.simulation.kernel import EPOCH, Faults, Injected, Kernel
from tests.simulation.servers import Flaws, LogServer, position_of

NAMESPACE = UUID("8a7f6c1e-53a2-5d0a-9d3c-7a3d7f1f2b11")
SUBJECTS = tuple(uuid5(NAMESPACE, f"subject-{number}") for number in range(5))
MOVED, NOTED = "moved", "noted"
SERVICES = 2
CLIENTS_PER_SERVICE = 2
DEEDS_PER_CLIENT = 7
TRIES_MAX = 60
CATCH_UP_SECONDS_MAX = 20.0


@dataclass(frozen=True, slots=True)
class Deed:
    """What a client wants: a command on one subject, with a key or without, or a record that moves money between two
    and may come twice."""

    key: str
    amount_minor: int
    to: UUID
    out_of: UUID | None
    keyed: bool = True


@dataclass(slots=True)
class World:
    """All there is in one run."""

    kernel: Kernel
    log: LogServer
    acknowledged: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """Tries that were answered with a conflict."""
    checkpoints: list[tuple[int, str]] = field(default_factory=list)
    services_left: int = SERVICES
    over: bool = False

    @classmethod
    def of(cls, seed: int, flaws: Flaws, faults: Faults | None = None) -> "World":
        """A world of a seed, with servers that break what `flaws` names."""
        kernel = Kernel(seed, faults or Faults())
        return cls(kernel, LogServer(kernel, flaws))


class Meta(msgspec.Struct, frozen=True):
    """What surrounds a stored event."""

    recorded_at: datetime
    effective_at: datetime
    correlation_id: UUID
    causation_id: UUID


class Body(msgspec.Struct, frozen=True):
    """What a stored event says: which deed, and how much it moves."""

    meta: Meta
    deed: str
    amount_minor: int


def body_of(event: StoredEvent) -> Body:
    """Reads a stored event."""
    return msgspec.json.decode(event.body, type=Body)


def deeds_of(world: World, client: int) -> list[Deed]:
    """What one client will do: drawn once, so that a restarted client wants the same."""
    chance = world.kernel.chance
    deeds: list[Deed] = []
    for number in range(DEEDS_PER_CLIENT):
        to, out_of = chance.sample(SUBJECTS, 2)
        record = chance.random() < 0.5
        keyed = record or chance.random() < 0.5
        amount_minor = chance.randrange(1, 1_000)
        deeds.append(Deed(f"{client}-{number}", amount_minor, to, out_of if record else None, keyed))
    if client == 1:
        deeds.extend(deed for deed in list(deeds) if deed.out_of is not None)
    return deeds


def event_of(
    deed: Deed, stream: UUID, version: int, amount_minor: int, identity: UUID | None = None, name: str = MOVED
) -> StoredEvent:
    """An event that a deed leaves on a subject."""
    cause = uuid5(NAMESPACE, deed.key)
    body = msgspec.json.encode(Body(Meta(EPOCH, EPOCH, cause, cause), deed.key, amount_minor))
    return StoredEvent(stream, version, name, body, identity)


async def command(world: World, deed: Deed, appender: Appender) -> None:
    """A command as its handler does it: decided on a version, remembered under its key, repeated on a conflict.

    It leaves a note beside the movement, which is nobody else's business.
    """
    head = (await world.log.stream_heads([deed.to]))[deed.to]
    events = (
        event_of(deed, deed.to, head + 1, deed.amount_minor),
        event_of(deed, deed.to, head + 2, 0, name=NOTED),
    )
    result = await appender.append(Append(deed.to, events, Command(deed.key, b"")))
    if isinstance(result, VersionConflict | IdentityConflict):
        raise result


async def unkeyed(world: World, deed: Deed, appender: Appender) -> None:
    """A command that the store cannot recognise. It is decided again after a conflict, and given up where nobody
    knows what became of it."""
    for number in range(TRIES_MAX):
        try:
            head = (await world.log.stream_heads([deed.to]))[deed.to]
        except (StoreUnavailable, Injected):
            await world.kernel.sleep(0.01)
            continue
        this_try = replace(deed, key=f"{deed.key}/{number}")
        event = event_of(this_try, deed.to, head + 1, deed.amount_minor)
        try:
            result = await appender.append(Append(deed.to, (event,)))
        except (StoreUnavailable, Injected):
            return
        if isinstance(result, Appended):
            world.acknowledged.setdefault(this_try.key, world.kernel.turns)
            return
        world.refused.add(this_try.key)
    raise AssertionError(f"deed {deed.key} could not be done")


async def record(world: World, deed: Deed, out_of: UUID) -> None:
    """A record as ingest does it: both sides in one transaction, recognised by their identities."""
    heads = await world.log.stream_heads([deed.to, out_of])
    sides = [(deed.to, deed.amount_minor), (out_of, -deed.amount_minor)]
    events = [
        event_of(deed, stream, heads[stream] + 1, amount_minor, uuid5(stream, deed.key))
        for stream, amount_minor in sides
    ]
    try:
        await world.log.append_bulk(events)
    except IdentityConflict:
        return


async def perform(world: World, deed: Deed, appender: Appender) -> None:
    """Performs a deed, however often it has to be tried; one without a key once at the most."""
    if not deed.keyed:
        await unkeyed(world, deed, appender)
        return
    for _ in range(TRIES_MAX):
        try:
            if deed.out_of is None:
                await command(world, deed, appender)
            else:
                await record(world, deed, deed.out_of)
            world.acknowledged.setdefault(deed.key, world.kernel.turns)
            return
        except (VersionConflict, StoreUnavailable, Injected):
            await world.kernel.sleep(0.01)
    raise AssertionError(f"deed {deed.key} could not be done")


MakeAppender = Callable[[World], Appender]


def honest_appender(world: World) -> Appender:
    """The appender of the chassis over the simulated log."""

    def write(items: Sequence[Append]) -> list[AppendResult]:
        raise AssertionError("the simulated log writes itself")

    def run(_: object, items: Sequence[Append]) -> "asyncio.Future[list[AppendResult]]":
        return asyncio.ensure_future(world.log.append_items(items))

    return Appender(write, run, world.kernel)


def service(
    world: World, number: int, make: MakeAppender, pause_seconds: float = 0.0
) -> Callable[[], Awaitable[None]]:
    """A process that serves its clients at once through one appender; they go on where they were after its death.

    Between two deeds a client pauses up to `pause_seconds`.
    """
    clients = [
        deeds_of(world, number * CLIENTS_PER_SERVICE + client) for client in range(CLIENTS_PER_SERVICE)
    ]
    done = [0] * CLIENTS_PER_SERVICE

    async def client(which: int, appender: Appender) -> None:
        deeds = clients[which]
        while done[which] < len(deeds):
            deed = deeds[done[which]]
            done[which] += not deed.keyed  # a client that died does not do again what nobody would recognise
            await perform(world, deed, appender)
            done[which] += deed.keyed
            if pause_seconds:
                await world.kernel.sleep(world.kernel.chance.random() * pause_seconds)

    async def main() -> None:
        appender = make(world)
        await asyncio.gather(*(client(which, appender) for which in range(CLIENTS_PER_SERVICE)))
        world.services_left -= 1

    return main


def digest_of(rows: list[StoredEvent]) -> str:
    """One word for a prefix of the log."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.position}|{row.stream_id}|{row.version}|{row.name}|".encode() + row.body)
    return digest.hexdigest()


def sealer(world: World) -> Callable[[], Awaitable[None]]:
    """A reader that follows the log and seals what it has read: nothing may ever appear before a checkpoint."""
    read: list[StoredEvent] = []

    async def main() -> None:
        while not world.over:
            last = position_of(read[-1]) if read else 0
            try:
                rows = await world.log.read_after(last, 5)
            except Injected:
                rows = []
            read.extend(rows)
            if rows:
                world.checkpoints.append((position_of(read[-1]), digest_of(read)))
            await world.kernel.sleep(0.005)

    return main


class Broken(AssertionError):
    """An invariant that does not hold: which, and how."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


def check_log(world: World) -> Iterator[Broken]:
    """What must hold in the log itself."""
    rows = world.log.rows
    effects = Counter((body_of(row).deed, row.stream_id) for row in rows if row.name == MOVED)
    for (deed, stream), count in effects.items():
        if count > 1:
            yield Broken("I2", f"deed {deed} had its effect on {stream} {count} times")
    stored = {deed for deed, _ in effects}
    for deed in sorted(world.acknowledged.keys() - stored):
        yield Broken("I8", f"deed {deed} was acknowledged and is not in the log")
    for deed in sorted(world.refused & stored):
        yield Broken("I8", f"deed {deed} was refused and is in the log")
    for stream in SUBJECTS:
        versions = [row.version for row in rows if row.stream_id == stream]
        if versions != list(range(1, len(versions) + 1)):
            yield Broken("I3", f"versions of {stream} are {versions}")
    sums: Counter[str] = Counter()
    for row in rows:
        if row.identity is not None:
            sums[body_of(row).deed] += body_of(row).amount_minor
    for deed, total in sums.items():
        if total:
            yield Broken("I5", f"deed {deed} made {total} out of nothing")
    for position, digest in world.checkpoints:
        if digest_of([row for row in rows if position_of(row) <= position]) != digest:
            yield Broken("I6", f"the log before checkpoint {position} is not what was sealed")


def supervisor(world: World, caught_up: Callable[[], bool]) -> Callable[[], Awaitable[None]]:
    """Heals the world when the clients are done and ends it when all have caught up, or after a bounded time."""

    async def main() -> None:
        while world.services_left > 0:
            await world.kernel.sleep(0.02)
        world.kernel.heal()
        until = world.kernel.seconds + CATCH_UP_SECONDS_MAX
        while not caught_up() and world.kernel.seconds < until:
            await world.kernel.sleep(0.05)
        world.over = True

    return main
