"""`crm lift`: proposes that a legal hold is lifted."""

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


def lift(
    customer: Annotated[UUID, typer.Argument(help="the customer's id")],
    hold: Annotated[UUID, typer.Argument(help="the hold's id")],
    reason: Reason,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Proposes to lift a legal hold; another person approves it."""
    settings = customer_settings()
    caller = caller_of(settings, token, ROLES["lift_legal_hold"])
    try:
        proposal = asyncio.run(_proposed(settings, customer, hold, caller, reason, SystemClock()))
    except Refusal as refusal:
        failed("lift", f"{refusal.title}: {refusal}" if str(refusal) else refusal.title)
    except TRANSIENT as error:
        failed("lift", why(error))
    values = {
        "proposal_id": str(proposal.proposal_id),
        "digest": proposal.digest,
        "expires_at": proposal.expires_at.isoformat(),
    }
    text = f"proposed; another person runs: crm approve {proposal.proposal_id} {proposal.digest} --reason ..."
    answer(values, text, as_json=as_json)


async def _proposed(
    settings: CustomerSettings, customer: UUID, hold: UUID, caller: Caller, reason: str, clock: Clock
) -> ProposalShown:
    async with both_sides(settings, clock) as (service, _, _):
        return await service.propose_lifting(customer, hold, commanding(caller, clock.now(), reason))


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("lift")(lift)
