"""`crm`: every command of the project under one name."""

import typer

from crm_cli import (
    certificate,
    demo,
    ingest,
    panorama,
    parked,
    quarantine,
    rebuild,
    replay,
    status,
    token,
    up,
    verify,
)

COMMANDS = (
    up,
    demo,
    ingest,
    certificate,
    quarantine,
    panorama,
    rebuild,
    parked,
    status,
    verify,
    replay,
    token,
)
"""Each adds itself with `register(app)`."""

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


for command in COMMANDS:
    command.register(app)


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
