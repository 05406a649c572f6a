"""`crm quarantine`: records that could not be posted, and their release after repair."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn
from uuid import UUID

import typer
from chassis.deciding import Refusal
from chassis.transient import LOST
from sync_ingest.domain.identities import QuarantineId
from sync_ingest.ingesting import Ingest
from sync_ingest.opening import opened
from sync_ingest.reporting import quarantine_of, result_of

from crm_cli.running import ingest_settings

app = typer.Typer(help="Records that could not be posted.", no_args_is_help=True)

PAGE = 200


class Wanted(StrEnum):
    """Which entries are listed."""

    WAITING = "waiting"
    RELEASED = "released"
    ALL = "all"


@app.command("list")
def list_entries(
    source: Annotated[str | None, typer.Option(help="only of this source")] = None,
    status: Annotated[Wanted, typer.Option(help="which entries")] = Wanted.WAITING,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="print them as one JSON object")] = False,
) -> None:
    """Lists entries in the order they came: reason and place of each."""
    wanted = None if status is Wanted.ALL else status.value
    entries: list[dict[str, Any]] = []
    with _running() as running:
        while len(entries) < limit:
            after = entries[-1]["number"] if entries else 0
            page = running.archive.quarantine_page(source, wanted, after, min(PAGE, limit - len(entries)))
            entries += [quarantine_of(number, entry) for number, entry in page]
            if not page:
                break
        waiting = running.archive.waiting(source)
    if as_json:
        print(json.dumps({"waiting": waiting, "items": entries}, ensure_ascii=False))
        return
    for entry in entries:
        column = f":{entry['column']}" if entry["column"] else ""
        print(
            f"{entry['id']}  {entry['status']:8}  {entry['reason']:28}  {entry['file']}:{entry['line']}{column}"
        )


@app.command("show")
def show(entry: Annotated[UUID, typer.Argument(help="the entry's id")]) -> None:
    """Shows the record as it came, which may hold personal data, so that it can be repaired."""
    with _running() as running:
        found = running.archive.quarantined([QuarantineId(entry)]).get(QuarantineId(entry))
        if found is None:
            _fail(f"no entry {entry}")
        raw = running.raw_of(found)
    sys.stdout.buffer.write(raw + b"\n")


@app.command("release")
def release(
    entry: Annotated[UUID, typer.Argument(help="the entry's id")],
    repaired: Annotated[
        Path, typer.Argument(help="a file with the repaired record, one canonical JSON line")
    ],
) -> None:
    """Books the repaired record in the place of the quarantined one; 1 where the repair is still broken."""
    try:
        content = repaired.read_bytes()
    except OSError as error:
        _fail(str(error))
    with _running() as running:
        result = running.release(QuarantineId(entry), content)
    print(json.dumps(result_of(result), ensure_ascii=False))
    raise typer.Exit(code=0 if result.findings.quarantined == 0 else 1)


@contextmanager
def _running() -> Iterator[Ingest]:
    try:
        with opened(ingest_settings()) as running:
            yield running
    except Refusal as refusal:
        _fail(f"{refusal.title}: {refusal}")
    except LOST as lost:
        _fail(f"the database does not answer: {lost}")


def _fail(message: str) -> NoReturn:
    print(f"crm quarantine: {message}", file=sys.stderr)
    raise typer.Exit(code=2)


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name="quarantine")
