"""Views that are rebuilt under load: the live one is the fold of the log, and readers keep what they were told of."""

import pytest

from tests.simulation import planted
from tests.simulation.kernel import simulated
from tests.simulation.rebuilds import Building, check, lived
from tests.simulation.scenario import Broken

pytestmark = pytest.mark.usefixtures("quiet")

SEEDS = range(6)

BUGS: dict[str, tuple[Building, set[str]]] = {
    "readers moved at once": (Building(reader=planted.MovesAtOnce), {"I4"}),
    "readers moved past what was not saved": (Building(reader=planted.MovesPastWhatWasNotSaved), {"I4"}),
    "switched back": (Building(generations=planted.SwitchesBack), {"I4", "I10"}),
    "follows what was replaced": (Building(runner=planted.FollowsWhatWasReplaced), {"I10"}),
    "compared with what was replaced": (
        Building(rebuild=planted.comparing_with_what_was_replaced),
        {"I4"},
    ),
}
FIRST = {
    "readers moved past what was not saved": 16,
    "switched back": 5,
    "compared with what was replaced": 101,
}
"""The seed that the search for a bug begins with, where the first ones are known not to find it."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rebuild_under_load_ends_with_the_fold_and_takes_nothing_from_readers(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_switches_crashes_and_is_read() -> None:
    runs = [simulated(lived(seed)) for seed in range(3)]
    assert all(len(run.switches) > 1 for run in runs)
    assert all(run.read for run in runs)
    assert {"crash", "unanswered", "delay"} <= {
        fault for run in runs for fault in run.delivery.world.kernel.met
    }


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    parts, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        run = simulated(lived(seed, parts))
        return check(run), run.delivery.world.kernel.digest()

    planted.assert_caught(bug, invariants, played, FIRST.get(bug, 0))
