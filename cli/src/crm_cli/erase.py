"""`crm erase`: a customer's personal values are destroyed, after every retention period, by a person with a reason."""

import asyncio
from typing import Annotated, Final
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
from crm_cli.exits import WRONG, failed
from crm_cli.person import Reason, Token, caller_of, commanding
from crm_cli.running import customer_settings

KEYS_GONE_WITHIN_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.2


def erase(
    customer: Annotated[UUID, typer.Argument(help="the customer's id")],
    reason: Reason,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Destroys the keys of a customer's personal values, for good; 1 while its keys are still there."""
    if not reason.strip():
        failed("erase", "say why with --reason")
    settings = customer_settings()
    caller = caller_of(settings, token, ROLES["erase_customer"])
    try:
        version, gone = asyncio.run(_erased(settings, customer, caller, reason, SystemClock()))
    except Refusal as refusal:
        failed("erase", f"{refusal.title}: {refusal}")
    except TRANSIENT as error:
        failed("erase", why(error))
    values = {"customer_id": str(customer), "version": version, "keys_destroyed": gone}
    text = "erased" if gone else "erased; its keys are destroyed once customer-policies runs"
    answer(values, text, as_json=as_json)
    if not gone:
        raise typer.Exit(code=WRONG)


async def _erased(
    settings: CustomerSettings, customer: UUID, caller: Caller, reason: str, clock: Clock
) -> tuple[int, bool]:
    """The version of the customer after it, and whether its key is gone within the time."""
    context = commanding(caller, clock.now(), reason)
    async with both_sides(settings, clock) as (service, write, _):
        outcome = await service.erase(customer, context)
        until = clock.monotonic() + KEYS_GONE_WITHIN_SECONDS
        while not await asyncio.to_thread(write.ring.erased, [customer]):
            if clock.monotonic() >= until:
                return outcome.version, False
            await clock.sleep(LOOK_SECONDS)
    return outcome.version, True


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("erase")(erase)
