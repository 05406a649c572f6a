"""Sagas over simulated servers: each ends once, and what it did at the peer stays or is taken back, whole."""

import pytest

from tests.simulation import planted
from tests.simulation.compensating import Parts, check, killed_at, lived, outcome_of
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken
from tests.simulation.servers import Flaws

pytestmark = pytest.mark.usefixtures("quiet")

SEEDS = range(12)

BUGS: dict[str, tuple[Parts, set[str]]] = {
    "command before event": (Parts(sagas=planted.GivesFirst), {"I7"}),
    "command id of each try": (Parts(sagas=planted.GivesAnewEachTime), {"I5"}),
    "the last step is not compensated": (Parts(sagas=planted.LeavesTheLastStep), {"I5"}),
    "compensated while a command travels": (Parts(decider=planted.giving_up_what_is_open), {"I5"}),
    "a timeout after the end": (
        Parts(decider=planted.timing_out_what_has_ended, timer=planted.never_withdrawn),
        {"I2", "I3"},
    ),
    "a peer without memory of commands": (Parts(flaws=Flaws(no_command_memory=True)), {"I5"}),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_saga_ends_once_and_what_it_did_stays_or_is_taken_back(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_has_refusals_timeouts_crashes_and_late_requests() -> None:
    offices = [simulated(lived(seed)) for seed in range(8)]
    outcomes = {tuple(outcome_of(office, saga)) for office in offices for saga in office.started}
    assert outcomes == {("closed",), ("compensated",)}
    names = {row.name for office in offices for row in office.log.rows}
    assert {"saga-timed-out", "saga-step-refused", "saga-undo-refused", "saga-undo-tried-again"} <= names
    met = {fault for office in offices for fault in office.kernel.met}
    assert {"crash", "unanswered", "freeze", "late", "stuck"} <= met


@pytest.mark.parametrize(
    ("data", "not_closed", "not_opened", "outcome"),
    [
        ({"at_once": False, "waits": False}, set(), set(), "closed"),
        ({"at_once": False, "waits": True}, set(), set(), "compensated"),
        ({"at_once": False, "waits": False}, {"c"}, set(), "compensated"),
        ({"at_once": False, "waits": False}, {"c"}, {"a", "b"}, "compensated"),
    ],
)
def test_a_saga_that_is_killed_at_any_point_ends_as_one_that_is_not(
    data: dict[str, bool], not_closed: set[str], not_opened: set[str], outcome: str
) -> None:
    """Before and after each append, and before and after each command."""
    given = {"items": ["a", "b", "c"], **data}
    whole, points = simulated(killed_at(0, given, not_closed, not_opened))
    assert points > 10
    for number in range(1, points + 1):
        office, _ = simulated(killed_at(number, given, not_closed, not_opened))
        [saga] = office.started
        assert check(office) == [], f"killed at point {number}"
        assert outcome_of(office, saga) == [outcome], f"killed at point {number}"
        assert [row.name for row in office.log.rows] == [row.name for row in whole.log.rows]
        assert len(office.there.rows) == len(whole.there.rows)


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    parts, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        office = simulated(lived(seed, parts))
        return check(office), office.kernel.digest()

    planted.assert_caught(bug, invariants, played)
