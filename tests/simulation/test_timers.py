"""Timers over simulated servers: what stands rings once when it is due, and what is withdrawn does not."""

from uuid import UUID

import pytest
from chassis.timers import Due
from chassis.write.deciding import CommandContext
from msgspec import structs

from tests.simulation import planted
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken
from tests.simulation.timing import Parts, Ringing, Rung, TableFlaws, check, history, lived

pytestmark = pytest.mark.usefixtures("quiet")

SEEDS = range(40)


def by_chance(run: Ringing, _: Due, context: CommandContext) -> CommandContext:
    """A command id of its own for each try."""
    return structs.replace(context, command_id=UUID(int=run.kernel.chance.getrandbits(128)))


BUGS: dict[str, tuple[Parts, set[str]]] = {
    "command id of each try": (Parts(context=by_chance), {"I2", "I3"}),
    "settled before it is given": (Parts(loop=planted.SettlesFirst), {"I1"}),
    "given on any version": (Parts(loop=planted.GivesOnAnyVersion), {"I3"}),
    "given before its subject is folded": (Parts(loop=planted.GivesBeforeItFolds), {"I3"}),
    "position saved before the timers": (Parts(table=TableFlaws(position_first=True)), {"I1", "I3"}),
    "a failed give counts as done": (Parts(loop=planted.TakesNoAnswerForDone), {"I1"}),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_what_stands_rings_once_and_what_is_withdrawn_does_not(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_has_rings_crashes_and_takeovers() -> None:
    runs = [simulated(lived(seed)) for seed in range(8)]
    assert all(any(isinstance(one[1], Rung) for one in history(run)) for run in runs)
    assert {"crash", "unanswered", "freeze", "lease taken over"} <= {
        fault for run in runs for fault in run.kernel.met
    }
    assert any(run.lives >= 4 for run in runs), "no process came with another generation"


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    parts, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        run = simulated(lived(seed, parts))
        return check(run), run.kernel.digest()

    planted.assert_caught(bug, invariants, played)
