"""Publishing and consuming on a real broker: order per key, nothing lost when a handler fails or a member comes or goes."""

import asyncio
import gc
from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.consumer.fetcher import PartitionRecords
from chassis.clock import SystemClock, uuid7
from chassis.messaging.fetching import (
    COALESCED_RECORDS_LEAST,
    PARTIAL_MILLISECONDS_MAX,
    UNCOALESCED_MILLISECONDS_MAX,
)
from chassis.messaging.records import Record
from chassis.messaging.transport import (
    BrokerUnavailable,
    Consumer,
    KafkaPublisher,
    PartitionsToEnd,
    PublishFailed,
    TopicDiffers,
    _left,
    consume,
    end_offsets,
    ensure_topics,
    group_lag,
    group_offsets,
    read_to_end,
)
from contracts.topics import Topic, partition_of
from devservers.strangers import send_strange
from faststream.kafka import KafkaBroker
from structlog.testing import capture_logs

from tests.support.waiting import until

PARTITIONS = 3
SECONDS_MAX = 100
NOWHERE = "127.0.0.1:1"


def fresh(prefix: str) -> str:
    return f"{prefix}-{uuid7(SystemClock().now())}"


@pytest.fixture
async def topic(kafka_url: str) -> str:
    name = fresh("test.events")
    await ensure_topics(kafka_url, [Topic(name, PARTITIONS, "subject", "of a test")])
    return name


@pytest.fixture
async def publisher(kafka_url: str):
    publisher = KafkaPublisher(kafka_url)
    yield publisher
    await publisher.close()


def numbered(topic: str, subjects: int, each: int, size: int = 0) -> list[Record]:
    """Records whose value counts the records of their subject."""
    return [
        Record(
            topic,
            partition_of(subject, PARTITIONS),
            subject.bytes,
            [("ce_sequence", b"%d" % number)],
            b"%d" % number + b" " * size,
        )
        for number in range(1, each + 1)
        for subject in map(UUID, (f"{n:032x}" for n in range(subjects)))
    ]


class Seen:
    """What a handler got, by key."""

    def __init__(self) -> None:
        self.values: dict[bytes, list[int]] = defaultdict(list)
        self.records = 0

    async def __call__(self, records: Sequence[Record]) -> None:
        for record in records:
            self.values[record.key].append(int(record.value))
            self.records += 1


def first_times(values: list[int]) -> list[int]:
    return list(dict.fromkeys(values))


async def test_what_was_published_is_read_in_order_per_key_with_its_headers(kafka_url, topic, publisher):
    sent = numbered(topic, subjects=20, each=50)
    await publisher.publish(sent[:300])
    await publisher.publish(sent[300:])
    seen, stopping = Seen(), asyncio.Event()
    member = asyncio.create_task(consume(kafka_url, [topic], fresh("group"), seen, stopping, batch_max=70))
    await until(lambda: seen.records == len(sent))
    stopping.set()
    await member
    assert set(seen.values) == {record.key for record in sent}
    assert all(values == list(range(1, 51)) for values in seen.values.values())
    read = [record async for page in read_to_end(kafka_url, topic) for record in page]
    assert sorted((r.partition, r.key, list(r.headers), r.value) for r in read) == sorted(
        (r.partition, r.key, r.headers, r.value) for r in sent
    )


async def test_what_follows_a_large_batch_is_coalesced(kafka_url, topic, publisher):
    """The broker answers the next fetch not with the first record that comes, but with those of some time."""
    [one] = numbered(topic, subjects=1, each=1)
    sizes: list[int] = []

    async def handle(records: Sequence[Record]) -> None:
        sizes.append(len(records))

    stopping = asyncio.Event()
    member = asyncio.create_task(consume(kafka_url, [topic], fresh("group"), handle, stopping))
    sent = 0
    while not sizes or sizes[-1] < COALESCED_RECORDS_LEAST:
        await publisher.publish([one] * COALESCED_RECORDS_LEAST)
        sent += COALESCED_RECORDS_LEAST
        await until(lambda sent=sent: sum(sizes) == sent)
    large = len(sizes)
    while len(sizes) == large:
        await publisher.publish([one])
    stopping.set()
    await member
    assert sizes[large] > 4


async def test_a_member_without_records_waits_for_them_all_the_time(kafka_url, topic, publisher):
    """What comes while nobody waits for it is handled late."""
    seen, stopping = Seen(), asyncio.Event()
    member = Consumer(kafka_url, [topic], fresh("group"), seen)
    running = asyncio.create_task(member.run(stopping))
    await publisher.publish(numbered(topic, subjects=1, each=1))
    await until(lambda: seen.records == 1)
    fetcher = member._subscriber.consumer._fetcher
    waiting = []
    for _ in range(200):
        await asyncio.sleep(0.005)
        waiting.append(bool(fetcher._fetch_waiters))
    stopping.set()
    await running
    assert sum(waiting) > 0.8 * len(waiting)


async def test_a_record_behind_one_that_waits_for_its_handler_is_fetched_soon(kafka_url, topic, publisher):
    """Meanwhile the client fetches the other partitions alone, and it would wait for those."""
    [one] = numbered(topic, subjects=1, each=1)
    asked: list[tuple[int, int]] = []
    seen, stopping = Seen(), asyncio.Event()

    async def handle(records: Sequence[Record]) -> None:
        if seen.records == 0:
            fetcher = member._subscriber.consumer._fetcher
            send = fetcher._proc_fetch_request

            def noted(assignment: Any, node: int, request: Any) -> Any:
                [(_, partitions)] = request._topics
                asked.append((len(partitions), request._max_wait_ms))
                return send(assignment, node, request)

            fetcher._proc_fetch_request = noted
            await publisher.publish([one])
            await until(lambda: any(partitions < PARTITIONS for partitions, _ in asked))
        await seen(records)

    member = Consumer(kafka_url, [topic], fresh("group"), handle)
    running = asyncio.create_task(member.run(stopping))
    await publisher.publish([one])
    await until(lambda: seen.records == 2 and asked[-1][0] == PARTITIONS)
    stopping.set()
    await running
    assert {wait for partitions, wait in asked if partitions < PARTITIONS} == {PARTIAL_MILLISECONDS_MAX}
    assert asked[-1] == (PARTITIONS, UNCOALESCED_MILLISECONDS_MAX)


async def test_more_than_one_batch_of_a_partition_keeps_its_order(kafka_url, topic, publisher):
    sent = numbered(topic, subjects=1, each=40, size=100_000)
    await publisher.publish(sent)
    read = [int(record.value) async for page in read_to_end(kafka_url, topic) for record in page]
    assert read == list(range(1, 41))


async def test_a_record_of_a_transaction_is_read_once_that_is_committed_and_not_if_it_is_aborted(
    kafka_url, topic, publisher
):
    """Whoever sends in transactions has said nothing until one is committed."""
    group, seen, stopping = fresh("group"), [], asyncio.Event()

    async def handle(records: Sequence[Record]) -> None:
        seen.extend(record.value for record in records)

    sender = AIOKafkaProducer(bootstrap_servers=kafka_url, transactional_id=fresh("sender"))
    await sender.start()
    member = Consumer(kafka_url, [topic], group, handle)
    running = asyncio.create_task(member.run(stopping))
    try:
        for value, committed in ((b"aborted", False), (b"committed", True), (b"aborted too", False)):
            await sender.begin_transaction()
            for partition in range(PARTITIONS):
                await sender.send_and_wait(topic, value, partition=partition)
            await (sender.commit_transaction() if committed else sender.abort_transaction())
        await sender.begin_transaction()
        await sender.send_and_wait(topic, b"open", partition=0)
        await publisher.publish([Record(topic, n, b"k", [], b"of none") for n in range(PARTITIONS)])
        behind = PARTITIONS - 1
        await until(lambda: seen.count(b"of none") >= behind)
        assert sorted(seen) == [b"committed"] * PARTITIONS + [b"of none"] * behind
        read = [record.value async for page in read_to_end(kafka_url, topic) for record in page]
        assert sorted(read) == sorted(seen)
        await sender.commit_transaction()
        await until(lambda: seen.count(b"of none") == PARTITIONS)
        assert sorted(seen) == [b"committed"] * PARTITIONS + [b"of none"] * PARTITIONS + [b"open"]
        await until_no_lag(member)
    finally:
        stopping.set()
        await running
        await sender.stop()


async def until_no_lag(member: Consumer) -> None:
    """The end of a transaction has an offset too."""
    async with asyncio.timeout(SECONDS_MAX):
        while set((await member.lag()).values()) != {0}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_partitions_are_read_to_their_ends_each_at_its_own_pace(kafka_url, topic, publisher):
    sent = numbered(topic, subjects=20, each=30)
    await publisher.publish(sent)
    wanted = {number: [r.value for r in sent if r.partition == number] for number in range(PARTITIONS)}
    records = PartitionsToEnd(kafka_url, topic, [0, 1, 7], page=7)
    first = [await records.next(0)]
    await publisher.publish(sent)  # what comes now is beyond the ends
    try:
        read = {number: [r.value for r in await all_of(records, number)] for number in (1, 0, 7)}
    finally:
        await records.close()
    assert 0 < len(first[0]) <= 7
    assert {0: [r.value for r in first[0]] + read[0], 1: read[1]} == {0: wanted[0], 1: wanted[1]}
    assert read[7] == []
    nothing = PartitionsToEnd(kafka_url, fresh("test.missing"), [0])
    assert await nothing.next(0) == []
    await nothing.close()


async def all_of(records: PartitionsToEnd, number: int) -> list[Record]:
    found: list[Record] = []
    while page := await records.next(number):
        found += page
    return found


async def test_a_read_whose_records_do_not_come_ends(kafka_url, topic, publisher):
    await publisher.publish(numbered(topic, subjects=1, each=3))
    place = partition_of(UUID(int=0), PARTITIONS)
    reading = PartitionsToEnd(kafka_url, topic, [place], silent_seconds_max=0.5)
    assert len(await reading.next(place)) == 3
    reading._left[place] = 4  # as if one more were there, of which the broker never tells
    with pytest.raises(BrokerUnavailable, match=r"no records within 0\.5 s"):
        await reading.next(place)
    await reading.close()


async def test_a_failing_handler_gets_the_batch_again_and_nothing_is_skipped(kafka_url, topic, publisher):
    await publisher.publish(numbered(topic, subjects=12, each=30))
    seen, stopping, calls, failures = Seen(), asyncio.Event(), count(), []

    async def handle(records: Sequence[Record]) -> None:
        if next(calls) in {0, 2, 3, 7}:
            failures.append(len(records))
            raise ValueError("not now")
        await seen(records)

    group = fresh("group")
    member = Consumer(kafka_url, [topic], group, handle, batch_max=25)
    running = asyncio.create_task(member.run(stopping))
    await until(lambda: seen.records >= 12 * 30)
    assert member.failing is None
    assert len(failures) == 4
    stopping.set()
    await running
    assert all(values == list(range(1, 31)) for values in seen.values.values())
    assert sum((await group_lag(kafka_url, group, [topic])).values()) == 0


@pytest.mark.usefixtures("never_looking_for_cycles")
async def test_a_handler_that_fails_for_long_keeps_nothing_of_the_batches_that_came_again(
    kafka_url, topic, publisher
):
    await publisher.publish(numbered(topic, 50, 40, size=500))
    failures = 0
    stopping = asyncio.Event()

    async def fail(_: Sequence[Record]) -> None:
        nonlocal failures
        failures += not stopping.is_set()  # one more batch may begin before the consumer ends
        if failures == 20:
            stopping.set()
        raise ConnectionError("the database is not there")

    member = Consumer(kafka_url, [topic], fresh("group"), fail, back_off_seconds_max=0.01)
    await asyncio.wait_for(member.run(stopping), SECONDS_MAX)

    buffers = [each for each in gc.get_objects() if type(each) is PartitionRecords]
    assert failures == 20
    assert len(buffers) <= 3 * PARTITIONS


async def test_who_comes_back_goes_on_where_it_acknowledged(kafka_url, topic, publisher):
    group, first, second = fresh("group"), Seen(), Seen()
    await publisher.publish(numbered(topic, subjects=5, each=10))
    stopping = asyncio.Event()
    running = asyncio.create_task(consume(kafka_url, [topic], group, first, stopping))
    await until(lambda: first.records == 50)
    stopping.set()
    await running
    late = [
        record._replace(value=b"%d" % (10 + int(record.value)))
        for record in numbered(topic, subjects=5, each=4)
    ]
    await publisher.publish(late)
    assert sum((await group_lag(kafka_url, group, [topic])).values()) == 20
    stopping = asyncio.Event()
    running = asyncio.create_task(consume(kafka_url, [topic], group, second, stopping))
    await until(lambda: second.records == 20)
    stopping.set()
    await running
    assert all(values == [11, 12, 13, 14] for values in second.values.values())


async def test_a_member_that_never_acknowledged_has_its_records_repeated(kafka_url, topic, publisher):
    await publisher.publish(numbered(topic, subjects=5, each=10))
    group, held, stopping = fresh("group"), Seen(), asyncio.Event()

    async def hold(records: Sequence[Record]) -> None:
        await held(records)
        raise TimeoutError("the sink does not answer")

    running = asyncio.create_task(consume(kafka_url, [topic], group, hold, stopping))
    await until(lambda: held.records > 0)
    stopping.set()
    await running
    seen, stopping = Seen(), asyncio.Event()
    running = asyncio.create_task(consume(kafka_url, [topic], group, seen, stopping))
    await until(lambda: seen.records == 50)
    stopping.set()
    await running
    assert all(values == list(range(1, 11)) for values in seen.values.values())


async def test_two_members_share_the_partitions_and_together_see_all(kafka_url, topic, publisher):
    group, seen, assigned = fresh("group"), (Seen(), Seen()), ([], [])
    stopping = (asyncio.Event(), asyncio.Event())

    def member(which: int) -> "asyncio.Task[None]":
        async def on_assigned(partitions: frozenset[tuple[str, int]]) -> None:
            assigned[which].append(partitions)

        return asyncio.create_task(
            consume(kafka_url, [topic], group, seen[which], stopping[which], on_assigned=on_assigned)
        )

    sent = numbered(topic, subjects=30, each=40)
    first = member(0)
    await publisher.publish(sent[:400])
    await until(lambda: seen[0].records > 0)
    second = member(1)
    await until(lambda: bool(assigned[1]))
    await publisher.publish(sent[400:800])
    await until(lambda: seen[1].records > 0)
    stopping[0].set()
    await first
    await publisher.publish(sent[800:])
    expected = {record.key: list(range(1, 41)) for record in sent}

    def together() -> dict[bytes, list[int]]:
        return {
            key: first_times(seen[0].values.get(key, []) + seen[1].values.get(key, [])) for key in expected
        }

    await until(lambda: {key: sorted(values) for key, values in together().items()} == expected)
    stopping[1].set()
    await second
    assert together() == expected
    assert len(assigned[1][0]) < PARTITIONS
    assert len(assigned[1][-1]) == PARTITIONS


async def test_a_member_whose_client_was_stopped_says_so(kafka_url, topic):
    member, assigned = Consumer(kafka_url, [topic], fresh("group"), Seen()), asyncio.Event()

    async def on_assigned(_: frozenset[tuple[str, int]]) -> None:
        assigned.set()

    member._on_assigned = on_assigned
    running = asyncio.create_task(member.run(asyncio.Event()))
    await asyncio.wait_for(assigned.wait(), SECONDS_MAX)
    await member._subscriber.consumer.stop()
    with pytest.raises(BrokerUnavailable, match="ended by itself"):
        await asyncio.wait_for(running, SECONDS_MAX)


@pytest.mark.parametrize("dies", ["coordinating", "fetching", "finding the brokers"])
async def test_a_member_whose_client_died_of_an_error_that_it_did_not_expect_says_so(kafka_url, topic, dies):
    """A loop may raise such an error where something writes to a connection that has just broken."""
    member, assigned = Consumer(kafka_url, [topic], fresh("group"), Seen()), asyncio.Event()

    async def on_assigned(_: frozenset[tuple[str, int]]) -> None:
        assigned.set()

    async def broken(*_: object) -> None:
        raise RuntimeError("unable to perform operation on a closed transport")

    member._on_assigned = on_assigned
    running = asyncio.create_task(member.run(asyncio.Event()))
    await asyncio.wait_for(assigned.wait(), SECONDS_MAX)
    client = member._subscriber.consumer
    if dies == "fetching":
        client._fetcher._proc_fetch_request = broken
    elif dies == "finding the brokers":
        client._client._metadata_update = broken
        client._client.force_metadata_update()
    else:
        client._coordinator.ensure_coordinator_known = broken
        client._coordinator.coordinator_dead()
    with pytest.raises(BrokerUnavailable, match="ended by itself"):
        await asyncio.wait_for(running, SECONDS_MAX)


async def test_lag_tells_what_is_left(kafka_url, topic, publisher):
    await publisher.publish(numbered(topic, subjects=9, each=10))
    group, stopping, gate, entered = fresh("group"), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(_: Sequence[Record]) -> None:
        entered.set()
        await gate.wait()

    member = Consumer(kafka_url, [topic], group, wait, batch_max=90)
    running = asyncio.create_task(member.run(stopping))
    await asyncio.wait_for(entered.wait(), SECONDS_MAX)
    assert sum((await group_lag(kafka_url, group, [topic])).values()) == 90
    gate.set()
    stopping.set()
    await running
    assert sum((await end_offsets(kafka_url, [topic])).values()) == 90


async def test_topics_are_made_once_and_never_with_other_partitions(kafka_url):
    topic = Topic(fresh("test.made"), PARTITIONS, "subject", "of a test")
    assert await ensure_topics(kafka_url, [topic]) == [topic.name]
    assert await ensure_topics(kafka_url, [topic]) == []
    with pytest.raises(TopicDiffers, match="3 partitions, not 4"):
        await ensure_topics(kafka_url, [Topic(topic.name, 4, "subject", "of a test")])


async def test_after_a_failure_the_publisher_goes_on(kafka_url, topic):
    publisher = KafkaPublisher(kafka_url, acknowledged_seconds_max=1.5)
    with pytest.raises(PublishFailed):
        await publisher.publish([Record(fresh("test.missing"), 0, b"", [], b"1")])
    await publisher.publish([Record(topic, 0, b"", [], b"1")])
    await publisher.close()
    assert [r.value async for page in read_to_end(kafka_url, topic) for r in page] == [b"1"]


async def test_no_broker_is_a_connection_error():
    publisher = KafkaPublisher(NOWHERE)
    with pytest.raises(PublishFailed):
        await publisher.publish([Record("nowhere", 0, b"", [], b"")])
    with pytest.raises(BrokerUnavailable):
        await ensure_topics(NOWHERE, [])
    with pytest.raises(BrokerUnavailable):
        await consume(NOWHERE, ["nowhere"], "group", Seen(), asyncio.Event())


async def configured(kafka_url: str, topic: str, **changes: str) -> None:
    """Changes settings of a topic."""
    named = {name.replace("_", "."): value for name, value in changes.items()}
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_url)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, named)])
    finally:
        await admin.close()
    await until_configured(kafka_url, topic, named)


async def until_configured(kafka_url: str, topic: str, wanted: dict[str, str]) -> None:
    """Waits until the broker says so: it answers a change before it goes by it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_url)
    await admin.start()
    try:
        async with asyncio.timeout(SECONDS_MAX):
            found: dict[str, str] = {}
            while not wanted.items() <= found.items():
                [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
                found = {entry[0]: entry[1] for entry in answer.resources[0][4]}
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("changes", "kept_days", "wrong"),
    [
        ({"retention_ms": "604800000"}, None, "retention.ms"),
        ({"retention_ms": "604800000"}, 14, "retention.ms"),
        ({"retention_ms": "-1", "cleanup_policy": "compact"}, None, "cleanup.policy"),
    ],
)
async def test_a_topic_that_would_lose_what_must_be_kept_is_named(kafka_url, changes, kept_days, wrong):
    topic = Topic(fresh("test.kept"), 1, "nothing", "of a test", kept_days)
    await ensure_topics(kafka_url, [topic])
    assert await ensure_topics(kafka_url, [topic]) == []
    await configured(kafka_url, topic.name, **changes)
    with pytest.raises(TopicDiffers, match=wrong):
        await ensure_topics(kafka_url, [topic])


async def test_what_is_kept_longer_than_it_may_is_brought_down(kafka_url):
    topic = Topic(
        fresh("test.letters"), 1, "nothing", "of a test", 90, private=True, record_bytes_max=2 << 20
    )
    await ensure_topics(kafka_url, [topic])
    await configured(kafka_url, topic.name, retention_ms="-1", cleanup_policy="delete")
    await ensure_topics(kafka_url, [topic])
    brought_down = {"retention.ms": str(90 * 86_400_000), "max.message.bytes": str(2 << 20)}
    await until_configured(kafka_url, topic.name, brought_down)


async def test_a_topic_of_events_whose_first_records_are_gone_is_named(kafka_url, publisher):
    topic = Topic(fresh("test.truncated"), 1, "nothing", "of a test")
    await ensure_topics(kafka_url, [topic])
    await publisher.publish([Record(topic.name, 0, b"", [], b"x") for _ in range(5)])
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_url)
    await admin.start()
    await admin.delete_records({TopicPartition(topic.name, 0): RecordsToDelete(before_offset=3)})
    await admin.close()
    with pytest.raises(TopicDiffers, match=r"begins at offset 3, not 0.*crm republish"):
        await ensure_topics(kafka_url, [topic])
    await ensure_topics(kafka_url, [topic], complete=False)


async def test_a_record_with_a_header_name_that_is_no_text_is_passed_over_and_nothing_else_is_lost(
    kafka_url, topic, publisher
):
    group, seen, dead_lettered = fresh("group"), [], []
    stopping = asyncio.Event()

    async def handle(records: Sequence[Record]) -> None:
        seen.extend(record.value for record in records)

    async def dead_letter(records: Sequence[tuple[Record, str]]) -> None:
        dead_lettered.extend(
            (record.partition, record.offset, record.value, reason) for record, reason in records
        )

    def some(first: int) -> list[Record]:
        return [Record(topic, n % 2, b"k", [], b"%d" % n) for n in range(first, first + 40)]

    await publisher.publish(some(0))
    await send_strange(kafka_url, topic, 0, b"\xff\xfe")
    await publisher.publish(some(40))
    for _ in range(2):
        await send_strange(kafka_url, topic, 1, b"\xc3")
    await publisher.publish(some(80))
    member = Consumer(kafka_url, [topic], group, handle, dead_letter=dead_letter)
    with capture_logs() as said:
        running = asyncio.create_task(member.run(stopping))
        async with asyncio.timeout(SECONDS_MAX):
            while len(set(seen)) < 120 or await left(kafka_url, group, topic):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            await send_strange(kafka_url, topic, 2, b"\x80")
            while len(dead_lettered) < 4 or await left(kafka_url, group, topic):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        stopping.set()
        await running
    assert set(seen) == {b"%d" % n for n in range(120)}
    reason = "the name of a header is not UTF-8"
    assert sorted(set(dead_lettered)) == [
        (0, 20, b"", reason),
        (1, 40, b"", reason),
        (1, 41, b"", reason),
        (2, 0, b"", reason),
    ]
    assert {(one["topic"], one["offset"]) for one in said if one["event"] == "record passed over"} == {
        (topic, offset) for _, offset, _, _ in dead_lettered
    }
    again: list[Record] = []
    async for page in read_to_end(kafka_url, topic):
        again.extend(page)
    assert len({(record.partition, record.offset) for record in again}) == 124


async def left(kafka_url: str, group: str, topic: str) -> int:
    return sum((await group_lag(kafka_url, group, [topic])).values())


async def test_a_record_that_cannot_be_decoded_comes_again_until_it_has_a_dead_letter(
    kafka_url, topic, publisher
):
    group, tries = fresh("group"), 0
    stopping = asyncio.Event()

    async def handle(records: Sequence[Record]) -> None:
        """Takes everything."""

    async def dead_letter(records: Sequence[tuple[Record, str]]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise PublishFailed("no")

    await send_strange(kafka_url, topic, 0, b"\xff")
    member = Consumer(kafka_url, [topic], group, handle, dead_letter=dead_letter)
    running = asyncio.create_task(member.run(stopping))
    async with asyncio.timeout(SECONDS_MAX):
        while tries < 3:
            saved = (await group_offsets(kafka_url, group)).get((topic, 0), 0)
            assert saved == 0 or tries >= 3, "its offset was saved before its dead letter was written"
            await asyncio.sleep(0.05)
        while await left(kafka_url, group, topic):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    stopping.set()
    await running
    assert tries == 3


async def test_a_client_that_cannot_leave_is_left_in_bounded_time() -> None:
    ends: list[str] = []

    class Hanging(KafkaBroker):
        async def stop(self, *_: object) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ends.append("given up")

    async with asyncio.timeout(20):
        await _left(Hanging(NOWHERE), 0.1)
    assert ends == ["given up"]
