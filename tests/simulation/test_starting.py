"""Bulk runs that two persons start, while their processes die: started once, by both, and each item once in their names."""

from typing import Any

import pytest

from tests.simulation import planted
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken
from tests.simulation.servers import Flaws
from tests.simulation.starting import check, lived

SEEDS = range(20)

BUGS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "one person starts it": ({"make": planted.StartsAlone}, {"I9"}),
    "items forget who proposed": ({"make": planted.ForgetsTheProposer}, {"I9"}),
    "every approval starts it": ({"make": planted.StartsForEachApproval}, {"I2"}),
    "the approval is stored apart": ({"make": planted.StartsApart}, {"I2", "I8", "I9"}),
    "no version check": ({"flaws": Flaws(no_version_check=True)}, {"I2"}),
}


@pytest.mark.requirement("M33")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_is_started_once_by_two_persons_and_its_items_name_both(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_has_crashes_and_approvals_by_either_person() -> None:
    runs = [simulated(lived(seed)) for seed in range(8)]
    assert {"crash", "unanswered"} <= {fault for start in runs for fault in start.kernel.met}
    assert {row.name for start in runs for row in start.log.rows} >= {"bulk-finished", "proposal-approved"}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    planting, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        start = simulated(lived(seed, **planting))
        return check(start), start.kernel.digest()

    planted.assert_caught(bug, invariants, played)
