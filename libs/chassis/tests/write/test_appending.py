"""One member of a batch fails alone; whoever waits gets an answer; what is too large is refused before it is stored."""

import asyncio
import os
import signal
from collections.abc import Sequence
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.transient import StoreUnavailable
from chassis.write.deciding import EventOversized
from chassis.write.events import StoredEvent
from chassis.write.store import EVENT_BYTES_MAX, Append, Appended, Command, EventStore, Recorder
from chassis.write.store.appender import Appender
from chassis.write.store.items import AppendResult

CLOCK = SystemClock()


def item(number: int, *, name: str = "noted", body: bytes = b"{}", key: str | None = None) -> Append:
    stream = uuid5(UUID(int=4), str(number))
    return Append(stream, (StoredEvent(stream, 1, name, body),), Command(key or f"k{number}", b"f"))


@pytest.mark.parametrize(
    "bad",
    [item(99, name="no\0ted"), item(99, key="a\0b"), item(99, key="half \ud800 of a character")],
    ids=["a null in the name", "a null in the key", "half a character"],
)
async def test_one_bad_member_does_not_fail_its_batch(
    store: EventStore, recorder: Recorder, bad: Append
) -> None:
    await store.append_one(item(0))  # so that those below wait together
    results = await asyncio.gather(
        *(store.append_one(each) for each in (item(1), item(2), bad, item(3), item(4))),
        return_exceptions=True,
    )
    assert [isinstance(result, Appended) for result in results] == [True, True, False, True, True]
    assert isinstance(results[2], Exception)
    assert not isinstance(results[2], StoreUnavailable)
    assert len(recorder.read_after(0)) == 5


async def test_an_event_that_is_too_large_is_refused_by_every_way_in(
    store: EventStore, recorder: Recorder
) -> None:
    largest, larger = item(1, body=b"x" * EVENT_BYTES_MAX), item(2, body=b"x" * (EVENT_BYTES_MAX + 1))
    assert isinstance(await store.append_one(largest), Appended)
    with pytest.raises(EventOversized):
        await store.append_one(larger)
    with pytest.raises(EventOversized):
        await store.append_bulk(larger.events)
    with pytest.raises(EventOversized):
        recorder.append_items([larger])
    assert len(recorder.read_after(0)) == 1


async def test_everybody_is_answered_when_the_appender_closes(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    def write(_: Sequence[Append]) -> list[AppendResult]:
        raise AssertionError

    def never(_: object, items: Sequence[Append]) -> "asyncio.Future[list[AppendResult]]":
        begun.set()
        return asyncio.get_running_loop().create_future()

    appender = Appender(write, never, CLOCK, closing_seconds=0.2)
    under_way = asyncio.create_task(appender.append(item(1)))
    await begun.wait()
    waiting = asyncio.create_task(appender.append(item(2)))
    await asyncio.sleep(0)
    await appender.close()
    for one in (under_way, waiting):
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(one, 1)


def frozen_backend(recorder: Recorder) -> int:
    """Stops the server process behind a connection; it is there, and answers nothing."""
    pid: int = recorder.connection().info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    return pid


@pytest.mark.parametrize("bulk", [True, False])
def test_a_server_that_answers_nothing_is_not_waited_for(postgres_url: str, schema: str, bulk: bool) -> None:
    recorder = Recorder(postgres_url, schema, statement_seconds=0.5)
    recorder.append_bulk(item(1).events)
    pid, began = frozen_backend(recorder), CLOCK.monotonic()
    try:
        with pytest.raises(StoreUnavailable):
            _ = recorder.append_bulk(item(2).events) if bulk else recorder.append_items([item(2)])
        assert CLOCK.monotonic() - began < 8
    finally:
        os.kill(pid, signal.SIGCONT)
    recorder.append_bulk(item(3).events)
    recorder.close()


async def test_a_store_closes_though_its_server_answers_nothing(postgres_url: str, schema: str) -> None:
    store = EventStore(postgres_url, schema)
    await store.append_one(item(1))
    pid = frozen_backend(store._writer)
    try:
        waiting = asyncio.create_task(store.append_one(item(2)))
        await asyncio.sleep(0.1)
        began = CLOCK.monotonic()
        await store.close()
        assert CLOCK.monotonic() - began < 14
        with pytest.raises(StoreUnavailable):
            await waiting
    finally:
        os.kill(pid, signal.SIGCONT)


def test_every_connection_has_its_limits(postgres_url: str, schema: str) -> None:
    recorder = Recorder(postgres_url, schema)
    [limits] = recorder.connection().execute(
        "select current_setting('statement_timeout'), current_setting('lock_timeout'), current_user"
    )
    assert limits[:2] == ("30s", "10s")
    assert limits[2].endswith("_writer")
    known = psycopg.conninfo.conninfo_to_dict(recorder.connection().info.dsn)
    assert (known["tcp_user_timeout"], known["connect_timeout"]) == ("10000", "5")
    recorder.close()


async def test_reads_go_on_after_all_idle_connections_were_lost(
    store: EventStore, postgres_url: str, schema: str
) -> None:
    """As after a restart of the server, which none of them has noticed."""
    await store.append_bulk([StoredEvent(UUID(int=4), 1, "noted", b"{}")])
    await asyncio.gather(*(store.head_position() for _ in range(20)))
    with psycopg.connect(postgres_url, autocommit=True) as other:
        lost = other.execute(
            "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity"
            " where pid <> pg_backend_pid() and state = 'idle' and query like %s",
            (f"%{schema}%",),
        ).fetchone()
    assert lost is not None
    assert lost[0] > 0
    assert await asyncio.gather(*(store.head_position() for _ in range(20))) == [1] * 20
