"""The files of one subject: attached, removed, expired; and which object has the content of which. Pure; no I/O.

Whether an object is referred to is decided in one stream for each subject, on the version on which the event is stored.
Its events are not published. The store is the audit log.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Final, Literal, assert_never
from uuid import UUID

import msgspec
from msgspec import structs

from chassis.connections.transient import Transient
from chassis.write.deciding import AlreadyRecorded, Decider, Refusal
from chassis.write.events import Event

FILES_MAX: Final = 500
"""Files that a subject has at once."""

Because = Literal["removed", "expired", "erased"]


class FileAttached(Event, frozen=True):
    """A file of `subject` is kept.

    `object` has its content; another file of the same content may have it too. `digest` is that of the content and
    `name` is sealed, both under the key of `subject`: they say nothing after an erasure.
    """

    sealed_under: ClassVar[str] = "subject"

    subject: UUID
    file: UUID
    object: UUID
    digest: str
    size_bytes: int
    media_type: str
    name: str
    purpose: str
    attached_by: str
    attached_at: datetime
    expires_at: datetime | None = None


class FileRemoved(Event, frozen=True):
    """The file is kept no more. `freed` is its object, where no other file has it: it is deleted."""

    file: UUID
    because: Because
    freed: UUID | None = None


class UploadAnnounced(Event, frozen=True):
    """The object of a subject's first file is about to be whole. From now on this stream has an event, so a sweep deletes what
    a crash leaves of it."""

    object: UUID


class UploadAbandoned(Event, frozen=True):
    """The object was written for a file that was never attached. From now on none can be attached with it."""

    object: UUID


class FileRead(Event, frozen=True):
    """Somebody was given the content of a file; who, when and why is in the metadata."""

    subject: UUID
    file: UUID


FileEvent = UploadAnnounced | FileAttached | FileRemoved | UploadAbandoned

FILES: Final[dict[str, type[Event]]] = {
    "upload-announced": UploadAnnounced,
    "file-attached": FileAttached,
    "file-removed": FileRemoved,
    "file-read": FileRead,
    "upload-abandoned": UploadAbandoned,
}
"""Their stored names, for the catalogue of a context."""
ATTACHED: Final = "file-attached"
REMOVED: Final = "file-removed"


class Announce(msgspec.Struct, frozen=True):
    """An object is about to be whole; nothing where the stream has an event."""

    object: UUID


class Attach(msgspec.Struct, frozen=True):
    """Keeps a file. Where another file has the same content, that one's object is used, unless it is among the `lost`."""

    attached: FileAttached
    lost: frozenset[UUID] = frozenset()


class Remove(msgspec.Struct, frozen=True):
    """Keeps a file no more; nothing where that is so."""

    file: UUID
    because: Because
    now: datetime


class Abandon(msgspec.Struct, frozen=True):
    """An object is to be deleted; nothing where a file has it, or no file can get it any more."""

    object: UUID


FileCommand = Announce | Attach | Remove | Abandon


class Files(msgspec.Struct, frozen=True):
    """The files of one subject by id; the objects of those that were removed; and abandoned objects. `known`: the stream
    has an event."""

    known: bool = False
    kept: Mapping[UUID, FileAttached] = {}
    removed: Mapping[UUID, UUID] = {}
    abandoned: frozenset[UUID] = frozenset()

    def refers_to(self, object: UUID) -> bool:
        """Whether a file has this object."""
        return any(one.object == object for one in self.kept.values())

    def is_free(self, object: UUID) -> bool:
        """Whether no file has this object, and none can get it any more."""
        over = object in self.abandoned or object in self.removed.values()
        return over and not self.refers_to(object)


class FileUnknown(Refusal):
    """The subject has no such file."""

    code: ClassVar[str] = "file-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such file"
    title_zh: ClassVar[str] = "没有该文件"


class FileGone(Refusal):
    """The file was removed, has expired, or its key was destroyed."""

    code: ClassVar[str] = "file-gone"
    status: ClassVar[int] = 410
    title: ClassVar[str] = "The file is not kept any more"
    title_zh: ClassVar[str] = "该文件已不再保存"


class FileHeld(Refusal):
    """What there is of the subject may not be deleted now. The text does not say why: not everybody may know."""

    code: ClassVar[str] = "file-held"
    title: ClassVar[str] = "The file has to be kept"
    title_zh: ClassVar[str] = "该文件必须继续保存"


class FileNotDue(Refusal):
    """The file expires later, or not at all."""

    code: ClassVar[str] = "file-not-due"
    title: ClassVar[str] = "The file has not expired yet"
    title_zh: ClassVar[str] = "该文件尚未到期"


class TooManyFiles(Refusal):
    """The subject has as many files as it may have."""

    code: ClassVar[str] = "too-many-files"
    title: ClassVar[str] = "There are too many files"
    title_zh: ClassVar[str] = "文件数量超过上限"


class UploadOverdue(Refusal, Transient):
    """So much time passed between the content and its event that the content was swept away."""

    code: ClassVar[str] = "upload-overdue"
    status: ClassVar[int] = 503
    title: ClassVar[str] = "The content came too long ago; send it again"
    title_zh: ClassVar[str] = "内容上传已超时，请重新发送"


def decide(command: FileCommand, files: Files) -> Sequence[FileEvent]:
    """The events of a command; raises the refusals above."""
    match command:
        case Announce(object):
            return [] if files.known else [UploadAnnounced(object)]
        case Attach(attached, lost):
            if attached.file in files.kept or attached.file in files.removed:
                raise AlreadyRecorded
            if len(files.kept) >= FILES_MAX:
                raise TooManyFiles(f"at most {FILES_MAX}")
            if attached.object in files.abandoned:
                raise UploadOverdue
            same = {one.object for one in files.kept.values() if one.digest == attached.digest} - lost
            return [structs.replace(attached, object=min(same, default=attached.object))]
        case Remove(file, because, now):
            if file in files.removed:
                return []
            held = files.kept.get(file)
            if held is None:
                raise FileUnknown
            if because == "expired" and (held.expires_at is None or now < held.expires_at):
                raise FileNotDue
            others = (one.object for one in files.kept.values() if one.file != file)
            return [FileRemoved(file, because, None if held.object in others else held.object)]
        case Abandon(object):
            return [] if files.refers_to(object) or files.is_free(object) else [UploadAbandoned(object)]
        case _:
            assert_never(command)


def evolve(files: Files, event: FileEvent) -> Files:
    """The files after an event."""
    files = structs.replace(files, known=True)
    match event:
        case UploadAnnounced():
            return files
        case FileAttached(file=file):
            return structs.replace(files, kept={**files.kept, file: event})
        case FileRemoved(file):
            kept = {**files.kept}
            object = kept.pop(file).object
            return structs.replace(files, kept=kept, removed={**files.removed, file: object})
        case UploadAbandoned(object):
            return structs.replace(files, abandoned=files.abandoned | {object})
        case _:
            assert_never(event)


FILES_OF_SUBJECT: Final = Decider[FileCommand, Files, FileEvent](
    initial=Files(), decide=decide, evolve=evolve, events=FileEvent
)
