"""The loop of the timers over its ports: fold what was stored, give what is due, keep what became of it.

It owns no thread, socket or clock, so the simulation runs the same loop over its own servers and time.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

import structlog
from typing_extensions import override

from chassis.clock import Clock
from chassis.connections.transient import is_transient
from chassis.observability import metrics, telemetry
from chassis.observability.reasons import reason_of
from chassis.process.leading import LeasedLoop, Waiting
from chassis.process.leases import Lease
from chassis.timers.declaring import Due, NotReady, SetTimer, Setting, Timer
from chassis.timers.table import DONE, Folded, Given, TimerTable, checked_setting, key_of
from chassis.write.deciding import Refusal, VersionMismatch
from chassis.write.events import RecordedEvent, StoredEvent, event_id

FOLDED_EVENTS_MAX: Final = 2_000
GIVEN_AT_ONCE_MAX: Final = 100
GIVEN_PER_SECOND_MAX: Final = 200.0
POLL_SECONDS_MAX: Final = 1.0
TRIES_MAX: Final = 3
TRY_AGAIN_SECONDS: Final = 30.0
"""After the first failure of a command that is not refused; twice as long after each further one."""
WAITS_MAX: Final = 30
"""Tries of a command that waits for what it rests on; about a day."""
WAIT_SECONDS_MAX: Final = 3_600.0

_log = structlog.get_logger(__name__)


class Events(Protocol):
    """The event store, as far as timers read it. Calls raise StoreUnavailable."""

    async def read_after(self, position: int, limit: int) -> list[StoredEvent]:
        """Events beyond `position`, in order, each with its position."""
        ...

    async def stream_ends(self, ids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
        """Version and position of the last event of each stream that has one."""
        ...


class TimerLoop(LeasedLoop):
    """Gives the commands of the timers of one context, each once, in the order of their due times.

    The holder of the lease works, others stand by. It gives nothing before it has folded all that is stored, and gives
    each command on the version of its subject up to which it has folded. An event that withdraws or moves the timer is
    therefore either folded before, or stored after the command. Of one subject it gives one command at a time.

    Commands that are late, after an outage, are given in the order in which they were due, at most
    `given_per_second_max`. Timers of a name that are many hold back none of another name: each name has its part of a turn.
    """

    def __init__(
        self,
        name: str,
        timers: Sequence[Timer],
        events: Events,
        decode: Callable[[StoredEvent], RecordedEvent],
        table: TimerTable,
        lease: Lease,
        clock: Clock,
        *,
        generation: str,
        hint: Waiting | None = None,
        given_at_once_max: int = GIVEN_AT_ONCE_MAX,
        given_per_second_max: float = GIVEN_PER_SECOND_MAX,
        folded_events_max: int = FOLDED_EVENTS_MAX,
        poll_seconds: float = POLL_SECONDS_MAX,
        try_again_seconds: float = TRY_AGAIN_SECONDS,
    ) -> None:
        super().__init__(name, "timers", lease, clock, hint)
        self.late_seconds = 0.0
        """How long the timer that was due first has been due."""
        self._timers = {timer.name: timer for timer in timers}
        if len(self._timers) != len(timers):
            raise ValueError("two timers have one name")
        self._taken = {stored: [one for one in timers if stored in one.events] for stored in _names(timers)}
        self._events = events
        self._decode = decode
        self._table = table
        self._generation = generation
        self._at_once = given_at_once_max
        self._per_second = given_per_second_max
        self._folded_max = folded_events_max
        self._poll_seconds = poll_seconds
        self._try_again_seconds = try_again_seconds
        self._folded = Folded(generation, 0, complete=False)

    @override
    async def _lead(self, epoch: int, stopping: asyncio.Event) -> None:
        await self.begin()
        self.leading = True
        _log.info("timers lead", role=self.name, epoch=epoch, position=self._folded.position)
        while not stopping.is_set():
            began = self._clock.monotonic()
            tried = await self.turn(epoch, stopping)
            self._succeeded()
            if tried:
                least_seconds = tried / self._per_second - (self._clock.monotonic() - began)
                await self._clock.sleep(max(0.0, least_seconds))
            else:
                await self._wait()

    async def begin(self) -> None:
        """Reads how far the events are folded; from the first one where an earlier generation of timers folded them."""
        found = await self._table.folded()
        if found is None or found.generation != self._generation:
            found = Folded(self._generation, 0, complete=False)
        self._folded = found

    async def turn(self, epoch: int, stopping: asyncio.Event | None = None) -> int:
        """Folds what is stored and gives what is due then, at most one command of each subject; how many were tried.

        After `begin`, under the lease. Raises Fenced, and transient errors.
        """
        return await self._give_due(epoch) if await self._catch_up(epoch, stopping) else 0

    async def _catch_up(self, epoch: int, stopping: asyncio.Event | None) -> bool:
        """Folds what is stored; whether it came to the end of it."""
        while stopping is None or not stopping.is_set():
            stored = await self._events.read_after(self._folded.position, self._folded_max)
            if stored:
                settings = self._settings(stored)
                reached = self._folded._replace(position=stored[-1].position or 0)
                self._lease.check()
                await self._table.fold(epoch, reached, settings)
                self._folded = reached
            if len(stored) < self._folded_max:
                if not self._folded.complete:
                    self._lease.check()
                    await self._table.complete(epoch, self._folded)
                    self._folded = self._folded._replace(complete=True)
                return True
        return False

    def _settings(self, stored: Sequence[StoredEvent]) -> list[Setting]:
        """The last change of each timer by these events."""
        found: dict[tuple[UUID, str, str], Setting] = {}
        for event in stored:
            for timer in self._taken.get(event.name, ()):
                for setting in self._settings_of(timer, event):
                    key = key_of(setting)
                    found.pop(key, None)
                    found[key] = setting
        return list(found.values())

    def _settings_of(self, timer: Timer, event: StoredEvent) -> list[Setting]:
        cause, position = event_id(event.stream_id, event.version), event.position or 0

        def setting(slot: str, set: SetTimer | None, failed: str | None = None) -> Setting:
            return Setting(timer.name, event.stream_id, slot, cause, position, set, failed)

        try:
            changes = timer.changes(self._decode(event))
            return [
                checked_setting(setting(one.slot, one if isinstance(one, SetTimer) else None))
                for one in changes
            ]
        except Exception as error:
            if is_transient(error):
                raise
            reason = reason_of(error)
            _log.error("an event sets no timer", timer=timer.name, type=event.name, position=position)
            return [setting("", SetTimer(self._clock.now()), reason)]

    async def _give_due(self, epoch: int) -> int:
        now = self._clock.now()
        found = await self._table.due(now, self._at_once)
        self.late_seconds = max(0.0, (now - found[0].due_at).total_seconds()) if found else 0.0
        if not found:
            return 0
        first = {due.subject: due for due in reversed(found)}
        ends = await self._events.stream_ends(list(first))
        ready = {
            subject: ends.get(subject, (0, 0))[0]
            for subject in first
            if ends.get(subject, (0, 0))[1] <= self._folded.position
        }
        self._lease.check()
        giving = [self._give(first[due.subject], ready, now) for due in found if first[due.subject] is due]
        given = [one for one in await asyncio.gather(*giving, return_exceptions=True) if one is not None]
        settled = [one for one in given if isinstance(one, Given)]
        if settled:
            await self._table.settle(epoch, self._clock.now(), settled)
        for one in given:
            if isinstance(one, BaseException):
                raise one
        return len(giving)

    async def _give(self, due: Due, ready: Mapping[UUID, int], now: datetime) -> Given | None:
        """Gives a command; None where the subject has changed since the fold. Raises transient errors.

        `now` is the time by which it was found due. Where the clock is set back meanwhile, no command comes too early.
        """
        version, timer = ready.get(due.subject), self._timers.get(due.name)
        if version is None:
            return None
        if timer is None:
            return Given(due, "failed: no timer has this name")
        context = due.context(now)
        try:
            with telemetry.span(f"timer {due.name}", {}):
                await timer.give(due, context, version)
        except VersionMismatch:
            return None
        except Exception as error:
            if is_transient(error):
                raise
            if isinstance(error, Refusal):
                return self._settled(due, f"refused: {error.code}")
            return self._failed(due, error)
        return self._settled(due, DONE)

    def _settled(self, due: Due, outcome: str) -> Given:
        metrics.TIMERS_GIVEN.labels(due.name, outcome.partition(":")[0]).inc()
        return Given(due, outcome)

    def _failed(self, due: Due, error: Exception) -> Given:
        reason, waits = reason_of(error), isinstance(error, NotReady)
        log = _log.bind(timer=due.name, subject=str(due.subject), attempt=due.tries + 1, reason=reason)
        if due.tries + 1 >= (WAITS_MAX if waits else TRIES_MAX):
            log.error("timer failed")
            return self._settled(due, f"failed: {reason}")
        log.log(logging.INFO if waits else logging.ERROR, "timer is tried again")
        seconds = min(self._try_again_seconds * 2**due.tries, WAIT_SECONDS_MAX)
        return Given(due, None, self._clock.now() + timedelta(seconds=seconds))

    async def _wait(self) -> None:
        """Waits for the next due time or the next event, whichever a hint or the clock shows first."""
        next_at = await self._table.next_at()
        seconds = self._poll_seconds
        if next_at is not None:
            seconds = min(seconds, max(0.0, (next_at - self._clock.now()).total_seconds()))
        await self._pause(seconds)


def _names(timers: Sequence[Timer]) -> set[str]:
    return {stored for timer in timers for stored in timer.events}
