"""Durable timers over a real store: set, moved and withdrawn by events, given once, late ones in order."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.connections.transient import StoreUnavailable
from chassis.privacy.keys import KeyRing
from chassis.process.leases import Lease, PostgresLease
from chassis.timers import (
    Change,
    Due,
    NotReady,
    PostgresTimers,
    SetTimer,
    Timer,
    TimerLoop,
    WithdrawTimer,
    given_by,
)
from chassis.timers.loop import TRY_AGAIN_SECONDS, WAIT_SECONDS_MAX, WAITS_MAX, Events
from chassis.timers.table import TIMERS_LEASE
from chassis.write.deciding import CommandContext
from chassis.write.events import RecordedEvent, StoredEvent
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore, Fenced
from typing_extensions import override

from tests.support.jars import (
    JAR,
    NOW,
    EmptyJar,
    FillJar,
    Jar,
    JarCommand,
    JarEmptied,
    JarEvent,
    JarFilled,
    OpenJar,
    catalogue,
    jar,
)
from tests.support.specification import ManualClock

Handler = CommandHandler[JarCommand, Jar, JarEvent]
HOUR = timedelta(hours=1)
A, B, C = jar("a"), jar("b"), jar("c")


def emptied_after(duration: timedelta) -> Callable[[RecordedEvent], Sequence[Change]]:
    """A filled jar is to be emptied so long after it was filled last."""

    def changes(recorded: RecordedEvent) -> Sequence[Change]:
        match recorded.event:
            case JarFilled(amount):
                if amount > 1_000:
                    raise ValueError("too much")
                return [SetTimer(recorded.metadata.effective_at + duration, data={"amount": str(amount)})]
            case JarEmptied():
                return [WithdrawTimer()]
            case _:
                return []

    return changes


class Bench:
    """A store with its timers, and a clock that a test moves."""

    def __init__(self, url: str, schema: str, store: EventStore, ring: KeyRing) -> None:
        self.clock = ManualClock(NOW)
        self.handler: Handler = CommandHandler(JAR, store, catalogue(), ring)
        self.store, self.url, self.schema = store, url, schema
        self.given: list[Due] = []
        give = given_by(self.handler, lambda _: EmptyJar())

        async def noted(due: Due, context: CommandContext, version: int) -> None:
            self.given.append(due)
            await give(due, context, version)

        self.timer = Timer(
            "empty-jar", 1, frozenset({"jar-filled", "jar-emptied"}), emptied_after(HOUR), noted
        )
        self.commands = 0

    async def do(self, name: UUID, command: JarCommand) -> None:
        """A command of a user, now."""
        self.commands += 1
        id = uuid5(name, f"{self.commands}")
        await self.handler.handle(
            name, command, CommandContext(actor="user", now=self.clock.now(), command_id=id)
        )

    async def filled(self, *names: UUID) -> None:
        """Opens these jars and fills them, a second apart."""
        for name in names:
            await self.do(name, OpenJar("Li"))
            await self.do(name, FillJar(1))
            self.clock.advance(1)

    @asynccontextmanager
    async def process(
        self,
        timer: Timer | None = None,
        generation: str = "1",
        events: Events | None = None,
        others: Sequence[Timer] = (),
        **limits: Any,
    ) -> AsyncIterator[Callable[[], Any]]:
        """A process that has the lease; gives what takes one turn of its loop."""
        row, table = PostgresLease(self.url, self.schema, TIMERS_LEASE), PostgresTimers(self.url, self.schema)
        lease = Lease(row, self.clock)
        loop = TimerLoop(
            "jars",
            [timer or self.timer, *others],
            events or self.store,
            catalogue().decode,
            table,
            lease,
            self.clock,
            generation=generation,
            **limits,
        )
        try:
            await loop.begin()

            async def turn() -> int:
                return await loop.turn(await lease.acquire())

            yield turn
        finally:
            await lease.release()
            await row.close()
            await table.close()

    def rows(self) -> list[tuple[Any, ...]]:
        """Subject, due time and outcome of all timers."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(
                f"select subject, due_at, outcome from {self.schema}.timers order by due_at, subject"
            ).fetchall()

    async def actors(self, name: UUID) -> list[tuple[str, str]]:
        """Who stored what on a jar."""
        return [(one.name, catalogue().metadata_of(one).actor) for one in await self.store.read_stream(name)]


@pytest.fixture
def bench(postgres_url: str, schema: str, store: EventStore, key_ring: KeyRing) -> Bench:
    return Bench(postgres_url, schema, store, key_ring)


async def test_a_command_is_given_once_when_it_is_due(bench: Bench) -> None:
    await bench.filled(A)
    async with bench.process() as turn:
        assert await turn() == 0
        bench.clock.advance(3_598)
        assert await turn() == 0  # one second too early
        bench.clock.advance(1)
        assert await turn() == 1
        assert await turn() == 0
    assert await bench.actors(A) == [
        ("jar-opened", "user"),
        ("jar-filled", "user"),
        ("jar-emptied", "timer:empty-jar"),
    ]
    [emptied] = [one for one in await bench.store.read_stream(A) if one.name == "jar-emptied"]
    meta = catalogue().metadata_of(emptied)
    assert (meta.effective_at, meta.recorded_at) == (NOW + HOUR, bench.clock.now())


class SetsTheClockBack(Events):
    """A store during whose answer the clock is set back by two hours."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    @override
    async def read_after(self, position: int, limit: int) -> list[StoredEvent]:
        return await self._bench.store.read_after(position, limit)

    @override
    async def stream_ends(self, ids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
        self._bench.clock.advance(-7_200)
        return await self._bench.store.stream_ends(ids)


async def test_a_command_has_the_time_by_which_it_was_due_also_where_the_clock_is_set_back(
    bench: Bench,
) -> None:
    await bench.filled(A)
    bench.clock.advance(3_600)
    async with bench.process(events=SetsTheClockBack(bench)) as turn:
        assert await turn() == 1
    [emptied] = [one for one in await bench.store.read_stream(A) if one.name == "jar-emptied"]
    meta = catalogue().metadata_of(emptied)
    assert meta.recorded_at >= meta.effective_at == NOW + HOUR


async def test_an_event_moves_a_timer_and_another_withdraws_it(bench: Bench) -> None:
    await bench.filled(A, B)
    async with bench.process() as turn:
        await turn()
        await bench.do(A, FillJar(1))  # moved by two seconds
        await bench.do(B, EmptyJar())  # withdrawn
        bench.clock.advance(3_599)
        assert await turn() == 0
        assert [row[:2] for row in bench.rows()] == [(A, NOW + HOUR + timedelta(seconds=2))]
        bench.clock.advance(1)
        assert await turn() == 1
    assert [due.subject for due in bench.given] == [A]


async def test_a_withdrawal_between_fold_and_command_is_heeded(bench: Bench) -> None:
    await bench.filled(A)
    bench.clock.advance(7_200)
    give = bench.timer.give

    async def overtaken(due: Due, context: CommandContext, version: int) -> None:
        if not bench.given:
            await bench.do(A, EmptyJar())
            await bench.do(A, FillJar(7))
        await give(due, context, version)

    async with bench.process(replace(bench.timer, give=overtaken)) as turn:
        assert await turn() == 1  # was due, and its subject has changed
        assert await turn() == 0  # the jar was filled anew: not due before an hour from then
    assert [name for name, actor in await bench.actors(A) if actor != "user"] == []


async def test_a_crash_between_the_command_and_its_record_repeats_nothing(
    bench: Bench, postgres_url: str, schema: str, key_ring: KeyRing
) -> None:
    await bench.filled(A)
    bench.clock.advance(7_200)
    give = bench.timer.give

    async def killed(due: Due, context: CommandContext, version: int) -> None:
        await give(due, context, version)
        await bench.handler.handle(A, FillJar(5), CommandContext(actor="u", now=NOW, command_id=A))
        raise StoreUnavailable("the answer was lost")

    changes: Callable[[RecordedEvent], Sequence[Change]] = lambda _: []  # noqa: E731
    keeps = replace(bench.timer, events=frozenset({"jar-filled"}))  # the effect withdraws nothing
    async with bench.process(replace(keeps, give=killed)) as turn:
        with pytest.raises(StoreUnavailable):
            await turn()
    other = EventStore(postgres_url, schema)
    try:
        handler: Handler = CommandHandler(JAR, other, catalogue(), key_ring)
        repeated = replace(
            bench.timer,
            events=frozenset({"jar-opened"}),
            changes=changes,
            give=given_by(handler, lambda _: EmptyJar()),
        )
        async with bench.process(repeated) as turn:
            assert await turn() == 1
            assert await turn() == 0
    finally:
        await other.close()
    assert [name for name, _ in await bench.actors(A)].count("jar-emptied") == 1


async def test_late_commands_come_in_the_order_of_their_due_times_and_not_at_once(bench: Bench) -> None:
    jars = [jar(f"late-{number}") for number in range(12)]
    await bench.filled(*reversed(jars))
    bench.clock.advance(24 * 3_600)
    began = bench.clock.monotonic()
    async with bench.process(given_at_once_max=5, given_per_second_max=2.0) as turn:
        assert [await turn() for _ in range(4)] == [5, 5, 2, 0]
    assert [due.subject for due in bench.given] == list(reversed(jars))
    assert bench.clock.monotonic() == began  # `run` waits between turns, and `turn` does not


async def test_the_loop_gives_no_more_in_a_second_than_allowed(bench: Bench) -> None:
    await bench.filled(*[jar(f"late-{number}") for number in range(12)])
    bench.clock.advance(24 * 3_600)
    row, table = PostgresLease(bench.url, bench.schema, TIMERS_LEASE), PostgresTimers(bench.url, bench.schema)
    lease = Lease(row, bench.clock, seconds=1e6, margin_seconds=0)
    loop = TimerLoop(
        "jars",
        [bench.timer],
        bench.store,
        catalogue().decode,
        table,
        lease,
        bench.clock,
        generation="1",
        given_at_once_max=4,
        given_per_second_max=2.0,
    )
    stopping, began = asyncio.Event(), bench.clock.monotonic()
    give, times = bench.timer.give, list[float]()

    async def timed(due: Due, context: CommandContext, version: int) -> None:
        times.append(bench.clock.monotonic() - began)
        if len(times) == 12:
            stopping.set()
        await give(due, context, version)

    loop._timers["empty-jar"] = replace(bench.timer, give=timed)
    epoch = await lease.acquire()
    await loop._lead(epoch, stopping)
    await lease.release()
    await row.close()
    await table.close()
    assert times == [0.0] * 4 + [2.0] * 4 + [4.0] * 4


async def test_many_late_timers_of_one_subject_do_not_slow_those_of_others(bench: Bench) -> None:
    each: Callable[[RecordedEvent], Sequence[Change]] = lambda one: [  # noqa: E731
        SetTimer(one.metadata.effective_at, slot=str(one.version))
    ]
    for _ in range(5):
        await bench.do(A, OpenJar("Li") if not bench.commands else FillJar(1))
    bench.clock.advance(60)
    await bench.filled(B)
    async with bench.process(
        replace(bench.timer, changes=each, events=frozenset({"jar-filled"})), given_at_once_max=4
    ) as turn:
        # What was tried decides how long the loop waits until its next turn, not what else was due.
        assert [await turn() for _ in range(6)] == [1, 2, 1, 1, 0, 0]
    assert [due.subject for due in bench.given].count(B) == 1


async def test_many_late_timers_of_one_name_do_not_hold_back_those_of_others(bench: Bench) -> None:
    jars = [jar(f"late-{number}") for number in range(12)]
    await bench.filled(*jars)
    given = list[str]()

    async def noted(due: Due, _: CommandContext, __: int) -> None:
        given.append(due.name)

    def timer(name: str, hours: int, of: Sequence[UUID]) -> Timer:
        """One that is due so long after some jars were filled."""
        changes: Callable[[RecordedEvent], Sequence[Change]] = lambda one: [  # noqa: E731
            SetTimer(one.metadata.effective_at + hours * HOUR) for _ in of if one.stream_id == _
        ]
        return Timer(name, 1, frozenset({"jar-filled"}), changes, noted)

    often, seldom, once = timer("often", 1, jars), timer("seldom", 2, jars[4:6]), timer("once", 3, jars[8:9])
    bench.clock.advance(24 * 3_600)
    async with bench.process(often, others=[seldom, once], given_at_once_max=3) as turn:
        while await turn():
            pass
    # Each name has its part of a turn, in the order of due times; what one does not need the others have.
    assert given == ["often", "seldom", "once", "often", "often", "seldom", *["often"] * 9]


@pytest.mark.parametrize("slot", ["\ud800", "\0", "x" * 601, "界" * 201])
async def test_a_slot_that_the_table_cannot_hold_holds_back_nobody(bench: Bench, slot: str) -> None:
    named: Callable[[RecordedEvent], Sequence[Change]] = lambda one: [  # noqa: E731
        SetTimer(one.metadata.effective_at, slot=slot if one.stream_id == A else "")
    ]
    await bench.filled(A, B)
    timer = replace(bench.timer, changes=named, events=frozenset({"jar-filled"}))
    async with bench.process(timer) as turn:
        assert await turn() == 1
    assert [due.subject for due in bench.given] == [B]


async def test_a_refused_command_is_settled_with_its_code(bench: Bench) -> None:
    await bench.filled(A)
    bench.clock.advance(7_200)
    refused = replace(bench.timer, give=given_by(bench.handler, lambda _: OpenJar("Li")))
    async with bench.process(refused) as turn:
        assert [await turn() for _ in range(2)] == [1, 0]
    assert [row[2] for row in bench.rows()] == ["refused: jar-already-opened"]


async def test_a_command_that_fails_is_tried_three_times_and_holds_back_nobody(bench: Bench) -> None:
    await bench.filled(A, B)
    bench.clock.advance(7_200)
    give, tries = bench.timer.give, list[datetime]()

    async def failing(due: Due, context: CommandContext, version: int) -> None:
        if due.subject == A:
            tries.append(bench.clock.now())
            raise KeyError("a name that must not be shown")
        await give(due, context, version)

    async with bench.process(replace(bench.timer, give=failing)) as turn:
        assert await turn() == 2
        assert [due.subject for due in bench.given] == [B]
        for seconds in (TRY_AGAIN_SECONDS - 1, 1, 2 * TRY_AGAIN_SECONDS - 1, 1, 600, 600):
            bench.clock.advance(seconds)
            await turn()
    assert [(at - tries[0]).total_seconds() for at in tries] == [0, TRY_AGAIN_SECONDS, 3 * TRY_AGAIN_SECONDS]
    [outcome] = [row[2] for row in bench.rows() if row[0] == A]
    assert outcome.startswith("failed: KeyError at ")
    assert "must not be shown" not in outcome


async def test_what_a_command_rests_on_is_waited_for_about_a_day_and_holds_back_nobody(bench: Bench) -> None:
    await bench.filled(A, B, C)
    bench.clock.advance(7_200)
    give, tries = bench.timer.give, dict[UUID, list[datetime]]()

    async def waiting(due: Due, context: CommandContext, version: int) -> None:
        tries.setdefault(due.subject, []).append(bench.clock.now())
        if due.subject == A or (due.subject == B and len(tries[B]) < 9):
            raise NotReady("the documents of the day")
        await give(due, context, version)

    began = bench.clock.now()
    async with bench.process(replace(bench.timer, give=waiting)) as turn:
        assert await turn() == 3
        assert [due.subject for due in bench.given] == [C]
        while bench.clock.now() < began + 48 * HOUR:
            bench.clock.advance(TRY_AGAIN_SECONDS)
            await turn()
    assert [due.subject for due in bench.given] == [C, B]
    assert len(tries[A]) == WAITS_MAX
    assert 23 * HOUR < tries[A][-1] - began < 25 * HOUR
    pauses = [(after - before).total_seconds() for before, after in pairwise(tries[A])]
    assert (pauses[0], max(pauses)) == (TRY_AGAIN_SECONDS, WAIT_SECONDS_MAX)
    [outcome] = [row[2] for row in bench.rows() if row[0] == A]
    assert outcome.startswith("failed: NotReady")


async def test_while_the_store_does_not_answer_a_command_is_neither_settled_nor_given_up(
    bench: Bench,
) -> None:
    await bench.filled(A, B)
    bench.clock.advance(7_200)
    give, away = bench.timer.give, [True] * 5

    async def overloaded(due: Due, context: CommandContext, version: int) -> None:
        if due.subject == A and away:
            away.pop()
            raise StoreUnavailable("overloaded")
        await give(due, context, version)

    async with bench.process(replace(bench.timer, give=overloaded)) as turn:
        for _ in range(5):
            with pytest.raises(StoreUnavailable):
                await turn()
        assert [due.subject for due in bench.given] == [B]
        assert await turn() == 1
    assert [due.subject for due in bench.given] == [B, A]


async def test_the_holder_of_an_earlier_epoch_changes_nothing(bench: Bench) -> None:
    await bench.filled(A)
    table = PostgresTimers(bench.url, bench.schema)
    async with bench.process() as turn:
        await turn()
    folded = await table.folded()
    assert folded is not None
    with pytest.raises(Fenced):
        await table.fold(0, folded._replace(position=99), [])
    with pytest.raises(Fenced):
        await table.settle(0, NOW, [])
    assert await table.folded() == folded
    await table.close()


async def test_folding_again_gives_nothing_again_and_moves_what_stands(bench: Bench) -> None:
    await bench.filled(A, B)
    async with bench.process() as turn:
        bench.clock.advance(3_598)
        assert await turn() == 1
    assert [due.subject for due in bench.given] == [A]
    await bench.do(C, OpenJar("Li"))
    keeps = replace(bench.timer, events=frozenset({"jar-filled"}))
    half = replace(keeps, version=2, changes=emptied_after(HOUR / 2))
    async with bench.process(half, generation="2", folded_events_max=1) as turn:
        assert await turn() == 1  # B is due earlier now; A was given, and is not given again
        assert await turn() == 0
    assert [due.subject for due in bench.given] == [A, B]


async def test_what_a_later_generation_does_not_set_is_removed(bench: Bench) -> None:
    await bench.filled(A)
    nothing: Callable[[RecordedEvent], Sequence[Change]] = lambda _: []  # noqa: E731
    async with bench.process() as turn:
        await turn()
    assert len(bench.rows()) == 1
    async with bench.process(replace(bench.timer, version=2, changes=nothing), generation="2") as turn:
        await turn()
    assert bench.rows() == []


async def test_what_was_given_stays_although_a_later_generation_does_not_set_it(bench: Bench) -> None:
    await bench.filled(A)
    bench.clock.advance(7_200)
    nothing: Callable[[RecordedEvent], Sequence[Change]] = lambda _: []  # noqa: E731
    async with bench.process() as turn:
        assert await turn() == 1
    async with bench.process(replace(bench.timer, version=2, changes=nothing), generation="2") as turn:
        await turn()
    assert [(row[0], row[2]) for row in bench.rows()] == [(A, "done")]
    async with bench.process(generation="3") as turn:
        assert await turn() == 0
    assert [due.subject for due in bench.given] == [A]


async def test_an_event_that_cannot_be_folded_is_shown_and_holds_back_nobody(bench: Bench) -> None:
    await bench.do(A, OpenJar("Li"))
    await bench.do(A, FillJar(2_000))
    await bench.filled(B)
    bench.clock.advance(7_200)
    async with bench.process() as turn:
        assert await turn() == 1
    outcomes = {row[0]: row[2] for row in bench.rows()}
    assert outcomes[A].startswith("failed: ValueError at ")
    assert [due.subject for due in bench.given] == [B]
    mended: Callable[[RecordedEvent], Sequence[Change]] = lambda one: [SetTimer(one.metadata.effective_at)]  # noqa: E731
    timer = replace(bench.timer, version=2, events=frozenset({"jar-filled"}), changes=mended)
    async with bench.process(timer, generation="2") as turn:
        assert await turn() == 1  # the repaired fold gives what had failed, and nothing a second time
    assert [due.subject for due in bench.given] == [B, A]
