"""`crm timers`: the timers that failed; one is given again, or given up with a reason."""

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

import psycopg
import typer
from chassis.connections.transient import why
from chassis.timers.operating import Failed, drop, failed_of, try_again

from crm_cli.answers import Json, answer, answer_list
from crm_cli.contexts import CONTEXTS, settings
from crm_cli.exits import WRONG, failed
from crm_cli.operations import noted
from crm_cli.person import Reason, Token

app = typer.Typer(help="Timers that failed.", no_args_is_help=True)

Named = Annotated[str, typer.Argument(help=f"one of {', '.join(CONTEXTS)}")]
Subject = Annotated[UUID, typer.Argument(help="whose timer it is")]
TimerName = Annotated[str, typer.Argument(help="the name of the timer")]
Slot = Annotated[
    str, typer.Option("--slot", help="which of the subject's timers of this name, where it has several")
]


@app.command("list")
def list_timers(as_json: Json = False) -> None:
    """Lists the timers that failed, and why; 1 where there are any."""
    try:
        url = settings().postgres_url
        found = [(name, one) for name, each in CONTEXTS.items() for one in failed_of(url, each.schema)]
    except psycopg.Error as error:
        failed("timers", why(error))
    items = [_values(*one) for one in found]
    answer_list(items, [_line(one) for one in items], "no timer failed", as_json=as_json)
    if items:
        raise typer.Exit(code=WRONG)


@app.command("retry")
def retry(
    context: Named,
    subject: Subject,
    name: TimerName,
    reason: Reason,
    slot: Slot = "",
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Has the command of a failed timer given again. Its effect comes once."""
    _act("retry", try_again, "timer-retried", (context, subject, name, slot), reason, token, as_json=as_json)


@app.command("drop")
def give_up(
    context: Named,
    subject: Subject,
    name: TimerName,
    reason: Reason,
    slot: Slot = "",
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Gives a failed timer up, for ever."""
    _act("drop", drop, "timer-dropped", (context, subject, name, slot), reason, token, as_json=as_json)


def _act(
    verb: str,
    act: Callable[[str, str, UUID, str, str], bool],
    action: str,
    timer: tuple[str, UUID, str, str],
    reason: str,
    token: str | None,
    *,
    as_json: bool,
) -> None:
    context, subject, name, slot = timer
    schema = _schema(context)
    target = f"{context} {subject} {name} {slot}".strip()
    noted("timers", settings(), token, action, target, reason)
    try:
        done = act(settings().postgres_url, schema, subject, name, slot)
    except psycopg.Error as error:
        failed("timers", why(error))
    if not done:
        failed("timers", f"no command of a timer {target} failed")
    answer({"timer": target, "done": verb}, f"{target}: {verb}", as_json=as_json)


def _schema(context: str) -> str:
    if context not in CONTEXTS:
        failed("timers", f"no context {context}; there are {', '.join(CONTEXTS)}")
    return CONTEXTS[context].schema


def _values(context: str, one: Failed) -> dict[str, Any]:
    return {"context": context, **one._asdict(), "subject": str(one.subject)}


def _line(one: dict[str, Any]) -> str:
    slot = f" {one['slot']}" if one["slot"] else ""
    what = f"{one['tries']} tries" if one["given"] else "its event cannot be folded"
    return f"{one['context']}  {one['subject']}  {one['name']}{slot}  position {one['position']}  {what}  {one['outcome']}"


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name="timers")
