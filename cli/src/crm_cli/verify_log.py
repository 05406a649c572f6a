"""The log of a context against its topic, record by record: I1, I3, I7 and I9, in one pass over both.

The relay publishes in the order of positions, so a partition holds the events of its subjects in that
order; a relay that was interrupted publishes some of them again. What is expected is made here from the
stored bytes, by other code than the relay's, save for the public words, which are the context's own.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha1
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from chassis.messaging.records import Record
from chassis.messaging.transport import PartitionsToEnd
from chassis.relay import StoreLog
from chassis.write.events import StoredEvent
from contracts.envelope import LATE, Envelope, EnvelopeInvalid, Watermark, headers_of, unwrap
from contracts.topics import place_of

from crm_cli.contexts import Context
from crm_cli.verify_report import Report

PAGE_EVENTS: Final = 2_000
PAGE_RECORDS: Final = 50
"""Of each partition: more do not stay in the processor's cache until they are compared."""
MISSED_MAX: Final = 10_000
REPEATS_MAX: Final = 1_000
"""Repeated records that are looked up in the store together."""
METADATA_CACHED_MAX: Final = 4_096
"""Events of one transaction have the same metadata, as bytes."""
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The digit of a UUID that has its variant, by the digit of the digest."""


class _Metadata(msgspec.Struct):
    effective_at: datetime
    recorded_at: datetime
    correlation_id: str
    causation_id: str
    trace: dict[str, str] = {}


class _Body(msgspec.Struct):
    meta: msgspec.Raw


_bodies: Final = msgspec.json.Decoder(_Body)
_metadata: Final = lru_cache(METADATA_CACHED_MAX)(msgspec.json.Decoder(_Metadata).decode)


class Expected(NamedTuple):
    """A record that must be on the topic."""

    position: int
    type: str
    record: Record
    version: int
    stored: StoredEvent


def expected(context: Context, stored: StoredEvent) -> Expected | None:
    """Returns the expected record of a stored event on the topic; None for an event that is not published."""
    words = context.words(stored)
    if words is None or stored.position is None:
        return None
    meta = _metadata(bytes(_bodies.decode(stored.body).meta))
    subject, partition = place_of(stored.stream_id.int, context.topic.partitions)
    headers = headers_of(
        id=_id(stored.stream_id, stored.version),
        type=words.event.TYPE,
        version=words.event.VERSION,
        context=context.name,
        subject=subject,
        sequence=stored.version,
        position=stored.position,
        recorded_at=meta.recorded_at,
        effective_at=meta.effective_at,
        stored_name=stored.name,
        correlation_id=meta.correlation_id,
        causation_id=meta.causation_id,
        traceparent=meta.trace.get("traceparent"),
        tracestate=meta.trace.get("tracestate"),
    )
    record = Record(context.topic.name, partition, subject, headers, words.body)
    return Expected(stored.position, words.event.TYPE, record, words.event.VERSION, stored)


class Read(NamedTuple):
    """A stored event that can be read, and its record; None where it is not published."""

    stored: StoredEvent
    wanted: Expected | None


class Reader:
    """Reads the stored events of a context, those that are not published too. One that cannot be read is named; the rest is
    checked."""

    def __init__(self, context: Context, report: Report) -> None:
        self._context = context
        self._catalogue = context.catalogue()
        self._report = report

    def all(self, events: Iterable[StoredEvent]) -> list[Read]:
        """Those that can be read."""
        found: list[Read] = []
        for stored in events:
            try:
                found.append(self.one(stored))
            except Exception as error:  # noqa: BLE001 - what a server raises is raised again
                where = f"version {stored.version} of {stored.stream_id} ({stored.name})"
                self._report.unread("I1", f"{self._context.name}: {where}", error)
        return found

    def one(self, stored: StoredEvent) -> Read:
        """Raises whatever is wrong with the event."""
        self._catalogue.decode(stored)
        return Read(stored, expected(self._context, stored))


def _id(stream_id: UUID, version: int) -> str:
    """The text of a name-based UUID (RFC 9562, version 5), which `uuid5` makes with three objects more."""
    text = sha1(b"%b%d" % (stream_id.bytes, version), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


class Topic:
    """The records of some partitions of a context's topic, walked beside the log."""

    def __init__(
        self,
        context: Context,
        kafka_url: str,
        log: StoreLog,
        reader: Reader,
        report: Report,
        published: int,
        partitions: frozenset[int],
        held: Mapping[UUID, int],
    ) -> None:
        self._context = context
        self._log = log
        self._reader = reader
        self._report = report
        self._published = published
        self._held = held
        self._missed: dict[int, Expected] = {}
        """What was not where it belongs: published late, after its subject was held, or not at all."""
        self._records = PartitionsToEnd(kafka_url, context.topic.name, partitions, page=PAGE_RECORDS)
        self._tails = {number: _Tail(self._records, number) for number in partitions}
        self._repeats: list[tuple[Record, Envelope]] = []
        self.repeated = 0

    async def match(self, page: Sequence[Expected]) -> None:
        """Finds the next events of the log on the topic."""
        by_partition: dict[int, list[Expected]] = defaultdict(list)
        for each in page:
            by_partition[each.record.partition].append(each)
        at_once = 0
        for partition, wanted in by_partition.items():
            tail = self._tails[partition]
            for each in wanted:
                record = tail.ready()
                if record is not None and _same(record, each.record):
                    tail.passed()
                    at_once += 1
                else:
                    await self._find(tail, each)
        for invariant in ("I1", "I3", "I7"):
            self._report.passed(invariant, at_once)
        if len(self._repeats) > REPEATS_MAX:
            await self._check_repeats()

    async def finish(self, head: int) -> None:
        """Checks what is left: repeats, watermarks, and records that were published meanwhile."""
        for tail in self._tails.values():
            while (record := await tail.next()) is not None:
                read = self._read(record)
                if isinstance(read, Envelope) and read.position <= head:
                    self._repeats.append((record, read))
                if len(self._repeats) > REPEATS_MAX:
                    await self._check_repeats()
        await self._check_repeats()
        for wanted in self._missed.values():
            self._missing(wanted)

    async def close(self) -> None:
        """Closes the connection."""
        await self._records.close()

    async def _find(self, tail: "_Tail", wanted: Expected) -> None:
        context, report = self._context.name, self._report
        report.passed("I1")
        ahead: list[str] = []
        while (record := await tail.next()) is not None:
            if _same(record, wanted.record):
                report.passed("I3")
                report.passed("I7")
                break
            read = self._read(record)
            if read is None:
                continue
            if isinstance(read, Watermark):
                report.passed("I9")
                if read.position >= wanted.position:
                    ahead.append(
                        f"{context}: the watermark {read.position} of partition {record.partition} precedes"
                        f" the event at position {wanted.position}"
                    )
                continue
            if read.position < wanted.position:
                self._repeats.append((record, read))
                continue
            if read.position > wanted.position:
                tail.push(record)
                self._miss(wanted)
                return
            self._compare(record, wanted)
            report.passed("I3")
            if LATE in record.headers:
                return
            break
        else:
            self._miss(wanted)
            return
        for each in ahead:
            report.broken("I9", each)

    def _miss(self, wanted: Expected) -> None:
        """Notes that an event was not found yet. It may be found later; where too many are missing, it counts
        as missing."""
        subject = UUID(wanted.record.key.decode())
        if wanted.position >= self._held.get(subject, wanted.position + 1):
            return  # the subject is named
        if len(self._missed) < MISSED_MAX:
            self._missed[wanted.position] = wanted
        else:
            self._missing(wanted)

    def _missing(self, wanted: Expected) -> None:
        where = f"{self._context.name}: the event at position {wanted.position} ({wanted.type})"
        self._report.broken("I1", f"{where} is not on the topic where it belongs")
        if wanted.position <= self._published:
            self._report.broken(
                "I9", f"{where} was saved as published up to {self._published} and is not there"
            )

    def _compare(self, record: Record, wanted: Expected) -> None:
        report, expected = self._report, wanted.record
        report.passed("I7")
        headers = [each for each in record.headers if each != LATE]
        if headers != list(expected.headers):
            names = sorted({name for name, _ in set(headers) ^ set(expected.headers)})
            report.broken(
                "I7", f"{self._place(record)}: headers differ from the stored event: {', '.join(names)}"
            )
        if record.value != expected.value:
            report.broken("I7", f"{self._place(record)}: the body differs from the stored event")
        if record.key != expected.key:
            report.broken("I7", f"{self._place(record)}: the key is not the subject")

    def _read(self, record: Record) -> Envelope | Watermark | None:
        try:
            return unwrap(record.headers)
        except EnvelopeInvalid as error:
            self._report.broken("I7", f"{self._place(record)}: not an event of ours: {error}")
            return None

    async def _check_repeats(self) -> None:
        """Checks that each repeated record is the stored event of its position."""
        repeats, self._repeats = sorted(self._repeats, key=lambda each: each[1].position), []
        known: dict[int, Expected | None] = {}
        for record, read in repeats:
            late = self._missed.get(read.position)
            if late is not None and LATE in record.headers and late.record.partition == record.partition:
                del self._missed[read.position]
                self._compare(record, late)
                continue
            if read.position not in known:
                known |= await self._around(read.position)
            wanted = known.get(read.position)
            if wanted is None and read.position in known:
                continue  # the event is named, where the log is read
            if wanted is not None and wanted.record.partition == record.partition:
                self.repeated += 1
                self._compare(record, wanted)
            else:
                self._report.broken(
                    "I7",
                    f"{self._place(record)}: position {read.position} is not stored, or not published there",
                )
            if len(known) > REPEATS_MAX * PAGE_EVENTS:
                known.clear()

    async def _around(self, position: int) -> dict[int, Expected | None]:
        """The records of the next published events from a position on; None for an event that cannot be read."""
        found: dict[int, Expected | None] = {}
        for stored in await self._log.read_after(position - 1, PAGE_EVENTS):
            try:
                wanted = self._reader.one(stored).wanted
            except Exception:  # noqa: BLE001 - whatever is wrong with it, it is named where the log is read
                found[stored.position or 0] = None
            else:
                if wanted is not None:
                    found[wanted.position] = wanted
        return found

    @staticmethod
    def _place(record: Record) -> str:
        return f"{record.topic} partition {record.partition} offset {record.offset}"


def _same(record: Record, wanted: Record) -> bool:
    return (
        record.value == wanted.value and record.key == wanted.key and list(record.headers) == wanted.headers
    )


class _Tail:
    """A partition's records, one at a time, with room to put one back."""

    def __init__(self, records: PartitionsToEnd, number: int) -> None:
        self._records = records
        self._number = number
        self._page: list[Record] = []
        self._at = 0

    def ready(self) -> Record | None:
        """The next record, which stays the next; None where it has to be fetched."""
        return self._page[self._at] if self._at < len(self._page) else None

    def passed(self) -> None:
        """Goes past the record that was ready."""
        self._at += 1

    async def next(self) -> Record | None:
        """The next record; None at the end."""
        if self._at >= len(self._page):
            page = await self._records.next(self._number)
            if not page:
                return None
            self._page, self._at = page, 0
        self._at += 1
        return self._page[self._at - 1]

    def push(self, record: Record) -> None:
        """Puts the last record back."""
        self._at -= 1
        if self._page[self._at] is not record:
            raise ValueError("only the last record can be put back")
