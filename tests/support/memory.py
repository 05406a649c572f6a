"""The ports of views over dictionaries: for the simulation and for tests that are about folding alone."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

from chassis.messaging.delivered import Stream
from chassis.messaging.records import Record
from chassis.messaging.transport import Partition, Publisher
from chassis.read.arrivals import most
from chassis.read.checkpoints import Checkpoints, GenerationLost, Held, Parked, Position
from chassis.read.documents import ID, SEQUENCE, Change, Document, DocumentId, Documents, Written
from typing_extensions import override


class MemoryDocuments(Documents):
    """Collections in dictionaries, with the guards of the real ones."""

    def __init__(self) -> None:
        self.collections: dict[str, dict[DocumentId, Document]] = {}

    @override
    def freeze(self, document: Document) -> Document:
        return deepcopy(document)

    @override
    async def load(self, collection: str, ids: Sequence[DocumentId]) -> dict[DocumentId, Document]:
        there = self.collections.get(collection, {})
        return {id: deepcopy(there[id]) for id in ids if id in there}

    @override
    async def write(self, collection: str, changes: Sequence[Change]) -> Written:
        return Written([change.id for change in changes if not self.write_one(collection, change)])

    def write_one(self, collection: str, change: Change) -> bool:
        """Writes one change unless its guard does not hold."""
        there = self.collections.setdefault(collection, {})
        before = there.get(change.id)
        # As in MongoDB, where nothing stands in the way of a replacement, not even that there is nothing to replace.
        if before is not None and before[SEQUENCE] != change.expected:
            return False
        assert change.frozen[ID] == change.id
        there[change.id] = deepcopy(change.frozen)
        return True


class MemoryCheckpoints(Checkpoints):
    """The checkpoints of one group in dictionaries."""

    def __init__(self) -> None:
        self.saved: dict[Partition, Position] = {}
        self.reached: dict[Partition, int] = {}
        self.waiting: dict[Stream, Parked] = {}
        self.kept: dict[Stream, dict[int, Held]] = {}
        self.passed_over: set[tuple[Stream, int]] = set()
        self.lost = False

    @override
    async def positions(self) -> dict[Partition, Position]:
        return dict(self.saved)

    @override
    async def advance(self, positions: Mapping[Partition, Position]) -> None:
        if self.lost:
            raise GenerationLost("memory")
        for place, now in positions.items():
            before = self.saved.get(place, now)
            self.saved[place] = Position(
                max(before.offset, now.offset),
                now.context or before.context,
                max(before.position, now.position),
                now.at or before.at,
                *most(before, now),
            )

    @override
    async def reaching(self, positions: Mapping[Partition, int]) -> None:
        if self.lost:
            raise GenerationLost("memory")
        for place, at in positions.items():
            self.reached[place] = max(at, self.reached.get(place, 0))

    @override
    async def shown(self) -> dict[Partition, int]:
        saved = {place: at.position for place, at in self.saved.items()}
        return {place: max(saved.get(place, 0), self.reached.get(place, 0)) for place in saved | self.reached}

    @override
    async def parked(self) -> dict[Stream, Parked]:
        return dict(self.waiting)

    @override
    async def skipped(self) -> frozenset[tuple[Stream, int]]:
        return frozenset(self.passed_over)

    @override
    async def park(self, parked: Parked, first: Held) -> None:
        self.waiting.setdefault(parked.stream, parked)
        await self.hold(parked.stream, [first])

    @override
    async def hold(self, stream: Stream, events: Sequence[Held]) -> bool:
        if stream not in self.waiting:
            return False
        kept = self.kept.setdefault(stream, {})
        before = len(kept)
        kept.update({event.sequence: event for event in events})
        parked = self.waiting[stream]
        held = parked.held + len(kept) - before
        self.waiting[stream] = replace(parked, held=held, revision=parked.revision + 1)
        return True

    @override
    async def held(self, stream: Stream, after: int, limit: int) -> list[Held]:
        kept = self.kept.get(stream, {})
        return [kept[sequence] for sequence in sorted(kept) if sequence > after][:limit]

    @override
    async def stuck(self, parked: Parked, first: Held, type: str, reason: str) -> None:
        if not self._still(parked):
            return
        self.waiting[parked.stream] = replace(
            self.waiting[parked.stream],
            sequence=first.sequence,
            type=type,
            reason=reason,
            wanted=None,
            revision=parked.revision + 1,
        )

    @override
    async def skip(self, stream: Stream, sequence: int) -> None:
        self.passed_over.add((stream, sequence))

    @override
    async def unpark(self, parked: Parked, up_to: int) -> bool:
        if not self._still(parked):
            return False
        del self.waiting[parked.stream]
        kept = self.kept.pop(parked.stream, {})
        assert max(kept, default=0) <= up_to
        return True

    def _still(self, parked: Parked) -> bool:
        now = self.waiting.get(parked.stream)
        return now is not None and (now.sequence, now.revision, now.parked_at) == (
            parked.sequence,
            parked.revision,
            parked.parked_at,
        )

    def want(self, stream: Stream, wanted: str) -> None:
        """Somebody asks for release."""
        assert wanted in {"release", "skip"}
        self.waiting[stream] = replace(self.waiting[stream], wanted=wanted)  # type: ignore[arg-type]


class MemoryPublisher(Publisher):
    """Keeps what is published."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    @override
    async def publish(self, records: Sequence[Record]) -> None:
        self.records += records
