"""Commands over a real store: repeated, concurrent, late, and after somebody else's write."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid5

import msgspec
import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.privacy.key_encryption import FileKeyEncryption
from chassis.privacy.keys import ERASED, KeyRing
from chassis.write.catalogue import NewEvent
from chassis.write.deciding import (
    AlreadyRecorded,
    CommandKeyReused,
    Decider,
    EventOversized,
    Refusal,
    SubjectUnknown,
    TooManyConflicts,
    VersionMismatch,
)
from chassis.write.events import StoredEvent
from chassis.write.handling import COMMAND_BYTES_MAX, CommandHandler, fingerprint
from chassis.write.snapshots import Snapshots
from chassis.write.store import Append, Command, EventStore, Recorder
from chassis.write.store.recorder import READ_EVENTS_MAX
from msgspec import structs
from typing_extensions import override

from tests.support.jars import (
    JAR,
    NAMESPACE,
    EmptyJar,
    FillJar,
    Jar,
    JarAlreadyOpened,
    JarCommand,
    JarEvent,
    JarFilled,
    JarNotOpened,
    JarOpened,
    OpenJar,
    catalogue,
    context,
    evolve,
    jar,
    metadata,
)

Handler = CommandHandler[JarCommand, Jar, JarEvent]
A = jar("a")


@pytest.fixture
def handler(store: EventStore, key_ring: KeyRing) -> Handler:
    return CommandHandler(JAR, store, catalogue(), key_ring)


@pytest.fixture
async def other(postgres_url: str, schema: str, key_ring: KeyRing) -> AsyncIterator[Handler]:
    """A handler of another process, as far as the store can tell."""
    store = EventStore(postgres_url, schema)
    yield CommandHandler(JAR, store, catalogue(), key_ring)
    await store.close()


@pytest.mark.requirement("R091")
async def test_events_are_stored_with_their_context(
    handler: Handler, store: EventStore, key_ring: KeyRing
) -> None:
    outcome = await handler.handle(A, OpenJar("Li Wei", "n"), context("1"))
    [stored] = await store.read_stream(A)
    assert (outcome.version, outcome.position) == (1, stored.position)
    assert outcome.events == (JarOpened("Li Wei", "n", "bean"),)
    recorded = catalogue().open(stored, key_ring.cached(A))
    assert recorded.event == outcome.events[0]
    assert recorded.metadata == context("1").metadata()


async def test_the_same_command_again_gives_the_same_outcome(handler: Handler, other: Handler) -> None:
    command, said = OpenJar("Li Wei"), context("1", idempotency_key="k")
    first = await handler.handle(A, command, said)
    await handler.handle(A, FillJar(3), context("2"))
    for again in (handler, other):
        repeated = await again.handle(A, command, said, expected_version=0)
        assert (repeated.version, repeated.position, repeated.events) == (1, first.position, first.events)
        assert repeated.replayed
    assert (await handler.load(A)).version == 2


async def test_a_command_without_events_is_remembered(handler: Handler) -> None:
    await handler.handle(A, OpenJar("Li Wei"), context("1"))
    nothing = await handler.handle(A, EmptyJar(), context("2", idempotency_key="e"))
    assert (nothing.version, nothing.events) == (1, ())
    await handler.handle(A, FillJar(3), context("3"))
    repeated = await handler.handle(A, EmptyJar(), context("2", idempotency_key="e"))
    assert (repeated.version, repeated.events, repeated.replayed) == (1, (), True)
    assert repeated.position == nothing.position
    assert (await handler.load(A)).state.amount == 3


async def test_the_same_key_with_another_command_is_refused(handler: Handler) -> None:
    said = context("1", idempotency_key="k")
    await handler.handle(A, OpenJar("Li Wei"), said)
    for stream, command in ((A, OpenJar("Wang Fang")), (A, FillJar(1)), (jar("b"), OpenJar("Li Wei"))):
        with pytest.raises(CommandKeyReused):
            await handler.handle(stream, command, said)
    assert (await handler.load(jar("b"))).version == 0


@pytest.mark.parametrize(
    "why",
    [
        {"reason": "other"},
        {"reason": None},
        {"on_behalf_of": "li"},
        {"reason": None, "on_behalf_of": "it is so"},
    ],
)
@pytest.mark.parametrize("command", [OpenJar("Li Wei"), EmptyJar()])
async def test_the_same_key_with_another_reason_or_for_another_person_is_refused(
    handler: Handler, other: Handler, command: Any, why: dict[str, str | None]
) -> None:
    if isinstance(command, EmptyJar):
        await handler.handle(A, OpenJar("Li Wei"), context("1"))
    said = structs.replace(context("2", idempotency_key="k"), reason="it is so")
    first = await handler.handle(A, command, said)
    for again in (handler, other):
        with pytest.raises(CommandKeyReused):
            await again.handle(A, command, structs.replace(said, **why))
        repeated = await again.handle(A, command, structs.replace(said, post="elsewhere", client_address="x"))
        assert (repeated.version, repeated.replayed) == (first.version, True)


@pytest.mark.parametrize("command", [OpenJar("Li Wei"), EmptyJar()])
async def test_the_same_key_with_another_effective_time_is_refused(
    handler: Handler, other: Handler, command: Any
) -> None:
    if isinstance(command, EmptyJar):
        await handler.handle(A, OpenJar("Li Wei"), context("1"))
    at = context("2").now - timedelta(days=3)
    said = structs.replace(context("2", idempotency_key="k"), effective_at=at)
    first = await handler.handle(A, command, said)
    elsewhere = at.astimezone(timezone(timedelta(hours=8)))
    for again in (handler, other):
        for effective_at in (at + timedelta(microseconds=1), None):
            with pytest.raises(CommandKeyReused):
                await again.handle(A, command, structs.replace(said, effective_at=effective_at))
        later = structs.replace(said, effective_at=elsewhere, now=said.now + timedelta(days=1))
        repeated = await again.handle(A, command, later)
        assert (repeated.version, repeated.replayed) == (first.version, True)


def test_the_effective_time_of_a_command_whose_key_nobody_names_is_not_compared() -> None:
    """An earlier version stored the outcome of a policy or a timer without it; when its event comes again, it is the same."""
    said = structs.replace(context("1"), effective_at=context("1").now)
    bare = structs.replace(said, effective_at=None)
    assert fingerprint(A, OpenJar("Li Wei"), said, None) == fingerprint(A, OpenJar("Li Wei"), bare, None)


@pytest.mark.parametrize("with_reason", [False, True])
async def test_a_key_that_an_earlier_version_stored_without_all_of_it_stands_for_what_its_events_say(
    handler: Handler, store: EventStore, key_ring: KeyRing, with_reason: bool
) -> None:
    now = context("1").now
    said = structs.replace(
        context("1", idempotency_key="k"),
        reason="it is so",
        on_behalf_of="li",
        effective_at=now - timedelta(days=1),
    )
    undated, key = structs.replace(said, effective_at=None), key_ring.keys_for([A])[A]
    bare = undated if with_reason else structs.replace(undated, reason=None, on_behalf_of=None)
    event, encode = JarOpened("Li Wei", None, "bean"), catalogue().encode
    body = encode(event, said.metadata(), stream_id=A, version=1, key=key)
    stored = StoredEvent(A, 1, catalogue().name_of(event), body, None)
    nothing = Command("nothing", fingerprint(A, EmptyJar(), bare, key))
    for events, command in (
        ((stored,), Command(said.key, fingerprint(A, OpenJar("Li Wei"), bare, key))),
        ((), structs.replace(nothing, key=structs.replace(said, idempotency_key="e").key)),
    ):
        await store.append_one(Append(A, events, command, len(events) ^ 1))
    repeated = await handler.handle(A, OpenJar("Li Wei"), said)
    assert (repeated.version, repeated.events, repeated.replayed) == (1, (event,), True)
    for other_command, why in (
        (OpenJar("Li Wei"), {"reason": "other"}),
        (OpenJar("Li Wei"), {"on_behalf_of": None}),
        (OpenJar("Li Wei"), {"effective_at": now - timedelta(days=2)}),
        (OpenJar("Wang Fang"), {}),
        (EmptyJar(), {"idempotency_key": "e"}),
    ):
        with pytest.raises(CommandKeyReused):
            await handler.handle(A, other_command, structs.replace(said, **why))


async def test_a_refused_command_may_succeed_later_under_its_key(handler: Handler) -> None:
    with pytest.raises(JarNotOpened):
        await handler.handle(A, FillJar(1), context("1", idempotency_key="k"))
    await handler.handle(A, OpenJar("Li Wei"), context("2"))
    assert (await handler.handle(A, FillJar(1), context("1", idempotency_key="k"))).version == 2


async def test_the_state_at_a_version_takes_all_events_up_to_it(handler: Handler, store: EventStore) -> None:
    """More than one page of them: what a customer is told goes to where it was reached last, and not years ago."""
    count = READ_EVENTS_MAX + 2
    filled = [NewEvent(A, version, JarFilled(amount=1), metadata()) for version in range(1, count + 1)]
    await store.append_one(Append(A, tuple(catalogue().stored(filled, {}))))
    assert (await handler.state_at(A, count - 1)).amount == count - 1
    assert (await handler.state_at(A, count + 1)).amount == count
    assert (await handler.state_at(A, 0)).amount == 0


async def test_an_edit_of_another_version_is_refused(handler: Handler, other: Handler) -> None:
    await handler.handle(A, OpenJar("Li Wei"), context("1"))
    with pytest.raises(VersionMismatch) as refused:
        await handler.handle(A, FillJar(1), context("2"), expected_version=0)
    assert refused.value.actual == 1
    await other.handle(A, FillJar(1), context("3"), expected_version=1)
    with pytest.raises(VersionMismatch):
        await handler.handle(A, FillJar(1), context("4"), expected_version=1)
    assert (await handler.handle(A, FillJar(1), context("5"), expected_version=2)).version == 3


async def test_a_cached_state_that_others_overtook_is_decided_again(handler: Handler, other: Handler) -> None:
    await handler.handle(A, OpenJar("Li Wei"), context("1"))
    with pytest.raises(JarNotOpened):
        await other.handle(jar("b"), FillJar(1), context("0"))
    await handler.handle(jar("b"), OpenJar("Wang Fang"), context("2"))
    assert (await other.handle(jar("b"), FillJar(2), context("3"))).version == 2
    assert (await handler.handle(jar("b"), FillJar(3), context("4"))).version == 3
    with pytest.raises(JarAlreadyOpened):
        await handler.handle(jar("b"), OpenJar("Wang Fang"), context("5"))
    assert (await handler.load(jar("b"))).state.amount == 5


async def test_many_at_once_on_one_stream_from_two_processes_are_all_counted(
    handler: Handler, other: Handler
) -> None:
    await handler.handle(A, OpenJar("Li Wei"), context("open"))

    async def fill(through: Handler, name: str) -> None:
        while True:
            try:
                await through.handle(A, FillJar(1), context(name))
            except TooManyConflicts:
                continue
            return

    await asyncio.gather(*[fill((handler, other)[n % 2], f"f{n}") for n in range(100)])
    handler.forget(A)
    loaded = await handler.load(A)
    assert (loaded.version, loaded.state.amount) == (101, 100)


async def test_one_key_from_two_processes_at_once_happens_once(handler: Handler, other: Handler) -> None:
    await handler.handle(A, OpenJar("Li Wei"), context("open"))
    said = context("f", idempotency_key="f")
    outcomes = await asyncio.gather(
        *[through.handle(A, FillJar(1), said) for through in [handler, other] * 10]
    )
    assert {(outcome.version, outcome.position) for outcome in outcomes} == {(2, outcomes[0].position)}
    assert [outcome.replayed for outcome in outcomes].count(False) == 1


async def test_an_identity_is_recorded_once_in_the_whole_store(handler: Handler) -> None:
    ticket = uuid5(NAMESPACE, "ticket")
    for name in ("a", "b"):
        await handler.handle(jar(name), OpenJar("Li Wei"), context(f"open {name}"))
    await handler.handle(A, FillJar(1, ticket), context("1"))
    with pytest.raises(AlreadyRecorded):
        await handler.handle(jar("b"), FillJar(1, ticket), context("2"))


async def test_many_streams_are_loaded_in_few_round_trips(
    store: EventStore, key_ring: KeyRing, recorder: Recorder
) -> None:
    streams = [jar(f"many {n}") for n in range(300)]
    keys = key_ring.keys_for(streams)
    new = [NewEvent(one, 1, JarOpened("Li Wei", None, "bean"), metadata()) for one in streams]
    recorder.append_bulk(catalogue().stored(new, keys))
    calls = 0

    class Counting(EventStore):
        @override
        async def read_streams(self, after: Any) -> Any:
            nonlocal calls
            calls += 1
            return await store.read_streams(after)

    counting = Counting("", store.schema)
    handler: Handler = CommandHandler(JAR, counting, catalogue(), key_ring)
    loaded = await asyncio.gather(*[handler.load(one) for one in streams])
    await counting.close()
    assert {one.state.owner for one in loaded} == {"Li Wei"}
    assert calls <= 4


@pytest.mark.requirement("M22")
async def test_after_erasure_commands_still_work_and_nothing_personal_comes_back(
    handler: Handler, other: Handler, key_ring: KeyRing, store: EventStore
) -> None:
    await handler.handle(A, OpenJar("Li Wei"), context("1"))
    key_ring.erase([A])
    assert (await other.load(A)).state == Jar(True, 0, ERASED)
    assert (await other.handle(A, FillJar(2), context("2"))).version == 2
    assert all(b"Li Wei" not in one.body for one in await store.read_stream(A))


async def test_long_streams_get_a_snapshot_that_is_used_and_sealed(
    store: EventStore, recorder: Recorder, key_ring: KeyRing
) -> None:
    failures: list[Exception] = []

    def snapshots(state_version: int = 1) -> Snapshots[Jar]:
        return Snapshots(
            store,
            key_ring,
            kind="jar",
            decider=replace(JAR, state_version=state_version),
            failed=failures.append,
        )

    def handler(kept: Snapshots[Jar]) -> Handler:
        return CommandHandler(JAR, store, catalogue(), key_ring, snapshots=kept)

    keys = key_ring.keys_for([A])
    history: list[JarEvent] = [JarOpened("Li Wei", None, "bean"), *[JarFilled(1) for _ in range(198)]]
    recorder.append_bulk(
        catalogue().stored([NewEvent(A, n, event, metadata()) for n, event in enumerate(history, 1)], keys)
    )
    kept = snapshots()
    first = handler(kept)
    assert (await first.load(A)).version == 199
    await kept.settle()
    assert await store.snapshots([A], "jar.v1") == {}
    await first.handle(A, FillJar(1), context("200"))
    await kept.settle()
    [(version, _, body)] = (await store.snapshots([A], "jar.v1")).values()
    assert version == 200
    assert b"Li Wei" not in body
    assert not failures

    await first.handle(A, FillJar(1), context("201"))
    loaded = await handler(snapshots()).load(A)
    assert (loaded.version, loaded.state) == (201, Jar(True, 200, "Li Wei"))
    assert await snapshots().load([A], keys) != {}
    assert await snapshots(2).load([A], keys) == {}

    recorder.keep_snapshot(A, "jar.v1", 201, 1, body[:-1] + b"?")
    assert (await handler(snapshots()).load(A)).state == Jar(True, 200, "Li Wei")
    assert len(failures) == 1
    key_ring.erase([A])
    assert (await handler(snapshots()).load(A)).state == Jar(True, 200, ERASED)


FILLS = Decider[FillJar, Jar, JarFilled](
    Jar(), lambda fill, _: [JarFilled(fill.amount)], evolve, JarFilled, state_type=Jar
)
"""A decider whose events hold no personal value."""


async def test_streams_of_events_without_personal_values_get_no_keys(
    store: EventStore, key_ring: KeyRing, keys_url: str
) -> None:
    handler = CommandHandler(FILLS, store, catalogue(), key_ring)
    await handler.prepare([A])
    assert (await handler.handle(A, FillJar(1), context("1"))).version == 1
    assert (await handler.handle(A, FillJar(1), context("1"))).replayed
    handler.forget(A)
    assert (await handler.load(A)).state.amount == 1
    with psycopg.connect(keys_url) as connection:
        assert connection.execute("select subject from data_keys").fetchall() == []


async def test_a_command_that_was_carried_out_with_a_key_is_known_without_one(
    store: EventStore, key_ring: KeyRing, keys_url: str, tmp_path: Path
) -> None:
    of_before = replace(FILLS, events=JarEvent)
    assert of_before.keyed
    assert not FILLS.keyed
    before = CommandHandler(of_before, store, catalogue(), key_ring)
    ring = KeyRing.open(keys_url, FileKeyEncryption.at(tmp_path / "kek"), SystemClock().monotonic)
    after = CommandHandler(FILLS, store, catalogue(), ring)
    await before.handle(A, FillJar(1), context("1"))
    assert (await after.handle(A, FillJar(1), context("1"))).replayed
    with pytest.raises(CommandKeyReused):
        await after.handle(A, FillJar(2), context("1"))
    ring.close()


async def test_the_id_of_another_kind_is_unknown_and_harms_no_command_beside_it(
    handler: Handler, store: EventStore, key_ring: KeyRing
) -> None:
    """Streams of all kinds lie in one store, and a caller may name any of them."""
    filling: Decider[FillJar, int, JarFilled] = Decider(
        0, lambda command, _: [JarFilled(command.amount)], lambda filled, one: filled + one.amount, JarFilled
    )
    other = CommandHandler(filling, store, catalogue(), key_ring)
    await handler.handle(A, OpenJar("Wang"), context("k1"))
    b = jar("b")
    await other.read([A, b])
    refused, done = await asyncio.gather(
        other.handle(A, FillJar(1), context("k2")),
        other.handle(b, FillJar(2), context("k3")),
        return_exceptions=True,
    )
    assert isinstance(refused, SubjectUnknown)
    assert not isinstance(done, BaseException)
    with pytest.raises(SubjectUnknown):
        await other.load(A)
    with pytest.raises(SubjectUnknown):
        await other.drafted(A, FillJar(1), context("k4"))
    assert (await handler.load(A)).version == 1


async def test_an_event_that_the_decider_does_not_declare_is_not_stored(
    store: EventStore, key_ring: KeyRing
) -> None:
    opens: Any = replace(FILLS, decide=lambda *_: [JarOpened("Li Wei", None, "bean")])
    with pytest.raises(TypeError, match="JarOpened"):
        await CommandHandler(opens, store, catalogue(), key_ring).handle(A, FillJar(1), context("1"))
    assert await store.read_stream(A) == []


async def test_a_snapshot_of_a_stream_without_a_key_is_used_and_cannot_be_forged(
    store: EventStore, recorder: Recorder, key_ring: KeyRing
) -> None:
    failures: list[Exception] = []

    def snapshots() -> Snapshots[Jar]:
        return Snapshots(store, key_ring, kind="fills", decider=FILLS, every_events=2, failed=failures.append)

    kept = snapshots()
    handler = CommandHandler(FILLS, store, catalogue(), key_ring, snapshots=kept)
    for number in range(3):
        await handler.handle(A, FillJar(1), context(str(number)))
    await kept.settle()
    [(version, position, body)] = (await store.snapshots([A], "fills.v1")).values()
    [read] = (await snapshots().load([A], {})).values()
    assert (read.version, read.state.amount) == (version, version)
    for forged in (msgspec.msgpack.encode(Jar(True, 1_000)), body[:-1] + b"?"):
        recorder.keep_snapshot(A, "fills.v1", version := version + 1, position, forged)
        assert await snapshots().load([A], {}) == {}
    assert len(failures) == 1
    again = CommandHandler(FILLS, store, catalogue(), key_ring, snapshots=snapshots())
    assert (await again.load(A)).state.amount == 3


async def test_what_was_prepared_is_decided_without_another_read(
    handler: Handler, other: Handler, store: EventStore, key_ring: KeyRing
) -> None:
    jars = [jar(f"prepared {number}") for number in range(300)]
    await other.handle(jars[0], OpenJar("Li Wei"), context("0"))
    await handler.prepare([*jars, jars[0]])
    assert all(key_ring.cached(each) is not None for each in jars)
    await other.handle(jars[0], FillJar(3), context("1"))
    outcome = await handler.handle(jars[0], FillJar(4), context("2"))
    assert outcome.version == 3  # what others did since is read again
    await asyncio.gather(
        *(handler.handle(each, OpenJar("Wang"), context(f"o{at}")) for at, each in enumerate(jars[1:]))
    )
    assert len(await store.stream_heads(jars)) == 300


def test_two_actors_never_share_a_key_whatever_their_names_hold():
    names = ["a", "a|b", "1:a", "a:", ""]
    keys = {
        msgspec.structs.replace(context("x", idempotency_key=key), actor=actor).key
        for actor in names
        for key in ("c", "b|c", "a:c", ":c")
    }
    assert len(keys) == len(names) * 4


async def test_a_refused_command_leaves_no_key_behind(
    handler: Handler, keys_url: str, key_ring: KeyRing
) -> None:
    def keys() -> int:
        with psycopg.connect(keys_url) as connection:
            row = connection.execute("select count(*) from data_keys").fetchone()
        return 0 if row is None else int(row[0])

    with pytest.raises(Refusal):
        await handler.handle(jar("never opened"), FillJar(1), context("n1"))
    assert keys() == 0
    await handler.handle(jar("opened"), OpenJar("Li Wei"), context("n2", idempotency_key="same"))
    assert keys() == 1
    with pytest.raises(Refusal):  # the key of the caller was used for another subject
        await handler.handle(jar("other"), OpenJar("Wang"), context("n3", idempotency_key="same"))
    with pytest.raises(EventOversized):
        await handler.handle(jar("large"), OpenJar("x" * COMMAND_BYTES_MAX), context("n4"))
    assert keys() == 1
