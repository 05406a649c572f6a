"""The way from the log to its readers: two relays, a broker, three consumers of a view; and what must hold after it.

The relay, the projector, the parking, the checkpoints and the documents are those of the chassis; the servers below them are
the simulation's. Some deeds are poison to the view until somebody repairs it, one by one; an operator asks for the
release of whoever is parked, before the repair in vain.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from chassis.connections.transient import Transient
from chassis.messaging.delivered import Delivered
from chassis.messaging.records import Record
from chassis.messaging.transport import Partition
from chassis.process.leases import Lease
from chassis.read.arrivals import Arrivals
from chassis.read.documents import ID, SEQUENCE, Document, DocumentKey
from chassis.read.mongo import MongoDocuments
from chassis.read.mongo_checkpoints import PARKED, PARKED_EVENTS, POSITIONS, MongoCheckpoints
from chassis.read.parking import Parking
from chassis.read.projecting import Collection, Projector, View
from chassis.relay.loop import Relay
from chassis.write.events import StoredEvent
from contracts.envelope import Envelope, Watermark, unwrap
from contracts.ingest import PostingBooked
from contracts.registry import PublicEvent
from contracts.topics import Topic, partition_of

from tests.simulation.kernel import EPOCH, Faults
from tests.simulation.mongo_server import MongoFlaws, MongoServer
from tests.simulation.scenario import (
    CATCH_UP_SECONDS_MAX,
    MOVED,
    NAMESPACE,
    SUBJECTS,
    Broken,
    World,
    body_of,
    check_log,
)
from tests.simulation.servers import BrokerServer, Flaws, PositionServer, position_of

CONTEXT = "ingest"
TOPIC = Topic("crm.ingest.events", 2, "subject id", "what the simulation publishes")
PLACES: tuple[Partition, ...] = tuple((TOPIC.name, number) for number in range(TOPIC.partitions))
GROUP = "simulation.balances.v1"
PREFIX = "balances_v1_"
BALANCES, MOVEMENTS = PREFIX + "balances", PREFIX + "movements"
RELAYS = 2
CONSUMERS = 3
RELAY_BATCH_MAX = 4
RELAY_POLL_SECONDS = 0.02
LEASE_SECONDS = 0.4
FROZEN_SECONDS = 3 * CATCH_UP_SECONDS_MAX
FREEZES_MAX = 6
FETCH_MAX = 6
CHUNK_RECORDS = 3
POISON_MAX = 4
OPERATOR_SECONDS = 0.1
REPAIRED = 0.2
ASKED = 0.5
REASSIGNED = 0.15
"""Chance per round that a consumer gets other partitions."""


class Words(NamedTuple):
    """The public words for a movement."""

    event: type[PublicEvent]
    body: bytes


def words(stored: StoredEvent) -> Words | None:
    """A movement is published, a note is not."""
    if stored.name != MOVED:
        return None
    body = body_of(stored)
    said = {
        "source": "simulation",
        "posting_id": NAMESPACE,
        "core_transaction_id": body.deed,
        "leg": 1,
        "amount_minor": body.amount_minor,
        "currency": "CNY",
        "booked_on": EPOCH.date(),
        "intake": NAMESPACE,
        "line": 1,
    }
    return Words(PostingBooked, msgspec.json.encode(said))


WordsOf = Callable[[StoredEvent], Words | None]


class Poison(ValueError):
    """What the view's code cannot digest before it is repaired."""


@dataclass(slots=True)
class Delivery:
    """All there is between the log and its readers, and what readers were shown."""

    world: World
    broker: BrokerServer
    positions: PositionServer
    mongo: MongoServer
    poison: set[str]
    """Deeds that the view cannot digest; fewer and fewer, as somebody repairs it."""
    words: WordsOf = words
    """What must be published of a stored event."""
    repaired: bool = False
    """Whether the view can digest everything, and the operator knows."""
    reached: int = 0
    """How far the view has said it is."""
    stopping: list[asyncio.Event] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int, flaws: Flaws, mongo: MongoFlaws, faults: Faults) -> "Delivery":
        """Everything for a seed."""
        world = World.of(seed, flaws, faults)
        kernel = world.kernel
        deeds = [f"{client}-{number}" for client in range(4) for number in range(7)]
        poison = set(kernel.chance.sample(deeds, kernel.chance.randrange(POISON_MAX + 1)))
        return cls(
            world, BrokerServer(kernel), PositionServer(kernel, flaws), MongoServer(kernel, mongo), poison
        )

    def published(self) -> list[StoredEvent]:
        """What the others may know of the log, in order."""
        return [row for row in self.world.log.rows if row.name == MOVED]

    def events_in(self, topic: Topic) -> Iterator[tuple[UUID, int]]:
        """The subject and sequence of each event that is in a topic now, in no order."""
        for place in places_of(topic):
            for record in self.broker.logs.get(place, ()):
                if isinstance(said := unwrap(record.headers), Envelope):
                    yield said.subject, said.sequence

    def parked(self) -> dict[UUID, int]:
        """Who waits, and since which sequence."""
        return {one["subject"]: one["sequence"] for one in self.mongo.there.get(PARKED, {}).values()}


def data(event: Delivered) -> Mapping[str, Any]:
    """The body of an event, as the contracts read it."""
    return event.data


DataOf = Callable[[Delivered], Mapping[str, Any]]


def view_of(delivery: Delivery, data_of: DataOf = data) -> View:
    """The sum of each subject with the deeds behind it in order, and an entry for every movement."""

    def keys(event: Delivered) -> list[DocumentKey]:
        return [
            DocumentKey("balances", event.subject),
            DocumentKey("movements", f"{event.subject}:{event.sequence}"),
        ]

    def project(key: DocumentKey, document: Document | None, event: Delivered) -> Document:
        data = data_of(event)
        deed, amount = data["core_transaction_id"], data["amount_minor"]
        if key.collection == "movements":
            return {"deed": deed, "amount": amount}
        if deed in delivery.poison:
            raise Poison(deed)
        after = document or {"balance": 0, "deeds": []}
        after["balance"] += amount
        after["deeds"].append(deed)
        return after

    return View(
        "balances",
        1,
        (TOPIC.name,),
        frozenset({PostingBooked.TYPE}),
        (Collection("balances"), Collection("movements", insert_only=True)),
        keys,
        project,
    )


# who acts

MakeRelay = Callable[..., Relay]
MakeProjector = Callable[..., Projector]
MakeParking = Callable[..., Parking]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the processes are made of; a planted bug is another part."""

    relay: MakeRelay = Relay
    projector: MakeProjector = Projector
    parking: MakeParking = Parking
    checkpoints: Callable[..., MongoCheckpoints] = MongoCheckpoints
    commit_first: bool = False
    """Consumers commit their offsets before they apply."""


def places_of(topic: Topic) -> list[Partition]:
    """The partitions of a topic."""
    return [(topic.name, number) for number in range(topic.partitions)]


def relaying(
    delivery: Delivery,
    parts: Parts,
    topic: Topic = TOPIC,
    words: WordsOf = words,
) -> Callable[[], Awaitable[None]]:
    """A process that relays."""
    world = delivery.world

    async def main() -> None:
        relay = parts.relay(
            CONTEXT,
            topic,
            world.log,
            delivery.positions,
            Lease(
                delivery.positions,
                world.kernel,
                seconds=LEASE_SECONDS,
                renewed_seconds=LEASE_SECONDS / 4,
                margin_seconds=LEASE_SECONDS / 8,
                asked_seconds=LEASE_SECONDS / 8,
            ),
            delivery.broker,
            words,
            world.kernel,
            batch_max=RELAY_BATCH_MAX,
            poll_seconds=RELAY_POLL_SECONDS,
        )
        stopping = asyncio.Event()
        if world.over:
            stopping.set()
        delivery.stopping.append(stopping)
        await relay.run(stopping)

    return main


def consuming(delivery: Delivery, parts: Parts, data_of: DataOf = data) -> Callable[[], Awaitable[None]]:
    """A process that keeps the view; nobody prevents two of them from having the same partition."""
    world, broker, kernel = delivery.world, delivery.broker, delivery.world.kernel

    async def main() -> None:
        checkpoints = parts.checkpoints(delivery.mongo, GROUP, "balances")
        parking = parts.parking(GROUP, checkpoints, broker, kernel)
        documents = MongoDocuments(delivery.mongo, PREFIX)
        projector = parts.projector(
            view_of(delivery, data_of), documents, parking, chunk_records=CHUNK_RECORDS
        )
        offsets: dict[Partition, int] = {}
        while not world.over:
            try:
                if not offsets or kernel.chance.random() < REASSIGNED:
                    offsets = await assigned()
                    await checkpoints.begin(dict.fromkeys(PLACES, CONTEXT))
                await round_of(projector, offsets)
            except (ConnectionError, Transient):
                offsets = {}
                await kernel.sleep(0.02)

    async def assigned() -> dict[Partition, int]:
        places = kernel.chance.sample(PLACES, kernel.chance.randrange(1, len(PLACES) + 1))
        return {place: await broker.offset(GROUP, place) for place in places}

    async def round_of(projector: Projector, offsets: dict[Partition, int]) -> None:
        fetched = [await broker.fetch(place, offset, FETCH_MAX) for place, offset in offsets.items()]
        records = interleaved(fetched)
        if not records:
            await projector.tick()
            await kernel.sleep(0.02)
            return
        after = {(record.topic, record.partition): (record.offset or 0) + 1 for record in records}
        if not parts.commit_first:
            await projector.apply(records)
        for place, offset in after.items():
            await broker.commit(GROUP, place, offset)
        if parts.commit_first:
            await projector.apply(records)
        offsets.update(after)

    def interleaved(partitions: list[list[Record]]) -> list[Record]:
        left = [list(records) for records in partitions if records]
        found = []
        while left:
            records = left[kernel.chance.randrange(len(left))]
            found.append(records.pop(0))
            left = [records for records in left if records]
        return found

    return main


def operating(delivery: Delivery) -> Callable[[], Awaitable[None]]:
    """Repairs one thing after the other, and asks now and then for the release of whoever is parked, also in vain.

    Asks for nothing between the healing and the last repair: what is parked without need must be released by itself.
    """
    kernel = delivery.world.kernel

    async def main() -> None:
        while not delivery.world.over:
            await kernel.sleep(OPERATOR_SECONDS)
            if delivery.poison and kernel.chance.random() < REPAIRED:
                delivery.poison.remove(kernel.chance.choice(sorted(delivery.poison)))
            if delivery.repaired or (not kernel.healed and kernel.chance.random() < ASKED):
                ask_for_release(delivery)

    return main


def ask_for_release(delivery: Delivery) -> None:
    """As `chassis.read.mongo_checkpoints.want` does."""
    for one in delivery.mongo.there.get(PARKED, {}).values():
        one["wanted"] = "release"


def reading(delivery: Delivery) -> Callable[[], Awaitable[None]]:
    """Reads what callers may be shown at any time."""

    async def main() -> None:
        while not delivery.world.over:
            await delivery.world.kernel.sleep(0.01)
            delivery.broken.extend(check_shown(delivery))

    return main


def freezing(delivery: Delivery, *, for_good: bool) -> Callable[[], Awaitable[None]]:
    """Stops the relay that leads, again and again, for longer than its lease; or once, for longer than anybody waits."""
    kernel, positions = delivery.world.kernel, delivery.positions

    async def main() -> None:
        left = 1 if for_good else FREEZES_MAX
        while left and not delivery.world.over and not kernel.healed:
            await kernel.sleep(kernel.chance.random() * LEASE_SECONDS / 20)
            holder = positions.holder
            if holder is not None and not holder.dead and kernel.stands_at(holder, "save position?"):
                kernel.freeze(holder, FROZEN_SECONDS if for_good else 2 * LEASE_SECONDS)
                left -= 1

    return main


def supervising(delivery: Delivery) -> Callable[[], Awaitable[None]]:
    """Heals the world when the clients are done; all but the poison must come through by itself, then that too."""
    world, kernel = delivery.world, delivery.world.kernel

    async def until(done: Callable[[], bool], what: str) -> None:
        if not await kernel.comes(done, CATCH_UP_SECONDS_MAX):
            delivery.broken.append(Broken("I10", what))

    async def main() -> None:
        while world.services_left > 0:
            await kernel.sleep(0.02)
        kernel.heal()
        await until(lambda: caught_up(delivery), "readers did not catch up by themselves")
        await kernel.comes(lambda: not [*check_view(delivery)], CATCH_UP_SECONDS_MAX)
        delivery.broken.extend(check_view(delivery))
        delivery.poison.clear()
        delivery.repaired = True
        await until(lambda: not delivery.parked(), "who was parked stays so after the repair")
        if world.log.flaws.topic_loses_beginning:
            delivery.broker.lose_beginning()
        world.over = True
        for stopping in delivery.stopping:
            stopping.set()

    return main


def caught_up(delivery: Delivery) -> bool:
    """Whether everything stored was published and read, and every release that was asked for has ended."""
    rows, saved = delivery.world.log.rows, delivery.mongo.there.get(POSITIONS, {})
    offsets = {(one["topic"], one["partition"]): one["offset"] for one in saved.values()}
    behind = [place for place in PLACES if offsets.get(place, 0) < delivery.broker.end(place)]
    releasing = any(one["wanted"] for one in delivery.mongo.there.get(PARKED, {}).values())
    published = not rows or delivery.positions.position >= position_of(rows[-1])
    return published and not behind and not releasing


# what must hold


def check_shown(delivery: Delivery) -> Iterator[Broken]:
    """What a caller sees at this instant: as far as it says it is, and every figure with what is behind it."""
    there, parked = delivery.mongo.there, delivery.parked()
    movements, balances = there.get(MOVEMENTS, {}), there.get(BALANCES, {})
    saved = there.get(POSITIONS, {}).values()
    reached = min((one["position"] for one in saved), default=0) if len(saved) == len(PLACES) else 0
    if reached < delivery.reached:
        yield Broken("I4", f"the view went back from {delivery.reached} to {reached}")
    delivery.reached = reached
    kept = {(one["subject"], one["sequence"]) for one in there.get(PARKED_EVENTS, {}).values()}
    for subject, sequence in parked.items():
        if (subject, sequence) not in kept and balances.get(subject, {SEQUENCE: 0})[SEQUENCE] < sequence:
            yield Broken("I1", f"{subject} is parked at {sequence}, which is not kept")
    for row in delivery.published():
        subject, key = row.stream_id, f"{row.stream_id}:{row.version}"
        applied = balances.get(subject, {SEQUENCE: 0})[SEQUENCE]
        waits = subject in parked and row.version >= parked[subject]
        if position_of(row) <= reached and applied < row.version and not waits:
            yield Broken("I4", f"the view says that it is at {reached} and does not show {key}")
        if row.version <= applied and key not in movements:
            yield Broken("I4", f"the balance of {subject} shows {key}, of which there is no entry")


def check_view(delivery: Delivery) -> Iterator[Broken]:
    """The documents against a fold of the log by other code, while nobody is being released.

    Who is parked ends before what he waits for.
    """
    there, parked = delivery.mongo.there, delivery.parked()
    balances = there.get(BALANCES, {})
    rows: dict[UUID, list[StoredEvent]] = {subject: [] for subject in SUBJECTS}
    for row in delivery.published():
        if row.stream_id not in parked or row.version < parked[row.stream_id]:
            rows[row.stream_id].append(row)
    for subject, those in rows.items():
        document = balances.get(subject, {SEQUENCE: 0, "balance": 0, "deeds": []})
        deeds = [body_of(row).deed for row in those]
        shown: list[str] = document["deeds"]
        if shown != deeds:
            more, fewer = Counter(shown) - Counter(deeds), Counter(deeds) - Counter(shown)
            invariant = "I2" if more else "I1" if fewer else "I3"
            yield Broken(invariant, f"{subject} shows {shown}, in the log are {deeds}")
        elif document["balance"] != sum(body_of(row).amount_minor for row in those):
            yield Broken("I5", f"the balance of {subject} is {document['balance']}")
        elif those and document[SEQUENCE] != those[-1].version:
            yield Broken("I4", f"{subject} is at {document[SEQUENCE]} and not at {those[-1].version}")
    entries = {f"{row.stream_id}:{row.version}": row for those in rows.values() for row in those}
    movements = there.get(MOVEMENTS, {})
    for key in entries.keys() - movements.keys():
        yield Broken("I1", f"no entry {key}")
    for key, row in entries.items():
        body = body_of(row)
        want = {ID: key, SEQUENCE: row.version, "deed": body.deed, "amount": body.amount_minor}
        if key in movements and movements[key] != want:
            yield Broken("I4", f"entry {key} is {movements[key]}")


def check_topic(delivery: Delivery) -> Iterator[Broken]:
    """What lies in the topic against what is stored."""
    stored = {(row.stream_id, row.version): row for row in delivery.published()}
    seen: set[tuple[UUID, int]] = set()
    last: dict[UUID, int] = {}
    for place in PLACES:
        for record in delivery.broker.logs.get(place, ()):
            said = unwrap(record.headers)
            if isinstance(said, Watermark):
                yield from _check_watermark(said, place, stored, seen)
                continue
            yield from _check_record(said, record, stored, delivery.words)
            key = (said.subject, said.sequence)
            if key in seen:
                continue
            seen.add(key)
            if said.sequence < last.get(said.subject, 0):
                yield Broken("I3", f"{key} was published after {last[said.subject]}")
            last[said.subject] = said.sequence
    for key in stored.keys() - seen:
        yield Broken("I7", f"{key} is stored and was never published")


def _check_watermark(
    mark: Watermark,
    place: Partition,
    stored: dict[tuple[UUID, int], StoredEvent],
    seen: set[tuple[UUID, int]],
) -> Iterator[Broken]:
    covered = 0
    for key, row in stored.items():
        here = partition_of(row.stream_id, TOPIC.partitions) == place[1]
        covered += here and position_of(row) <= mark.position
        if here and key not in seen and position_of(row) <= mark.position:
            yield Broken("I1", f"watermark {mark.position} of {place} lies before {key}")
    if mark.published != covered:
        yield Broken("I9", f"watermark {mark.position} of {place} counts {mark.published}, not {covered}")


def _check_record(
    said: Envelope,
    record: Record,
    stored: dict[tuple[UUID, int], StoredEvent],
    words: WordsOf,
) -> Iterator[Broken]:
    row = stored.get((said.subject, said.sequence))
    if row is None:
        yield Broken("I7", f"{said.subject} {said.sequence} was published and is not stored")
        return
    expected = words(row)
    same = (
        expected is not None
        and (expected.event.VERSION, expected.body) == (said.version, record.value)
        and said.position == row.position
    )
    if not same or record.partition != partition_of(row.stream_id, TOPIC.partitions):
        yield Broken("I7", f"{said.subject} {said.sequence} was published as something else")


def check_complete(delivery: Delivery) -> Iterator[Broken]:
    """What the view says it has not seen, and what one that is built from the topic now would say."""
    for one in delivery.mongo.there.get(POSITIONS, {}).values():
        if one.get("missing"):
            yield Broken("I1", f"the view says that it lacks {one['missing']} events of {one['partition']}")
    for place in PLACES:
        missing = missing_of(delivery.broker.logs.get(place, []))
        if missing:
            yield Broken("I1", f"a rebuild lacks {missing} events of {place}")


def missing_of(records: Sequence[Record]) -> int:
    """How many events somebody lacks who reads one partition from its beginning."""
    arrivals = Arrivals()
    for _ in arrivals.events(records):
        pass
    return sum(at.missing for at in arrivals.counted({}).values())


def check(delivery: Delivery) -> list[Broken]:
    """Everything, when all is over."""
    broken = [*delivery.broken, *check_log(delivery.world), *check_topic(delivery), *check_view(delivery)]
    broken += check_complete(delivery)
    for epoch, latest in delivery.positions.accepted:
        if epoch != latest:
            broken.append(Broken("I9", f"epoch {epoch} saved a position when {latest} had begun"))
    return broken
