"""`crm erase`: proposes that a customer's personal values are destroyed, after every retention period."""

import asyncio
from typing import Annotated
from uuid import UUID

import typer
from chassis.clock import Clock, SystemClock
from chassis.connections.transient import TRANSIENT, why
from chassis.privacy.tokens import Caller
from chassis.proposals import ProposalShown
from chassis.write.deciding import Refusal
from customer.connections import both_sides
from customer.permissions import ROLES
from customer.settings import CustomerSettings

from crm_cli.answers import Json, answer
from crm_cli.exits import failed
from crm_cli.person import Reason, Token, caller_of, commanding
from crm_cli.running import customer_settings


def erase(
    customer: Annotated[UUID, typer.Argument(help="the customer's id")],
    reason: Reason,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Proposes to destroy the keys of a customer's personal values, for good; another person approves it."""
    settings = customer_settings()
    caller = caller_of(settings, token, ROLES["erase_customer"])
    try:
        proposal = asyncio.run(_proposed(settings, customer, caller, reason, SystemClock()))
    except Refusal as refusal:
        failed("erase", f"{refusal.title}: {refusal}")
    except TRANSIENT as error:
        failed("erase", why(error))
    values = {
        "proposal_id": str(proposal.proposal_id),
        "digest": proposal.digest,
        "expires_at": proposal.expires_at.isoformat(),
    }
    text = f"proposed; another person runs: crm approve {proposal.proposal_id} {proposal.digest} --reason ..."
    answer(values, text, as_json=as_json)


async def _proposed(
    settings: CustomerSettings, customer: UUID, caller: Caller, reason: str, clock: Clock
) -> ProposalShown:
    async with both_sides(settings, clock) as (service, _, _):
        return await service.propose_erasure(customer, commanding(caller, clock.now(), reason))


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("erase")(erase)
