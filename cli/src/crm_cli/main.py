"""`crm`: every command of the project under one name. Results go to stdout, everything else to stderr."""

import sys
from collections.abc import Sequence
from importlib import import_module

import structlog
import typer
from chassis import garbage

COMMANDS = (
    "up",
    "migrate",
    "demo",
    "ingest",
    "mapping",
    "certificate",
    "quarantine",
    "source",
    "panorama",
    "rebuild",
    "dead_letters",
    "parked",
    "status",
    "verify",
    "replay",
    "republish",
    "unpublishable",
    "token",
)
"""Each is a module of that name, which adds itself with `register(app)`."""
INTERRUPTED = 130


def application(commands: Sequence[str] = COMMANDS) -> typer.Typer:
    """The command line with those commands; what is not asked for is not loaded."""
    app = typer.Typer(
        name="crm",
        help="The bank's CRM: what runs, what came in, what it shows, and whether it holds.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )

    @app.callback()
    def _crm() -> None:
        """The bank's CRM."""
        structlog.configure(logger_factory=structlog.WriteLoggerFactory(sys.stderr))
        garbage.look_less_often()

    for command in commands:
        import_module(f"crm_cli.{command}").register(app)
    return app


def main() -> None:
    """The entry point."""
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        application([asked] if asked in COMMANDS else COMMANDS)()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
