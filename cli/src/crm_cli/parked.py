"""`crm parked`: lists parked subjects, an event of which could not be processed, and releases them after
repair."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import typer
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import why
from chassis.messaging.delivered import Stream
from chassis.reactions.policies import CHECKPOINTS_DATABASE
from chassis.read.checkpoints import Parked, Wanted
from chassis.read.documents import DocumentsUnavailable
from chassis.read.mongo import Mongo
from chassis.read.mongo_checkpoints import PARKED, MongoCheckpoints, want
from contracts.topics import ConsumerGroup

from crm_cli.answers import Json, answer, answer_list
from crm_cli.exits import WRONG, failed
from crm_cli.operations import noted
from crm_cli.person import Token
from crm_cli.running import settings_of

app = typer.Typer(help="Subjects that wait for a repair.", no_args_is_help=True)

RELEASED_WITHIN_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.2
T = TypeVar("T")


@app.command("list")
def list_parked(
    group: Annotated[str | None, typer.Option(help="only of this consumer group")] = None,
    as_json: Json = False,
) -> None:
    """Lists who waits, since when, for which event, and why."""
    items = [values_of(*one) for one in _asked(lambda databases: _all(databases, group))]
    lines = [
        f"{one['group']}  {one['subject']}  {one['type']} {one['sequence']}  {one['waiting']} waiting"
        f"  since {one['parked_at']}  {one['reason']}"
        for one in items
    ]
    answer_list(items, lines, "no subject is parked", as_json=as_json)


@app.command("release")
def release(
    group: Annotated[str, typer.Argument(help="the consumer group, as `crm parked list` shows it")],
    subject: Annotated[UUID | None, typer.Argument(help="the subject; left out with --all")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="every parked subject of the group")] = False,
    skip: Annotated[
        bool, typer.Option("--skip", help="skip the event that cannot be processed, for ever")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="why; needed with --skip")] = None,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Gives what waited its effect, in order, and waits until that is done.

    Exit 1 where somebody still waits.
    """
    if (subject is None) != everyone:
        failed("parked", "give a subject or --all")
    if skip and not (reason or "").strip():
        failed("parked", "--skip gives up an event for ever: say why with --reason")
    wanted: Wanted = "skip" if skip else "release"
    action = "parked-skipped" if skip else "parked-released"
    noted("parked", settings_of(Settings), token, action, f"{group} {subject or 'all'}", reason)
    left = _asked(lambda databases: _release(databases, group, subject, wanted))
    if left is None:
        failed(
            "parked",
            f"no subject is parked in {group}" if subject is None else f"{subject} is not parked in {group}",
        )
    for parked in left:
        reasons = "no process runs the group" if parked.wanted else parked.reason
        print(f"{parked.subject} still waits at {parked.type} {parked.sequence}: {reasons}", file=sys.stderr)
    text = f"{len(left)} subjects still wait" if left else "released"
    answer({"waiting": len(left)}, text, as_json=as_json)
    if left:
        raise typer.Exit(code=WRONG)


def values_of(group: str, parked: Parked) -> dict[str, Any]:
    """A parked subject as JSON has it."""
    return {
        "group": group,
        "subject": str(parked.subject),
        "context": parked.context,
        "type": parked.type,
        "sequence": parked.sequence,
        "position": parked.position,
        "reason": parked.reason,
        "parked_at": parked.parked_at.isoformat(),
        "waiting": parked.held,
        "wanted": parked.wanted,
    }


async def _all(databases: tuple[Mongo, Mongo], only: str | None) -> list[tuple[str, Parked]]:
    found: list[tuple[str, Parked]] = []
    for mongo in databases:
        for group in sorted({one["group"] for one in await mongo.find(PARKED, fields={"group": 1})}):
            if only in {None, group}:
                found += [(group, parked) for parked in (await _checkpoints(mongo, group).parked()).values()]
    return found


async def _release(
    databases: tuple[Mongo, Mongo], group: str, subject: UUID | None, wanted: Wanted
) -> list[Parked] | None:
    """Releases, and returns the subjects that are still parked after a while; None where none was parked."""
    for mongo in databases:
        waiting = await _checkpoints(mongo, group).parked()
        chosen = [one for one in waiting if subject in {None, one[1]}]
        if chosen:
            for one in chosen:
                await want(mongo, group, one, wanted)
            return await _released(mongo, group, chosen)
    return None


async def released_of(settings: Settings, group: ConsumerGroup, subjects: Collection[UUID]) -> int:
    """Releases those subjects that are parked by a registered group, whatever its generation; how many still
    wait."""
    left = 0
    async with _databases(settings) as databases:
        for name, parked in await _all(databases, None):
            mine = name == group.name or (group.view and ConsumerGroup(name, ()).view == group.view)
            if mine and parked.subject in subjects:
                left += len(await _release(databases, name, parked.subject, "release") or ())
    return left


async def _released(mongo: Mongo, group: str, chosen: list[Stream]) -> list[Parked]:
    clock = SystemClock()
    until = clock.monotonic() + RELEASED_WITHIN_SECONDS
    while True:
        waiting = await _checkpoints(mongo, group).parked()
        left = [waiting[one] for one in chosen if one in waiting]
        if not any(parked.wanted for parked in left) or clock.monotonic() > until:
            return left
        await clock.sleep(LOOK_SECONDS)


def _checkpoints(mongo: Mongo, group: str) -> MongoCheckpoints:
    return MongoCheckpoints(mongo, group, group)


@asynccontextmanager
async def _databases(settings: Settings) -> AsyncIterator[tuple[Mongo, Mongo]]:
    """Where views and policies keep their checkpoints."""
    mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
    try:
        yield mongo, mongo.beside(CHECKPOINTS_DATABASE)
    finally:
        await mongo.close()


def _asked(ask: Callable[[tuple[Mongo, Mongo]], Awaitable[T]]) -> T:
    async def answered() -> T:
        async with _databases(settings_of(Settings)) as databases:
            return await ask(databases)

    try:
        return asyncio.run(answered())
    except DocumentsUnavailable as error:
        failed("parked", f"MongoDB does not answer: {why(error)}")


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name="parked")
