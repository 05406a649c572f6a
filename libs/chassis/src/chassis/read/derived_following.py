"""The role that keeps derived views, each generation pinned to the live generations of its inputs."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import date, timedelta
from functools import partial
from typing import Any, Final

import structlog
from contracts.topics import TOPICS
from typing_extensions import override

from chassis.clock import Clock, SystemClock
from chassis.connections.settings import Settings
from chassis.ending import set_within, together
from chassis.messaging.answering import NO_MONGODB, answering
from chassis.messaging.broker import Broker, Kafka
from chassis.messaging.transport import Partition, ensure_topics
from chassis.observability import metrics
from chassis.privacy.keys import KeyRing
from chassis.read.arrivals import NOWHERE
from chassis.read.blind import BlindIndex
from chassis.read.checkpoints import Position
from chassis.read.deriving import DerivedView, Deriver, InputGeneration, InputReplaced, MongoInputs
from chassis.read.documents import ID, DocumentId
from chassis.read.generations import (
    GENERATIONS,
    Generation,
    Generations,
    live_generation,
    partitions_of,
)
from chassis.read.mongo import Mongo
from chassis.read.summing import Summing, Waits
from chassis.read.viewing import WATCH_SECONDS, AnyFeed, AnyFollower, unfinished

BATCH_RECORDS_MAX: Final = 20_000
"""A batch derives each document once. The larger a batch of a deriver that lags, the fewer times it derives a document that
many events change; and a batch holds all partitions, where a small one holds what was fetched of one."""
DERIVED_IN_A_ROW: Final = 2_000
"""Documents of a new generation that are derived before the place that was reached is saved."""
LEASE_SECONDS: Final = 10.0
"""So long one process derives the documents of a new generation; it asks anew for each of these rows."""
SUMMED_EVERY_SECONDS: Final = 1.0
REST_FACTOR: Final = 4
"""After some buckets were summed, so many times as long as it took none is: sums take a fifth of the time at most, never much
of it at once, and the more documents change meanwhile the more of them each reading of a bucket shows."""
REST_SECONDS_MAX: Final = 60.0
ALL: Final = "all_derived"
AFTER: Final = "derived_through"

_log = structlog.get_logger(__name__)


class DerivedRole:
    """The role `<service>-derived`: keeps the derived views of a service, with connections of its own."""

    def __init__(
        self,
        service: str,
        views: Sequence[DerivedView],
        settings: Settings,
        clock: Clock | None = None,
    ) -> None:
        self.name = f"{service}-derived"
        self._service = service
        self._views = views
        self._settings = settings
        self._clock = clock or SystemClock()
        self._today = partial(settings.business_date, self._clock)
        self._followers: list[DerivedFollower] | None = None
        self._unanswered: Callable[[], list[str]] = list

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`; raises ConnectionError where a server is lost."""
        settings = self._settings
        await ensure_topics(settings.kafka_url, TOPICS)
        async with AsyncExitStack() as stack:
            mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
            stack.push_async_callback(mongo.close)
            broker = Kafka(settings.kafka_url)
            self._unanswered = await stack.enter_async_context(
                answering(settings.kafka_url, TOPICS, self._clock, {NO_MONGODB: mongo.ping})
            )
            blind = None
            if any(view.digests for view in self._views):
                ring = await asyncio.to_thread(KeyRing.of, settings, self._clock.monotonic)
                stack.push_async_callback(asyncio.to_thread, ring.close)
                blind = BlindIndex(ring)
            self._followers = [
                DerivedFollower(
                    Generations(mongo, view, self._service, self._clock),
                    broker,
                    self._clock,
                    self._today,
                    blind=blind,
                )
                for view in self._views
            ]
            await together(stopping, *(follower.run for follower in self._followers))

    def not_ready(self) -> list[str]:
        """The servers that do not answer, and the derived views that are not up to date, or are not shown."""
        if self._followers is None:
            return ["starting"]
        return self._unanswered() + [
            reason for follower in self._followers for reason in follower.not_ready()
        ]


async def pinned(
    generations: Generations[DerivedView],
    generation: Generation,
    today: Callable[[], date],
    blind: BlindIndex | None = None,
) -> MongoInputs:
    """The inputs of a generation. Raises InputReplaced where another generation of one of them is live."""
    found = []
    for view in generations.view.inputs:
        live = await live_generation(generations.mongo, view.name)
        if live is None or live.number != generation.inputs.get(view.name):
            raise InputReplaced(f"{view.name} is not what {generation.prefix} is derived from")
        found.append(InputGeneration.of(view, live))
    return MongoInputs(generations.mongo, found, today, blind)


async def live_inputs(generations: Generations[DerivedView]) -> dict[str, int]:
    """The number of the live generation of each input; raises InputReplaced where this code cannot read one."""
    found = {}
    for view in generations.view.inputs:
        live = await live_generation(generations.mongo, view.name)
        if live is None or not live.is_of(view):
            raise InputReplaced(f"the input {view.name} is not built by this code")
        found[view.name] = live.number
    return found


async def starts_of(inputs: MongoInputs) -> dict[Partition, Position]:
    """Where a generation starts to read: what comes before is shown by every input."""
    shown = await inputs.positions()
    starts: dict[Partition, Position] = {}
    for view in (one.view for one in inputs.pinned.values()):
        for place in partitions_of(view.sources):
            at = shown[view.name].get(place, NOWHERE)
            before = starts.get(place, at)
            starts[place] = min(before, at, key=lambda one: one.offset)
    return {place: at for place, at in starts.items() if at.offset}


class DerivedFollower(AnyFollower[DerivedView]):
    """Keeps one derived view."""

    def __init__(
        self,
        generations: Generations[DerivedView],
        broker: Broker,
        clock: Clock,
        today: Callable[[], date],
        *,
        batch_records: int = BATCH_RECORDS_MAX,
        instance: str | None = None,
        blind: BlindIndex | None = None,
    ) -> None:
        super().__init__(generations, broker, clock, batch_records=batch_records, instance=instance)
        self._today = today
        self._blind = blind

    @override
    async def _chosen(self) -> Generation | None:
        """The live generation if it is derived from the inputs that are live, else one for these."""
        try:
            inputs = await live_inputs(self.generations)
            chosen = await super()._chosen()
            if chosen is None or chosen.inputs == inputs:
                return chosen
            return await self._begun(chosen.number)
        except InputReplaced as reason:
            self._reason = str(reason)
            return None

    @override
    async def _begun(self, least: int) -> Generation:
        inputs = await live_inputs(self.generations)
        there = await unfinished(self.generations, least)
        if there is not None and there.inputs == inputs:
            return there
        return await self.generations.begin(self._used, inputs)

    @override
    async def _short(self, generation: Generation) -> str:
        """Nothing: a document that is not derived from these inputs is not there."""
        return ""

    @override
    async def _opened(self, generation: Generation) -> "DerivedFeed":
        named = {"batch_records": self._batch_records, "instance": self._instance}
        return await DerivedFeed.of(
            self.generations, generation, self._broker, self._clock, self._today, self._blind, **named
        )


class DerivedFeed(AnyFeed[DerivedView]):
    """The consumer of one generation of a derived view, with its deriver; it derives all of a new one."""

    def __init__(
        self,
        generations: Generations[DerivedView],
        generation: Generation,
        inputs: MongoInputs,
        broker: Broker,
        clock: Clock,
        *,
        batch_records: int = BATCH_RECORDS_MAX,
        instance: str | None = None,
    ) -> None:
        super().__init__(generations, generation, broker)
        view = generations.view
        self._mongo = generations.mongo
        self._generation = generation
        self._inputs = inputs
        self._clock = clock
        self._complete = generation.state == "live"
        self._waits = Waits()
        self._me = f"{socket.gethostname()}|{os.getpid()}|{id(self)}"
        self.deriver = Deriver(view, generations.documents(generation), self.checkpoints, inputs, clock)
        self.members = [
            broker.member(
                view.sources,
                generation.group,
                partial(self.handled, self.deriver.apply),
                batch_max=batch_records,
                instance=None if instance is None else f"{instance}.{view.name}",
            )
        ]

    @classmethod
    async def of(
        cls,
        generations: Generations[DerivedView],
        generation: Generation,
        broker: Broker,
        clock: Clock,
        today: Callable[[], date],
        blind: BlindIndex | None = None,
        **named: Any,
    ) -> "DerivedFeed":
        """The feed of a generation, prepared. Raises InputReplaced."""
        inputs = await pinned(generations, generation, today, blind)
        await generations.prepare(generation, await starts_of(inputs))
        return cls(generations, generation, inputs, broker, clock, **named)

    @property
    @override
    def positions(self) -> Mapping[Partition, Position]:
        return self.deriver.positions

    @property
    @override
    def complete(self) -> bool:
        return self._complete

    @override
    async def open(self) -> None:
        self.deriver.positions.update(await self.checkpoints.positions())

    @override
    async def tick(self) -> None:
        await self._inputs.check()
        await self.deriver.tick()

    @override
    async def measure(self) -> None:
        if self.deriver.summing is not None and self._complete:
            marks = await self.deriver.summing.marks()
            oldest_seconds = self._waits.longest_seconds(marks, self._clock.monotonic())
            self._show_waiting(len(marks.waiting()), oldest_seconds)

    def _show_waiting(self, buckets: int, oldest_seconds: float) -> None:
        if self.deriver.summing is not None:
            metrics.BUCKETS_WAITING.labels(self._generation.group).set(buckets)
            metrics.BUCKETS_AGE_SECONDS.labels(self._generation.group).set(oldest_seconds)

    @override
    async def run(self, leaving: asyncio.Event) -> None:
        sums = [] if self.deriver.summing is None else [partial(self._keep_sums, self.deriver.summing)]
        try:
            await together(leaving, super().run, self._derive_all, *sums)
        finally:
            self._show_waiting(0, 0.0)

    async def _keep_sums(self, summing: Summing, leaving: asyncio.Event) -> None:
        """Sums the buckets that change, one process at a time."""
        began = self._clock.monotonic()

        def rest_seconds() -> float:
            return min(REST_SECONDS_MAX, REST_FACTOR * (self._clock.monotonic() - began))

        async def rested() -> bool:
            nonlocal began
            await set_within(leaving, rest_seconds())
            began = self._clock.monotonic()
            return await self._still("summer")

        while not await set_within(leaving, max(SUMMED_EVERY_SECONDS, rest_seconds())):
            began = self._clock.monotonic()
            if self._complete:
                await summing.sum_marked(rested)

    async def _derive_all(self, leaving: asyncio.Event) -> None:
        await self.derive_all(leaving)
        await leaving.wait()

    async def derive_all(self, leaving: asyncio.Event) -> None:
        """Derives all documents of a new generation, from where it was left; one process at a time."""
        if not self._complete:
            await self.deriver.owe_parked()
        while not self._complete and not leaving.is_set():
            if not await self._leased("sweeper"):
                await set_within(leaving, WATCH_SECONDS)
                continue
            there = await self._mongo.find_one(GENERATIONS, {ID: self._id})
            if there is None:
                raise InputReplaced(f"{self._generation.prefix} was dropped")
            if there.get(ALL):
                self._complete = True
            else:
                await self._derive_next(there.get(AFTER))

    async def _derive_next(self, after: DocumentId | None) -> None:
        view = self.deriver.view
        ids = await view.everything(self._inputs, after, DERIVED_IN_A_ROW)
        if ids:
            await self.deriver.derive(ids)
            change: dict[str, Any] = {"$max": {AFTER: ids[-1]}}
        else:
            await self._inputs.check()  # of an input that was dropped nothing is left
            if not await self._all_summed():
                return
            _log.info("all documents derived", view=view.name, group=self._generation.group)
            change = {"$set": {ALL: True}}
        await self._mongo.update(GENERATIONS, {ID: self._id}, change)

    async def _all_summed(self) -> bool:
        """Sums all buckets of a new generation; False where another process derives all meanwhile."""
        summing = self.deriver.summing
        return summing is None or await summing.sum_all(partial(self._still, "sweeper"))

    async def _still(self, task: str) -> bool:
        return not self._leaving.is_set() and await self._leased(task)

    async def _leased(self, task: str) -> bool:
        """Whether this process is the one that derives or sums; two at once would be harmless and of no use."""
        now, until_field = self._clock.now(), f"{task}_until"
        until = {"$set": {task: self._me, until_field: now + timedelta(seconds=LEASE_SECONDS)}}
        own = {ID: self._id, task: {"$in": [None, self._me]}}
        expired = {ID: self._id, until_field: {"$lte": now}}
        update = self._mongo.update
        return bool(await update(GENERATIONS, own, until) or await update(GENERATIONS, expired, until))

    @property
    def _id(self) -> str:
        return f"{self._generation.view}|{self._generation.number}"
