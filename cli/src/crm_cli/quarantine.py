"""`crm quarantine`: records that could not be posted, and their release after repair."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import typer
from sync_ingest.domain.identities import QuarantineId
from sync_ingest.ingesting import AlreadyReleased, QuarantineUnknown
from sync_ingest.opening import opened
from sync_ingest.reporting import quarantine_of, result_of

from crm_cli.running import ingest_settings

app = typer.Typer(help="Records that could not be posted.", no_args_is_help=True)

PAGE = 200


@app.command("list")
def list_entries(
    source: Annotated[str | None, typer.Option(help="only of this source")] = None,
    status: Annotated[str, typer.Option(help="waiting, released or all")] = "waiting",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Lists entries in the order they came: reason and place of each."""
    wanted: Literal["waiting", "released"] | None = None
    if status in {"waiting", "released"}:
        wanted = "waiting" if status == "waiting" else "released"
    after, shown = 0, 0
    with opened(ingest_settings()) as running:
        while shown < limit:
            page = running.archive.quarantine_page(source, wanted, after, min(PAGE, limit - shown))
            if not page:
                break
            for number, entry in page:
                values = quarantine_of(number, entry)
                after, shown = number, shown + 1
                where = f"{entry.file}:{entry.line}" + (f":{entry.column}" if entry.column else "")
                print(
                    json.dumps(values, ensure_ascii=False)
                    if as_json
                    else f"{entry.id}  {entry.status:8}  {entry.reason:28}  {where}"
                )


@app.command("release")
def release(
    entry: Annotated[UUID, typer.Argument(help="the entry's id")],
    repaired: Annotated[
        Path, typer.Argument(help="a file with the repaired record, one canonical JSON line")
    ],
) -> None:
    """Books the repaired record in the place of the quarantined one."""
    with opened(ingest_settings()) as running:
        try:
            result = running.release(QuarantineId(entry), repaired.read_bytes())
        except QuarantineUnknown:
            _fail(f"no entry {entry}")
        except AlreadyReleased:
            _fail(f"{entry} was released before")
        else:
            print(json.dumps(result_of(result), ensure_ascii=False))
            raise typer.Exit(code=0 if result.findings.quarantined == 0 else 1)


def _fail(message: str) -> None:
    print(f"crm quarantine: {message}", file=sys.stderr)
    raise typer.Exit(code=2)


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name="quarantine")
