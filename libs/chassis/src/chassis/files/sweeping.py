"""The sweep: ends what has expired or was erased, and deletes objects that no file has.

Such objects are left by crashes, and by a storage that did not answer when a file was removed. Whether an object may go is
decided in the stream of its subject (`Abandon`), so a sweep that runs beside an upload takes nothing from it that it needs.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

import structlog
from typing_extensions import override

from chassis.clock import Clock, uuid7
from chassis.connections.transient import is_transient
from chassis.ending import closed, ended
from chassis.files.deciding import FileHeld, Files
from chassis.files.keeping import FileKeeper
from chassis.files.objects import Found
from chassis.observability import metrics
from chassis.privacy.keys import KeyRing
from chassis.process.leading import LeasedLoop
from chassis.process.leases import Lease, PostgresLease
from chassis.write.deciding import CommandContext
from chassis.write.store.items import Fenced

SWEEP_SECONDS: Final = 3_600.0
"""From one sweep to the next."""
UPLOAD_SECONDS_MAX: Final = 24 * 3_600.0
"""An upload that is older is given up. It is far beyond the time of a request: an upload that is under way is refused after
that, and has to be sent again."""
LOOK_SECONDS: Final = 1.0
STOP_SECONDS_MAX: Final = 5.0
SWEEP_LEASE: Final = "files"
_ACTOR: Final = "files:sweep"

_log = structlog.get_logger(__name__)


class Swept(NamedTuple):
    """What a sweep did: objects seen, files that it ended, objects that it deleted, uploads that it gave up."""

    objects: int = 0
    ended: int = 0
    deleted: int = 0
    unfinished: int = 0


async def sweep(
    keeper: FileKeeper, ring: KeyRing, clock: Clock, upload_seconds_max: float = UPLOAD_SECONDS_MAX
) -> Swept:
    """One sweep over all objects of a context. Raises StorageUnavailable, StoreUnavailable."""
    before = clock.now() - timedelta(seconds=upload_seconds_max)
    swept = Swept(unfinished=await keeper.storage.forget_unfinished(before))
    async for page in keeper.storage.found():
        streams = list({found.name.stream: None for found in page})
        states = await asyncio.gather(*map(keeper.state_of, streams))
        over = await _ended(keeper, ring, clock, states)
        if over:
            states = await asyncio.gather(*map(keeper.state_of, streams))
        files = dict(zip(streams, states, strict=True))
        wanted = [one for one in page if _is_left(one, files[one.name.stream], before.timestamp())]
        deleted = [await keeper.abandon(one.name, _context(clock)) for one in wanted]
        swept = Swept(
            swept.objects + len(page), swept.ended + over, swept.deleted + sum(deleted), swept.unfinished
        )
    return swept


def _is_left(found: Found, files: Files, before: float) -> bool:
    """Whether nobody needs an object: no file has it, and it is no upload that may still be under way.

    Of a stream without an event nothing is deleted: this may be the storage of another store, of which all would be deleted.
    """
    if not files.known or files.refers_to(found.name.object):
        return False
    return files.is_free(found.name.object) or found.written_at.timestamp() < before


async def _ended(keeper: FileKeeper, ring: KeyRing, clock: Clock, states: Iterable[Files]) -> int:
    """Ends the files that have expired, and those of subjects that were erased; how many."""
    kept = [one for files in states for one in files.kept.values()]
    erased = await asyncio.to_thread(ring.erased, {one.subject for one in kept}) if kept else set[UUID]()
    gone = [one for one in kept if one.subject in erased]
    over = await keeper.expired([one for one in kept if one.subject not in erased], clock.now())
    for one in gone:
        await keeper.remove(one.subject, one.file, _context(clock), "erased")
    count = len(gone)
    for one in kept:
        if one.file in over:
            with suppress(FileHeld):  # since a moment ago
                await keeper.remove(one.subject, one.file, _context(clock), "expired")
                count += 1
    return count


def _context(clock: Clock) -> CommandContext:
    now = clock.now()
    return CommandContext(actor=_ACTOR, now=now, command_id=uuid7(now))


class SweepLoop(LeasedLoop):
    """Sweeps every `sweep_seconds` while this process has the lease."""

    def __init__(
        self,
        name: str,
        keeper: FileKeeper,
        ring: KeyRing,
        lease: Lease,
        clock: Clock,
        *,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        super().__init__(name, "files", lease, clock, None)
        self._keeper = keeper
        self._ring = ring
        self._sweep_seconds = sweep_seconds

    @override
    async def _lead(self, epoch: int, stopping: asyncio.Event) -> None:
        self.leading = True
        while not stopping.is_set():
            await self._swept()
            self._succeeded()
            until = self._clock.monotonic() + self._sweep_seconds
            while not stopping.is_set() and self._clock.monotonic() < until:
                await self._pause(LOOK_SECONDS)

    async def _swept(self) -> None:
        try:
            swept = await sweep(self._keeper, self._ring, self._clock)
        except Exception as error:
            if is_transient(error) or isinstance(error, Fenced):
                raise
            # The next sweep tries again; an alert tells that none has ended.
            _log.exception("a sweep of files broke", role=self.name)
            return
        metrics.FILES_SWEPT.labels(self._keeper.context).set(self._clock.now().timestamp())
        _log.info(
            "files are swept",
            role=self.name,
            objects=swept.objects,
            ended=swept.ended,
            deleted=swept.deleted,
            unfinished=swept.unfinished,
        )


@asynccontextmanager
async def sweeping(
    keeper: FileKeeper, ring: KeyRing, url: str, schema: str, clock: Clock
) -> AsyncIterator[SweepLoop]:
    """Sweeps the files of a context, in one of the processes that do so."""
    row = PostgresLease(url, schema, SWEEP_LEASE)
    loop = SweepLoop(f"{schema}-files", keeper, ring, Lease(row, clock), clock)
    stopping = asyncio.Event()
    task = asyncio.create_task(loop.run(stopping))
    try:
        yield loop
    finally:
        stopping.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), STOP_SECONDS_MAX)
        await ended(task)
        await closed(row.close)
