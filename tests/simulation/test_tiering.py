"""Tiers over simulated servers and months: each month is assessed once, by its own figures, and by what stood before."""

from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from chassis.timers import Due, Timer
from chassis.write.deciding import CommandContext
from customer.application import Handler
from customer.derived.customer_facts import CHANGES_ON
from customer.tiers import assessing
from customer.timers import Facts, tier_timer
from msgspec import structs

from tests.simulation import planted
from tests.simulation.kernel import simulated
from tests.simulation.scenario import Broken
from tests.simulation.tiering import CALENDAR, CATALOGUE, Parts, built_in, check, lived

pytestmark = pytest.mark.usefixtures("quiet")

SEEDS = range(30)


def of_any_day(handler: Handler, facts: Facts) -> Timer:
    """Does not look of which day the facts are."""

    async def taken(customer: UUID) -> Any:
        found = await facts(customer)
        return None if found is None else {**found, CHANGES_ON: date.max.isoformat()}

    return tier_timer(handler, taken, built_in, CALENDAR)


def of_the_due_month(handler: Handler, facts: Facts) -> Timer:
    """Assesses the month for which the timer was set."""

    async def give(due: Due, context: CommandContext, version: int) -> Any:
        command = assessing(await facts(due.subject), CALENDAR.business_date(due.due_at).isoformat())
        return await handler.handle(due.subject, command, context, version, asked="assess-tier")

    return replace(tier_timer(handler, facts, built_in, CALENDAR), give=give)


def effective_when_due(handler: Handler, facts: Facts) -> Timer:
    """Takes the time at which the timer was due as the time from which the tier stands."""
    timer = tier_timer(handler, facts, built_in, CALENDAR)

    class Given:
        """A handler that puts the time of the timer back."""

        async def handle(
            self, subject: UUID, command: Any, context: CommandContext, *more: Any, **named: Any
        ) -> Any:
            context = structs.replace(context, effective_at=due_at[subject])
            return await handler.handle(subject, command, context, *more, **named)

    due_at: dict[UUID, Any] = {}
    giving = tier_timer(Given(), facts, built_in, CALENDAR)  # type: ignore[arg-type]

    async def give(due: Due, context: CommandContext, version: int) -> Any:
        due_at[due.subject] = due.due_at
        return await giving.give(due, context, version)

    return replace(timer, give=give)


BUGS: dict[str, tuple[Parts, set[str]]] = {
    "facts of any day are assessed": (Parts(timer=of_any_day), {"I3"}),
    "the month of the timer is assessed": (Parts(timer=of_the_due_month), {"I3"}),
    "effective when the timer was due": (Parts(timer=effective_when_due), {"I3"}),
    "facts that are late fail": (Parts(loop=planted.WaitsForNothing), {"I1"}),
}


@pytest.mark.requirement("M06")
@pytest.mark.parametrize("seed", SEEDS)
def test_each_month_is_assessed_once_by_its_own_figures(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_has_months_that_are_passed_over_erasures_and_crashes() -> None:
    banks = [simulated(lived(seed)) for seed in range(12)]
    names = {row.name for bank in banks for row in bank.log.rows}
    assert {"customer-erased", "customer-renamed", "tier-assessed"} <= names
    assert {"crash", "unanswered", "lease taken over"} <= {
        fault for bank in banks for fault in bank.kernel.met
    }
    assessed = [
        CATALOGUE.decode(row).event for bank in banks for row in bank.log.rows if row.name == "tier-assessed"
    ]
    assert {(one.tier, one.because) for one in assessed} >= {  # type: ignore[attr-defined]
        *((tier, "met") for tier in ("mass", "wealth", "private")),
        ("private", "grace"),
    }


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    parts, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        bank = simulated(lived(seed, parts))
        return check(bank), bank.kernel.digest()

    planted.assert_caught(bug, invariants, played)
