"""The timers of a context as a role of its own: the loop with its connections, from the settings."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog
from typing_extensions import override

from chassis.calendar.settings import CalendarSettings
from chassis.clock import Clock
from chassis.ending import closed
from chassis.observability import metrics
from chassis.process.leading import LeasedRole
from chassis.process.leases import Lease, PostgresLease
from chassis.relay.postgres import Listening
from chassis.timers.declaring import Timer, generation_of
from chassis.timers.loop import TimerLoop
from chassis.timers.table import TIMERS_LEASE, PostgresTimers
from chassis.write.catalogue import Catalogue
from chassis.write.store import EventStore

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


class TimersRole(LeasedRole[TimerLoop]):
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
        super().__init__(f"{service}-timers", clock)
        self._context = context
        self._schema = schema
        self._timers = timers
        self._settings = settings
        self._known = DAYS_KNOWN_WANTED

    @override
    async def _connected(self, stack: AsyncExitStack) -> TimerLoop:
        settings, clock = self._settings, self._clock
        calendar = settings.calendar
        opened = await stack.enter_async_context(self._timers(clock))
        lease = PostgresLease(settings.postgres_url, self._schema, TIMERS_LEASE)
        table = PostgresTimers(settings.postgres_url, self._schema)
        hint = Listening(settings.postgres_url, self._schema, clock)
        for each in (lease, table, hint):
            stack.push_async_callback(closed, each.close)
        await opened.begin(clock.now())
        return TimerLoop(
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

    @override
    async def _measure(self, loop: TimerLoop) -> None:
        calendar, before = self._settings.calendar, self._known
        today = calendar.business_date(self._clock.now())
        known = next((n for n in range(400) if not calendar.knows(today + timedelta(days=n))), 400)
        if known < DAYS_KNOWN_WANTED and known != before:
            _log.warning(
                "the public holidays after these days are not known; weekdays count as working days",
                count=known,
            )
        self._known = known
        metrics.CALENDAR_DAYS_KNOWN.labels(self._context).set(known)
        metrics.TIMERS_LATE_SECONDS.labels(self._context).set(loop.late_seconds if loop.leading else 0)
