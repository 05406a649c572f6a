"""The exit codes of commands. docs/commands.md has the same table."""

import sys
from typing import Final, NoReturn

import typer

OK: Final = 0
WRONG: Final = 1
"""The command did its work and found something wrong, or something still waits."""
USAGE: Final = 2
"""It could not do its work: how it was called, how it is configured, or a server that does not answer."""
RED: Final = 3
"""Figures contradict each other; GREEN and AMBER are 0."""
INTERRUPTED: Final = 130


def failed(command: str, message: str, code: int = USAGE) -> NoReturn:
    """Says on stderr, in one line, why a command could not do its work, and ends it. Without a name of a command it is `crm`."""
    print(f"{f'crm {command}'.rstrip()}: {' '.join(message.split())}", file=sys.stderr)
    raise typer.Exit(code=code)
