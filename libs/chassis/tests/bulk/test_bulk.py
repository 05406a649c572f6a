"""Bulk runs over a real store: a result for each item, each once, with pauses, crashes and two runners."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import msgspec
import psycopg
import pytest
from chassis.bulk import (
    BULK_RUNS,
    Approval,
    Bulk,
    Bulkable,
    BulkNotFinished,
    BulkNotReady,
    BulkOversized,
    BulkUnknown,
    Preview,
    following,
    starts,
)
from chassis.bulk.deciding import ITEMS_MAX, BulkListed, BulkOpened, List, Run, decide, evolve
from chassis.bulk.running import TRIES_MAX
from chassis.clock import SystemClock
from chassis.privacy.keys import KeyRing
from chassis.proposals import PROPOSALS, FourEyes
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, CommandKeyReused, Outcome, TooManyConflicts
from chassis.write.events import StoredEvent
from chassis.write.handling import CommandHandler
from chassis.write.store import Append, Command, EventStore
from chassis.write.store.recorder import READ_EVENTS_MAX

from tests.support.jars import (
    JAR,
    NAMESPACE,
    EmptyJar,
    FillJar,
    Jar,
    JarCommand,
    JarEmptied,
    JarEvent,
    JarFilled,
    JarNotOpened,
    JarOpened,
    OpenJar,
    jar,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CATALOGUE = Catalogue(
    store="jars",
    entries={
        "jar-opened": JarOpened,
        "jar-filled": JarFilled,
        "jar-emptied": JarEmptied,
        **BULK_RUNS,
        **PROPOSALS,
    },
)


class Fill(msgspec.Struct, frozen=True):
    """Fills a jar; empties it where there is nothing to fill in."""

    amount: int


class Crash(BaseException):
    """The process is gone."""


class Side:
    """One process: its store, its handler and its bulk runs."""

    def __init__(
        self,
        store: EventStore,
        ring: KeyRing,
        reached: Callable[[str], None] = lambda _: None,
        at_once: int = 3,
        approval: Approval | None = None,
    ) -> None:
        self.store = store
        self.jars = CommandHandler[JarCommand, Jar, JarEvent](JAR, store, CATALOGUE, ring)
        self.carried = 0
        self.crash_after: int | None = None
        self.overtaken_by: CommandHandler[JarCommand, Jar, JarEvent] | None = None
        self.overtaken = 0
        self.refuses = False
        self.undone_to = list[int]()
        kind = Bulkable(Fill, self._fill, self._previewed, self.jars.read, self._undo, approval)
        self.bulk = Bulk(
            store,
            CATALOGUE,
            ring,
            {"fill": kind},
            SystemClock(),
            items_at_once=at_once,
            runs_read=2,
            reached=reached,
        )
        self.eyes = FourEyes(store, CATALOGUE, ring, starts(self.bulk), reached=reached)

    async def _fill(self, subject: UUID, command: Fill, context: CommandContext) -> Outcome[JarEvent]:
        if command.amount == 13:
            raise ValueError("a fault of ours")
        if self.refuses:
            raise JarNotOpened
        if self.overtaken_by is not None and self.overtaken < TRIES_MAX:
            self.overtaken += 1
            await self.overtaken_by.handle(subject, _of(command), context)
            raise TooManyConflicts
        outcome = await self.jars.handle(subject, _of(command), context)
        self.carried += 1
        if self.crash_after is not None and self.carried >= self.crash_after:
            raise Crash
        return outcome

    async def _previewed(self, subject: UUID, command: Fill) -> bool:
        return bool(JAR.decide(_of(command), (await self.jars.load(subject)).state))

    async def _undo(
        self, subject: UUID, command: Fill, before: int, version: int, context: CommandContext
    ) -> Outcome[JarEvent]:
        self.undone_to.append(before)
        return await self.jars.handle(subject, FillJar(-command.amount), context, expected_version=version)

    async def open(self, *names: str) -> None:
        for name in names:
            await self.jars.handle(jar(name), OpenJar("Li Wei"), by(f"open {name}"))

    async def prepared(self, names: Iterable[str], amount: int = 3, key: str = "run") -> UUID:
        shown = await self.bulk.prepare("fill", Fill(amount), several(names), by(key))
        return shown.run_id

    async def done(self, names: Iterable[str], amount: int = 3, key: str = "run") -> UUID:
        run = await self.prepared(names, amount, key)
        await self.bulk.start(run, by(f"start {key}"))
        assert await self.bulk.run(run) == "finished"
        return run

    async def amounts(self, *names: str) -> list[int]:
        for name in names:
            self.jars.forget(jar(name))
        return [(await self.jars.load(jar(name))).state.amount for name in names]

    async def results(self, run: UUID) -> list[str]:
        return [one.result for one in await self.bulk.results(run)]


def _of(command: Fill) -> JarCommand:
    return FillJar(command.amount) if command.amount else EmptyJar()


def by(key: str, **changes: Any) -> CommandContext:
    said = CommandContext(
        actor="anna",
        now=NOW,
        command_id=uuid5(NAMESPACE, key),
        idempotency_key=key.replace(" ", "-"),
        reason="moved",
    )
    return msgspec.structs.replace(said, **changes)


async def several(names: Iterable[str]) -> AsyncIterator[UUID]:
    for name in names:
        yield jar(name)


@pytest.fixture
def side(store: EventStore, key_ring: KeyRing) -> Side:
    return Side(store, key_ring)


async def test_a_run_makes_no_key_of_its_own(side: Side, key_ring: KeyRing) -> None:
    await side.open("a", "b")
    run = await side.done(["a", "b"])
    assert set(key_ring.keys_for([run, jar("a"), jar("b")], create=False)) == {jar("a"), jar("b")}


@pytest.fixture
async def other(postgres_url: str, schema: str, key_ring: KeyRing) -> AsyncIterator[Side]:
    store = EventStore(postgres_url, schema)
    yield Side(store, key_ring)
    await store.close()


ALL = [f"j{number}" for number in range(8)]


@pytest.mark.requirement("M33")
async def test_each_item_has_a_result_and_the_preview_says_it_before(side: Side) -> None:
    await side.open("a", "b", "c")
    run = await side.prepared(["a", "never opened", "b", "c", "a"])
    assert await side.bulk.preview(run) == Preview(5, 4, 0, {"jar-not-opened": 1})
    assert await side.bulk.preview(run, 1) == Preview(1, 1, 0, {})
    assert await side.amounts("a", "b") == [0, 0]
    await side.bulk.start(run, by("start", actor="boris", reason="it is time"))
    assert await side.bulk.run(run) == "finished"
    shown = await side.bulk.shown(run)
    assert (shown.items, shown.settled, shown.done, shown.unchanged, shown.refused) == (5, 5, 4, 0, 1)
    assert await side.bulk.results(run) == [
        (0, jar("a"), "done", 2),
        (1, jar("never opened"), "jar-not-opened", None),
        (2, jar("b"), "done", 2),
        (3, jar("c"), "done", 2),
        (4, jar("a"), "done", 2),
    ]
    assert [one.number for one in await side.bulk.results(run, after=1, limit=2)] == [2, 3]
    assert await side.bulk.items(run, 2, 9) == [jar("c"), jar("a")]
    assert [await side.bulk.items(run, after) for after in (4, 2**70, -(2**70))] == [[], [], []]
    assert await side.amounts("a", "b", "c") == [3, 3, 3], "what is listed twice is done once"
    meta = CATALOGUE.metadata_of((await side.store.read_stream(jar("a")))[-1])
    assert (meta.actor, meta.reason, meta.correlation_id) == ("boris", "it is time", run)


async def test_an_item_with_nothing_to_do_and_one_that_breaks_stop_no_other(side: Side) -> None:
    await side.open(*ALL)
    assert await side.results(await side.done(ALL, 0)) == ["unchanged"] * 8
    assert await side.results(await side.done(ALL, 13, "broken")) == ["item-failed"] * 8


@pytest.mark.requirement("M33")
async def test_a_paused_run_goes_on_where_it_stopped(
    side: Side, store: EventStore, key_ring: KeyRing
) -> None:
    await side.open(*ALL)
    run = await side.prepared(ALL)
    begun = asyncio.Event()

    def reached(_: str) -> None:
        begun.set()

    pausing = Side(store, key_ring, reached)
    await side.bulk.start(run, by("start"))

    async def pause() -> None:
        await begun.wait()
        await side.bulk.pause(run, by("pause"))

    status, _ = await asyncio.gather(pausing.bulk.run(run), pause())
    shown = await side.bulk.shown(run)
    assert (status, shown.status) in {("paused", "paused"), ("finished", "finished")}
    assert await side.bulk.run(run) == status, "nothing is done while it is paused"
    assert sum(await side.amounts(*ALL)) == 3 * shown.done
    await side.bulk.start(run, by("resume"))
    assert await side.bulk.run(run) == "finished"
    assert await side.amounts(*ALL) == [3] * 8
    assert await side.results(run) == ["done"] * 8


@pytest.mark.requirement("R024", "M33")
@pytest.mark.parametrize("crash_after", [1, 2, 5])
async def test_after_a_crash_no_item_is_done_twice(
    side: Side, store: EventStore, key_ring: KeyRing, crash_after: int
) -> None:
    await side.open(*ALL)
    run = await side.prepared([*ALL, "never opened"])
    await side.bulk.start(run, by("start"))
    dying = Side(store, key_ring)
    dying.crash_after = crash_after
    with pytest.raises(Crash):
        await dying.bulk.run(run)
    assert sum(await side.amounts(*ALL)) >= 3
    assert await side.bulk.run(run) == "finished"
    assert await side.amounts(*ALL) == [3] * 8
    assert await side.results(run) == ["done"] * 8 + ["jar-not-opened"]


@pytest.mark.parametrize("point", ["before-chunk", "before-advance"])
async def test_a_crash_before_results_are_stated_loses_none(
    side: Side, store: EventStore, key_ring: KeyRing, point: str
) -> None:
    def reached(name: str) -> None:
        if name == point:
            raise Crash

    await side.open("a")
    run = await side.prepared(["a", "never opened"])
    await side.bulk.start(run, by("start"))
    with pytest.raises(Crash):
        await Side(store, key_ring, reached).bulk.run(run)
    if point == "before-advance":
        await side.open("never opened")
    assert await side.bulk.run(run) == "finished"
    assert await side.results(run) == ["done", "jar-not-opened"], "an item that was refused stays refused"
    assert await side.amounts("a") == [3]


@pytest.mark.parametrize(("amount", "result"), [(3, "done"), (0, "unchanged")])
async def test_what_was_settled_before_a_crash_stays_so_where_it_would_be_refused_now(
    side: Side, store: EventStore, key_ring: KeyRing, amount: int, result: str
) -> None:
    """What a command is looked up from may have changed meanwhile. The run waited for ever."""

    def reached(name: str) -> None:
        if name == "before-advance":
            raise Crash

    await side.open("a")
    run = await side.prepared(["a"], amount)
    await side.bulk.start(run, by("start", now=SystemClock().now()))
    with pytest.raises(Crash):
        await Side(store, key_ring, reached).bulk.run(run)
    side.refuses = True
    assert await side.bulk.run(run) == "finished"
    assert await side.results(run) == [result]
    assert await side.amounts("a") == [amount]


async def test_two_runners_at_once_do_each_item_once_and_agree(side: Side, other: Side) -> None:
    await side.open(*ALL)
    run = await side.prepared([*ALL, "never opened"])
    await side.bulk.start(run, by("start"))
    assert await asyncio.gather(*(one.bulk.run(run) for one in (side, other, side))) == ["finished"] * 3
    assert await side.amounts(*ALL) == [3] * 8
    assert await side.results(run) == await other.results(run) == ["done"] * 8 + ["jar-not-opened"]
    names = [one.name for one in await side.store.read_stream(run)]
    assert names.count("bulk-finished") == 1


async def test_an_item_that_another_runner_did_is_stated_as_done(side: Side, other: Side) -> None:
    await side.open("a")
    run = await side.prepared(["a"])
    await side.bulk.start(run, by("start"))
    side.overtaken_by = other.jars
    with pytest.raises(TooManyConflicts):
        await side.bulk.run(run)
    assert await side.bulk.run(run) == "finished"
    assert await side.results(run) == ["done"]
    assert await side.amounts("a") == [3]


async def test_every_started_run_has_its_turn_whatever_others_do(side: Side) -> None:
    await side.open(*ALL)
    paused = [await side.prepared(["a"], key=f"paused-{number}") for number in range(5)]
    for number, run in enumerate(paused):
        await side.bulk.start(run, by(f"start-{number}"))
        await side.bulk.pause(run, by(f"pause-{number}"))
    long, short = await side.prepared(ALL * 40, key="long"), await side.prepared(ALL, key="short")
    await side.bulk.start(long, by("start-long"))
    ended = list[str]()
    async with following(side.bulk, SystemClock(), look_seconds=0.01), asyncio.timeout(60):
        await side.bulk.start(short, by("start-short"))
        while len(ended) < 2:
            await asyncio.sleep(0.01)
            for name, run in (("short", short), ("long", long)):
                if name not in ended and (await side.bulk.shown(run)).status == "finished":
                    ended.append(name)
        assert ended == ["short", "long"]
        assert await side.bulk.started() == [], "what is paused is not looked at again"
        await side.bulk.start(paused[3], by("resume"))
        while (await side.bulk.shown(paused[3])).status != "finished":  # noqa: ASYNC110 (the store says it)
            await asyncio.sleep(0.01)


@pytest.mark.requirement("M33")
async def test_undo_takes_back_what_was_done_and_not_changed_since(side: Side) -> None:
    await side.open("a", "b", "c")
    run = await side.done(["a", "never opened", "b", "c"])
    await side.jars.handle(jar("b"), FillJar(10), by("since"))
    undo = await side.bulk.prepare_undo(run, by("undo"))
    assert (undo.items, undo.undoes, undo.status) == (3, run, "ready")
    assert await side.bulk.preview(undo.run_id) == Preview(3, 2, 0, {"version-mismatch": 1})
    await side.bulk.start(undo.run_id, by("start undo"))
    assert await side.bulk.run(undo.run_id) == "finished"
    assert await side.results(undo.run_id) == ["done", "version-mismatch", "done"]
    assert await side.amounts("a", "b", "c") == [0, 13, 0]
    with pytest.raises(BulkNotFinished):
        await side.bulk.prepare_undo(undo.run_id, by("undo the undo"))
    waiting = await side.prepared(["a"], key="waiting")
    with pytest.raises(BulkNotFinished):
        await side.bulk.prepare_undo(waiting, by("undo too early"))


async def test_undo_takes_back_what_was_done_to_a_subject_with_more_events_than_one_page(side: Side) -> None:
    await side.open("a")
    of_it, head, metadata = jar("a"), 1, by("before").metadata()
    while head < READ_EVENTS_MAX:
        events = tuple(
            StoredEvent(
                of_it,
                version,
                "jar-filled",
                CATALOGUE.encode(JarFilled(0), metadata, stream_id=of_it, version=version, key=None),
            )
            for version in range(head + 1, head + 1_001)
        )
        await side.store.append_one(Append(of_it, events, Command(f"before {head}", b"before"), head))
        head = events[-1].version
    side.jars.forget(of_it)
    undo = await side.bulk.prepare_undo(await side.done(["a"]), by("undo"))
    await side.bulk.start(undo.run_id, by("start undo"))
    assert await side.bulk.run(undo.run_id) == "finished"
    assert await side.results(undo.run_id) == ["done"]
    assert side.undone_to == [head]
    assert await side.amounts("a") == [0]


async def test_a_list_is_made_once_and_anew_after_a_crash(side: Side) -> None:
    async def cut_off() -> AsyncIterator[UUID]:
        yield jar("a")
        raise Crash

    with pytest.raises(Crash):
        await side.bulk.prepare("fill", Fill(3), cut_off(), by("run"))
    run = await side.prepared(["a", "b"])
    with pytest.raises(BulkNotReady):
        await _start_of_cut_off(side)
    assert await side.prepared(["a", "b"]) == run
    assert (await side.bulk.shown(run)).items == 2
    assert await side.bulk.prepared("fill", by("run")) == Fill(3)
    assert await side.bulk.prepared("empty", by("run")) is None
    assert await side.bulk.prepared("fill", by("another")) is None
    with pytest.raises(CommandKeyReused):
        await side.prepared(["a", "b"], amount=4)
    with pytest.raises(BulkUnknown):
        await side.bulk.shown(jar("no run"))


async def _start_of_cut_off(side: Side) -> None:
    async def cut_off() -> AsyncIterator[UUID]:
        yield jar("a")
        raise Crash

    with suppress(Crash):
        await side.bulk.prepare("fill", Fill(3), cut_off(), by("cut off"))
    listing = [one for one in await side.store.read_after(0) if one.name == "bulk-opened"][-1].stream_id
    await side.bulk.start(listing, by("start cut off"))


async def test_a_run_of_no_items_is_finished_when_it_is_started_and_too_many_are_refused(side: Side) -> None:
    run = await side.done([])
    assert (await side.bulk.shown(run)).done == 0
    with pytest.raises(BulkOversized):
        decide(List(jar("l"), ITEMS_MAX, (jar("a"),)), Run("listing", listing=jar("l"), items=ITEMS_MAX))


async def test_what_was_done_and_whose_commands_are_forgotten_is_not_done_again(
    side: Side, store: EventStore, key_ring: KeyRing, postgres_url: str, schema: str
) -> None:
    await side.open("a", "b")
    run = await side.prepared(["a", "b"])
    await side.bulk.start(run, by("start"))
    dying = Side(store, key_ring)
    dying.crash_after = 1
    with pytest.raises(Crash):
        await dying.bulk.run(run)
    with psycopg.connect(postgres_url) as connection:
        table = f"{schema}.commands"
        connection.execute(f"alter table {table} disable trigger user")
        connection.execute(f"delete from {table}")
        connection.execute(f"alter table {table} enable always trigger refuse_change")
    assert await side.bulk.run(run) == "finished"
    assert await side.amounts("a", "b") == [3, 3]
    assert await side.results(run) == ["done", "done"]


async def test_results_and_items_are_read_from_any_number_on(side: Side) -> None:
    await side.open(*ALL)
    run = await side.done(ALL)
    for after in range(-1, 8):
        found = await side.bulk.results(run, after, 2)
        wanted = range(after + 1, min(after + 3, 8))
        assert [(one.number, one.subject) for one in found] == [(at, jar(ALL[at])) for at in wanted]


async def test_a_run_that_was_never_started_is_not_resumed(side: Side) -> None:
    run = await side.prepared(["a"])
    with pytest.raises(BulkNotReady, match="ready"):
        await side.bulk.resume(run, by("resume"))


def test_who_began_a_list_that_was_begun_anew_cannot_go_on_with_it() -> None:
    first, second = jar("first"), jar("second")
    run = evolve(evolve(Run(), BulkOpened("fill", "{}", first)), BulkOpened("fill", "{}", second))
    with pytest.raises(BulkNotReady):
        decide(List(first, 0, (jar("a"),)), run)
    assert decide(List(second, 0, (jar("a"),)), run) == [BulkListed((jar("a"),))]


async def test_each_item_is_done_for_whom_the_run_was_started(side: Side) -> None:
    await side.open("a")
    run = await side.prepared(["a"])
    await side.bulk.start(run, by("start", on_behalf_of="boris", post="branch-7"))
    await side.bulk.run(run)
    meta = CATALOGUE.metadata_of((await side.store.read_stream(jar("a")))[-1])
    assert (meta.on_behalf_of, meta.post, meta.correlation_id) == ("boris", "branch-7", run)


async def test_the_digest_of_an_undo_names_the_versions_that_it_expects(side: Side) -> None:
    await side.open("a")
    digests = set()
    for number in range(2):
        run = await side.done(["a"], key=f"run{number}")
        undo = (await side.bulk.prepare_undo(run, by(f"undo{number}"))).run_id
        digests.add((await side.bulk.contents(undo)).items_digest)
    assert len(digests) == 2
