"""`crm republish`: a relay publishes a context's events from the store again."""

import sys
from typing import Annotated

import psycopg
import typer
from chassis.relay.operating import republish as set_back

from crm_cli.contexts import CONTEXTS, settings


def republish(
    context: Annotated[str, typer.Option(help=f"one of {', '.join(CONTEXTS)}")],
    first: Annotated[int, typer.Option("--from", min=1, help="the first position")] = 1,
) -> None:
    """Publishes a context's events again, in order, from a position on; needed where its topic lost records."""
    if context not in CONTEXTS:
        print(f"crm republish: no context {context}; there are {', '.join(CONTEXTS)}", file=sys.stderr)
        raise typer.Exit(code=2)
    try:
        reached = set_back(settings().postgres_url, CONTEXTS[context].schema, context, first)
    except psycopg.Error as error:
        print(f"crm republish: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(code=1) from None
    print(
        f"the relay of {context} publishes positions {first} to {reached} again; `crm status` says how far it is"
    )


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("republish")(republish)
