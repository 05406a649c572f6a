"""`crm approve`: carries out what another person proposed."""

import asyncio
from typing import Annotated, Final
from uuid import UUID

import typer
from chassis.clock import Clock, SystemClock
from chassis.connections.transient import TRANSIENT, why
from chassis.privacy.tokens import Caller
from chassis.proposals import Carried
from chassis.write.deciding import Refusal
from contracts import purposes
from customer.application import ERASE
from customer.connections import both_sides
from customer.permissions import ROLES
from customer.settings import CustomerSettings

from crm_cli.answers import Json, answer
from crm_cli.exits import WRONG, failed
from crm_cli.person import Reason, Token, caller_of, commanding
from crm_cli.running import customer_settings

KEYS_GONE_WITHIN_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.2


def approve(
    proposal: Annotated[UUID, typer.Argument(help="the proposal's id")],
    digest: Annotated[str, typer.Argument(help="the digest of what was proposed")],
    reason: Reason,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Carries out what another person proposed; 1 while keys are still there that it destroys."""
    settings = customer_settings()
    caller = caller_of(settings, token, ROLES["approve_customer_proposal"])
    try:
        done, gone = asyncio.run(_approved(settings, proposal, digest, caller, reason, SystemClock()))
    except Refusal as refusal:
        failed("approve", f"{refusal.title}: {refusal}" if str(refusal) else refusal.title)
    except TRANSIENT as error:
        failed("approve", why(error))
    values = {"subject_id": str(done.subject), "version": done.version, "keys_destroyed": gone}
    texts = {
        None: "done",
        True: "erased",
        False: "erased; its keys are destroyed once customer-policies runs",
    }
    answer(values, texts[gone], as_json=as_json)
    if gone is False:
        raise typer.Exit(code=WRONG)


async def _approved(
    settings: CustomerSettings, proposal: UUID, digest: str, caller: Caller, reason: str, clock: Clock
) -> tuple[Carried, bool | None]:
    """What the approval came to, and whether the keys are gone within the time that it destroys; None where it destroys
    none."""
    # The user of the operating system, who acts without a token in development, has every role.
    roles = caller.roles or ROLES["approve_customer_proposal"]
    context = commanding(caller, clock.now(), reason)
    async with both_sides(settings, clock) as (service, write, _):
        done = await service.eyes.approve(proposal, digest, context, roles)
        if (await service.eyes.shown(proposal)).kind != ERASE:
            return done, None
        # Those for contact go first, or with all others.
        until = clock.monotonic() + KEYS_GONE_WITHIN_SECONDS
        while not await asyncio.to_thread(write.ring.erased, [done.subject], purposes.CONTACT):
            if clock.monotonic() >= until:
                return done, False
            await clock.sleep(LOOK_SECONDS)
    return done, True


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("approve")(approve)
