"""Bulk runs by several runners that die: each item once, and one result that all of them tell."""

from typing import Any

import pytest

from tests.simulation import planted
from tests.simulation.kernel import simulated
from tests.simulation.many import check, lived
from tests.simulation.scenario import Broken
from tests.simulation.servers import Flaws

SEEDS = range(25)

BUGS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "items have no key of their own": ({"make": planted.DoesItemsAnew}, {"I2", "I8"}),
    "refusals are not settled": ({"make": planted.ForgetsRefusals}, {"I2", "I8"}),
    "results are stated by each runner": ({"make": planted.StatesResultsTwice}, {"I2", "I8"}),
    "commands not remembered": ({"flaws": Flaws(no_command_memory=True)}, {"I2"}),
}


@pytest.mark.requirement("M33")
@pytest.mark.parametrize("seed", SEEDS)
def test_each_item_of_a_bulk_run_is_done_once_and_has_the_result_that_its_events_have(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_has_crashes_refusals_and_pauses() -> None:
    runs = [simulated(lived(seed)) for seed in range(8)]
    found = {one.result for many in runs for one in many.results[0]}
    assert found == {"done", "overdrawn"}
    assert any(row.name == "bulk-paused" for many in runs for row in many.log.rows)
    assert {"crash", "unanswered", "abort"} <= {fault for many in runs for fault in many.kernel.met}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    planting, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        many = simulated(lived(seed, **planting))
        return check(many), many.kernel.digest()

    planted.assert_caught(bug, invariants, played)
