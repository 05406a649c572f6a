"""`crm unlinked`: the accounts that wait for their customer, as GET /accounts/unlinked gives them."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from chassis.clock import SystemClock
from chassis.connections.transient import TRANSIENT, why
from chassis.lists import Scope
from chassis.money import decimal_text
from chassis.opening import opened_keys
from chassis.read.documents import DocumentsUnavailable
from customer.connections import read_side
from customer.settings import CustomerSettings

from crm_cli.answers import Json, answer
from crm_cli.exits import failed
from crm_cli.running import customer_settings

LIMIT_MAX: Final = 10_000


def unlinked(
    source: Annotated[str | None, typer.Option(help="only of this source")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="how many are listed")] = 100,
    as_json: Json = False,
) -> None:
    """Lists the accounts that wait for their customer.

    No holder is named yet, or none of them is a customer. Their movements are in nobody's panorama. Account numbers are
    masked. docs/runbooks/unlinked-accounts.md says what to do.
    """
    try:
        found, complete = asyncio.run(waiting(customer_settings(), source, limit))
    except DocumentsUnavailable as error:
        failed("unlinked", f"MongoDB does not answer: {why(error)}")
    except TRANSIENT as error:
        failed("unlinked", why(error))
    answer(
        {"items": found, "complete": complete}, readable(found, source, complete=complete), as_json=as_json
    )


async def waiting(
    settings: CustomerSettings, source: str | None, limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """At most `limit` accounts in the order of their ids, and whether those are all."""
    clock = SystemClock()
    found: list[dict[str, Any]] = []
    async with opened_keys(settings, clock) as ring, read_side(settings, ring, clock) as read:
        after: str | None = None
        while len(found) < limit:
            page, after = await read.queries.unlinked.page(Scope.all(), after, limit)
            found += [one for one in page if source in {None, one["source"]}]
            if after is None:
                break
    return found[:limit], after is None and len(found) <= limit


def readable(found: Sequence[dict[str, Any]], source: str | None, *, complete: bool) -> str:
    """One line for each account."""
    if not found:
        return "no account waits for its customer" + (f" at {source}" if source else "")
    lines = [
        f"{one['account_id']}  {one['account']} at {one['source']}  {one['holders_named']} holders named"
        f"  {one['movements']} movements  {_balances(one)}"
        for one in found
    ]
    return "\n".join(lines if complete else [*lines, "... and more; --limit says how many are listed"])


def _balances(account: dict[str, Any]) -> str:
    return ", ".join(
        f"{decimal_text(one['balance_minor'], one['currency'])} {one['currency']}"
        for one in account["balances"]
    )


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("unlinked")(unlinked)
