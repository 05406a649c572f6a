"""A derived view whose inputs are rebuilt and dropped while it is kept: what is shown never goes back or stays behind.

The views, the role that derives, the rebuilds and the sweep are the chassis' own. The minute for which an input is kept
after it was replaced is over at once: what is derived from it must not stand.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from chassis.read.derived_following import DerivedFollower
from chassis.read.deriving import OWED, DerivedView
from chassis.read.documents import GONE, ID
from chassis.read.generations import GENERATIONS, VIEWS, Generations, NotBuilt, ViewReader
from chassis.read.mongo_checkpoints import PARKED, POSITIONS
from chassis.read.projecting import Collection
from chassis.read.rebuilding import Differs, Incomplete, rebuild
from chassis.read.viewing import ViewRunner

from tests.simulation.broker import BrokerClient
from tests.simulation.derived import (
    ACCOUNTS,
    ALL_PLACES,
    CONTEXT_OF,
    DAY,
    OF_OWNER,
    OVERVIEWS,
    OWNERS,
    Deriving,
    depending,
    derive,
    everything,
    input_view,
    operating,
    owned,
    publishing,
    read_up_to,
)
from tests.simulation.kernel import Faults, Kernel
from tests.simulation.mongo_server import MongoFlaws, MongoServer
from tests.simulation.scenario import Broken
from tests.simulation.servers import BrokerServer

SERVICE = "simulation"
DERIVERS = 2
REBUILDS = 3
OPERATOR_SECONDS = 1.5
PAUSE_SECONDS_MAX = 0.5
"""Between two events: most fall between the switches."""
REBUILT_SECONDS_MAX = 60.0
CAUGHT_UP_SECONDS_MAX = 25.0
FAULTS = Faults(crash=0.001, crashes_max=6, unanswered=0.003, freeze=0.01, freezes_max=20, freeze_seconds=2.0)


@dataclass(slots=True)
class Switches:
    """All there is in one run."""

    deriving: Deriving
    inputs: tuple[str, ...] = tuple(CONTEXT_OF)
    rebuilt: int = 0
    shown: dict[tuple[UUID, str], int] = field(default_factory=dict)
    stopping: list[asyncio.Event] = field(default_factory=list)

    @property
    def kernel(self) -> Kernel:
        """The clock and the chance of it all."""
        return self.deriving.kernel

    @property
    def mongo(self) -> MongoServer:
        """The database."""
        return self.deriving.mongo

    @property
    def derived(self) -> DerivedView:
        """The derived view."""
        views = tuple(input_view(name, self.deriving) for name in self.inputs)
        return DerivedView(OVERVIEWS, 1, views, Collection(OVERVIEWS), depending, derive, everything)

    def live(self, view: str) -> dict[str, object] | None:
        """The entry of the live generation of a view."""
        pointer = self.mongo.there.get(VIEWS, {}).get(view, {"live": 0})["live"]
        return self.mongo.there.get(GENERATIONS, {}).get(f"{view}|{pointer}")


def _running(
    run: Switches, made: Callable[[], Callable[[asyncio.Event], Awaitable[None]]]
) -> Callable[[], Awaitable[None]]:
    """A process that begins again where a server was lost."""

    async def main() -> None:
        while not run.deriving.over:
            stopping = asyncio.Event()
            run.stopping.append(stopping)
            try:
                await made()(stopping)
            except ConnectionError:
                await run.kernel.sleep(0.02)

    return main


def keeping(run: Switches) -> Callable[[], Awaitable[None]]:
    """What keeps the inputs."""
    deriving = run.deriving

    def made() -> Callable[[asyncio.Event], Awaitable[None]]:
        return ViewRunner(
            "views",
            [input_view(name, deriving) for name in run.inputs],
            service=SERVICE,
            mongo=run.mongo,
            broker=BrokerClient(deriving.broker),
            publisher=deriving.broker,
            clock=run.kernel,
        ).run

    return _running(run, made)


def following(run: Switches, follower: type[DerivedFollower]) -> Callable[[], Awaitable[None]]:
    """What keeps the derived view."""

    def made() -> Callable[[asyncio.Event], Awaitable[None]]:
        generations = Generations(run.mongo, run.derived, SERVICE, run.kernel)
        return follower(generations, BrokerClient(run.deriving.broker), run.kernel, lambda: DAY).run

    return _running(run, made)


def rebuilding(run: Switches) -> Callable[[], Awaitable[None]]:
    """Rebuilds one input after the other, and drops what was replaced at once."""
    kernel = run.kernel

    async def main() -> None:
        while run.rebuilt < REBUILDS:
            await kernel.sleep(1.0 + 2 * kernel.chance.random())
            view = input_view(kernel.chance.choice(run.inputs), run.deriving)
            generations = Generations(run.mongo, view, SERVICE, kernel)
            try:
                if await generations.live() is None:
                    continue
                await rebuild(
                    generations,
                    broker=BrokerClient(run.deriving.broker),
                    publisher=run.deriving.broker,
                    clock=kernel,
                    compare_rounds_max=2,
                    caught_up_records_max=0,
                )
            except (ConnectionError, Differs, Incomplete):
                continue
            run.rebuilt += 1
            for one in run.mongo.there.get(GENERATIONS, {}).values():
                if one["view"] == view.name and one["state"] == "retired":
                    one["changed_at"] -= timedelta(hours=1)
            try:
                await generations.sweep()
            except ConnectionError:
                continue

    return main


def reading(run: Switches) -> Callable[[], Awaitable[None]]:
    """A process that serves readers: what it has shown of a generation it goes on showing.

    A document may show more than its generation has read, because its inputs are further; the one of another
    generation may then be behind it for a moment.
    """
    kernel = run.kernel

    async def main() -> None:
        reader, before = ViewReader(run.mongo, kernel, [run.derived]), ""
        while not run.deriving.over:
            await kernel.sleep(0.05)
            try:
                name = await reader.collection(OVERVIEWS, OVERVIEWS)
                found = await run.mongo.find(name)
            except (ConnectionError, NotBuilt):
                continue
            if name != before:
                run.shown.clear()
                before = name
            run.deriving.broken += check_shown(run, found)

    return main


def supervising(run: Switches) -> Callable[[], Awaitable[None]]:
    """Heals the world when the rebuilds are over, and ends it when all have caught up."""

    async def main() -> None:
        if not await run.kernel.comes(lambda: run.rebuilt >= REBUILDS, REBUILT_SECONDS_MAX):
            run.deriving.broken.append(Broken("I10", f"{run.rebuilt} of {REBUILDS} rebuilds came to an end"))
        run.kernel.heal()
        if not await run.kernel.comes(lambda: caught_up(run), CAUGHT_UP_SECONDS_MAX):
            run.deriving.broken.append(Broken("I10", "the derived view did not catch up"))
        run.deriving.over = True
        for stopping in run.stopping:
            stopping.set()

    return main


def caught_up(run: Switches) -> bool:
    """Whether the live derived generation is of the live inputs, and has read all and owes nothing."""
    live, there = run.live(OVERVIEWS), run.mongo.there
    if live is None or not run.deriving.all_published():
        return False
    inputs = {name: run.live(name) or {"number": 0, "group": ""} for name in run.inputs}
    if live["inputs"] != {name: one["number"] for name, one in inputs.items()}:
        return False
    read = {
        one["group"] for one in inputs.values()
    }  # a rebuild that came to nothing may have parked a subject for good
    if any(one["group"] in read for one in there.get(PARKED, {}).values()):
        return False
    if any(one["group"] == live["group"] for one in there.get(OWED, {}).values()):
        return False
    positions = there.get(POSITIONS, {})
    return all(
        positions.get(f"{live['group']}|{topic}|{number}", {"offset": 0})["offset"]
        >= run.deriving.broker.end((topic, number))
        for topic, number in ALL_PLACES
    )


# what must hold


def check_shown(run: Switches, found: list[dict[str, object]]) -> Iterator[Broken]:
    """No owner, account or deed that was shown is shown no more, but of accounts that some generation has parked."""
    there = run.mongo.there
    waiting = {one["subject"] for one in (*there.get(PARKED, {}).values(), *there.get(OWED, {}).values())}
    now: dict[tuple[UUID, str], int] = {}
    for one in found:
        if GONE not in one:
            for account, deeds in one[OF_OWNER].items():  # type: ignore[attr-defined]
                now[one[ID], account] = len(deeds)  # type: ignore[index]
    for place, deeds in run.shown.items():
        if now.get(place, 0) < deeds and UUID(place[1]) not in waiting:
            yield Broken("I3", f"{place} went back from {deeds} to {now.get(place, 0)}")
    run.shown.update({place: max(deeds, run.shown.get(place, 0)) for place, deeds in now.items()})


def check(run: Switches) -> list[Broken]:
    """Everything, when all is over."""
    broken = list(run.deriving.broken)
    live = run.live(OVERVIEWS)
    read = read_up_to(run.deriving, {place: run.deriving.broker.end(place) for place in ALL_PLACES})
    number = 0 if live is None else live["number"]
    overviews = run.mongo.there.get(f"{OVERVIEWS}_v{number}_{OVERVIEWS}", {})
    for owner in OWNERS:
        wanted = {str(one): list(range(1, read.get(one, 0) + 1)) for one in owned(owner, read.get(owner, 0))}
        shown = overviews.get(owner, {}).get(OF_OWNER, {})
        if shown != wanted:
            broken.append(Broken("I1", f"{owner} shows {shown}, it should be {wanted}"))
    return broken


async def lived(seed: int, follower: type[DerivedFollower] = DerivedFollower) -> Switches:
    """The world after a seed's schedule."""
    kernel = Kernel(seed, FAULTS)
    deeds = [(account, number) for account in ACCOUNTS for number in range(3, 8)]
    poison = set(kernel.chance.sample(deeds, kernel.chance.randrange(1, 4)))
    run = Switches(Deriving(kernel, BrokerServer(kernel), MongoServer(kernel, MongoFlaws()), poison))
    kernel.spawn("publisher", publishing(run.deriving, PAUSE_SECONDS_MAX), mortal=False)
    kernel.spawn("views", keeping(run))
    for number in range(DERIVERS):
        kernel.spawn(f"deriver-{number}", following(run, follower))
    kernel.spawn("rebuild", rebuilding(run), mortal=False)
    for name, main in (
        ("operator", operating(run.deriving, OPERATOR_SECONDS)),
        ("reader", reading(run)),
        ("supervisor", supervising(run)),
    ):
        kernel.spawn(name, main, mortal=False)
    await kernel.run()
    return run
