"""Policies: reactions of a service to published events.

A policy reacts once to each event and is never replayed.

A reaction is idempotent by itself, because an event may come twice. Events up to the checkpoint of their
partition are also skipped, even if the consumer group is set back. An event that a policy cannot process
parks its subject, as in a view. Events of one subject are processed in order, those of several subjects at
once.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar
from uuid import UUID, uuid5

import structlog
from contracts.envelope import EnvelopeInvalid
from contracts.topics import TOPICS

from chassis.clock import Clock, SystemClock
from chassis.connections.settings import Settings
from chassis.ending import set_within, together
from chassis.messaging.answering import NO_MONGODB, answering
from chassis.messaging.broker import Broker, Kafka, Member
from chassis.messaging.delivered import Delivered, Stream, read
from chassis.messaging.records import Record
from chassis.messaging.transport import BrokerUnavailable, KafkaPublisher, Partition, Publisher, ensure_topics
from chassis.observability import metrics, telemetry
from chassis.read.arrivals import Arrivals, continues, first_offsets, further
from chassis.read.checkpoints import GenerationLost, Position
from chassis.read.generations import partitions_of
from chassis.read.mongo import Mongo
from chassis.read.mongo_checkpoints import MongoCheckpoints, prepare_checkpoints
from chassis.read.parking import Parking, PoisonEvent, is_of_the_record
from chassis.relay.loop import BATCH_EVENTS_MAX
from chassis.write.deciding import CommandContext

REACTING_AT_ONCE_MAX: Final = 1_000
"""Subjects at once. They fill two transactions of the store: one is decided while the other is written."""
BATCH_RECORDS_MAX: Final = 10_000
"""A policy takes few of the events that it reads. A large batch puts those that it takes into few
transactions."""
PREPARED_AT_ONCE_MAX: Final = 200
"""Subjects that one call of `prepare` is for: as many as a command handler loads together."""
CHECKPOINTS_DATABASE: Final = "policies"
"""The checkpoints are in a database beside the views: dropping the views must not drop the parked subjects."""
WATCH_SECONDS: Final = 1.0
LOOKED_BACK_RECORDS: Final = 2 * BATCH_EVENTS_MAX

_log = structlog.get_logger(__name__)


Starts = Literal["beginning", "now"]
React = Callable[[Delivered], Awaitable[None]]
Prepare = Callable[[Sequence[Delivered]], Awaitable[None]]
W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a policy does with an event, and what it may read in bulk before (see `Policy`)."""

    react: React
    prepare: Prepare | None = None


@dataclass(frozen=True, slots=True)
class DeclaredPolicy(Generic[W]):
    """A policy as its service declares it: all of `Policy` but its reaction, which needs the connections `W`.

    The consumer groups of a service and what its role `policies` runs follow from the same declarations.
    """

    name: str
    sources: tuple[str, ...]
    events: frozenset[str]
    starts: Starts
    reaction: Callable[[W], Reaction]

    def over(self, connections: W) -> "Policy":
        """The policy that reacts over these connections."""
        reaction = self.reaction(connections)
        return Policy(self.name, self.sources, self.events, reaction.react, self.starts, reaction.prepare)


@dataclass(frozen=True, slots=True)
class Policy:
    """A reaction to events. `events` are the types that it takes. `name` is a sentence: `when_x_then_y`.

    `starts` says how a new policy treats events that were published before its first start: "beginning"
    reacts to all of them, "now" to none. Its starting position is recorded once, so that neither a crash
    nor a second process changes it.

    `prepare` may read in bulk what the reactions to a batch need; it changes nothing, and no reaction
    relies on it.
    """

    name: str
    sources: tuple[str, ...]
    events: frozenset[str]
    react: React
    starts: Starts
    prepare: Prepare | None = None


def command_of(event: Delivered, policy: str, subject: UUID, clock: Clock) -> CommandContext:
    """The context of the command that a policy gives to `subject` because of an event.

    The id of the command follows from the event, the policy and the subject. When the event comes again, the
    command has its outcome already.
    """
    trace = {"traceparent": event.traceparent, "tracestate": event.tracestate}
    return CommandContext(
        actor=f"policy:{policy}",
        now=clock.now(),
        command_id=uuid5(event.id, f"{policy}:{subject}"),
        effective_at=event.effective_at,
        correlation_id=event.correlation_id,
        causation_id=event.id,
        trace={name: value for name, value in trace.items() if value is not None},
    )


class Reactor:
    """Gives records to a policy.

    As with a projector, records may come twice, and to several reactors at once.
    """

    def __init__(
        self,
        policy: Policy,
        parking: Parking,
        *,
        at_once: int = REACTING_AT_ONCE_MAX,
        prepared_at_once: int = PREPARED_AT_ONCE_MAX,
    ) -> None:
        self.policy = policy
        self.parking = parking
        self.positions: dict[Partition, Position] = {}
        self.reactions = 0
        self._at_once = at_once
        self._prepared_at_once = prepared_at_once
        self._turn = asyncio.Lock()
        self._wanted = frozenset(type.encode() for type in policy.events)

    async def apply(self, records: Sequence[Record]) -> None:
        """Reacts to each event that is new, or parks its subject; saves the positions last."""
        async with self._turn:
            arrivals = Arrivals()
            events = list(arrivals.events(records, self._wanted))
            # Most batches hold no event that the policy takes; the database is asked nothing for these.
            if events:
                await self._react_to(events, first_offsets(records))
            for record, reason in arrivals.broken:
                await self.parking.dead_letter(record, reason)
            await self.parking.checkpoints.advance(arrivals.positions)
            further(self.positions, arrivals.positions)

    async def tick(self) -> list[UUID]:
        """Releases the subjects whose release was requested. Returns the subjects that were released."""
        async with self._turn:
            await self.parking.refresh()
            return await self.parking.release_wanted(self._react)

    async def open(self) -> None:
        """Reads where the group is."""
        # The positions are read before the parked subjects. Otherwise another reactor could park an event between
        # the two, and advance past it: the event would be skipped here, and not hold the later ones back.
        self.positions.update(await self.parking.checkpoints.positions())
        await self.parking.refresh()

    async def _react_to(self, events: Sequence[Delivered], first: Mapping[Partition, int]) -> None:
        if not continues(self.positions, first):
            await self.open()
        reached = self.positions
        subjects: dict[Stream, list[Delivered]] = {}
        for event in events:
            before = reached.get((event.record.topic, event.record.partition))
            if before is not None and event.position <= before.position:
                continue
            subjects.setdefault(event.stream, []).append(event)
        await self._give_all(list(subjects.values()))

    async def _give_all(self, subjects: Sequence[list[Delivered]]) -> None:
        """Processes all subjects. The next ones are prepared while others are processed."""
        waiting: deque[list[Delivered]] = deque()
        working: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            for at in range(0, len(subjects), self._prepared_at_once):
                some = subjects[at : at + self._prepared_at_once]
                await self._prepare([event for events in some for event in events])
                waiting.extend(some)
                for _ in range(min(len(some), self._at_once - len(working))):
                    worker = group.create_task(self._give_each(waiting))
                    working.add(worker)
                    worker.add_done_callback(working.discard)

    async def _give_each(self, subjects: deque[list[Delivered]]) -> None:
        """Processes the subjects that wait, one after the other, until none is left."""
        while subjects:
            events = subjects.popleft()
            free = [event for event in events if not self.parking.holds(event)]
            await self.parking.give(free, self._react)
            held = events[len(free) :]
            if held:
                await self.parking.keep(held, self._react)

    async def _prepare(self, events: list[Delivered]) -> None:
        """Prepares for a batch.

        An error of one record comes again in its own reaction, which parks the subject.
        """
        try:
            if self.policy.prepare is not None:
                await self.policy.prepare(events)
        except Exception as error:
            if not is_of_the_record(error):
                raise

    async def _react(self, event: Delivered) -> None:
        try:
            with telemetry.span(self.policy.name, {"traceparent": event.traceparent}):
                await self.policy.react(event)
        except Exception as error:
            if not is_of_the_record(error):
                raise
            # Not the error's text: unlike a view, a policy may have opened personal values.
            raise PoisonEvent(" at ".join([type(error).__name__, *telemetry.places(error, 1)])) from error
        self.reactions += 1


async def reached(broker: Broker, topics: Sequence[str]) -> dict[Partition, tuple[int, int]]:
    """Returns the current end of the topics: the next offset of each partition, and the highest position
    before it.

    After a restart a relay publishes some events again after later ones, so more than the last record is
    read.
    """
    found: dict[Partition, tuple[int, int]] = {}
    for place, end in (await broker.end_offsets(topics)).items():
        positions = [0]
        if end:
            async for page in broker.read_from(place, max(0, end - LOOKED_BACK_RECORDS)):
                for record in page:
                    if (record.offset or 0) < end:
                        with suppress(EnvelopeInvalid):
                            positions.append(read(record).position)
        found[place] = (end, max(positions))
    return found


class PoliciesRole(Generic[W]):
    """The role `<service>-policies`, with connections of its own.

    `opened` opens what the reactions of the policies need.
    """

    def __init__(
        self,
        service: str,
        policies: Sequence[DeclaredPolicy[W]],
        opened: Callable[[Clock], AbstractAsyncContextManager[W]],
        settings: Settings,
        clock: Clock | None = None,
    ) -> None:
        self.name = f"{service}-policies"
        self._service = service
        self._policies = policies
        self._opened = opened
        self._settings = settings
        self._clock = clock or SystemClock()
        self._runner: PolicyRunner | None = None
        self._unanswered: Callable[[], list[str]] = list

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`; raises ConnectionError where a server is lost."""
        settings = self._settings
        await ensure_topics(settings.kafka_url, TOPICS)
        async with AsyncExitStack() as stack:
            connections = await stack.enter_async_context(self._opened(self._clock))
            mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
            stack.push_async_callback(mongo.close)
            publisher = KafkaPublisher(settings.kafka_url, client_id=self.name)
            stack.push_async_callback(publisher.close)
            self._unanswered = await stack.enter_async_context(
                answering(settings.kafka_url, TOPICS, self._clock, {NO_MONGODB: mongo.ping})
            )
            self._runner = PolicyRunner(
                self.name,
                [policy.over(connections) for policy in self._policies],
                service=self._service,
                mongo=mongo,
                broker=Kafka(settings.kafka_url),
                publisher=publisher,
                clock=self._clock,
            )
            await self._runner.run(stopping)

    def not_ready(self) -> list[str]:
        """Why policies do not react."""
        return ["starting"] if self._runner is None else [*self._unanswered(), *self._runner.not_ready()]


class PolicyRunner:
    """Runs policies, each in a group of its own. Raises ConnectionError where a server is lost.

    `mongo` is the database of the service's views; the checkpoints are beside it, see `CHECKPOINTS_DATABASE`.
    """

    def __init__(
        self,
        name: str,
        policies: Sequence[Policy],
        *,
        service: str,
        mongo: Mongo,
        broker: Broker,
        publisher: Publisher,
        clock: Clock,
        instance: str | None = None,
    ) -> None:
        self._name = name
        self._broker = broker
        self._mongo = mongo.beside(CHECKPOINTS_DATABASE)
        self._clock = clock
        self._running: list[tuple[Reactor, Member, MongoCheckpoints]] = []
        self._reason: str | None = "not started"
        for policy in policies:
            group = f"{service}.{policy.name}"
            checkpoints = MongoCheckpoints(self._mongo, group, policy.name)
            parking = Parking(group, checkpoints, publisher, clock)
            reactor = Reactor(policy, parking)
            consumer = broker.member(
                policy.sources,
                group,
                self._handle(reactor, checkpoints),
                batch_max=BATCH_RECORDS_MAX,
                instance=None if instance is None else f"{instance}.{policy.name}",
                dead_letter=parking.letters.write_uncopied,
            )
            self._running.append((reactor, consumer, checkpoints))

    @property
    def name(self) -> str:
        """As in health, metrics and logs."""
        return self._name

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs all policies; when one cannot go on, the others stop and the reason is raised."""
        await prepare_checkpoints(self._mongo)
        for reactor, _, checkpoints in self._running:
            await self._begin(reactor.policy, checkpoints)
            await reactor.open()
        self._reason = None
        try:
            await together(stopping, *(consumer.run for _, consumer, _ in self._running), self._watch)
        finally:
            self._reason = "not running"

    def not_ready(self) -> list[str]:
        """Why policies do not react."""
        failing = [
            f"{consumer.group}: {consumer.failing}" for _, consumer, _ in self._running if consumer.failing
        ]
        return failing if self._reason is None else [self._reason, *failing]

    async def measure(self) -> None:
        """Refreshes the gauges of all policies, as the watch does every second."""
        for reactor, consumer, _ in self._running:
            lag = await consumer.lag()
            contexts = {place: position.context for place, position in reactor.positions.items()}
            for context in set(contexts.values()):
                behind = sum(left for place, left in lag.items() if contexts.get(place) == context)
                metrics.LAG_EVENTS.labels(consumer.group, context).set(behind)
            metrics.DEAD_LETTERS.labels(consumer.group).set(reactor.parking.letters.written)
            metrics.PARKED_SUBJECTS.labels(consumer.group).set(len(reactor.parking.parked))

    async def _begin(self, policy: Policy, checkpoints: MongoCheckpoints) -> None:
        """Opens the checkpoints of a policy where it starts, unless they are open."""
        partitions = partitions_of(policy.sources)
        begun = await checkpoints.positions()
        starts: dict[Partition, Position] = {}
        if policy.starts == "now" and not begun and not await self._broker.group_offsets(checkpoints.group):
            now = await reached(self._broker, policy.sources)
            starts = {
                at: Position(*now[at][:1], partitions[at], now[at][1], None) for at in partitions if at in now
            }
            if starts.keys() != partitions.keys():
                raise BrokerUnavailable(f"not all partitions of {', '.join(policy.sources)} are there")
        await checkpoints.begin(partitions, starts)

    def _handle(
        self, reactor: Reactor, checkpoints: MongoCheckpoints
    ) -> Callable[[Sequence[Record]], Awaitable[None]]:
        async def handle(records: Sequence[Record]) -> None:
            try:
                await reactor.apply(records)
            except GenerationLost:
                # The checkpoints were dropped: the group's own offsets still say where to go on.
                await self._begin(reactor.policy, checkpoints)
                raise

        return handle

    async def _watch(self, done: asyncio.Event) -> None:
        while not done.is_set():
            await set_within(done, WATCH_SECONDS)
            for reactor, _, _ in self._running:
                await reactor.tick()
            await self.measure()
