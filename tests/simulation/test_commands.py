"""Commands over the command handler: each is carried out once, answered alike each time, and refused with reason only."""

from typing import Any

import pytest

from tests.simulation import planted
from tests.simulation.commands import WriteSide, check, lived
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken
from tests.simulation.servers import Flaws

SEEDS = range(60)

BUGS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "commands not remembered": ({"flaws": Flaws(no_command_memory=True)}, {"I2"}),
    "no version check": ({"flaws": Flaws(no_version_check=True)}, {"I3"}),
    "identities not checked": ({"flaws": Flaws(no_identity_check=True)}, {"I2"}),
    "refused though it was done": ({"parts": WriteSide(handler=planted.RefusesWhatWasDone)}, {"I2", "I8"}),
    "refused on an old state": ({"parts": WriteSide(handler=planted.RefusesOnAnOldState)}, {"I8"}),
    "expected version ignored": ({"parts": WriteSide(handler=planted.ExpectsNothing)}, {"I3"}),
    "decided again on the same state": ({"parts": WriteSide(handler=planted.DecidesOnce)}, {"I10"}),
    "answered without its events": ({"parts": WriteSide(handler=planted.AnswersWithNothing)}, {"I2", "I8"}),
    "snapshot of the state before": (
        {"parts": WriteSide(handler=planted.SnapshotsTheStateBefore)},
        {"I5", "I8"},
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_command_is_carried_out_once_and_answered(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_has_repeats_refusals_and_snapshots() -> None:
    banks = [simulated(lived(seed)) for seed in range(5)]
    answers = [answer for bank in banks for each in bank.answers.values() for answer in each]
    outcomes = [answer.outcome for answer in answers if answer.outcome is not None]
    assert any(outcome.replayed for outcome in outcomes)
    assert any(not outcome.events for outcome in outcomes)
    assert len(outcomes) < len(answers)
    assert all(bank.log.snapshots for bank in banks)
    assert {"crash", "unanswered", "abort"} <= {fault for bank in banks for fault in bank.kernel.met}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    planting, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        bank = simulated(lived(seed, **planting))
        return check(bank), bank.kernel.digest()

    planted.assert_caught(bug, invariants, played)
