"""The branch topic over a real Kafka and a real PostgreSQL: every message is booked once, whatever fails meanwhile."""

import asyncio
import json
import os
import signal
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.messaging.dead_letters import TRIES_MAX, KeyCustody, read_letter, resend
from chassis.messaging.records import Record
from chassis.messaging.transport import (
    CLOSING_SECONDS_MAX,
    HANDLED_SECONDS_MAX,
    KafkaPublisher,
    PublishFailed,
    ensure_topics,
    group_lag,
    read_to_end,
)
from chassis.process.roles import STOP_SECONDS_MAX
from chassis.write.store.appender import StoreOverloaded
from contracts.topics import COREBANK_POSTINGS, dead_letters
from devservers.strangers import send_strange
from psycopg import errors
from sync_ingest.domain.identities import feed_id
from sync_ingest.domain.sources import UNATTRIBUTED, SourceReserved
from sync_ingest.listening import GROUP, STOPPED_SECONDS_MAX, TOPIC, BranchFeed, FeedRole, source_of, trace_of
from sync_ingest.opening import IngestPool, opened, opened_keys
from sync_ingest.runs.ports import Acting
from sync_ingest.settings import SyncIngestSettings

from tests.support.waiting import until

SECONDS_MAX = 100
WINDOW = timedelta(minutes=15)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Time:
    """A clock whose windows end when the test says so."""

    at: datetime = field(default_factory=lambda: datetime(2026, 3, 2, 10, 7, tzinfo=UTC))

    def now(self) -> datetime:
        return self.at


def message(number, amount_minor=100, source="east", trace=None, value=None, partition=None):
    record = {
        "record": "posting",
        "account": f"A{number % 5}",
        "core_transaction_id": f"t{number}",
        "amount_minor": amount_minor,
        "currency": "CNY",
        "booked_on": "2026-03-02",
    }
    headers = [("source", source.encode())] + ([("traceparent", trace.encode())] if trace else [])
    content = json.dumps(record).encode() if value is None else value
    at = number % COREBANK_POSTINGS.partitions if partition is None else partition
    return Record(TOPIC, at, f"A{number % 5}".encode(), headers, content)


class Refusing:
    """The custody of a feed that writes no letters."""

    def seal(self, place, plain):
        raise AssertionError(f"a dead letter was written: {place}")

    open = seal


async def letters_of(kafka_url):
    """All dead letters of the feed, with their records."""
    found = []
    async for page in read_to_end(kafka_url, dead_letters(GROUP).name):
        found += [(read_letter(each), each) for each in page]
    return found


@pytest.fixture(scope="module")
async def broker(kafka_url):
    await ensure_topics(kafka_url, [COREBANK_POSTINGS, dead_letters(GROUP)])
    publisher = KafkaPublisher(kafka_url)
    yield publisher
    await publisher.close()


@pytest.fixture
def pool(postgres_url, data):
    pool = IngestPool(SyncIngestSettings(postgres_url=postgres_url, data=data))
    yield pool
    pool.close()


@pytest.fixture
def custody(pool):
    custody = KeyCustody(GROUP, partial(opened_keys, pool._settings, SystemClock()))
    yield custody
    custody.close()


@asynccontextmanager
async def following(feed, kafka_url, custody=None):
    role = FeedRole(feed, kafka_url, SystemClock(), custody or Refusing())
    stopping = asyncio.Event()
    task = asyncio.create_task(role.run(stopping))
    try:
        yield role
    finally:
        stopping.set()
        await asyncio.wait_for(task, 20)


def booked(ingest, source, numbers):
    wanted = [ingest.ids.posting(source, f"A{n % 5}", f"t{n}", 1) for n in numbers]
    return len(ingest.ledger.known(wanted))


def unattributed(ingest):
    """The first records of no known source that wait, by number."""
    return dict(ingest.archive.quarantine.page(UNATTRIBUTED, None, 0, 200))


@pytest.mark.requirement("D07")
async def test_messages_are_booked_committed_and_certified_by_the_window(
    broker, kafka_url, pool, ingest, source
):
    time = Time()
    feed = BranchFeed(pool.opened, default_source="corebank", window=WINDOW, now=time.now)
    await broker.publish([message(n, source=source) for n in range(60)])
    await broker.publish([message(0, source=source, value=b"{broken")])
    async with following(feed, kafka_url) as role:
        await until(lambda: booked(ingest, source, range(60)) == 60)
        await until(lambda: role.not_ready() == [], what=role.not_ready)
        assert ingest.latest_certificate(source) is None
        await broker.publish([message(n, source=source) for n in range(0, 60, 3)])
        async with asyncio.timeout(SECONDS_MAX):
            while sum((await group_lag(kafka_url, GROUP, [TOPIC])).values()):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert await role.lag() == 0
        time.at += timedelta(minutes=8)
        await until(lambda: ingest.latest_certificate(source) is not None)
    findings = ingest.latest_certificate(source).findings
    assert (
        findings.status,
        findings.records,
        findings.posted,
        findings.duplicates,
        findings.quarantined,
    ) == (
        "AMBER",
        81,
        60,
        20,
        1,
    )
    assert findings.lines[0].closing_minor == 6_000


async def test_a_record_keeps_the_trace_that_it_came_with(broker, kafka_url, pool, ingest, source):
    feed = BranchFeed(pool.opened, default_source="corebank", window=WINDOW, now=Time().now)
    await broker.publish([message(1, source=source, trace=TRACE), message(2, source=source)])
    async with following(feed, kafka_url):
        await until(lambda: booked(ingest, source, (1, 2)) == 2)
    traces = {}
    for number in (1, 2):
        stream = ingest.ids.account(source, f"A{number}")
        for stored in ingest.ledger._recorder.read_stream(stream):
            traces.setdefault(number, set()).add(
                msgspec.json.decode(stored.body)["meta"].get("trace", {}).get("traceparent")
            )
    assert traces[1] == {TRACE}
    assert TRACE not in traces[2]


async def test_a_database_that_is_gone_for_a_while_holds_the_topic_back_and_loses_nothing(
    broker, kafka_url, pool, ingest, source, postgres_url
):
    gone = asyncio.Event()

    @contextmanager
    def opened_unless_gone():
        if gone.is_set():
            raise psycopg.OperationalError("the server is not there")
        with pool.opened() as found:
            yield found

    feed = BranchFeed(opened_unless_gone, default_source="corebank", window=WINDOW, now=Time().now)
    async with following(feed, kafka_url) as role:
        await broker.publish([message(n, source=source) for n in range(10)])
        await until(lambda: booked(ingest, source, range(10)) == 10)
        gone.set()
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        await broker.publish([message(n, source=source) for n in range(10, 20)])
        await until(lambda: any("OperationalError" in reason for reason in role.not_ready()))
        gone.clear()
        with opened(SyncIngestSettings(postgres_url=postgres_url, data=pool._settings.data)) as other:
            await until(lambda: booked(other, source, range(20)) == 20)
        await until(lambda: role.not_ready() == [])


async def test_a_broker_that_dies_and_comes_back_loses_nothing(
    broker, kafka_url, devservers, pool, ingest, source
):
    feed = BranchFeed(pool.opened, default_source="corebank", window=WINDOW, now=Time().now)
    servers = devservers.one("kafka")
    if "kafka" not in servers.pids:
        pytest.skip("this broker is not ours to kill")
    async with following(feed, kafka_url):
        await broker.publish([message(n, source=source) for n in range(30)])
        await until(lambda: booked(ingest, source, range(30)) == 30)
        os.kill(servers.pids["kafka"], signal.SIGKILL)
        await asyncio.to_thread(servers.restart, "kafka")
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                try:
                    await broker.publish([message(n, source=source) for n in range(60)])
                    break
                except PublishFailed:
                    await asyncio.sleep(0.2)
        await until(lambda: booked(ingest, source, range(60)) == 60)


async def test_a_message_that_breaks_the_booking_is_sealed_kept_and_sent_again_when_it_is_repaired(
    broker, kafka_url, pool, ingest, source, custody
):
    broken = True

    class Breaking(BranchFeed):
        def book(self, messages):
            if broken and any(b"NAME-OF-A-PERSON" in each.value for each in messages):
                raise ValueError("cannot digest NAME-OF-A-PERSON")
            return super().book(messages)

    def named(number):
        record = json.loads(message(number).value) | {"text": "NAME-OF-A-PERSON"}
        return message(number, source=source, value=json.dumps(record).encode(), partition=1)

    feed = Breaking(pool.opened, default_source="corebank", window=WINDOW, now=Time().now)
    await broker.publish([*(message(n, source=source) for n in range(5)), named(100), named(101)])
    await broker.publish([message(n, source=source) for n in range(5, 10)])
    async with following(feed, kafka_url, custody):
        await until(lambda: booked(ingest, source, range(10)) == 10)
        async with asyncio.timeout(SECONDS_MAX):
            while len(found := await letters_of(kafka_url)) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        for letter, record in found:
            assert letter.reason.startswith("ValueError at test_listening.py:")
            assert (letter.origin, letter.tries) == ((TOPIC, 1), 3)
            in_clear = b"".join([record.key, record.value, *(value for _, value in record.headers)])
            assert b"PERSON" not in in_clear
            assert source.encode() not in in_clear
            assert b"A0" not in in_clear
        assert booked(ingest, source, (100, 101)) == 0
        broken = False
        assert await resend(kafka_url, GROUP, broker, custody) == (2, 0)
        await until(lambda: booked(ingest, source, (100, 101)) == 2)
        assert await resend(kafka_url, GROUP, broker, custody) == (
            0,
            0,
        )  # a second time nothing is left to send
    sent = [
        each.value
        async for page in read_to_end(kafka_url, TOPIC)
        for each in page
        if each.partition == 1 and b"NAME-OF" in each.value
    ]
    assert sent == [named(100).value, named(101).value] * 2


async def test_a_message_as_large_as_the_broker_takes_fits_into_a_letter(
    broker, kafka_url, pool, source, custody
):
    class Breaking(BranchFeed):
        def book(self, messages):
            if any(len(each.value) > 1_000_000 for each in messages):
                raise ValueError
            return super().book(messages)

    feed = Breaking(pool.opened, default_source="corebank", window=WINDOW, now=Time().now)
    before = len(await letters_of(kafka_url))
    await broker.publish([message(1, source=source, value=b" " * 1_040_000)])
    async with following(feed, kafka_url, custody), asyncio.timeout(SECONDS_MAX):
        while len(await letters_of(kafka_url)) <= before:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_a_key_file_that_cannot_be_read_holds_the_topic_back_and_nothing_is_laid_to_a_message(
    broker, kafka_url, pool, ingest, source, postgres_url, data
):
    feed = BranchFeed(pool.opened, default_source="corebank", window=WINDOW, now=Time().now)
    key_file, letters = data / "keys" / "kek", len(await letters_of(kafka_url))
    async with following(feed, kafka_url) as role:
        await broker.publish([message(n, source=source) for n in range(10)])
        await until(lambda: booked(ingest, source, range(10)) == 10)
        key_file.chmod(0o644)
        try:
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            await broker.publish([message(n, source=source) for n in range(10, 20)])
            await until(lambda: any("PermissionError" in reason for reason in role.not_ready()))
            await asyncio.sleep(3)  # more than three tries
            assert any("may be read by others" in reason for reason in role.not_ready())
            assert sum((await group_lag(kafka_url, GROUP, [TOPIC])).values()) >= 10
        finally:
            key_file.chmod(0o600)
        with opened(SyncIngestSettings(postgres_url=postgres_url, data=data)) as other:
            await until(lambda: booked(other, source, range(20)) == 20)
        await until(lambda: role.not_ready() == [])
    assert len(await letters_of(kafka_url)) == letters


@pytest.mark.parametrize(
    "error",
    [
        errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"),
        errors.DiskFull("could not extend file"),
        OSError(28, "No space left on device"),
        StoreOverloaded("10000 appends wait"),
        RuntimeError("unheard of"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_is_no_fault_of_a_message_stops_the_feed_and_writes_no_letter(
    broker, kafka_url, pool, ingest, source, error
):
    failing, tries = True, 0

    @contextmanager
    def failing_or_opened():
        nonlocal tries
        with pool.opened() as found:
            if failing:
                tries += 1
                raise error
            yield found

    feed = BranchFeed(failing_or_opened, default_source="corebank", window=WINDOW, now=Time().now)
    async with following(feed, kafka_url) as role:
        await broker.publish([message(n, source=source) for n in range(10)])
        await until(lambda: tries > TRIES_MAX)
        assert any(type(error).__name__ in reason for reason in role.not_ready())
        failing = False
        await until(lambda: booked(ingest, source, range(10)) == 10)
        await until(lambda: role.not_ready() == [])


@pytest.mark.parametrize(
    ("headers", "value", "named"),
    [
        ([("source", b"east")], b"{}", ("east", None)),
        ([("source", b"east")], b'{"source":"east"}', ("east", None)),
        ([("source", b"east")], b'{"source":null}', ("east", None)),
        ([("source", b"east")], b"\xff\xfe", ("east", None)),
        ([], b'{"source":"west"}', ("west", None)),
        ([], b"\xff\xfe", ("corebank", None)),
        ([], b"{}", ("corebank", None)),
        ([("source", b"east")], b'{"source":"west"}', (UNATTRIBUTED, "source-contradicted")),
        ([("source", b"east"), ("source", b"west")], b"{}", (UNATTRIBUTED, "source-ambiguous")),
        ([("source", b"east"), ("source", b"east")], b"{}", (UNATTRIBUTED, "source-ambiguous")),
        ([("source", b"a:b")], b"", (UNATTRIBUTED, "source-invalid")),
        ([("source", b"")], b"", (UNATTRIBUTED, "source-invalid")),
        ([("source", None)], b"", (UNATTRIBUTED, "source-invalid")),
        ([("source", b"\xff\xfe")], b"", (UNATTRIBUTED, "source-invalid")),
        ([("source", b"\x00")], b"", (UNATTRIBUTED, "source-invalid")),
        ([("source", b"x" * 65)], b"", (UNATTRIBUTED, "source-invalid")),
        ([("source", b"a:b")], b'{"source":"west"}', (UNATTRIBUTED, "source-invalid")),
        ([("source", b"unattributed")], b"{}", (UNATTRIBUTED, "source-invalid")),
        ([("source", b"Unattributed")], b"{}", (UNATTRIBUTED, "source-invalid")),
        ([], b'{"source":7}', (UNATTRIBUTED, "source-invalid")),
        ([], b'{"source":""}', (UNATTRIBUTED, "source-invalid")),
        ([("source", b"east")], b'{"source":"a:b"}', (UNATTRIBUTED, "source-invalid")),
    ],
)
def test_a_message_names_its_source_or_is_of_the_topic_or_is_nobodys(headers, value, named):
    assert source_of(headers, value, "corebank") == named


@pytest.mark.requirement("D07")
def test_a_message_that_names_no_usable_source_is_quarantined_and_booked_on_nobodys_account(
    pool, ingest, source
):
    time = Time()
    feed = BranchFeed(pool.opened, default_source=source, window=WINDOW, now=time.now)
    wrong = message(901, source="a:b")._replace(offset=int(time.at.timestamp()))
    several = message(902, source=source)
    several = several._replace(
        headers=[*several.headers, ("source", b"west")], offset=int(time.at.timestamp()) + 1
    )
    before = unattributed(ingest)
    feed.book([wrong, several, message(3, source=source)._replace(offset=7)])
    time.at += timedelta(minutes=15)
    closed = {result.source: result.findings for result in feed.close_windows()}
    assert (closed[source].posted, closed[source].quarantined) == (1, 0)
    assert (closed[UNATTRIBUTED].posted, closed[UNATTRIBUTED].quarantined) == (0, 2)
    waiting = [entry for number, entry in unattributed(ingest).items() if number not in before]
    assert sorted(entry.reason for entry in waiting) == ["source-ambiguous", "source-invalid"]
    assert not booked(ingest, source, (901, 902))
    ingest.acting = Acting("anna", reason="it is of the east")
    for entry in waiting:
        with pytest.raises(SourceReserved):
            ingest.release(entry.id, wrong.value)
        ingest.dismiss(entry.id)
    assert not booked(ingest, source, (901, 902))


@pytest.mark.parametrize("headers", [[], [("ce_source", b"/branch/east")], [("Source", b"east")]])
@pytest.mark.parametrize("value", [b"{}", b"\xff\xfe", b""])
def test_a_message_without_a_source_is_nobodys_where_the_settings_name_no_default(headers, value):
    assert source_of(headers, value, None) == (UNATTRIBUTED, "source-missing")


def test_a_message_without_a_source_is_quarantined_by_default(postgres_url, data, pool, ingest):
    """It used to be booked under a source of our own making, and certified GREEN."""
    settings, time = (
        SyncIngestSettings(postgres_url=postgres_url, data=data, environment="development"),
        Time(),
    )
    assert settings.topic_source is None
    feed = BranchFeed(pool.opened, default_source=settings.topic_source, window=WINDOW, now=time.now)
    before = unattributed(ingest)
    feed.book([message(1)._replace(headers=[("ce_source", b"/branch/east")], offset=4711)])
    time.at += WINDOW
    [closed] = [one.findings for one in feed.close_windows() if one.source == UNATTRIBUTED]
    assert (closed.status, closed.posted, closed.quarantined) == ("AMBER", 0, 1)
    waiting = [entry for number, entry in unattributed(ingest).items() if number not in before]
    assert [entry.reason for entry in waiting] == ["source-missing"]


def test_a_message_whose_source_looks_like_another_waits_and_the_others_of_its_batch_are_booked(
    pool, ingest, source
):
    time = Time()
    feed = BranchFeed(pool.opened, default_source=None, window=WINDOW, now=time.now)
    feed.book([message(1, source=source)._replace(offset=1)])
    before = unattributed(ingest)
    sent = [message(2, source=source.upper()), message(3, source=source), message(4)._replace(headers=[])]
    feed.book([one._replace(offset=at) for at, one in enumerate(sent, 2)])
    assert booked(ingest, source, (1, 2, 3, 4)) == 2
    assert not booked(ingest, source.upper(), (2,))
    time.at += WINDOW
    closed = {one.source: one.findings for one in feed.close_windows()}
    assert (closed[source].posted, closed[UNATTRIBUTED].quarantined) == (2, 2)
    waiting = [entry for number, entry in unattributed(ingest).items() if number not in before]
    assert sorted(entry.reason for entry in waiting) == ["source-looks-alike", "source-missing"]
    assert {ingest.raw_of(entry) for entry in waiting} == {sent[0].value, sent[2].value}


@pytest.mark.parametrize("name", ["a:b", " east", UNATTRIBUTED, "x" * 65])
def test_a_default_source_that_cannot_be_used_is_refused_at_the_start(name):
    with pytest.raises(ValueError, match="topic_source"):
        SyncIngestSettings(topic_source=name)


@pytest.mark.parametrize(
    "value", [None, b"", b"\xff" * 55, TRACE.encode() + b"0", b"zz-" + TRACE[3:].encode()]
)
def test_what_is_no_trace_parent_is_left_out(value):
    assert trace_of([("traceparent", value)]) is None
    assert trace_of([("traceparent", TRACE.encode())]) == TRACE


def test_windows_end_at_whole_multiples_of_their_length(pool):
    time = Time()
    feed = BranchFeed(pool.opened, default_source="c", window=WINDOW, now=time.now)
    assert feed._window_ends_at == datetime(2026, 3, 2, 10, 15, tzinfo=UTC)
    time.at = datetime(2026, 3, 2, 23, 59, tzinfo=UTC)
    assert feed._end_of_window() == datetime(2026, 3, 3, tzinfo=UTC)


async def test_a_message_with_a_header_name_that_is_no_text_has_a_letter_and_the_others_are_booked(
    broker, kafka_url, pool, ingest, source, custody
):
    feed = BranchFeed(pool.opened, default_source="corebank", window=WINDOW, now=Time().now)
    await broker.publish([message(n, source=source, partition=0) for n in range(200, 210)])
    offset = await send_strange(kafka_url, TOPIC, 0, b"\xff\xfe", b"A-NAME")
    await broker.publish([message(n, source=source, partition=0) for n in range(210, 220)])
    async with following(feed, kafka_url, custody):
        await until(lambda: booked(ingest, source, range(200, 220)) == 20)
        async with asyncio.timeout(SECONDS_MAX):
            while sum((await group_lag(kafka_url, GROUP, [TOPIC])).values()):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    letters = [letter for letter, _ in await letters_of(kafka_url) if letter.origin_offset == offset]
    assert {(letter.origin, letter.reason, letter.sealed) for letter in letters} == {
        ((TOPIC, 0), "the name of a header is not UTF-8", b"")
    }
    assert letters[0].opened(custody) is None


def test_a_source_whose_window_cannot_be_closed_holds_no_other_back(pool, ingest, source):
    east, west = f"{source}-east", f"{source}-west"
    time = Time()
    feed = BranchFeed(pool.opened, default_source=None, window=WINDOW, now=time.now)
    feed.book([message(1, source=east)._replace(offset=1), message(1, source=west)._replace(offset=2)])
    time.at += WINDOW

    @contextmanager
    def opened_broken():
        with pool.opened() as running:
            intakes = running.archive.intakes
            running.archive.intakes = Unreadable(intakes, east)
            try:
                yield running
            finally:
                running.archive.intakes = intakes

    broken = BranchFeed(opened_broken, default_source=None, window=WINDOW, now=time.now)
    time.at += WINDOW
    for _ in range(2):
        with pytest.raises(ValueError, match="unreadable"):
            broken.close_windows()
    assert ingest.latest_certificate(east) is None
    assert len(ingest.certificates(west, None, 9)) == 1
    feed.close_windows()
    assert len(ingest.certificates(east, None, 9)) == 1


async def test_each_batch_has_its_own_tries_whatever_failed_before_it(kafka_url, pool):
    singly = []

    class Broken(BranchFeed):
        def book(self, messages):
            raise ValueError("broken")

        def book_singly(self, messages):
            singly.append(messages)
            return []

    feed = Broken(pool.opened, default_source=None, window=WINDOW, now=Time().now)
    role = FeedRole(feed, kafka_url, SystemClock(), Refusing())

    def batch(partition, *offsets):
        return [message(n, partition=partition)._replace(offset=n) for n in offsets]

    first, second = batch(0, 5, 6), batch(1, 2)
    for failing in (first, first, second, batch(0, 7), batch(0, 7), second):
        with pytest.raises(ValueError, match="broken"):
            await role._book(failing)
    assert singly == []
    again = [*batch(1, 2, 3), *batch(0, 4)]
    await role._book(again)
    assert singly == [again], "what failed twice fails a third time, in whatever batch it comes again"
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await role._book(second)
    await role._publisher.close()


async def test_what_a_window_works_with_is_closed_after_it(kafka_url, pool):
    inside, goes_on, happened = threading.Event(), threading.Event(), []

    @contextmanager
    def opened_slowly():
        with pool.opened() as running:
            inside.set()
            goes_on.wait(SECONDS_MAX)
            happened.append("the window ended")
            yield running

    time, stopping = Time(), asyncio.Event()
    feed = BranchFeed(opened_slowly, default_source=None, window=WINDOW, now=time.now)
    closing = partial(happened.append, "closed")
    role = FeedRole(feed, kafka_url, SystemClock(), Refusing(), close=closing)
    time.at += WINDOW
    task = asyncio.create_task(role.run(stopping))
    await until(inside.is_set)
    stopping.set()
    await asyncio.wait({task}, timeout=1)
    goes_on.set()
    await asyncio.wait_for(task, SECONDS_MAX)
    assert happened == ["the window ended", "closed"]


async def test_a_feed_that_is_told_to_stop_waits_for_no_call_beyond_its_limit(kafka_url, pool):
    inside, goes_on, closed = threading.Event(), threading.Event(), []

    @contextmanager
    def opened_slowly():
        with pool.opened() as running:
            inside.set()
            goes_on.wait(SECONDS_MAX)
            yield running

    time, stopping = Time(), asyncio.Event()
    feed = BranchFeed(opened_slowly, default_source=None, window=WINDOW, now=time.now)
    role = FeedRole(
        feed,
        kafka_url,
        SystemClock(),
        Refusing(),
        close=partial(closed.append, True),
        stopped_seconds_max=0.1,
    )
    time.at += WINDOW
    task = asyncio.create_task(role.run(stopping))
    await until(inside.is_set)
    stopping.set()
    try:
        await asyncio.wait_for(task, STOP_SECONDS_MAX)
        assert closed == [True]
    finally:
        goes_on.set()


def test_a_consumer_and_a_feed_stop_within_the_time_of_their_process():
    """An idle consumer leaves at once, one with a batch in hand within these limits."""
    leaving = HANDLED_SECONDS_MAX + CLOSING_SECONDS_MAX
    assert max(leaving, STOPPED_SECONDS_MAX) + CLOSING_SECONDS_MAX < STOP_SECONDS_MAX


def test_what_is_in_use_when_its_pool_closes_is_closed_when_it_comes_back(postgres_url, data, source):
    pool = IngestPool(SyncIngestSettings(postgres_url=postgres_url, data=data))
    with pool.opened():
        pass
    with pool.opened() as used, pool.opened() as other:
        pool.close()
        assert used.ledger.digest_keys([feed_id(source)]), "the keys are open"
        with pool.opened() as later:
            assert later.ledger.heads([feed_id(source)]) == {}, "it asks the database"
    assert [each.archive._db.connection.closed for each in (used, other, later)] == [True, True, False]
    assert used.ledger._keys._connection is None
    pool.close()
    assert later.archive._db.connection.closed
    assert later.ledger._keys._connection is None


class Unreadable:
    """Intakes, where what was stated of one source cannot be read for a reason that no other try mends."""

    def __init__(self, intakes, source):
        self._intakes = intakes
        self._source = source

    def statements(self, source):
        if source == self._source:
            raise ValueError("unreadable")
        return self._intakes.statements(source)

    def __getattr__(self, name):
        return getattr(self._intakes, name)


async def test_windows_that_failed_for_whatever_reason_are_tried_again_and_said(kafka_url, pool):
    tries, time = [], Time()

    @contextmanager
    def opened_at_last():
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("a fault of our own")
        with pool.opened() as running:
            yield running

    feed = BranchFeed(opened_at_last, default_source=None, window=WINDOW, now=time.now)
    role, stopping = FeedRole(feed, kafka_url, SystemClock(), Refusing()), asyncio.Event()
    time.at += WINDOW
    windows = asyncio.create_task(role._close_windows(stopping))
    await until(role.not_ready)
    assert role.not_ready() == ["the last window was not certified: ValueError"]
    await until(lambda: not role.not_ready())
    stopping.set()
    await asyncio.wait_for(windows, SECONDS_MAX)
    await role._publisher.close()
