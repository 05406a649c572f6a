"""Files that are attached, removed and swept at once, while processes die and freeze: what is kept has its content."""

from typing import Any

import pytest

from tests.simulation import planted
from tests.simulation.keeping import Parts, lived
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken

SEEDS = range(30)

BUGS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "the content goes with each file": ({"parts": Parts(planted.DeletesWithEachFile)}, {"I11"}),
    "the sweep stores nothing": ({"parts": Parts(planted.SweepsWhatItSees)}, {"I11"}),
    "the same content has the same name": ({"parts": Parts(planted.NamesByContent)}, {"I10", "I11"}),
    "the state in memory is trusted": ({"parts": Parts(planted.TrustsItsMemory)}, {"I11"}),
    "the event comes before the content": ({"parts": Parts(storage=planted.WritesLater)}, {"I11"}),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_that_is_kept_has_its_content_and_nothing_else_is_left(seed: int) -> None:
    _, broken = simulated(lived(seed))
    assert broken == [], f"seed {seed}"


def test_a_schedule_has_shared_contents_abandoned_uploads_crashes_and_freezes() -> None:
    archives = [simulated(lived(seed))[0] for seed in range(20)]
    names = {row.name for archive in archives for row in archive.log.rows}
    assert {"file-attached", "file-removed", "file-read", "upload-abandoned"} <= names
    assert {"crash", "unanswered", "freeze"} <= {fault for one in archives for fault in one.kernel.met}
    assert all(archive.read for archive in archives)


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    planting, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        archive, broken = simulated(lived(seed, **planting))
        return broken, archive.kernel.digest()

    planted.assert_caught(bug, invariants, played)
