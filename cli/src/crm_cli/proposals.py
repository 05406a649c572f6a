"""`crm proposals`: what was proposed and waits for another person."""

from typing import Any

import typer
from chassis.clock import SystemClock
from chassis.connections.transient import TRANSIENT, why
from chassis.proposals.reading import Waiting, waiting_proposals
from chassis.write.store import Recorder

from crm_cli.answers import Json, answer_list
from crm_cli.contexts import CONTEXTS, Context, reading_settings
from crm_cli.exits import failed

app = typer.Typer(help="What was proposed and waits for another person.", no_args_is_help=True)


@app.command("list")
def list_proposals(as_json: Json = False) -> None:
    """Lists the proposals on which nobody has decided, also those whose time is over. What is proposed is sealed."""
    now = SystemClock().now()
    try:
        found = [(name, one) for name, context in CONTEXTS.items() for one in _waiting(context)]
    except TRANSIENT as error:
        failed("proposals", why(error))
    items = [{"context": name, **_values(one), "expired": one.expires_at <= now} for name, one in found]
    answer_list(items, [_line(one) for one in items], "no proposal waits", as_json=as_json)


def _waiting(context: Context) -> list[Waiting]:
    recorder = Recorder(reading_settings().postgres_url, context.schema, as_login=True)
    try:
        return list(waiting_proposals(recorder, context.catalogue()))
    finally:
        recorder.close()


def _values(one: Waiting) -> dict[str, Any]:
    return {
        **one._asdict(),
        "proposal_id": str(one.proposal_id),
        "subject": str(one.subject),
        "expires_at": one.expires_at.isoformat(),
    }


def _line(one: dict[str, Any]) -> str:
    until = "expired" if one["expired"] else f"until {one['expires_at']}"
    return (
        f"{one['proposal_id']}  {one['context']}  {one['kind']} {one['subject']}  by {one['proposed_by']}"
        f"  {until}  {one['reason']}"
    )


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name="proposals")
