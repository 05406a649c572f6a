"""Records on Kafka: how they are published, and how they are consumed.

`Publisher` is a port: Kafka in production, the simulation's broker in the simulation. Delivery is at least
once. A consumer makes its own effects idempotent.

Consuming is a FastStream batch subscriber. Publishing is aiokafka below FastStream, whose `publish` costs
36 us per record with fourteen headers, against 8 us for a batch of a partition that is built here (19,000
and 60,000 records/s).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Final, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]
from aiokafka.abc import ConsumerRebalanceListener  # type: ignore[import-untyped]
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]
from aiokafka.admin.config_resource import (  # type: ignore[import-untyped]
    ConfigResource,
    ConfigResourceType,
)
from aiokafka.errors import (  # type: ignore[import-untyped]
    ConsumerStoppedError,
    KafkaError,
    TopicAlreadyExistsError,
    for_code,
)
from contracts.topics import Topic
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from typing_extensions import override

from chassis.connections.kafka import connecting, faststream_security, insync_least
from chassis.connections.transient import Transient, why
from chassis.ending import ended, set_within
from chassis.messaging.fetching import UNREADABLE, UNREADABLE_REASON, RecordReader
from chassis.messaging.records import Record

Partition = tuple[str, int]
"""Topic and number."""

BATCH_BYTES_MAX: Final = 900 * 1024
"""Below the broker's usual limit of 1 MiB. A single record may be larger, if the topic takes it."""
RECORDS_MAX: Final = 1_000
COMPRESSION: Final = "zstd"
"""Records of one batch have most of their headers in common: they take a fifth of the room on the wire and
on the broker's disk."""
FETCH_BYTES_LEAST: Final = 1 << 20
FETCH_BYTES_PER_RECORD: Final = 250
"""Fetched ahead of each partition for every record of a batch: six partitions then fill one with records of
1.5 KB."""
ACKNOWLEDGED_SECONDS_MAX: Final = 15
CLOSING_SECONDS_MAX: Final = 3
HANDLED_SECONDS_MAX: Final = 8
"""How long a consumer that is stopped waits for its batch in hand, which comes again where it is not done. With the time
of leaving this is less than a process gives its roles to stop (`chassis.process.roles.STOP_SECONDS_MAX`)."""
SESSION_SECONDS_MAX: Final = 6
BACK_OFF_SECONDS_FIRST: Final = 0.2
BACK_OFF_SECONDS_MAX: Final = 5.0
POLL_SECONDS_MAX: Final = 0.2
PAUSE_MILLISECONDS: Final = 10
"""After a poll without records FastStream sleeps for as long as it asked the client to wait. It asks for this time, and the
client waits for `POLL_SECONDS_MAX` all the same: a record that comes while FastStream sleeps is handled late."""
WATCHED_SECONDS: Final = 1.0
SILENT_SECONDS_MAX: Final = 15
"""How long a read waits for records that are there: the client raises nothing while it has no broker."""
KEPT_FOR_EVER: Final = -1
DAY_MILLISECONDS: Final = 24 * 60 * 60 * 1000

_OF_THE_CLIENT: Final = (KafkaError, ConsumerStoppedError, OSError, RuntimeError)
"""Errors of a client that lost the broker. A loop raises the last where a connection has just broken."""

_log = structlog.get_logger(__name__)


class BrokerUnavailable(ConnectionError):
    """The broker does not answer."""


class PublishFailed(BrokerUnavailable):
    """Not every record was acknowledged; those that were are on the broker. Publish all of them again."""


class TopicDiffers(Transient):
    """A topic has other partitions or settings than it must have, or lacks its first records. The message says which."""


class Publisher(Protocol):
    """The port to which records are published."""

    async def publish(self, records: Sequence[Record]) -> None:
        """Returns when every record is acknowledged by all replicas in sync; raises PublishFailed otherwise.

        Records of one partition arrive in the order given, and what arrives in spite of PublishFailed is a
        beginning of each partition's records.
        """
        ...


class KafkaPublisher(Publisher):
    """Publishes with acknowledgement of all in-sync replicas. The client's own retries repeat no record.

    After any failure the producer is closed and the next call makes a new one, so a fatal error does not
    last. Each partition has one batch under way: a later batch never overtakes a batch that failed.
    """

    def __init__(
        self, url: str, *, client_id: str = "crm", acknowledged_seconds_max: float = ACKNOWLEDGED_SECONDS_MAX
    ) -> None:
        self.batch_bytes_max = BATCH_BYTES_MAX
        """Below what the broker takes. A single record may be larger; it is then a batch of its own."""
        self._url = url
        self._acknowledged_seconds_max = acknowledged_seconds_max
        self._client_id = client_id
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    @override
    async def publish(self, records: Sequence[Record]) -> None:
        if not records:
            return
        producer: AIOKafkaProducer | None = None
        try:
            producer = await self._started()
            batches = _batches(producer, records)
            await _all_or_none_left(
                [_send(producer, partition, queue) for partition, queue in batches.items()]
            )
        except (*_OF_THE_CLIENT, AssertionError) as error:
            await self._drop(producer)
            raise PublishFailed(why(error)) from error
        except asyncio.CancelledError:
            await self._drop(producer)
            raise

    async def close(self) -> None:
        """Lets the producer go."""
        await self._drop(self._producer)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **connecting(self._url),
                    client_id=self._client_id,
                    acks="all",
                    compression_type=COMPRESSION,
                    enable_idempotence=True,
                    max_batch_size=self.batch_bytes_max,
                    max_request_size=1 << 20,
                    request_timeout_ms=int(self._acknowledged_seconds_max * 1000),
                )
                try:
                    await producer.start()
                except BaseException:
                    await _stopped(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _drop(self, producer: AIOKafkaProducer | None) -> None:
        if producer is not None:
            if self._producer is producer:
                self._producer = None
            await _stopped(producer)


def _batches(producer: AIOKafkaProducer, records: Sequence[Record]) -> dict[TopicPartition, list[Any]]:
    found: dict[Partition, list[Any]] = {}
    for topic, partition, key, given, value, _ in records:
        headers = given if isinstance(given, list) else list(given)
        queue = found.get((topic, partition))
        if queue is None:
            queue = found[topic, partition] = [producer.create_batch()]
        if queue[-1].append(timestamp=None, key=key, value=value, headers=headers) is None:
            queue.append(producer.create_batch())
            queue[-1].append(timestamp=None, key=key, value=value, headers=headers)
    return {TopicPartition(*partition): queue for partition, queue in found.items()}


async def _send(producer: AIOKafkaProducer, partition: TopicPartition, batches: Iterable[Any]) -> None:
    for batch in batches:
        await (await producer.send_batch(batch, partition.topic, partition=partition.partition))


async def _all_or_none_left(sending: "list[Any]") -> None:
    """Waits for all; when one fails the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in sending]
    try:
        await asyncio.gather(*tasks)
    finally:
        await ended(*tasks)


async def _stopped(client: AIOKafkaProducer | AIOKafkaConsumer | AIOKafkaAdminClient) -> None:
    with suppress(*_OF_THE_CLIENT, TimeoutError):
        stop = client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop()
        await asyncio.wait_for(stop, CLOSING_SECONDS_MAX)


# topics


async def ensure_topics(url: str, topics: Iterable[Topic], *, complete: bool = True) -> list[str]:
    """Creates the topics that are missing and names them; raises BrokerUnavailable. Safe to repeat.

    A `private` topic with a longer retention than declared is set to the declared one. Without `complete`
    it is not checked that topics of events still begin at their first record: callers that only publish do
    not need that.

    Raises TopicDiffers where an existing topic would lose records that it must keep, or keep records that
    it must not: another number of partitions, another retention or cleanup, too few in-sync replicas, or
    events that are gone.
    """
    wanted = list(topics)
    async with _admin(url) as admin:
        there = {each["topic"]: each for each in await _described(admin, (topic.name for topic in wanted))}
        missing = [topic for topic in wanted if topic.name not in there]
        created: list[str] = []
        if missing:
            answer = await admin.create_topics([_new(topic) for topic in missing])
            for name, code, *detail in answer.topic_errors:
                if code == 0:
                    created.append(name)
                elif code != TopicAlreadyExistsError.errno:
                    raise BrokerUnavailable(f"topic {name}: {for_code(code).__name__} {detail}")
            await _replicated(admin, url, [topic for topic in missing if topic.name in created])
        kept = [topic for topic in wanted if topic.name in there]
        await _as_declared(admin, url, kept, there)
    if complete:
        await begin_at_the_first(url, [topic.name for topic in kept if topic.kept_days is None])
    return created


async def _replicated(admin: AIOKafkaAdminClient, url: str, topics: Sequence[Topic]) -> None:
    """How many replicas must have a record depends on how many the broker gave the topic."""
    if not topics:
        return
    replicas = {each["topic"]: _replicas(each) for each in await _described(admin, [t.name for t in topics])}
    changes = []
    for topic in topics:
        least = insync_least(url, replicas.get(topic.name, 1))
        if least > 1:
            changes.append(
                ConfigResource(
                    ConfigResourceType.TOPIC,
                    topic.name,
                    _set(topic) | {"min.insync.replicas": str(least)},
                )
            )
    if changes:
        await admin.alter_configs(changes)


async def _as_declared(
    admin: AIOKafkaAdminClient, url: str, topics: Sequence[Topic], there: Mapping[str, Any]
) -> None:
    if not topics:
        return
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
    configs: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(resources):
        for _, _, _, name, entries in answer.resources:
            configs[name] = {entry[0]: entry[1] for entry in entries}
    longer = [
        topic
        for topic in topics
        if topic.private
        and configs.get(topic.name, {}).get("retention.ms") != _configs(topic)["retention.ms"]
    ]
    if longer:
        await admin.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC, topic.name, _set(topic) | _kept_insync(configs, topic)
                )
                for topic in longer
            ]
        )
    for topic in topics:
        found, at = configs.get(topic.name, {}), there[topic.name]
        partitions = len(at["partitions"])
        if partitions != topic.partitions:
            raise TopicDiffers(f"{topic.name} has {partitions} partitions, not {topic.partitions}")
        policy = found.get("cleanup.policy", "delete")
        if policy != "delete":
            raise TopicDiffers(f"{topic.name}: cleanup.policy is {policy}, not delete")
        kept = int(found.get("retention.ms", KEPT_FOR_EVER))
        if not topic.private and not _keeps(topic, kept):
            raise TopicDiffers(f"{topic.name}: retention.ms is {kept}, not {_configs(topic)['retention.ms']}")
        least = insync_least(url, _replicas(at))
        insync = int(found.get("min.insync.replicas", 1))
        if insync < least:
            raise TopicDiffers(f"{topic.name}: min.insync.replicas is {insync}, not {least}")


def _keeps(topic: Topic, kept: int) -> bool:
    """Whether a retention is at least as long as declared."""
    if topic.kept_days is None:
        return kept == KEPT_FOR_EVER
    return kept == KEPT_FOR_EVER or kept >= topic.kept_days * DAY_MILLISECONDS


def _kept_insync(configs: Mapping[str, Mapping[str, str]], topic: Topic) -> dict[str, str]:
    known = configs.get(topic.name, {}).get("min.insync.replicas")
    return {} if known is None else {"min.insync.replicas": known}


async def begin_at_the_first(url: str, topics: Sequence[str]) -> None:
    """Raises TopicDiffers where the first records of a topic are gone: a view built from the rest would be
    wrong."""
    if not topics:
        return
    partitions = await _partitions(url, topics)
    async with _reader(url) as reader:
        for at, begin in (await reader.beginning_offsets(partitions)).items():
            if begin > 0:
                raise TopicDiffers(
                    f"{at.topic}[{at.partition}] begins at offset {begin}, not 0: events are gone from it;"
                    " make it anew and `crm republish` its events from the store (docs/runbooks/rebuild.md)"
                )


async def batch_bytes_max(url: str, topic: str) -> int:
    """How large a batch of records the broker takes for a topic that is there (`max.message.bytes`, or the
    broker's own `message.max.bytes`). Raises BrokerUnavailable."""
    async with _admin(url) as admin:
        for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]):
            for _, _, _, _, entries in answer.resources:
                for entry in entries:
                    if entry[0] == "max.message.bytes":
                        return int(entry[1])
    raise BrokerUnavailable(f"topic {topic} has no max.message.bytes")


def _replicas(described: Any) -> int:
    return min((len(partition["replicas"]) for partition in described["partitions"]), default=1)


def _new(topic: Topic) -> NewTopic:
    return NewTopic(
        topic.name,
        topic.partitions,
        replication_factor=-1,
        replica_assignments={},  # the client wants one where the broker's own replication factor is asked for
        topic_configs=_set(topic),
    )


def _set(topic: Topic) -> dict[str, str]:
    return {name: value for name, value in _configs(topic).items() if value is not None}


def _configs(topic: Topic) -> dict[str, str | None]:
    kept = KEPT_FOR_EVER if topic.kept_days is None else topic.kept_days * DAY_MILLISECONDS
    return {
        "retention.ms": str(kept),
        "cleanup.policy": "delete",
        "max.message.bytes": None if topic.record_bytes_max is None else str(topic.record_bytes_max),
    }


async def _described(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> list[dict[str, Any]]:
    known = set(await admin.list_topics())
    names = [name for name in topics if name in known]
    return list(await admin.describe_topics(names)) if names else []


@asynccontextmanager
async def _admin(url: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**connecting(url), request_timeout_ms=ACKNOWLEDGED_SECONDS_MAX * 1000)
    try:
        with _broker_answers(url):
            await admin.start()
            yield admin
    finally:
        await _stopped(admin)


# consuming

Handle = Callable[[Sequence[Record]], Awaitable[None]]
Partitions = Callable[[frozenset[Partition]], Awaitable[None]]
DeadLetter = Callable[[Sequence[tuple[Record, str]]], Awaitable[None]]
"""Takes the records that the client cannot decode, each with the reason. Such a record has only its place."""


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of a consumer group that hands batches to `handle`, one after the other.

    A batch may span partitions; within a partition offsets rise. When `handle` returns, the batch is
    acknowledged; when it raises, the batch and what follows it come again after a back-off that grows up
    to `back_off_seconds_max`. After a rebalance another member may get what this one is still handling:
    expect every record twice.

    A record that the client cannot decode goes to `dead_letter` after the others of its batch; it is
    logged and passed over.

    `instance` is a name that outlives the process. A member that comes back under it gets its partitions
    at once.
    """

    def __init__(
        self,
        url: str,
        topics: Sequence[str],
        group: str,
        handle: Handle,
        *,
        batch_max: int = RECORDS_MAX,
        instance: str | None = None,
        on_assigned: Partitions | None = None,
        on_revoked: Partitions | None = None,
        dead_letter: DeadLetter | None = None,
        back_off_seconds_max: float = BACK_OFF_SECONDS_MAX,
    ) -> None:
        self.group = group
        self._back_off_seconds_max = back_off_seconds_max
        self._dead_letter = dead_letter
        self.failing: str | None = None
        self._url = url
        self._topics = tuple(topics)
        self._handle = handle
        self._batch_max = batch_max
        self._instance = instance
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._back_off_seconds = BACK_OFF_SECONDS_FIRST
        self._stopping = asyncio.Event()
        self._reached: dict[Partition, int] = {}
        self._subscriber: Any = None
        self._handling = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Consumes until `stopping` is set, then finishes the batch in hand. Raises BrokerUnavailable."""
        self._stopping = stopping
        broker = KafkaBroker(
            str(self._url),
            security=faststream_security(self._url),
            allow_auto_create_topics=False,
            consumer_only=True,
            apply_types=False,
            graceful_timeout=HANDLED_SECONDS_MAX,
            logger=None,
        )
        self._subscriber = broker.subscriber(
            *self._topics,
            batch=True,
            group_id=self.group,
            group_instance_id=self._instance,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            auto_offset_reset="earliest",
            max_records=self._batch_max,
            max_partition_fetch_bytes=max(FETCH_BYTES_LEAST, self._batch_max * FETCH_BYTES_PER_RECORD),
            batch_timeout_ms=PAUSE_MILLISECONDS,
            session_timeout_ms=SESSION_SECONDS_MAX * 1000,
            heartbeat_interval_ms=SESSION_SECONDS_MAX * 1000 // 3,
            listener=self,
            parser=self._parsed,
            decoder=_raw,
            no_reply=True,
        )
        self._subscriber(self._handled)
        try:
            await broker.connect()
            made: Any = broker.config.broker_config.builder
            broker.config.broker_config.builder = partial(
                RecordReader, *made.args, **made.keywords, poll_milliseconds=int(POLL_SECONDS_MAX * 1000)
            )
            await broker.start()
        except _OF_THE_CLIENT as error:
            await broker.stop()
            raise BrokerUnavailable(f"{self._url}: {type(error).__name__} {error}") from error
        try:
            await self._watch(stopping)
        finally:
            await _left(broker, CLOSING_SECONDS_MAX + (HANDLED_SECONDS_MAX if self._handling else 0))
            self._subscriber = None

    async def _watch(self, stopping: asyncio.Event) -> None:
        """Waits for the end.

        FastStream does not report that its loop ended because the client below it was stopped.
        """
        while not stopping.is_set():
            if not await set_within(stopping, WATCHED_SECONDS) and all(
                task.done() for task in self._subscriber.tasks
            ):
                raise BrokerUnavailable(f"{self.group}: consuming has ended by itself")

    def assigned(self) -> frozenset[Partition]:
        """The partitions that this member has now."""
        consumer = self._kafka()
        return frozenset() if consumer is None else frozenset(_pairs(consumer.assignment()))

    async def lag(self) -> dict[Partition, int]:
        """Records not handled yet in each partition of this member, as far as the last fetch told."""
        consumer = self._kafka()
        found: dict[Partition, int] = {}
        for partition in () if consumer is None else consumer.assignment():
            pair = (partition.topic, partition.partition)
            try:
                end, reached = consumer.highwater(partition), self._reached.get(pair)
                if end is not None:
                    if reached is None or not self._handling:
                        # The end of a transaction has an offset and no record.
                        reached = await consumer.position(partition)
                    found[pair] = max(0, end - reached)
            except (*_OF_THE_CLIENT, AssertionError):
                continue  # it was taken away, or the consumer was stopped, while this waited
        return found

    def _kafka(self) -> Any:
        return None if self._subscriber is None else self._subscriber.consumer

    async def _parsed(self, records: tuple[Any, ...]) -> KafkaAckableMessage:
        """Replaces FastStream's own parser, which decodes every header of every record.

        No consumer here needs that.
        """
        return KafkaAckableMessage(
            body=b"", raw_message=records, headers={}, reply_to="", consumer=self._subscriber.consumer
        )

    async def _handled(self, records: tuple[Record, ...]) -> None:
        batch = [each for each in records if each.headers is not UNREADABLE]
        unreadable = []
        if len(batch) < len(records):
            unreadable = [(each, UNREADABLE_REASON) for each in records if each.headers is UNREADABLE]
        self._handling = True
        try:
            if batch:
                await self._handle(batch)
            if unreadable:
                await self._pass_over(unreadable)
        except Exception as error:
            self.failing = why(error)
            _log.warning("batch failed", group=self.group, error=type(error).__name__, records=len(records))
            await set_within(self._stopping, self._back_off_seconds)
            self._back_off_seconds = min(2 * self._back_off_seconds, self._back_off_seconds_max)
            raise
        finally:
            self._handling = False
        self.failing = None
        self._back_off_seconds = BACK_OFF_SECONDS_FIRST
        self._reached.update({each[0:2]: (each.offset or 0) + 1 for each in records})

    async def _pass_over(self, unreadable: Sequence[tuple[Record, str]]) -> None:
        if self._dead_letter is not None:
            await self._dead_letter(unreadable)
        for record, reason in unreadable:
            _log.error(
                "record passed over",
                group=self.group,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                reason=reason,
            )

    @override
    async def on_partitions_assigned(self, assigned: "frozenset[TopicPartition]") -> None:
        self._reached.clear()
        if self._on_assigned is not None:
            await self._on_assigned(frozenset(_pairs(assigned)))

    @override
    async def on_partitions_revoked(self, revoked: "frozenset[TopicPartition]") -> None:
        if self._on_revoked is not None:
            await self._on_revoked(frozenset(_pairs(revoked)))


async def _left(broker: KafkaBroker, seconds_max: float) -> None:
    """Ends the membership in bounded time, also of a client that cannot say so any more."""
    leaving = asyncio.ensure_future(broker.stop())
    try:
        await asyncio.wait([leaving], timeout=seconds_max)
    finally:
        await ended(leaving)


async def consume(
    url: str,
    topics: Sequence[str],
    group: str,
    handle: Handle,
    stopping: asyncio.Event,
    *,
    batch_max: int = RECORDS_MAX,
    instance: str | None = None,
    on_assigned: Partitions | None = None,
) -> None:
    """Consumes as one member of `group` until `stopping` is set: see Consumer."""
    member = Consumer(
        url, topics, group, handle, batch_max=batch_max, instance=instance, on_assigned=on_assigned
    )
    await member.run(stopping)


async def _raw(message: KafkaAckableMessage) -> Any:
    return message.raw_message


def _pairs(partitions: Iterable[TopicPartition]) -> Iterable[Partition]:
    return ((each.topic, each.partition) for each in partitions)


# reading topics and offsets


async def end_offsets(url: str, topics: Sequence[str]) -> dict[Partition, int]:
    """The offset that the next record of each partition will have; nothing for a topic that is not there."""
    partitions = await _partitions(url, topics)
    async with _reader(url) as reader:
        return await _ends(reader, partitions)


async def held_records(url: str, topics: Sequence[str]) -> dict[Partition, int]:
    """How many records each partition holds now; nothing for a topic that is not there."""
    partitions = await _partitions(url, topics)
    async with _reader(url) as reader:
        begins = await reader.beginning_offsets(partitions) if partitions else {}
        ends = await _ends(reader, partitions)
    return {(at.topic, at.partition): ends[at.topic, at.partition] - begin for at, begin in begins.items()}


async def group_lag(
    url: str, group: str, topics: Sequence[str], ends: Mapping[Partition, int] | None = None
) -> dict[Partition, int]:
    """Records that a group has not acknowledged yet, by partition: of all, or of those before `ends`."""
    if ends is None:
        ends = await end_offsets(url, topics)
    offsets = await group_offsets(url, group)
    return {partition: max(0, end - offsets.get(partition, 0)) for partition, end in ends.items()}


async def group_offsets(url: str, group: str) -> dict[Partition, int]:
    """The offsets that a group has acknowledged; nothing for a group that never did."""
    async with _admin(url) as admin:
        reached = await admin.list_consumer_group_offsets(group)
    return {(at.topic, at.partition): max(0, known.offset) for at, known in reached.items()}


async def read_to_end(url: str, topic: str, *, page: int = RECORDS_MAX) -> AsyncIterator[list[Record]]:
    """Every record that a topic holds now, in pages, each in the order of its partition; joins no group."""
    partitions = await _partitions(url, [topic])
    if not partitions:
        return
    async with _reader(url) as reader:
        at_end = {TopicPartition(*at): end for at, end in (await _ends(reader, partitions)).items()}
        reader.assign(list(at_end))
        await reader.seek_to_beginning(*at_end)
        left = {at for at, end in at_end.items() if await reader.position(at) < end}
        while left:
            fetched = await _next(reader, left, page)
            for at, records in fetched.items():
                yield [each for each in records if each.offset < at_end[at]]
            done = {at for at in left if await reader.position(at) >= at_end[at]}
            reader.pause(*done)
            left -= done


class PartitionsToEnd:
    """What some partitions of a topic hold now, in pages, each partition at a pace of its own, over one connection; joins
    no group. All calls raise BrokerUnavailable."""

    def __init__(
        self,
        url: str,
        topic: str,
        numbers: Iterable[int],
        *,
        page: int = RECORDS_MAX,
        silent_seconds_max: float = SILENT_SECONDS_MAX,
    ) -> None:
        self._silent_seconds_max = silent_seconds_max
        self._url = url
        self._topic = topic
        self._numbers = frozenset(numbers)
        self._page = page
        self._left: dict[int, int] | None = None
        """The end of each partition that is not read to its end."""
        self._reader: AIOKafkaConsumer | None = None

    async def next(self, number: int) -> list[Record]:
        """The next records of a partition; none at its end, or where it is not there."""
        with _broker_answers(self._url):
            if self._left is None:
                self._left = await self._started()
            end, at = self._left.get(number), TopicPartition(self._topic, number)
            while end is not None and self._reader is not None:
                fetched = await _next(self._reader, [at], self._page, self._silent_seconds_max)
                records = [each for each in fetched.get(at, ()) if each.offset < end]
                if await self._reader.position(at) >= end:
                    self._reader.pause(at)  # or the others would wait while more of it is fetched
                    end = None
                    del self._left[number]
                if records:
                    return records
        return []

    async def close(self) -> None:
        """Lets the connection go."""
        if self._reader is not None:
            await _stopped(self._reader)

    async def _started(self) -> dict[int, int]:
        partitions = [
            at for at in await _partitions(self._url, [self._topic]) if at.partition in self._numbers
        ]
        if not partitions:
            return {}
        self._reader = reader = _new_reader(self._url)
        await reader.start()
        ends = await _ends(reader, partitions)
        reader.assign(partitions)
        await reader.seek_to_beginning(*partitions)
        done = [at for at in partitions if await reader.position(at) >= ends[at.topic, at.partition]]
        reader.pause(*done)
        return {at.partition: ends[at.topic, at.partition] for at in partitions if at not in done}


class LeadersAsked:
    """Asks the brokers that lead the partitions of some topics how far these are, over connections that stay."""

    def __init__(self, url: str, topics: Iterable[Topic]) -> None:
        self._url = url
        self._partitions = [TopicPartition(each.name, n) for each in topics for n in range(each.partitions)]
        self._reader: AIOKafkaConsumer | None = None

    async def ask(self) -> None:
        """Returns when all have answered; raises BrokerUnavailable."""
        try:
            with _broker_answers(self._url):
                if self._reader is None:
                    self._reader = _new_reader(self._url)
                    await self._reader.start()
                await self._reader.end_offsets(self._partitions)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Lets the connections go."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await _stopped(reader)


async def read_from(
    url: str, place: Partition, offset: int, *, page: int = RECORDS_MAX
) -> AsyncIterator[list[Record]]:
    """What one partition holds now from an offset on, in pages; joins no group."""
    at = TopicPartition(*place)
    if at not in await _partitions(url, [place[0]]):
        return
    async with _reader(url) as reader:
        end = (await _ends(reader, [at]))[place]
        begin = (await reader.beginning_offsets([at]))[at]
        reader.assign([at])
        reader.seek(at, max(begin, offset))
        while await reader.position(at) < end:
            fetched = await _next(reader, [at], page)
            records = [each for each in fetched.get(at, ()) if each.offset < end]
            if records:
                yield records


async def _next(
    reader: AIOKafkaConsumer,
    partitions: Iterable[TopicPartition],
    page: int,
    silent_seconds_max: float = SILENT_SECONDS_MAX,
) -> dict[TopicPartition, list[Any]]:
    """The next records of partitions that hold more; raises BrokerUnavailable where none come for long."""
    fetched: dict[TopicPartition, list[Any]] = await reader.getmany(
        *partitions, timeout_ms=int(silent_seconds_max * 1000), max_records=page
    )
    if not fetched:
        raise BrokerUnavailable(f"no records within {silent_seconds_max:g} s, and there are more")
    return fetched


async def acknowledge(url: str, group: str, offsets: Mapping[Partition, int]) -> None:
    """Commits offsets for a group that has no members. A consumer of the group would go on from there."""
    client = AIOKafkaConsumer(
        **connecting(url), group_id=group, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        with _broker_answers(url):
            await client.start()
            client.assign([TopicPartition(*place) for place in offsets])
            await client.commit({TopicPartition(*place): offset for place, offset in offsets.items()})
    finally:
        await _stopped(client)


async def _partitions(url: str, topics: Sequence[str]) -> list[TopicPartition]:
    async with _admin(url) as admin:
        return [
            TopicPartition(each["topic"], of["partition"])
            for each in await _described(admin, topics)
            for of in each["partitions"]
        ]


async def _ends(reader: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[Partition, int]:
    found = await reader.end_offsets(partitions) if partitions else {}
    return {(at.topic, at.partition): end for at, end in found.items()}


@asynccontextmanager
async def _reader(url: str) -> AsyncIterator[AIOKafkaConsumer]:
    reader = _new_reader(url)
    try:
        with _broker_answers(url):
            await reader.start()
            yield reader
    finally:
        await _stopped(reader)


def _new_reader(url: str) -> AIOKafkaConsumer:
    return RecordReader(
        **connecting(url), group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
    )


@contextmanager
def _broker_answers(url: str) -> Iterator[None]:
    """Translates the client's errors into BrokerUnavailable."""
    try:
        yield
    except _OF_THE_CLIENT as error:
        raise BrokerUnavailable(f"{url}: {type(error).__name__} {error}") from error
