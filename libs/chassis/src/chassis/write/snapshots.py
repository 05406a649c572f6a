"""Snapshots of long streams, taken in the background.

They are only a cache: a lost snapshot costs time, and no event.

A snapshot holds the values of its events, so it is sealed whole under the key of its stream and erased
with that key. Where streams have no keys, a secret of the key custody seals them all: nobody but a service of ours
makes a snapshot, which stands for events that are not read.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Generic, Protocol, TypeVar
from uuid import UUID

import msgspec

from chassis.privacy.key_encryption import Tampered
from chassis.privacy.keys import DataKey, KeyRing, open_bytes, seal_bytes
from chassis.write.deciding import Decider

StateT = TypeVar("StateT")

SNAPSHOT_EVENTS: Final = 200
"""A stream gets a snapshot when it has grown by so many events since the last one."""
QUEUED_SNAPSHOTS_MAX: Final = 1_000
REMEMBERED_MAX: Final = 50_000
PURPOSE: Final = "snapshots"
"""The purpose under which the key custody keeps the secret of streams without keys. Where it is lost, events are read."""


class Loaded(msgspec.Struct, Generic[StateT], frozen=True):
    """A stream's state: at which version, and the position of its last event."""

    state: StateT
    version: int
    position: int


class SnapshotStore(Protocol):
    """Where snapshots are kept; the event store is one."""

    async def snapshots(self, ids: Sequence[UUID], kind: str) -> dict[UUID, tuple[int, int, bytes]]:
        """Version, position and bytes of the snapshot of each stream that has one."""
        ...

    async def keep_snapshot(
        self, stream_id: UUID, kind: str, version: int, position: int, body: bytes
    ) -> None:
        """Keeps a snapshot unless a newer one is there."""
        ...


@dataclass(frozen=True, slots=True)
class _Due:
    stream_id: UUID
    state: Any
    version: int
    position: int


class Snapshots(Generic[StateT]):
    """Takes snapshots of the states of one decider.

    `kind` names the decider. Its `state_type` and `state_version` name the state's shape.
    """

    def __init__(
        self,
        store: SnapshotStore,
        keys: KeyRing,
        *,
        kind: str,
        decider: Decider[Any, StateT, Any],
        every_events: int = SNAPSHOT_EVENTS,
        failed: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._keys = keys
        if decider.state_type is None:
            raise ValueError(f"the decider {kind} names no state_type, so its states cannot be read again")
        self._kind = f"{kind}.v{decider.state_version}"
        self._state_type = decider.state_type
        self._keyed = decider.keyed
        self._shared: DataKey | None = None
        self._every = every_events
        self._failed = failed
        self._last: dict[UUID, int] = {}
        self._queue: asyncio.Queue[_Due] = asyncio.Queue(maxsize=QUEUED_SNAPSHOTS_MAX)
        self._task: asyncio.Task[None] | None = None

    def consider(self, stream_id: UUID, state: StateT, version: int, position: int) -> None:
        """Queues a snapshot if the stream has grown enough; skips it when too many are queued."""
        if version - self._last.get(stream_id, 0) < self._every or self._queue.full():
            return
        self._remember(stream_id, version)
        self._queue.put_nowait(_Due(stream_id, state, version, position))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def load(self, streams: Sequence[UUID], keys: Mapping[UUID, DataKey]) -> dict[UUID, Loaded[StateT]]:
        """Returns the last snapshot of each stream that has a readable one."""
        found: dict[UUID, Loaded[StateT]] = {}
        kept = await self._store.snapshots(streams, self._kind)
        if kept and not self._keyed:
            keys = dict.fromkeys(kept, await self._shared_key())
        for stream, (version, position, body) in kept.items():
            state = self._opened(stream, version, body, keys.get(stream))
            if state is not None:
                found[stream] = Loaded(state, version, position)
                self._remember(stream, version)
        return found

    async def settle(self) -> None:
        """Waits until every queued snapshot is kept or has failed."""
        if self._task is not None:
            await self._task

    def _opened(self, stream: UUID, version: int, body: bytes, key: DataKey | None) -> StateT | None:
        try:
            plain = open_bytes(None if key is None else key.whole, self._place(stream, version), body)
            return None if plain is None else msgspec.msgpack.decode(plain, type=self._state_type)
        except (Tampered, msgspec.DecodeError) as error:
            self._failed(error)
            return None

    async def _work(self) -> None:
        while not self._queue.empty():
            due = self._queue.get_nowait()
            try:
                await self._take(due)
            except Exception as error:  # noqa: BLE001 (a snapshot that fails is reported and taken another time)
                self._last.pop(due.stream_id, None)
                self._failed(error)

    async def _take(self, due: _Due) -> None:
        key = await self._key(due.stream_id) if self._keyed else await self._shared_key()
        if key is None:
            return
        plain = msgspec.msgpack.encode(due.state)
        body = seal_bytes(key.whole, self._place(due.stream_id, due.version), plain)
        await self._store.keep_snapshot(due.stream_id, self._kind, due.version, due.position, body)

    async def _key(self, stream: UUID) -> DataKey | None:
        return (await asyncio.to_thread(self._keys.keys_for, [stream], create=False)).get(stream)

    async def _shared_key(self) -> DataKey:
        if self._shared is None:
            secret = await asyncio.to_thread(self._keys.secret, PURPOSE)
            name = UUID(bytes=blake2b(b"id", key=secret, digest_size=16).digest())
            self._shared = DataKey(name, name, secret)
        return self._shared

    def _place(self, stream: UUID, version: int) -> str:
        return f"snapshot|{self._kind}|{stream.hex}|{version}"

    def _remember(self, stream_id: UUID, version: int) -> None:
        if len(self._last) >= REMEMBERED_MAX:
            self._last.clear()
        self._last[stream_id] = version
