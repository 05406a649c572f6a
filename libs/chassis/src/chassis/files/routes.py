"""Files over HTTP: the name and the bytes of one that is sent, and the response that gives one back.

A file is always a download (RFC 6266), never shown in place, and its media type is not guessed.
"""

from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import quote, unquote_to_bytes
from uuid import UUID

from fastapi import Header, Path
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from chassis.files.checking import (
    NAME_BYTES_MAX,
    FileEmpty,
    FileExpiryPassed,
    FileNameInvalid,
    FileOversized,
    FileTypeRefused,
    Limits,
)
from chassis.files.deciding import FileGone, FileHeld, FileUnknown, TooManyFiles, UploadOverdue
from chassis.files.keeping import Content, FileShown, FileUnreadable
from chassis.privacy.masking import masked_name
from chassis.web import located, refusals
from chassis.web.app import FILE_NAME
from chassis.web.described import BYTES
from chassis.web.problems import Unavailable
from chassis.write.deciding import CommandKeyReused, TooManyConflicts

EXAMPLES: Final = {
    "File-Name": "contract.pdf",
    "file_name": "c***.pdf",
    "media_type": "application/pdf",
    "purpose": "contract",
    "attached_by": "teller-7",
}
"""Examples of the names of fields here, for the `EXAMPLES` of a service."""

FilePath = Annotated[UUID, Path(description="the file")]
FileName = Annotated[
    str,
    Header(
        alias=FILE_NAME,
        min_length=1,
        max_length=3 * NAME_BYTES_MAX,
        pattern=r"^[!-$&-~]*(%[0-9A-Fa-f]{2}[!-$&-~]*)*$",
        description="the name of the file, percent-encoded UTF-8",
    ),
]
ATTACHED: Final = {
    **located(201, "where the files are"),
    **refusals(CommandKeyReused, FileNameInvalid, FileEmpty, FileExpiryPassed),
    **refusals(FileOversized),
    **refusals(FileTypeRefused),
    **refusals(FileGone),
    **refusals(TooManyFiles, TooManyConflicts),
    **refusals(UploadOverdue, Unavailable),
}
"""Belongs to the `responses` of a route that takes a file."""
REMOVED: Final = {**refusals(FileUnknown), **refusals(FileHeld, TooManyConflicts)}
READ: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "Content-Disposition": {
                "schema": {"type": "string"},
                "description": "attachment, with the name of the file (RFC 6266)",
            }
        },
    },
    **refusals(FileUnknown),
    **refusals(FileGone),
    **refusals(FileUnreadable),
}
"""Belongs to the `responses` of a route that gives the content of a file."""


class FileAnswer(BaseModel):
    """A file without its content. Its name comes masked, and with the content whole; it is `***` once its subject was erased."""

    file_id: UUID
    file_name: str
    media_type: str
    size_bytes: int
    purpose: str
    attached_by: str
    attached_at: datetime
    expires_at: datetime | None


class FileList(BaseModel):
    """All files that are kept of a subject."""

    items: list[FileAnswer]
    next: None = None


def body_of(limits: Limits) -> dict[str, Any]:
    """For the `openapi_extra` of a route that takes a file: its body is the bytes of the file."""
    kinds = (BYTES, *sorted(limits.types))
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    told = f"The bytes of the file. Where they come as {BYTES}, the ending of its name says their media type."
    return {"requestBody": {"required": True, "description": told, "content": content}}


def named(header: str) -> str:
    """The name in a `File-Name`; raises FileNameInvalid."""
    try:
        return unquote_to_bytes(header).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileNameInvalid("it is no UTF-8") from error


def answered(shown: FileShown) -> FileAnswer:
    """A file over HTTP."""
    return FileAnswer(
        file_id=shown.file_id,
        file_name=masked_file_name(shown.name),
        media_type=shown.media_type,
        size_bytes=shown.size_bytes,
        purpose=shown.purpose,
        attached_by=shown.attached_by,
        attached_at=shown.attached_at,
        expires_at=shown.expires_at,
    )


def masked_file_name(name: str) -> str:
    """`张*.pdf`: what is shown of a name. Who is given the content is given the name with it."""
    stem, dot, ending = name.rpartition(".")
    return f"{masked_name(stem)}.{ending}" if dot else name


def disposition(name: str) -> str:
    """`Content-Disposition` for any name: in ASCII for old clients, without encoded words (RFC 2047), and whole (RFC 5987)."""
    plain = "".join(
        character if character.isascii() and character.isprintable() and character not in '"\\%;?' else "_"
        for character in name
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


class FileResponse(StreamingResponse):
    """The content of a file as a download. What it is read from is closed at the end, also where the client goes."""

    def __init__(self, content: Content) -> None:
        shown = content.shown
        super().__init__(
            content.parts,
            media_type="application/octet-stream"
            if shown.media_type.startswith("text/")
            else shown.media_type,
            headers={
                "Content-Disposition": disposition(shown.name),
                "Content-Length": str(shown.size_bytes),
                "Content-Security-Policy": "sandbox; default-src 'none'",
            },
        )
        self._content = content

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._content.download.close()
