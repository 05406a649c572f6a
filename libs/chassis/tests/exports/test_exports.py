"""Exports over a real store, real keys and a real folder: made once, tried anew, refused, bounded, expired."""

import asyncio
import resource
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid5

import pytest
from chassis.conditions import Fields, Label
from chassis.connections.transient import ServerLost
from chassis.ending import ended
from chassis.exports import (
    EXPORTS,
    Asked,
    Exportable,
    ExportNotMade,
    ExportNotPermitted,
    ExportOversized,
    ExportRightsChanged,
    Exports,
    ExportUnknown,
    Rights,
    TooManyExports,
    making,
    plain,
    propose_export,
    releases,
)
from chassis.exports.approving import ReleaseExport
from chassis.exports.deciding import (
    CLAIM,
    INTERRUPTED_MAX,
    PAUSE,
    ROWS_MAX,
    TRIES_MAX,
    TRY_SECONDS_MAX,
    WAITS,
    ExportDiffers,
    ExportNeedsApproval,
    ExportNotWaiting,
)
from chassis.exports.running import AGED_AT_ONCE, ASKED_PER_DAY_MAX, LISTED_DAYS, ROWS_AT_ONCE
from chassis.files import FILES, FileGone, FileKeeper, Storage, sweep
from chassis.files.folder import Folder
from chassis.lists import Counted, Listing, QueryTooSlow, Question, Scope
from chassis.observability import metrics
from chassis.privacy.keys import KeyRing
from chassis.privacy.tokens import Caller
from chassis.proposals import PROPOSALS, FourEyes, SecondPersonNeeded
from chassis.read.documents import Document
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, CommandKeyReused
from chassis.write.store import EventStore
from msgspec import structs

from tests.support.jars import NAMESPACE, NOW
from tests.support.specification import ManualClock
from tests.support.waiting import until

CATALOGUE = Catalogue(store="jars", entries=FILES | EXPORTS | PROPOSALS)
LISTING = Listing("things", "things", "all", Fields([]))
ANNA, BORIS = (Caller(name, roles=frozenset({"reader"})) for name in ("anna", "boris"))
ALONE_MAX = 20
CHIEF = frozenset({"chief"})


class Crash(BaseException):
    """The process is killed here."""


class CountedReads:
    """A store that counts the streams that are read of it."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self.streams = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read_streams(self, after: Any) -> Any:
        self.streams += len(after)
        return await self._store.read_streams(after)


class Things:
    """A list, and the exports of it as one process has them."""

    def __init__(self, store: EventStore, ring: KeyRing, folder: Path) -> None:
        self.store, self.ring, self.folder = store, ring, folder
        self.clock = ManualClock(NOW)
        self.rows = [f"{number:04}" for number in range(5)]
        self.fails: list[Exception] = []
        self.readers = {"reader"}
        self.may = frozenset({"secrets"})
        self.pages: list[list[str]] | None = None
        self.hangs = False
        self.turns = 0
        self.written: list[tuple[int, int]] = []
        self.try_seconds_max = TRY_SECONDS_MAX
        self.crashes_at = ""
        self.bytes_max = 20 << 20
        self.storage = Storage(Folder(folder, "jars", create=True))
        self.exports = self.process()
        self.eyes = FourEyes(store, CATALOGUE, ring, releases(self.exports))

    def process(self, store: Any = None) -> Exports:
        kind = Exportable(
            listing=LISTING,
            columns=(plain("_id", Label("编号", "id")), plain("secret", Label("秘密", "secret"), "secrets")),
            documents=self.documents,
            counted=self.counted,
            shown=self.shown,
            rights=self.rights,
            today=lambda: date(2026, 3, 1),
            alone_rows_max=ALONE_MAX,
            approvers=CHIEF,
            lives=timedelta(days=1),
            title="导出",
        )
        return Exports(
            store or self.store,
            CATALOGUE,
            self.ring,
            {"things": kind},
            self.clock,
            self.storage,
            bytes_max=self.bytes_max,
            try_seconds_max=self.try_seconds_max,
            reached=self.reached,
        )

    async def documents(self, scope: Scope, _: Question) -> AsyncIterator[list[Document]]:
        if self.fails:
            raise self.fails.pop(0)
        if self.hangs:
            await asyncio.Event().wait()
        pages = self.pages or [self.rows[at : at + 2_000] for at in range(0, len(self.rows), 2_000)]
        for page in pages:
            yield [{"_id": each} for each in page]

    async def counted(self, scope: Scope, _: Question, counted_max: int) -> Counted:
        return Counted(min(len(self.rows), counted_max), len(self.rows) > counted_max)

    async def shown(self, found: Sequence[Document]) -> Sequence[Document]:
        self.written.append((self.turns, len(found)))
        return found

    def rights(self, caller: Caller) -> Rights:
        if caller.roles.isdisjoint(self.readers):
            raise ExportNotPermitted
        return Rights(Scope.all(), self.may)

    def reached(self, point: str) -> None:
        if point == self.crashes_at:
            self.crashes_at = ""
            raise Crash

    def later(self, by: timedelta) -> None:
        self.clock.advance(by.total_seconds())

    async def ask(self, key: str = "1", caller: Caller = ANNA) -> Any:
        return await self.exports.request(Asked("things"), caller, self.by(key, caller.subject))

    def by(self, key: str, actor: str = "anna") -> CommandContext:
        made = uuid5(NAMESPACE, f"{actor}{key}{self.clock.now()}")
        return CommandContext(
            actor=actor, now=self.clock.now(), command_id=made, idempotency_key=key, reason="so"
        )

    async def tried(self, export: Any, process: Exports | None = None) -> Any:
        await (process or self.exports).make(export)
        return await self.exports.shown(export, ANNA)

    async def has_begun(self, export: Any, attempts: int) -> bool:
        return (await self.exports.shown(export, ANNA)).attempts >= attempts

    async def content(self, export: Any, caller: Caller = ANNA) -> bytes:
        content = await self.exports.read(export, caller, self.by("r", caller.subject))
        parts = [part async for part in content.parts]
        await content.download.close()
        return b"".join(parts)

    def there(self) -> list[Any]:
        return list(Folder(self.folder, "jars").found())


@pytest.fixture
async def things(store: EventStore, key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Things]:
    things = Things(store, key_ring, tmp_path / "files")
    yield things
    await things.storage.close()


async def test_an_export_is_made_once_by_whoever_begins_and_expires(things: Things) -> None:
    export = (await things.ask()).contents.export_id
    assert (await things.ask()).contents.export_id == export
    with pytest.raises(CommandKeyReused):
        await things.exports.request(Asked("things", language="en"), ANNA, things.by("1"))
    with pytest.raises(ExportNotMade):
        await things.content(export)
    other = things.process()
    shown = await things.tried(export)
    assert (shown.status, shown.made.rows, shown.attempts) == ("made", 5, 1)
    assert (await things.tried(export, other)).attempts == 1
    assert len(things.there()) == 1
    content = await things.content(export)
    assert content.decode("utf-8-sig").split("\r\n")[1:6] == [f"{each}," for each in things.rows]
    with pytest.raises(ExportUnknown):
        await things.content(export, BORIS)
    things.later(timedelta(days=7))
    with pytest.raises(FileGone):
        await things.content(export)
    keeper = FileKeeper(things.store, CATALOGUE, things.ring, things.storage)
    await sweep(keeper, things.ring, things.clock)
    assert things.there() == []


@pytest.mark.parametrize("point", ["before-file", "after-file"])
async def test_what_a_killed_process_began_is_made_by_another_and_its_file_goes(
    things: Things, point: str
) -> None:
    export = (await things.ask()).contents.export_id
    things.crashes_at = point
    with pytest.raises(Crash):
        await things.tried(export)
    things.rows.append("9999")
    other = things.process()
    assert (await things.tried(export, other)).status == "released", "the first may still be at it"
    assert await other.due() == [export]
    things.later(CLAIM)
    shown = await things.tried(export, other)
    assert (shown.status, shown.attempts, shown.made.rows) == ("made", 2, 6)
    assert await other.due() == []
    assert len(things.there()) == 1
    assert b"9999" in await things.content(export)


async def test_what_passes_is_tried_anew_and_at_last_fails_with_its_reason(things: Things) -> None:
    export = (await things.ask()).contents.export_id
    things.fails = [ServerLost("MongoDB is away"), QueryTooSlow()]
    for _ in range(2):
        assert (await things.tried(export)).status == "released"
        assert (await things.tried(export)).attempts <= 2, "no other try before the pause is over"
        things.later(timedelta(minutes=5))
    assert (await things.tried(export)).status == "made"
    second = (await things.ask("2")).contents.export_id
    things.fails = [ServerLost("MongoDB is away") for _ in range(TRIES_MAX)]
    for _ in range(TRIES_MAX):
        shown = await things.tried(second)
        things.later(timedelta(minutes=5))
    assert (shown.status, shown.failed_code) == ("failed", "export-given-up")
    assert shown.failed_reason == "ServerLost", "who asked is not told which server"
    assert len(things.there()) == 1


async def test_what_waits_and_what_is_given_up_is_measured(things: Things) -> None:
    def counted(outcome: str) -> float:
        return metrics.EXPORTS.labels("jars", outcome)._value.get()

    before = {each: counted(each) for each in ("made", "put-off", "refused", "given-up")}
    assert await things.exports.age_seconds() == 0
    first, second = [(await things.ask(key)).contents.export_id for key in "12"]
    things.fails = [ServerLost("MongoDB is away") for _ in range(TRIES_MAX)]
    for _ in range(TRIES_MAX):
        await things.tried(first)
        things.later(timedelta(minutes=5))
    assert await things.process().age_seconds() == 300 * TRIES_MAX, "the second one waits"
    await things.exports.measure()
    assert metrics.EXPORTS_AGE_SECONDS.labels("jars")._value.get() == 300 * TRIES_MAX
    await things.tried(second)
    third = (await things.ask("3")).contents.export_id
    things.rows = [f"{number}" for number in range(ALONE_MAX + 1)]
    await things.tried(third)
    assert await things.exports.age_seconds() == 0
    found = {each: counted(each) - before[each] for each in before}
    assert found == {"made": 1, "put-off": TRIES_MAX - 1, "refused": 1, "given-up": 1}


async def test_a_storage_that_is_away_and_a_key_that_was_destroyed_end_as_they_should(
    things: Things, tmp_path: Path
) -> None:
    export = (await things.ask()).contents.export_id
    (tmp_path / "files").write_text("no folder")
    shown = await things.tried(export)
    assert (shown.status, shown.attempts) == ("released", 1)
    (tmp_path / "files").unlink()
    things.ring.erase([export])
    things.later(timedelta(minutes=1))
    shown = await things.tried(export)
    assert (shown.status, shown.failed_code) == ("failed", "file-gone")


async def test_who_lost_the_right_in_between_gets_nothing(things: Things) -> None:
    first = (await things.ask()).contents.export_id
    await things.tried(first)
    second = (await things.ask("2")).contents.export_id
    things.readers = {"other"}
    shown = await things.tried(second)
    assert (shown.status, shown.failed_code, len(things.there())) == ("failed", "export-not-permitted", 1)
    with pytest.raises(ExportNotPermitted):
        await things.content(first)


async def test_more_rows_than_were_asked_for_are_in_no_file(things: Things) -> None:
    export = (await things.ask()).contents.export_id
    things.rows = [f"{number}" for number in range(ALONE_MAX + 1)]
    shown = await things.tried(export)
    assert (shown.status, shown.failed_code, things.there()) == ("failed", "export-outgrown", [])
    before = await things.store.head_position()
    things.rows = [f"{number}" for number in range(ROWS_MAX + 1)]
    with pytest.raises(ExportOversized):
        await things.ask("2")
    assert await things.store.head_position() == before


async def test_two_persons_release_exactly_what_was_proposed(things: Things) -> None:
    things.rows = [f"{number}" for number in range(100)]
    shown = await things.ask()
    export = shown.contents.export_id
    assert (shown.status, shown.needs_approval) == ("waiting", True)
    assert (await things.tried(export)).status == "waiting"
    with pytest.raises(ExportNeedsApproval):
        await things.exports.release(export, things.by("alone"))
    with pytest.raises(ExportUnknown):
        await propose_export(things.exports, things.eyes, export, BORIS, things.by("p", "boris"))
    for _ in range(2):
        proposed = await propose_export(things.exports, things.eyes, export, ANNA, things.by("p"))
    assert proposed.command is not None
    assert (proposed.command["export"]["rows_counted"], proposed.command["export"]["rows_max"]) == (100, 110)
    with pytest.raises(SecondPersonNeeded):
        await things.eyes.approve(proposed.proposal_id, proposed.digest, things.by("a", "ANNA "), CHIEF)
    await things.eyes.approve(proposed.proposal_id, proposed.digest, things.by("a", "boris"), CHIEF)
    with pytest.raises(ExportNotWaiting):
        await propose_export(things.exports, things.eyes, export, ANNA, things.by("p2"))
    things.rows += [f"{number}" for number in range(100, 110)]
    made = await things.tried(export)
    assert (made.status, made.made.rows) == ("made", 110)


async def test_for_whom_a_file_is_asked_does_not_approve_it(things: Things) -> None:
    things.rows = [f"{number}" for number in range(100)]
    caller = replace(ANNA, on_behalf_of="boris")
    given = structs.replace(things.by("1"), on_behalf_of="boris")
    shown = await things.exports.request(Asked("things"), caller, given)
    export = shown.contents.export_id
    proposed = await propose_export(things.exports, things.eyes, export, ANNA, things.by("p"))
    with pytest.raises(SecondPersonNeeded):
        await things.eyes.approve(proposed.proposal_id, proposed.digest, things.by("a", "boris"), CHIEF)
    assert (await things.exports.shown(export, ANNA)).status == "waiting"
    await things.eyes.approve(proposed.proposal_id, proposed.digest, things.by("a", "carla"), CHIEF)
    assert (await things.tried(export)).status == "made"


async def test_a_list_of_another_version_of_the_service_is_passed_over(things: Things) -> None:
    export = (await things.ask()).contents.export_id
    other = Exports(things.store, CATALOGUE, things.ring, {}, things.clock, things.storage)
    assert await other.make(export) == "released"
    assert (await other.of(ANNA, things.clock.now()))[0].attempts == 0
    made = await things.tried(export)
    assert (made.status, made.attempts) == ("made", 1)
    assert await other.of(ANNA, things.clock.now()) == [made]
    with pytest.raises(ExportUnknown):
        await other.read(export, ANNA, things.by("r"))


async def test_a_person_asks_for_so_many_a_day_and_sees_those_of_the_last_days(things: Things) -> None:
    for number in range(ASKED_PER_DAY_MAX):
        await things.ask(f"{number}")
    with pytest.raises(TooManyExports):
        await things.ask("more")
    assert (await things.ask("3")).status == "released", "the same again is none more"
    await things.ask("1", BORIS)
    things.later(timedelta(days=1))
    last = await things.ask("more")
    listed = await things.exports.of(ANNA, things.clock.now())
    assert (listed[0], len(listed)) == (last, ASKED_PER_DAY_MAX + 1)
    things.later(timedelta(days=LISTED_DAYS - 1))
    assert await things.exports.of(ANNA, things.clock.now()) == [last]


async def test_the_bytes_of_a_file_are_bounded(things: Things) -> None:
    things.bytes_max = 100
    things.exports = things.process()
    export = (await things.ask()).contents.export_id
    shown = await things.tried(export)
    assert (shown.status, shown.failed_code, things.there()) == ("failed", "file-oversized", [])


async def test_the_largest_file_is_made_in_bounded_memory(things: Things) -> None:
    things.rows = [f"{number:0100}" for number in range(ROWS_MAX)]
    shown = await things.ask()
    export = shown.contents.export_id
    proposed = await propose_export(things.exports, things.eyes, export, ANNA, things.by("p"))
    await things.eyes.approve(proposed.proposal_id, proposed.digest, things.by("a", "boris"), CHIEF)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = await things.tried(export)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (made.made.rows, made.made.size_bytes > 5_000_000) == (ROWS_MAX, True)
    print(f"{made.made.size_bytes} bytes, and {grown} KiB more in memory")
    assert grown < 20_000


async def test_requests_have_a_turn_of_the_loop_after_a_few_rows_each(things: Things) -> None:
    things.rows = [f"{number}" for number in range(5 * ROWS_AT_ONCE)]
    export = (await things.ask()).contents.export_id
    proposed = await propose_export(things.exports, things.eyes, export, ANNA, things.by("p"))
    await things.eyes.approve(proposed.proposal_id, proposed.digest, things.by("a", "boris"), CHIEF)

    async def request() -> None:
        while True:
            things.turns += 1
            await asyncio.sleep(0)

    requests = asyncio.create_task(request())
    assert (await things.tried(export)).made.rows == len(things.rows)
    await ended(requests)
    turns, rows = zip(*things.written, strict=True)
    assert max(rows) <= ROWS_AT_ONCE
    assert len(set(turns)) == len(turns) == 5


async def test_who_may_see_a_column_no_more_is_not_given_the_file_that_has_it(things: Things) -> None:
    export = (await things.ask()).contents.export_id
    await things.tried(export)
    things.may = frozenset()
    assert await things.content(export), "who asked had no more rights than now"
    narrow = Caller("anna", roles=frozenset({"reader", "guest"}))
    things.exports._kinds["things"] = replace(
        things.exports.kinds["things"],
        rights=lambda one: Rights(
            Scope.all(), frozenset() if "guest" in one.roles else frozenset({"secrets"})
        ),
    )
    with pytest.raises(ExportRightsChanged):
        await things.content(export, narrow)


async def test_a_row_that_moves_while_it_is_read_is_in_the_file_once(things: Things) -> None:
    export = (await things.ask()).contents.export_id
    things.pages = [["a", "b"], ["b", "c"]]
    assert (await things.tried(export)).made.rows == 3
    lines = (await things.content(export)).decode("utf-8-sig").split("\r\n")
    assert lines[1:4] == ["a,", "b,", "c,"]


async def test_days_count_from_the_day_that_was_asked_for(things: Things) -> None:
    asked = Asked("things", as_of=date(2026, 2, 1))
    shown = await things.exports.request(asked, ANNA, things.by("1"))
    assert shown.contents.as_of == date(2026, 2, 1)
    assert (await things.ask("2")).contents.as_of == date(2026, 3, 1)


async def test_a_try_that_hangs_is_cut_off_and_put_off_twice_as_long_each_time(things: Things) -> None:
    things.hangs, things.try_seconds_max = True, 0.05
    hanging = things.process()
    export = (await things.ask()).contents.export_id
    for attempt in range(1, 4):
        async with asyncio.timeout(5):
            assert (await things.tried(export, hanging)).attempts == attempt
        pause = PAUSE * 2 ** (attempt - 1)
        things.later(pause - timedelta(seconds=1))
        assert (await things.tried(export, hanging)).attempts == attempt
        things.later(timedelta(seconds=1))


async def test_a_process_that_is_told_to_end_leaves_its_try_to_another_at_once_and_it_does_not_count(
    things: Things,
) -> None:
    export = (await things.ask()).contents.export_id
    things.hangs = True
    for number in range(1, TRIES_MAX + 2):
        async with making(things.process(), things.clock, look_seconds=0.01):
            await until(partial(things.has_begun, export, number))
    things.hangs = False
    shown = await things.tried(export)
    assert (shown.status, shown.attempts) == ("made", TRIES_MAX + 2)
    assert len(things.there()) == 1


async def test_an_export_is_not_interrupted_for_ever(things: Things) -> None:
    export = (await things.ask()).contents.export_id
    things.hangs = True
    for number in range(1, 1 + INTERRUPTED_MAX + TRIES_MAX):
        trying = asyncio.create_task(things.exports.make(export))
        await until(partial(things.has_begun, export, number))
        await ended(trying)
    shown = await things.tried(export)
    assert (shown.status, shown.failed_code) == ("failed", "export-given-up")


async def test_the_age_of_many_is_known_after_some_measurings_with_a_bounded_number_of_reads_each(
    things: Things,
) -> None:
    persons = [Caller(f"anna-{number}", roles=frozenset({"reader"})) for number in range(6)]
    asked = [await things.ask(f"{number}", each) for each in persons for number in range(ASKED_PER_DAY_MAX)]
    assert len(asked) > AGED_AT_ONCE
    reads = CountedReads(things.store)
    measuring = things.process(reads)
    for _ in range(3):
        before = reads.streams
        things.later(timedelta(seconds=30))
        age = await measuring.age_seconds()
        assert reads.streams - before <= AGED_AT_ONCE
    assert age == 90
    assert reads.streams == len(asked), "each is read once"
    for each in asked:
        await things.exports.make(each.contents.export_id)
    assert await measuring.age_seconds() == 0


async def test_an_export_whose_processes_all_die_fails_at_last(things: Things) -> None:
    export = (await things.ask()).contents.export_id
    for _ in range(TRIES_MAX):
        things.crashes_at = "before-file"
        with pytest.raises(Crash):
            await things.tried(export)
        things.later(CLAIM)
    shown = await things.tried(export)
    assert (shown.status, shown.failed_code, shown.attempts) == ("failed", "export-given-up", TRIES_MAX)


async def test_each_event_says_for_whom_it_is_and_in_which_post(things: Things) -> None:
    given = structs.replace(things.by("1"), post="branch-7", on_behalf_of="boris")
    shown = await things.exports.request(Asked("things"), ANNA, given)
    await things.tried(shown.contents.export_id)
    events = await things.store.read_after(0, 100)
    metas = {one.name: CATALOGUE.metadata_of(one) for one in events}
    for name in ("export-requested", "export-begun", "file-attached", "export-made"):
        said = metas[name].actor, metas[name].post, metas[name].on_behalf_of, metas[name].reason
        assert said == ("anna", "branch-7", "boris", "so"), name


async def test_an_export_that_nobody_approved_in_time_is_not_released_any_more(things: Things) -> None:
    things.rows = [f"{number}" for number in range(100)]
    export = (await things.ask()).contents.export_id
    things.later(WAITS - timedelta(hours=1))
    shown = await propose_export(things.exports, things.eyes, export, ANNA, things.by("p"))
    things.later(timedelta(hours=1))
    with pytest.raises(ExportNotWaiting, match="14 days"):
        await things.eyes.approve(shown.proposal_id, shown.digest, things.by("a", "boris"), CHIEF)
    with pytest.raises(ExportNotWaiting, match="14 days"):
        await propose_export(things.exports, things.eyes, export, ANNA, things.by("p2"))
    assert (await things.exports.shown(export, ANNA)).status == "waiting"


async def test_a_proposal_that_says_something_else_than_the_export_releases_nothing(things: Things) -> None:
    things.rows = [f"{number}" for number in range(100)]
    contents = (await things.ask()).contents
    altered = ReleaseExport(structs.replace(contents, rows_counted=21))
    shown = await things.eyes.propose("export-things", contents.export_id, altered, things.by("p"))
    with pytest.raises(ExportDiffers):
        await things.eyes.approve(shown.proposal_id, shown.digest, things.by("a", "boris"), CHIEF)
    assert (await things.exports.shown(contents.export_id, ANNA)).status == "waiting"
