"""The checkpoints of consumer groups in MongoDB, one set of collections for all groups of a database."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from contracts.envelope import COUNTED_MAX
from typing_extensions import override

from chassis.messaging.delivered import Stream
from chassis.messaging.records import Record
from chassis.messaging.transport import Partition
from chassis.read.checkpoints import Checkpoints, GenerationLost, Held, Parked, Position, Wanted
from chassis.read.documents import ID, Document
from chassis.read.mongo import Mongo

POSITIONS: Final = "positions"
PARKED: Final = "parked"
PARKED_EVENTS: Final = "parked_events"
SKIPPED: Final = "parked_skipped"
STARTS: Final = "starts"
_SEQUENCE_DIGITS: Final = len(str(COUNTED_MAX))


class MongoCheckpoints(Checkpoints):
    """Checkpoints of `group`.

    Skipped events are stored under `name`, which outlives the generations of a view.
    """

    def __init__(self, mongo: Mongo, group: str, name: str) -> None:
        self.mongo = mongo
        self.group = group
        self.name = name

    async def begin(
        self, partitions: Mapping[Partition, str], starts: Mapping[Partition, Position] | None = None
    ) -> None:
        """Opens the checkpoints at the beginning of each partition (with its context), or where it `starts`,
        unless open.

        Where a group starts is recorded once and for all partitions together, before the first of its
        checkpoints is opened.
        """
        if starts:
            places = [[*place, at.offset, at.position] for place, at in starts.items()]
            await self.mongo.insert_new(STARTS, {ID: self.group, "places": places})
        recorded = await self.mongo.find(STARTS, {ID: self.group})
        at = {(one[0], one[1]): (one[2], one[3]) for each in recorded for one in each["places"]}
        for (topic, partition), context in partitions.items():
            offset, position = at.get((topic, partition), (0, 0))
            await self.mongo.insert_new(
                POSITIONS,
                {
                    ID: self._place(topic, partition),
                    "group": self.group,
                    "topic": topic,
                    "partition": partition,
                    "context": context,
                    "offset": offset,
                    "position": position,
                    "at": None,
                    "events": None if offset else 0,
                },
            )

    async def forget(self) -> None:
        """Deletes the checkpoints for ever."""
        for collection in (POSITIONS, PARKED, PARKED_EVENTS):
            await self.mongo.delete(collection, {"group": self.group})

    @override
    async def positions(self) -> dict[Partition, Position]:
        return positions_of(await self.mongo.find(POSITIONS, {"group": self.group}))

    @override
    async def advance(self, positions: Mapping[Partition, Position]) -> None:
        if not positions:
            return
        changes = []
        for (topic, partition), now in positions.items():
            highest: dict[str, Any] = {"offset": now.offset, "position": now.position}
            if now.at is not None:
                highest["at"] = now.at
            if now.events is not None:
                highest |= {"events": now.events, "missing": now.missing}
            changes.append(({ID: self._place(topic, partition)}, {"$max": highest}))
        await self._raise_positions(changes)

    @override
    async def reaching(self, positions: Mapping[Partition, int]) -> None:
        await self._raise_positions(
            [({ID: self._place(*place)}, {"$max": {"reaching": at}}) for place, at in positions.items()]
        )

    async def _raise_positions(self, changes: Sequence[tuple[Document, Document]]) -> None:
        if await self.mongo.update_each(POSITIONS, changes) != len(changes):
            raise GenerationLost(self.group)

    @override
    async def shown(self) -> dict[Partition, int]:
        return {
            (one["topic"], one["partition"]): max(one["position"], one.get("reaching", 0))
            for one in await self.mongo.find(POSITIONS, {"group": self.group})
        }

    @override
    async def parked(self) -> dict[Stream, Parked]:
        return {parked.stream: parked for parked in await parked_of(self.mongo, self.group)}

    @override
    async def skipped(self) -> frozenset[tuple[Stream, int]]:
        found = await self.mongo.find(SKIPPED, {"name": self.name})
        return frozenset(((one["context"], one["subject"]), one["sequence"]) for one in found)

    @override
    async def park(self, parked: Parked, first: Held) -> None:
        # The event is stored before its subject: a parked subject without its first event would be released past it.
        await self._keep(parked.stream, [first])
        await self.mongo.insert_new(
            PARKED,
            {
                ID: self._stream(parked.stream),
                "group": self.group,
                "subject": parked.subject,
                "context": parked.context,
                "type": parked.type,
                "sequence": parked.sequence,
                "position": parked.position,
                "reason": parked.reason,
                "parked_at": parked.parked_at,
                "held": 1,
                "revision": 1,
                "wanted": None,
            },
        )

    @override
    async def hold(self, stream: Stream, events: Sequence[Held]) -> bool:
        kept = await self._keep(stream, events)
        change = {"$inc": {"held": kept, "revision": 1}}
        # Where the subject is not parked, the kept events are not deleted: another consumer may have parked it again
        # with that event meanwhile. Leftover events precede the event that parks it next, and are deleted then.
        return bool(await self.mongo.update(PARKED, {ID: self._stream(stream)}, change))

    @override
    async def held(self, stream: Stream, after: int, limit: int) -> list[Held]:
        found = await self.mongo.find(
            PARKED_EVENTS,
            {ID: {"$gt": self._event(stream, after), "$lte": self._event(stream, COUNTED_MAX)}},
            order=[(ID, 1)],
            limit=limit,
        )
        return [Held(one["sequence"], _record(one)) for one in found]

    @override
    async def stuck(self, parked: Parked, first: Held, type: str, reason: str) -> None:
        change = {
            "$set": {"sequence": first.sequence, "type": type, "reason": reason, "wanted": None},
            "$inc": {"revision": 1},
        }
        await self.mongo.update(PARKED, self._still(parked), change)

    @override
    async def skip(self, stream: Stream, sequence: int) -> None:
        context, subject = stream
        await self.mongo.insert_new(
            SKIPPED,
            {
                ID: f"{self.name}|{context}|{subject.hex}|{sequence}",
                "name": self.name,
                "context": context,
                "subject": subject,
                "sequence": sequence,
            },
        )

    @override
    async def unpark(self, parked: Parked, up_to: int) -> bool:
        if not await self.mongo.delete(PARKED, self._still(parked)):
            return False
        stream = parked.stream
        # Later events stay: another consumer may have parked the subject again meanwhile.
        released = {ID: {"$gte": self._event(stream, 0), "$lte": self._event(stream, up_to)}}
        await self.mongo.delete(PARKED_EVENTS, released)
        return True

    async def _keep(self, stream: Stream, events: Iterable[Held]) -> int:
        kept = 0
        for sequence, record in events:
            kept += await self.mongo.insert_new(
                PARKED_EVENTS,
                {
                    ID: self._event(stream, sequence),
                    "group": self.group,
                    "subject": stream[1],
                    "sequence": sequence,
                    "topic": record.topic,
                    "partition": record.partition,
                    "offset": record.offset,
                    "key": record.key,
                    "headers": [list(header) for header in record.headers],
                    "value": record.value,
                },
            )
        return kept

    def _place(self, topic: str, partition: int) -> str:
        return f"{self.group}|{topic}|{partition}"

    def _still(self, parked: Parked) -> Document:
        """Matches this parked subject as it was read, and no later parking of the same subject."""
        return {
            ID: self._stream(parked.stream),
            "sequence": parked.sequence,
            "revision": parked.revision,
            "parked_at": parked.parked_at,
        }

    def _stream(self, stream: Stream) -> str:
        return _parked_id(self.group, stream)

    def _event(self, stream: Stream, sequence: int) -> str:
        return f"{self._stream(stream)}|{sequence:0{_SEQUENCE_DIGITS}d}"


async def prepare_checkpoints(mongo: Mongo) -> None:
    """The indexes that the checkpoints are read by."""
    await mongo.index(POSITIONS, [("group", 1)])
    await mongo.index(PARKED, [("group", 1)])
    await mongo.index(PARKED_EVENTS, [("group", 1), ("subject", 1)])
    await mongo.index(SKIPPED, [("name", 1)])


async def parked_of(mongo: Mongo, group: str | None = None) -> list[Parked]:
    """The parked subjects of a group, or of all, in the order in which they were parked."""
    where = {} if group is None else {"group": group}
    return [_parked(one) for one in await mongo.find(PARKED, where, order=[("parked_at", 1), (ID, 1)])]


async def want(mongo: Mongo, group: str, stream: Stream, wanted: Wanted) -> bool:
    """Requests the release of a subject of a context from the group's consumers; False where it is not
    parked."""
    where = {ID: _parked_id(group, stream)}
    return bool(await mongo.update(PARKED, where, {"$set": {"wanted": wanted}}))


def positions_of(found: Iterable[Document]) -> dict[Partition, Position]:
    """Positions from their documents."""
    return {
        (one["topic"], one["partition"]): Position(
            one["offset"],
            one["context"],
            one["position"],
            one["at"],
            one.get("events"),
            one.get("missing", 0),
        )
        for one in found
    }


def _parked_id(group: str, stream: Stream) -> str:
    context, subject = stream
    return f"{group}|{context}|{subject.hex}"


def _parked(one: Document) -> Parked:
    return Parked(
        one["subject"],
        one["context"],
        one["type"],
        one["sequence"],
        one["position"],
        one["reason"],
        one["parked_at"],
        one["held"],
        one["revision"],
        one["wanted"],
    )


def _record(one: Document) -> Record:
    headers = [(name, bytes(value or b"")) for name, value in one["headers"]]
    return Record(
        one["topic"], one["partition"], bytes(one["key"]), headers, bytes(one["value"]), one["offset"]
    )
