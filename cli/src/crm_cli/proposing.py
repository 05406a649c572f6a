"""A command that one person proposes and another approves: given to the customer context, and answered."""

import asyncio
from collections.abc import Awaitable, Callable

from chassis.clock import Clock, SystemClock
from chassis.connections.transient import TRANSIENT, why
from chassis.privacy.tokens import Caller
from chassis.proposals import ProposalShown
from chassis.write.deciding import CommandContext, Refusal
from customer.application import CustomerService
from customer.connections import both_sides
from customer.permissions import ROLES
from customer.settings import CustomerSettings

from crm_cli.answers import answer
from crm_cli.exits import failed
from crm_cli.person import caller_of, commanding
from crm_cli.running import customer_settings

Propose = Callable[[CustomerService, CommandContext], Awaitable[ProposalShown]]


def propose(
    command: str, route: str, asked: Propose, *, reason: str, token: str | None, as_json: bool
) -> None:
    """Proposes as `crm <command>`, by a person who may call that route; says how it is approved."""
    settings = customer_settings()
    caller = caller_of(settings, token, ROLES[route])
    try:
        proposal = asyncio.run(_proposed(settings, asked, caller, reason, SystemClock()))
    except Refusal as refusal:
        failed(command, f"{refusal.title}: {refusal}" if str(refusal) else refusal.title)
    except TRANSIENT as error:
        failed(command, why(error))
    values = {
        "proposal_id": str(proposal.proposal_id),
        "digest": proposal.digest,
        "expires_at": proposal.expires_at.isoformat(),
    }
    text = f"proposed; another person runs: crm approve {proposal.proposal_id} {proposal.digest} --reason ..."
    answer(values, text, as_json=as_json)


async def _proposed(
    settings: CustomerSettings, asked: Propose, caller: Caller, reason: str, clock: Clock
) -> ProposalShown:
    async with both_sides(settings, clock) as (service, _, _):
        return await asked(service, commanding(caller, clock.now(), reason))
