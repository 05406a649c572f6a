"""Policies over simulated servers: each event in a policy's range has its effect once and in order."""

from uuid import UUID

import pytest
from chassis.messaging.delivered import Delivered

from tests.simulation import planted
from tests.simulation.kernel import simulated
from tests.simulation.reactions import Reacting, check, lived, stable
from tests.simulation.scenario import Broken

pytestmark = pytest.mark.usefixtures("quiet")

SEEDS = range(12)
FIRST = {"parked subjects read before positions": 17}
"""The seed that the search for a bug begins with, where the first ones are known not to find it."""


def of_the_record(event: Delivered, name: str) -> UUID:
    """A command id of its own for each record: an event that was published twice has two."""
    return UUID(int=stable(event, name).int ^ (event.record.offset or 0))


BUGS: dict[str, tuple[Reacting, set[str]]] = {
    "command id of the record": (Reacting(command_id=of_the_record), {"I2"}),
    "positions saved before reactions": (
        Reacting(runner=planted.runner_with("Reactor", planted.AdvancesFirst)),
        {"I1", "I3"},
    ),
    "positions not looked at": (
        Reacting(runner=planted.runner_with("Reactor", planted.ReactsToAllThatComes)),
        {"I1"},
    ),
    "parked subjects read before positions": (
        Reacting(runner=planted.runner_with("Reactor", planted.ReadsPositionsLast)),
        {"I3"},
    ),
    "parked subjects not read at a take-over": (
        Reacting(runner=planted.runner_with("Reactor", planted.ReactsWithoutKnowingWhoIsParked)),
        {"I1", "I3"},
    ),
    "start not recorded": (
        Reacting(runner=planted.runner_with("MongoCheckpoints", planted.StartsWhereItIs)),
        {"I1"},
    ),
    "refused command passed over": (
        Reacting(runner=planted.runner_with("Parking", planted.PassesPoisonOver)),
        {"I1", "I3"},
    ),
    "parked subject not held back": (
        Reacting(runner=planted.runner_with("Parking", planted.HoldsNobodyBack)),
        {"I1", "I3"},
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_event_of_a_policy_has_its_effect_once_and_in_order(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_parks_subjects_and_starts_in_the_middle() -> None:
    runs = [simulated(lived(seed)) for seed in range(5)]
    assert any(run.parked for run in runs)
    assert any(run.before for run in runs)
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
