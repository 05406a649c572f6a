"""`crm unpublishable`: subjects that a relay holds, because an event of theirs cannot be published."""

import json
import sys
from typing import Annotated, Final, NoReturn
from uuid import UUID

import psycopg
import typer
from chassis.relay.operating import held_of, try_again

from crm_cli.contexts import CONTEXTS, settings

_app: Final = typer.Typer(
    no_args_is_help=True, help="Subjects that a relay holds, because an event of theirs cannot be published."
)
Named = Annotated[str, typer.Option("--context", help=f"one of {', '.join(CONTEXTS)}")]


@_app.command("list")
def listed(
    context: Named, as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False
) -> None:
    """Shows which subject is held, at which event, and why."""
    try:
        found = held_of(settings().postgres_url, _schema(context))
    except psycopg.Error as error:
        _fail(" ".join(str(error).split()), 1)
    if as_json:
        print(json.dumps({"held": [{**one._asdict(), "subject": str(one.subject)} for one in found]}))
        return
    for one in found:
        wanted = "  (to be tried again)" if one.again else ""
        print(
            f"{one.subject}  position {one.position}  {one.name} version {one.version}: {one.reason}{wanted}"
        )


@_app.command("retry")
def retried(
    context: Named, subject: Annotated[UUID | None, typer.Option(help="one subject; all without it")] = None
) -> None:
    """Has what waits published again, after what was at fault was repaired: the words in the code, or a limit."""
    try:
        count = try_again(settings().postgres_url, _schema(context), subject)
    except psycopg.Error as error:
        _fail(" ".join(str(error).split()), 1)
    print(f"{count} subjects are tried again")


def _schema(context: str) -> str:
    if context not in CONTEXTS:
        _fail(f"no context {context}; there are {', '.join(CONTEXTS)}", 2)
    return CONTEXTS[context].schema


def _fail(message: str, code: int) -> NoReturn:
    print(f"crm unpublishable: {message}", file=sys.stderr)
    raise typer.Exit(code=code)


def register(app: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    app.add_typer(_app, name="unpublishable")
