"""Locks of runs: one holder at a time; a holder that is silent loses the lock, and stores nothing more under it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from uuid import UUID

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.postgres import connect
from chassis.process.locks import LockBusy, Locks
from chassis.write.events import StoredEvent
from chassis.write.store import Append, Appended, Command, Fenced, Recorder, writer_role

MONOTONIC = SystemClock().monotonic
SILENT_SECONDS = 2.0


@contextmanager
def locks(
    url: str,
    schema: str,
    *,
    wait_seconds: float = 10.0,
    heard_seconds: float = 0.2,
    monotonic: Callable[[], float] = MONOTONIC,
) -> Iterator[Locks]:
    made = Locks(
        url,
        schema,
        monotonic,
        wait_seconds_max=wait_seconds,
        silent_seconds_max=SILENT_SECONDS,
        heard_seconds=heard_seconds,
    )
    with closing(made):
        yield made


def noted(number: int) -> StoredEvent:
    return StoredEvent(UUID(int=number), 1, "noted", b"{}")


def test_one_at_a_time_holds_a_lock_for_as_long_as_it_takes(postgres_url: str, schema: str) -> None:
    with locks(postgres_url, schema) as one, locks(postgres_url, schema, wait_seconds=0.3) as two:
        with one.held("key"), one.fenced("run") as fence:
            for name in ("key", "run"):
                with pytest.raises(LockBusy), two.held(name):
                    pass
            time.sleep(SILENT_SECONDS * 1.5)
            fence.check()
            with pytest.raises(LockBusy), two.held("run"):
                pass
            with two.held("other"):
                pass
        with two.held("key"), two.fenced("run") as later:
            assert later.epoch == fence.epoch + 1
        with pytest.raises(Fenced):
            fence.check()


def test_a_connection_that_was_lost_between_two_runs_is_opened_again(postgres_url: str, schema: str) -> None:
    with locks(postgres_url, schema) as one:
        with one.held("run"):
            pass
        with psycopg.connect(postgres_url, autocommit=True) as other:
            other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
                " and datname = current_database()"
            )
        with one.fenced("run") as fence:
            fence.check()


def test_who_is_silent_loses_the_lock_and_stores_nothing_more(
    postgres_url: str, schema: str, recorder: Recorder
) -> None:
    # This process's own clock stands still here, as that of a host that was suspended: the epoch alone must do.
    silent = locks(postgres_url, schema, heard_seconds=3600, monotonic=lambda: 0.0)
    with silent as one, locks(postgres_url, schema) as two, one.fenced("run") as fence:
        recorder.fence = fence
        recorder.append_bulk([noted(1)])
        assert isinstance(recorder.append_items([Append(UUID(int=2), (noted(2),))])[0], Appended)
        with two.fenced("run"):
            stored = recorder.head_position()
            with pytest.raises(Fenced):
                recorder.append_bulk([noted(3)])
            with pytest.raises(Fenced):
                recorder.append_items([Append(UUID(int=4), (noted(4),), Command("k", b"f"))])
            with connect(postgres_url, role=writer_role(schema)) as beside, pytest.raises(Fenced):
                fence.hold(beside)
        with pytest.raises(Fenced):
            recorder.append_bulk([noted(3)])
        assert (recorder.head_position(), recorder.commands(["k"])) == (stored, {})
        recorder.fence = None
        assert recorder.append_bulk([noted(3)])


def test_who_was_not_heard_in_time_stops_by_its_own_clock(postgres_url: str, schema: str) -> None:
    now = [0.0]
    with (
        locks(postgres_url, schema, heard_seconds=3600, monotonic=lambda: now[0]) as one,
        one.fenced("run") as fence,
    ):
        fence.check()
        now[0] = SILENT_SECONDS
        with pytest.raises(Fenced):
            fence.check()


def test_nobody_takes_a_lock_over_while_its_holder_commits(postgres_url: str, schema: str) -> None:
    taken = threading.Event()

    def take() -> None:
        with locks(postgres_url, schema) as two, two.fenced("run"):
            taken.set()

    silent = locks(postgres_url, schema, heard_seconds=3600, monotonic=lambda: 0.0)
    taker = threading.Thread(target=take)
    with silent as one, one.fenced("run") as fence, connect(postgres_url, role=writer_role(schema)) as beside:
        with beside.transaction():
            fence.hold(beside)
            taker.start()
            assert not taken.wait(SILENT_SECONDS * 1.5)
        assert taken.wait(5)
        taker.join()
