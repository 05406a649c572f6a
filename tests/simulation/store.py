"""The event store and the key ring of the chassis over the simulated PostgreSQL.

Facade, appender, caches and retries are the chassis' own. What the recorder and the key ring send as SQL is answered from
dictionaries.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast
from uuid import UUID, uuid5

from chassis.connections.transient import StoreUnavailable
from chassis.privacy.keys import DataKey, KeyRing
from chassis.write.events import StoredEvent
from chassis.write.store import Append, AppendResult, CommandSeen, EventStore
from chassis.write.store.appender import Appender
from typing_extensions import override

from tests.simulation.kernel import Injected, Kernel
from tests.simulation.scenario import NAMESPACE
from tests.simulation.servers import LogServer, position_of

T = TypeVar("T")


class Answers:
    """What PostgreSQL answers to the queries of a recorder."""

    connected = False

    def __init__(self, log: LogServer) -> None:
        self._log = log

    def read_stream(self, stream: UUID, after: int, limit: int | None) -> list[StoredEvent]:
        """Events of one stream behind a version, in order."""
        return [row for row in self._log.rows if row.stream_id == stream and row.version > after][:limit]

    def read_streams(self, after: dict[UUID, int]) -> dict[UUID, list[StoredEvent]]:
        """The same of several streams."""
        return {stream: self.read_stream(stream, version, None) for stream, version in after.items()}

    def read_after(self, position: int, limit: int) -> list[StoredEvent]:
        """Events of all streams behind a position, in order."""
        return [row for row in self._log.rows if position_of(row) > position][:limit]

    def stream_heads(self, streams: Sequence[UUID]) -> dict[UUID, int]:
        """The last version of each stream that has one."""
        heads = {stream: self._log.head(stream) for stream in streams}
        return {stream: head for stream, head in heads.items() if head}

    def stream_ends(self, streams: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
        """The version and position of the last event of each stream that has one."""
        rows = [row for row in self._log.rows if row.stream_id in streams]
        return {row.stream_id: (row.version, position_of(row)) for row in rows}

    def known_identities(self, identities: Sequence[UUID]) -> set[UUID]:
        """Those that are taken."""
        return {row.identity for row in self._log.rows if row.identity is not None} & set(identities)

    def begun_not_ended(self, begun: str, ended: Sequence[str], limit: int, after: UUID) -> list[UUID]:
        """Streams with an event of the one name and none of the others."""
        over = {row.stream_id for row in self._log.rows if row.name in ended}
        found = {row.stream_id for row in self._log.rows if row.name == begun and row.stream_id > after}
        return sorted(found - over)[:limit]

    def head_position(self) -> int:
        """The position of the last event."""
        return max(map(position_of, self._log.rows), default=0)

    def commands(self, keys: Sequence[str]) -> dict[str, CommandSeen]:
        """The outcomes that are remembered."""
        return {key: self._log.commands[key] for key in keys if key in self._log.commands}

    def snapshots(self, streams: Sequence[UUID], kind: str) -> dict[UUID, tuple[int, int, bytes]]:
        """The snapshot of each stream that has one."""
        kept = self._log.snapshots
        return {stream: kept[stream, kind] for stream in streams if (stream, kind) in kept}

    def keep_snapshot(self, stream: UUID, kind: str, version: int, position: int, body: bytes) -> None:
        """Keeps a snapshot unless a newer one is there."""
        if self._log.snapshots.get((stream, kind), (0, 0, b""))[0] < version:
            self._log.snapshots[stream, kind] = (version, position, body)


class StoreClient(EventStore):
    """The store as one process has it."""

    def __init__(self, log: LogServer) -> None:
        self.schema = "simulation"
        self._log = log
        self._answers = Answers(log)
        self._appender = Appender(self._unused, self._in_writer, log.kernel)

    @staticmethod
    def _unused(items: Sequence[Append]) -> list[AppendResult]:
        raise AssertionError("the simulated log writes itself")

    @override
    def _in_writer(self, write: object, items: Sequence[Append]) -> "asyncio.Future[list[AppendResult]]":
        return asyncio.ensure_future(self._log.append_items(items))

    @override
    async def append_together(self, items: Sequence[Append]) -> list[AppendResult]:
        return await self._log.append_together(items)

    @override
    async def _in_reader(self, use: Callable[[Any], T]) -> T:
        try:
            return await self._log.kernel.call("log read", lambda: use(self._answers))
        except Injected as error:
            raise StoreUnavailable("log read") from error


class SimulatedKeys(KeyRing):
    """The key ring as one process has it; `there` is the key database."""

    def __init__(self, kernel: Kernel, there: Mapping[UUID, DataKey]) -> None:
        super().__init__("", None, kernel.monotonic)  # type: ignore[arg-type]
        self._there = cast("dict[UUID, DataKey | None]", there)

    @override
    def _query(
        self, subjects: list[UUID], create: bool, purposes: Collection[str]
    ) -> dict[UUID, DataKey | None]:
        for subject in subjects if create else ():
            key = uuid5(subject, "key")
            parts = {
                purpose: DataKey(subject, uuid5(key, purpose), uuid5(key, purpose).bytes * 2)
                for purpose in sorted(purposes)
            }
            self._there.setdefault(subject, DataKey(subject, key, key.bytes * 2, parts or None))
        return {subject: self._there[subject] for subject in subjects if subject in self._there}

    @override
    def secret(self, purpose: str, *, create: bool = True) -> bytes:
        return uuid5(NAMESPACE, purpose).bytes * 2

    @override
    def _erase(self, gone: list[UUID]) -> int:
        self._there.update(dict.fromkeys(gone))
        self._forget(gone)
        return len(gone)

    @override
    def _erase_part(self, gone: list[UUID], purpose: str) -> int:
        for subject in gone:
            key = self._there.get(subject)
            if key is not None:
                parts = {**(key.parts or {}), purpose: None}
                self._there[subject] = DataKey(subject, key.id, key.material, parts)
        self._forget(gone)
        return len(gone)

    @override
    def erased(self, subjects: Iterable[UUID], purpose: str | None = None) -> set[UUID]:
        return {
            subject
            for subject in subjects
            if subject in self._there
            and ((key := self._there[subject]) is None or (purpose is not None and key.of(purpose) is None))
        }
