"""Two relays as processes of their own; the one that leads is stopped by a signal and lives on, knowing nothing."""

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import msgspec
import psycopg
from chassis.clock import SystemClock, uuid7
from chassis.messaging.transport import ensure_topics, read_to_end
from chassis.write.events import StoredEvent
from chassis.write.store import Recorder
from contracts.envelope import Envelope, unwrap
from contracts.topics import Topic

TAKEN_OVER_SECONDS_MAX = 15.0
SECONDS_MAX = 40.0
PROGRAM = """
import asyncio, sys
from chassis.clock import SystemClock
from chassis.process.leases import Lease, PostgresLease
from chassis.relay import RELAY_LEASE, Listening, PostgresPositions, Relay, StoreLog
from chassis.messaging.transport import KafkaPublisher
from contracts.ingest import FeedCertified
from contracts.topics import Topic
import msgspec

class Said(msgspec.Struct):
    body: bytes
    event: type[FeedCertified] = FeedCertified

url, kafka, schema, topic = sys.argv[1:]
clock = SystemClock()
relay = Relay(
    "ingest", Topic(topic, 3, "subject", "of a test"), StoreLog(url, schema),
    PostgresPositions(url, schema, "ingest"), Lease(PostgresLease(url, schema, RELAY_LEASE), clock),
    KafkaPublisher(kafka), lambda stored: Said(b"%d" % stored.version), clock,
    hint=Listening(url, schema, clock), batch_max=20,
)
asyncio.run(relay.run(asyncio.Event()))
"""
AT = "2026-01-05T08:00:00Z"


def noted(stream: UUID, version: int) -> StoredEvent:
    meta = {
        "effective_at": AT,
        "recorded_at": AT,
        "actor": "somebody",
        "command_id": UUID(int=1),
        "correlation_id": UUID(int=2),
        "causation_id": UUID(int=3),
    }
    return StoredEvent(stream, version, "noted", msgspec.json.encode({"meta": meta, "data": {"v": 1}}))


@contextmanager
def relaying(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments])
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.wait()


def until(condition: Callable[[], bool], seconds_max: float = SECONDS_MAX) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds_max, inspect.getsource(condition)
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_leader_under_sigstop_is_replaced_and_nothing_is_lost_or_goes_back(
    postgres_url: str, kafka_url: str, schema: str, recorder: Recorder
) -> None:
    topic = Topic(f"test.frozen-{uuid7(SystemClock().now())}", 3, "subject", "of a test")
    asyncio.run(ensure_topics(kafka_url, [topic]))

    def row() -> tuple[int, int, str]:
        with psycopg.connect(postgres_url) as connection:
            found = connection.execute(
                f"select coalesce(max(r.position), 0), coalesce(max(l.epoch), 0), coalesce(max(l.held_by), '')"
                f" from {schema}.leases as l left join {schema}.relay as r on true"
            ).fetchone()
        assert found is not None
        return found

    def append(versions: range) -> int:
        recorder.append_bulk([noted(UUID(int=s), version) for version in versions for s in range(20)])
        return recorder.head_position()

    arguments = (postgres_url, kafka_url, schema, topic.name)
    with relaying(*arguments) as first:
        head = append(range(1, 6))
        until(lambda: row()[0] == head)
        assert f":{first.pid}:" in row()[2]
        with relaying(*arguments) as second:
            head = append(range(6, 60))  # so that it may be stopped in the middle of a batch
            until(lambda: row()[0] > 200)
            os.kill(first.pid, signal.SIGSTOP)
            head = append(range(60, 70))
            seconds = until(lambda: f":{second.pid}:" in row()[2])
            assert seconds < TAKEN_OVER_SECONDS_MAX
            until(lambda: row()[0] == head)
            position, epoch, _ = row()
            os.kill(first.pid, signal.SIGCONT)
            head = append(range(70, 80))
            until(lambda: row()[0] == head)
            time.sleep(3)  # the old one has every chance to do harm
            assert row()[0] == head > position
            assert row()[1] == epoch, "who was replaced stands by and takes nothing over"
            assert first.poll() is None

    async def published() -> list[Envelope]:
        return [
            found
            async for page in read_to_end(kafka_url, topic.name)
            for record in page
            if isinstance(found := unwrap(record.headers), Envelope)
        ]

    events = asyncio.run(published())
    by_subject: dict[UUID, list[int]] = {}
    for each in events:
        by_subject.setdefault(each.subject, []).append(each.sequence)
    assert len(by_subject) == 20
    for sequences in by_subject.values():
        assert list(dict.fromkeys(sequences)) == list(range(1, 80)), "each once in effect, and in order"
