"""The relay's loop over its ports: read, publish, wait for acknowledgements, save the position, publish
watermarks.

It owns no thread, socket or clock, so the simulation runs the same loop over its own servers and time.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha1
from math import inf
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from uuid import UUID

import msgspec
import structlog
from contracts.envelope import LATE, Watermark, headers_of
from contracts.registry import PublicEvent
from contracts.topics import Topic, place_of
from typing_extensions import override

from chassis.clock import Clock
from chassis.connections.transient import TRANSIENT, is_transient, why
from chassis.ending import ended
from chassis.messaging.records import Record
from chassis.messaging.transport import Publisher
from chassis.observability import metrics
from chassis.observability.reasons import reason_of
from chassis.process.leases import Lease
from chassis.write.events import StoredEvent
from chassis.write.store.items import Fenced

BATCH_EVENTS_MAX: Final = 2_000
POLL_SECONDS_MAX: Final = 0.5
WATERMARK_SECONDS: Final = 1.0
"""The interval between watermarks of a partition while events come. Readers learn their position after at
most this time."""
SETTLED_SECONDS: Final = 0.05
"""Appends that follow each other within this time are covered by one watermark."""
SIGN_OF_LIFE_SECONDS: Final = 600.0
"""How often a watermark is published while there are no events."""
BACK_OFF_SECONDS_FIRST: Final = 0.1
BACK_OFF_SECONDS_MAX: Final = 2.0
FENCED_SECONDS: Final = 1.0
RECORD_BYTES_MAX: Final = 1_000_000
"""Key, headers and body of a record together; a broker takes 1 MiB (`message.max.bytes`), its own framing
included."""
HEADERS_BYTES_MAX: Final = 100_000
"""Of a record. The trace context is the only part of them that others give, and a server takes 64 KiB of
headers. A record's size is only summed up where its body comes so close to the limit."""
HELD_LOOKED_SECONDS: Final = 2.0
"""How often a relay that holds subjects checks for a request to try one of them again."""
HELD_SHOWN_MAX: Final = 3
STREAM_EVENTS_MAX: Final = 1_000
METADATA_CACHED_MAX: Final = 4_096
"""Events of one transaction have the same metadata, byte for byte."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Published(Protocol):
    """The public event of a stored event."""

    @property
    def event(self) -> type[PublicEvent]:
        """The public event's model."""
        ...

    @property
    def body(self) -> bytes:
        """Its JSON."""
        ...


Words = Callable[[StoredEvent], Published | None]
"""Returns the public event of a stored event; None where the event is private to its context."""


class RecordOversized(ValueError):
    """A record is larger than the broker's limit."""

    own_words = True


class Log(Protocol):
    """The store, as far as a relay reads it."""

    async def read_after(self, position: int, limit: int) -> list[StoredEvent]:
        """Events beyond `position`, in order, each with its position; raises StoreUnavailable."""
        ...

    async def read_stream(self, stream_id: UUID, after: int, limit: int) -> list[StoredEvent]:
        """Events of one stream beyond version `after`, in order; raises StoreUnavailable."""
        ...


class Held(NamedTuple):
    """An event that cannot be published.

    Its subject is held: later events of the subject wait, so that their order stays.

    `again`: an operator has asked for another try, after repairing the cause.
    """

    subject: UUID
    position: int
    version: int
    name: str
    reason: str
    again: bool = False


class Counted(NamedTuple):
    """The number of events in each partition up to a position, each counted once; empty where none was
    counted yet.

    A relay that was set back goes on with these counts once it is past `position`.
    """

    events: tuple[int, ...] = ()
    position: int = 0


class RelayPositions(Protocol):
    """The position up to which a context was published. Only the holder of the lease may save it."""

    async def read(self) -> int:
        """The position up to which everything was published; 0 at first. Raises StoreUnavailable."""
        ...

    async def counted(self) -> Counted | None:
        """The counts; None where events were not counted from the beginning. Raises StoreUnavailable."""
        ...

    async def held(self) -> list[Held]:
        """The subjects that are held. Raises StoreUnavailable."""
        ...

    async def let_go(self, epoch: int, subject: UUID, held: Held | None) -> None:
        """Holds a subject at another event than before, or no longer; raises Fenced and StoreUnavailable as
        `save`."""
        ...

    async def save(
        self, epoch: int, position: int, held: Sequence[Held] = (), counted: Counted | None = None
    ) -> None:
        """Keeps the position, the subjects that are held from now on and the counts, together; raises Fenced
        where `epoch` is not the lease's latest, StoreUnavailable in doubt."""
        ...


class Hint(Protocol):
    """A hint that there may be events to read. It may be wrong, and it may be missing."""

    async def wait(self, seconds_max: float) -> None:
        """Returns when there may be events to read, at the latest after `seconds_max`."""
        ...


class Polling(Hint):
    """Gives no hint: the store is read again every time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @override
    async def wait(self, seconds_max: float) -> None:
        await self._clock.sleep(seconds_max)


class _Metadata(msgspec.Struct):
    effective_at: datetime
    recorded_at: datetime
    correlation_id: str
    causation_id: str
    trace: dict[str, str] = {}


class _Body(msgspec.Struct):
    meta: msgspec.Raw


class _Batch(NamedTuple):
    records: list[Record]
    last: int | None
    oldest_at: datetime | None
    caught_up: bool
    read_at: datetime
    held: tuple[Held, ...] = ()
    """Events of this batch that cannot be published."""
    holding: Mapping[UUID, Held] = {}
    """All subjects that are held after this batch."""
    counts: Sequence[int] = ()
    """The number of records that each partition gets for the first time."""


_bodies: Final = msgspec.json.Decoder(_Body)
_metadata: Final = lru_cache(METADATA_CACHED_MAX)(msgspec.json.Decoder(_Metadata).decode)


class Relay:
    """Publishes what a context's store holds: everything, in order per subject, at least once.

    The relay that holds the context's lease publishes, others stand by. Should two publish at once, both
    publish the same events in the same order, and only the later holder may save its position. A position
    is saved only after its records are acknowledged. A watermark never precedes the events that it covers.
    """

    def __init__(
        self,
        context: str,
        topic: Topic,
        log: Log,
        positions: RelayPositions,
        lease: Lease,
        publisher: Publisher,
        words: Words,
        clock: Clock,
        *,
        hint: Hint | None = None,
        batch_max: int = BATCH_EVENTS_MAX,
        poll_seconds: float = POLL_SECONDS_MAX,
    ) -> None:
        self.name = f"{context}-relay"
        self.context = context
        self.leading = False
        self.position = 0
        self.published = 0
        self.failing: str | None = None
        self.record_bytes_max = RECORD_BYTES_MAX
        """A larger record is held, and its subject with it; all other subjects go on."""
        self._topic = topic
        self._log = log
        self._positions = positions
        self._lease = lease
        self._publisher = publisher
        self._words = words
        self._clock = clock
        self._hint = hint or Polling(clock)
        self._batch_max = batch_max
        self._poll_seconds = poll_seconds
        self._holding: Mapping[UUID, Held] = {}
        self._counted: Counted | None = None
        self._counted_before = 0
        self._looked_seconds = 0.0
        self._ahead: asyncio.Task[_Batch] | None = None
        self._oldest_at: datetime | None = None
        self._marked: int | None = None
        self._marked_seconds = 0.0
        self._moved_seconds = 0.0
        self._back_off_seconds = BACK_OFF_SECONDS_FIRST

    async def run(self, stopping: asyncio.Event) -> None:
        """Relays until `stopping` is set.

        Goes on after servers that did not answer and after another relay took the lease.
        """
        while not stopping.is_set():
            try:
                epoch = await self._lease.acquire_unless(stopping, self._stands_by)
                if epoch is not None:
                    await self._lease.during(self._lead(epoch, stopping))
            except Fenced:
                metrics.LEASES_LOST.labels(self.name).inc()
                _log.warning("relay fenced", context=self.context, position=self.position)
                await self._clock.sleep(FENCED_SECONDS)
            except TRANSIENT as error:
                await self._back_off(error)
            finally:
                self.leading = False
        await self._lease.release()

    def not_ready(self) -> list[str]:
        """Why no event, or not every event, is published. A relay that stands by is ready."""
        reasons = [f"{self.name}: {self.failing}"] if self.failing is not None else []
        held = sorted(self._holding.values(), key=lambda one: one.position)
        reasons += [
            f"{self.name}: subject {one.subject} is held at position {one.position} ({one.name}): {one.reason}"
            for one in held[:HELD_SHOWN_MAX]
        ]
        if len(held) > HELD_SHOWN_MAX:
            reasons.append(f"{self.name}: {len(held)} subjects are held in all")
        return reasons

    @property
    def held(self) -> int:
        """The number of subjects that are held because one of their events cannot be published."""
        return len(self._holding)

    def outbox_age_seconds(self) -> float:
        """How long the oldest event that was read and is not acknowledged yet has been stored."""
        if self._oldest_at is None:
            return 0.0
        return max(0.0, (self._clock.now() - self._oldest_at).total_seconds())

    def _stands_by(self) -> None:
        """The database answers: a process that stands by lacks nothing."""
        self.failing = None

    async def _lead(self, epoch: int, stopping: asyncio.Event) -> None:
        self.position = await self._positions.read()
        self._holding = {one.subject: one for one in await self._positions.held()}
        self._counted = self._usable(await self._positions.counted())
        self._counted_before = 0 if self._counted is None else self._counted.position
        self._marked, self._oldest_at = None, None
        self.leading, batch = True, None
        _log.info("relay leads", context=self.context, epoch=epoch, position=self.position)
        try:
            while not stopping.is_set():
                batch = await self._unless_unanswered(self._publish_next())
                if batch is None:
                    continue
                if batch.last is not None:
                    counted = self._after(batch)
                    await self._positions.save(epoch, batch.last, batch.held, counted)
                    self._counted = counted
                    self._advanced(batch)
                await self._unless_unanswered(self._try_again(epoch))
                await self._unless_unanswered(self._mark(batch))
                if batch.caught_up:
                    due_seconds = self._seconds_to_watermark(caught_up=True)
                    await self._hint.wait(min(self._poll_seconds, max(0.0, due_seconds)))
            if batch is not None:
                await self._unless_unanswered(self._mark(batch, ending=True))
        finally:
            await self._forget_ahead()

    def _usable(self, counted: Counted | None) -> Counted | None:
        """The counts, unless they are for another number of partitions."""
        if counted is None or len(counted.events) == self._topic.partitions:
            return counted
        return None if counted.events else Counted((0,) * self._topic.partitions, counted.position)

    def _after(self, batch: _Batch) -> Counted | None:
        """The counts after a batch is published."""
        if self._counted is None or batch.last is None or batch.last <= self._counted.position:
            return self._counted
        pairs = zip(self._counted.events, batch.counts, strict=True)
        return Counted(tuple(before + more for before, more in pairs), batch.last)

    async def _unless_unanswered(self, doing: Coroutine[Any, Any, T]) -> T | None:
        """Returns the result of the work; None, after a back-off, where a server did not answer, or a newer process stored an
        event.

        Drops events read ahead.
        """
        try:
            done = await doing
        except Fenced:
            raise
        except TRANSIENT as error:
            await self._forget_ahead()
            await self._back_off(error)
            return None
        self.failing, self._back_off_seconds = None, BACK_OFF_SECONDS_FIRST
        return done

    async def _publish_next(self) -> _Batch:
        batch = await self._next()
        if batch.records:
            self._lease.check()
            await self._publisher.publish(batch.records)
        return batch

    def _advanced(self, batch: _Batch) -> None:
        self.position = self.position if batch.last is None else batch.last
        self._moved_seconds = self._clock.monotonic()
        self.published += len(batch.records)
        self._holding = batch.holding
        self._oldest_at = None
        for one in batch.held:
            _log.error("event held", context=self.context, position=one.position, reason=one.reason)

    async def _try_again(self, epoch: int) -> None:
        """Publishes the waiting events of the subjects that are to be tried again, up to the relay's
        position."""
        if not self._holding or self._clock.monotonic() - self._looked_seconds < HELD_LOOKED_SECONDS:
            return
        self._looked_seconds = self._clock.monotonic()
        for one in await self._positions.held():
            if one.again:
                await self._forget_ahead()  # it was read as if the subject were held
                still = await self._published_again(one)
                await self._positions.let_go(epoch, one.subject, still)
                left = {subject: each for subject, each in self._holding.items() if subject != one.subject}
                self._holding = left if still is None else {**left, one.subject: still}

    async def _published_again(self, held: Held) -> Held | None:
        """Publishes a subject's events from the held one on.

        Returns the event that still cannot be published.
        """
        after, still = held.version - 1, None
        while still is None:
            events = await self._log.read_stream(held.subject, after, STREAM_EVENTS_MAX)
            due = [
                event for event in events if event.position is not None and event.position <= self.position
            ]
            records, _, found, _ = self._worded(due, {}, [0] * self._topic.partitions)
            self._lease.check()
            await self._publisher.publish([one._replace(headers=[*one.headers, LATE]) for one in records])
            self.published += len(records)
            still = found[0] if found else None
            if len(due) < STREAM_EVENTS_MAX:
                break
            after = due[-1].version
        return still

    async def _mark(self, batch: _Batch, *, ending: bool = False) -> None:
        """Publishes watermarks; only called when all events before them are acknowledged.

        A relay that ends publishes the watermarks that are due, so that readers need not wait for the next
        relay.
        """
        unsaid = ending and self.position not in {0, self._marked}
        if not unsaid and self._seconds_to_watermark(caught_up=batch.caught_up) > 0:
            return
        self._lease.check()
        counted, name = self._counted, self._topic.name
        known = counted is not None and counted.position <= self.position
        marks = [
            Watermark(
                self.context,
                self.position,
                batch.read_at,
                counted.events[number] if known and counted else None,
            )
            for number in range(self._topic.partitions)
        ]
        await self._publisher.publish(
            [Record(name, number, b"", mark.headers(number), mark.body) for number, mark in enumerate(marks)]
        )
        self._marked, self._marked_seconds = self.position, self._clock.monotonic()

    def _seconds_to_watermark(self, *, caught_up: bool) -> float:
        """How long until the next watermark, if nothing else happens; 0 or less where it is due."""
        if self.position == 0:
            return inf
        now = self._clock.monotonic()
        silent_seconds = now - self._marked_seconds
        if self._marked == self.position:
            return SIGN_OF_LIFE_SECONDS - silent_seconds
        least_seconds = 0.0 if self._marked is None else WATERMARK_SECONDS - silent_seconds
        if caught_up:
            return max(least_seconds, SETTLED_SECONDS - (now - self._moved_seconds))
        return WATERMARK_SECONDS - silent_seconds

    async def _next(self) -> _Batch:
        """Returns the next batch. The batch after it is read and translated while this one is published."""
        ahead, self._ahead = self._ahead, None
        batch = await (self._read(self.position, self._holding) if ahead is None else ahead)
        if self._oldest_at is None:
            self._oldest_at = batch.oldest_at
        if batch.last is not None and not batch.caught_up:
            self._ahead = asyncio.ensure_future(self._read(batch.last, batch.holding))
        return batch

    async def _read(self, position: int, holding: Mapping[UUID, Held]) -> _Batch:
        read_at = self._clock.now()
        events = await self._log.read_after(position, self._batch_max)
        counts = [0] * self._topic.partitions
        records, oldest_at, held, holding = self._worded(events, holding, counts)
        last = events[-1].position if events else None
        caught_up = len(events) < self._batch_max
        return _Batch(records, last, oldest_at, caught_up, read_at, tuple(held), holding, counts)

    def _worded(
        self, events: Sequence[StoredEvent], holding: Mapping[UUID, Held], counts: list[int]
    ) -> "tuple[list[Record], datetime | None, list[Held], Mapping[UUID, Held]]":
        """Returns the records of these events, without those of held subjects.

        Also returns the events that cannot be published, with all subjects that are held because of them.
        `counts` gets the events that no relay has counted before.
        """
        records: list[Record] = []
        held: list[Held] = []
        oldest_at: datetime | None = None
        for stored in events:
            if stored.position is None or (holding and stored.stream_id in holding):
                continue
            try:
                found = self._record(stored)
            except Exception as error:
                if is_transient(error):
                    raise
                reason = reason_of(error)
                one = Held(stored.stream_id, stored.position, stored.version, stored.name, reason)
                held.append(one)
                holding = {**holding, one.subject: one}
                continue
            if found is not None:
                oldest_at = oldest_at or found[1]
                records.append(found[0])
                if stored.position > self._counted_before:
                    counts[found[0].partition] += 1
        return records, oldest_at, held, holding

    def _record(self, stored: StoredEvent) -> tuple[Record, datetime] | None:
        """Returns the record of an event, and the instant of its recording; raises where it cannot be
        published."""
        name, partitions, context = self._topic.name, self._topic.partitions, self.context
        words = self._words(stored)
        if words is None or stored.position is None:
            return None
        meta = _metadata(bytes(_bodies.decode(stored.body).meta))
        subject, trace = stored.stream_id, meta.trace
        key, partition = place_of(subject.int, partitions)
        headers = headers_of(
            _event_id(subject.bytes, stored.version),
            words.event.TYPE,
            words.event.VERSION,
            context,
            key,
            stored.version,
            stored.position,
            meta.recorded_at,
            meta.effective_at,
            stored.name,
            meta.correlation_id,
            meta.causation_id,
            trace.get("traceparent"),
            trace.get("tracestate"),
        )
        if len(words.body) > self.record_bytes_max - HEADERS_BYTES_MAX:
            size = len(key) + len(words.body) + sum(len(title) + len(value) for title, value in headers)
            if size > self.record_bytes_max:
                raise RecordOversized(f"{size} bytes; the broker takes {self.record_bytes_max} for {name}")
        return Record(name, partition, key, headers, words.body), meta.recorded_at

    async def _forget_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await ended(ahead)

    async def _back_off(self, error: Exception) -> None:
        self.failing = why(error)
        _log.warning("relay waits", context=self.context, error=type(error).__name__, at=self.position)
        await self._clock.sleep(self._back_off_seconds)
        self._back_off_seconds = min(2 * self._back_off_seconds, BACK_OFF_SECONDS_MAX)


def _event_id(stream: bytes, version: int) -> str:
    """The text of `chassis.write.events.event_id`, at a third of its price."""
    digest = bytearray(sha1(stream + b"%d" % version, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
