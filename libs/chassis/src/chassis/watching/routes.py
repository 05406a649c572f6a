"""The parts of a route that watches: what it takes, what it answers, and its stream."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import Header, Query
from pydantic import BaseModel, Field

from chassis.watching.hub import ConditionWide, Hub
from chassis.watching.watchers import Reason, Wanted
from chassis.web.problems import NotReady, Overloaded, TooManyStreams, refusals
from chassis.web.streams import LAST_EVENT_ID, STREAM_SECONDS_MAX, EventStream

IDS_MAX: Final = 100
"""Of a watcher."""
EVENT_ID_CHARACTERS_MAX: Final = 2_100

Seconds = Annotated[
    int,
    Query(
        ge=0,
        le=STREAM_SECONDS_MAX,
        description="how long the stream lasts at most; 0 ends it after what changed since `Last-Event-ID`",
    ),
]
LastEventId = Annotated[
    str | None,
    Header(
        alias=LAST_EVENT_ID,
        max_length=EVENT_ID_CHARACTERS_MAX,
        description="the id of the last event that the caller has; what changed since is told",
    ),
]
EXAMPLES: Final[Mapping[str, Any]] = {
    LAST_EVENT_ID: "3.20261126.0f3a5c7e9b1d2f400f3a5c7e9b1d2f40.826B0827870000001C2B0229296E04",
    "seconds": 600,
}
"""Examples of the names of parameters here, for the `EXAMPLES` of a service."""


class DocumentsChanged(BaseModel):
    """The data of the event `changed`: ids, each in one list."""

    view: str
    at_least: str = Field(description="a read that asks for it shows what is told here, in every process")
    changed: list[str]
    entered: list[str] = Field(description="these meet the condition now, and may not have before")
    left: list[str] = Field(description="these do not meet the condition now, and may have before")


class ReadAgain(BaseModel):
    """The data of the event `reset`: what the caller has may be out of date, so it reads everything again."""

    view: str
    at_least: str
    reason: Reason


def watched(*refused: Any) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses=`: the stream, and the refusals of watching beside those given."""
    shapes = ", ".join(
        f"`{event}` ({', '.join(f'`{name}`' for name in shape.model_fields)})"
        for event, shape in (("changed", DocumentsChanged), ("reset", ReadAgain))
    )
    stream = {
        "description": f"Server-sent events: {shapes}, and at last `end` (`code`); the data is JSON",
        "content": {EventStream.media_type: {"schema": {"type": "string"}}},
    }
    return {200: stream, **refusals(ConditionWide, TooManyStreams, Overloaded, *refused)}


def streamed(hub: Hub | None, wanted: Wanted, after: str | None, seconds: int) -> EventStream:
    """The stream of a watcher; raises NotReady in a process where no hub runs."""
    if hub is None:
        raise NotReady
    return EventStream(lambda wake: hub.watching(wanted, after, wake), seconds_max=seconds)
