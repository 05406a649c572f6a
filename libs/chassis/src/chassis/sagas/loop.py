"""The loop of the sagas over its ports: find what is pending, give it, try again what was not answered.

It owns no thread, socket or clock, so the simulation runs the same loop over its own servers and time.
"""

import asyncio
from collections import Counter
from typing import Final, Protocol
from uuid import UUID

import structlog
from typing_extensions import override

from chassis.clock import Clock
from chassis.connections.transient import is_transient, why
from chassis.ending import ended
from chassis.observability.reasons import reason_of
from chassis.process.leading import LeasedLoop, Waiting
from chassis.process.leases import Lease
from chassis.sagas.deciding import ENDED, SAGAS
from chassis.sagas.running import Sagas
from chassis.write.events import StoredEvent

READ_EVENTS_MAX: Final = 2_000
WORKING_MAX: Final = 500
"""Sagas for which commands are given at once."""
POLL_SECONDS_MAX: Final = 1.0
AGAIN_SECONDS_FIRST: Final = 1.0
"""After the first try that was not answered; twice as long after each further one."""
AGAIN_SECONDS_MAX: Final = 60.0
DOUBLED_MAX: Final = 30
BROKEN: Final = "broken"
"""The status of a saga whose code has a fault; it is tried again, and others go on."""

_log = structlog.get_logger(__name__)


class Events(Protocol):
    """The event store, as far as the loop reads it. Calls raise StoreUnavailable."""

    async def read_after(self, position: int, limit: int) -> list[StoredEvent]:
        """Events beyond `position`, in order, each with its position."""
        ...

    async def head_position(self) -> int:
        """Position of the last event."""
        ...


class SagaLoop(LeasedLoop):
    """Gives the commands of the sagas of one context.

    The holder of the lease works, others stand by: giving twice does no harm, and the lease spares the peers. A saga
    whose peer does not answer is tried again with back-off, and holds back no other one.
    """

    def __init__(
        self,
        name: str,
        sagas: Sagas,
        events: Events,
        lease: Lease,
        clock: Clock,
        *,
        hint: Waiting | None = None,
        read_events_max: int = READ_EVENTS_MAX,
        working_max: int = WORKING_MAX,
        poll_seconds: float = POLL_SECONDS_MAX,
        again_seconds_first: float = AGAIN_SECONDS_FIRST,
        again_seconds_max: float = AGAIN_SECONDS_MAX,
    ) -> None:
        super().__init__(name, "sagas", lease, clock, hint)
        self._sagas = sagas
        self._events = events
        self._read_max = read_events_max
        self._working_max = working_max
        self._poll_seconds = poll_seconds
        self._again_first = again_seconds_first
        self._again_max = again_seconds_max
        self._position = 0
        self._due: dict[UUID, float] = {}
        """When the sagas that are open are looked at next, in seconds of the clock."""
        self._tries: Counter[UUID] = Counter()
        self._known: dict[UUID, tuple[str, str]] = {}
        """Kind and status of each saga that is open, as it was looked at last."""
        self._working: dict[UUID, asyncio.Task[None]] = {}

    def counts(self) -> Counter[tuple[str, str]]:
        """How many sagas are open, by kind and status; of the process that leads."""
        return Counter(self._known.values())

    @override
    async def _lead(self, epoch: int, stopping: asyncio.Event) -> None:
        try:
            # The position first: a saga that starts meanwhile is found by its event.
            self._position = await self._events.head_position()
            self._due.clear()
            self._tries.clear()
            async for saga in self._sagas.open():
                self._due[saga] = self._clock.monotonic()
            self.leading = True
            _log.info("sagas lead", role=self.name, epoch=epoch, position=self._position)
            while not stopping.is_set():
                more = await self._follow()
                self._succeeded()
                self._begin_due()
                if not more:
                    await self._wait()
        finally:
            await ended(*self._working.values())
            self._working.clear()
            self._known.clear()

    async def _follow(self) -> bool:
        """Notes the sagas that have new events; whether there may be more."""
        stored = await self._events.read_after(self._position, self._read_max)
        for event in stored:
            # One that is under way is looked at once more, or it would be noted by what it was before its end.
            if event.name == ENDED and event.stream_id not in self._working:
                self._forget(event.stream_id)
            elif event.name in SAGAS:
                self._due[event.stream_id] = self._clock.monotonic()
                self._tries.pop(event.stream_id, None)
            self._position = event.position or self._position
        return len(stored) == self._read_max

    def _begin_due(self) -> None:
        now = self._clock.monotonic()
        for saga in [one for one, at in self._due.items() if at <= now and one not in self._working]:
            if len(self._working) >= self._working_max:
                return
            del self._due[saga]
            task = self._working[saga] = asyncio.create_task(self._advance(saga))
            task.add_done_callback(lambda _, saga=saga: self._working.pop(saga, None))  # type: ignore[misc]

    async def _advance(self, saga: UUID) -> None:
        try:
            state, unanswered = await self._sagas.advance(saga)
        except Exception as error:  # noqa: BLE001 (one saga that fails stops no other)
            if not is_transient(error):
                self._known[saga] = self._known.get(saga, ("unknown", ""))[0], BROKEN
                _log.error("a saga broke", saga=str(saga), reason=reason_of(error))
            self._try_again(saga, why(error))
            return
        if state.status == "ended":
            self._forget(saga)
            return
        self._known[saga] = state.saga, state.status
        if unanswered is not None:
            self._try_again(saga, unanswered)
            return
        self._tries.pop(saga, None)
        if state.status == "stuck":
            _log.error("a compensation is refused", saga=str(saga), step=state.refused, code=state.code)

    def _try_again(self, saga: UUID, reason: str) -> None:
        seconds = min(self._again_first * 2 ** self._tries[saga], self._again_max)
        self._tries[saga] = min(self._tries[saga] + 1, DOUBLED_MAX)
        self._due.setdefault(saga, self._clock.monotonic() + seconds)
        _log.warning("a saga is tried again", saga=str(saga), reason=reason, seconds=seconds)

    def _forget(self, saga: UUID) -> None:
        self._due.pop(saga, None)
        self._tries.pop(saga, None)
        self._known.pop(saga, None)

    async def _wait(self) -> None:
        now, seconds = self._clock.monotonic(), self._poll_seconds
        if len(self._working) < self._working_max:
            soonest = min(
                (at for one, at in self._due.items() if one not in self._working), default=now + seconds
            )
            seconds = min(seconds, max(0.0, soonest - now))
        await self._pause(seconds)
