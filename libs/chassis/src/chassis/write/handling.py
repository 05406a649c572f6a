"""Runs a decider over the event store: load, decide, append; idempotent, concurrent, bounded."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC
from hashlib import blake2b
from typing import Any, Final, Generic, cast
from uuid import UUID

import msgspec
from msgspec import structs

from chassis.connections.coalescing import Coalesced
from chassis.privacy.aging import AgedCache
from chassis.privacy.keys import KEYS_CACHED_SECONDS, DataKey, KeyRing
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import (
    COMMAND_KEY_CHARACTERS_MAX,
    AlreadyRecorded,
    CommandContext,
    CommandKeyReused,
    CommandT,
    Decider,
    EventOversized,
    EventT,
    Outcome,
    Refusal,
    StateT,
    SubjectUnknown,
    TooManyConflicts,
    VersionMismatch,
)
from chassis.write.events import RecordedEvent, StoredEvent
from chassis.write.snapshots import Loaded, Snapshots
from chassis.write.store import (
    Append,
    Appended,
    AppendResult,
    Command,
    CommandSeen,
    EventStore,
    IdentityConflict,
)

STATES_CACHED_MAX: Final = 20_000
STATES_CACHED_SECONDS: Final = KEYS_CACHED_SECONDS
"""A state holds the values of its events in clear. It is cached no longer than the key that opened it."""
CONFLICT_RETRIES_MAX: Final = 5
LOADED_TOGETHER_MAX: Final = 200
COMMAND_BYTES_MAX: Final = 256 * 1024
"""Half of the limit of an event: sealed values are larger than plain ones."""


class ApprovalOvertaken(Exception):
    """The proposal was decided by somebody else meanwhile. Neither the approval nor its effect was stored."""


class CommandHandler(Generic[CommandT, StateT, EventT]):
    """Handles commands of one kind of stream.

    One instance per process and decider; use it from one event loop.

    States are cached. A decision on an old state does no harm: the store refuses it, and the state is
    loaded and decided again, up to `CONFLICT_RETRIES_MAX` times. Commands for one stream wait for each
    other. Loads of many streams are coalesced into one read of the database.
    """

    def __init__(
        self,
        decider: Decider[CommandT, StateT, EventT],
        store: EventStore,
        catalogue: Catalogue,
        keys: KeyRing,
        *,
        snapshots: "Snapshots[StateT] | None" = None,
        states_cached_max: int = STATES_CACHED_MAX,
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`reached` is called at the points `before-append` and `after-append` of each command."""
        self._decider = decider
        self._reached = reached
        self._store = store
        self._catalogue = catalogue
        self._keys = keys
        self._purposes = catalogue.purposes
        self._snapshots = snapshots
        # By the integer of the id: a UUID computes its hash in Python each time.
        self._states: AgedCache[int, Loaded[StateT]] = AgedCache(
            states_cached_max, STATES_CACHED_SECONDS, keys.monotonic
        )
        self._turns = _Turns()
        self._loader = Coalesced(self._load_many, coalesced_max=LOADED_TOGETHER_MAX)
        self._key_loader = Coalesced(self._keys_for, coalesced_max=LOADED_TOGETHER_MAX)
        self._identity_loader = Coalesced(self._taken, coalesced_max=LOADED_TOGETHER_MAX)
        self._key_maker = Coalesced(self._keys_made, coalesced_max=LOADED_TOGETHER_MAX)

    @property
    def keys(self) -> KeyRing:
        """The keys of its subjects."""
        return self._keys

    async def handle(
        self,
        stream_id: UUID,
        command: CommandT,
        context: CommandContext,
        expected_version: int | None = None,
        *,
        asked: Any = None,
    ) -> Outcome[EventT]:
        """Decides and stores; raises what `decide` refuses, or SubjectUnknown, VersionMismatch, CommandKeyReused,
        TooManyConflicts.

        The same key with the same command returns the outcome of the first time, also where the command
        would now be refused. A refused command is not remembered, because it has no outcome.

        `asked` is what the caller asked for, where the command holds more: what was looked up for it, or the
        day on which it came. The same key with the same `asked` and reason is then the same command.
        """
        asked = command if asked is None else asked
        if len(context.key) > COMMAND_KEY_CHARACTERS_MAX:
            raise ValueError("a command key is too long")
        turns, subject = self._turns, stream_id.int
        if not turns.taken_at_once(subject):
            await turns.taken(subject)
        try:
            return await self._handle(stream_id, command, context, expected_version, asked)
        finally:
            turns.passed_on(subject)

    async def prepare(self, streams: Sequence[UUID]) -> None:
        """Makes keys and reads states of many streams together, so that the commands that follow wait for
        their append only.

        It decides nothing. A key or state that is no longer cached when a command comes is read again.
        """
        await self._keys_made(self._not_cached(streams))
        await self.read(streams)

    async def read(self, streams: Sequence[UUID]) -> None:
        """Reads keys and states of many streams together. It makes nothing: also what was never recorded may be looked at."""
        missing = self._not_cached(streams)
        for at in range(0, len(missing), LOADED_TOGETHER_MAX):
            with suppress(SubjectUnknown):  # whose command is refused when it comes
                await self._load_many(missing[at : at + LOADED_TOGETHER_MAX])

    async def load(self, stream_id: UUID) -> Loaded[StateT]:
        """The current state, from the store where it is not cached; raises SubjectUnknown."""
        cached = self._states.get(stream_id.int)
        return cached if cached is not None else await self._loader.get(stream_id)

    async def recorded(
        self, stream_id: UUID, names: Collection[str] | None = None, after: int = 0
    ) -> AsyncIterator[RecordedEvent]:
        """Events of a stream beyond version `after` that have one of these stored names, or any, in order: opened with the key of their
        subject. The stream is read page by page; raises SubjectUnknown."""
        key = await self._key_of(stream_id)
        async for one in self._store.read_named(stream_id, names, after):
            yield self._catalogue.open(one, key)

    async def state_at(self, stream_id: UUID, version: int) -> StateT:
        """The state at an earlier version, from the events of the stream, page by page."""
        key = await self._key_of(stream_id)
        state, after = self._decider.initial, 0
        while after < version:
            stored = await self._store.read_stream(stream_id, after, version - after)
            if not stored:
                break
            opened = (cast(EventT, self._catalogue.open(one, key).event) for one in stored)
            state, after = self._decider.fold(opened, state), stored[-1].version
        return state

    def forget(self, stream_id: UUID) -> None:
        """Drops a cached state, for example after an erasure."""
        self._states.drop(stream_id.int)

    async def _handle(
        self,
        stream_id: UUID,
        command: CommandT,
        context: CommandContext,
        expected_version: int | None,
        asked: Any,
    ) -> Outcome[EventT]:
        key = self._keys.cached(stream_id)
        if key is None:
            key = await self._key_loader.get(stream_id)
        if key is None and self._decider.keyed:
            # The subject was erased after the cached state was opened, or the subject is new.
            self.forget(stream_id)
        for _ in range(1 + CONFLICT_RETRIES_MAX):
            loaded = self._states.get(stream_id.int) or await self._loader.get(stream_id)
            try:
                if expected_version is not None and expected_version != loaded.version:
                    raise VersionMismatch(expected_version, loaded.version)
                events = tuple(self._decider.decide(command, loaded.state))
            except Refusal:
                # It may repeat a command that was carried out: then return the outcome of that one.
                seen = (await self._store.commands([context.key])).get(context.key)
                if seen is not None:
                    return await self._replayed(seen, stream_id, asked, context)
                if await self._is_stale(stream_id, loaded):
                    continue
                raise
            if key is None and events and self._decider.keyed:
                key = await self._first_key(stream_id, asked, context, loaded, events)
            remembered = Command(context.key, fingerprint(stream_id, asked, context, key))
            item = self._item(
                stream_id, loaded=loaded, events=events, context=context, key=key, command=remembered
            )
            self._reached("before-append")
            result = await self._appended(item, context)
            if isinstance(result, Appended):
                self._reached("after-append")
                return self._done(stream_id, loaded, events, result)
            if isinstance(result, CommandSeen):
                return await self._replayed(result, stream_id, asked, context)
            self.forget(stream_id)
            if isinstance(result, IdentityConflict):
                raise AlreadyRecorded
        raise TooManyConflicts

    async def drafted(
        self, stream_id: UUID, command: CommandT, context: CommandContext, *, asked: Any = None
    ) -> Append:
        """What a command comes to on the current state, for whoever stores it together with another append.

        Raises what `decide` refuses. `asked`: as for `handle`.
        """
        key = self._keys.cached(stream_id) or await self._key_loader.get(stream_id)
        self.forget(stream_id)
        loaded = await self._loader.get(stream_id)
        events = tuple(self._decider.decide(command, loaded.state))
        said = fingerprint(stream_id, command if asked is None else asked, context, key)
        remembered = Command(context.key, said)
        return self._item(
            stream_id, loaded=loaded, events=events, context=context, key=key, command=remembered
        )

    async def _appended(self, item: Append, context: CommandContext) -> AppendResult:
        if context.approved is None or context.approved.append is None:
            return await self._store.append_one(item)
        result, approval = await self._store.append_together([item, context.approved.append])
        if not isinstance(result, Appended) or isinstance(approval, Appended):
            return result
        if isinstance(approval, CommandSeen):
            raise CommandKeyReused
        raise ApprovalOvertaken

    async def _first_key(
        self,
        stream_id: UUID,
        asked: Any,
        context: CommandContext,
        loaded: Loaded[StateT],
        events: Sequence[EventT],
    ) -> DataKey | None:
        """Makes a key for a subject that has none, only when a value will be sealed with it.

        A refused command therefore makes no key for a subject that was never recorded. None where the subject
        was erased.

        Raises EventOversized, AlreadyRecorded, CommandKeyReused. This is an early check; the store itself
        decides.
        """
        fingerprint(stream_id, asked, context, None)
        if loaded.version == 0:
            if context.idempotency_key is not None:
                seen = (await self._store.commands([context.key])).get(context.key)
                if seen is not None and seen.stream_id != stream_id:
                    raise CommandKeyReused
            for event in events:
                identity = self._decider.identify(event)
                if identity is not None and await self._identity_loader.get(identity):
                    raise AlreadyRecorded
        return await self._key_maker.get(stream_id)

    async def _taken(self, identities: Sequence[UUID]) -> dict[UUID, bool]:
        taken = await self._store.known_identities(identities)
        return {identity: identity in taken for identity in identities}

    async def _is_stale(self, stream_id: UUID, loaded: Loaded[StateT]) -> bool:
        """Whether a refusal was decided on a cached state that others have changed since."""
        head = (await self._store.stream_heads([stream_id])).get(stream_id, 0)
        if head == loaded.version:
            return False
        self.forget(stream_id)
        return True

    def _item(
        self,
        stream_id: UUID,
        *,
        loaded: Loaded[StateT],
        events: tuple[EventT, ...],
        context: CommandContext,
        key: DataKey | None,
        command: Command,
    ) -> Append:
        if not self._decider.classes.issuperset(map(type, events)):
            raise TypeError(f"the decider declares no event of one of these: {list(map(type, events))}")
        metadata, identify, encode = context.metadata(), self._decider.identify, self._catalogue.encode
        stored = [
            StoredEvent(
                stream_id,
                version,
                self._catalogue.name_of(event),
                encode(event, metadata, stream_id=stream_id, version=version, key=key),
                identify(event),
            )
            for version, event in enumerate(events, loaded.version + 1)
        ]
        return Append(stream_id, tuple(stored), command, loaded.version)

    def _done(
        self, stream_id: UUID, loaded: Loaded[StateT], events: tuple[EventT, ...], appended: Appended
    ) -> Outcome[EventT]:
        version = loaded.version + len(events)
        position = appended.positions[-1] if appended.positions else loaded.position
        now = Loaded(self._decider.fold(events, loaded.state), version, position)
        self._keep(stream_id, now)
        if self._snapshots is not None:
            self._snapshots.consider(stream_id, now.state, version, position)
        return Outcome(stream_id, version, position, events)

    async def _replayed(
        self, seen: CommandSeen, stream_id: UUID, asked: Any, context: CommandContext
    ) -> Outcome[EventT]:
        key = self._keys.cached(stream_id) or await self._key_loader.get(stream_id)
        if not self._decider.keyed:
            # A version before made keys also for streams without personal values.
            key = (await asyncio.to_thread(self._keys.keys_for, [stream_id], create=False)).get(stream_id)
        # A command without events may have come before the subject had a key.
        keys, undated = (key, None), structs.replace(context, effective_at=None)
        bare = structs.replace(undated, reason=None, on_behalf_of=None)
        as_now = {fingerprint(stream_id, asked, context, each) for each in keys}
        as_before = {fingerprint(stream_id, asked, one, each) for one in (undated, bare) for each in keys}
        if seen.fingerprint not in as_now | as_before:
            raise CommandKeyReused
        # One event before the first of them gives the position where the command had none.
        after = seen.version - seen.event_count
        read = await self._store.read_stream(seen.stream_id, max(after - 1, 0), seen.event_count + 1)
        stored = [one for one in read if one.version <= seen.version]
        if seen.fingerprint not in as_now:
            # Versions before did not compare why, for whom and from when a command is given: its events say it.
            said = [self._catalogue.metadata_of(one) for one in stored if one.version > after]
            why = context.reason, context.on_behalf_of
            if not said or any(
                (one.reason, one.on_behalf_of, one.effective_at)
                != (*why, context.effective_at or one.recorded_at)
                for one in said
            ):
                raise CommandKeyReused
        key = self._keys.cached(seen.stream_id)
        events = tuple(
            cast(EventT, self._catalogue.open(one, key).event) for one in stored if one.version > after
        )
        position = stored[-1].position if stored else None
        return Outcome(seen.stream_id, seen.version, position or 0, events, replayed=True)

    def _keep(self, stream_id: UUID, loaded: Loaded[StateT]) -> None:
        self._states.put(stream_id.int, loaded)

    async def _key_of(self, stream_id: UUID) -> DataKey | None:
        return self._keys.cached(stream_id) or await self._key_loader.get(stream_id)

    async def _keys_for(self, streams: Sequence[UUID]) -> dict[UUID, DataKey | None]:
        found = await self._of_ring(streams, create=False)
        return {stream: found.get(stream) for stream in streams}

    async def _keys_made(self, streams: Sequence[UUID]) -> dict[UUID, DataKey | None]:
        found = await self._of_ring(streams, create=True)
        return {stream: found.get(stream) for stream in streams}

    def _not_cached(self, streams: Sequence[UUID]) -> list[UUID]:
        return [stream for stream in dict.fromkeys(streams) if self._states.get(stream.int) is None]

    async def _of_ring(self, streams: Sequence[UUID], *, create: bool) -> dict[UUID, DataKey]:
        if not self._decider.keyed:
            return {}
        purposes = self._purposes
        return await asyncio.to_thread(self._keys.keys_for, streams, create=create, purposes=purposes)

    async def _load_many(self, streams: Sequence[UUID]) -> dict[UUID, Loaded[StateT]]:
        keys = await self._of_ring(streams, create=False)
        begun: dict[UUID, Loaded[StateT]] = {}
        if self._snapshots is not None:
            begun = await self._snapshots.load(streams, keys)
        blank = Loaded(self._decider.initial, 0, 0)
        after = {stream: begun.get(stream, blank).version for stream in streams}
        read = await self._store.read_streams(after)
        loaded: dict[UUID, Loaded[StateT]] = {}
        for stream in streams:
            start, stored = begun.get(stream, blank), read[stream]
            recorded = self._catalogue.open_all(stored, keys)
            if not self._decider.classes.issuperset([type(one.event) for one in recorded]):
                continue
            state = self._decider.fold((cast(EventT, one.event) for one in recorded), start.state)
            position = stored[-1].position if stored else start.position
            loaded[stream] = Loaded(state, start.version + len(stored), position or 0)
            self._keep(stream, loaded[stream])
            if self._snapshots is not None:
                self._snapshots.consider(stream, state, loaded[stream].version, loaded[stream].position)
        if len(loaded) < len(streams):
            raise SubjectUnknown
        return loaded


def fingerprint(stream_id: UUID, asked: Any, context: CommandContext, key: DataKey | None) -> bytes:
    """A digest that distinguishes what was asked from something else under the same key.

    What was asked is the subject, the command, its reason, on whose behalf it is given, and from when it is so where the
    caller names the key. Any other key follows from what causes the command, and so does its effective time. The actor is
    part of the key. Outside are: what was looked up for the command, which may be another one the next time; the version
    that the caller saw, which a repetition cannot meet any more; post, address, trace and the time of the request, which
    say how it came.

    It is keyed with the subject's own key: an unkeyed digest of a phone number would outlive the erasure.
    """
    content = msgspec.json.encode(asked)
    if len(content) > COMMAND_BYTES_MAX:
        raise EventOversized(f"{len(content)} of {COMMAND_BYTES_MAX} bytes")
    secret = b"" if key is None else key.whole.derived("command")
    parts = [stream_id.bytes, type(asked).__name__.encode(), content]
    if (context.reason, context.on_behalf_of) != (None, None):
        parts.append(msgspec.json.encode((context.reason, context.on_behalf_of)))
    if context.effective_at is not None and context.idempotency_key is not None:
        parts.append(context.effective_at.astimezone(UTC).isoformat().encode())
    text = b"|".join(parts)
    return blake2b(text, key=secret, digest_size=16).digest()


class _Turns:
    """One command at a time per subject, in the order of arrival.

    An `asyncio.Lock` per subject costs more than the work.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, deque[asyncio.Future[None]] | None] = {}

    def taken_at_once(self, subject: int) -> bool:
        """Takes the turn if it is free."""
        if subject in self._waiting:
            return False
        self._waiting[subject] = None
        return True

    async def taken(self, subject: int) -> None:
        """Waits for the turn that another command has."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting[subject]
        if queue is None:
            queue = self._waiting[subject] = deque()
        queue.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():
                self.passed_on(subject)  # the turn had come with the cancellation
            raise

    def passed_on(self, subject: int) -> None:
        """Gives the turn to the command that has waited longest."""
        queue = self._waiting[subject]
        while queue:
            next_one = queue.popleft()
            if not next_one.done():
                next_one.set_result(None)
                return
        del self._waiting[subject]
