"""Processes that make the files of exports at once, freeze beyond their claim and die, while the list changes.

An export has one file, which is whole and has the rows that are said, or was given up after its last try; what else was written
is gone in the end.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from chassis.clock import Clock
from chassis.conditions import Fields, Label
from chassis.connections.transient import StoreUnavailable
from chassis.exports import EXPORTS, Asked, Exportable, Exports, Rights, plain
from chassis.exports.deciding import EXPORT, GIVEN_UP, TRIES_MAX, Export, ExportMade
from chassis.files import FILES, FileKeeper, StorageUnavailable, sweep
from chassis.files.contents import ContentStore
from chassis.files.objects import ObjectMissing
from chassis.lists import Counted, Listing, Question, Scope
from chassis.privacy.key_encryption import Tampered
from chassis.privacy.tokens import Caller
from chassis.read.documents import Document
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import Refusal, TooManyConflicts
from typing_extensions import override

from tests.simulation.acting import answered, by
from tests.simulation.keeping import Archive, ArchiveStorage, Keys
from tests.simulation.kernel import EPOCH, Faults, Injected, Kernel
from tests.simulation.scenario import Broken
from tests.simulation.servers import Flaws, LogServer
from tests.simulation.store import StoreClient

MAKERS = 2
ASKED = 2
LOOK_SECONDS = 0.05
SECONDS_MAX = 60.0
FASTER = 100
"""The clock of exports goes so much faster than that of the servers, so that a freeze is longer than a claim."""
CATALOGUE = Catalogue(store="simulation", entries={**FILES, **EXPORTS})
LISTING = Listing("things", "things", "all", Fields([]))
ANNA = Caller("anna", roles=frozenset({"reader"}))
FAULTS = Faults(
    crash=0.01,
    crashes_max=6,
    unanswered=0.02,
    unanswered_max=12,
    freeze=0.03,
    freezes_max=5,
    freeze_seconds=4.0,
)


class FastClock(Clock):
    """The clock of a process that makes exports."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @override
    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=FASTER * self._kernel.seconds)

    @override
    def monotonic(self) -> float:
        return self._kernel.monotonic()

    @override
    async def sleep(self, seconds: float) -> None:
        await self._kernel.sleep(seconds)


MakeExports = Callable[..., Exports]


@dataclass(slots=True)
class Listed(Archive):
    """All there is in one run. `rows` of the list grow; `exports` are those that somebody was told of."""

    rows: list[Document] = field(default_factory=lambda: [{"_id": f"{number}"} for number in range(3)])
    exports: set[UUID] = field(default_factory=set)


def over(listed: Listed, make: MakeExports) -> Exports:
    """As a process that starts has it. The time of a try is not kept: the worst that a frozen process does."""

    async def documents(_: Scope, __: Question) -> AsyncIterator[list[Document]]:
        for number in range(2):
            yield listed.rows[number::2]
            await listed.kernel.sleep(0.01)

    async def counted(*_: Any) -> Counted:
        return Counted(len(listed.rows), more=False)

    async def shown(found: Sequence[Document]) -> Sequence[Document]:
        return found

    kind = Exportable(
        listing=LISTING,
        columns=(plain("_id", Label("编号", "id")),),
        documents=documents,
        counted=counted,
        shown=shown,
        rights=lambda _: Rights(Scope.all(), frozenset()),
        today=lambda: date(2026, 3, 1),
        alone_rows_max=1_000,
        approvers=frozenset({"chief"}),
        lives=timedelta(days=1),
        title="导出",
    )
    ring = Keys(listed.kernel, listed.keys)
    return make(
        StoreClient(listed.log),
        CATALOGUE,
        ring,
        {"things": kind},
        FastClock(listed.kernel),
        ArchiveStorage(listed),
        try_seconds_max=10 * SECONDS_MAX,
    )


def asking(listed: Listed, make: MakeExports) -> Callable[[], Awaitable[None]]:
    """Anna asks for files, each until she is answered."""

    async def main() -> None:
        exports = over(listed, make)
        for number in range(ASKED):
            given = by(listed, "anna", f"ask-{number}")
            found = await answered(listed, lambda given=given: exports.request(Asked("things"), ANNA, given))
            if isinstance(found, Refusal):
                listed.broken.append(Broken("I8", f"refused: {found!r}"))
            elif found is not None:
                listed.exports.add(found.contents.export_id)
        listed.left = 0

    return main


async def looked(listed: Listed, exports: Exports) -> bool:
    """One look at what is due; whether there may be more."""
    with suppress(StoreUnavailable, StorageUnavailable, Injected, TooManyConflicts):
        due = await exports.due()
        for export in due:
            await exports.make(export)
        return bool(due)
    return True


def maker(listed: Listed, make: MakeExports) -> Callable[[], Awaitable[None]]:
    """A process that makes what is due."""

    async def main() -> None:
        exports = over(listed, make)
        while listed.kernel.seconds < SECONDS_MAX and (await looked(listed, exports) or listed.left):
            await listed.kernel.sleep(LOOK_SECONDS)

    return main


def growing(listed: Listed) -> Callable[[], Awaitable[None]]:
    """Rows that come."""

    async def main() -> None:
        for number in range(20):
            listed.rows.append({"_id": f"later-{number}"})
            await listed.kernel.sleep(listed.kernel.chance.random() * 0.5)

    return main


async def checked(listed: Listed, make: MakeExports) -> list[Broken]:
    """Everything, when all is over: the files, and after their expiry and a sweep what is left."""
    listed.kernel.heal()
    exports = over(listed, make)
    while await looked(listed, exports) and listed.kernel.seconds < 10 * SECONDS_MAX:
        listed.kernel.seconds += 1.0
    ring = Keys(listed.kernel, listed.keys)
    keeper = FileKeeper(StoreClient(listed.log), CATALOGUE, ring, ArchiveStorage(listed))
    found = [*listed.broken, *[one async for one in _wrong(listed, keeper)]]
    listed.kernel.seconds += timedelta(days=9).total_seconds() / FASTER
    await sweep(keeper, ring, FastClock(listed.kernel))
    if listed.objects:
        found.append(Broken("I10", f"{len(listed.objects)} objects are left for ever"))
    return [*found, *_twice(listed)]


async def _wrong(listed: Listed, keeper: FileKeeper) -> AsyncIterator[Broken]:
    contents = ContentStore(CATALOGUE.store, keeper.storage)
    for export in sorted(listed.exports):
        rows = [row for row in listed.log.rows if row.stream_id == export]
        state = EXPORT.fold([CATALOGUE.open(row, None).event for row in rows])  # type: ignore[misc]
        if state.made is None and _given_up(state):
            continue
        if state.made is None:
            yield Broken("I8", f"{export} is {state.status}: {state.failed}")
            continue
        held = (await keeper.state_of(keeper.stream_of(export))).kept.get(state.made.file)
        if held is None:
            yield Broken("I11", f"{export} has no file")
            continue
        try:
            await contents.verify(held, listed.keys[export])
            async with await keeper.storage.read(contents.name_of(held)) as download:
                parts = [part async for part in contents.parts(download, held, listed.keys[export])]
        except (ObjectMissing, Tampered) as error:
            yield Broken("I11", f"{export}: {type(error).__name__}")
            continue
        for problem in _differs(state.made, b"".join(parts)):
            yield Broken("I11", f"{export}: {problem}")


def _given_up(export: Export) -> bool:
    return export.failed is not None and (export.failed.code, export.attempt) == (GIVEN_UP, TRIES_MAX)


def _differs(made: ExportMade, content: bytes) -> Iterator[str]:
    lines = content.count(b"\r\n") - 2  # the header and the last record
    if (lines, len(content), sha256(content).hexdigest()) != (made.rows, made.size_bytes, made.sha256):
        yield f"the file has {lines} rows, and {made} is said"


def _twice(listed: Listed) -> Iterator[Broken]:
    for export in sorted(listed.exports):
        ends = [row for row in listed.log.rows if row.stream_id == export and row.name == "export-made"]
        if len(ends) > 1:
            yield Broken("I2", f"{export} was made {len(ends)} times")


async def lived(
    seed: int, make: MakeExports = Exports, flaws: Flaws | None = None
) -> tuple[Listed, list[Broken]]:
    """All that is left after a seed's schedule, and what does not hold."""
    kernel = Kernel(seed, FAULTS)
    listed = Listed(kernel, LogServer(kernel, flaws or Flaws()), left=1)
    kernel.spawn("anna", asking(listed, make))
    for number in range(MAKERS):
        kernel.spawn(f"maker-{number}", maker(listed, make))
    kernel.spawn("growing", growing(listed), mortal=False)
    await kernel.run()
    return listed, await checked(listed, make)
