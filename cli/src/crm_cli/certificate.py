"""`crm certificate`: the last reconciliation certificate of a source."""

import json
import sys
from typing import Annotated, Any, NoReturn

import typer
from chassis.transient import LOST
from sync_ingest.opening import opened
from sync_ingest.reporting import certificate_of

from crm_cli.running import ingest_settings


def certificate(
    source: Annotated[str, typer.Option(help="the name of the system that the feed comes from")],
    as_json: Annotated[bool, typer.Option("--json", help="print it as one JSON object")] = False,
) -> None:
    """Shows what the last certificate of a source says."""
    try:
        with opened(ingest_settings()) as running:
            certificate = running.latest_certificate(source)
            found = certificate_of(certificate, running.accounts_named(certificate)) if certificate else None
    except LOST as lost:
        _fail(f"the database does not answer: {lost}")
    if found is None:
        _fail(f"no certificate of {source}")
    print(json.dumps(found, ensure_ascii=False) if as_json else _readable(found))


def _readable(found: dict[str, Any]) -> str:
    lines = [f"{found['status']}  {found['source']}  {found['certified_at']}  {found['certificate_id']}"]
    lines += [
        f"  records {found['records']} = posted {found['posted']} + duplicates {found['duplicates']}"
        f" + quarantined {found['quarantined']}; {found['accounts']} accounts; {found['late']} late"
    ]
    lines += [
        f"  {t['currency']}: {t['opening_minor']} + {t['credits_minor']} - {t['debits_minor']} = {t['closing_minor']}"
        for t in found["totals"]
    ]
    lines += [
        f"  {p['code']}: account {p['account'] or p['account_id']} {p['currency'] or ''} {p['detail'] or ''}"
        f" expected {p['expected']}, found {p['found']}"
        for p in found["problems"]
    ]
    return "\n".join(lines)


def _fail(message: str) -> NoReturn:
    print(f"crm certificate: {message}", file=sys.stderr)
    raise typer.Exit(code=2)


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("certificate")(certificate)
