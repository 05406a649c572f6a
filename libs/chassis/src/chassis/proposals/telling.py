"""Tells those who may approve a proposal that it waits, in the inbox of each of their roles."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from contracts.roles import ROLES
from msgspec import structs

from chassis.notices import Notices, Template, Wanted, of_role
from chassis.proposals.approving import Proposable
from chassis.proposals.deciding import PROPOSALS, ProposalHasExpired, ProposalMade
from chassis.timers import Change, Due, SetTimer, Timer, TimerRule, WithdrawTimer
from chassis.write.deciding import CommandContext
from chassis.write.events import RecordedEvent


def _changes(recorded: RecordedEvent) -> Sequence[Change]:
    match recorded.event:
        case ProposalMade(kind, subject, expires_at=expires_at):
            about = {"kind": kind, "subject": str(subject), "expires_at": expires_at.isoformat()}
            return [SetTimer(recorded.metadata.recorded_at, data=about)]
        case _:
            return [WithdrawTimer()]


def _notice(due: Due, role: str) -> UUID:
    return uuid5(due.id, role)


def _notices(due: Due) -> Sequence[tuple[UUID, UUID]]:
    """The notices to every role, for the approvers of a kind change. Each is requested under its own id."""
    return [(id, id) for id in (_notice(due, role) for role in ROLES)]


PROPOSAL_WAITS: Final = TimerRule("proposal-waits", 1, frozenset(PROPOSALS), _changes, commands=_notices)
"""A proposal is told of at once, unless it was decided on by then."""


def waiting_timer(kinds: Mapping[str, Proposable], notices: Notices, template: Template) -> Timer:
    """Tells of the proposals of these kinds. The template is of an inbox, and has the values `what` and `proposal`."""

    async def give(due: Due, context: CommandContext, _: int) -> None:
        if context.now >= datetime.fromisoformat(due.data["expires_at"]):
            raise ProposalHasExpired
        kind = kinds[due.data["kind"]]
        values = {"what": kind.title, "proposal": str(due.subject)}
        for role in sorted(kind.approvers):
            wanted = Wanted(UUID(due.data["subject"]), of_role(role), template.name, values)
            id = _notice(due, role)
            await notices.request(id, wanted, structs.replace(context, command_id=id))

    return PROPOSAL_WAITS.giving(give)
