"""The branch topic: messages are kept and booked batch by batch, and certified by the window.

Offsets are committed only after a batch is booked. A batch that comes again is the same bytes or the same
identities, and adds nothing.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from io import BytesIO
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from chassis.clock import Clock
from chassis.connections.transient import LOST, why
from chassis.ending import Threads, ended
from chassis.messaging.answering import answering
from chassis.messaging.dead_letters import TRIES_MAX, Custody, DeadLetters
from chassis.messaging.records import Record
from chassis.messaging.transport import Consumer, KafkaPublisher, ensure_topics
from chassis.observability.metrics import DEAD_LETTERS, LAG_EVENTS
from chassis.observability.reasons import reason_of
from chassis.observability.telemetry import places as places_of
from chassis.read.parking import is_of_the_record
from contracts.envelope import Header
from contracts.topics import COREBANK_POSTINGS, dead_letters

from sync_ingest.adapters.topic import Frame, framed
from sync_ingest.domain.sources import UNATTRIBUTED, SourceLooksAlike, SourceNameInvalid, checked_source
from sync_ingest.enduring import Opened
from sync_ingest.reporting import note_run
from sync_ingest.runs.ingest import Ingest
from sync_ingest.runs.results import FeedContent, RunResult

GROUP: Final = "sync-ingest.feed"
CONTEXT: Final = "corebank"
TOPIC: Final = COREBANK_POSTINGS.name
BATCH_MESSAGES_MAX: Final = 2_000
WINDOW_LOOK_SECONDS: Final = 1.0
THREADS_MAX: Final = 2
"""One books, another one closes windows."""
STOPPED_SECONDS_MAX: Final = 8.0
"""How long calls may go on after the role was told to stop. The producer is let go within 3 s after that, before a process
cuts its roles off (`chassis.process.roles`)."""
SOURCE_HEADER: Final = "source"
TRACE_HEADER: Final = "traceparent"

HEADERS_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        SOURCE_HEADER: {
            "type": "string",
            "minLength": 1,
            "maxLength": 64,
            "pattern": "^[^:]+$",
            "description": "The name of the system that sends. A record that names none here or in its field `source`"
            " is quarantined.",
        },
        TRACE_HEADER: {"type": "string", "description": "W3C trace context, which goes on through booking"},
        "content-type": {"const": "application/json"},
    },
    "required": [SOURCE_HEADER],
}
EXAMPLE: Final[dict[str, Any]] = {
    "record": "posting",
    "account": "6222021234566789",
    "core_transaction_id": "2026-01-05/000017",
    "amount_minor": 1250000,
    "currency": "CNY",
    "booked_on": "2026-01-05",
    "kind": "transfer",
}

_TRACE: Final = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_log = structlog.get_logger(__name__)


class _Named(msgspec.Struct):
    source: Any = None


_named: Final = msgspec.json.Decoder(_Named)


class Attributed(NamedTuple):
    """Which source a message is of; where it names none that can be used, `refused` says why."""

    source: str
    refused: str | None = None


def source_of(headers: Sequence[Header], value: bytes, default: str | None) -> Attributed:
    """The source of a message: its header, else what its record says, else the default where the settings name one.

    A name that is there and cannot be used is never replaced by another: the message is nobody's, and waits for a
    person under `UNATTRIBUTED`. So does one that names none where there is no default, one with several headers, and
    one whose header and record name two sources. `ce_source` is not read: a URI is no name of a source.
    """
    named = [content for name, content in headers if name == SOURCE_HEADER]
    if len(named) > 1:
        return Attributed(UNATTRIBUTED, "source-ambiguous")
    try:
        of_header = checked_source((named[0] or b"").decode().strip()) if named else None
        of_record = _source_in(value)
    except (SourceNameInvalid, UnicodeDecodeError):
        return Attributed(UNATTRIBUTED, "source-invalid")
    if of_header is not None and of_record is not None and of_header != of_record:
        return Attributed(UNATTRIBUTED, "source-contradicted")
    found = of_header or of_record or default
    return Attributed(UNATTRIBUTED, "source-missing") if found is None else Attributed(found)


def _source_in(value: bytes) -> str | None:
    """The source that a record names; None where it names none or is no record. Raises SourceNameInvalid."""
    try:
        named = _named.decode(value).source
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if named is None:
        return None
    if not isinstance(named, str):
        raise SourceNameInvalid("a source is named by text")
    return checked_source(named)


def trace_of(headers: Sequence[Header]) -> str | None:
    """The W3C parent that a message carries, if it is one."""
    for name, content in headers:
        # A sender of records may leave the value of a header out, which the client gives as None.
        if name == TRACE_HEADER and _TRACE.fullmatch(content or b""):
            return content.decode("ascii")
    return None


class BranchFeed:
    """Books batches of the topic and closes windows: blocking, for the threads of whoever consumes."""

    def __init__(
        self, opened: Opened, *, default_source: str | None, window: timedelta, now: Callable[[], datetime]
    ) -> None:
        self._opened = opened
        self._default_source = default_source
        self._window = window
        self._now = now
        self._window_ends_at = self._end_of_window()
        self._uncertified: set[str] = set()
        """Sources whose last window is not certified yet."""

    def book(self, messages: Sequence[Record]) -> int:
        """Keeps and books what came; returns how many events were added."""
        frames: dict[str, list[Frame]] = {}
        for message in messages:
            source, refused = source_of(message.headers, message.value, self._default_source)
            trace = trace_of(message.headers)
            frame = Frame(message.partition, message.offset or 0, message.value, trace, refused)
            frames.setdefault(source, []).append(frame)
        appended = 0
        nobodys = frames.pop(UNATTRIBUTED, [])
        with self._opened() as ingest:
            for source, of_source in frames.items():
                try:
                    appended += _kept(ingest, source, of_source)
                except SourceLooksAlike as refusal:
                    nobodys += [frame._replace(refused=refusal.code) for frame in of_source]
            if nobodys:
                appended += _kept(ingest, UNATTRIBUTED, nobodys)
        return appended

    def book_singly(self, messages: Sequence[Record]) -> list[tuple[Record, str]]:
        """Books message by message; returns those that cannot be booked, each with the reason."""
        poison = []
        for message in messages:
            try:
                self.book([message])
            except Exception as error:
                if not is_of_the_record(error):
                    raise
                poison.append((message, reason_of(error)))
        return poison

    def close_windows(self) -> list[RunResult]:
        """Certifies what the window that has ended brought, source by source; nothing before its end.

        A source that cannot be certified holds no other back: it is tried again by the next call. Raises what
        failed first, after the others are certified; a server that does not answer ends the call at once.
        """
        closed: list[RunResult] = []
        failed: list[Exception] = []
        if self._now() >= self._window_ends_at:
            with self._opened() as ingest:
                self._uncertified |= set(ingest.archive.intakes.sources_with_open("topic"))
            self._window_ends_at = self._end_of_window()
        for source in sorted(self._uncertified):
            try:
                with self._opened() as ingest:
                    results = ingest.close_window(source)
            except LOST:
                raise
            except Exception as error:  # noqa: BLE001 (raised below)
                failed.append(error)
                continue
            self._uncertified.discard(source)
            closed += results
            for result in results:
                note_run("window certified", result)
        if failed:
            raise failed[0]
        return closed

    def _end_of_window(self) -> datetime:
        """Windows begin at whole multiples of their length, so that those of all sources and restarts agree."""
        now = self._now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight + ((now - midnight) // self._window + 1) * self._window


def _kept(ingest: Ingest, source: str, frames: Sequence[Frame]) -> int:
    """Keeps and books the messages of one source; returns how many events were added."""
    first, last = frames[0], frames[-1]
    name = f"{TOPIC}[{first.partition}:{first.offset}-{last.partition}:{last.offset}]"
    kept = ingest.keep(source, FeedContent(name, partial(BytesIO, framed(frames))), format="topic")
    note_run("batch booked", kept, certified=False)
    return kept.appended


class FeedRole:
    """Follows the topic and closes windows, until it is stopped. What fails is tried again and said by `not_ready`."""

    name: Final = "sync-ingest-feed"

    def __init__(
        self,
        feed: BranchFeed,
        kafka_url: str,
        clock: Clock,
        custody: Custody,
        *,
        instance: str | None = None,
        close: Callable[[], None] = lambda: None,
        stopped_seconds_max: float = STOPPED_SECONDS_MAX,
    ) -> None:
        self._feed = feed
        self._stopped_seconds_max = stopped_seconds_max
        self._kafka_url = kafka_url
        self._close = close
        self._clock = clock
        self._windows_failing: str | None = None
        self._unanswered: Callable[[], list[str]] = list
        self._threads = Threads(GROUP, THREADS_MAX)
        self._tried: dict[int, tuple[int, int]] = {}
        """By partition: the place from which a batch failed last, and how often."""
        self._publisher = KafkaPublisher(kafka_url, client_id=GROUP)
        self._letters = DeadLetters(GROUP, self._publisher, clock, custody=custody)
        self._consumer = Consumer(
            kafka_url,
            [TOPIC],
            GROUP,
            self._book,
            batch_max=BATCH_MESSAGES_MAX,
            instance=instance,
            dead_letter=self._letters.write_uncopied,
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Raises BrokerUnavailable where the broker does not answer at the start; later losses are waited out."""
        await ensure_topics(self._kafka_url, [COREBANK_POSTINGS, dead_letters(GROUP)])
        windows = asyncio.create_task(self._close_windows(stopping))
        told = asyncio.create_task(self._told(stopping))
        try:
            async with answering(self._kafka_url, [COREBANK_POSTINGS], self._clock) as self._unanswered:
                await self._consumer.run(stopping)
        finally:
            # One limit for the batch in hand and for the window: both wait for calls in the same threads.
            since = told.result() if told.done() else self._clock.monotonic()
            await ended(windows, told)
            left_seconds = max(0.0, self._stopped_seconds_max - (self._clock.monotonic() - since))
            if not await self._threads.ended(left_seconds):
                _log.warning(
                    "a call goes on; what it uses is closed after it", seconds=self._stopped_seconds_max
                )
            await self._publisher.close()
            await asyncio.to_thread(self._close)

    def not_ready(self) -> list[str]:
        """Why postings of branches are not booked, or windows not certified, just now."""
        reasons = self._unanswered()
        if self._consumer.failing:
            reasons.append(f"the last batch was not booked: {self._consumer.failing}")
        if self._windows_failing:
            reasons.append(f"the last window was not certified: {self._windows_failing}")
        return reasons

    async def lag(self) -> int:
        """Messages that wait on the partitions of this member."""
        return sum((await self._consumer.lag()).values())

    async def _told(self, stopping: asyncio.Event) -> float:
        """When the role was told to stop."""
        await stopping.wait()
        return self._clock.monotonic()

    async def _book(self, records: Sequence[Record]) -> None:
        begins = _begins(records)
        try:
            await self._threads.run(self._feed.book, records)
        except Exception as error:
            if not is_of_the_record(error):
                raise
            if self._failed(begins) < TRIES_MAX:
                raise
            poison = await self._threads.run(self._feed.book_singly, records)
            await self._letters.write(poison)
            for record, reason in poison:
                _log.error("message not booked", partition=record.partition, reason=reason)
        for partition in begins:
            self._tried.pop(partition, None)

    def _failed(self, begins: Mapping[int, int]) -> int:
        """Counts a failure of a batch; how often what it begins with has failed. It may come again in another batch."""
        before = [tries for partition, (at, tries) in self._tried.items() if begins.get(partition) == at]
        tries = 1 + max(before, default=0)
        self._tried |= {partition: (offset, tries) for partition, offset in begins.items()}
        return tries

    async def _close_windows(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            # Whatever fails is said and tried again: nobody would notice that this task has ended.
            try:
                await self._threads.run(self._feed.close_windows)
            except Exception as error:  # noqa: BLE001
                if self._windows_failing != why(error):
                    _log.error("window not certified", reason=why(error), where=places_of(error, 1))
                self._windows_failing = why(error)
            else:
                self._windows_failing = None
            DEAD_LETTERS.labels(GROUP).set(self._letters.written)
            LAG_EVENTS.labels(GROUP, CONTEXT).set(await self.lag())
            await self._clock.sleep(WINDOW_LOOK_SECONDS)


def _begins(records: Sequence[Record]) -> dict[int, int]:
    """The first offset of each partition of a batch."""
    found: dict[int, int] = {}
    for record in records:
        offset = record.offset or 0
        found[record.partition] = min(offset, found.get(record.partition, offset))
    return found
