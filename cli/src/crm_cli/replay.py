"""`crm replay`: the events of a context as they are stored, one JSON object per line, personal values masked."""

import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
import psycopg
import typer
from chassis.events import StoredEvent, event_id
from chassis.privacy import ERASED, is_token
from chassis.store import Recorder, StoreUnavailable

from crm_cli.contexts import CONTEXTS, settings

PAGE_EVENTS: Final = 1_000

_encode: Final = msgspec.json.Encoder(uuid_format="canonical").encode
_MASKED_METADATA: Final = frozenset({"client_address"})


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


def pages(recorder: Recorder, first: int, last: int) -> Iterator[list[StoredEvent]]:
    """The events at positions from `first` to `last`, page by page."""
    after = first - 1
    while after < last:
        page = recorder.read_after(after, PAGE_EVENTS)
        if not page:
            return
        after = page[-1].position or last
        yield [event for event in page if (event.position or 0) <= last]


def replay(
    context: Annotated[str, typer.Option(help=f"one of {', '.join(CONTEXTS)}")],
    first: Annotated[int, typer.Option("--from", min=1, help="the first position")] = 1,
    last: Annotated[
        int | None, typer.Option("--to", min=1, help="the last position; the head if left out")
    ] = None,
) -> None:
    """Writes the event store to stdout in the order of positions, up to the head at the start."""
    if context not in CONTEXTS:
        _fail(f"no context {context}; there are {', '.join(CONTEXTS)}")
    found = CONTEXTS[context]
    recorder = Recorder(settings().postgres_url, found.schema)
    try:
        head = recorder.head_position()
        for page in pages(recorder, first, head if last is None else min(last, head)):
            sys.stdout.buffer.write(b"".join(map(line_of, page)))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever read has seen enough. What Python would still flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (StoreUnavailable, psycopg.Error) as error:
        _fail(f"the store of {context} cannot be read: {error}")
    finally:
        recorder.close()


def _fail(message: str) -> None:
    print(f"crm replay: {message}", file=sys.stderr)
    raise typer.Exit(code=2)


def register(app: typer.Typer) -> None:
    """Adds the command to `crm`."""
    app.command("replay")(replay)
