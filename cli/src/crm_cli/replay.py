"""`crm replay`: the events of a context, as stored or as published, one JSON object a line, personal values
masked."""

import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Annotated, Final

import psycopg
import typer
from chassis.connections.transient import StoreUnavailable, why
from chassis.write.catalogue import UnknownEvent
from chassis.write.events import StoredEvent
from chassis.write.store.library import application
from eventsourcing.persistence import PersistenceError

from crm_cli.contexts import CONTEXTS, reading_settings
from crm_cli.exits import failed
from crm_cli.replay_shapes import Shapes, recorded_at

PAGE_EVENTS: Final = 1_000
DISORDER_SECONDS_MAX: Final = 120
"""Positions are given out when a batch is stored, instants when it is made; longer than this none waits in
between."""

Read = Callable[[int, int], list[StoredEvent]]
"""Events beyond a position, in order, so many at most."""


def pages(read: Read, first: int, last: int) -> Iterator[list[StoredEvent]]:
    """The events at positions from `first` to `last`, page by page."""
    after = first - 1
    while after < last:
        page = read(after, PAGE_EVENTS)
        if not page:
            return
        after = page[-1].position or last
        yield [event for event in page if (event.position or 0) <= last]


def first_since(read: Read, since: datetime, head: int) -> int:
    """A position before which nothing was recorded at `since` or later. The search reads once for each bit of
    a position."""
    early = since - timedelta(seconds=DISORDER_SECONDS_MAX)
    low, high = 1, head + 1
    while low < high:
        middle = (low + high) // 2
        found = read(middle - 1, 1)
        if not found or recorded_at(found[0]) >= early:
            high = middle
        else:
            low = middle + 1
    return low


def replay(
    context: Annotated[str, typer.Option(help=f"one of {', '.join(CONTEXTS)}")],
    first: Annotated[int, typer.Option("--from", min=1, help="the first position")] = 1,
    last: Annotated[
        int | None, typer.Option("--to", min=1, help="the last position; the head if left out")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="only what was recorded from this instant on, such as 2026-03-01T00:00+08:00"),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", help="only events of this type, public or stored name; may be given several times"
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published", help="as on Kafka: headers and body of what is published, in one flat line"
        ),
    ] = False,
) -> None:
    """Writes an event store to stdout, one JSON object a line, personal values masked.

    Events come in the order of positions, up to the head at the start. All events of a type have the same
    fields; docs/replay.md has them.
    """
    if context not in CONTEXTS:
        failed("replay", f"no context {context}; there are {', '.join(CONTEXTS)}")
    found, instant, wanted = CONTEXTS[context], _instant(since), frozenset(types or ())
    shapes = Shapes(found)
    if unknown := sorted(wanted - set(shapes.types)):
        failed("replay", f"no type {', '.join(unknown)}; there are {', '.join(shapes.types)}")
    line_of = shapes.published if published else shapes.stored
    store = application(reading_settings().postgres_url, found.schema, as_login=True)
    count = 0
    try:
        head = store.head_position()
        if instant is not None:
            first = max(first, first_since(store.read_after, instant, head))
        for page in pages(store.read_after, first, head if last is None else min(last, head)):
            chosen = [event for event in page if instant is None or recorded_at(event) >= instant]
            lines = [line for event in chosen if (line := line_of(event, wanted))]
            sys.stdout.buffer.write(b"".join(lines))
            count += len(lines)
        sys.stdout.buffer.flush()
        if not count:
            print("crm replay: no event", file=sys.stderr)
    except BrokenPipeError:
        # The reader closed the pipe. Output that Python would still flush at its end is discarded.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UnknownEvent as error:
        failed("replay", str(error))
    except (StoreUnavailable, PersistenceError, psycopg.Error) as error:
        failed("replay", f"the store of {context} cannot be read: {why(error)}")
    finally:
        store.close()


def _instant(said: str | None) -> datetime | None:
    if said is None:
        return None
    try:
        instant = datetime.fromisoformat(said)
    except ValueError:
        failed("replay", f"not an instant: {said}")
    if instant.tzinfo is None:
        failed("replay", f"{said} names no zone: +08:00, say, or Z")
    return instant


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("replay")(replay)
