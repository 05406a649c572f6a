"""`crm unpublishable`: subjects that a relay holds, because an event of theirs cannot be published."""

from typing import Annotated, Final
from uuid import UUID

import psycopg
import typer
from chassis.connections.transient import why
from chassis.relay.operating import held_of, try_again

from crm_cli.answers import Json, answer
from crm_cli.contexts import CONTEXTS, settings
from crm_cli.exits import failed
from crm_cli.operations import noted
from crm_cli.person import Token

_app: Final = typer.Typer(
    no_args_is_help=True, help="Subjects that a relay holds, because an event of theirs cannot be published."
)
Named = Annotated[str, typer.Option("--context", help=f"one of {', '.join(CONTEXTS)}")]


@_app.command("list")
def listed(context: Named, as_json: Json = False) -> None:
    """Shows which subject is held, at which event, and why."""
    try:
        found = held_of(settings().postgres_url, _schema(context))
    except psycopg.Error as error:
        failed("unpublishable", why(error))
    lines = [
        f"{one.subject}  position {one.position}  {one.name} version {one.version}: {one.reason}"
        f"{'  (to be tried again)' if one.again else ''}"
        for one in found
    ]
    answer(
        {"held": [{**one._asdict(), "subject": str(one.subject)} for one in found]},
        "\n".join(lines) or "no subject is held",
        as_json=as_json,
    )


@_app.command("retry")
def retried(
    context: Named,
    subject: Annotated[UUID | None, typer.Option(help="one subject; all without it")] = None,
    as_json: Json = False,
    reason: Annotated[str | None, typer.Option(help="why; it is stored with the event")] = None,
    token: Token = None,
) -> None:
    """Has what waits published again, after what was at fault was repaired: the words in the code, or a limit."""
    schema = _schema(context)
    noted(
        "unpublishable", settings(), token, "unpublishable-retried", f"{context} {subject or 'all'}", reason
    )
    try:
        count = try_again(settings().postgres_url, schema, subject)
    except psycopg.Error as error:
        failed("unpublishable", why(error))
    answer({"subjects": count}, f"{count} subjects are tried again", as_json=as_json)


def _schema(context: str) -> str:
    if context not in CONTEXTS:
        failed("unpublishable", f"no context {context}; there are {', '.join(CONTEXTS)}")
    return CONTEXTS[context].schema


def register(app: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    app.add_typer(_app, name="unpublishable")
