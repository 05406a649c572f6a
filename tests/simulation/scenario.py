"""A day in the life of one context: clients, a sealer, two relays, overlapping consumers; and what must hold after it.

Clients move money between subjects, by commands that move two subjects at once and by postings that arrive more than
once. Everything in between may crash, be repeated, arrive late or twice. When the clients are done the world heals,
the rest catches up without a human hand (I10), and the invariants of DESIGN, section 5, are checked.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from uuid import UUID, uuid5

from tests.simulation.kernel import Faults, Injected, Kernel
from tests.simulation.servers import BrokerServer, Conflict, DocumentServer, Flaws, LogServer, NewRow, Row

NAMESPACE = UUID("8a7f6c1e-53a2-5d0a-9d3c-7a3d7f1f2b11")
SUBJECTS = tuple(uuid5(NAMESPACE, f"subject-{number}") for number in range(5))
CLIENTS = 3
DEEDS_PER_CLIENT = 7
TRIES_MAX = 60
CATCH_UP_SECONDS_MAX = 60.0
TOPIC = "sim.events"


@dataclass(frozen=True, slots=True)
class Deed:
    """What a client wants: move money between two subjects by command, or post a record that may come twice."""

    key: str
    amount_minor: int
    to: UUID
    out_of: UUID | None


@dataclass(slots=True)
class World:
    """All there is in one run."""

    kernel: Kernel
    log: LogServer
    broker: BrokerServer
    documents: DocumentServer
    acknowledged: dict[str, tuple[int, ...]] = field(default_factory=dict)
    checkpoints: list[tuple[int, str]] = field(default_factory=list)
    epochs_accepted: list[tuple[int, int]] = field(default_factory=list)
    clients_left: int = CLIENTS
    over: bool = False

    @classmethod
    def of(cls, seed: int, flaws: Flaws, faults: Faults | None = None) -> "World":
        """A world of a seed, with servers that break what `flaws` names."""
        kernel = Kernel(seed, faults or Faults())
        return cls(kernel, LogServer(kernel, flaws), BrokerServer(kernel), DocumentServer(kernel))


def body_of(deed: Deed, amount_minor: int) -> bytes:
    """The stored body of one side of a deed."""
    return json.dumps({"key": deed.key, "amount_minor": amount_minor}).encode()


def amount_of(row: Row) -> int:
    """Minor units that a stored event moves."""
    return int(json.loads(row.body)["amount_minor"])


def deeds_of(world: World, client: int) -> list[Deed]:
    """What one client will do: drawn once, so a restarted client wants the same."""
    chance = world.kernel.chance
    deeds: list[Deed] = []
    for number in range(DEEDS_PER_CLIENT):
        to, out_of = chance.sample(SUBJECTS, 2)
        transfer = chance.random() < 0.5
        deeds.append(Deed(f"{client}-{number}", chance.randrange(1, 1_000), to, out_of if transfer else None))
    if client == 1:
        deeds.extend(deed for deed in list(deeds) if deed.out_of is None)
    return deeds


Insert = Callable[[World, list[NewRow], "str | None"], Awaitable[tuple[int, ...]]]


async def insert(world: World, rows: list[NewRow], command: str | None) -> tuple[int, ...]:
    """The honest way: the acknowledgement follows the commit."""
    return await world.log.insert(rows, command)


async def perform(world: World, deed: Deed, insert: Insert) -> tuple[int, ...]:
    """Performs a deed once, however often it has to be tried."""
    for _ in range(TRIES_MAX):
        try:
            heads: Counter[UUID] = Counter()
            for row in await world.log.read_after(0, 10_000):
                heads[row.stream] = max(heads[row.stream], row.version)
            sides = [(deed.to, deed.amount_minor)]
            if deed.out_of is not None:
                sides.append((deed.out_of, -deed.amount_minor))
            rows = [
                NewRow(
                    stream,
                    heads[stream] + 1,
                    "moved",
                    body_of(deed, amount_minor),
                    uuid5(NAMESPACE, deed.key) if deed.out_of is None else None,
                )
                for stream, amount_minor in sides
            ]
            return await insert(world, rows, deed.key if deed.out_of is not None else None)
        except Conflict as conflict:
            if conflict.constraint == "identity":
                return ()
        except Injected:
            await world.kernel.sleep(0.01)
    raise AssertionError(f"deed {deed.key} could not be done")


def client(world: World, number: int, insert: Insert) -> Callable[[], Awaitable[None]]:
    """A client that goes on after a crash with the first deed that was not acknowledged."""
    deeds = deeds_of(world, number)
    done: list[int] = []

    async def main() -> None:
        while len(done) < len(deeds):
            deed = deeds[len(done)]
            positions = await perform(world, deed, insert)
            world.acknowledged.setdefault(deed.key, positions)
            done.append(1)
        world.clients_left -= 1

    return main


def digest_of(rows: list[Row]) -> str:
    """One word for a prefix of the log."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.position}|{row.stream}|{row.version}|{row.name}|".encode() + row.body)
    return digest.hexdigest()


def sealer(world: World) -> Callable[[], Awaitable[None]]:
    """A reader that follows the log and seals what it has read: nothing may ever appear before a checkpoint."""
    read: list[Row] = []

    async def main() -> None:
        while not world.over:
            try:
                rows = await world.log.read_after(read[-1].position if read else 0, 5)
            except Injected:
                rows = []
            read.extend(row for row in rows if not read or row.position > read[-1].position)
            if rows:
                world.checkpoints.append((read[-1].position, digest_of(read)))
            await world.kernel.sleep(0.01)

    return main


class Broken(AssertionError):
    """An invariant that does not hold: which, and how."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


def check_log(world: World) -> Iterator[Broken]:
    """What must hold in the log itself."""
    rows = world.log.rows
    stored = {row.position for row in rows}
    keys = Counter(json.loads(row.body)["key"] + str(row.stream) for row in rows)
    for key, count in keys.items():
        if count > 1:
            yield Broken("I2", f"{key} had its effect {count} times")
    for key, positions in world.acknowledged.items():
        if not set(positions) <= stored:
            yield Broken("I8", f"{key} was acknowledged at {positions} and is not in the log")
        if not any(json.loads(row.body)["key"] == key for row in rows):
            yield Broken("I8", f"{key} was acknowledged and is not in the log")
    for stream in SUBJECTS:
        versions = [row.version for row in rows if row.stream == stream]
        if versions != list(range(1, len(versions) + 1)):
            yield Broken("I3", f"versions of {stream} are {versions}")
    transfers: Counter[str] = Counter()
    sides: Counter[str] = Counter()
    for row in rows:
        key = json.loads(row.body)["key"]
        transfers[key] += amount_of(row)
        sides[key] += 1
    for key, total in transfers.items():
        if sides[key] == 2 and total:
            yield Broken("I5", f"{key} made {total} out of nothing")
    for position, digest in world.checkpoints:
        if digest_of([row for row in rows if row.position <= position]) != digest:
            yield Broken("I6", f"the log before checkpoint {position} is not what was sealed")


def supervisor(world: World, caught_up: Callable[[], bool]) -> Callable[[], Awaitable[None]]:
    """Heals the world when the clients are done and ends it when all have caught up, or after a bounded time."""

    async def main() -> None:
        while world.clients_left > 0:
            await world.kernel.sleep(0.02)
        world.kernel.heal()
        until = world.kernel.seconds + CATCH_UP_SECONDS_MAX
        while not caught_up() and world.kernel.seconds < until:
            await world.kernel.sleep(0.05)
        world.over = True

    return main
