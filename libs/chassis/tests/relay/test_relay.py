"""From a real store to a real broker: nothing missed, order kept, a stale relay refused, a crash repeats and loses nothing."""

import asyncio
import os
import random
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import psycopg
import pytest
from chassis.clock import Clock, SystemClock, uuid7
from chassis.connections.transient import StoreUnavailable
from chassis.messaging.records import Record
from chassis.messaging.transport import KafkaPublisher, Publisher, PublishFailed, ensure_topics, read_to_end
from chassis.observability import metrics
from chassis.process.leases import Lease, PostgresLease
from chassis.relay import (
    RELAY_LEASE,
    Fenced,
    Listening,
    PostgresPositions,
    Relay,
    RelayRole,
    StoreLog,
)
from chassis.relay.loop import SIGN_OF_LIFE_SECONDS, WATERMARK_SECONDS
from chassis.relay.operating import held_of, republish, try_again
from chassis.write.catalogue import Catalogue
from chassis.write.events import Event, StoredEvent, event_id
from chassis.write.store import Recorder, VersionConflict
from contracts.envelope import Envelope, Watermark, unwrap
from contracts.ingest import FeedCertified
from contracts.topics import EVENTS, Topic, partition_of
from structlog.testing import capture_logs
from typing_extensions import override

from tests.support.waiting import until

AT = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
PARTITIONS = 3
CLOCK = SystemClock()


class Said(msgspec.Struct):
    body: bytes
    event: type[FeedCertified] = FeedCertified


class Noted(Event, frozen=True):
    """Nothing."""


class Stuffed(Event, frozen=True):
    """Something large."""


class Renamed(Event, frozen=True):
    """Nothing, under another name."""


NAMES = {"noted": Noted, "stuffed": Stuffed}
CATALOGUE = Catalogue(store="ingest", entries=NAMES)
NEWER = Catalogue(
    store="ingest", entries={**NAMES, "renamed": Renamed}, upcasts={("noted", 1): lambda data: data}
)


def words(stored: StoredEvent) -> Said | None:
    return None if stored.name == "private" else Said(b"%d" % stored.version)


def noted(stream: UUID, version: int, name: str = "noted", schema_version: int = 1) -> StoredEvent:
    meta = {
        "effective_at": AT - timedelta(days=1),
        "recorded_at": AT,
        "actor": "somebody",
        "command_id": UUID(int=1),
        "correlation_id": UUID(int=2),
        "causation_id": UUID(int=3),
        "trace": TRACE,
    }
    return StoredEvent(
        stream, version, name, msgspec.json.encode({"meta": meta, "data": {"v": schema_version}})
    )


@pytest.fixture
def store(schema: str) -> str:
    return schema


@pytest.fixture
async def topic(kafka_url: str) -> Topic:
    topic = Topic(f"test.relay-{uuid7(CLOCK.now())}", PARTITIONS, "subject", "of a test")
    await ensure_topics(kafka_url, [topic])
    return topic


class Dying(Publisher):
    """A publisher whose process dies right after the broker has acknowledged."""

    def __init__(self, inner: Publisher, lives: int) -> None:
        self.inner = inner
        self.lives = lives

    @override
    async def publish(self, records: Sequence[Record]) -> None:
        await self.inner.publish(records)
        self.lives -= 1
        if self.lives == 0:
            raise SystemError("killed between acknowledgement and save")


class Setting:
    """What a relay needs, from real servers."""

    def __init__(self, postgres_url: str, kafka_url: str, schema: str, topic: Topic) -> None:
        self.postgres_url, self.kafka_url, self.schema, self.topic = postgres_url, kafka_url, schema, topic
        self.logs: list[StoreLog] = []
        self.positions: list[PostgresPositions] = []
        self.rows: list[PostgresLease] = []
        self.leases: list[Lease] = []
        self.publishers: list[KafkaPublisher] = []
        self.hints: list[Listening] = []

    def publisher(self) -> KafkaPublisher:
        self.publishers.append(KafkaPublisher(self.kafka_url, acknowledged_seconds_max=5))
        return self.publishers[-1]

    def saved(self) -> PostgresPositions:
        self.positions.append(PostgresPositions(self.postgres_url, self.schema, "ingest"))
        return self.positions[-1]

    def lease(self, seconds: float = 8.0) -> Lease:
        self.rows.append(PostgresLease(self.postgres_url, self.schema, RELAY_LEASE))
        self.leases.append(Lease(self.rows[-1], CLOCK, seconds=seconds, asked_seconds=0.1))
        return self.leases[-1]

    def relay(self, publisher: Publisher | None = None, batch_max: int = 50, clock: Clock = CLOCK) -> Relay:
        self.logs.append(StoreLog(self.postgres_url, self.schema))
        self.hints.append(Listening(self.postgres_url, self.schema, CLOCK))
        return Relay(
            "ingest",
            self.topic,
            self.logs[-1],
            self.saved(),
            self.lease(),
            publisher or self.publisher(),
            words,
            clock,
            hint=self.hints[-1],
            batch_max=batch_max,
        )

    async def close(self) -> None:
        for publisher in self.publishers:
            await publisher.close()
        for open_one in (*self.positions, *self.rows):
            await open_one.close()
        for hint in self.hints:
            await hint.close()
        for log in self.logs:
            log.close()

    async def events(self) -> list[tuple[Record, Envelope]]:
        return [(r, e) for r, e in await self.records() if isinstance(e, Envelope)]

    async def records(self) -> list[tuple[Record, Envelope | Watermark]]:
        return [
            (record, unwrap(record.headers))
            async for page in read_to_end(self.kafka_url, self.topic.name)
            for record in page
        ]


@pytest.fixture
async def setting(postgres_url: str, kafka_url: str, store: str, topic: Topic):
    setting = Setting(postgres_url, kafka_url, store, topic)
    yield setting
    await setting.close()


async def relayed(relay: Relay, head: int) -> None:
    """Runs a relay until it has saved `head` and marked it."""
    stopping = asyncio.Event()
    running = asyncio.create_task(relay.run(stopping))
    await until(lambda: relay.position >= head)
    stopping.set()
    await running


def appended(recorder: Recorder, streams: int, each: int) -> int:
    recorder.append_bulk(
        [noted(UUID(int=stream), version) for version in range(1, each + 1) for stream in range(streams)]
    )
    return recorder.head_position()


async def test_an_event_goes_out_with_all_that_a_reader_needs(setting, recorder):
    stream = UUID(int=9)
    recorder.append_bulk([noted(stream, 1), noted(stream, 2, "private"), noted(stream, 3)])
    await relayed(setting.relay(), recorder.head_position())
    events = await setting.events()
    stored = recorder.read_stream(stream)
    assert [(envelope.sequence, envelope.position) for _, envelope in events] == [
        (1, stored[0].position),
        (3, stored[2].position),
    ]
    record, envelope = events[1]
    assert envelope.id == event_id(stream, 3)
    assert list(record.headers) == envelope.headers()
    assert (record.partition, record.key, record.value) == (
        partition_of(stream, PARTITIONS),
        str(stream).encode(),
        b"3",
    )
    assert (envelope.type, envelope.version, envelope.context, envelope.subject) == (
        "feed.certified",
        1,
        "ingest",
        stream,
    )
    assert (envelope.effective_at, envelope.recorded_at) == (AT - timedelta(days=1), AT)
    assert (envelope.correlation_id, envelope.causation_id) == (UUID(int=2), UUID(int=3))
    assert (envelope.stored_name, envelope.traceparent) == ("noted", TRACE["traceparent"])


async def test_watermarks_follow_what_they_cover_in_every_partition(setting, recorder):
    head = appended(recorder, streams=20, each=20)
    recorder.append_bulk([noted(UUID(int=99), 1, "private")])
    await relayed(setting.relay(), head + 1)
    last: dict[int, int] = {}
    reached: dict[int, int] = defaultdict(int)
    for record, read in await setting.records():
        if isinstance(read, Watermark):
            last[record.partition] = read.position
            reached[record.partition] = max(reached[record.partition], read.position)
        else:
            assert read.position > reached[record.partition], "an event that a watermark had covered before"
    assert last == dict.fromkeys(range(PARTITIONS), head + 1), "private events are covered too"


async def test_under_load_a_partition_gets_a_watermark_a_second_at_most(setting, recorder):
    """Events come one by one, as postings do: each used to bring a watermark to every partition."""
    relay, stopping = setting.relay(), asyncio.Event()
    running = asyncio.create_task(relay.run(stopping))
    await until(lambda: relay.leading)
    began = CLOCK.monotonic()
    for version in range(1, 41):
        await asyncio.to_thread(recorder.append_bulk, [noted(UUID(int=7), version)])
        await asyncio.sleep(0.05)
    await until(lambda: relay.position == 40)
    await until(lambda: relay._marked == 40)
    seconds = CLOCK.monotonic() - began
    stopping.set()
    await running
    records = await setting.records()
    marks = [(record, read) for record, read in records if isinstance(read, Watermark)]
    for partition in range(PARTITIONS):
        positions = [read.position for record, read in marks if record.partition == partition]
        assert len(positions) <= seconds / WATERMARK_SECONDS + 2
        assert positions == sorted(set(positions)), "each says something new"
        assert positions[-1] == 40
    ids = [dict(record.headers)["ce_id"] for record, _ in records]
    assert len(set(ids)) == len(ids)


async def test_a_relay_that_ends_says_how_far_it_came(setting, recorder):
    relay, stopping = setting.relay(), asyncio.Event()
    running = asyncio.create_task(relay.run(stopping))
    for version in range(1, 4):
        await asyncio.to_thread(recorder.append_bulk, [noted(UUID(int=7), version)])
        await until(lambda version=version: relay.position == version)
    stopping.set()
    await running
    reached = {
        r.partition: read.position for r, read in await setting.records() if isinstance(read, Watermark)
    }
    assert reached == dict.fromkeys(range(PARTITIONS), 3)


async def test_an_idle_topic_gets_a_sign_of_life_every_ten_minutes_and_no_more(setting, recorder):
    class Hurried(SystemClock):
        """A clock on which a second of ours is twenty minutes once it is told so."""

        ahead_seconds = 0.0

        @override
        def monotonic(self) -> float:
            return super().monotonic() + self.ahead_seconds

    clock = Hurried()
    relay, stopping = setting.relay(clock=clock), asyncio.Event()
    recorder.append_bulk([noted(UUID(int=7), 1)])
    running = asyncio.create_task(relay.run(stopping))
    await until(lambda: relay._marked == 1)

    async def marks() -> int:
        return sum(isinstance(read, Watermark) for _, read in await setting.records())

    await asyncio.sleep(1.5)
    assert await marks() == PARTITIONS
    clock.ahead_seconds = SIGN_OF_LIFE_SECONDS
    await asyncio.sleep(1.5)
    assert await marks() == 2 * PARTITIONS
    stopping.set()
    await running
    ids = [dict(record.headers)["ce_id"] for record, _ in await setting.records()]
    assert len(set(ids)) == len(ids)


@pytest.mark.requirement("D02")
async def test_nothing_is_missed_while_four_write_and_some_transactions_are_aborted(
    setting, recorder, postgres_url, store
):
    written: list[set[tuple[UUID, int]]] = [set() for _ in range(4)]
    aborted = [0] * 4

    def write(number: int) -> None:
        chance, own = random.Random(number), Recorder(postgres_url, store)
        heads = {UUID(int=number * 100 + n): 0 for n in range(10)}
        for turn in range(40):
            stream = chance.choice(list(heads))
            head, size = heads[stream], chance.choice([1, 2, 7, 60])
            batch = [noted(stream, version) for version in range(head + 1, head + 1 + size)]
            if head and turn % 4 == 0:
                batch.append(noted(stream, head))
            try:
                own.append_bulk(batch)
            except VersionConflict:
                aborted[number] += 1
            else:
                heads[stream] += size
                written[number].update((stream, event.version) for event in batch)
        own.close()

    relay, stopping = setting.relay(), asyncio.Event()
    running = asyncio.create_task(relay.run(stopping))
    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    await asyncio.to_thread(lambda: [writer.join() for writer in writers])
    await until(lambda: relay.position >= recorder.head_position())
    stopping.set()
    await running
    assert all(aborted)
    events = await setting.events()
    assert {(e.subject, e.sequence) for _, e in events} == set().union(*written)
    assert_in_order(events, repeated=False)


def assert_in_order(events: list[tuple[Record, Envelope]], *, repeated: bool) -> None:
    by_subject: dict[UUID, list[int]] = defaultdict(list)
    for _, envelope in events:
        by_subject[envelope.subject].append(envelope.sequence)
    for sequences in by_subject.values():
        first_times = list(dict.fromkeys(sequences)) if repeated else sequences
        assert first_times == list(range(1, len(first_times) + 1))


async def test_a_stale_epoch_is_refused(setting):
    first, second = setting.saved(), setting.saved()
    lease, next_lease = setting.lease(seconds=1.5), setting.lease()
    epoch = await lease.acquire()
    await first.save(epoch, 10)
    after = await next_lease.acquire()  # the first one said nothing for as long as its lease lasted
    assert (after, await second.read()) == (epoch + 1, 10)
    with pytest.raises(Fenced):
        await first.save(epoch, 99)
    with pytest.raises(Fenced):
        lease.check()
    await second.save(after, 11)
    assert await second.read() == 11


async def test_a_lease_that_is_renewed_is_not_taken_over(setting):
    lease, other = setting.lease(seconds=1.5), setting.lease()
    lease._renewed_seconds = 0.2
    await lease.acquire()
    taking = asyncio.create_task(other.acquire())

    async def work() -> str:
        await asyncio.sleep(3)
        return "done"

    assert await lease.during(work()) == "done"
    assert not taking.done()
    await lease.release()
    assert await asyncio.wait_for(taking, 1) == 2


async def test_a_holder_that_cannot_renew_stops_before_the_lease_is_over(setting):
    row = setting.lease(seconds=2.0), setting.rows[-1]
    lease = row[0]
    lease._renewed_seconds = 0.2
    await lease.acquire()
    began = CLOCK.monotonic()

    async def never(epoch: int, seconds: float) -> bool:
        await asyncio.sleep(60)
        return True

    class Unanswered(PostgresLease):
        renew = staticmethod(never)

    lease._row = Unanswered(setting.postgres_url, setting.schema, RELAY_LEASE)
    with pytest.raises(Fenced):
        await lease.during(asyncio.sleep(60))
    assert CLOCK.monotonic() - began < 2.0


async def test_a_position_never_goes_back(setting):
    saved = setting.saved()
    epoch = await setting.lease().acquire()
    await saved.save(epoch, 10)
    await saved.save(epoch, 7)
    assert await saved.read() == 10


async def test_a_relay_that_was_overtaken_stops_and_stands_by(setting, recorder, postgres_url, store):
    """Its session lives on and it still believes in its turn; only the epoch tells."""
    relay, stopping = setting.relay(), asyncio.Event()
    running = asyncio.create_task(relay.run(stopping))
    head = appended(recorder, streams=3, each=5)
    await until(lambda: relay.position == head)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"update {store}.leases set epoch = epoch + 10")
    recorder.append_bulk([noted(UUID(int=50), 1)])
    await until(lambda: relay.position == head + 1)
    with psycopg.connect(postgres_url) as connection:
        epoch, position = connection.execute(
            f"select epoch, position from {store}.relay, {store}.leases"
        ).fetchone()
    stopping.set()
    await running
    assert (epoch, position) == (12, head + 1), "it took its turn again instead of using the old one"


async def test_who_stands_by_goes_on_when_the_leader_is_gone(setting, recorder):
    leader, follower = setting.relay(), setting.relay()
    stops = asyncio.Event(), asyncio.Event()
    leading = asyncio.create_task(leader.run(stops[0]))
    await until(lambda: leader.leading)
    following = asyncio.create_task(follower.run(stops[1]))
    head = appended(recorder, streams=5, each=30)
    await until(lambda: leader.position == head)
    assert not follower.leading
    assert follower.not_ready() == []
    stops[0].set()
    await leading
    await setting.leases[0].release()
    recorder.append_bulk([noted(UUID(int=50), 1)])
    await until(lambda: follower.position == head + 1)
    stops[1].set()
    await following
    assert_in_order(await setting.events(), repeated=False)


async def test_a_crash_between_acknowledgement_and_save_repeats_and_loses_nothing(setting, recorder):
    head = appended(recorder, streams=10, each=30)
    dying = Dying(setting.publisher(), lives=3)
    with pytest.raises(SystemError):
        await setting.relay(dying).run(asyncio.Event())
    await setting.leases[0].release()
    await relayed(setting.relay(), head)
    events = await setting.events()
    assert len(events) > 300, "the batch that was not saved came again"
    assert len({(e.subject, e.sequence) for _, e in events}) == 300
    assert_in_order(events, repeated=True)


async def test_a_database_session_that_is_cut_costs_nothing(setting, recorder, postgres_url, store):
    relay, stopping = setting.relay(), asyncio.Event()
    running = asyncio.create_task(relay.run(stopping))
    head = appended(recorder, streams=10, each=30)
    await until(lambda: relay.position > 0)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where pid <> pg_backend_pid() and datname is not null"
        )
    other = Recorder(postgres_url, store)
    other.append_bulk([noted(UUID(int=77), 1)])
    other.close()
    await until(lambda: relay.position == head + 1)
    stopping.set()
    await running
    events = await setting.events()
    assert len({(e.subject, e.sequence) for _, e in events}) == 301
    assert_in_order(events, repeated=True)
    assert relay.not_ready() == []


async def test_without_a_broker_it_says_why_and_keeps_its_position(setting, recorder):
    head = appended(recorder, streams=2, each=2)
    relay, stopping = setting.relay(KafkaPublisher("127.0.0.1:1")), asyncio.Event()
    running = asyncio.create_task(relay.run(stopping))
    await until(lambda: relay.failing is not None)
    assert "PublishFailed" in relay.not_ready()[0]
    assert relay.position == 0
    assert relay.outbox_age_seconds() > 0
    stopping.set()
    await running
    await setting.leases[0].release()
    relay = setting.relay()
    await relayed(relay, head)
    assert relay.outbox_age_seconds() == 0
    assert len(await setting.events()) == 4


async def test_a_producer_that_broke_is_made_anew_and_the_batch_comes_again(setting, recorder):
    class Breaking(Publisher):
        def __init__(self, inner: KafkaPublisher) -> None:
            self.inner, self.calls = inner, 0

        @override
        async def publish(self, records: Sequence[Record]) -> None:
            self.calls += 1
            if self.calls in {2, 3}:
                await self.inner.publish(records[: len(records) // 2])
                await self.inner.close()
                raise PublishFailed("the rest was not acknowledged")
            await self.inner.publish(records)

    head = appended(recorder, streams=10, each=30)
    await relayed(setting.relay(Breaking(setting.publisher())), head)
    events = await setting.events()
    assert len({(e.subject, e.sequence) for _, e in events}) == 300
    assert_in_order(events, repeated=True)


@pytest.mark.requirement("D02")
async def test_a_broker_killed_under_load_costs_nothing(devservers, setting, recorder):
    """The relay has a thread of its own here, because the broker is started again from this one."""
    broker = devservers.one("kafka")
    if "kafka" not in broker.pids:
        pytest.skip("this broker is not ours to kill")
    done, reached = threading.Event(), [0]

    async def relaying() -> None:
        inner = Setting(setting.postgres_url, setting.kafka_url, setting.schema, setting.topic)
        relay, stopping = inner.relay(batch_max=100), asyncio.Event()
        running = asyncio.create_task(relay.run(stopping))
        while not done.is_set():
            reached[0] = relay.position
            await asyncio.sleep(0.01)
        stopping.set()
        await running
        await inner.close()

    thread = threading.Thread(target=lambda: asyncio.run(relaying()))
    thread.start()
    for kill in range(2):
        first = 1000 * kill + 1
        recorder.append_bulk([noted(UUID(int=s), v) for v in range(first, first + 1000) for s in range(5)])
        await until(lambda kill=kill: reached[0] > 5000 * kill + 500)
        os.kill(broker.pids["kafka"], signal.SIGKILL)
        broker.restart("kafka")
    head = recorder.head_position()
    await until(lambda: reached[0] >= head)
    done.set()
    await asyncio.to_thread(thread.join)
    events = await setting.events()
    assert len({(e.subject, e.sequence) for _, e in events}) == 10_000
    assert_in_order(events, repeated=True)


async def test_the_role_makes_its_topic_and_measures_the_outbox(postgres_url, kafka_url, schema):
    role = RelayRole("ingest", schema, words, CATALOGUE, postgres_url=postgres_url, kafka_url=kafka_url)
    store, stopping = Recorder(postgres_url, schema), asyncio.Event()
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(
            f"insert into {schema}.commands select key, '', gen_random_uuid(), 1, 1, now() - age"
            " from (values ('old', interval '31 days'), ('young', interval '1 hour')) as v(key, age)"
        )
    running = asyncio.create_task(role.run(stopping))
    await until(lambda: role.relay.leading)
    head = appended(store, streams=2, each=3)
    await until(lambda: role.relay.position == head)
    shown = await metrics.measured([])
    assert b'crm_outbox_age_seconds{context="ingest"} 0.0' in shown
    assert b'crm_outbox_events{context="ingest"}' in shown
    assert role.name == "ingest-relay"
    await until(lambda: role.not_ready() == [])
    await until(lambda: list(store.commands(["old", "young"])) == ["young"])
    stopping.set()
    await running
    store.close()


async def test_a_store_that_is_lost_while_old_commands_are_deleted_is_logged_and_events_are_published(
    postgres_url, kafka_url, schema
):
    role = RelayRole("ingest", schema, words, CATALOGUE, postgres_url=postgres_url, kafka_url=kafka_url)
    store, stopping = Recorder(postgres_url, schema), asyncio.Event()
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(
            f"create or replace function {schema}.prune_commands(p_days integer, p_limit integer) returns bigint"
            " language plpgsql as $$begin raise exception 'shut down' using errcode = 'admin_shutdown'; end$$"
        )
    with pytest.raises(StoreUnavailable):
        store.prune_commands(30, 1)

    with capture_logs() as said:

        def warned() -> list[str]:
            return [one["log_level"] for one in said if one["event"] == "old commands wait to be deleted"]

        running = asyncio.create_task(role.run(stopping))
        await until(warned, what=lambda: said)
        head = appended(store, streams=1, each=3)
        await until(lambda: role.relay.position == head)
        stopping.set()
        await running
    assert warned() == ["warning"]
    store.close()


async def test_news_arrives_without_waiting_for_the_poll(setting, recorder):
    relay, stopping = setting.relay(), asyncio.Event()
    relay._poll_seconds = 20.0
    running = asyncio.create_task(relay.run(stopping))
    await until(lambda: relay.leading)
    await asyncio.sleep(0.3)
    before = CLOCK.monotonic()
    recorder.append_bulk([noted(UUID(int=1), 1)])
    await until(lambda: relay.position > 0)
    assert CLOCK.monotonic() - before < 5
    stopping.set()
    recorder.append_bulk([noted(UUID(int=1), 2)])
    await running


class Mending:
    """Words that fail for one name, until they are repaired."""

    def __init__(self) -> None:
        self.repaired = False

    def __call__(self, stored: StoredEvent) -> Said | None:
        if stored.name == "unspeakable" and not self.repaired:
            raise ValueError("no words for it")
        return words(stored)


async def test_what_cannot_be_published_holds_its_subject_and_nobody_else(
    setting, recorder, postgres_url, store
):
    first, second, large = UUID(int=1), UUID(int=2), UUID(int=3)
    mending = Mending()
    relay, stopping = setting.relay(batch_max=2), asyncio.Event()
    relay._words = mending
    recorder.append_bulk([noted(first, 1), noted(second, 1), noted(first, 2, "unspeakable"), noted(large, 1)])
    stuffed = noted(large, 2)
    with psycopg.connect(postgres_url) as connection:  # as one that was stored before there was a limit
        connection.execute(
            f"select {store}.append_events(%s, %s, %s, %s, %s, true)",
            ([large], [2], ["stuffed"], [stuffed.body], [None]),
        )
    recorder.append_bulk([noted(first, 3), noted(second, 2), noted(large, 3)])

    def stuffing(stored: StoredEvent) -> Said | None:
        return Said(b"x" * 1_100_000) if stored.name == "stuffed" else mending(stored)

    relay._words = stuffing
    running = asyncio.create_task(relay.run(stopping))
    await until(lambda: relay.position == recorder.head_position())

    def said(events):
        return {(e.subject.int, e.sequence) for _, e in events}

    assert said(await setting.events()) == {(1, 1), (2, 1), (3, 1), (2, 2)}
    held = {one.subject: (one.version, one.name) for one in held_of(postgres_url, store)}
    assert held == {first: (2, "unspeakable"), large: (2, "stuffed")}
    assert any("ValueError at test_relay.py:" in reason for reason in relay.not_ready())
    assert not any("no words for it" in reason for reason in relay.not_ready()), "it may quote the event"
    assert any("RecordOversized" in reason for reason in relay.not_ready())
    mending.repaired = True
    assert try_again(postgres_url, store, first) == 1
    await until(lambda: relay.held == 1)
    recorder.append_bulk([noted(first, 4)])
    await until(lambda: relay.position == recorder.head_position())
    events = await setting.events()
    assert [e.sequence for _, e in events if e.subject == first] == [1, 2, 3, 4]
    assert try_again(postgres_url, store) == 1
    await until(lambda: [one.again for one in held_of(postgres_url, store)] == [False])
    assert relay.held == 1, "what still cannot be published stays held"
    stopping.set()
    await running
    again, over = setting.relay(), asyncio.Event()
    again_running = asyncio.create_task(again.run(over))
    await until(lambda: again.leading and again.held == 1)
    over.set()
    await again_running


async def test_a_context_is_published_again_from_a_position_on(setting, recorder, postgres_url, store):
    relay, stopping = setting.relay(), asyncio.Event()
    running = asyncio.create_task(relay.run(stopping))
    head = appended(recorder, streams=5, each=10)
    await until(lambda: relay.position == head)
    assert republish(postgres_url, store, "ingest", 1) == head
    recorder.append_bulk([noted(UUID(int=50), 1)])
    await until(lambda: relay.published >= 2 * 50 + 1)
    stopping.set()
    await running
    events = await setting.events()
    sequences = [e.sequence for _, e in events if e.subject == UUID(int=1)]
    assert sequences[-10:] == list(range(1, 11))
    assert len(sequences) >= 20


async def counts_of(setting) -> dict[int, list[int | None]]:
    """The counts of each partition's watermarks, in order."""
    found: dict[int, list[int | None]] = defaultdict(list)
    for record, read in await setting.records():
        if isinstance(read, Watermark):
            found[record.partition].append(read.published)
    return found


async def test_watermarks_count_what_each_partition_got_and_a_relay_that_comes_after_counts_on(
    setting, recorder
):
    head = appended(recorder, streams=20, each=5)
    await relayed(setting.relay(), head)
    recorder.append_bulk([noted(UUID(int=99), 1, "private"), noted(UUID(int=100), 1)])
    await relayed(setting.relay(), recorder.head_position())
    streams = [*(UUID(int=each) for each in range(20) for _ in range(5)), UUID(int=100)]
    held = {n: sum(partition_of(stream, PARTITIONS) == n for stream in streams) for n in range(PARTITIONS)}
    assert {number: counts[-1] for number, counts in (await counts_of(setting)).items()} == held


async def test_a_crash_before_saving_counts_nothing_twice(setting, recorder):
    head = appended(recorder, streams=4, each=25)
    dying = setting.relay(Dying(setting.publisher(), 1), batch_max=50)
    with pytest.raises(SystemError):
        await dying.run(asyncio.Event())
    await setting.leases[-1].release()
    await relayed(setting.relay(), head)
    assert sum(counts[-1] or 0 for counts in (await counts_of(setting)).values()) == 100
    assert len(await setting.events()) == 150


async def test_what_is_published_again_in_part_is_not_counted_again_and_as_a_whole_anew(
    setting, recorder, postgres_url, store
):
    head = appended(recorder, streams=4, each=10)
    await relayed(setting.relay(), head)
    republish(postgres_url, store, "ingest", head - 5)
    await relayed(setting.relay(), head)
    assert sum(counts[-1] or 0 for counts in (await counts_of(setting)).values()) == 40
    republish(postgres_url, store, "ingest")
    await relayed(setting.relay(), head)
    assert sum(counts[-1] or 0 for counts in (await counts_of(setting)).values()) == 40
    assert len(await setting.events()) == 86


async def test_a_relay_that_did_not_count_from_the_beginning_says_no_count(
    setting, recorder, postgres_url, store
):
    """Its position was saved by a version that did not count."""
    head = appended(recorder, streams=4, each=10)
    await relayed(setting.relay(), head)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"update {store}.relay set published = null, counted_to = null")
    recorder.append_bulk([noted(UUID(int=50), 1)])
    await relayed(setting.relay(), head + 1)
    assert {counts[-1] for counts in (await counts_of(setting)).values()} == {None}
    republish(postgres_url, store, "ingest")
    await relayed(setting.relay(), head + 1)
    assert sum(counts[-1] or 0 for counts in (await counts_of(setting)).values()) == 41


async def test_a_broker_that_takes_less_than_an_event_has_is_named_and_holds_up_only_its_subject(
    recorder, postgres_url, kafka_url, store, monkeypatch
):
    small = Topic(
        f"test.relay-{uuid7(CLOCK.now())}", PARTITIONS, "subject", "of a test", record_bytes_max=50_000
    )
    monkeypatch.setitem(EVENTS, "ingest", small)
    await ensure_topics(kafka_url, [small])
    large, other = UUID(int=1), UUID(int=2)
    recorder.append_bulk([noted(large, 1, "stuffed"), *(noted(other, each) for each in range(1, 200))])

    def stuffing(stored: StoredEvent) -> Said:
        return Said(b"x" * (60_000 if stored.name == "stuffed" else 1_000))

    role = RelayRole("ingest", store, stuffing, CATALOGUE, postgres_url=postgres_url, kafka_url=kafka_url)
    stopping = asyncio.Event()
    running = asyncio.create_task(role.run(stopping))
    await until(lambda: role.relay.position == recorder.head_position())
    assert any(f"subject {large}" in each and "the broker takes" in each for each in role.not_ready())
    stopping.set()
    await running
    read = [unwrap(r.headers) async for page in read_to_end(kafka_url, small.name) for r in page]
    assert [one.sequence for one in read if isinstance(one, Envelope)] == list(range(1, 200))


async def test_what_a_newer_process_stored_waits_for_one_and_is_published_in_its_words(
    recorder, postgres_url, kafka_url, store, monkeypatch
):
    """While processes are replaced, an older relay reads what a newer service has stored."""
    own = Topic(f"test.relay-{uuid7(CLOCK.now())}", PARTITIONS, "subject", "of a test")
    monkeypatch.setitem(EVENTS, "ingest", own)
    await ensure_topics(kafka_url, [own])
    one, other = UUID(int=1), UUID(int=2)
    recorder.append_bulk(
        [noted(one, 1, schema_version=2), noted(other, 1, "renamed"), noted(one, 2), noted(other, 2)]
    )

    def role(catalogue: Catalogue) -> RelayRole:
        return RelayRole("ingest", store, words, catalogue, postgres_url=postgres_url, kafka_url=kafka_url)

    async def ran(hosted: RelayRole, done: Callable[[], bool]) -> None:
        stopping = asyncio.Event()
        running = asyncio.create_task(hosted.run(stopping))
        await until(done)
        stopping.set()
        await running

    older = role(CATALOGUE)
    await ran(
        older, lambda: any("noted version 2 is newer than this code" in each for each in older.not_ready())
    )
    assert older.relay.position == 0
    assert held_of(postgres_url, store) == []
    newer = role(NEWER)
    await ran(newer, lambda: newer.relay.position == recorder.head_position())
    read = [unwrap(r.headers) async for page in read_to_end(kafka_url, own.name) for r in page]
    told = [(one.subject.int, one.sequence) for one in read if isinstance(one, Envelope)]
    assert sorted(told) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert held_of(postgres_url, store) == []
