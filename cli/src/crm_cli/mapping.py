"""`crm mapping`: tries a mapping on a file, or proposes one. Touches no server and books nothing."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from chassis.money import decimal_text
from chassis.write.deciding import Refusal
from customer.masking import masked_account
from sync_ingest.adapters.delimited import DelimitedAdapter
from sync_ingest.adapters.guessing import guess as guessed
from sync_ingest.adapters.mapping import MappingFile
from sync_ingest.adapters.port import FeedFile, FileUnreadable
from sync_ingest.adapters.trying import SHOWN_MAX, Trial, tried
from sync_ingest.domain.records import ControlRecord, Posting, Unreadable

from crm_cli.answers import Json
from crm_cli.exits import WRONG, failed

File = Annotated[Path, typer.Argument(help="one file of the feed")]


def try_(
    mapping: Annotated[Path, typer.Argument(help="the mapping file (TOML)")],
    file: File,
    as_json: Json = False,
) -> None:
    """Shows the first rows as they would be read, and each refusal with its reason. Exit code 1 where one is refused."""
    try:
        adapter = DelimitedAdapter(MappingFile.from_toml(mapping.read_text(encoding="utf-8")))
        trial = tried(adapter, _feed_file(file))
    except Refusal as refusal:
        failed("mapping try", f"{refusal.title}: {refusal}")
    except (OSError, ValueError) as error:
        failed("mapping try", str(error))
    else:
        print(json.dumps(_values(trial), ensure_ascii=False) if as_json else "\n".join(_lines(trial)))
        if trial.refused:
            raise typer.Exit(code=WRONG)


def guess(file: File, as_json: Json = False) -> None:
    """Proposes a mapping for a file on stdout, with comments on what a person has to check."""
    try:
        proposal = guessed(_feed_file(file))
    except FileUnreadable as problem:
        typer.echo(f"crm mapping guess: {problem.unreadable.reason}: {problem.unreadable.detail}", err=True)
        raise typer.Exit(code=WRONG) from None
    except OSError as error:
        failed("mapping guess", str(error))
    else:
        print(json.dumps({"mapping": proposal}, ensure_ascii=False) if as_json else proposal.rstrip("\n"))


def _feed_file(path: Path) -> FeedFile:
    return FeedFile(path.name, path.stat().st_size, lambda: path.open("rb"))


def _values(trial: Trial) -> dict[str, Any]:
    return {
        "records": trial.posted + trial.refused,
        "readable": trial.posted,
        "refused": trial.refused,
        "credits_minor": dict(trial.credits_minor),
        "debits_minor": dict(trial.debits_minor),
        "rows": [_row(line, posting) for line, posting in trial.rows],
        "refusals": [_refusal(line, unreadable) for line, unreadable in trial.refusals],
        "controls": [_control(line, control) for line, control in trial.controls],
    }


def _row(line: int, posting: Posting) -> dict[str, Any]:
    after = posting.balance_after_minor
    return {
        "line": line,
        "booked_on": posting.booked_on.isoformat(),
        "value_on": posting.value_on.isoformat() if posting.value_on else None,
        "amount_minor": posting.amount_minor,
        "amount": decimal_text(posting.amount_minor, posting.currency),
        "currency": posting.currency,
        "balance_after": None if after is None else decimal_text(after, posting.currency),
        "account": masked_account(posting.account),
    }


def _refusal(line: int, unreadable: Unreadable) -> dict[str, Any]:
    return {
        "line": line,
        "column": unreadable.column,
        "reason": unreadable.reason,
        "detail": unreadable.detail,
    }


def _control(line: int, control: ControlRecord) -> dict[str, Any]:
    names = ("records", "credits_minor", "debits_minor", "opening_minor", "closing_minor", "currency")
    return {"line": line} | {name: getattr(control, name) for name in names}


def _lines(trial: Trial) -> list[str]:
    rows = [_row(line, posting) for line, posting in trial.rows]
    lines = [
        f"line {row['line']:>6}  {row['booked_on']}  {row['amount']:>18} {row['currency']}"
        f"  after {row['balance_after'] or '-':>18}  {row['account']}"
        for row in rows
    ]
    if trial.posted > SHOWN_MAX:
        lines.append(f"... and {trial.posted - SHOWN_MAX} rows more")
    for line, control in trial.controls:
        stated = {name: value for name, value in _control(line, control).items() if value is not None}
        lines.append(f"totals of the file: {json.dumps(stated, ensure_ascii=False)}")
    for line, unreadable in trial.refusals:
        column = f", column {unreadable.column}" if unreadable.column else ""
        lines.append(f"REFUSED line {line}{column}: {unreadable.reason}: {unreadable.detail}")
    if trial.refused > SHOWN_MAX:
        lines.append(f"... and {trial.refused - SHOWN_MAX} refusals more")
    for currency in sorted({*trial.credits_minor, *trial.debits_minor}):
        credit = decimal_text(trial.credits_minor[currency], currency)
        debit = decimal_text(trial.debits_minor[currency], currency)
        lines.append(f"{currency}: credits {credit}, debits {debit}")
    lines.append(f"{trial.posted} rows would be read, {trial.refused} refused; nothing is booked")
    return lines


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    commands = typer.Typer(help="Tries a mapping of a delimited file, or proposes one.", no_args_is_help=True)
    commands.command("try")(try_)
    commands.command("guess")(guess)
    app.add_typer(commands, name="mapping")
