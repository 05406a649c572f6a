"""What a file may be: its size, its name, and its media type by what it says and by what its first bytes are. Pure."""

import codecs
import unicodedata
from collections.abc import Callable, Collection
from typing import ClassVar, Final, NamedTuple

from chassis.write.deciding import Refusal

NAME_BYTES_MAX: Final = 255
HEAD_BYTES: Final = 4_096
"""So many first bytes are looked at."""
SIZE_BYTES_MAX: Final = 20 << 20

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of characters that are not seen or change how others are: NUL, ends of lines, overrides of the direction."""


class FileNameInvalid(Refusal):
    """The name is no name of a file, or does not fit the media type."""

    code: ClassVar[str] = "file-name-invalid"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The name of the file is not valid"
    title_zh: ClassVar[str] = "文件名无效"


class FileTypeRefused(Refusal):
    """The media type is not taken here, or the content is of another one."""

    code: ClassVar[str] = "file-type-refused"
    status: ClassVar[int] = 415
    title: ClassVar[str] = "A file of this type is not taken"
    title_zh: ClassVar[str] = "不接受该类型的文件"


class FileOversized(Refusal):
    """The file has more bytes than one may have."""

    code: ClassVar[str] = "file-oversized"
    status: ClassVar[int] = 413
    title: ClassVar[str] = "The file is larger than one may be"
    title_zh: ClassVar[str] = "文件超过大小上限"


class FileEmpty(Refusal):
    """The file has no content."""

    code: ClassVar[str] = "file-empty"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The file is empty"
    title_zh: ClassVar[str] = "文件为空"


class FileExpiryPassed(Refusal):
    """The file would have expired before it is kept."""

    code: ClassVar[str] = "file-expiry-passed"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The file would have expired already"
    title_zh: ClassVar[str] = "文件到期时间早于当前时间"


class MediaType(NamedTuple):
    """How a content of this type begins, and how its name may end."""

    begins: Callable[[bytes], bool]
    endings: frozenset[str]


def _magic(*firsts: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(firsts)


_ZIP: Final = b"PK\x03\x04"


def _office(head: bytes) -> bool:
    """A zip file whose first entry is one of an Office document (ECMA-376)."""
    parts = (b"[Content_Types].xml", b"_rels/", b"docProps/", b"word/", b"xl/")
    return head.startswith(_ZIP) and head[30:].startswith(parts)


def _text(head: bytes) -> bool:
    """UTF-8 without control characters but ends of lines and tabs, which begins like no other type here."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    plain = all(character in "\t\n\r\f" or unicodedata.category(character) != "Cc" for character in text)
    return plain and not any(one.begins(head) for name, one in TYPES.items() if not name.startswith("text/"))


_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
TYPES: Final[dict[str, MediaType]] = {
    "application/pdf": MediaType(_magic(b"%PDF-"), frozenset({"pdf"})),
    "image/jpeg": MediaType(_magic(b"\xff\xd8\xff"), frozenset({"jpg", "jpeg"})),
    "image/png": MediaType(_magic(b"\x89PNG\r\n\x1a\n"), frozenset({"png"})),
    "image/tiff": MediaType(_magic(b"II*\x00", b"MM\x00*"), frozenset({"tif", "tiff"})),
    "application/zip": MediaType(_magic(_ZIP), frozenset({"zip"})),
    f"{_OFFICE}.wordprocessingml.document": MediaType(_office, frozenset({"docx"})),
    f"{_OFFICE}.spreadsheetml.sheet": MediaType(_office, frozenset({"xlsx"})),
    "text/plain": MediaType(_text, frozenset({"txt"})),
    "text/csv": MediaType(_text, frozenset({"csv"})),
}
"""The types that can be told by their first bytes. A context takes some of them."""
_BYTES: Final = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
"""What clients say by default of any bytes."""


class Limits(NamedTuple):
    """What a context takes."""

    types: Collection[str] = frozenset(TYPES)
    size_bytes_max: int = SIZE_BYTES_MAX


def checked_name(name: str, media_type: str) -> str:
    """The name in its one spelling (NFC); raises FileNameInvalid. No text says what the name was: it may be personal."""
    name = unicodedata.normalize("NFC", name)
    if not name or name != name.strip() or name.startswith(".") or name.endswith("."):
        raise FileNameInvalid("it is empty, or begins or ends with a blank or a dot")
    if len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        raise FileNameInvalid(f"it has more than {NAME_BYTES_MAX} bytes")
    if "/" in name or "\\" in name:
        raise FileNameInvalid("it is a path")
    if any(unicodedata.category(character) in _HIDDEN for character in name):
        raise FileNameInvalid("it has a character that is not seen")
    if name.rpartition(".")[2].lower() not in TYPES[media_type].endings:
        raise FileNameInvalid("it does not end as names of its media type do")
    return name


def checked_type(said: str, name: str, taken: Collection[str]) -> str:
    """The media type without its parameters. Where it is only said to be bytes, the ending of the name says which.

    Raises FileTypeRefused.
    """
    media_type = said.partition(";")[0].strip().lower()
    if media_type in _BYTES:
        ending = name.rpartition(".")[2].lower()
        media_type = next((one for one in sorted(taken) if ending in TYPES[one].endings), media_type)
    if media_type not in taken:
        raise FileTypeRefused(f"one of {', '.join(sorted(taken))}")
    return media_type


def check_head(head: bytes, media_type: str) -> None:
    """Raises FileTypeRefused where the first bytes are not those of the type."""
    if not TYPES[media_type].begins(head):
        raise FileTypeRefused("its content is not what its media type says")
