"""Keeps files of subjects: their content in a storage, sealed under the key of the subject, and what happens to them as events.

The content is whole and on the disk before the event that refers to it is stored. A crash in between leaves an object that
no event refers to, which the sweep deletes (`chassis.files.sweeping`); it never leaves an event without its object.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID, uuid5

import msgspec
import structlog
from msgspec import structs

from chassis.clock import uuid7
from chassis.connections.transient import is_transient, why
from chassis.files.checking import (
    FileExpiryPassed,
    Limits,
    checked_name,
    checked_type,
)
from chassis.files.contents import NAMESPACE, ContentStore, digest_of, stream_of
from chassis.files.deciding import (
    FILES_OF_SUBJECT,
    Abandon,
    Announce,
    Attach,
    Because,
    FileAttached,
    FileCommand,
    FileEvent,
    FileGone,
    FileHeld,
    FileRead,
    FileRemoved,
    Files,
    FileUnknown,
    Remove,
)
from chassis.files.objects import Name, ObjectMissing, StorageUnavailable
from chassis.files.storage import Download, Storage
from chassis.observability import metrics
from chassis.privacy.key_encryption import Tampered
from chassis.privacy.keys import DataKey, KeyRing, Origin, seal, unseal
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Decider, Outcome, Refusal
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

SUBJECTS_CACHED_MAX: Final = 2_000
_PLACE: Final = "name"

_log = structlog.get_logger(__name__)


class FileUnreadable(Refusal):
    """The storage has not the content that was stored: it was changed, cut off or lost."""

    code = "file-unreadable"
    status = 502
    title = "The storage does not have the content that was stored"
    title_zh = "存储中的文件内容已损坏或丢失"


class Offered(msgspec.Struct, frozen=True):
    """What somebody wants to be kept. `purpose` is a word of the context, and nothing personal."""

    name: str
    media_type: str
    purpose: str
    expires_at: datetime | None = None


class FileShown(msgspec.Struct, frozen=True):
    """A file without its content; `name` is `***` where the key of its subject is destroyed."""

    file_id: UUID
    subject: UUID
    name: str
    media_type: str
    size_bytes: int
    purpose: str
    attached_by: str
    attached_at: datetime
    expires_at: datetime | None


class Kept(NamedTuple):
    """An attached file, and the outcome of its command."""

    shown: FileShown
    outcome: Outcome[FileEvent]


class Content(NamedTuple):
    """The content of a file, which was found whole: iterate `parts` once, and close `download`."""

    shown: FileShown
    parts: AsyncIterator[bytes]
    download: Download


class _Note(msgspec.Struct, frozen=True):
    """Notes that a file was read."""

    read: FileRead


def _noted(command: _Note, _: int) -> Sequence[FileRead]:
    return [command.read]


_READS: Final = Decider[_Note, int, FileRead](
    initial=0, decide=_noted, evolve=lambda count, _: count + 1, events=FileRead
)


async def _never(_: UUID) -> bool:
    return False


class FileKeeper:
    """The files of one context; use it from one event loop.

    `holds` says of a subject whether nothing of it may be deleted now, a legal hold for example. Its files are not removed then,
    and do not expire.
    """

    def __init__(
        self,
        store: EventStore,
        catalogue: Catalogue,
        keys: KeyRing,
        storage: Storage,
        limits: Limits | None = None,
        holds: Callable[[UUID], Awaitable[bool]] = _never,
    ) -> None:
        self.storage = storage
        self.limits = limits or Limits()
        self._keys = keys
        self._holds = holds
        self.context = catalogue.store
        self._purposes = catalogue.purposes
        self._contents = ContentStore(catalogue.store, storage)
        self.handler = files_handler(store, catalogue, keys)
        self._reads = CommandHandler[_Note, int, FileRead](
            _READS, store, catalogue, keys, states_cached_max=SUBJECTS_CACHED_MAX
        )

    async def attach(
        self, subject: UUID, offered: Offered, content: AsyncIterator[bytes], context: CommandContext
    ) -> Kept:
        """Keeps a file. The same key with the same file gives the same answer, and keeps it once.

        Raises FileTypeRefused, FileNameInvalid, FileOversized, FileEmpty, FileExpiryPassed, FileGone where the key of
        the subject is destroyed, TooManyFiles, CommandKeyReused, StorageUnavailable.
        """
        media_type = checked_type(offered.media_type, offered.name, self.limits.types)
        name = checked_name(offered.name, media_type)
        if offered.expires_at is not None and offered.expires_at <= context.now:
            raise FileExpiryPassed
        key = await self._key(subject, create=True)
        stream = self.stream_of(subject)
        file = uuid5(NAMESPACE, f"{self.context}|{context.key}")
        at = Name(stream, uuid7(context.now))
        size, digest = await self._contents.write(
            at,
            key,
            content,
            media_type,
            self.limits.size_bytes_max,
            partial(self._announced, at, context),
        )
        attached = FileAttached(
            subject=subject,
            file=file,
            object=at.object,
            digest=digest,
            size_bytes=size,
            media_type=media_type,
            name=seal(key, self._origin(stream, file).aad(_PLACE, key), name),
            purpose=offered.purpose,
            attached_by=context.actor,
            attached_at=context.now,
            expires_at=offered.expires_at,
        )
        asked = (digest, digest_of(key, name.encode()), media_type, offered.purpose, offered.expires_at)
        try:
            lost = await self._lost(stream, digest, key)
            outcome = await self.handler.handle(stream, Attach(attached, lost), context, asked=asked)
        except (Refusal, StorageUnavailable):
            await self._deleted(at)
            raise
        # Not the state in memory: where an answer was lost, it lacks the event that was stored.
        [kept] = [one for one in outcome.events if isinstance(one, FileAttached)]
        if kept.object != at.object:
            await self._deleted(at)
        return Kept(self._shown(kept, key), outcome)

    async def files(self, subject: UUID, now: datetime) -> list[FileShown]:
        """The files that are kept of a subject, in the order in which they were attached."""
        kept = (await self.state_of(self.stream_of(subject))).kept
        if not kept:
            return []
        key, over = await self._key_if_any(subject), await self.expired(kept.values(), now)
        return [self._shown(one, key) for one in kept.values() if one.file not in over]

    async def read(self, subject: UUID, file: UUID, context: CommandContext) -> Content:
        """The content of a file. That it is read is stored before anything of it is returned, each time.

        It is read twice, so that of a content that is not whole nothing is returned. Raises FileUnknown, FileGone,
        FileUnreadable, StorageUnavailable.
        """
        held = await self._kept(subject, file, context.now)
        key = await self._key(subject, create=False)
        at = Name(self.stream_of(subject), held.object)
        try:
            await self._contents.verify(held, key)
            download = await self.storage.read(at)
        except (ObjectMissing, Tampered) as error:
            await self._kept(subject, file, context.now)  # it may have been removed while it was read
            metrics.FILES_UNREADABLE.labels(self.context).inc()
            _log.error(
                "a file cannot be read", file_id=str(file), object_id=str(held.object), reason=why(error)
            )
            raise FileUnreadable from error
        try:
            again = structs.replace(context, idempotency_key=None)
            await self._reads.handle(file, _Note(FileRead(subject, file)), again)
        except BaseException:
            await download.close()
            raise
        return Content(self._shown(held, key), self._contents.parts(download, held, key), download)

    async def remove(
        self, subject: UUID, file: UUID, context: CommandContext, because: Because = "removed"
    ) -> Outcome[FileEvent]:
        """Keeps a file no more; a second time changes nothing. Its content is deleted with the last file that has it.

        Raises FileUnknown, and FileHeld where nothing of the subject may be deleted.
        """
        stream = self.stream_of(subject)
        kept = file in (await self.state_of(stream)).kept
        if kept and because != "erased" and await self._holds(subject):
            raise FileHeld
        outcome = await self.handler.handle(
            stream, Remove(file, because, context.now), context, asked=("remove", file, because)
        )
        for event in outcome.events:
            if isinstance(event, FileRemoved) and event.freed is not None:
                await self._deleted(Name(stream, event.freed))
        return outcome

    async def abandon(self, name: Name, context: CommandContext) -> bool:
        """Deletes an object, unless a file has it; whether it was deleted. No file can be attached with it then."""
        files = await self.state_of(name.stream)
        if not files.is_free(name.object):
            await self.handler.handle(name.stream, Abandon(name.object), context)
            files = await self.state_of(name.stream)
        if not files.is_free(name.object):
            return False
        await self.storage.delete(name)
        return True

    def stream_of(self, subject: UUID) -> UUID:
        """The stream of the files of a subject."""
        return stream_of(self.context, subject)

    async def state_of(self, stream: UUID) -> Files:
        """The files of a stream, as they are in the store now."""
        self.handler.forget(stream)
        return (await self.handler.load(stream)).state

    async def expired(self, kept: Collection[FileAttached], now: datetime) -> set[UUID]:
        """Those of these files that have expired. None does while nothing of its subject may be deleted."""
        over = [one for one in kept if one.expires_at is not None and now >= one.expires_at]
        held = {subject for subject in {one.subject for one in over} if await self._holds(subject)}
        return {one.file for one in over if one.subject not in held}

    async def _kept(self, subject: UUID, file: UUID, now: datetime) -> FileAttached:
        files = await self.state_of(self.stream_of(subject))
        found = files.kept.get(file)
        if found is None:
            raise FileGone if file in files.removed else FileUnknown
        if await self.expired([found], now):
            raise FileGone
        return found

    async def _announced(self, name: Name, context: CommandContext) -> None:
        """Stores that the stream has an object, where it has no event yet: the sweep takes it for another store's otherwise."""
        if not (await self.state_of(name.stream)).known:
            step = uuid5(context.command_id, "announce")
            given = structs.replace(context, command_id=step, idempotency_key=None)
            await self.handler.handle(name.stream, Announce(name.object), given, asked="announce")

    async def _lost(self, stream: UUID, digest: str, key: DataKey) -> frozenset[UUID]:
        """The objects that should have this content and have not: a file that is attached again is not given them."""
        lost = set()
        for held in (await self.state_of(stream)).kept.values():
            if held.digest == digest and held.object not in lost:
                try:
                    await self._contents.verify(held, key)
                except (ObjectMissing, Tampered):
                    lost.add(held.object)
        return frozenset(lost)

    async def _key(self, subject: UUID, *, create: bool) -> DataKey:
        keys = await asyncio.to_thread(self._keys.keys_for, [subject], create=create, purposes=self._purposes)
        if subject not in keys:
            raise FileGone("the key of its subject was destroyed")
        return keys[subject]

    async def _key_if_any(self, subject: UUID) -> DataKey | None:
        return (await asyncio.to_thread(self._keys.keys_for, [subject], create=False)).get(subject)

    async def _deleted(self, name: Name) -> None:
        """Deletes an object that no file can have any more; where that fails, the sweep does it."""
        try:
            await self.storage.delete(name)
        except Exception as error:
            if not is_transient(error):
                raise
            _log.warning("an object is left to the sweep", object_id=str(name.object), reason=why(error))

    def _shown(self, held: FileAttached, key: DataKey | None) -> FileShown:
        stream = self.stream_of(held.subject)
        aad = b"" if key is None else self._origin(stream, held.file).aad(_PLACE, key)
        return FileShown(
            file_id=held.file,
            subject=held.subject,
            name=unseal(key, aad, held.name),
            media_type=held.media_type,
            size_bytes=held.size_bytes,
            purpose=held.purpose,
            attached_by=held.attached_by,
            attached_at=held.attached_at,
            expires_at=held.expires_at,
        )

    def _origin(self, stream: UUID, file: UUID) -> Origin:
        """Where a name is sealed. The version of its event is not known yet; the id of the file is as good."""
        return Origin(self.context, stream, 0, f"file-attached|{file.hex}")


def files_handler(
    store: EventStore, catalogue: Catalogue, keys: KeyRing
) -> CommandHandler[FileCommand, Files, FileEvent]:
    """Handles the commands to the files of subjects."""
    return CommandHandler(FILES_OF_SUBJECT, store, catalogue, keys, states_cached_max=SUBJECTS_CACHED_MAX)
