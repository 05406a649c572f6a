"""Clients and a following reader over the log: what holds, and that each broken promise is found."""

import contextlib

import pytest

from tests.simulation.kernel import Injected
from tests.simulation.scenario import Broken, Insert, World, check_log, client, insert, sealer, supervisor
from tests.simulation.servers import Conflict, Flaws, NewRow

SEEDS = range(60)
SEEDS_UNTIL_CAUGHT_MAX = 120


async def run(seed: int, flaws: Flaws, how: Insert = insert) -> list[Broken]:
    world = World.of(seed, flaws)
    for number in range(3):
        world.kernel.spawn(f"client-{number}", client(world, number, how))
    world.kernel.spawn("sealer", sealer(world))
    rows = world.log.rows
    world.kernel.spawn(
        "supervisor",
        supervisor(world, lambda: bool(world.checkpoints) and world.checkpoints[-1][0] >= rows[-1].position),
        mortal=False,
    )
    await world.kernel.run()
    return list(check_log(world))


async def acknowledged_before_it_is_written(
    world: World, rows: list[NewRow], command: str | None
) -> tuple[int, ...]:
    async def later() -> None:
        with contextlib.suppress(Conflict, Injected):
            await world.log.insert(rows, command)

    world.kernel.spawn(f"writer-{world.kernel.turns}", later, mortal=False)
    return ()


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_log_keeps_its_promises(seed: int) -> None:
    assert await run(seed, Flaws()) == []


BUGS: dict[str, tuple[Flaws, Insert, set[str]]] = {
    "acknowledge before write": (Flaws(), acknowledged_before_it_is_written, {"I8"}),
    "no commit-order lock": (Flaws(no_commit_lock=True), insert, {"I6"}),
    "duplicate check dropped": (Flaws(no_identity_check=True), insert, {"I2"}),
    "no version check": (Flaws(no_version_check=True), insert, {"I3"}),
    "commands not remembered": (Flaws(no_command_memory=True), insert, {"I2"}),
}


@pytest.mark.parametrize("bug", BUGS)
async def test_a_planted_bug_is_caught(bug: str) -> None:
    flaws, how, invariants = BUGS[bug]
    for seed in range(SEEDS_UNTIL_CAUGHT_MAX):
        broken = await run(seed, flaws, how)
        if broken:
            assert {one.invariant for one in broken} & invariants
            again = await run(seed, flaws, how)
            assert list(map(str, again)) == list(map(str, broken))
            return
    pytest.fail(f"{bug} was not caught within {SEEDS_UNTIL_CAUGHT_MAX} seeds")
