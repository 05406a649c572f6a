"""Ends the waiting of a proposal on which nobody has decided in time, so that its stream says how it ended."""

from collections.abc import Sequence
from typing import Any, Final

from chassis.proposals.approving import FourEyes
from chassis.proposals.deciding import PROPOSALS, ProposalMade
from chassis.timers import Change, Due, SetTimer, Timer, TimerRule, WithdrawTimer
from chassis.write.deciding import CommandContext
from chassis.write.events import RecordedEvent


def _changes(recorded: RecordedEvent) -> Sequence[Change]:
    match recorded.event:
        case ProposalMade(expires_at=expires_at):
            return [SetTimer(expires_at)]
        case _:
            return [WithdrawTimer()]


PROPOSAL_EXPIRES: Final = TimerRule("proposal-expires", 1, frozenset(PROPOSALS), _changes)
"""A proposal expires at the instant from which on it is refused."""


def expiring_timer(eyes: FourEyes) -> Timer:
    """Expires the proposals of a context."""

    async def give(due: Due, context: CommandContext, _: int) -> Any:
        return await eyes.expire(due.subject, context)

    return PROPOSAL_EXPIRES.giving(give)
