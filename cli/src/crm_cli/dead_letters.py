"""`crm dead-letters`: records that a consumer group could not process, and sending them again after repair."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import TRANSIENT, why
from chassis.messaging.dead_letters import DeadLetter, KeyCustody, Resent, read_letter, resend
from chassis.messaging.transport import KafkaPublisher, read_to_end
from chassis.privacy.keys import KeyRing
from contracts.topics import CONSUMERS, EVENTS, ConsumerGroup

from crm_cli.answers import Json, answer, answer_list
from crm_cli.exits import OK, WRONG, failed
from crm_cli.operations import noted
from crm_cli.parked import released_of
from crm_cli.person import Token
from crm_cli.running import settings_of

app = typer.Typer(help="Records that consumers could not process.", no_args_is_help=True)

T = TypeVar("T")
Group = Annotated[str, typer.Argument(help=", ".join(group.name for group in CONSUMERS), metavar="GROUP")]


@app.command("list")
def list_letters(group: Group, as_json: Json = False) -> None:
    """Lists the dead letters of a group: when, why, and where the record came from.

    Shows nothing of the record.
    """
    of = _known(group)
    items = _run(_letters(of))
    lines = [
        f"{one['at']}  {one['topic']}[{one['partition']}:{one['offset']}]"
        f"  {one['type'] or '-'} {one['subject'] or '-'}  {one['reason']}"
        for one in items
    ]
    answer_list(items, lines, f"{group} has no dead letter", as_json=as_json)


@app.command("resend")
def resend_letters(
    group: Group,
    reason: Annotated[str | None, typer.Option(help="why; it is stored with the event")] = None,
    as_json: Json = False,
    token: Token = None,
) -> None:
    """Sends the records of a group's letters through again, each once, in the order that they had.

    Records of a branch topic are published there again. Events wait beside their parked subject, so the
    subject is released. Exit 1 where something still waits.
    """
    of = _known(group)
    noted("dead-letters", settings_of(Settings), token, "dead-letters-resent", group, reason)
    if set(of.topics) <= {topic.name for topic in EVENTS.values()}:
        left = _run(_released(of))
        text = f"{left} subjects still wait; see `crm parked list`" if left else "released"
        answer({"waiting": left}, text, as_json=as_json)
        raise typer.Exit(code=WRONG if left else OK)
    result = _run(_resent(of))
    answer(
        {"sent": result.sent, "without_copy": result.without_copy},
        f"{result.sent:,} sent again, {result.without_copy:,} have no copy that opens",
        as_json=as_json,
    )
    raise typer.Exit(code=WRONG if result.without_copy else OK)


def values_of(letter: DeadLetter) -> dict[str, Any]:
    """A letter as JSON has it."""
    return {
        "at": letter.at,
        "reason": letter.reason,
        "tries": letter.tries,
        "topic": letter.origin[0],
        "partition": letter.origin[1],
        "offset": letter.origin_offset,
        "context": letter.context,
        "subject": None if letter.subject is None else str(letter.subject),
        "type": letter.type,
        "sealed_bytes": len(letter.sealed),
    }


async def _letters(group: ConsumerGroup) -> list[dict[str, Any]]:
    """The letters without the records that are sealed in them, which may take 2 MiB each."""
    settings = settings_of(Settings)
    found: list[dict[str, Any]] = []
    async for page in read_to_end(settings.kafka_url, group.dead_letters.name):
        found += [values_of(letter) for record in page if (letter := read_letter(record)) is not None]
    return found


async def _resent(group: ConsumerGroup) -> Resent:
    settings, clock = settings_of(Settings), SystemClock()

    async with AsyncExitStack() as stack:
        custody = KeyCustody(group.name, partial(KeyRing.of, settings, clock.monotonic))
        stack.callback(custody.close)
        publisher = KafkaPublisher(settings.kafka_url, client_id="crm-dead-letters")
        stack.push_async_callback(publisher.close)
        return await resend(settings.kafka_url, group.name, publisher, custody)


async def _released(group: ConsumerGroup) -> int:
    subjects = {UUID(letter["subject"]) for letter in await _letters(group) if letter["subject"] is not None}
    return await released_of(settings_of(Settings), group, subjects)


def _known(name: str) -> ConsumerGroup:
    for group in CONSUMERS:
        if group.name == name:
            return group
    failed(
        "dead-letters", f"no consumer group {name}; there are {', '.join(group.name for group in CONSUMERS)}"
    )


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except TRANSIENT as error:
        failed("dead-letters", why(error))


def register(parent: typer.Typer) -> None:
    """Adds the commands to `crm`."""
    parent.add_typer(app, name="dead-letters")
