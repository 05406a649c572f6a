"""`crm lift`: proposes that a legal hold is lifted."""

from typing import Annotated
from uuid import UUID

import typer
from chassis.proposals import ProposalShown
from chassis.write.deciding import CommandContext
from customer.application import CustomerService

from crm_cli.answers import Json
from crm_cli.person import Reason, Token
from crm_cli.proposing import propose


def lift(
    customer: Annotated[UUID, typer.Argument(help="the customer's id")],
    hold: Annotated[UUID, typer.Argument(help="the hold's id")],
    reason: Reason,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Proposes to lift a legal hold; another person approves it."""

    async def asked(service: CustomerService, context: CommandContext) -> ProposalShown:
        return await service.propose_lifting(customer, hold, context)

    propose("lift", "lift_legal_hold", asked, reason=reason, token=token, as_json=as_json)


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("lift")(lift)
