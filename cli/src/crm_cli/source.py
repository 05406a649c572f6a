"""`crm source`: the systems that send feeds, and their schedules."""

import re
from typing import Annotated, Final

import typer
from chassis.connections.transient import LOST, Transient, why
from chassis.write.deciding import Refusal
from sync_ingest.opening import opened

from crm_cli.answers import Json, answer
from crm_cli.exits import failed
from crm_cli.person import Token, acting_of
from crm_cli.running import ingest_settings

app = typer.Typer(help="The systems that send feeds.", no_args_is_help=True)

_UNITS: Final = {"m": 60, "h": 60 * 60, "d": 24 * 60 * 60}
_EVERY: Final = re.compile(r"([1-9][0-9]{0,4})([mhd])", re.ASCII)
EVERY_SECONDS_MAX: Final = 366 * 24 * 60 * 60


@app.callback()
def _source() -> None:
    """The systems that send feeds."""


@app.command("schedule")
def schedule(
    source: Annotated[str, typer.Argument(help="the name of the system")],
    every: Annotated[str, typer.Option(help="how often it sends: 15m, 6h, 1d")],
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Says how often a source sends; when it is silent for longer, what rests on it is stale."""
    match = _EVERY.fullmatch(every)
    every_seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < every_seconds <= EVERY_SECONDS_MAX:
        failed("source", "--every is a number of minutes, hours or days up to a year: 15m, 6h, 1d")
    try:
        settings = ingest_settings()
        with opened(settings, acting=acting_of(settings, token, "schedule")) as running:
            running.schedule(source, every_seconds)
    except Refusal as refusal:
        failed("source", f"{refusal.title}: {refusal}")
    except LOST as lost:
        failed("source", f"the database does not answer: {why(lost)}")
    except Transient as error:
        failed("source", str(error))
    answer(
        {"source": source, "every_seconds": every_seconds}, f"{source} sends every {every}", as_json=as_json
    )


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name="source")
