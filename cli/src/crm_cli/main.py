"""`crm`: every command of the project under one name. Results go to stdout, everything else to stderr.

The names and summaries stand in a table, so that help and completion load no command. A command is loaded when it is
called.
"""

import codecs
import io
import sys
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

from crm_cli.exits import INTERRUPTED

COMMANDS: Final = {
    "up": "Starts servers and all roles, and keeps them up until Ctrl-C.",
    "migrate": "Runs the schema changes that are still to come, as the owner.",
    "demo": 'Makes the demo bank and takes it in (source "demo"), or writes its feed to a file.',
    "ingest": "Takes a feed in: keeps its bytes, books what is new, and certifies; 3 is RED.",
    "mapping": "Tries a mapping of a delimited file, or proposes one.",
    "certificate": "Shows the last certificate of a source, or acknowledges a contradiction; 3 is RED.",
    "quarantine": "Records that could not be posted.",
    "source": "The systems that send feeds.",
    "panorama": "Shows the asset panorama of a customer, personal values masked.",
    "erase": "Proposes to destroy the keys of a customer's personal values, for good; another person approves it.",
    "hold": "Forbids every erasure of a customer, before a day or until the hold is lifted.",
    "lift": "Proposes to lift a legal hold; another person approves it.",
    "approve": "Carries out what another person proposed; 1 while keys are still there that it destroys.",
    "unlinked": "Lists the accounts that wait for their customer.",
    "rebuild": "Rebuilds a view beside the live one and switches.",
    "dead-letters": "Records that consumers could not process.",
    "parked": "Subjects that wait for a repair.",
    "sagas": "Sagas that have not ended, and those that are stuck.",
    "timers": "Timers that failed.",
    "proposals": "What was proposed and waits for another person.",
    "bulk": "Bulk runs that have not finished.",
    "status": "Shows lag, outbox, dead letters, parked subjects, each source's counts; 1 where a server does not answer.",
    "verify": "Checks store against topics against views; 1 unless all of it holds.",
    "replay": "Writes an event store to stdout, one JSON object a line, personal values masked.",
    "republish": "Publishes a context's events again, in order, from a position on.",
    "unpublishable": "Subjects that a relay holds, because an event of theirs cannot be published.",
    "keys": "The keys that wrap the keys of personal values.",
    "token": "Prints a token for HTTP; only where CRM_ENVIRONMENT is development.",
}
"""Each is a module of that name (`_` for `-`), which adds itself with `register(app)` under the same summary."""


def loaded(name: str) -> TyperCommand | TyperGroup:
    """The command itself; its module is imported for it."""
    app = typer.Typer(rich_markup_mode=None)
    app.callback()(lambda: None)
    import_module(f"crm_cli.{name.replace('-', '_')}").register(app)
    group = typer.main.get_group(app)
    command = group.commands[name]
    if not isinstance(command, TyperCommand | TyperGroup):
        raise TypeError(f"crm {name} is no command of typer")
    return command


class Lazily(TyperGroup):
    """Shows a command by its summary, and loads it when it is called."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, summary in COMMANDS.items():
            self.commands[name] = TyperCommand(name=name, help=summary, short_help=summary)

    @override
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None or command is None else loaded(name), rest


app: Final = typer.Typer(
    name="crm",
    cls=Lazily,
    help="The bank's CRM: what runs, what came in, what it shows, and whether it holds.",
    epilog="Exit codes: 0 done, 1 something is wrong, 2 usage or configuration, 3 RED, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
"""Without colours: a terminal, a file and NO_COLOR then get the same."""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"crm {version('crm-cli')}")
        raise typer.Exit


@app.callback()
def _crm(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The bank's CRM: what runs, what came in, what it shows, and whether it holds."""
    import structlog
    from chassis import heap

    structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
    heap.for_batches()


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What an output cannot hold, as JSON writes it: a name of a file that is not UTF-8, a rare character on an old
    terminal."""
    import json

    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def main() -> None:
    """The entry point."""
    codecs.register_error("crm", _escaped)
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="crm")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
