"""Legal holds and erasures at once, while processes die: what is held is not erased, and what is erased is gone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from customer.domain.commands import CustomerCommand, EraseContact, EraseCustomer
from customer.domain.customer import customer_decider
from customer.domain.deciding import decide
from customer.domain.events import CustomerEvent
from customer.domain.state import Customer
from msgspec import structs

from tests.simulation import planted
from tests.simulation.holds import Parts, check, lived
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken
from tests.simulation.servers import Flaws

SEEDS = range(30)


def decide_without_looking(command: CustomerCommand, customer: Customer) -> Sequence[CustomerEvent]:
    """Leaves it to the caller to look whether a hold stands, who looked before."""
    if isinstance(command, EraseContact | EraseCustomer):
        customer = structs.replace(customer, holds={})
    return decide(command, customer)


BUGS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "the hold is looked at before, and not in the decision": (
        {"parts": Parts(decider=replace(customer_decider, decide=decide_without_looking))},
        {"I8"},
    ),
    "keys are destroyed before the event is stored": ({"parts": Parts(keys_first=True)}, {"I2", "I4", "I8"}),
    "no version check": ({"flaws": Flaws(no_version_check=True)}, {"I2", "I3", "I8"}),
}


@pytest.mark.requirement("M22")
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_erased_while_a_hold_stands(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_has_holds_that_win_holds_that_come_too_late_and_crashes() -> None:
    archives = [simulated(lived(seed)) for seed in range(12)]
    outcomes = {(key.split()[0], type(one).__name__) for each in archives for key, one in each.told.items()}
    assert {("chen", "LegalHoldStands"), ("wu", "CustomerIsErased"), ("wu", "Outcome")} <= outcomes
    names = {row.name for each in archives for row in each.log.rows}
    assert {"customer-contact-erased", "customer-erased", "legal-hold-lifted"} <= names
    assert {"crash", "unanswered"} <= {fault for each in archives for fault in each.kernel.met}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    planting, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        archive = simulated(lived(seed, **planting))
        return check(archive), archive.kernel.digest()

    planted.assert_caught(bug, invariants, played)
