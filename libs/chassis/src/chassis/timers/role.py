"""The timers of a context as a role of its own: the loop with its connections, from the settings."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog

from chassis.calendar.settings import CalendarSettings
from chassis.clock import Clock, SystemClock
from chassis.ending import closed, ended
from chassis.observability import metrics
from chassis.process.leases import Lease, PostgresLease
from chassis.relay.postgres import Listening
from chassis.timers.declaring import Timer, generation_of
from chassis.timers.loop import TimerLoop
from chassis.timers.table import TIMERS_LEASE, PostgresTimers
from chassis.write.catalogue import Catalogue
from chassis.write.store import EventStore

MEASURED_SECONDS: Final = 1.0
DAYS_KNOWN_WANTED: Final = 30
"""With fewer days of announced holidays ahead, the calendar is to be brought up to date."""

_log = structlog.get_logger(__name__)


async def _nothing(_: datetime) -> None:
    """Most timers are set by events that come anyhow."""


class Timers(NamedTuple):
    """The timers of a context over its open store. `begin` is called when the role starts: it may give a command that sets
    the first timer of all."""

    timers: Sequence[Timer]
    store: EventStore
    catalogue: Catalogue
    begin: Callable[[datetime], Awaitable[None]] = _nothing


class TimersRole:
    """The role `<service>-timers`, with connections of its own.

    `timers` opens what the commands are given to.
    """

    def __init__(
        self,
        service: str,
        context: str,
        schema: str,
        timers: Callable[[Clock], AbstractAsyncContextManager[Timers]],
        settings: CalendarSettings,
        clock: Clock | None = None,
    ) -> None:
        self.name = f"{service}-timers"
        self._context = context
        self._schema = schema
        self._timers = timers
        self._settings = settings
        self._clock = clock or SystemClock()
        self._loop: TimerLoop | None = None

    def not_ready(self) -> list[str]:
        """Why no command is given."""
        return [f"{self.name}: starting"] if self._loop is None else self._loop.not_ready()

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`; raises ConnectionError where a server is not there at the start."""
        settings, clock = self._settings, self._clock
        calendar = settings.calendar
        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(self._timers(clock))
            lease = PostgresLease(settings.postgres_url, self._schema, TIMERS_LEASE)
            table = PostgresTimers(settings.postgres_url, self._schema)
            hint = Listening(settings.postgres_url, self._schema, clock)
            for each in (lease, table, hint):
                stack.push_async_callback(closed, each.close)
            await opened.begin(clock.now())
            loop = self._loop = TimerLoop(
                self.name,
                opened.timers,
                opened.store,
                opened.catalogue.decode,
                table,
                Lease(lease, clock),
                clock,
                generation=generation_of(opened.timers, calendar.digest()),
                hint=hint,
                given_per_second_max=settings.timers_per_second_max,
            )
            measuring = asyncio.ensure_future(self._measure(loop))
            try:
                await loop.run(stopping)
            finally:
                await ended(measuring)

    async def _measure(self, loop: TimerLoop) -> None:
        known = DAYS_KNOWN_WANTED
        while True:
            calendar, before = self._settings.calendar, known
            today = calendar.business_date(self._clock.now())
            known = next((n for n in range(400) if not calendar.knows(today + timedelta(days=n))), 400)
            if known < DAYS_KNOWN_WANTED and known != before:
                _log.warning(
                    "the public holidays after these days are not known; weekdays count as working days",
                    count=known,
                )
            metrics.CALENDAR_DAYS_KNOWN.labels(self._context).set(known)
            metrics.LEASE_HELD.labels(self.name).set(int(loop.leading))
            metrics.TIMERS_LATE_SECONDS.labels(self._context).set(loop.late_seconds if loop.leading else 0)
            await self._clock.sleep(MEASURED_SECONDS)
