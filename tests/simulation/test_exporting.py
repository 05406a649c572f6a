"""Exports that several processes make, which freeze and die: one file each, whole, and nothing else in the end."""

from typing import Any

import pytest

from tests.simulation import planted
from tests.simulation.exporting import lived
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken

SEEDS = range(30)

BUGS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "all tries have one key": ({"make": planted.KeepsTriesUnderOneKey}, {"I8"}),
    "files go before the export has ended": ({"make": planted.TidiesTooEarly}, {"I11"}),
    "each try ends the export": ({"make": planted.FinishesTwice}, {"I2"}),
    "the file of a try never expires": ({"make": planted.KeepsForEver}, {"I10"}),
}


@pytest.mark.requirement("M19")
@pytest.mark.parametrize("seed", SEEDS)
def test_an_export_has_one_whole_file_and_nothing_else_is_left(seed: int) -> None:
    _, broken = simulated(lived(seed))
    assert broken == [], f"seed {seed}"


def test_a_schedule_has_second_tries_put_off_tries_removed_files_crashes_and_freezes() -> None:
    runs = [simulated(lived(seed))[0] for seed in range(30)]
    names = {row.name for run in runs for row in run.log.rows}
    assert {"export-put-off", "export-made", "file-removed"} <= names
    begun = [sum(row.name == "export-begun" for row in run.log.rows) for run in runs]
    assert max(begun) > 2
    assert {"crash", "unanswered", "freeze"} <= {fault for run in runs for fault in run.kernel.met}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    planting, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        listed, broken = simulated(lived(seed, **planting))
        return broken, listed.kernel.digest()

    planted.assert_caught(bug, invariants, played)
