"""What a batch of records brings: events, records that are none, and how far each partition is after it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from contracts.envelope import EnvelopeInvalid

from chassis.books import Position
from chassis.delivered import Delivered, Passed, read
from chassis.transport import Partition, Record

REASON_CHARACTERS_MAX: Final = 300
TRACES_MAX: Final = 20
"""A batch of an import has one trace, one of commands has thousands, of which these stand for all."""


class Arrivals:
    """Filled while `events` is read to its end."""

    __slots__ = ("broken", "positions", "traces")

    def __init__(self) -> None:
        self.traces: dict[str, None] = {}
        """Trace contexts that the events were recorded under, `TRACES_MAX` at most."""
        self.broken: list[tuple[Record, str]] = []
        self.positions: dict[Partition, Position] = {}

    def events(
        self, records: Sequence[Record], wanted: Collection[bytes] | None = None
    ) -> Iterator[Delivered]:
        """The events among the records, in order; where types are `wanted`, those of other types are passed over.

        What is passed over is not even parsed. The last record of each partition is, because it says how far that is.
        """
        offsets: dict[Partition, int] = {}
        last: dict[Partition, Delivered | Passed] = {}
        ends: Collection[int] = ()
        if wanted is not None:
            ends = frozenset({record[0:2]: at for at, record in enumerate(records)}.values())
        for at, record in enumerate(records):
            place = record[0:2]
            offsets[place] = (record.offset or 0) + 1
            passed_over = wanted is not None and _type(record) not in wanted
            if passed_over and at not in ends:
                continue
            try:
                event = read(record)
            except EnvelopeInvalid as error:
                self.broken.append((record, reason_of(error)))
                continue
            before = last.get(place)
            if before is None or event.position >= before.position:
                last[place] = event
            if isinstance(event, Delivered) and not passed_over:
                if len(self.traces) < TRACES_MAX and event.traceparent is not None:
                    self.traces[event.traceparent] = None
                yield event
        for place, offset in offsets.items():
            seen = last.get(place)
            if seen is None:
                self.positions[place] = Position(offset, "", 0, None)
            else:
                self.positions[place] = Position(offset, seen.context, seen.position, _at(seen))


def further(positions: dict[Partition, Position], others: Mapping[Partition, Position]) -> None:
    """Brings positions up to others, never back."""
    for place, other in others.items():
        before = positions.get(place)
        if before is None:
            positions[place] = other
        else:
            positions[place] = Position(
                max(before.offset, other.offset),
                other.context or before.context,
                max(before.position, other.position),
                other.at or before.at,
            )


def reason_of(error: Exception) -> str:
    """Why, in a line for a dead letter."""
    return f"{type(error).__name__}: {error}"[:REASON_CHARACTERS_MAX]


def _type(record: Record) -> bytes | None:
    for name, value in record.headers:
        if name == "ce_type":
            return value
    return None


def _at(event: Delivered | Passed) -> datetime | None:
    if isinstance(event, Passed):
        return event.at
    try:
        return event.recorded_at
    except EnvelopeInvalid:
        return None
