"""The role that keeps views: consumes for several of them in one process, each in a group of its own.

A process has several members in the group of a view. While the documents of one are written, another folds.

A view without a live generation, or with one that older code folded, is built first and shown when it has
caught up. A generation that was dropped or replaced under a running process is noticed within a second and
followed.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from typing import Final, Generic

import structlog
from contracts.topics import TOPICS
from typing_extensions import override

from chassis.clock import Clock, SystemClock
from chassis.connections.settings import Settings
from chassis.ending import set_within, together
from chassis.messaging.answering import NO_MONGODB, answering
from chassis.messaging.broker import Broker, Kafka, Member
from chassis.messaging.records import Record
from chassis.messaging.transport import Handle, KafkaPublisher, Partition, Publisher, ensure_topics
from chassis.observability import metrics
from chassis.read.checkpoints import GenerationLost, Position
from chassis.read.generations import Generation, Generations, KeptT, partitions_of
from chassis.read.mongo import Mongo
from chassis.read.parking import Parking
from chassis.read.projecting import CACHED_DOCUMENTS_MAX, CHUNK_RECORDS, Projector, View

WATCH_SECONDS: Final = 1.0
SWEEP_SECONDS: Final = 30.0
CAUGHT_UP_RECORDS_MAX: Final = 2_000
"""A view that is this close to the end of its topics is shown."""
MEMBERS: Final = 2
"""Members of a process in the group of a view. With one, a process waits for its database while the next records wait for
it: at half of the rate that a view holds it is behind by twice as long (`benchmarks/panorama_projection.py`)."""
BATCH_RECORDS_MAX: Final = 2 * CHUNK_RECORDS
"""While one chunk is written the next is folded, so a batch of a member is several where several are there."""

_log = structlog.get_logger(__name__)


class ViewsRole:
    """The role `<service>-views`: keeps the views of a service, with connections of its own."""

    def __init__(
        self, service: str, views: Sequence[View], settings: Settings, clock: Clock | None = None
    ) -> None:
        self.name = f"{service}-views"
        self._service = service
        self._views = views
        self._settings = settings
        self._clock = clock or SystemClock()
        self._runner: ViewRunner | None = None
        self._unanswered: Callable[[], list[str]] = list

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`; raises ConnectionError where a server is lost."""
        settings = self._settings
        await ensure_topics(settings.kafka_url, TOPICS)
        async with AsyncExitStack() as stack:
            mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
            stack.push_async_callback(mongo.close)
            publisher = KafkaPublisher(settings.kafka_url, client_id=self.name)
            stack.push_async_callback(publisher.close)
            self._unanswered = await stack.enter_async_context(
                answering(settings.kafka_url, TOPICS, self._clock, {NO_MONGODB: mongo.ping})
            )
            self._runner = ViewRunner(
                self.name,
                self._views,
                service=self._service,
                mongo=mongo,
                broker=Kafka(settings.kafka_url),
                publisher=publisher,
                clock=self._clock,
            )
            await self._runner.run(stopping)

    def not_ready(self) -> list[str]:
        """The servers that do not answer, and the views that are not up to date, or are not shown."""
        return ["starting"] if self._runner is None else [*self._unanswered(), *self._runner.not_ready()]


class ViewRunner:
    """Keeps views up to date until it is told to stop. Raises ConnectionError where a server is lost."""

    def __init__(
        self,
        name: str,
        views: Sequence[View],
        *,
        service: str,
        mongo: Mongo,
        broker: Broker,
        publisher: Publisher,
        clock: Clock,
        batch_records: int = BATCH_RECORDS_MAX,
        instance: str | None = None,
    ) -> None:
        self._name = name
        self._followers = [
            Follower(
                Generations(mongo, view, service, clock),
                broker,
                publisher,
                clock,
                batch_records=batch_records,
                instance=instance,
            )
            for view in views
        ]

    @property
    def name(self) -> str:
        """As in health, metrics and logs."""
        return self._name

    async def run(self, stopping: asyncio.Event) -> None:
        """Keeps all views; when one cannot go on, the others stop and the reason is raised."""
        await together(stopping, *(follower.run for follower in self._followers))

    def not_ready(self) -> list[str]:
        """Which views do not show what is known, and why."""
        return [reason for follower in self._followers for reason in follower.not_ready()]


class AnyFollower(ABC, Generic[KeptT]):
    """Keeps one view, or one derived view."""

    def __init__(
        self,
        generations: Generations[KeptT],
        broker: Broker,
        clock: Clock,
        *,
        batch_records: int = BATCH_RECORDS_MAX,
        instance: str | None = None,
    ) -> None:
        self.generations = generations
        self.view = generations.view
        self._broker = broker
        self._clock = clock
        self._batch_records = batch_records
        self._instance = instance
        self._reason: str | None = "not started"
        self._feed: AnyFeed[KeptT] | None = None
        self._generation: Generation | None = None
        self._level_at: dict[Partition, datetime] = {}
        self._last_sweep = clock.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Follows the generation of this code, also after it is replaced, until `stopping`."""
        while not stopping.is_set():
            generation = await self._chosen()
            if generation is None:
                await set_within(stopping, WATCH_SECONDS)
                continue
            await self._follow(generation, stopping)

    def not_ready(self) -> list[str]:
        """Why the view is not up to date, or is not shown."""
        reasons = [] if self._reason is None else [f"{self.view.name}: {self._reason}"]
        if self._feed is not None and self._feed.failing is not None:
            reasons.append(f"{self.view.name}: {self._feed.failing}")
        return reasons

    @abstractmethod
    async def _begun(self, least: int) -> Generation:
        """A generation above a number that is being built, or a new one."""

    @abstractmethod
    async def _opened(self, generation: Generation) -> "AnyFeed[KeptT]":
        """The feed of a generation, which is prepared."""

    @abstractmethod
    async def _short(self, generation: Generation) -> str:
        """What a built generation lacks, so that it is not shown; empty where it lacks nothing."""

    async def measure(self) -> None:
        """Refreshes the gauges of the view, as the watch does every second."""
        if self._generation is None or self._feed is None:
            return
        group = self._generation.group
        lag = await self._feed.lag()
        now = self._clock.now()
        for context, positions in _by_context(dict(self._feed.positions)).items():
            behind = sum(left for place, left in lag.items() if place in positions)
            seen = [position.at for position in positions.values() if position.at is not None]
            waits = self._waits_seconds(positions, lag, now)
            metrics.LAG_EVENTS.labels(group, context).set(behind)
            metrics.LAG_SECONDS.labels(group, context).set(max(0.0, waits))
            if seen:
                heard = (now - max(seen)).total_seconds()
                metrics.FRESHNESS_SECONDS.labels(f"{self.view.name}/{context}").set(max(0.0, heard))
        await self._feed.measure()

    def _waits_seconds(
        self, positions: Mapping[Partition, Position], lag: Mapping[Partition, int], now: datetime
    ) -> float:
        """The longest time for which the oldest record that is not in the view may have waited.

        A partition without waiting records at the last check can only have records that waited since then,
        however old its last record is.
        """
        since = []
        for place, position in positions.items():
            if not lag.get(place):
                self._level_at[place] = now
            elif position.at is not None:
                since.append(max(position.at, self._level_at.get(place, position.at)))
        return (now - min(since)).total_seconds() if since else 0.0

    async def _chosen(self) -> Generation | None:
        """The live generation if this code folded it, else one that is being built, else a new one."""
        live = await self.generations.live()
        if live is not None and live.is_of(self.view):
            return live
        if live is not None and live.code > self.view.version:
            self._reason = "was built by newer code"
            return None
        if live is not None and live.code == self.view.version:
            self._reason = f"another view is live as version {live.code}: raise the version of this one"
            return None
        least = 0 if live is None else live.number
        return await self._begun(least)

    async def _used(self, group: str) -> bool:
        return bool(await self._broker.group_offsets(group))

    async def _follow(self, generation: Generation, stopping: asyncio.Event) -> None:
        try:
            feed = await self._opened(generation)
            await feed.open()
            self._generation, self._feed = generation, feed
            self._reason = None if generation.state == "live" else "being built"
            await together(stopping, feed.run, partial(self._watch, generation, feed))
        except GenerationLost:
            _log.warning("generation lost", view=self.view.name, group=generation.group)
        finally:
            self._feed = None
            self._reason = "not following"

    async def _watch(self, generation: Generation, feed: "AnyFeed[KeptT]", leaving: asyncio.Event) -> None:
        building = generation.state == "building"
        while not leaving.is_set():
            if building and await feed.left() <= CAUGHT_UP_RECORDS_MAX and feed.complete:
                short = await self._short(generation)
                if short:
                    self._reason = f"built, and not shown: {short}; see `crm rebuild --accept-differences`"
                else:
                    await self.generations.switch(generation)
                    _log.info("view shown", view=self.view.name, group=generation.group)
                    building, self._reason = False, None
            elif not building:
                self._reason = lacking(feed.positions) or None
            await set_within(leaving, WATCH_SECONDS)
            if not await self.generations.still(generation):
                raise GenerationLost(generation.group)
            await feed.tick()
            await self.measure()
            if self._clock.monotonic() - self._last_sweep > SWEEP_SECONDS:
                self._last_sweep = self._clock.monotonic()
                await self.generations.sweep()


class Follower(AnyFollower[View]):
    """Keeps one view."""

    def __init__(
        self,
        generations: Generations,
        broker: Broker,
        publisher: Publisher,
        clock: Clock,
        *,
        batch_records: int = BATCH_RECORDS_MAX,
        instance: str | None = None,
    ) -> None:
        super().__init__(generations, broker, clock, batch_records=batch_records, instance=instance)
        self._publisher = publisher

    @override
    async def _begun(self, least: int) -> Generation:
        return await unfinished(self.generations, least) or await self.generations.begin(self._used)

    @override
    async def _opened(self, generation: Generation) -> "Feed":
        await self.generations.prepare(generation)
        return Feed(
            self.generations,
            generation,
            self._broker,
            self._publisher,
            self._clock,
            batch_records=self._batch_records,
            instance=self._instance,
        )

    @override
    async def _short(self, generation: Generation) -> str:
        """Events that were published and not read, or documents that the live generation has."""
        missing = lacking(await self.generations.checkpoints(generation).positions())
        if missing:
            return missing
        live = await self.generations.live()
        short = {} if live is None else await fewer(self.generations, live, generation)
        return ", ".join(f"{number:,} documents fewer in {name}" for name, number in sorted(short.items()))


def lacking(positions: Mapping[Partition, Position]) -> str:
    """The published events that a fold has not seen up to its position; empty where none is missing."""
    short = {place: at.missing for place, at in sorted(positions.items()) if at.missing}
    if not short:
        return ""
    named = ", ".join(f"{number:,} of {topic}[{partition}]" for (topic, partition), number in short.items())
    return (
        f"{sum(short.values()):,} published events are not in the topic ({named}); make it anew and"
        " `crm republish` its events from the store (docs/runbooks/rebuild.md)"
    )


async def fewer(generations: Generations[KeptT], one: Generation, other: Generation) -> dict[str, int]:
    """The number of documents that the second generation lacks compared with the first, for collections that
    lack any."""
    found: dict[str, int] = {}
    there = set(await generations.mongo.collections())
    for collection in generations.view.collections:
        before, after = one.prefix + collection.name, other.prefix + collection.name
        if before in there:
            short = await generations.mongo.count(before) - await generations.mongo.count(after)
            if short > 0:
                found[collection.name] = short
    return found


class AnyFeed(ABC, Generic[KeptT]):
    """The members of one generation's group in this process, with what they give the records to."""

    members: Sequence[Member]

    def __init__(self, generations: Generations[KeptT], generation: Generation, broker: Broker) -> None:
        self.checkpoints = generations.checkpoints(generation)
        self._broker = broker
        self._sources = generations.view.sources
        self._begun_everywhere = False
        self._lost: GenerationLost | None = None
        self._leaving = asyncio.Event()

    @property
    @abstractmethod
    def positions(self) -> Mapping[Partition, Position]:
        """The checkpoints to which this process brought the partitions."""

    @property
    def complete(self) -> bool:
        """Whether the generation lacks nothing but records that it did not read yet, as `left` found it last."""
        return self._begun_everywhere

    @abstractmethod
    async def open(self) -> None:
        """Reads the checkpoints of the generation."""

    @abstractmethod
    async def tick(self) -> None:
        """Does what is due while no records come."""

    async def measure(self) -> None:
        """Refreshes the gauges that only this kind has."""

    @property
    def failing(self) -> str | None:
        """Why the last batch of a member failed, until one of its succeeds."""
        return next((member.failing for member in self.members if member.failing is not None), None)

    async def lag(self) -> dict[Partition, int]:
        """Records not handled yet in each partition of this process."""
        found: dict[Partition, int] = {}
        for member in self.members:
            found |= await member.lag()
        return found

    async def run(self, leaving: asyncio.Event) -> None:
        """Consumes until `leaving`; raises GenerationLost where the generation was dropped or replaced."""
        self._leaving = leaving
        await together(leaving, *(member.run for member in self.members))
        if self._lost is not None:
            raise self._lost

    async def left(self) -> int:
        """The number of records that the generation has not applied, in the partitions of all members."""
        positions = await self.checkpoints.positions()
        ends = await self._broker.end_offsets(self._sources)
        if set(ends) < set(partitions_of(self._sources)):
            raise ConnectionError(f"not all partitions of {', '.join(self._sources)} are there")
        offsets = {place: at.offset for place, at in positions.items()}
        # Before a record of a partition was read, it is not known how many published events are missing there.
        self._begun_everywhere = all(offsets.get(place, 0) > 0 for place, end in ends.items() if end > 0)
        return sum(max(0, end - offsets.get(place, 0)) for place, end in ends.items())

    async def handled(self, apply: Handle, records: Sequence[Record]) -> None:
        """Processes records for a member; all are told to end when the generation is lost."""
        try:
            await apply(records)
        except GenerationLost as lost:
            self._lost = lost
            self._leaving.set()
            raise


class Feed(AnyFeed[View]):
    """The members of one generation of a view, each with a projector of its own."""

    def __init__(
        self,
        generations: Generations,
        generation: Generation,
        broker: Broker,
        publisher: Publisher,
        clock: Clock,
        *,
        batch_records: int = BATCH_RECORDS_MAX,
        instance: str | None = None,
    ) -> None:
        super().__init__(generations, generation, broker)
        self._group = generation.group
        self._projectors = [
            Projector(
                generations.view,
                generations.documents(generation),
                Parking(
                    generation.group,
                    self.checkpoints,
                    publisher,
                    clock,
                    dead_letters=generations.dead_letters,
                ),
                cached_documents=CACHED_DOCUMENTS_MAX // MEMBERS,
            )
            for _ in range(MEMBERS)
        ]
        self.members = [
            broker.member(
                generations.view.sources,
                generation.group,
                partial(self.handled, projector.apply),
                batch_max=batch_records,
                instance=None if instance is None else f"{instance}.{generations.view.name}.{number}",
                dead_letter=projector.parking.letters.write_uncopied,
            )
            for number, projector in enumerate(self._projectors)
        ]

    @property
    @override
    def positions(self) -> Mapping[Partition, Position]:
        found: dict[Partition, Position] = {}
        for projector in self._projectors:
            for place, at in projector.positions.items():
                if place not in found or at.offset > found[place].offset:
                    found[place] = at
        return found

    @property
    def records_applied(self) -> int:
        """Records that this process processed."""
        return sum(projector.records_applied for projector in self._projectors)

    @override
    async def open(self) -> None:
        positions = await self.checkpoints.positions()
        for projector in self._projectors:
            projector.positions.update(positions)
            await projector.parking.refresh()

    @override
    async def tick(self) -> None:
        for projector in self._projectors:
            await projector.tick()

    @override
    async def measure(self) -> None:
        parkings = [projector.parking for projector in self._projectors]
        metrics.DEAD_LETTERS.labels(self._group).set(sum(parking.letters.written for parking in parkings))
        metrics.PARKED_SUBJECTS.labels(self._group).set(len(parkings[0].parked))


async def unfinished(generations: Generations[KeptT], above: int) -> Generation | None:
    """A generation that this code began to build and that was not finished."""
    for generation in reversed(await generations.all()):
        if generation.state == "building" and generation.number > above:
            return generation if generation.is_of(generations.view) else None
    return None


def _by_context(positions: dict[Partition, Position]) -> dict[str, dict[Partition, Position]]:
    found: dict[str, dict[Partition, Position]] = {}
    for place, position in positions.items():
        found.setdefault(position.context, {})[place] = position
    return found
