"""Watchers over simulated servers: who reads what it is told of ends with what is so, and is told a bounded number of times."""

from collections.abc import Callable

import pytest
from chassis.watching import Hub

from tests.simulation import planted
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken
from tests.simulation.watching import check, lived

pytestmark = pytest.mark.usefixtures("quiet")

SEEDS = (*range(6), 9_087_077)
"""The last one: a document changes between the last look at what changed while members were loaded, and their use."""

BUGS: dict[str, tuple[Callable[..., Hub], set[str]]] = {
    "watches too late": (planted.WatchesTooLate, {"I1"}),
    "catches up with the first changes alone": (planted.CatchesUpWithTheFirst, {"I1"}),
    "moves the place first": (planted.MovesThePlaceFirst, {"I1"}),
    "switches silently": (planted.SwitchesSilently, {"I1"}),
    "forgets what was so for a moment": (planted.ForgetsTheMiddle, {"I1"}),
    "takes members for heard": (planted.TakesMembersForHeard, {"I1"}),
    "drops what is too much": (planted.DropsWhatIsTooMuch, {"I1"}),
    "tells of what is out of scope": (planted.TellsOutOfScope, {"scope"}),
    "names what left the scope meanwhile": (planted.NamesWhatLeftMeanwhile, {"scope"}),
    "comes again from memory": (planted.ComesAgainFromMemory, {"I1"}),
}
FIRST = {
    "watches too late": 11,
    "catches up with the first changes alone": 22,
    "moves the place first": 6,
    "forgets what was so for a moment": 287,
    "takes members for heard": 86,
    "comes again from memory": 7,
}
"""The seed that the search for a bug begins with, where the first ones are known not to find it."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_watcher_that_reads_when_told_ends_with_what_is_so(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_switches_loses_the_log_crashes_and_reconnects() -> None:
    runs = [simulated(lived(seed)) for seed in range(3)]
    assert all(run.switched > 1 for run in runs)
    assert all(client.connected > 2 and client.told > 2 for run in runs for client in run.clients)
    assert {"crash", "unanswered", "delay"} & {fault for run in runs for fault in run.kernel.met}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    hub, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        run = simulated(lived(seed, hub))
        return check(run), run.kernel.digest()

    planted.assert_caught(bug, invariants, played, FIRST.get(bug, 0))
