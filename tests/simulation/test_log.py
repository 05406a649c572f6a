"""Clients and a following reader over the log: what holds, and that each broken promise is found."""

import asyncio

import pytest
from chassis.write.store.appender import Appender
from chassis.write.store.items import Append, Appended, AppendResult
from typing_extensions import override

from tests.simulation.planted import SEEDS_UNTIL_CAUGHT_MAX, RetriesWithoutACommand
from tests.simulation.scenario import (
    SERVICES,
    Broken,
    MakeAppender,
    World,
    check_log,
    honest_appender,
    sealer,
    service,
    supervisor,
)
from tests.simulation.servers import Flaws, position_of

SEEDS = range(60)


async def run(seed: int, flaws: Flaws, make: MakeAppender = honest_appender) -> list[Broken]:
    world = World.of(seed, flaws)
    rows, sealed = world.log.rows, world.checkpoints
    for number in range(SERVICES):
        world.kernel.spawn(f"service-{number}", service(world, number, make))
    world.kernel.spawn("sealer", sealer(world))

    def all_sealed() -> bool:
        return bool(sealed) and sealed[-1][0] >= position_of(rows[-1])

    world.kernel.spawn("supervisor", supervisor(world, all_sealed), mortal=False)
    await world.kernel.run()
    return list(check_log(world))


class Hasty(Appender):
    """Acknowledges before it writes."""

    @override
    async def append(self, item: Append) -> AppendResult:
        written = asyncio.ensure_future(super().append(item))
        written.add_done_callback(lambda done: done.cancelled() or done.exception())
        return Appended(())


def hasty_appender(world: World) -> Appender:
    honest = honest_appender(world)
    return Hasty(honest._write, honest._run, world.kernel)


def retrying_appender(world: World) -> Appender:
    honest = honest_appender(world)
    return RetriesWithoutACommand(honest._write, honest._run, world.kernel)


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_log_keeps_its_promises(seed: int) -> None:
    assert await run(seed, Flaws()) == []


BUGS: dict[str, tuple[Flaws, MakeAppender, set[str]]] = {
    "acknowledge before write": (Flaws(), hasty_appender, {"I8"}),
    "retry without a command": (Flaws(), retrying_appender, {"I8"}),
    "no commit-order lock": (Flaws(no_commit_lock=True), honest_appender, {"I6"}),
    "duplicate check dropped": (Flaws(no_identity_check=True), honest_appender, {"I2"}),
    "no version check": (Flaws(no_version_check=True), honest_appender, {"I3"}),
    "commands not remembered": (Flaws(no_command_memory=True), honest_appender, {"I2"}),
}


@pytest.mark.parametrize("bug", BUGS)
async def test_a_planted_bug_is_caught(bug: str) -> None:
    flaws, make, invariants = BUGS[bug]
    for seed in range(SEEDS_UNTIL_CAUGHT_MAX):
        broken = await run(seed, flaws, make)
        if broken:
            assert {one.invariant for one in broken} & invariants
            again = await run(seed, flaws, make)
            assert list(map(str, again)) == list(map(str, broken))
            return
    pytest.fail(f"{bug} was not caught within {SEEDS_UNTIL_CAUGHT_MAX} seeds")
