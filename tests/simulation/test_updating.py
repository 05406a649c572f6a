"""Relays, views and policies of two versions at once over simulated servers: what is newer waits for a newer process."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from chassis.messaging.delivered import Delivered
from chassis.write.events import StoredEvent

from tests.simulation import delivery, planted, reactions
from tests.simulation.delivery import Words
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken
from tests.simulation.updating import Before, check, is_newer, lived, lived_with_policies

pytestmark = pytest.mark.usefixtures("quiet")

SEEDS = range(30)


def holds_the_subject(stored: StoredEvent) -> Words | None:
    """A relay that takes a newer event for one that cannot be published."""
    if is_newer(stored):
        raise ValueError("an unknown version")
    return delivery.words(stored)


def passes_over(stored: StoredEvent) -> Words | None:
    """A relay that takes a newer event for one that is not published."""
    return None if is_newer(stored) else delivery.words(stored)


def parks(event: Delivered) -> Mapping[str, Any]:
    """A view that takes a newer event for one that it cannot digest."""
    if event.version > 1:
        raise ValueError("an unknown version")
    return delivery.data(event)


def reads_what_it_knows(event: Delivered) -> Mapping[str, Any]:
    """A view that takes of a newer event what it knows, and calls the rest nothing."""
    found: dict[str, Any] = msgspec.json.decode(event.record.value)
    return found if event.version == 1 else found | {"amount_minor": 0}


BUGS = {
    "published in the words before": (Before(words=delivery.words), {"I7"}),
    "held": (Before(words=holds_the_subject), {"I1", "I7", "I10"}),
    "passed over": (Before(words=passes_over), {"I1", "I7", "I9"}),
    "parked": (Before(data=parks), {"I4"}),
    "half read": (Before(data=reads_what_it_knows), {"I4", "I5"}),
}
BUGS_OF_POLICIES = {name: BUGS[name] for name in ("held", "parked")}


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_newer_waits_for_a_newer_process(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


@pytest.mark.parametrize("seed", range(12))
def test_a_policy_reacts_to_what_is_newer_once_it_is_new(seed: int) -> None:
    run = simulated(lived_with_policies(seed))
    assert reactions.check(run) == [], f"seed {seed}"


def test_a_schedule_replaces_processes_takes_some_back_and_stores_both_versions() -> None:
    updates = [simulated(lived(seed)) for seed in range(5)]
    rows = [row for update in updates for row in update.delivery.published()]
    assert {is_newer(row) for row in rows} == {True, False}
    replaced = [update.delivery.world.kernel.met["update"] for update in updates]
    assert max(replaced) > min(replaced) >= delivery.RELAYS + delivery.CONSUMERS


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    before, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        update = simulated(lived(seed, before))
        return check(update), update.delivery.world.kernel.digest()

    planted.assert_caught(bug, invariants, played)


@pytest.mark.parametrize("bug", BUGS_OF_POLICIES)
def test_a_planted_bug_of_policies_is_caught_and_its_seed_replays(bug: str) -> None:
    before, invariants = BUGS_OF_POLICIES[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        run = simulated(lived_with_policies(seed, before))
        return reactions.check(run), run.delivery.world.kernel.digest()

    planted.assert_caught(bug, invariants, played)
