"""The parts of a route that watches: what it takes, what it answers, and its stream."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

from fastapi import Header, Query
from pydantic import BaseModel, Field

from chassis.conditions import Condition
from chassis.watching.hub import ConditionWide, Hub
from chassis.watching.watchers import Reason, Wanted
from chassis.web.problems import NotReady
from chassis.web.streams import LAST_EVENT_ID, STREAM_SECONDS_MAX, EventStream, streamed_as

IDS_MAX: Final = 100
"""Of a watcher."""
EVENT_ID_CHARACTERS_MAX: Final = 2_100
MEANS_ANOTHER: Final = "condition-means-another"
"""Why a stream ends: who asks again with the last id is told `reset`, because the condition is another one."""

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
    return streamed_as({"changed": DocumentsChanged, "reset": ReadAgain}, ConditionWide, *refused)


def streamed(
    hub: Hub | None,
    wanted: Wanted,
    after: str | None,
    seconds: int,
    means: Callable[[], Awaitable[Condition | None]] | None = None,
) -> EventStream:
    """The stream of a watcher; raises NotReady in a process where no hub runs.

    `means`: what the condition that the caller wrote means now, where that may change. The stream ends when it is another
    one than is wanted.
    """
    if hub is None:
        raise NotReady

    async def outdated() -> str | None:
        return None if means is None or await means() == wanted.condition else MEANS_ANOTHER

    return EventStream(lambda wake: hub.watching(wanted, after, wake), outdated=outdated, seconds_max=seconds)
