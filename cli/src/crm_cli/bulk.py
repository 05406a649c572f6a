"""`crm bulk`: the bulk runs that were started and have not finished; one is paused, resumed, or its start proposed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from chassis.bulk import Bulk, BulkShown, propose_start
from chassis.clock import SystemClock
from chassis.connections.transient import TRANSIENT, why
from chassis.proposals import ProposalShown
from chassis.write.deciding import CommandContext, Refusal
from customer.application import CustomerService
from customer.catalogue import catalogue
from customer.connections import write_side

from crm_cli.answers import Json, answer, answer_list
from crm_cli.exits import failed
from crm_cli.operations import MAY_OPERATE
from crm_cli.person import Reason, Token, caller_of, commanding
from crm_cli.proposing import propose
from crm_cli.running import customer_settings

app = typer.Typer(help="Bulk runs that have not finished.", no_args_is_help=True)

T = TypeVar("T")
Run = Annotated[UUID, typer.Argument(help="the run's id")]


@app.command("list")
def list_runs(as_json: Json = False) -> None:
    """Lists the runs that were started and have not finished."""

    async def shown(bulk: Bulk) -> list[BulkShown]:
        return [await bulk.shown(run) for run in await bulk.started()]

    items = [_values(one) for one in _asked(shown)]
    answer_list(items, [_line(one) for one in items], "every bulk run has finished", as_json=as_json)


@app.command("pause")
def pause(run: Run, reason: Reason, as_json: Json = False, token: Token = None) -> None:
    """Lets the items under way end, and begins no others."""
    context = commanding(caller_of(customer_settings(), token, MAY_OPERATE), SystemClock().now(), reason)
    _answered(_asked(lambda bulk: bulk.pause(run, context)), as_json=as_json)


@app.command("resume")
def resume(run: Run, reason: Reason, as_json: Json = False, token: Token = None) -> None:
    """Goes on with a run that is paused."""
    context = commanding(caller_of(customer_settings(), token, MAY_OPERATE), SystemClock().now(), reason)
    _answered(_asked(lambda bulk: bulk.resume(run, context)), as_json=as_json)


@app.command("propose")
def propose_run(run: Run, reason: Reason, as_json: Json = False, token: Token = None) -> None:
    """Proposes to start a run that takes two persons; another person approves it."""

    async def asked(service: CustomerService, context: CommandContext) -> ProposalShown:
        return await propose_start(service.bulk, service.eyes, run, context)

    propose("bulk", "propose_customer_bulk", asked, reason=reason, token=token, as_json=as_json)


@asynccontextmanager
async def _opened() -> AsyncIterator[Bulk]:
    """The runs of customer, to show and to decide on them; what their items are given is not needed for that."""
    clock = SystemClock()
    async with write_side(customer_settings(), clock) as write:
        yield Bulk(write.store, catalogue(), write.ring, {}, clock)


def _asked(ask: Callable[[Bulk], Awaitable[T]]) -> T:
    async def asked() -> T:
        async with _opened() as bulk:
            return await ask(bulk)

    try:
        return asyncio.run(asked())
    except Refusal as refusal:
        failed("bulk", f"{refusal.title}: {refusal}")
    except TRANSIENT as error:
        failed("bulk", why(error))


def _answered(shown: BulkShown, *, as_json: bool) -> None:
    values = _values(shown)
    answer(values, _line(values), as_json=as_json)


def _values(shown: BulkShown) -> dict[str, Any]:
    return {
        "run_id": str(shown.run_id),
        "gives": shown.kind,
        "status": shown.status,
        "items": shown.items,
        "settled": shown.settled,
        "done": shown.done,
        "unchanged": shown.unchanged,
        "refused": shown.refused,
        "needs_approval": shown.needs_approval,
        "undoes_id": None if shown.undoes is None else str(shown.undoes),
    }


def _line(one: dict[str, Any]) -> str:
    return (
        f"{one['run_id']}  {one['gives']}  {one['status']}  {one['settled']} of {one['items']}"
        f" (done {one['done']}, unchanged {one['unchanged']}, refused {one['refused']})"
    )


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name="bulk")
