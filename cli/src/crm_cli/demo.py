"""`crm demo`: the made-up bank goes through the real ingest, as one file of a source of its own."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from chassis.clock import Clock, SystemClock
from chassis.connections.transient import LOST, why
from chassis.privacy.tokens import Caller
from chassis.write.deciding import Refusal
from customer.permissions import ROLES
from customer.settings import CustomerSettings
from sync_ingest.opening import opened
from sync_ingest.reporting import result_of
from sync_ingest.runs.ingest import Ingest
from sync_ingest.runs.results import FeedContent, Progress, RunResult

from crm_cli import demo_bank
from crm_cli.answers import Json, answer
from crm_cli.demo_bank import DemoBank, DemoPlan
from crm_cli.demo_consents import consented
from crm_cli.demo_needs import noted
from crm_cli.demo_profiles import extended
from crm_cli.demo_tags import tagged
from crm_cli.demo_tiers import overridden
from crm_cli.exits import OK, RED, failed
from crm_cli.person import caller_of
from crm_cli.running import customer_settings, ingest_settings

T = TypeVar("T")
FEED_NAME = "demo-bank.jsonl"
SHOWN_PERCENT = 20
DEFAULT_PLAN = DemoPlan()


def take_in(ingest: Ingest, bank: DemoBank) -> RunResult:
    """Ingests the bank; once more changes nothing."""
    content = FeedContent(FEED_NAME, lambda: io.BytesIO(bank.feed))
    return ingest.run(bank.plan.source, [content], format="canonical")


def demo(
    customers: Annotated[int, typer.Option(min=50, max=20_000, help="how many customers the bank has")] = 360,
    days: Annotated[int, typer.Option(min=100, max=3_660, help="how many days of postings")] = 365,
    seed: Annotated[int, typer.Option(help="another seed makes another bank")] = DEFAULT_PLAN.seed,
    tags: Annotated[
        bool, typer.Option("--tags", help="tag some customers of the bank, once they are registered")
    ] = False,
    tiers: Annotated[
        bool,
        typer.Option(
            "--tiers",
            help="override the tier of a customer of the bank, and those of others in a run that two persons start",
        ),
    ] = False,
    needs: Annotated[
        bool, typer.Option("--needs", help="record a need of some customers of the bank")
    ] = False,
    consents: Annotated[
        bool, typer.Option("--consents", help="record a consent of some customers of the bank")
    ] = False,
    profiles: Annotated[
        bool, typer.Option("--profiles", help="extend the profile of some customers of the bank")
    ] = False,
    write: Annotated[Path | None, typer.Option(help="write the feed here instead of taking it in")] = None,
    as_json: Json = False,
) -> None:
    """Makes the demo bank and takes it in (source "demo"), or writes its feed to a file."""
    bank = demo_bank.make(DemoPlan(seed=seed, customers=customers, days=days))
    if write is not None:
        write.write_bytes(bank.feed)
        print(f"{write}: {len(bank.lines)} records of {customers} customers", file=sys.stderr)
        if as_json:
            print(json.dumps({"file": str(write), "records": len(bank.lines), "customers": customers}))
        return
    if tags:
        _tag(bank, as_json=as_json)
        return
    if needs:
        _note(bank, as_json=as_json)
        return
    if consents:
        _consent(bank, as_json=as_json)
        return
    if profiles:
        _extend(bank, as_json=as_json)
        return
    if tiers:
        _override(bank, as_json=as_json)
        return
    try:
        with opened(ingest_settings(), progress=_reporter()) as ingest:
            result = result_of(take_in(ingest, bank))
    except Refusal as refusal:
        failed("demo", f"{refusal.title}: {refusal}")
    except LOST as lost:
        failed("demo", f"the database does not answer: {why(lost)}")
    print(
        json.dumps(result, ensure_ascii=False)
        if as_json
        else f"demo bank: {result['posted']} postings on {result['accounts']} accounts, {result['duplicates']}"
        f" duplicates, {result['quarantined']} quarantined, {result['certificate']}, {result['seconds']} s"
    )
    raise typer.Exit(code=RED if result["certificate"] == "RED" else OK)


def _tag(bank: DemoBank, *, as_json: bool) -> None:
    given = _given(tagged, bank, "change_tags")
    answer({"customers": given}, f"demo bank: {given} customers have tags", as_json=as_json)


def _note(bank: DemoBank, *, as_json: bool) -> None:
    given = _given(noted, bank, "record_need")
    answer({"customers": given}, f"demo bank: {given} customers have a need", as_json=as_json)


def _consent(bank: DemoBank, *, as_json: bool) -> None:
    said = _given(consented, bank, "give_consent")
    answer(
        {"customers": said}, f"demo bank: {said} customers have said what they consent to", as_json=as_json
    )


def _extend(bank: DemoBank, *, as_json: bool) -> None:
    given = _given(extended, bank, "extend_profile")
    answer({"customers": given}, f"demo bank: {given} customers have an extended profile", as_json=as_json)


def _override(bank: DemoBank, *, as_json: bool) -> None:
    done = _given(overridden, bank, "prepare_tier_overrides")
    text = f"demo bank: the tier of {done.alone} customer is overridden, and of {done.in_run} in a run"
    answer({"overridden": done.alone, "in_run": done.in_run}, text, as_json=as_json)


def _given(give: Callable[[CustomerSettings, DemoBank, Caller, Clock], T], bank: DemoBank, route: str) -> T:
    settings = customer_settings()
    caller = caller_of(settings, None, ROLES[route])
    try:
        return give(settings, bank, caller, SystemClock())
    except Refusal as refusal:
        failed("demo", f"{refusal.title}: {refusal}")
    except LOST as lost:
        failed("demo", f"a server does not answer: {why(lost)}")


def _reporter() -> Callable[[Progress], None]:
    shown = -SHOWN_PERCENT

    def show(progress: Progress) -> None:
        nonlocal shown
        percent = 100 * progress.bytes_read // max(progress.bytes_total, 1)
        if percent >= shown + SHOWN_PERCENT:
            shown = percent
            print(f"demo bank: {progress.records} records, {percent} %", file=sys.stderr)

    return show


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("demo")(demo)
