"""Three consumers lay the same event to a subject that is being released: it must not be lost between them."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from chassis.messaging.delivered import Stream
from chassis.messaging.records import Record
from chassis.read.checkpoints import Held, Parked
from chassis.read.mongo_checkpoints import MongoCheckpoints
from typing_extensions import override

from tests.simulation.kernel import EPOCH, Faults, Kernel
from tests.simulation.mongo_server import MongoFlaws, MongoServer
from tests.simulation.scenario import SUBJECTS

T = TypeVar("T")
SEEDS = range(1_000, 1_300)
STREAM = ("ingest", SUBJECTS[0])
FAULTS = Faults(crash=0.05, crashes_max=3, unanswered=0.03, unanswered_max=5)


def event(sequence: int) -> Held:
    return Held(sequence, Record("t", 0, b"", [], b"%d" % sequence, sequence))


def parked_at(sequence: int) -> Parked:
    return Parked(STREAM[1], "ingest", "posting.booked", sequence, sequence, "poison", EPOCH)


class Forgetful(MongoCheckpoints):
    """Takes back what it kept for a subject that turned out to be free."""

    @override
    async def hold(self, stream: Stream, events: object) -> bool:
        if await super().hold(stream, events):  # type: ignore[arg-type]
            return True
        ids = [self._event(stream, one.sequence) for one in events]  # type: ignore[attr-defined]
        await self.mongo.delete("parked_events", {"_id": {"$in": ids}})
        return False


async def within(kernel: Kernel, doing: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What a client gets in a world where nothing goes wrong."""
    found: list[T] = []

    async def main() -> None:
        found.append(await doing())

    kernel.heal()
    kernel.spawn("client", main, mortal=False)
    await kernel.run()
    return found[0]


async def kept_after(seed: int, books_of: type[MongoCheckpoints] = MongoCheckpoints) -> bool:
    """Whether the next event lies parked when all who had it have said so."""
    kernel = Kernel(seed, FAULTS)
    server = MongoServer(kernel, MongoFlaws())
    checkpoints = books_of(server, "group", "name")
    await within(kernel, lambda: checkpoints.park(parked_at(5), event(5)))
    kernel.healed = False
    lives = {"first": 0, "second": 0}

    def laying(name: str, lives_max: int) -> Callable[[], Awaitable[None]]:
        async def main() -> None:
            lives[name] += 1
            while lives[name] <= lives_max:
                try:
                    if STREAM in await checkpoints.parked() and await checkpoints.hold(STREAM, [event(6)]):
                        return
                    await checkpoints.park(parked_at(6), event(6))
                except ConnectionError:
                    await kernel.sleep(0.01)
                else:
                    return

        return main

    async def releasing() -> None:
        while True:
            try:
                parked = (await checkpoints.parked()).get(STREAM)
                if parked is None or parked.sequence != 5:
                    return
                held = await checkpoints.held(STREAM, 4, 10)
                if [one.sequence for one in held] == [5]:
                    await checkpoints.unpark(parked, 5)
            except ConnectionError:
                await kernel.sleep(0.01)
            else:
                return

    # The first dies for good: what it had was read, and committed, by the second.
    kernel.spawn("first", laying("first", 1))
    kernel.spawn("second", laying("second", 10))
    kernel.spawn("release", releasing)
    await kernel.run()
    held = [one.sequence for one in await within(kernel, lambda: checkpoints.held(STREAM, 0, 10))]
    parked = (await within(kernel, checkpoints.parked))[STREAM]
    return parked.sequence in held and held[-1] == 6


async def test_what_waits_is_not_lost_between_consumers() -> None:
    assert [seed for seed in SEEDS if not await kept_after(seed)] == []


async def test_taking_back_what_was_kept_would_lose_it() -> None:
    caught = [seed for seed in SEEDS if not await kept_after(seed, Forgetful)]
    assert caught
    assert all([await kept_after(seed) for seed in caught])
