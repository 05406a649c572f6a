"""The branch topic: messages are kept and booked batch by batch, and certified by the window.

Offsets are committed only after a batch is booked. A batch that comes again is the same bytes or the same
identities, and adds nothing.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from io import BytesIO
from typing import Any, Final, Protocol

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]

from sync_ingest.adapters.topic import Frame, framed
from sync_ingest.archive import SourceBusy
from sync_ingest.ingesting import FeedContent, Ingest, RunResult

GROUP: Final = "sync-ingest.corebank-postings"
TOPIC: Final = "corebank.postings"
BATCH_MESSAGES_MAX: Final = 2_000
POLL_MILLISECONDS: Final = 500
BACK_OFF_SECONDS: Final = (0.2, 1.0, 5.0)
SOURCE_HEADER: Final = "source"

Opened = Callable[[], AbstractContextManager[Ingest]]


class Message(Protocol):
    """What of a consumed record matters here."""

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...

    @property
    def value(self) -> bytes | None: ...


class _Named(msgspec.Struct):
    source: str | None = None


_named: Final = msgspec.json.Decoder(_Named)


def source_of(headers: Sequence[tuple[str, bytes]], value: bytes, default: str) -> str:
    """Which source a message is of: its header, else what its record says, else the topic's own."""
    for name, content in headers:
        if name == SOURCE_HEADER:
            named = content.decode("utf-8", "replace").strip()
            break
    else:
        try:
            named = _named.decode(value).source or ""
        except (msgspec.DecodeError, UnicodeDecodeError):
            named = ""
    return named if named and ":" not in named and len(named) <= 64 else default


class BranchFeed:
    """Books batches of the topic and closes windows; the consumer loop calls it, one batch at a time."""

    def __init__(
        self, opened: Opened, *, default_source: str, window: timedelta, now: Callable[[], datetime]
    ) -> None:
        self._opened = opened
        self._default_source = default_source
        self._window = window
        self._now = now
        self._window_ends_at = self._end_of_window()

    def book(self, messages: Sequence[Message]) -> int:
        """Keeps and books what came; returns how many events were added."""
        frames: dict[str, list[Frame]] = {}
        for message in messages:
            value = message.value or b""
            source = source_of(message.headers, value, self._default_source)
            frames.setdefault(source, []).append(Frame(message.partition, message.offset, value))
        appended = 0
        with self._opened() as ingest:
            for source, of_source in frames.items():
                first, last = of_source[0], of_source[-1]
                name = f"{TOPIC}[{first.partition}:{first.offset}-{last.partition}:{last.offset}]"
                feed = FeedContent(name, partial(BytesIO, framed(of_source)))
                appended += ingest.keep(source, feed, format="topic").appended
        return appended

    def close_windows(self) -> list[RunResult]:
        """Certifies what the window that has ended brought; nothing before its end."""
        if self._now() < self._window_ends_at:
            return []
        with self._opened() as ingest:
            closed = [
                result
                for source in ingest.archive.sources_with_open("topic")
                for result in ingest.close_window(source)
            ]
        self._window_ends_at = self._end_of_window()
        return closed

    def _end_of_window(self) -> datetime:
        """Windows begin at whole multiples of their length, so that those of all sources and restarts agree."""
        now = self._now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight + ((now - midnight) // self._window + 1) * self._window


async def follow(
    feed: BranchFeed, kafka_url: str, stopping: asyncio.Event, sleep: Callable[[float], Any]
) -> None:
    """Follows the topic until `stopping`; a batch that fails is tried again, then the process ends loudly."""
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=kafka_url,
        group_id=GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=BATCH_MESSAGES_MAX,
    )
    await consumer.start()
    try:
        while not stopping.is_set():
            polled = await consumer.getmany(timeout_ms=POLL_MILLISECONDS, max_records=BATCH_MESSAGES_MAX)
            messages = [message for of_partition in polled.values() for message in of_partition]
            if messages:
                await _booked(feed, messages, sleep)
                await consumer.commit(_after(polled))
            await asyncio.to_thread(feed.close_windows)
    finally:
        await consumer.stop()


async def _booked(feed: BranchFeed, messages: Sequence[Message], sleep: Callable[[float], Any]) -> None:
    for seconds in (*BACK_OFF_SECONDS, None):
        try:
            await asyncio.to_thread(feed.book, messages)
        except (SourceBusy, ConnectionError, TimeoutError):
            if seconds is None:
                raise
            await sleep(seconds)
        else:
            return


def _after(polled: Mapping[TopicPartition, Sequence[Message]]) -> dict[TopicPartition, int]:
    return {partition: messages[-1].offset + 1 for partition, messages in polled.items() if messages}
