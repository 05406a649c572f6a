"""A derived view over inputs that are rebuilt, switched and dropped: nothing goes back, nothing stays behind."""

from typing import Any

import pytest
from chassis.read.derived_following import DerivedFeed, DerivedFollower
from chassis.read.deriving import MongoInputs
from typing_extensions import override

from tests.simulation import planted
from tests.simulation.derived_switches import check, lived
from tests.simulation.kernel import simulated
from tests.simulation.planted import changed
from tests.simulation.scenario import Broken

pytestmark = pytest.mark.usefixtures("quiet")

SEEDS = range(5)


def following(feed: type[DerivedFeed]) -> type[DerivedFollower]:
    """A follower with another feed."""
    return changed(DerivedFollower, "_opened", " DerivedFeed.of(", " planted.of(", planted=feed)


class LooksNotAgain(MongoInputs):
    """Reads what may have been dropped meanwhile."""

    @override
    async def check(self) -> None:
        return


async def inputs_that_are_not_checked(*given: Any) -> MongoInputs:
    from chassis.read.derived_following import pinned

    found = await pinned(*given)
    return LooksNotAgain(found.mongo, list(found.pinned.values()), found._today)


BUGS: dict[str, tuple[type[DerivedFollower], set[str]]] = {
    "inputs that were dropped": (
        following(
            changed(DerivedFeed, "of", "await pinned(", "await planted(", planted=inputs_that_are_not_checked)
        ),
        {"I1", "I3", "I10"},
    ),
    "not all derived": (
        following(
            changed(
                DerivedFeed,
                "derive_all",
                "while not self._complete",
                "self._complete = True\n    while not self._complete",
            )
        ),
        {"I1", "I3"},
    ),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_derived_view_follows_its_inputs_and_takes_nothing_back(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    follower, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        run = simulated(lived(seed, follower))
        return check(run), run.kernel.digest()

    planted.assert_caught(bug, invariants, played)
