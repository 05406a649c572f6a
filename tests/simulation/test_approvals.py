"""Proposals that several persons decide on at once, while their processes die: one ending, and its effect once."""

from typing import Any

import pytest

from tests.simulation import planted
from tests.simulation.approvals import Parts, check, lived
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken
from tests.simulation.servers import Flaws

SEEDS = range(30)

BUGS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "the approval is stored apart": ({"parts": Parts(handler=planted.ApprovesApart)}, {"I2", "I8"}),
    "who is overtaken is told of an approval": (
        {"parts": Parts(eyes=planted.TellsTheOvertaken)},
        {"I9"},
    ),
    "the proposer is a second person": ({"parts": Parts(eyes=planted.AcceptsTheProposer)}, {"I9"}),
    "no version check": ({"flaws": Flaws(no_version_check=True)}, {"I2", "I3"}),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_proposal_ends_once_and_its_effect_is_there_where_it_was_approved(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_has_approvals_withdrawals_and_crashes() -> None:
    offices = [simulated(lived(seed)) for seed in range(8)]
    names = {row.name for office in offices for row in office.log.rows}
    assert {"proposal-approved", "proposal-withdrawn"} <= names
    assert {"crash", "unanswered"} <= {fault for office in offices for fault in office.kernel.met}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    planting, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        office = simulated(lived(seed, **planting))
        return check(office), office.kernel.digest()

    planted.assert_caught(bug, invariants, played)
