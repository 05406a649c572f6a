"""The event store against a real PostgreSQL."""

import asyncio
from collections.abc import Iterator
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.connections.postgres import Connection, connect
from chassis.connections.transient import StoreUnavailable
from chassis.write.events import StoredEvent
from chassis.write.store import (
    Append,
    Appended,
    Command,
    CommandSeen,
    EventStore,
    IdentityConflict,
    Recorder,
    VersionConflict,
    prepare,
)
from chassis.write.store.facade import STREAM_READ_AT_ONCE
from chassis.write.store.schema import lock_key

NAMESPACE = UUID(int=1)


def stream(name: str) -> UUID:
    return uuid5(NAMESPACE, name)


def event(of: str, version: int, identity: str | None = None, body: bytes = b"{}") -> StoredEvent:
    return StoredEvent(stream(of), version, "noted", body, stream(identity) if identity else None)


def test_bulk_is_read_back_in_order(recorder: Recorder) -> None:
    events = [event("a", 1), event("b", 1, "x"), event("a", 2)]
    positions = recorder.append_bulk(events)
    assert positions == sorted(positions)
    read = recorder.read_after(0)
    assert [(e.stream_id, e.version, e.identity) for e in read] == [
        (e.stream_id, e.version, e.identity) for e in events
    ]
    assert [e.position for e in read] == positions
    assert recorder.read_stream(stream("a"), after=1) == [read[2]]
    assert recorder.read_streams({stream("a"): 1, stream("b"): 0, stream("c"): 0}) == {
        stream("a"): [read[2]],
        stream("b"): [read[1]],
        stream("c"): [],
    }
    assert recorder.head_position() == positions[-1]
    assert recorder.stream_heads([stream("a"), stream("b"), stream("c")]) == {stream("a"): 2, stream("b"): 1}
    assert recorder.known_identities([stream("x"), stream("y")]) == {stream("x")}
    assert recorder.read_identities([stream("x"), stream("y")]) == [read[1]]


@pytest.mark.parametrize("at_once", [1, 2, 4, 5])
async def test_all_that_has_begun_and_not_ended_is_found_whatever_is_read_at_once(
    recorder: Recorder, store: EventStore, at_once: int
) -> None:
    begun = sorted(map(stream, "abcde"))
    recorder.append_bulk([StoredEvent(one, 1, "begun", b"{}") for one in begun])
    recorder.append_bulk([StoredEvent(begun[2], 2, "ended", b"{}"), event("f", 1)])
    left = [one for one in begun if one != begun[2]]
    assert [one async for one in store.all_begun_not_ended("begun", ["ended"], at_once)] == left
    found = list(recorder.open_streams("begun", ["ended"], at_once))
    assert [(one, [each.name for each in stored]) for one, stored in found] == [
        (one, ["begun"]) for one in left
    ]


@pytest.mark.parametrize(
    "second",
    [
        [event("a", 1)],
        [event("a", 3)],
        [event("b", 2)],
        [event("b", 0)],
        [event("b", 1), event("b", 3)],
        [event("b", 1), event("b", 1)],
    ],
)
def test_bulk_refuses_a_taken_version_and_a_gap_wholly(recorder: Recorder, second: list[StoredEvent]) -> None:
    recorder.append_bulk([event("a", 1)])
    with pytest.raises(VersionConflict):
        recorder.append_bulk([event("z", 1), *second])
    assert [e.stream_id for e in recorder.read_after(0)] == [stream("a")]


def test_bulk_refuses_a_taken_identity_wholly(recorder: Recorder) -> None:
    recorder.append_bulk([event("a", 1, "x")])
    with pytest.raises(IdentityConflict):
        recorder.append_bulk([event("b", 1, "y"), event("b", 2, "x")])
    assert recorder.known_identities([stream("x"), stream("y")]) == {stream("x")}


def within(recorder: Recorder, connection: Connection, ends: BaseException | None) -> None:
    """Appends in both ways within a transaction that notes something beside, and ends well or with an error."""
    with connection.transaction(), recorder.within(connection):
        connection.execute("insert into beside values (1)")
        appended = recorder.append_items([Append(stream("a"), (event("a", 1),), Command("k", b"1"))])
        assert isinstance(appended[0], Appended)
        with recorder.within(connection):
            recorder.append_bulk([event("a", 2, "x")])
        recorder.append_bulk([event("a", 3)])
        if ends is not None:
            raise ends


@pytest.fixture
def beside(recorder: Recorder, postgres_url: str) -> Iterator[Connection]:
    """A connection of its own that may append, with a table for the time of its session."""
    role = recorder.connection().execute("select current_user").fetchone()
    with connect(postgres_url, role=role and role[0]) as connection:
        connection.execute("create temporary table beside (number int)")
        yield connection


def test_what_is_appended_within_a_transaction_is_stored_with_it_or_not_at_all(
    recorder: Recorder, beside: Connection
) -> None:
    for ends in (ZeroDivisionError(), None):
        if ends is not None:
            with pytest.raises(ZeroDivisionError):
                within(recorder, beside, ends)
            assert recorder.read_after(0) == []
        else:
            within(recorder, beside, None)
        noted = beside.execute("select count(*) from beside").fetchone()
        assert noted == (0 if ends is not None else 1,)
    stored = [(e.version, e.identity) for e in recorder.read_after(0)]
    assert stored == [(1, None), (2, stream("x")), (3, None)]
    assert recorder.append_bulk([event("a", 4)])
    assert recorder.commands(["k"])["k"].event_count == 1


def test_what_is_appended_within_a_transaction_that_was_lost_is_not_stored_over_another_connection(
    recorder: Recorder, beside: Connection
) -> None:
    for append in (
        lambda: recorder.append_bulk([event("a", 1)]),
        lambda: recorder.append_items([Append(stream("a"), (event("a", 1),))]),
    ):
        with recorder.within(beside):
            beside.close()
            with pytest.raises(StoreUnavailable):
                append()
        assert recorder.read_after(0) == []


def test_items_fail_alone(recorder: Recorder) -> None:
    recorder.append_bulk([event("a", 1), event("b", 1, "x")])
    recorder.append_items([Append(stream("e"), (event("e", 1),), Command("k-old", b"f"))])
    results = recorder.append_items(
        [
            Append(stream("a"), (event("a", 2), event("a", 3)), Command("k1", b"1")),
            Append(stream("b"), (event("b", 3),)),
            Append(stream("c"), (event("c", 1, "x"),), Command("k2", b"2")),
            Append(stream("d"), (), Command("k3", b"3")),
            Append(stream("e"), (event("e", 2),), Command("k-old", b"other")),
            Append(stream("f"), (event("f", 1, "y"),)),
        ]
    )
    appended, version, identity, nothing, seen, last = results
    assert isinstance(appended, Appended)
    assert len(appended.positions) == 2
    assert isinstance(version, VersionConflict)
    assert version.actual == 1
    assert isinstance(identity, IdentityConflict)
    assert nothing == Appended(())
    assert seen == CommandSeen("k-old", b"f", stream("e"), 1, 1)
    assert isinstance(last, Appended)
    assert appended.positions[-1] < last.positions[0]
    assert recorder.read_after(last.positions[0] - 1)[0].stream_id == stream("f")
    assert recorder.commands(["k1", "k2", "k3"]) == {
        "k1": CommandSeen("k1", b"1", stream("a"), 3, 2),
        "k3": CommandSeen("k3", b"3", stream("d"), 0, 0),
    }


async def test_single_appends_share_transactions(store: EventStore) -> None:
    items = [Append(stream(f"s{n}"), (event(f"s{n}", 1),), Command(f"k{n}", b"")) for n in range(300)]
    results = await asyncio.gather(*[store.append([item]) for item in items])
    positions = [result.positions[0] for [result] in results if isinstance(result, Appended)]
    assert len(set(positions)) == 300
    read = await store.read_after(0)
    assert {e.stream_id: e.position for e in read} == dict(
        zip((item.stream_id for item in items), positions, strict=True)
    )
    with psycopg.connect(store._url) as connection:
        row = connection.execute(f"select count(distinct xmin::text) from {store.schema}.events").fetchone()
    assert row is not None
    assert row[0] < 30


async def test_appends_to_one_stream_keep_their_order(store: EventStore) -> None:
    items = [Append(stream("s"), (event("s", n),)) for n in range(1, 51)]
    results = await store.append(items)
    assert all(isinstance(result, Appended) for result in results)
    assert [e.version for e in await store.read_stream(stream("s"))] == list(range(1, 51))


async def test_the_events_of_some_names_are_found_in_a_stream_of_many_pages(store: EventStore) -> None:
    named = {1: "begun", STREAM_READ_AT_ONCE: "ended", STREAM_READ_AT_ONCE + 1: "begun"}
    last = 2 * STREAM_READ_AT_ONCE
    await store.append_bulk(
        [
            StoredEvent(stream("s"), version, named.get(version, "noted"), b"{}", None)
            for version in range(1, last + 1)
        ]
    )

    async def found(*names: str, after: int = 0) -> list[int]:
        return [one.version async for one in store.read_named(stream("s"), names, after)]

    assert await found("begun", "ended") == [*named]
    assert await found("begun", after=1) == [STREAM_READ_AT_ONCE + 1]
    assert (await found("noted"))[-1] == last
    assert await found("begun", after=last) == await found("other") == []
    assert [one async for one in store.read_named(stream("other"), ["noted"])] == []


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
async def test_events_of_some_names_are_read_stream_by_stream_up_to_a_position(
    store: EventStore, at_once: int
) -> None:
    streams = sorted(map(stream, "abc"))
    wanted = [
        StoredEvent(streams[at], version, name, b"{}", None)
        for version, name in ((1, "begun"), (2, "noted"), (3, "ended"))
        for at in (2, 0, 1)
    ]
    positions = await store.append_bulk(wanted)
    await store.append_bulk([StoredEvent(streams[0], 4, "begun", b"{}", None)])
    found, after = list[tuple[UUID, int]](), (UUID(int=0), 0)
    while page := await store.read_by_stream(["ended", "begun"], positions[-1], after, at_once):
        assert len(page) <= at_once
        after = page[-1].stream_id, page[-1].version
        found += [(one.stream_id, one.version) for one in page]
    assert found == [(one, version) for one in streams for version in (1, 3)]
    assert await store.read_by_stream(["other"], positions[-1]) == []
    assert await store.read_by_stream(["begun"], 0) == []


async def test_one_command_key_sent_by_many_is_stored_once(store: EventStore) -> None:
    items = [Append(stream("s"), (event("s", 1),), Command("once", b"f")) for _ in range(20)]
    results = await asyncio.gather(*[store.append([item]) for item in items])
    kinds = [type(result) for [result] in results]
    assert kinds.count(Appended) == 1
    assert kinds.count(CommandSeen) == 19


def test_preparing_again_changes_nothing(postgres_url: str, schema: str, recorder: Recorder) -> None:
    recorder.append_bulk([event("a", 1)])
    prepare(postgres_url, schema)
    assert len(recorder.read_after(0)) == 1
    assert recorder.append_bulk([event("a", 2)])


def test_a_bulk_over_a_connection_that_is_gone_says_so_and_the_next_one_is_stored(
    recorder: Recorder, postgres_url: str
) -> None:
    recorder.append_bulk([event("a", 1)])
    pid = recorder.connection().info.backend_pid
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    with pytest.raises(StoreUnavailable):
        recorder.append_bulk([event("a", 2)])
    recorder.append_bulk([event("a", 2)])
    assert [each.version for each in recorder.read_stream(stream("a"))] == [1, 2]


def test_a_bulk_that_waits_too_long_for_its_turn_says_so(
    recorder: Recorder, postgres_url: str, schema: str
) -> None:
    recorder.connection().execute("set lock_timeout = '50ms'")
    with psycopg.connect(postgres_url) as other:
        other.execute("select pg_advisory_xact_lock(%s)", (lock_key(schema),))
        with pytest.raises(StoreUnavailable):
            recorder.append_bulk([event("a", 1)])
    recorder.append_bulk([event("a", 1)])
