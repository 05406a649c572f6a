"""The event store as async code uses it: one thread writes single appends, a few others read and write in
bulk."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import LifoQueue
from typing import Any, Final, ParamSpec, TypeVar
from uuid import UUID

from chassis.clock import Clock, SystemClock
from chassis.connections.transient import StoreUnavailable
from chassis.write.events import StoredEvent
from chassis.write.store.appender import Appender
from chassis.write.store.items import NIL, Append, AppendResult, CommandSeen
from chassis.write.store.recorder import READ_EVENTS_MAX, Recorder

CONNECTIONS_MAX: Final = 4
STREAM_READ_AT_ONCE: Final = 500
"""Events of a stream that are read at once to find those of some names."""
STILL_BUSY_SECONDS_MAX: Final = 2.0
"""How long a thread may still work when the store is closed."""

P = ParamSpec("P")
T = TypeVar("T")


class EventStore:
    """One context's store. Use it from one event loop; `recorder()` gives the blocking form for a thread of
    its own."""

    def __init__(
        self, url: str, schema: str, *, clock: Clock | None = None, connections_max: int = CONNECTIONS_MAX
    ) -> None:
        self.schema = schema
        self._url = url
        self._writer = Recorder(url, schema)
        self._writing = ThreadPoolExecutor(1, thread_name_prefix=f"{schema}-appender")
        self._reading = ThreadPoolExecutor(connections_max, thread_name_prefix=f"{schema}-reader")
        self._idle: LifoQueue[Recorder] = LifoQueue(maxsize=connections_max)
        self._readers = [Recorder(url, schema) for _ in range(connections_max)]
        for reader in self._readers:
            self._idle.put_nowait(reader)
        self._calls: set[Future[Any]] = set()
        """The calls of readers that go on, also where nobody waits for them any more."""
        self._closing = False
        self._appender = Appender(self._writer.append_items, self._in_writer, clock or SystemClock())

    def recorder(self) -> Recorder:
        """A blocking store over a connection of its own; the caller closes it."""
        return Recorder(self._url, self.schema)

    @property
    def queued(self) -> int:
        """How many single appends wait for their transaction."""
        return self._appender.queued

    async def append(self, batch: Sequence[Append]) -> list[AppendResult]:
        """Appends each item wholly or not at all. Appends of several callers share a transaction."""
        return list(await asyncio.gather(*[self._appender.append(item) for item in batch]))

    async def append_one(self, item: Append) -> AppendResult:
        """As `append`, for one item."""
        return await self._appender.append(item)

    async def append_together(self, items: Sequence[Append]) -> list[AppendResult]:
        """Appends all items in one transaction; nothing is stored where one of the results is not `Appended`."""
        return await self._in_reader(lambda recorder: recorder.append_together(items))

    async def append_bulk(self, events: Sequence[StoredEvent]) -> list[int]:
        """Appends all items in one transaction.

        Raises VersionConflict or IdentityConflict, and then stores none.
        """
        return await self._in_reader(lambda recorder: recorder.append_bulk(events))

    async def read_stream(
        self, stream_id: UUID, after: int = 0, limit: int | None = None
    ) -> list[StoredEvent]:
        """Events of one stream beyond version `after`, in order, in one bounded page."""
        return await self._read(lambda recorder: recorder.read_stream(stream_id, after, limit))

    async def read_named(
        self, stream_id: UUID, names: Collection[str] | None, after: int = 0
    ) -> AsyncIterator[StoredEvent]:
        """Events of one stream beyond version `after` that have one of these stored names, or any, in order. The stream is read page by
        page."""
        while stored := await self.read_stream(stream_id, after, STREAM_READ_AT_ONCE):
            for one in stored:
                if names is None or one.name in names:
                    yield one
            if len(stored) < STREAM_READ_AT_ONCE:
                return
            after = stored[-1].version

    async def read_streams(self, after: dict[UUID, int] | Iterable[UUID]) -> dict[UUID, list[StoredEvent]]:
        """Events of several streams, from the beginning or each beyond a version."""
        wanted = after if isinstance(after, dict) else dict.fromkeys(after, 0)
        return await self._read(lambda recorder: recorder.read_streams(wanted))

    async def read_after(self, position: int, limit: int = 1000) -> list[StoredEvent]:
        """Events of all streams beyond `position`, in order."""
        return await self._read(lambda recorder: recorder.read_after(position, limit))

    async def read_by_stream(
        self,
        names: Sequence[str],
        position: int,
        after: tuple[UUID, int] = (NIL, 0),
        limit: int = READ_EVENTS_MAX,
    ) -> list[StoredEvent]:
        """Events of all streams that have one of these stored names, up to a position: by stream and version, beyond a stream and a
        version of it, in one bounded page."""
        return await self._read(lambda recorder: recorder.read_by_stream(names, position, after, limit))

    async def head_position(self) -> int:
        """Position of the last event, 0 in an empty store."""
        return await self._read(lambda recorder: recorder.head_position())

    async def stream_heads(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        """Version of the last event of each stream that has one."""
        return await self._read(lambda recorder: recorder.stream_heads(ids))

    async def stream_ends(self, ids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
        """Version and position of the last event of each stream that has one."""
        return await self._read(lambda recorder: recorder.stream_ends(ids))

    async def known_identities(self, ids: Sequence[UUID]) -> set[UUID]:
        """Returns those of the identities that are taken."""
        return await self._read(lambda recorder: recorder.known_identities(ids))

    async def read_identities(self, ids: Sequence[UUID]) -> list[StoredEvent]:
        """The events that took these identities."""
        return await self._read(lambda recorder: recorder.read_identities(ids))

    async def begun_not_ended(
        self, begun: str, ended: Sequence[str], limit: int, after: UUID = NIL
    ) -> list[UUID]:
        """Streams with an event of the one name and none of the others."""
        return await self._read(lambda recorder: recorder.begun_not_ended(begun, ended, limit, after))

    async def all_begun_not_ended(
        self, begun: str, ended: Sequence[str], streams_at_once: int
    ) -> AsyncIterator[UUID]:
        """All that `begun_not_ended` gives; so many are in memory."""
        after = NIL
        while page := await self.begun_not_ended(begun, ended, streams_at_once, after):
            for stream in page:
                yield stream
            after = page[-1]

    async def commands(self, keys: Sequence[str]) -> dict[str, CommandSeen]:
        """Returns the outcomes that are remembered under these command keys."""
        return await self._read(lambda recorder: recorder.commands(keys))

    async def snapshots(self, ids: Sequence[UUID], kind: str) -> dict[UUID, tuple[int, int, bytes]]:
        """Version, position and bytes of the snapshot of each stream that has one."""
        return await self._read(lambda recorder: recorder.snapshots(ids, kind))

    async def keep_snapshot(
        self, stream_id: UUID, kind: str, version: int, position: int, body: bytes
    ) -> None:
        """Keeps a snapshot unless a newer one is there."""
        await self._in_reader(
            lambda recorder: recorder.keep_snapshot(stream_id, kind, version, position, body)
        )

    async def close(self) -> None:
        """Writes the waiting appends, then closes threads and connections.

        A call that gets no answer is cut off.
        """
        await self._appender.close()
        self._closing = True
        busy = [self._writing.submit(lambda: None), *self._calls]
        try:
            await asyncio.to_thread(wait, busy, STILL_BUSY_SECONDS_MAX)
        finally:
            # Also where closing itself is cancelled: a thread that waits for a frozen server keeps the process.
            if not all(each.done() for each in busy):
                for recorder in (self._writer, *self._readers):
                    recorder.break_off()
        await asyncio.to_thread(self._writing.shutdown, wait=True, cancel_futures=True)
        await asyncio.to_thread(self._reading.shutdown, wait=True, cancel_futures=True)
        self._writer.close()
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _in_writer(
        self, write: Callable[[Sequence[Append]], list[AppendResult]], items: Sequence[Append]
    ) -> "asyncio.Future[list[AppendResult]]":
        return asyncio.get_running_loop().run_in_executor(self._writing, write, items)

    async def _read(self, question: Callable[[Recorder], T]) -> T:
        """Asks once more over a new connection where the one at hand was lost.

        An idle connection does not notice that its server was restarted.
        """

        def asked(recorder: Recorder) -> T:
            was_connected = recorder.connected
            try:
                return question(recorder)
            except StoreUnavailable:
                if self._closing or not was_connected:
                    raise
                return question(recorder)

        return await self._in_reader(asked)

    async def _in_reader(self, use: Callable[[Recorder], T]) -> T:
        call = self._reading.submit(self._with_recorder, use)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.wrap_future(call)

    def _with_recorder(self, use: Callable[[Recorder], T]) -> T:
        recorder = self._idle.get_nowait()
        try:
            return use(recorder)
        finally:
            self._idle.put_nowait(recorder)
