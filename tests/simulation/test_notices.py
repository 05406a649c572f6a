"""Notices over simulated servers: each reaches its recipient once, within the limit, and no receipt is lost."""

import pytest

from tests.simulation import planted
from tests.simulation.kernel import simulated
from tests.simulation.noticing import Parts, TableFlaws, check, lived
from tests.simulation.scenario import Broken

pytestmark = pytest.mark.usefixtures("quiet")

SEEDS = range(12)

BUGS: dict[str, tuple[Parts, set[str]]] = {
    "done before it is handed over": (Parts(loop=planted.DoneBeforeItIsHandedOver), {"I1", "I10"}),
    "a message id of each try": (Parts(provider=planted.MessageIdOfEachTry), {"I1", "I2"}),
    "no answer counts as handed over": (Parts(loop=planted.TakesNoAnswerForAccepted), {"I1"}),
    "a receipt is acknowledged before it is stored": (
        Parts(notices=planted.AcknowledgesBeforeItStores),
        {"I8"},
    ),
    "position saved before the rows": (Parts(table=TableFlaws(position_first=True)), {"I1", "I10"}),
    "a limit of each process": (Parts(table=TableFlaws(limit_of_each_process=True)), {"limit"}),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_notice_reaches_its_recipient_once_and_no_receipt_is_lost(seed: int) -> None:
    assert check(simulated(lived(seed))) == [], f"seed {seed}"


def test_a_schedule_has_crashes_takeovers_and_messages_that_come_again() -> None:
    runs = [simulated(lived(seed)) for seed in range(6)]
    assert {"crash", "unanswered", "freeze", "lease taken over", "late", "again"} <= {
        fault for run in runs for fault in run.kernel.met
    }
    statuses = {run.notice(id).status for run in runs for id in run.wanted}
    assert {"delivered", "bounced", "refused"} <= statuses


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught_and_its_seed_replays(bug: str) -> None:
    parts, invariants = BUGS[bug]

    def played(seed: int) -> tuple[list[Broken], str]:
        run = simulated(lived(seed, parts))
        return check(run), run.kernel.digest()

    planted.assert_caught(bug, invariants, played)
