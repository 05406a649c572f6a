"""The three servers of the simulation, as far as their promises matter.

PostgreSQL: transactions that may be aborted, unique constraints, positions drawn under a lock that is held over the
commit. Kafka: partitions that keep their order, batches of which a prefix may arrive, also after their sender has
died. MongoDB: single-document compare-and-set. What each forgets when it is broken on purpose is a flag of `Flaws`.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from chassis.events import StoredEvent
from chassis.store.items import (
    Append,
    Appended,
    AppendResult,
    CommandSeen,
    IdentityConflict,
    StoreUnavailable,
    VersionConflict,
)
from msgspec import structs

from tests.simulation.kernel import Actor, Injected, Kernel

LOCK_RETRY_SECONDS = 0.003
ABORTS_MAX = 20


@dataclass(frozen=True, slots=True)
class Flaws:
    """Promises that a server breaks in a planted bug."""

    no_commit_lock: bool = False
    no_identity_check: bool = False
    no_version_check: bool = False
    no_command_memory: bool = False
    no_fence: bool = False


@dataclass(slots=True)
class LogServer:
    """The events table of one context, with the memory of commands in the same transaction."""

    kernel: Kernel
    flaws: Flaws
    abort: float = 0.05
    rows: list[StoredEvent] = field(default_factory=list)
    commands: dict[str, CommandSeen] = field(default_factory=dict)
    _drawn: int = 0
    _holder: Actor | None = None
    _aborts: int = 0

    async def append_items(self, items: Sequence[Append]) -> list[AppendResult]:
        """One transaction in which each item succeeds or fails alone; raises StoreUnavailable when in doubt."""
        async with self._transaction():
            drawn = self._draw(sum(len(item.events) for item in items))
            await self.kernel.gate("log commit")
            self._may_abort()
            return [self._append_item(item, drawn) for item in items]

    async def append_bulk(self, events: Sequence[StoredEvent]) -> list[int]:
        """All in one transaction, or VersionConflict, IdentityConflict, StoreUnavailable."""
        async with self._transaction():
            drawn = self._draw(len(events))
            await self.kernel.gate("log commit")
            self._may_abort()
            for number, event in enumerate(events):
                if (
                    event.version != self._head(event.stream_id, events[:number]) + 1
                    and not self._lax_versions
                ):
                    raise VersionConflict(event.stream_id, self._head(event.stream_id))
                if self._taken(event):
                    raise IdentityConflict(event.identity)
            return self._store(events, drawn)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """The commit-order lock, lost with its holder, and an answer that may not arrive."""
        kernel = self.kernel
        await self._reach("log begin")
        while not self.flaws.no_commit_lock and self._holder is not None and not self._holder.dead:
            await kernel.sleep(LOCK_RETRY_SECONDS)
        me = self._holder = kernel.actor()
        try:
            yield
        finally:
            if self._holder is me:
                self._holder = None
        await self._reach("log answer")

    async def _reach(self, point: str) -> None:
        try:
            await self.kernel.call(point, lambda: None)
        except Injected as error:
            raise StoreUnavailable(point) from error

    def _append_item(self, item: Append, drawn: Iterator[int]) -> AppendResult:
        command = item.command
        if command is not None and command.key in self.commands and not self.flaws.no_command_memory:
            return self.commands[command.key]
        head = self._head(item.stream_id)
        if item.first != head + 1 and not self._lax_versions:
            return VersionConflict(item.stream_id, head)
        for event in item.events:
            if self._taken(event):
                return IdentityConflict(event.identity)
        positions = self._store(item.events, drawn)
        if command is not None:
            version = head + len(item.events)
            seen = CommandSeen(command.key, command.fingerprint, item.stream_id, version, len(item.events))
            self.commands[command.key] = seen
        return Appended(tuple(positions))

    def _store(self, events: Sequence[StoredEvent], drawn: Iterator[int]) -> list[int]:
        new = [structs.replace(event, position=next(drawn)) for event in events]
        self.rows.extend(new)
        self.rows.sort(key=position_of)
        return [position_of(event) for event in new]

    def _draw(self, count: int) -> Iterator[int]:
        first, self._drawn = self._drawn + 1, self._drawn + count
        return iter(range(first, first + count))

    def _head(self, stream: UUID, besides: Sequence[StoredEvent] = ()) -> int:
        return max((row.version for row in (*self.rows, *besides) if row.stream_id == stream), default=0)

    @property
    def _lax_versions(self) -> bool:
        return self.flaws.no_version_check

    def _taken(self, event: StoredEvent) -> bool:
        if event.identity is None or self.flaws.no_identity_check:
            return False
        return any(row.identity == event.identity for row in self.rows)

    def _may_abort(self) -> None:
        if not self.kernel.healed and self._aborts < ABORTS_MAX and self.kernel.chance.random() < self.abort:
            self._aborts += 1
            self.kernel.note("log aborts")
            raise StoreUnavailable("aborted")

    async def read_after(self, position: int, limit: int = 1_000) -> list[StoredEvent]:
        """Committed events behind a position, in order."""

        def committed() -> list[StoredEvent]:
            return [row for row in self.rows if position_of(row) > position][:limit]

        return await self.kernel.call("log read", committed)

    async def stream_heads(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        """The last version of each stream, 0 where it has none."""
        return await self.kernel.call("log heads", lambda: {stream: self._head(stream) for stream in ids})


def position_of(event: StoredEvent) -> int:
    """The position of an event that was stored."""
    if event.position is None:
        raise ValueError("an event without a position was never stored")
    return event.position


@dataclass(frozen=True, slots=True)
class Record:
    """What lies at an offset of a partition."""

    offset: int
    key: bytes
    headers: tuple[tuple[str, bytes], ...]
    value: bytes


@dataclass(slots=True)
class BrokerServer:
    """Topics of partitions. A batch arrives record by record, and its rest may arrive after its sender has died."""

    kernel: Kernel
    partitions: int = 2
    logs: dict[tuple[str, int], list[Record]] = field(default_factory=dict)
    _flights: int = 0

    def partition_of(self, key: bytes) -> int:
        """The same key always goes to the same partition."""
        return zlib.crc32(key) % self.partitions

    def append(self, topic: str, key: bytes, headers: Sequence[tuple[str, bytes]], value: bytes) -> None:
        """Puts one record at the end of its partition."""
        log = self.logs.setdefault((topic, self.partition_of(key)), [])
        log.append(Record(len(log), key, tuple(headers), value))

    async def publish(self, batch: Sequence[tuple[str, bytes, Sequence[tuple[str, bytes]], bytes]]) -> None:
        """Sends a batch and waits for all acknowledgements; the network carries it, whatever becomes of the sender."""
        kernel = self.kernel
        await kernel.gate("send")
        self._flights += 1
        landed = asyncio.get_running_loop().create_future()
        lost_after = kernel.draw_cut(len(batch))

        async def flight() -> None:
            for number, (topic, key, headers, value) in enumerate(batch):
                await kernel.gate("in flight")
                if number >= lost_after:
                    break
                self.append(topic, key, headers, value)
            if not landed.done():
                landed.set_result(lost_after >= len(batch))

        kernel.spawn(f"network-{self._flights}", flight, mortal=False)
        if not await kernel.wait(landed):
            raise Injected("publish")
        await kernel.gate("acknowledged")

    async def fetch(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Records from an offset on."""
        return await self.kernel.call(
            "fetch", lambda: self.logs.get((topic, partition), [])[offset : offset + limit]
        )
