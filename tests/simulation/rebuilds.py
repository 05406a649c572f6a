"""Views that are rebuilt while they are kept: two roles follow, two operators rebuild, two processes serve readers.

Roles, rebuilds and readers are the chassis' own. An operator that dies calls the rebuild again. Readers are told a position, and
then read: a switch must not take from them what they were told of.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from chassis.read.documents import SEQUENCE
from chassis.read.generations import GENERATIONS, VIEWS, Generations, NotBuilt, ViewReader
from chassis.read.mongo_checkpoints import POSITIONS
from chassis.read.projecting import View
from chassis.read.rebuilding import Differs, rebuild
from chassis.read.viewing import ViewRunner
from contracts.topics import INGEST_EVENTS

from tests.simulation.broker import BrokerClient
from tests.simulation.delivery import (
    BALANCES,
    CONTEXT,
    MOVEMENTS,
    RELAYS,
    Delivery,
    Parts,
    check_view,
    places_of,
    relaying,
    view_of,
)
from tests.simulation.kernel import Faults
from tests.simulation.mongo_server import MongoFlaws
from tests.simulation.scenario import (
    CATCH_UP_SECONDS_MAX,
    SERVICES,
    SUBJECTS,
    Broken,
    Deed,
    event_of,
    honest_appender,
    service,
)
from tests.simulation.servers import Flaws, position_of

SERVICE = "simulation"
ROLES = 2
OPERATORS = 2
REBUILDS_PER_OPERATOR = 2
READERS = 4
FREEZES_MAX = 3
FROZEN_SECONDS = 4.0
PAUSE_SECONDS = 0.8
"""Between two deeds of a client: some must fall into the switches."""
WAITED_SECONDS = 0.3
ENDING_SECONDS_MAX = CATCH_UP_SECONDS_MAX + 2 * FREEZES_MAX * FROZEN_SECONDS
"""Operators and roles are frozen in a world that is healed too."""
FAULTS = Faults(crash=0.004, crashes_max=10, unanswered=0.006, unanswered_max=20)


@dataclass(frozen=True, slots=True)
class Building:
    """What the processes are made of; a planted bug is another part."""

    runner: Callable[..., ViewRunner] = ViewRunner
    rebuild: Callable[..., Awaitable[object]] = rebuild
    reader: Callable[..., ViewReader] = ViewReader
    generations: Callable[..., Generations] = Generations


@dataclass(slots=True)
class Rebuilds:
    """All there is in one run."""

    delivery: Delivery
    view: View
    operators_left: int = OPERATORS
    switches: set[int] = field(default_factory=set)
    read: int = 0
    """How often readers were told a position and then read."""

    @classmethod
    def of(cls, seed: int) -> "Rebuilds":
        """Everything for a seed."""
        delivery = Delivery.of(seed, Flaws(), MongoFlaws(), FAULTS)
        delivery.poison.clear()
        return cls(delivery, view_of(delivery))

    @property
    def live(self) -> dict[str, Any] | None:
        """The generation that is live now."""
        there = self.delivery.mongo.there
        pointer = there.get(VIEWS, {}).get(self.view.name, {"live": 0})["live"]
        return there.get(GENERATIONS, {}).get(f"{self.view.name}|{pointer}")


# who acts


def keeping(run: Rebuilds, parts: Building) -> Callable[[], Awaitable[None]]:
    """A process that keeps the view, as the role does."""
    delivery = run.delivery
    kernel = delivery.world.kernel

    async def main() -> None:
        while not delivery.world.over:
            runner = parts.runner(
                "views",
                [run.view],
                service=SERVICE,
                mongo=delivery.mongo,
                broker=BrokerClient(delivery.broker),
                publisher=delivery.broker,
                clock=kernel,
            )
            stopping = asyncio.Event()
            delivery.stopping.append(stopping)
            try:
                await runner.run(stopping)
            except ConnectionError:
                await kernel.sleep(0.02)

    return main


def rebuilding(run: Rebuilds, parts: Building) -> Callable[[], Awaitable[None]]:
    """An operator who rebuilds the view, again after each end, and goes on after a death."""
    delivery = run.delivery
    kernel = delivery.world.kernel
    done = [0]

    async def main() -> None:
        while done[0] < REBUILDS_PER_OPERATOR:
            await kernel.sleep(kernel.chance.random() * 0.5)
            try:
                await parts.rebuild(
                    parts.generations(delivery.mongo, run.view, SERVICE, kernel),
                    broker=BrokerClient(delivery.broker),
                    publisher=delivery.broker,
                    clock=kernel,
                )
            except ConnectionError:
                continue
            except Differs as differs:
                delivery.broken.append(Broken("I4", f"{differs} {differs.comparison.named}"))
            done[0] += 1
        run.operators_left -= 1

    return main


def reading(run: Rebuilds, parts: Building) -> Callable[[], Awaitable[None]]:
    """A process that serves readers, each with the position of something stored."""
    delivery = run.delivery
    kernel = delivery.world.kernel
    seen: dict[UUID, int] = {}

    async def main() -> None:
        reader = parts.reader(delivery.mongo, kernel, [run.view])
        while not delivery.world.over:
            await kernel.sleep(0.05 * kernel.chance.random())
            rows = delivery.published()
            if not rows:
                continue
            told = position_of(kernel.chance.choice(rows[-5:])) if kernel.chance.random() < 0.5 else 0
            try:
                if not await reader.wait_for(CONTEXT, told, WAITED_SECONDS):
                    continue
                name = await reader.collection(run.view.name, "balances")
                found = {one["_id"]: one[SEQUENCE] for one in await delivery.mongo.find(name)}
            except (ConnectionError, NotBuilt):
                continue
            run.read += 1
            delivery.broken.extend(check_read(run, told, name, found, seen))

    return main


def freezing(run: Rebuilds) -> Callable[[], Awaitable[None]]:
    """Now and then stops operators just before they switch, and roles just before they save their positions."""
    kernel = run.delivery.world.kernel
    left = {"rebuild": FREEZES_MAX, "views": FREEZES_MAX}

    def consider(name: str, point: str, chance: float) -> None:
        for actor in kernel.standing_at(point):
            running = actor.name.startswith(name) and kernel.seconds > actor.frozen_until
            if left[name] and running and kernel.chance.random() < chance:
                left[name] -= 1
                kernel.freeze(actor, FROZEN_SECONDS)

    async def main() -> None:
        while any(left.values()) and not run.delivery.world.over:
            await kernel.sleep(0.003)
            consider("rebuild", "update views?", 0.3)
            consider("views", "update positions?", 0.15)

    return main


def looking(run: Rebuilds) -> Callable[[], Awaitable[None]]:
    """Notes which generations were live."""

    async def main() -> None:
        while not run.delivery.world.over:
            if run.live is not None:
                run.switches.add(run.live["number"])
            await run.delivery.world.kernel.sleep(0.02)

    return main


def supervising(run: Rebuilds) -> Callable[[], Awaitable[None]]:
    """Heals the world when the clients are done, and stores one more event when the rebuilds are: what is live must show it."""
    delivery = run.delivery
    world, kernel = delivery.world, delivery.world.kernel

    async def until(done: Callable[[], bool], what: str) -> None:
        if not await kernel.comes(done, ENDING_SECONDS_MAX):
            delivery.broken.append(Broken("I10", f"{what}; live is {run.live}"))

    async def main() -> None:
        while world.services_left > 0:
            await kernel.sleep(0.02)
        kernel.heal()
        await until(lambda: run.operators_left == 0, "the rebuilds did not end")
        last = world.log.head(SUBJECTS[0]) + 1
        await world.log.append_bulk([event_of(Deed("last", 1, SUBJECTS[0], None), SUBJECTS[0], last, 1)])
        await until(lambda: caught_up(run), "the view did not catch up")
        world.over = True
        for stopping in delivery.stopping:
            stopping.set()

    return main


def caught_up(run: Rebuilds) -> bool:
    """Whether everything stored was published, and the live generation has applied it."""
    delivery, live = run.delivery, run.live
    rows = delivery.world.log.rows
    if live is None or run.operators_left or delivery.positions.position < position_of(rows[-1]):
        return False
    positions = delivery.mongo.there.get(POSITIONS, {})
    return all(
        positions.get(f"{live['group']}|{topic}|{number}", {"offset": 0})["offset"]
        >= delivery.broker.end((topic, number))
        for topic, number in places_of(INGEST_EVENTS)
    )


# what must hold


def check_read(
    run: Rebuilds, told: int, name: str, found: dict[UUID, int], seen: dict[UUID, int]
) -> Iterator[Broken]:
    """What a reader was shown, against the position that it was told, and against what it had seen."""
    for row in run.delivery.published():
        if position_of(row) <= told and found.get(row.stream_id, 0) < row.version:
            yield Broken("I4", f"a reader was told {told}, and {name} lacks {row.stream_id} {row.version}")
    for subject, sequence in seen.items():
        if found.get(subject, 0) < sequence:
            yield Broken("I4", f"a reader saw {subject} at {sequence}, and then at {found.get(subject, 0)}")
    seen.update(found)


def check(run: Rebuilds) -> list[Broken]:
    """Everything, when all is over."""
    delivery, live = run.delivery, run.live
    if live is None:
        return [*delivery.broken, Broken("I10", "no generation is live")]
    there, prefix = delivery.mongo.there, f"{run.view.name}_v{live['number']}_"
    shown = {name: there.get(prefix + name, {}) for name in ("balances", "movements")}
    there[BALANCES], there[MOVEMENTS] = shown["balances"], shown["movements"]
    return [*delivery.broken, *check_view(delivery)]


async def lived(seed: int, parts: Building | None = None) -> Rebuilds:
    """All that is left after a seed's schedule."""
    run, parts = Rebuilds.of(seed), parts or Building()
    world = run.delivery.world
    for number in range(SERVICES):
        world.kernel.spawn(f"service-{number}", service(world, number, honest_appender, PAUSE_SECONDS))
    for number in range(RELAYS):
        world.kernel.spawn(f"relay-{number}", relaying(run.delivery, Parts(), INGEST_EVENTS))
    for number in range(ROLES):
        world.kernel.spawn(f"views-{number}", keeping(run, parts))
    for number in range(OPERATORS):
        world.kernel.spawn(f"rebuild-{number}", rebuilding(run, parts))
    for number in range(READERS):
        world.kernel.spawn(f"reader-{number}", reading(run, parts), mortal=False)
    world.kernel.spawn("looking", looking(run), mortal=False)
    world.kernel.spawn("freezer", freezing(run), mortal=False)
    world.kernel.spawn("supervisor", supervising(run), mortal=False)
    await world.kernel.run()
    return run
