"""One view over the topics of two contexts that speak of the same subjects: nothing of either is lost or told twice.

Each context counts its events from 1, so a guard that knows the subject alone takes the one's event for an old one of
the other.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

import msgspec
import pytest
from chassis.messaging.delivered import Delivered
from chassis.messaging.records import Record
from chassis.read.documents import SEQUENCE, Document, DocumentKey
from chassis.read.mongo import MongoDocuments
from chassis.read.mongo_checkpoints import PARKED, MongoCheckpoints
from chassis.read.parking import Parking
from chassis.read.projecting import Collection, Projector, View
from contracts.envelope import Envelope
from contracts.topics import EVENTS, partition_of
from structlog.testing import capture_logs

from tests.simulation.kernel import EPOCH, Faults, Kernel
from tests.simulation.mongo_server import MongoFlaws, MongoServer
from tests.simulation.scenario import NAMESPACE
from tests.simulation.servers import BrokerServer

CONTEXTS = ("customer", "ingest")
TYPES = {"customer": "customer.renamed", "ingest": "posting.booked"}
SUBJECTS = tuple(uuid5(NAMESPACE, f"shared-{number}") for number in range(3))
PARTITIONS = 2
EVENTS_PER_CONTEXT = 20
PLACES = [(EVENTS[context].name, number) for context in CONTEXTS for number in range(PARTITIONS)]
GROUP, PREFIX = "simulation.both.v1", "both_v1_"
CONSUMERS = 2
FETCH_MAX = 4
FAULTS = Faults(crashes_max=8, unanswered_max=15)
SEEDS = range(30)
SECONDS_MAX = 60.0

Log = dict[tuple[str, UUID], list[int]]


class SubjectsAlone(Projector):
    """Guards documents as if all contexts counted together."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._several = False


def record_of(context: str, subject: UUID, sequence: int, position: int) -> Record:
    at = EPOCH + timedelta(seconds=position)
    envelope = Envelope(
        uuid5(subject, f"{context}{sequence}"), TYPES[context], 1, context, subject, sequence, position, at, at,
        "said", subject, subject,
    )  # fmt: skip
    place = partition_of(subject, PARTITIONS)
    return Record(EVENTS[context].name, place, b"", envelope.headers(), msgspec.json.encode(sequence))


def published(kernel: Kernel, broker: BrokerServer) -> Log:
    """What both contexts have told, each in its order, some of it twice."""
    log: Log = {}
    for context in CONTEXTS:
        told: list[Record] = []
        for position in range(1, EVENTS_PER_CONTEXT + 1):
            subject = kernel.chance.choice(SUBJECTS)
            sequences = log.setdefault((context, subject), [])
            sequences.append(len(sequences) + 1)
            told.append(record_of(context, subject, sequences[-1], position))
        again = kernel.chance.randrange(len(told))
        for record in (*told, *told[again:]):
            broker.append(record)
    return log


def view_of(poison: set[tuple[str, UUID, int]]) -> View:
    """What each context has said of a subject, in order, and an entry for every event."""

    def project(key: DocumentKey, document: Document | None, event: Delivered) -> Document:
        if key.collection == "entries":
            return {"of": event.context}
        if (event.context, event.subject, event.sequence) in poison:
            raise ValueError("poison")
        after = document or {context: [] for context in CONTEXTS}
        after[event.context] = [*after[event.context], event.sequence]
        return after

    return View(
        "both",
        1,
        tuple(EVENTS[context].name for context in CONTEXTS),
        frozenset(TYPES.values()),
        (Collection("told"), Collection("entries", insert_only=True)),
        lambda event: [
            DocumentKey("told", event.subject),
            DocumentKey("entries", f"{event.context}:{event.subject}:{event.sequence}"),
        ],
        project,
    )


async def lived(
    seed: int, projector: Callable[..., Projector] = Projector
) -> tuple[Log, MongoServer, set[tuple[str, UUID, int]]]:
    """The world after a seed's schedule: what was told, what is shown, and what was poison."""
    kernel = Kernel(seed, FAULTS)
    broker, mongo = BrokerServer(kernel), MongoServer(kernel, MongoFlaws())
    log = published(kernel, broker)
    known = sorted((context, subject, n) for (context, subject), those in log.items() for n in those)
    poison = set(kernel.chance.sample(known, kernel.chance.randrange(3)))
    done: set[int] = set()

    def consuming(number: int) -> Callable[[], Awaitable[None]]:
        async def main() -> None:
            checkpoints = MongoCheckpoints(mongo, GROUP, "both")
            parking = Parking(GROUP, checkpoints, broker, kernel)
            folding = projector(view_of(poison), MongoDocuments(mongo, PREFIX), parking, chunk_records=3)
            offsets = dict.fromkeys(PLACES, 0)
            while any(offsets[place] < broker.end(place) for place in PLACES):
                if kernel.seconds > SECONDS_MAX / 2:
                    kernel.heal()
                try:
                    await checkpoints.begin({place: _context_of(place) for place in PLACES})
                    place = kernel.chance.choice(PLACES)
                    records = await broker.fetch(place, offsets[place], FETCH_MAX)
                    other = kernel.chance.choice(PLACES)
                    if other != place:
                        records = [*records, *await broker.fetch(other, offsets[other], FETCH_MAX)]
                    await folding.apply(records)
                except ConnectionError:
                    await kernel.sleep(0.01)
                    continue
                for one in records:
                    offsets[one.topic, one.partition] = (one.offset or 0) + 1
            done.add(number)

        return main

    for number in range(CONSUMERS):
        kernel.spawn(f"consumer-{number}", consuming(number))
    with capture_logs():
        await kernel.run()
    assert done == set(range(CONSUMERS))
    return log, mongo, poison


def _context_of(place: tuple[str, int]) -> str:
    return next(context for context in CONTEXTS if EVENTS[context].name == place[0])


def wrong(log: Log, mongo: MongoServer, poison: set[tuple[str, UUID, int]]) -> list[str]:
    """What is not as the logs say: each context's events of each subject up to its own poison, in order."""
    found: list[str] = []
    documents = mongo.there.get(PREFIX + "told", {})
    waiting = {
        (one["context"], one["subject"]): one["sequence"] for one in mongo.there.get(PARKED, {}).values()
    }
    for (context, subject), sequences in log.items():
        stops = min((n for c, s, n in poison if (c, s) == (context, subject)), default=len(sequences) + 1)
        wanted = [sequence for sequence in sequences if sequence < stops]
        document = documents.get(subject, {context: [], SEQUENCE: {}})
        if document.get(context) != wanted:
            found.append(f"{context} {subject}: {document.get(context)} is shown, {wanted} was told")
        elif wanted and document[SEQUENCE].get(context) != wanted[-1]:
            found.append(f"{context} {subject} is at {document[SEQUENCE]}")
        if (stops <= len(sequences)) != ((context, subject) in waiting):
            found.append(f"{context} {subject} waits at {waiting.get((context, subject))}, not at {stops}")
    return found


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_view_over_two_topics_loses_nothing_of_either(seed: int) -> None:
    assert wrong(*await lived(seed)) == [], f"seed {seed}"


async def test_guards_that_know_the_subject_alone_lose_events() -> None:
    for seed in SEEDS:
        try:
            if wrong(*await lived(seed, SubjectsAlone)):
                return
        except (AttributeError, TypeError):  # a mark that is no map
            return
    pytest.fail("not caught")
