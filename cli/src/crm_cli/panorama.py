"""`crm panorama`: a customer's asset panorama, once the views have applied all stored events."""

import asyncio
import json
import re
from typing import Annotated, Final
from uuid import UUID

import typer
from chassis.clock import Clock, SystemClock
from chassis.connections.transient import TRANSIENT, why
from chassis.lists import Scope
from chassis.money import decimal_text
from chassis.opening import opened_keys
from chassis.write.store import Recorder
from contracts.identity import PartyId, source_name
from customer.connections import Read, outside_ids, read_side
from customer.panorama.schema import MONTH_PATTERN, CurrencyBlock, Panorama
from customer.settings import CustomerSettings

from crm_cli.answers import Json
from crm_cli.contexts import CONTEXTS
from crm_cli.exits import failed
from crm_cli.running import customer_settings

WAIT_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.1
SECTIONS: Final = ("deposits", "wealth", "credit_balances", "loans", "cards", "overdrafts")


class NotShown(Exception):
    """There is no panorama to print; the message says why."""


def panorama(
    reference: Annotated[str, typer.Option(help="SOURCE:NUMBER, a source's own number of the customer")],
    month: Annotated[
        str | None, typer.Option(help="the month of the spending, YYYY-MM; the newest by default")
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait for the views")] = WAIT_SECONDS,
    as_json: Json = False,
) -> None:
    """Shows the asset panorama of a customer, personal values masked."""
    source, colon, number = reference.partition(":")
    if not (source and colon and number):
        failed("panorama", f"a reference is SOURCE:NUMBER, not {reference!r}")
    try:
        source = source_name(source)
    except ValueError as error:
        failed("panorama", f"not a name of a source: {error}")
    if month is not None and re.fullmatch(MONTH_PATTERN, month) is None:
        failed("panorama", f"a month is YYYY-MM, not {month!r}")
    try:
        found = asyncio.run(shown(customer_settings(), source, number, month, wait))
    except NotShown as error:
        failed("panorama", str(error))
    except TRANSIENT as error:
        failed("panorama", why(error))
    print(json.dumps(found, ensure_ascii=False) if as_json else readable(found))


async def shown(
    settings: CustomerSettings,
    source: str,
    number: str,
    month: str | None = None,
    wait_seconds: float = WAIT_SECONDS,
    clock: Clock | None = None,
) -> Panorama:
    """The panorama after everything that is stored now; raises NotShown."""
    clock = clock or SystemClock()
    until = clock.monotonic() + wait_seconds
    async with opened_keys(settings, clock) as ring, read_side(settings, ring, clock) as read:
        party = (await outside_ids(settings, ring, create=False)).party(source, number)
        await _caught_up(settings, read, "ingest", until, clock)
        customer = await _customer(settings, read, party, source, until, clock)
        found = await read.queries.holdings.panorama(Scope.all(), customer, clock.now(), month)
    if found is None:
        raise NotShown("the customer is gone")
    return found


async def _caught_up(
    settings: CustomerSettings, read: Read, context: str, until: float, clock: Clock
) -> None:
    head = await asyncio.to_thread(_head, settings, CONTEXTS[context].schema)
    if not await read.views.wait_for(context, head, max(0.0, until - clock.monotonic())):
        raise NotShown(f"the views have not reached {context}-{head} in time; see crm status")


def _head(settings: CustomerSettings, schema: str) -> int:
    recorder = Recorder(settings.postgres_url, schema)
    try:
        return recorder.head_position()
    finally:
        recorder.close()


async def _customer(
    settings: CustomerSettings, read: Read, party: PartyId, source: str, until: float, clock: Clock
) -> UUID:
    """The customer of the reference. Waits for a customer whom a description by master data will register."""
    while True:
        await _caught_up(settings, read, "customer", until, clock)
        found = await read.queries.customers.of_party(Scope.all(), party)
        if found:
            return UUID(found[0]["customer_id"])
        if not await read.queries.holdings.described(party):
            raise NotShown(f"{source} has no customer under this number")
        if clock.monotonic() > until:
            raise NotShown("master data describes the party, but it is not a customer yet; see crm status")
        await clock.sleep(LOOK_SECONDS)


def readable(found: Panorama) -> str:
    """The panorama as a few lines of text."""
    lines = [f"{found['name'] or found['kind']}  {found['customer_id']}  as of {found['as_of']}"]
    for block in found["currencies"]:
        lines += _lines(block)
    for account in found["accounts"]:
        balances = ", ".join(f"{one['balance']} {one['currency']}" for one in account["balances"])
        joint = f", {account['holders']} holders" if account["joint"] else ""
        lines.append(
            f"  {account['account']}  {account['product']} at {account['source']} ({account['role']}{joint}): {balances}"
        )
    return "\n".join(lines)


def _lines(block: CurrencyBlock) -> list[str]:
    currency = block["currency"]
    shares = {share["section"]: share["percent"] for share in block["allocation"]}
    lines = [
        f"{currency}  AUM {block['aum']['amount']}  net worth {block['net_worth']['amount']}"
        f"  spending in {block['spending']['month']} {block['spending']['amount']}"
    ]
    for section in SECTIONS:
        figure = block[section]
        if figure["amount_minor"]:
            joint = (
                f"  ({decimal_text(figure['joint_minor'], currency)} joint)" if figure["joint_minor"] else ""
            )
            share = f"  {shares[section]} %" if section in shares else ""
            stale = f"  (stale: {', '.join(figure['stale'])})" if figure["stale"] else ""
            lines.append(f"  {section:<16} {figure['amount']:>16}{share}{joint}{stale}")
    return lines


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("panorama")(panorama)
