"""`crm hold`: forbids every erasure of a customer."""

import asyncio
from datetime import date, datetime
from typing import Annotated
from uuid import UUID

import typer
from chassis.clock import Clock, SystemClock
from chassis.connections.transient import TRANSIENT, why
from chassis.privacy.tokens import Caller
from chassis.write.deciding import Refusal
from customer.connections import both_sides
from customer.permissions import ROLES
from customer.settings import CustomerSettings

from crm_cli.answers import Json, answer
from crm_cli.exits import failed
from crm_cli.person import Reason, Token, caller_of, commanding
from crm_cli.running import customer_settings


def hold(
    customer: Annotated[UUID, typer.Argument(help="the customer's id")],
    reason: Reason,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="the business date before which it stands")
    ] = None,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Forbids every erasure of a customer, before a day or until the hold is lifted."""
    settings = customer_settings()
    caller = caller_of(settings, token, ROLES["place_legal_hold"])
    day = None if until is None else until.date()
    try:
        placed = asyncio.run(_placed(settings, customer, day, caller, reason, SystemClock()))
    except Refusal as refusal:
        failed("hold", f"{refusal.title}: {refusal}" if str(refusal) else refusal.title)
    except TRANSIENT as error:
        failed("hold", why(error))
    values = {"customer_id": str(customer), "hold_id": str(placed)}
    answer(values, f"held; it is lifted by: crm lift {customer} {placed} --reason ...", as_json=as_json)


async def _placed(
    settings: CustomerSettings,
    customer: UUID,
    until: date | None,
    caller: Caller,
    reason: str,
    clock: Clock,
) -> UUID:
    context = commanding(caller, clock.now(), reason)
    async with both_sides(settings, clock) as (service, _, _):
        await service.place_legal_hold(customer, until, context)
    return context.command_id


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("hold")(hold)
