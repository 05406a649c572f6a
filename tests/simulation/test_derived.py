"""Derived documents over simulated servers: they show what they say they have read, and nothing goes back."""

from collections import Counter
from typing import Any

import pytest
from chassis.read.deriving import Deriver
from chassis.read.summing import Summing

from tests.simulation import planted
from tests.simulation.derived import check, check_sums, lived
from tests.simulation.kernel import simulated
from tests.simulation.planted import changed
from tests.simulation.scenario import Broken

pytestmark = pytest.mark.usefixtures("quiet")

SEEDS = range(20)

WaitsForNobody = changed(
    Deriver,
    "apply",
    "shown = await self.wait_for(left)",
    "shown = {one[0:2]: (one.offset or 0) + 1 for one in left}",
)
"""Reads inputs that may not show the batch."""

TakesMore = changed(
    Deriver,
    "apply",
    "self._apply_shown([one for one in left if _is_before(one, shown)])",
    "self._apply_shown(left)",
)
"""Takes all of a batch of which the inputs show a part."""

SavesFirst = changed(
    Deriver,
    "_apply_shown",
    "await self._owe(changes)",
    "await self._owe(changes)\n    await self._checkpoints.advance(reached)",
)
"""Says that it has read what it has not derived."""

OwesNothing = changed(Deriver, "_apply_shown", "await self._owe(changes)", "pass")
"""Forgets events that an input has parked."""

_OwesEarly = changed(
    Deriver,
    "apply",
    "shown = await self.wait_for(left)",
    "await self._owe(self._changes(Arrivals().events(left)))\n            shown = await self.wait_for(left)",
)


class AsksEarlyWhoIsParked(_OwesEarly, OwesNothing):  # type: ignore[misc,valid-type]
    """Looks who is parked before the inputs have read the batch."""


CountsLate = changed(
    Deriver,
    "_derived",
    "there = await self._documents.load(name, ids, _COUNT)\n    found = await self.view.derive(self._inputs, ids)",
    "found = await self.view.derive(self._inputs, ids)\n    there = await self._documents.load(name, ids, _COUNT)",
)
"""Reads the count of writes after the inputs."""

MarksBeside = changed(
    Deriver,
    "derive",
    "    try:\n        await asyncio.gather(*tasks)\n    finally:\n        await ended(*tasks)\n"
    "    if self.summing is not None:\n        await self.summing.mark(wanted)",
    "    try:\n        await self.summing.mark(wanted)\n        await asyncio.gather(*tasks)\n    finally:\n        await ended(*tasks)",
)
"""Marks buckets while their documents are written."""

MarksNothing = changed(
    Deriver,
    "_apply_shown",
    "await self._derive_from((view, *key) for view, _, keys in changes for key in keys)",
    "marking, self.summing = self.summing, None\n"
    "    await self._derive_from((view, *key) for view, _, keys in changes for key in keys)\n"
    "    self.summing = marking",
)
"""Marks no bucket for what records change."""

SumsUnguarded = changed(
    Summing,
    "_write",
    "there = await self._documents.load(self.sums.name, ids, _COUNT)\n"
    "    found = {bucket: await self._read(bucket, due_on) for bucket in buckets}",
    "found = {bucket: await self._read(bucket, due_on) for bucket in buckets}\n"
    "    there = await self._documents.load(self.sums.name, ids, _COUNT)",
)
"""Reads the count of writes of a bucket after its documents."""

SettlesWhatItDidNotRead = changed(
    Summing, "_settle", "through = {", "marks = await self.marks()\n    through = {"
)
"""Takes a bucket for summed up to a mark that was made while it was."""

FIRST = {
    "count read after the inputs": 80,
    "parked subjects read before the inputs are level": 500,
}
"""The seed that the search for a bug begins with, where the first ones are known not to find it."""

BUGS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "inputs not waited for": ({"deriver": WaitsForNobody}, {"I1", "I4"}),
    "more derived than the inputs show": ({"deriver": TakesMore}, {"I1", "I4"}),
    "positions saved before documents": ({"deriver": SavesFirst}, {"I1", "I4"}),
    "parked events forgotten": ({"deriver": OwesNothing}, {"I1", "I4"}),
    "parked subjects read before the inputs are level": ({"deriver": AsksEarlyWhoIsParked}, {"I1", "I4"}),
    "count read after the inputs": ({"deriver": CountsLate}, {"I1", "I3", "I4"}),
    "no guard": ({"no_guard": True}, {"I1", "I3", "I4"}),
}


BUGS_OF_SUMS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "marked beside the documents": ({"deriver": MarksBeside, "sums": Summing}, {"I1"}),
    "not marked": ({"deriver": MarksNothing, "sums": Summing}, {"I1"}),
    "count of a bucket read after its documents": ({"sums": SumsUnguarded}, {"I1", "I3", "I4"}),
    "settled without comparing": ({"sums": SettlesWhatItDidNotRead}, {"I1", "I4"}),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_buckets_add_up_to_the_documents(seed: int) -> None:
    world = simulated(lived(seed, sums=Summing))
    assert check(world) + check_sums(world) == [], f"seed {seed}"


@pytest.mark.parametrize("bug", BUGS_OF_SUMS)
def test_a_planted_bug_of_sums_is_caught_and_its_seed_replays(bug: str) -> None:
    planting, invariants = BUGS_OF_SUMS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        world = simulated(lived(seed, **planting))
        return check(world) + check_sums(world), world.kernel.digest()

    planted.assert_caught(bug, invariants, played)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_derived_view_shows_what_it_says_it_has_read(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_the_schedules_hold_what_they_are_about() -> None:
    met = Counter[str]()
    for seed in range(5):
        world = simulated(lived(seed))
        met += world.kernel.met
        met["conflict"] += world.mongo.conflicts
        met["owed"] += world.kernel.digest() != "" and sum(
            "derived_owed" in line for line in world.kernel.trace
        )
    assert all(met[fault] for fault in ("crash", "unanswered", "freeze", "conflict")), met


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    planting, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        world = simulated(lived(seed, **planting))
        return check(world), world.kernel.digest()

    planted.assert_caught(bug, invariants, played, FIRST.get(bug, 0))
