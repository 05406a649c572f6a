"""The content of a batch of records: events, invalid records, and the position of each partition after the
batch."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from contracts.envelope import EnvelopeInvalid
from contracts.topics import EVENTS

from chassis.messaging.delivered import Delivered, Passed, read
from chassis.messaging.records import Record
from chassis.messaging.transport import Partition
from chassis.observability.reasons import reason_of
from chassis.read.checkpoints import Position

_CONTEXTS: Final = {topic.name: context for context, topic in EVENTS.items()}


class Arrivals:
    """Filled while the caller reads `events` to its end."""

    __slots__ = ("_last", "_marks", "_rising", "broken", "positions")

    def __init__(self) -> None:
        self._last: dict[Partition, Delivered | Passed] = {}
        self._rising: dict[Partition, list[int]] = {}
        """Positions of events that are higher than all before them. Events that come again, or late, are not
        counted."""
        self._marks: dict[Partition, tuple[Passed, int]] = {}
        """The last watermark that no event before it exceeds, with the number of rising positions before it."""
        self.broken: list[tuple[Record, str]] = []
        self.positions: dict[Partition, Position] = {}

    def events(
        self, records: Sequence[Record], wanted: Collection[bytes] | None = None
    ) -> Iterator[Delivered]:
        """Yields the events among the records, in order.

        Where types are `wanted`, events of other types are skipped.

        A skipped event is not parsed, except for the last record of each partition, which gives the
        partition's position.
        """
        offsets: dict[Partition, int] = {}
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
            if event.context == _CONTEXTS.get(
                record[0], event.context
            ):  # a watermark of another context counts other events
                self._arrived(place, event)
            if isinstance(event, Delivered) and not passed_over:
                yield event
        for place, offset in offsets.items():
            seen = self._last.get(place)
            if seen is None:
                self.positions[place] = Position(offset, "", 0, None)
            else:
                self.positions[place] = Position(offset, seen.context, seen.position, _at(seen))

    def _arrived(self, place: Partition, event: Delivered | Passed) -> None:
        before = self._last.get(place)
        if before is not None and event.position < before.position:
            return
        self._last[place] = event
        if isinstance(event, Passed):
            self._marks[place] = (event, len(self._rising.get(place, ())))
        elif before is None or event.position > before.position:
            self._rising.setdefault(place, []).append(event.position)

    def counted(self, before: Mapping[Partition, Position]) -> dict[Partition, Position]:
        """Returns `positions`, with the events counted since `before`. Only where all types were read.

        The relay publishes a partition's events in the order of their positions, and goes on from an
        earlier one where it was in doubt, so an event was read before exactly if a position as high was.
        """
        found: dict[Partition, Position] = {}
        for place, now in self.positions.items():
            start = before.get(place, NOWHERE)
            if start.events is None:
                found[place] = now
                continue
            rising = self._rising.get(place, [])
            known = bisect_right(rising, start.position)
            missing = start.missing
            mark, risen = self._marks.get(place, (None, 0))
            if mark is not None and mark.published is not None and mark.position >= start.position:
                missing = max(missing, mark.published - start.events - max(0, risen - known))
            found[place] = now._replace(events=start.events + len(rising) - known, missing=missing)
        return found


NOWHERE: Final = Position(0, "", 0, None, 0)
"""The position of a partition of which no record was read."""


def first_offsets(records: Iterable[Record]) -> dict[Partition, int]:
    """The offset of the first record of each partition."""
    first: dict[Partition, int] = {}
    for record in records:
        first.setdefault(record[0:2], record.offset or 0)
    return first


def continues(positions: Mapping[Partition, Position], first: Mapping[Partition, int]) -> bool:
    """Whether a batch with these first offsets begins where a process left each partition.

    The process then handled every earlier event of the partitions itself, or read the parked subjects after they were
    handled elsewhere: it knows each subject that an earlier event parked. A subject that another process releases
    meanwhile stays parked to it until its next look; `Parking.keep` then finds that it is not.
    """
    return all(place in positions and positions[place].offset == offset for place, offset in first.items())


def further(positions: dict[Partition, Position], others: Mapping[Partition, Position]) -> None:
    """Raises positions to other positions. A position never goes back."""
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
                *most(before, other),
            )


def most(one: Position, other: Position) -> tuple[int | None, int]:
    """Returns the higher position's counts of read and of missing events. Both only grow."""
    known = [each.events for each in (one, other) if each.events is not None]
    return max(known, default=None), max(one.missing, other.missing)


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
