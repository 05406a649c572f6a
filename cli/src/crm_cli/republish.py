"""`crm republish`: a relay publishes a context's events from the store again."""

from typing import Annotated

import psycopg
import typer
from chassis.connections.transient import why
from chassis.relay.operating import republish as set_back

from crm_cli.answers import Json, answer
from crm_cli.contexts import CONTEXTS, settings
from crm_cli.exits import failed
from crm_cli.operations import noted
from crm_cli.person import Token


def republish(
    context: Annotated[str, typer.Option(help=f"one of {', '.join(CONTEXTS)}")],
    first: Annotated[int, typer.Option("--from", min=1, help="the first position")] = 1,
    as_json: Json = False,
    reason: Annotated[str | None, typer.Option(help="why; it is stored with the event")] = None,
    token: Token = None,
) -> None:
    """Publishes a context's events again, in order, from a position on.

    It is needed where the topic lost records.
    """
    if context not in CONTEXTS:
        failed("republish", f"no context {context}; there are {', '.join(CONTEXTS)}")
    noted("republish", settings(), token, "republished", f"{context} from {first}", reason)
    try:
        reached = set_back(settings().postgres_url, CONTEXTS[context].schema, context, first)
    except psycopg.Error as error:
        failed("republish", why(error))
    answer(
        {"context": context, "first": first, "last": reached},
        f"the relay of {context} publishes positions {first} to {reached} again; `crm status` says how far it is",
        as_json=as_json,
    )


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("republish")(republish)
