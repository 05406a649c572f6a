"""PostgreSQL and Kafka in the simulation, as far as their promises matter.

PostgreSQL: transactions that may be aborted, unique constraints, positions drawn under a lock that is held over the
commit, the relay's position row. Kafka: partitions that keep their order, batches of which a beginning may arrive,
also after their sender has died. What each forgets when it is broken on purpose is a flag of `Flaws`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from chassis.connections.transient import StoreUnavailable
from chassis.messaging.records import Record
from chassis.messaging.transport import Partition, Publisher, PublishFailed
from chassis.process.leases import LeaseRow
from chassis.relay.loop import Counted, Held, RelayPositions
from chassis.write.events import StoredEvent
from chassis.write.store.items import (
    Append,
    Appended,
    AppendResult,
    CommandSeen,
    Fenced,
    IdentityConflict,
    VersionConflict,
)
from msgspec import structs
from typing_extensions import override

from tests.simulation.kernel import Actor, Injected, Kernel

LOCK_RETRY_SECONDS = 0.003
ABORTS_MAX = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Flaws:
    """Promises that a server breaks in a planted bug."""

    no_commit_lock: bool = False
    no_identity_check: bool = False
    no_version_check: bool = False
    no_command_memory: bool = False
    no_fence: bool = False
    lease_without_expiry: bool = False
    topic_loses_beginning: bool = False


@dataclass(slots=True)
class LogServer:
    """The events table of one context, with the memory of commands in the same transaction."""

    kernel: Kernel
    flaws: Flaws
    abort: float = 0.05
    rows: list[StoredEvent] = field(default_factory=list)
    commands: dict[str, CommandSeen] = field(default_factory=dict)
    snapshots: dict[tuple[UUID, str], tuple[int, int, bytes]] = field(default_factory=dict)
    """By stream and kind."""
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

    async def append_together(self, items: Sequence[Append]) -> list[AppendResult]:
        """One transaction in which all items succeed, or nothing is stored."""
        async with self._transaction():
            drawn = self._draw(sum(len(item.events) for item in items))
            await self.kernel.gate("log commit")
            self._may_abort()
            rows, commands = list(self.rows), dict(self.commands)
            results = [self._append_item(item, drawn) for item in items]
            if not all(isinstance(result, Appended) for result in results):
                self.rows, self.commands = rows, commands
            return results

    async def append_bulk(self, events: Sequence[StoredEvent]) -> list[int]:
        """All in one transaction, or VersionConflict, IdentityConflict, StoreUnavailable."""
        async with self._transaction():
            drawn = self._draw(len(events))
            await self.kernel.gate("log commit")
            self._may_abort()
            for number, event in enumerate(events):
                if (
                    event.version != self.head(event.stream_id, events[:number]) + 1
                    and not self._lax_versions
                ):
                    raise VersionConflict(event.stream_id, self.head(event.stream_id))
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
        head = self.head(item.stream_id)
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

    def head(self, stream: UUID, besides: Sequence[StoredEvent] = ()) -> int:
        """The last version of a stream, 0 where it has none."""
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
            self.kernel.met["abort"] += 1
            self.kernel.note("log aborts")
            raise StoreUnavailable("aborted")

    async def read_after(self, position: int, limit: int = 1_000) -> list[StoredEvent]:
        """Committed events behind a position, in order."""

        def committed() -> list[StoredEvent]:
            return [row for row in self.rows if position_of(row) > position][:limit]

        return await self.kernel.call("log read", committed)

    async def read_stream(self, stream_id: UUID, after: int, limit: int) -> list[StoredEvent]:
        """Events of one stream behind a version, in order."""
        rows = [row for row in self.rows if row.stream_id == stream_id and row.version > after]
        return await self.kernel.call("log read", lambda: rows[:limit])

    async def stream_heads(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        """The last version of each stream, 0 where it has none."""
        return await self.kernel.call("log heads", lambda: {stream: self.head(stream) for stream in ids})


def position_of(event: StoredEvent) -> int:
    """The position of an event that was stored."""
    if event.position is None:
        raise ValueError("an event without a position was never stored")
    return event.position


@dataclass(slots=True)
class BrokerServer(Publisher):
    """Topics of partitions, and how far each group says it is.

    A batch goes partition by partition, each at its own pace; the rest of it may arrive after its sender has given up
    or died. Every partition keeps the order in which one call gave its records.
    """

    kernel: Kernel
    logs: dict[Partition, list[Record]] = field(default_factory=dict)
    committed: dict[tuple[str, Partition], int] = field(default_factory=dict)
    _flights: int = 0

    def append(self, record: Record) -> None:
        """Puts one record at the end of its partition."""
        log = self.logs.setdefault((record.topic, record.partition), [])
        log.append(record._replace(offset=len(log)))

    def lose_beginning(self) -> None:
        """Half of every partition is gone, as if the topic had been made anew meanwhile."""
        for place, log in self.logs.items():
            self.logs[place] = log[len(log) // 2 :]

    def end(self, place: Partition) -> int:
        """The offset that the next record will have."""
        return len(self.logs.get(place, ()))

    @override
    async def publish(self, records: Sequence[Record]) -> None:
        kernel = self.kernel
        await kernel.gate("send")
        batches: dict[Partition, list[Record]] = {}
        for record in records:
            batches.setdefault((record.topic, record.partition), []).append(record)
        flights = [self._flight(batch) for batch in batches.values()]
        if kernel.draw_cut(1) == 0:
            raise PublishFailed("no answer in time")
        landed = await kernel.wait(asyncio.gather(*flights))
        if not all(landed):
            raise PublishFailed("a connection broke")

    def _flight(self, batch: Sequence[Record]) -> "asyncio.Future[bool]":
        """What the network carries to one partition, whatever becomes of the sender."""
        kernel = self.kernel
        landed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        lost_after = kernel.draw_cut(len(batch))
        delay_seconds = kernel.draw_delay()

        async def flight() -> None:
            await kernel.gate("in flight", after_seconds=delay_seconds)
            for record in batch[:lost_after]:
                self.append(record)
                await kernel.gate("in flight")
            if not landed.done():
                landed.set_result(lost_after >= len(batch))

        self._flights += 1
        kernel.spawn(f"network-{self._flights}", flight, mortal=False)
        return landed

    async def fetch(self, place: Partition, offset: int, limit: int) -> list[Record]:
        """Records from an offset on."""
        return await self.kernel.call("fetch", lambda: self.logs.get(place, [])[offset : offset + limit])

    async def fetch_all(self, offsets: Mapping[Partition, int], limit: int) -> list[list[Record]]:
        """Records of several partitions, each from an offset on."""
        logs = self.logs

        def there() -> list[list[Record]]:
            return [logs.get(place, [])[offset : offset + limit] for place, offset in offsets.items()]

        return await self.kernel.call("fetch", there)

    async def commit(self, group: str, place: Partition, offset: int) -> None:
        """Keeps how far a group says it is, as the last who says so has it."""
        await self.kernel.call("commit", lambda: self.committed.__setitem__((group, place), offset))

    async def offset(self, group: str, place: Partition) -> int:
        """Where a member of a group goes on."""
        return await self.kernel.call("offset", lambda: self.committed.get((group, place), 0))


@dataclass(slots=True)
class PositionServer(RelayPositions, LeaseRow):
    """The position row of a relay and the row of its lease, which expires on the server's clock."""

    kernel: Kernel
    flaws: Flaws
    epoch: int = 0
    position: int = 0
    accepted: list[tuple[int, int]] = field(default_factory=list)
    """Epoch of who saved, and the latest one then."""
    fenced: int = 0
    holder: Actor | None = None
    kept: Counted = field(default_factory=Counted)
    _expires_at: float = 0.0

    @override
    async def take(self, seconds: float) -> int | None:
        me = self.kernel.actor()
        return await self._ask("take", lambda: self._begin(me, seconds))

    @override
    async def renew(self, epoch: int, seconds: float) -> bool:
        return await self._ask("renew", lambda: self._prolong(epoch, seconds))

    @override
    async def release(self, epoch: int) -> None:
        await self._ask("release", lambda: self._prolong(epoch, 0.0))

    @override
    async def read(self) -> int:
        return await self._ask("read position", lambda: self.position)

    @override
    async def counted(self) -> Counted | None:
        return await self._ask("read counts", lambda: self.kept)

    @override
    async def held(self) -> list[Held]:
        return []

    @override
    async def let_go(self, epoch: int, subject: UUID, held: Held | None) -> None:
        raise AssertionError("nothing is held here")

    @override
    async def save(
        self, epoch: int, position: int, held: Sequence[Held] = (), counted: Counted | None = None
    ) -> None:
        await self._ask("save position", lambda: self._keep(epoch, position, counted))

    def _begin(self, me: Actor | None, seconds: float) -> int | None:
        held = self.holder is not None and self.holder is not me
        if held and (self.kernel.seconds < self._expires_at or self._is_a_session()):
            return None
        if held and self.holder is not None and not self.holder.dead:
            self.kernel.met["lease taken over"] += 1
            self.kernel.note("the lease is taken over")
        self.holder, self._expires_at = me, self.kernel.seconds + seconds
        self.epoch += 1
        return self.epoch

    def _is_a_session(self) -> bool:
        """What a lock of a session does: it is held until its holder dies."""
        return self.flaws.lease_without_expiry and self.holder is not None and not self.holder.dead

    def _prolong(self, epoch: int, seconds: float) -> bool:
        if epoch != self.epoch:
            return False
        self._expires_at = self.kernel.seconds + seconds
        return True

    def _keep(self, epoch: int, position: int, counted: Counted | None) -> None:
        if epoch != self.epoch and not self.flaws.no_fence:
            self.fenced += 1
            raise Fenced(f"epoch {epoch} is over")
        self.accepted.append((epoch, self.epoch))
        self.position = position if self.flaws.no_fence else max(self.position, position)
        self.kept = counted or self.kept

    async def _ask(self, point: str, effect: Callable[[], T]) -> T:
        try:
            return await self.kernel.call(point, effect)
        except Injected as error:
            raise StoreUnavailable(point) from error
