"""`crm rebuild`: folds a view again from the whole log, compares it with the live one, and makes it live."""

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Annotated, Any, Final

import typer
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import why
from chassis.messaging.broker import Kafka
from chassis.messaging.transport import KafkaPublisher, TopicDiffers
from chassis.opening import opened_keys
from chassis.read.blind import BlindIndex
from chassis.read.derived_rebuilding import rebuild_derived
from chassis.read.deriving import DerivedView, InputReplaced
from chassis.read.generations import Generations, Kept
from chassis.read.mongo import Mongo
from chassis.read.projecting import View
from chassis.read.rebuilding import Differs, Incomplete, Interrupted, Progress, Rebuilt, rebuild

from crm_cli.answers import Json
from crm_cli.contexts import KEPT, SERVICE_OF
from crm_cli.exits import INTERRUPTED, WRONG, failed
from crm_cli.operations import noted
from crm_cli.person import Token
from crm_cli.running import settings_of

PROGRESS_EVERY_SECONDS: Final = 1.0


def rebuild_view(
    view: Annotated[str, typer.Argument(help=", ".join(view.name for view in KEPT), metavar="VIEW")],
    as_json: Json = False,
    accept_differences: Annotated[
        bool, typer.Option("--accept-differences", help="show the new one though it is not what is live")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="why; it is stored with the event")] = None,
    token: Token = None,
) -> None:
    """Rebuilds a view beside the live one and switches.

    Progress goes to stderr; interrupted, it can be resumed.
    """
    known = {each.name: each for each in KEPT}
    if view not in known:
        failed("rebuild", f"no view {view}; there are {', '.join(known)}")
    settings = settings_of(Settings)
    noted("rebuild", settings, token, "view-rebuilt", view, reason)
    try:
        result = asyncio.run(_rebuilt(known[view], settings, accept_differences=accept_differences))
    except Interrupted:
        print("crm rebuild: interrupted; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(code=INTERRUPTED) from None
    except Incomplete as incomplete:
        print(f"crm rebuild: not shown: {incomplete}", file=sys.stderr)
        raise typer.Exit(code=WRONG) from None
    except Differs as differs:
        print(f"crm rebuild: not shown: {differs}", file=sys.stderr)
        for name in differs.comparison.named:
            print(f"    {name}", file=sys.stderr)
        print("  find out which of the two is right; --accept-differences shows the new one", file=sys.stderr)
        raise typer.Exit(code=WRONG) from None
    except TopicDiffers as error:
        failed("rebuild", str(error))
    except InputReplaced as error:
        failed(
            "rebuild",
            f"{error}; the role that derives builds anew what is derived from an input that is switched",
        )
    except ConnectionError as error:
        failed("rebuild", f"a server does not answer: {why(error)}")
    print(json.dumps(result_of(result)) if as_json else _readable(result))


async def _rebuilt(view: Kept, settings: Settings, *, accept_differences: bool) -> Rebuilt:
    clock, stopping = SystemClock(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
        stack.push_async_callback(mongo.close)
        if isinstance(view, DerivedView):
            blind = None
            if view.digests:
                blind = BlindIndex(await stack.enter_async_context(opened_keys(settings, clock)))
            return await rebuild_derived(
                Generations(mongo, view, SERVICE_OF[view.name], clock),
                broker=Kafka(settings.kafka_url),
                clock=clock,
                today=partial(settings.business_date, clock),
                blind=blind,
                progress=_Reporter(),
                stopping=stopping,
                accept_differences=accept_differences,
            )
        if not isinstance(view, View):
            raise TypeError(view)
        publisher = KafkaPublisher(settings.kafka_url, client_id="crm-rebuild")
        stack.push_async_callback(publisher.close)
        return await rebuild(
            Generations(mongo, view, SERVICE_OF[view.name], clock),
            broker=Kafka(settings.kafka_url),
            publisher=publisher,
            clock=clock,
            progress=_Reporter(),
            stopping=stopping,
            accept_differences=accept_differences,
        )


class _Reporter:
    """One line a second on stderr, and one for each step."""

    def __init__(self) -> None:
        self._last: tuple[str, float] = ("", -PROGRESS_EVERY_SECONDS)

    def __call__(self, progress: Progress) -> None:
        step, at = self._last
        if progress.step == step and progress.seconds - at < PROGRESS_EVERY_SECONDS:
            return
        if not step and progress.resumed:
            print(f"going on with generation {progress.generation.number}", file=sys.stderr)
        self._last = (progress.step, progress.seconds)
        with suppress(BrokenPipeError):
            print(progress_line(progress), file=sys.stderr, flush=True)


def progress_line(progress: Progress) -> str:
    """Share, records, rate, and what is left."""
    total = progress.applied + progress.left
    share = progress.applied / total if total else 1.0
    left = progress.seconds_left
    rest = "" if left is None or not progress.left else f"  {left:>6,.0f} s left"
    return (
        f"{progress.step:11}  {share:6.1%}  {progress.applied:>10,} records  {progress.per_second:>9,.0f}/s"
        f"  {progress.left:>10,} left{rest}"
    )


def result_of(result: Rebuilt) -> dict[str, Any]:
    """The outcome as JSON has it."""
    found = result.comparison
    return {
        "view": result.generation.view,
        "generation": result.generation.number,
        "replaced": None if result.replaced is None else result.replaced.number,
        "hash": result.hash,
        "equal": None if found is None else found.equal,
        "compared": None if found is None else found.documents,
        "different": None if found is None else found.differences,
        "unsettled": None if found is None else found.unsettled,
        "named": [] if found is None else found.named,
        "missing": result.missing,
        "records": result.records,
        "seconds": round(result.seconds, 3),
        "resumed": result.resumed,
    }


def _readable(result: Rebuilt) -> str:
    view, number, found = result.generation.view, result.generation.number, result.comparison
    lines = [f"{view}: generation {number} is live; {result.records:,} records in {result.seconds:,.1f} s"]
    if found is None:
        lines.append("  nothing comparable was live before")
    elif found.equal:
        lines.append(
            f"  equal to generation {result.replaced.number if result.replaced else '-'}: {found.documents:,} documents"
        )
    else:
        lines.append(
            f"  {found.differences:,} documents differed, {found.unsettled:,} were never at the same event;"
            " what is live now is the fold of the log"
        )
        lines += [f"    {name}" for name in found.named]
    if result.missing:
        lines.append(f"  {result.missing:,} published events are not in the topics, and not in it")
    lines.append(f"  hash {result.hash}")
    return "\n".join(lines)


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("rebuild")(rebuild_view)
