"""`crm sagas`: the sagas that have not ended, and a compensation that was refused, given again or skipped."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

import typer
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import TRANSIENT, why
from chassis.sagas import Sagas, SagaShown
from chassis.sagas.reading import has_sagas, open_sagas
from chassis.write.deciding import CommandContext, Refusal
from chassis.write.store import Recorder
from customer.connections import write_side
from customer.sagas import starting

from crm_cli.answers import Json, answer, answer_list
from crm_cli.contexts import CONTEXTS, Context, reading_settings
from crm_cli.exits import WRONG, failed
from crm_cli.operations import MAY_OPERATE
from crm_cli.person import Reason, Token, caller_of, commanding
from crm_cli.running import customer_settings

Operation = Callable[[Sagas, UUID, CommandContext], Awaitable[SagaShown]]
SagaId = Annotated[UUID, typer.Argument(help="the saga's id")]

app = typer.Typer(help="Sagas that have not ended, and those that are stuck.", no_args_is_help=True)


@app.command("list")
def list_sagas(as_json: Json = False) -> None:
    """Lists the sagas that have not ended; 1 where one is stuck."""
    try:
        found = [
            (name, one) for name, context in CONTEXTS.items() for one in sagas_of(reading_settings(), context)
        ]
    except TRANSIENT as error:
        failed("sagas list", why(error))
    items = [{"context": name, **as_values(one)} for name, one in found]
    answer_list(items, [_line(one) for one in items], "every saga has ended", as_json=as_json)
    if any(one.status == "stuck" for _, one in found):
        raise typer.Exit(code=WRONG)


@app.command("again")
def again(
    saga: SagaId,
    reason: Reason,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Has the compensation that was refused given again."""
    _operated("again", saga, Sagas.try_again, reason, token, as_json=as_json)


@app.command("skip")
def skip(
    saga: SagaId,
    reason: Reason,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Keeps what the step has done whose compensation was refused, for ever, and goes on with those before it."""
    _operated("skip", saga, Sagas.skip, reason, token, as_json=as_json)


def _operated(
    verb: str, saga: UUID, operation: Operation, reason: str, token: str | None, *, as_json: bool
) -> None:
    settings, clock = customer_settings(), SystemClock()
    context = commanding(caller_of(settings, token, MAY_OPERATE), clock.now(), reason)

    async def operated() -> SagaShown:
        async with write_side(settings, clock) as write:
            return await operation(starting(write), saga, context)

    try:
        shown = asyncio.run(operated())
    except Refusal as refusal:
        failed(f"sagas {verb}", f"{refusal.title}: {refusal}")
    except TRANSIENT as error:
        failed(f"sagas {verb}", why(error))
    answer(as_values(shown), _line(as_values(shown)), as_json=as_json)


def sagas_of(settings: Settings, context: Context) -> list[SagaShown]:
    """The sagas of a context that have not ended; none where its store is not there yet. Raises StoreUnavailable."""
    catalogue = context.catalogue()
    if not has_sagas(catalogue):
        return []
    recorder = Recorder(settings.postgres_url, context.schema, as_login=True)
    try:
        return [one.shown for one in open_sagas(recorder, catalogue)]
    finally:
        recorder.close()


def as_values(shown: SagaShown) -> dict[str, Any]:
    """A saga as JSON."""
    return {
        "saga_id": str(shown.id),
        "saga": shown.saga,
        "status": shown.status,
        "times_out_at": None if shown.times_out_at is None else shown.times_out_at.isoformat(),
        "open_steps": list(shown.open_steps),
        "because": shown.because,
        "refused_step": shown.refused,
        "code": shown.code,
    }


def _line(one: dict[str, Any]) -> str:
    what = ", ".join(one["open_steps"]) or "waits"
    if one["status"] == "stuck":
        what = f"{one['refused_step']} cannot be taken back: {one['code']}"
    because = f", because {one['because']}" if one["because"] else ""
    return (
        f"{one['saga_id']}  {one['saga']}  {one['status']}{because}  {what}  times out {one['times_out_at']}"
    )


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name="sagas")
