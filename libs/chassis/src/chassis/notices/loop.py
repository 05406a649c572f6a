"""The loop of the notices over its ports: fold what was requested, hand over what is due, keep what became of it.

It owns no thread, socket or clock, so the simulation runs the same loop over its own servers and time.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, Protocol
from uuid import UUID, uuid5

import structlog
from typing_extensions import override

from chassis.clock import Clock
from chassis.connections.transient import is_transient, why
from chassis.ending import ended
from chassis.notices.deciding import (
    READ,
    REQUESTED,
    SENT,
    SETTLING,
    Channel,
    GivenUpBecause,
    NoticeRead,
    NoticeRequested,
)
from chassis.notices.providers import RETRY_AFTER_SECONDS_MAX, Provider, ProviderUnanswered
from chassis.notices.requesting import Notices
from chassis.notices.table import Due, Folded, Later, Limit, NoticeTable, Requested
from chassis.observability import metrics, telemetry
from chassis.observability.reasons import reason_of
from chassis.process.leading import LeasedLoop, Waiting
from chassis.process.leases import Lease
from chassis.write.catalogue import Catalogue
from chassis.write.events import StoredEvent

READ_EVENTS_MAX: Final = 2_000
AT_ONCE_MAX: Final = 50
"""Notices of one channel that are handed over at once."""
POLL_SECONDS_MAX: Final = 1.0
TRIES_MAX: Final = 1_000
"""More than an outage takes of a notice that lives as long as one may (`chassis.notices.templates.LIVES_MAX`)."""
AGAIN_SECONDS_FIRST: Final = 2.0
"""After the first try that was not answered; twice as long after each further one, and up to as much again."""
AGAIN_SECONDS_MAX: Final = 900.0
PAUSE_SECONDS_FIRST: Final = 0.5
"""How long a provider that does not answer is left alone; twice as long each further time."""
PAUSE_SECONDS_MAX: Final = 60.0
DOUBLED_MAX: Final = 20
INBOX_KEPT: Final = timedelta(days=180)
PRUNED_SECONDS: Final = 600.0
ENDING_SECONDS_MAX: Final = 10.0
"""How long a process that is told to end waits for what it has begun to hand over; less than it is given itself
(`chassis.process.roles.STOP_SECONDS_MAX`). An e-mail that is cut off here may come twice."""

_log = structlog.get_logger(__name__)


class Events(Protocol):
    """The event store, as far as the loop reads it. Calls raise StoreUnavailable."""

    async def read_after(self, position: int, limit: int) -> list[StoredEvent]:
        """Events beyond `position`, in order, each with its position."""
        ...


class NoticeLoop(LeasedLoop):
    """Hands the notices of one context over to the providers of their channels.

    The holder of the lease works, others stand by. A notice is handed over with its own id as the provider's
    idempotency key, and what the provider answers is stored after that: a crash in between has it handed over again,
    with the same id and bytes. A provider that does not answer holds back no other channel.

    `limits` are by channel, `to_each` is of each subject on each channel.
    """

    def __init__(
        self,
        name: str,
        notices: Notices,
        events: Events,
        catalogue: Catalogue,
        table: NoticeTable,
        providers: Mapping[Channel, Provider],
        lease: Lease,
        clock: Clock,
        *,
        limits: Mapping[Channel, Limit],
        to_each: Limit,
        hint: Waiting | None = None,
        read_events_max: int = READ_EVENTS_MAX,
        at_once_max: int = AT_ONCE_MAX,
        poll_seconds: float = POLL_SECONDS_MAX,
        tries_max: int = TRIES_MAX,
    ) -> None:
        super().__init__(name, "notices", lease, clock, hint)
        self._notices = notices
        self._events = events
        self._catalogue = catalogue
        self._table = table
        self._providers = dict(providers)
        self._limits = dict(limits)
        self._to_each = to_each
        self._read_max = read_events_max
        self._at_once = at_once_max
        self._poll_seconds = poll_seconds
        self._tries_max = tries_max
        self._position = 0
        self._pruned_at = float("-inf")
        self._working: dict[UUID, tuple[Channel, asyncio.Task[None]]] = {}
        self._paused: dict[Channel, float] = {}
        """Until when a provider is left alone, in seconds of the clock."""
        self._unanswered: Counter[Channel] = Counter()

    @override
    async def _lead(self, epoch: int, stopping: asyncio.Event) -> None:
        try:
            await self.begin()
            self.leading = True
            _log.info("notices lead", role=self.name, epoch=epoch, position=self._position)
            while not stopping.is_set():
                busy = await self.turn(epoch)
                self._succeeded()
                if not busy:
                    await self._wait()
            if self._working:
                under_way = [task for _, task in self._working.values()]
                await asyncio.wait(under_way, timeout=ENDING_SECONDS_MAX)
        finally:
            await ended(*(task for _, task in self._working.values()))
            self._working.clear()

    async def begin(self) -> None:
        """Reads how far the events are folded."""
        self._position = await self._table.position()
        self._paused.clear()
        self._unanswered.clear()

    async def turn(self, epoch: int) -> bool:
        """Folds what was stored and begins with what is due; whether there may be more. After `begin`, under the lease.

        Raises Fenced, and transient errors.
        """
        more = await self._follow(epoch)
        began = await self._begin_due(epoch)
        await self._prune(epoch)
        return more or began

    async def under_way(self) -> None:
        """Returns when everything that was begun is done."""
        await asyncio.gather(*(task for _, task in self._working.values()))

    async def _follow(self, epoch: int) -> bool:
        """Folds what was stored; whether there may be more."""
        stored = await self._events.read_after(self._position, self._read_max)
        if stored:
            self._lease.check()
            folded = folded_from(stored, self._catalogue)
            await self._table.fold(epoch, folded)
            self._position = folded.position
        return len(stored) == self._read_max

    async def _begin_due(self, epoch: int) -> bool:
        """Begins what is due, on the channels whose provider is not left alone; whether there was something."""
        now = self._clock.monotonic()
        busy = Counter(channel for channel, _ in self._working.values())
        # What is under way is still due: so many rows hold as many others as may begin.
        free = {one: self._at_once for one in self._open_channels(now) if busy[one] < self._at_once}
        if not free:
            return False
        began = False
        wall = self._clock.now()
        for due in await self._table.due(wall, free):
            if due.id in self._working or busy[due.channel] >= self._at_once:
                continue
            if wall < due.expires_at and not await self._admits(due.channel):
                continue
            busy[due.channel] += 1
            began = True
            task = asyncio.create_task(self._send(epoch, due))
            self._working[due.id] = due.channel, task
            task.add_done_callback(lambda _, id=due.id: self._working.pop(id, None))  # type: ignore[misc]
        return began

    async def _admits(self, channel: Channel) -> bool:
        """Whether the limit of a channel allows one more now; else the channel is left alone until it does."""
        if self._paused.get(channel, float("-inf")) > self._clock.monotonic():
            return False
        limit = self._limits.get(channel)
        seconds = 0.0 if limit is None else await self._table.take(channel, limit)
        if seconds:
            self._close_for(channel, seconds)
        return not seconds

    def _open_channels(self, now: float) -> list[Channel]:
        return [one for one in SENT if self._paused.get(one, now) <= now]

    async def _send(self, epoch: int, due: Due) -> None:
        try:
            with telemetry.span(f"notice by {due.channel}", {}):
                await self._sent(epoch, due)
        except ProviderUnanswered as error:
            self._back_off(due.channel, error.retry_after_seconds)
            await self._tried(epoch, due, str(error))
        except Exception as error:  # noqa: BLE001 (one notice that fails stops no other)
            if is_transient(error):
                # Of our own servers: the notice stays due, and the loop meets the same server.
                self._back_off(due.channel, None)
                _log.warning("a notice waits", role=self.name, reason=why(error))
                return
            _log.error("a notice broke", subject=str(due.id), reason=reason_of(error))
            await self._tried(epoch, due, reason_of(error))

    async def _sent(self, epoch: int, due: Due) -> None:
        notice, now = await self._notices.current(due.id), self._clock.now()
        requested = notice.requested
        if requested is None or notice.status != "requested":
            await self._table.done(due.id)
            return
        if now >= requested.expires_at:
            await self._give_up(due, "expired")
            return
        message = await self._notices.message(due.id, requested)
        if message is None:
            await self._give_up(due, "erased")
            return
        if (provider := self._providers.get(due.channel)) is None:
            raise ProviderUnanswered("the channel has no provider")
        if not await self._allowed(epoch, due):
            return
        self._lease.check()
        answer = await provider.hand_over(message)
        self._unanswered.pop(due.channel, None)
        await self._notices.answered(due.id, due.subject, provider.name, answer, self._clock.now())
        await self._table.done(due.id)
        self._count(due.channel, type(answer).__name__.lower())

    async def _allowed(self, epoch: int, due: Due) -> bool:
        """Whether the limit of its subject allows a notice now; else it waits."""
        seconds = await self._table.take(f"{due.channel}:{due.subject}", self._to_each)
        if seconds:
            run_at = self._clock.now() + timedelta(seconds=seconds)
            await self._table.later(epoch, Later(due.id, run_at, due.tries, "limited"))
            self._count(due.channel, "limited")
        return not seconds

    async def _tried(self, epoch: int, due: Due, reason: str) -> None:
        """Keeps a try that came to nothing; what our own servers do not keep stays due."""
        tries = due.tries + 1
        self._count(due.channel, "unanswered")
        _log.warning("a notice is tried again", subject=str(due.id), attempt=tries, reason=reason)
        try:
            if tries >= self._tries_max:
                await self._give_up(due._replace(tries=tries), "tries")
                return
            seconds = min(AGAIN_SECONDS_FIRST * 2 ** min(due.tries, DOUBLED_MAX), AGAIN_SECONDS_MAX)
            run_at = self._clock.now() + timedelta(seconds=seconds * (1 + _spread(due.id, tries)))
            await self._table.later(epoch, Later(due.id, run_at, tries, reason))
        except Exception as error:  # noqa: BLE001 (it stays due)
            self._back_off(due.channel, None)
            _log.warning("a notice waits", role=self.name, reason=reason_of(error))

    async def _give_up(self, due: Due, because: GivenUpBecause) -> None:
        await self._notices.given_up(due.id, because, due.tries, self._clock.now())
        await self._table.done(due.id)
        self._count(due.channel, because)
        _log.warning("a notice is given up", subject=str(due.id), attempt=due.tries, reason=because)

    def _back_off(self, channel: Channel, retry_after_seconds: float | None) -> None:
        """Several notices that fail together count as one failure of their provider."""
        seconds = 0.0
        if self._paused.get(channel, float("-inf")) <= self._clock.monotonic():
            seconds = min(PAUSE_SECONDS_FIRST * 2 ** self._unanswered[channel], PAUSE_SECONDS_MAX)
            self._unanswered[channel] = min(self._unanswered[channel] + 1, DOUBLED_MAX)
        if retry_after_seconds is not None:
            seconds = max(seconds, min(retry_after_seconds, RETRY_AFTER_SECONDS_MAX))
        self._close_for(channel, seconds)

    def _close_for(self, channel: Channel, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        self._paused[channel] = max(self._paused.get(channel, until), until)

    async def _prune(self, epoch: int) -> None:
        now = self._clock.monotonic()
        if now - self._pruned_at >= PRUNED_SECONDS:
            more = await self._table.prune(epoch, self._clock.now() - INBOX_KEPT)
            if not more:
                self._pruned_at = now

    async def _wait(self) -> None:
        """Waits for the next event or due time. What is under way stores an event when it is done."""
        now, seconds = self._clock.monotonic(), self._poll_seconds
        waiting = [until - now for until in self._paused.values() if until > now]
        seconds = min([seconds, *waiting])
        open_channels = self._open_channels(now)
        next_at = await self._table.next_at(open_channels) if open_channels else None
        if next_at is not None and not self._working:
            seconds = min(seconds, max(0.0, (next_at - self._clock.now()).total_seconds()))
        await self._pause(seconds)

    def _count(self, channel: Channel, outcome: str) -> None:
        metrics.NOTICES.labels(channel, outcome).inc()


def folded_from(stored: Sequence[StoredEvent], catalogue: Catalogue) -> Folded:
    """What events say about notices. A notice that is requested and settled among them leaves no row."""
    requested: dict[UUID, Requested] = {}
    settled: list[UUID] = []
    read: list[tuple[UUID, str]] = []
    for one in stored:
        id = one.stream_id
        if one.name == REQUESTED:
            event = catalogue.decode(one).event
            assert isinstance(event, NoticeRequested)  # noqa: S101 (its stored name)
            requested[id] = Requested(
                id,
                one.position or 0,
                event.subject,
                event.channel,
                event.requested_at,
                event.expires_at,
                event.inbox,
            )
        elif one.name in SETTLING:
            requested.pop(id, None)
            settled.append(id)
        elif one.name == READ:
            event = catalogue.decode(one).event
            assert isinstance(event, NoticeRead)  # noqa: S101 (its stored name)
            read.append((id, event.by))
    return Folded(stored[-1].position or 0, list(requested.values()), settled, read)


def _spread(id: UUID, tries: int) -> float:
    """From 0 to 1, another one for each notice and try, so that those which failed together do not come together."""
    return uuid5(id, str(tries)).int % 1_000 / 1_000
