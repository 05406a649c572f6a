"""Responses of work that takes longer than a request may: its progress, and at last its result.

    event: progress              how far it is, each second at most
    event: result                what came of it; `end` with the code `done` follows
    event: end                   `unavailable`: a server that is needed does not answer; the client asks again

The work is done while its stream is open. Whoever leaves ends it, so it must have no effect.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from chassis.clock import Clock
from chassis.connections.transient import is_transient
from chassis.ending import ended
from chassis.web.problems import NotReady
from chassis.web.streams import EventStream, Sent, streamed_as

PROGRESS_SECONDS: Final = 1.0
WORK_SECONDS_MAX: Final = 3_600

Tell = Callable[[Any], None]
"""Is given the progress: what the client gets of it, ready to be encoded."""
Work = Callable[[Tell], Awaitable[Any]]
"""Does the work and returns its result."""


class _Working:
    """What a stream of work sends."""

    def __init__(self, work: Work, place: str, wake: Callable[[], None], clock: Clock) -> None:
        self.place = place
        self._wake = wake
        self._now = clock.monotonic
        self._progress: Any = None
        self._told_at = clock.monotonic() - PROGRESS_SECONDS
        self._given = False
        self.task = asyncio.ensure_future(work(self._tell))
        self.task.add_done_callback(lambda _: wake())

    def _tell(self, progress: Any) -> None:
        if self._now() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = self._now()
            self._progress = progress
            self._wake()

    @property
    def ended(self) -> str | None:
        """`done` once the result was sent, `unavailable` where a server does not answer."""
        if self._given:
            return "done"
        if self.task.done() and not self.task.cancelled():
            error = self.task.exception()
            if error is not None and is_transient(error):
                return "unavailable"
        return None

    def next(self) -> Sent | None:
        """The result as soon as it is there, else the progress that was not sent yet. Raises what the work raised."""
        if self.task.done():
            self._given = True
            return Sent("result", self.task.result(), self.place)
        progress, self._progress = self._progress, None
        return None if progress is None else Sent("progress", progress, self.place)


def working(work: Work, place: str, seconds: int, clock: Clock) -> EventStream:
    """The stream of work, for so many seconds at most. `place` is the id of each event; it names what is asked for."""

    @asynccontextmanager
    async def opened(wake: Callable[[], None]) -> AsyncIterator[_Working]:
        source = _Working(work, place, wake, clock)
        try:
            yield source
        finally:
            await ended(source.task)

    return EventStream(opened, seconds_max=seconds)


def worked(progress: Any, result: Any, *refused: Any) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses=`: the stream with the models of its progress and of its result, and the refusals of streams beside those
    given."""
    return streamed_as({"progress": progress, "result": result}, NotReady, *refused)
