"""`crm certificate`: the last reconciliation certificate of a source, and contradictions that a person takes as known."""

import json
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from sync_ingest.reporting import certificate_of, masked_number
from sync_ingest.runs.ingest import Ingest
from sync_ingest.runs.results import Certificate

from crm_cli.answers import AlwaysJson, Json
from crm_cli.exits import OK, RED, failed
from crm_cli.ingesting import ingesting
from crm_cli.person import Reason, Token

_NAME: Final = "certificate"

app = typer.Typer(invoke_without_command=True)


@app.callback()
def certificate(
    context: typer.Context,
    source: Annotated[
        str | None, typer.Option(help="the name of the system that the feed comes from")
    ] = None,
    as_json: Json = False,
    accounts: Annotated[bool, typer.Option("--accounts", help="account numbers in clear")] = False,
) -> None:
    """Shows the last certificate of a source, or acknowledges a contradiction; 3 is RED."""
    if context.invoked_subcommand is not None:
        return
    if source is None:
        failed(_NAME, "which source? --source NAME")
    with ingesting(_NAME) as running:
        latest = running.latest_certificate(source)
        found = _found(running, latest, in_clear=accounts) if latest else None
    if found is None:
        failed(_NAME, f"no certificate of {source}")
    print(json.dumps(found, ensure_ascii=False) if as_json else _readable(found))
    raise typer.Exit(code=RED if found["status"] == "RED" else OK)


@app.command("acknowledge")
def acknowledge(
    certificate: Annotated[UUID, typer.Argument(help="the id of a certificate that is RED")],
    reason: Reason,
    only: Annotated[
        list[UUID] | None, typer.Option(help="one contradiction, instead of all of the certificate")
    ] = None,
    as_json: AlwaysJson = True,
    token: Token = None,
) -> None:
    """Contradictions that a person takes as known count no longer; prints the certificate of now."""
    with ingesting(_NAME, token, "acknowledge", reason) as running:
        latest = running.acknowledge(certificate, only or ())
        found = _found(running, latest, in_clear=False)
    print(json.dumps(found, ensure_ascii=False))
    raise typer.Exit(code=RED if found["status"] == "RED" else OK)


def _found(running: Ingest, certificate: Certificate, *, in_clear: bool) -> dict[str, Any]:
    numbers = running.accounts_named(certificate)
    shown = numbers if in_clear else {account: masked_number(number) for account, number in numbers.items()}
    return certificate_of(certificate, shown)


def _readable(found: dict[str, Any]) -> str:
    lines = [f"{found['status']}  {found['source']}  {found['certified_at']}  {found['certificate_id']}"]
    if found["reasons"]:
        lines += [f"  {', '.join(found['reasons'])}"]
    lines += [
        f"  records {found['records']} = posted {found['posted']} + duplicates {found['duplicates']}"
        f" + quarantined {found['quarantined']}; {found['accounts']} accounts; {found['late']} late"
    ]
    lines += [
        f"  {t['currency']}: {t['opening_minor']} + {t['credits_minor']} - {t['debits_minor']} = {t['closing_minor']}"
        for t in found["totals"]
    ]
    lines += [
        f"  {'new ' if p['new'] else ''}{p['code']}:{_account_of(p)} {p['detail'] or ''}"
        f" expected {p['expected']}, found {p['found']}"
        for p in found["problems"]
    ]
    if found["repeats_older"]:
        lines += [f"  {found['repeats_older']} repeat older master data"]
        lines += [
            f"  older master data: intake {p['intake']}, line {p['line']}" for p in found["repeats_older_at"]
        ]
    if found["closed_early"]:
        lines += [f"  {found['closed_early']} accounts closed before they are opened"]
        lines += [
            f"  closed before it is opened: intake {p['intake']}, line {p['line']}"
            for p in found["closed_early_at"]
        ]
    return "\n".join(lines)


def _account_of(problem: dict[str, Any]) -> str:
    account = problem["account"] or problem["account_id"]
    return f" account {account} {problem['currency'] or ''}" if account else ""


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name=_NAME)
