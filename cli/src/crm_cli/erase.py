"""`crm erase`: proposes that a customer's personal values are destroyed, after every retention period."""

from typing import Annotated
from uuid import UUID

import typer
from chassis.proposals import ProposalShown
from chassis.write.deciding import CommandContext
from customer.application import CustomerService

from crm_cli.answers import Json
from crm_cli.person import Reason, Token
from crm_cli.proposing import propose


def erase(
    customer: Annotated[UUID, typer.Argument(help="the customer's id")],
    reason: Reason,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Proposes to destroy the keys of a customer's personal values, for good; another person approves it."""

    async def asked(service: CustomerService, context: CommandContext) -> ProposalShown:
        return await service.propose_erasure(customer, context)

    propose("erase", "erase_customer", asked, reason=reason, token=token, as_json=as_json)


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("erase")(erase)
