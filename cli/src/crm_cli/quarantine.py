"""`crm quarantine`: records that could not be posted, their release after repair, or their dismissal."""

import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from sync_ingest.archive.quarantine import Proposal
from sync_ingest.domain.identities import QuarantineId
from sync_ingest.reporting import proposal_of, quarantine_page_of, result_of

from crm_cli.answers import AlwaysJson, Json, answer, answer_list
from crm_cli.exits import WRONG, failed
from crm_cli.ingesting import ingesting
from crm_cli.person import Reason, Token

_NAME: Final = "quarantine"

app = typer.Typer(help="Records that could not be posted.", no_args_is_help=True)

PAGE = 200


class Wanted(StrEnum):
    """Which entries are listed."""

    WAITING = "waiting"
    RELEASED = "released"
    DISMISSED = "dismissed"
    ALL = "all"


@app.command("list")
def list_entries(
    source: Annotated[str | None, typer.Option(help="only of this source")] = None,
    status: Annotated[Wanted, typer.Option(help="which entries")] = Wanted.WAITING,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: Json = False,
) -> None:
    """Lists entries in the order they came: reason and place of each."""
    wanted = None if status is Wanted.ALL else status.value
    entries: list[dict[str, Any]] = []
    with ingesting(_NAME) as running:
        while len(entries) < limit:
            after = entries[-1]["number"] if entries else 0
            page = quarantine_page_of(running, source, wanted, after, min(PAGE, limit - len(entries)))
            entries += page
            if not page:
                break
        waiting = running.archive.quarantine.waiting(source)
    if as_json:
        print(json.dumps({"waiting": waiting, "items": entries}, ensure_ascii=False))
        return
    answer_list(entries, _lines(entries), "no such entry is in quarantine", as_json=False)


def _lines(entries: Sequence[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for entry in entries:
        column = f":{entry['column']}" if entry["column"] else ""
        lines.append(
            f"{entry['id']}  {entry['status']:9}  {entry['reason']:28}  {entry['file']}:{entry['line']}{column}"
        )
        if proposal := entry["proposal"]:
            lines.append(
                f"  repair {proposal['repair']} by {proposal['proposed_by']} waits for a second person"
            )
    return lines


@app.command("show")
def show(
    entry: Annotated[UUID, typer.Argument(help="the entry's id")],
    purpose: Annotated[str, typer.Option(help="what for; it is stored with who saw the record")],
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Shows the record as it came and the name of its file, which may hold personal data. Who saw it and what for is
    stored first."""
    with ingesting(_NAME, token, "release", purpose) as running:
        seen = running.show(QuarantineId(entry), purpose)
    if as_json:
        shown = {"raw": seen.raw.decode(errors="replace"), "file": seen.file, "line": seen.line}
        answer({"quarantine": str(entry), **shown}, "", as_json=True)
    else:
        print(f"line {seen.line} of {seen.file!r}", file=sys.stderr)
        sys.stdout.buffer.write(seen.raw + b"\n")


@app.command("release")
def release(
    entry: Annotated[UUID, typer.Argument(help="the entry's id")],
    repaired: Annotated[
        Path, typer.Argument(help="a file with the repaired record, one canonical JSON line")
    ],
    reason: Reason,
    as_json: AlwaysJson = True,
    token: Token = None,
) -> None:
    """Books the repair in the place of what was quarantined; from the amount that is set on it is proposed (exit 1)."""
    try:
        content = repaired.read_bytes()
    except OSError as error:
        failed(_NAME, str(error))
    with ingesting(_NAME, token, "release", reason) as running:
        result = running.release(QuarantineId(entry), content)
    if isinstance(result, Proposal):
        print(json.dumps(proposal_of(result), ensure_ascii=False))
        print("crm quarantine: a second person must approve it: crm quarantine approve", file=sys.stderr)
        raise typer.Exit(code=WRONG)
    print(json.dumps(result_of(result), ensure_ascii=False))


@app.command("approve")
def approve(
    entry: Annotated[UUID, typer.Argument(help="the entry's id")],
    repair: Annotated[UUID, typer.Argument(help="the repair, as `crm quarantine list` names it")],
    reason: Reason,
    as_json: AlwaysJson = True,
    token: Token = None,
) -> None:
    """Books the repair that another person proposed, and nothing else."""
    with ingesting(_NAME, token, "approve", reason) as running:
        result = running.approve(QuarantineId(entry), repair)
    print(json.dumps(result_of(result), ensure_ascii=False))


@app.command("dismiss")
def dismiss(
    entry: Annotated[UUID, typer.Argument(help="the entry's id")],
    reason: Reason,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Closes the entry without booking anything."""
    with ingesting(_NAME, token, "dismiss", reason) as running:
        running.dismiss(QuarantineId(entry))
    answer({"quarantine": str(entry), "status": "dismissed"}, "dismissed", as_json=as_json)


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name=_NAME)
