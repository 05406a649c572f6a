"""The three servers of the simulation, as far as their promises matter.

PostgreSQL: transactions that may be aborted, unique constraints, positions drawn under a lock that is held over the
commit. Kafka: partitions that keep their order, batches of which a prefix may arrive, also after their sender has
died. MongoDB: single-document compare-and-set. What each forgets when it is broken on purpose is a flag of `Flaws`.
"""

import asyncio
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

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


class Aborted(Injected):
    """The transaction was rolled back; its positions are burned."""


class Conflict(Exception):
    """A unique constraint: which one."""

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the events table."""

    position: int
    stream: UUID
    version: int
    name: str
    body: bytes
    identity: UUID | None


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row before it has its position."""

    stream: UUID
    version: int
    name: str
    body: bytes
    identity: UUID | None = None


@dataclass(slots=True)
class LogServer:
    """The events table of one context, with the memory of commands in the same transaction."""

    kernel: Kernel
    flaws: Flaws
    abort: float = 0.05
    rows: list[Row] = field(default_factory=list)
    commands: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _drawn: int = 0
    _holder: Actor | None = None
    _aborts: int = 0

    async def insert(self, rows: Sequence[NewRow], command: str | None = None) -> tuple[int, ...]:
        """One transaction. Returns the positions, of this or of an earlier run of the same command."""
        kernel = self.kernel
        await kernel.gate("log begin")
        while not self.flaws.no_commit_lock and self._holder is not None and not self._holder.dead:
            await kernel.sleep(LOCK_RETRY_SECONDS)
        self._holder = kernel.actor()
        try:
            if command is not None and command in self.commands and not self.flaws.no_command_memory:
                return self.commands[command]
            first = self._drawn + 1
            self._drawn += len(rows)
            new = [
                Row(first + at, r.stream, r.version, r.name, r.body, r.identity) for at, r in enumerate(rows)
            ]
            await kernel.gate("log commit")
            self._check(rows)
            if self._draws_abort():
                kernel.note(f"log aborts {first}..{self._drawn}")
                raise Aborted("log")
            self.rows.extend(new)
            self.rows.sort(key=lambda row: row.position)
            positions = tuple(row.position for row in new)
            if command is not None:
                self.commands[command] = positions
        finally:
            if self._holder is kernel.actor():
                self._holder = None
        await kernel.call("log answer", lambda: None)
        return positions

    def _check(self, rows: Sequence[NewRow]) -> None:
        versions = {(row.stream, row.version) for row in self.rows}
        identities = {row.identity for row in self.rows if row.identity is not None}
        for row in rows:
            if (row.stream, row.version) in versions and not self.flaws.no_version_check:
                raise Conflict("version")
            if row.identity is not None and row.identity in identities and not self.flaws.no_identity_check:
                raise Conflict("identity")
            versions.add((row.stream, row.version))
            identities.add(row.identity or UUID(int=0))

    def _draws_abort(self) -> bool:
        if self.kernel.healed or self._aborts >= ABORTS_MAX or self.kernel.chance.random() >= self.abort:
            return False
        self._aborts += 1
        return True

    async def read_after(self, position: int, limit: int) -> list[Row]:
        """Committed rows behind a position, in order."""
        return await self.kernel.call(
            "log read", lambda: [row for row in self.rows if row.position > position][:limit]
        )


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


Document = dict[str, object]


@dataclass(slots=True)
class DocumentServer:
    """Collections of documents by id; every write is of one document and atomic."""

    kernel: Kernel
    collections: dict[str, dict[str, Document]] = field(default_factory=dict)

    def collection(self, name: str) -> dict[str, Document]:
        """A collection, made when it is first named."""
        return self.collections.setdefault(name, {})

    async def call(self, point: str, effect: Callable[[], object]) -> object:
        """One round trip."""
        return await self.kernel.call(point, effect)
