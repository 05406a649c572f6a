"""`crm ingest`: files of a feed become postings. Progress goes to stderr, the result to stdout."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from chassis.connections.transient import LOST, Transient, why
from chassis.write.deciding import Refusal
from sync_ingest.adapters.registry import FORMATS
from sync_ingest.enduring import enduring
from sync_ingest.opening import opened
from sync_ingest.reporting import result_of
from sync_ingest.runs.results import Progress

from crm_cli.answers import Json
from crm_cli.exits import INTERRUPTED, OK, RED, failed
from crm_cli.feed_files import WHY, FeedFiles, FeedUnreadable, feed_of
from crm_cli.person import Token, acting_of
from crm_cli.running import ingest_settings

PROGRESS_EVERY_SECONDS = 1.0
LEFT_LINES_MAX = 20


def progress_line(progress: Progress) -> str:
    """How far, how fast, and what is left."""
    rate = progress.records / progress.seconds if progress.seconds > 0 else 0.0
    share = progress.bytes_read / progress.bytes_total if progress.bytes_total else 1.0
    left = progress.seconds * (1 - share) / share if share > 0 else 0.0
    return f"{share:6.1%}  {progress.records:>10,} records  {rate:>9,.0f}/s  {left:>6,.0f} s left"


def _reporter() -> Callable[[Progress], None]:
    last = -PROGRESS_EVERY_SECONDS
    terminal = sys.stderr.isatty()

    def report(progress: Progress) -> None:
        nonlocal last
        done = progress.bytes_read >= progress.bytes_total
        if done or progress.seconds - last >= PROGRESS_EVERY_SECONDS:
            last = progress.seconds
            print(
                progress_line(progress),
                end="\r" if terminal and not done else "\n",
                file=sys.stderr,
                flush=True,
            )

    return report


def ingest(
    path: Annotated[Path, typer.Argument(help="a file or a folder of files")],
    source: Annotated[str, typer.Option(help="the name of the system that the feed comes from")],
    format: Annotated[str, typer.Option(help=f"one of {', '.join(FORMATS)}")] = "canonical",
    mapping: Annotated[Path | None, typer.Option(help="the mapping file of a csv feed (TOML)")] = None,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Takes a feed in: keeps its bytes, books what is new, and certifies; 3 is RED.

    What cannot be read is quarantined.
    """
    try:
        files = feed_of(path)
        _say_files(files)
        text = mapping.read_text(encoding="utf-8") if mapping else None
        settings, report = ingest_settings(), _reporter()
        acting = acting_of(settings, token, "take_batch_in")
        result = enduring(
            lambda: opened(settings, progress=report, acting=acting),
            lambda running: running.run(source, files.contents, format=format, mapping=text),
            told=_lost,
        )
    except Refusal as refusal:
        failed("ingest", f"{refusal.title}: {refusal}")
    except LOST as lost:
        failed(
            "ingest",
            f"the database does not answer; what was stored stays, and a later run goes on from there: {why(lost)}",
        )
    except Transient as error:
        failed("ingest", str(error))
    except (FeedUnreadable, OSError, ValueError) as error:
        failed("ingest", str(error))
    except KeyboardInterrupt:
        failed("ingest", "stopped; the same command goes on from what is stored", code=INTERRUPTED)
    else:
        values = result_of(result)
        _show(values | ({"files": files.shown()} if as_json else {}), as_json=as_json)
        if values["reasons"]:
            reasons = ", ".join(values["reasons"])
            print(f"crm ingest: {values['certificate']}: {reasons}", file=sys.stderr)
        raise typer.Exit(code=RED if values["certificate"] == "RED" else OK)


def _say_files(files: FeedFiles) -> None:
    """What of a folder is taken and what is not, on stderr."""
    print(f"crm ingest: {len(files.contents)} files taken, {len(files.left)} left out", file=sys.stderr)
    for name, reason in files.left[:LEFT_LINES_MAX]:
        print(f"crm ingest: left out {name!r}: {WHY[reason]}", file=sys.stderr)
    if len(files.left) > LEFT_LINES_MAX:
        print(f"crm ingest: and {len(files.left) - LEFT_LINES_MAX} more", file=sys.stderr)


def _show(values: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, ensure_ascii=False))
        return
    for name, value in values.items():
        print(f"{name:>14}  {value}")


def _lost(loss: Exception, pause_seconds: float) -> None:
    print(
        f"crm ingest: {type(loss).__name__}; going on from what is stored in {pause_seconds:g} s",
        file=sys.stderr,
        flush=True,
    )


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("ingest")(ingest)
