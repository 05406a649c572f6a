"""Micro-batching: single appends that wait while a commit is under way go into the next commit together.

There is no timer: a batch is the appends that came during the last commit. An idle store therefore answers
at once, and a busy one within two commits.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from chassis.clock import Clock
from chassis.connections.transient import StoreUnavailable, Transient
from chassis.write.store.items import Append, AppendResult, checked_sizes

QUEUED_ITEMS_MAX: Final = 10_000
BATCH_ITEMS_MAX: Final = 500
BATCH_ITEMS_UNDIVIDED: Final = 100
"""Where more wait, half of them are written first. The others are written while the callers of the first half
decide again."""
BATCH_EVENTS_MAX: Final = 2_000
CLOSING_SECONDS_MAX: Final = 8.0
"""Below the bounded shutdown of a role."""
RETRY_SECONDS_MAX: Final = 10.0
RETRY_PAUSE_SECONDS: Final = 0.1

Write = Callable[[Sequence[Append]], list[AppendResult]]
"""One transaction, blocking."""
Run = Callable[[Write, Sequence[Append]], "asyncio.Future[list[AppendResult]]"]
"""Runs a write in the appender's own thread."""


_Waiting = tuple[Append, "asyncio.Future[AppendResult]"]


class StoreOverloaded(Transient):
    """Too many appends wait already. The caller should try again later."""


class Appender:
    """Batches appends into transactions; one transaction at a time, in the order of arrival for each stream.

    When the connection breaks, a batch of items that all carry a command is sent again for up to
    `RETRY_SECONDS_MAX`: their keys tell what was stored before. Items without one fail with StoreUnavailable.
    Where the database refuses a batch for what one member holds, its members are tried one by one.
    """

    def __init__(
        self, write: Write, run: Run, clock: Clock, *, closing_seconds: float = CLOSING_SECONDS_MAX
    ) -> None:
        self._closing_seconds = closing_seconds
        self._write = write
        self._run = run
        self._clock = clock
        self._queue: deque[tuple[Append, asyncio.Future[AppendResult]]] = deque()
        self._under_way: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def queued(self) -> int:
        """How many appends wait."""
        return len(self._queue)

    async def append(self, item: Append) -> AppendResult:
        """Stores one item; raises EventOversized, StoreOverloaded or StoreUnavailable."""
        checked_sizes(item.events)
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if len(self._queue) >= QUEUED_ITEMS_MAX:
            raise StoreOverloaded(f"{QUEUED_ITEMS_MAX} appends wait")
        future: asyncio.Future[AppendResult] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush())
        return await future

    async def close(self) -> None:
        """Writes the waiting appends, within `CLOSING_SECONDS_MAX`, and accepts no more.

        Callers that still wait then get StoreUnavailable: whether their write happened is unknown.
        """
        self._closed = True
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task], timeout=self._closing_seconds)
            self._task.cancel()
        left = [*self._under_way, *self._queue]
        self._queue.clear()
        for _, future in left:
            if not future.done():
                future.set_exception(StoreUnavailable("the store was closed"))

    async def _flush(self) -> None:
        while self._queue:
            batch = self._under_way = self._take()
            if batch:
                await self._answered(batch)

    async def _answered(self, batch: "list[_Waiting]") -> None:
        """Writes a batch and gives each waiting caller its own result."""
        try:
            results = await self._written([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 (each waiting caller gets it)
            if len(batch) > 1 and not isinstance(error, StoreUnavailable):
                for one in batch:
                    await self._answered([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _written(self, items: list[Append]) -> list[AppendResult]:
        deadline = self._clock.monotonic() + RETRY_SECONDS_MAX
        while True:
            try:
                return await self._run(self._write, items)
            except StoreUnavailable:
                safe = all(item.command is not None for item in items)
                if not safe or self._clock.monotonic() > deadline:
                    raise
                await self._clock.sleep(RETRY_PAUSE_SECONDS)

    def _take(self) -> list[tuple[Append, asyncio.Future[AppendResult]]]:
        """Returns the next batch.

        An item with the same stream, identity or key as a member waits for the batch after it.
        """
        batch: list[tuple[Append, asyncio.Future[AppendResult]]] = []
        later: list[tuple[Append, asyncio.Future[AppendResult]]] = []
        # The keys are integers: a UUID computes its hash in Python each time.
        streams: set[int] = set()
        identities: set[int] = set()
        keys: set[str] = set()
        events = 0
        queue = self._queue
        items_max = min(BATCH_ITEMS_MAX, max(BATCH_ITEMS_UNDIVIDED, len(queue) // 2))
        while queue and len(batch) < items_max and events < BATCH_EVENTS_MAX:
            one = queue.popleft()
            item, future = one
            if future.cancelled():
                continue
            stream = item.stream_id.int
            own = [event.identity.int for event in item.events if event.identity is not None]
            key = None if item.command is None else item.command.key
            if stream in streams or key in keys or not identities.isdisjoint(own):
                streams.add(stream)
                later.append(one)
                continue
            streams.add(stream)
            identities.update(own)
            if key is not None:
                keys.add(key)
            events += len(item.events)
            batch.append(one)
        queue.extendleft(reversed(later))
        return batch
