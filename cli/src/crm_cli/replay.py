"""`crm replay`: the events of a context as they are stored, one JSON object per line, personal values masked."""

import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, NoReturn

import msgspec
import psycopg
import typer
from chassis.events import StoredEvent, event_id
from chassis.privacy import ERASED, is_token
from chassis.store import StoreUnavailable
from chassis.store.library import application
from eventsourcing.persistence import PersistenceError

from crm_cli.contexts import CONTEXTS, settings

PAGE_EVENTS: Final = 1_000
DISORDER_SECONDS_MAX: Final = 120
"""Positions are given out when a batch is stored, instants when it is made; longer than this none waits in between."""

_encode: Final = msgspec.json.Encoder(uuid_format="canonical").encode
_MASKED_METADATA: Final = frozenset({"client_address"})


class _Metadata(msgspec.Struct):
    recorded_at: datetime


class _Body(msgspec.Struct):
    meta: _Metadata


_bodies: Final = msgspec.json.Decoder(_Body)


def line_of(stored: StoredEvent) -> bytes:
    """One event as a line: sealed values and addresses show as "***"."""
    body = msgspec.json.decode(stored.body)
    meta = {name: ERASED if name in _MASKED_METADATA else value for name, value in body["meta"].items()}
    line = {
        "position": stored.position,
        "stream_id": stored.stream_id,
        "version": stored.version,
        "event_id": event_id(stored.stream_id, stored.version),
        "name": stored.name,
        "meta": meta,
        "data": masked(body["data"]),
    }
    return _encode(line) + b"\n"


def masked(value: Any) -> Any:
    """A value of an event with every sealed text in it replaced, however deep."""
    if isinstance(value, dict):
        return {name: masked(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return ERASED if is_token(value) else value


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


def recorded_at(stored: StoredEvent) -> datetime:
    """When an event was written down."""
    return _bodies.decode(stored.body).meta.recorded_at


def first_since(read: Read, since: datetime, head: int) -> int:
    """A position before which nothing was recorded at `since` or later; found in as many reads as it has bits."""
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
) -> None:
    """Writes the event store to stdout in the order of positions, up to the head at the start."""
    if context not in CONTEXTS:
        _fail(f"no context {context}; there are {', '.join(CONTEXTS)}")
    found, instant = CONTEXTS[context], _instant(since)
    store = application(settings().postgres_url, found.schema)
    try:
        head = store.head_position()
        if instant is not None:
            first = max(first, first_since(store.read_after, instant, head))
        for page in pages(store.read_after, first, head if last is None else min(last, head)):
            wanted = [event for event in page if instant is None or recorded_at(event) >= instant]
            sys.stdout.buffer.write(b"".join(map(line_of, wanted)))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever read has seen enough. What Python would still flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (StoreUnavailable, PersistenceError, psycopg.Error) as error:
        _fail(f"the store of {context} cannot be read: {error}")
    finally:
        store.close()


def _instant(said: str | None) -> datetime | None:
    if said is None:
        return None
    try:
        instant = datetime.fromisoformat(said)
    except ValueError:
        _fail(f"not an instant: {said}")
    if instant.tzinfo is None:
        _fail(f"{said} names no zone: +08:00, say, or Z")
    return instant


def _fail(message: str) -> NoReturn:
    print(f"crm replay: {message}", file=sys.stderr)
    raise typer.Exit(code=2)


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("replay")(replay)
