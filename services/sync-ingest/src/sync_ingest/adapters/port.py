"""The port of a feed format: it turns bytes into canonical records or reasons, in order, and raises for no
record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol

import msgspec

from sync_ingest.domain.records import RAW_KEPT_BYTES_MAX, AnyRecord, Covers, Unreadable

LINE_BYTES_MAX: Final = 65_536
CHUNK_BYTES: Final = 1 << 20
BATCH_RECORDS: Final = 2_000
BINARY_PROBE_BYTES: Final = 4_096
SEPARATORS: Final = (";", ",", "\t", "|")

_PACKED: Final = (
    (b"\x1f\x8b", "file-compressed", "a gzip archive: unpack it first"),
    (b"PK\x03\x04", "file-compressed", "a ZIP archive, or a workbook: unpack it, or save it as text"),
    (b"PK\x05\x06", "file-compressed", "an empty ZIP archive"),
    (b"BZh", "file-compressed", "a bzip2 archive: unpack it first"),
    (b"\xfd7zXZ", "file-compressed", "an xz archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "file-compressed", "a 7z archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "file-compressed", "a zstd archive: unpack it first"),
    (b"Rar!\x1a", "file-compressed", "a RAR archive: unpack it first"),
    (b"%PDF-", "file-document", "a PDF document, not a file of text"),
    (b"\xd0\xcf\x11\xe0", "file-document", "an old office document: save it as text"),
    (b"\x7fELF", "file-binary", "the file holds binary data, not text"),
)
"""The first bytes of archives and documents that are sent instead of their text, with the reason for each."""


class OpenFile(Protocol):
    """Opens the bytes that were taken in, from the beginning, as often as asked."""

    def __call__(self) -> BinaryIO: ...


@dataclass(frozen=True, slots=True)
class FeedFile:
    """One file of a feed as it was taken in."""

    name: str
    size_bytes: int
    open: OpenFile


class Item(msgspec.Struct, frozen=True, gc=False):
    """One record of a feed with its place, or the reason why it cannot be read; `trace` is its W3C parent, if
    it has one."""

    file: int
    line: int
    content: AnyRecord | Unreadable
    trace: str | None = None


@dataclass(slots=True)
class Batch:
    """A bounded run of items, and how many bytes of the feed were read up to its end."""

    items: list[Item] = field(default_factory=list)
    bytes_read: int = 0


class Adapter(Protocol):
    """A feed format. `read` yields every record exactly once and puts what it cannot read in its place."""

    @property
    def name(self) -> str: ...

    @property
    def reading(self) -> str:
        """Names the version of the reading.

        Raise its number when the same bytes give other records than before.

        Bytes that come again are then read again, and quarantined records that can now be read are released.
        """
        ...

    @property
    def covers(self) -> Covers | None:
        """Whether a file of a source without transaction ids has whole days or parts, where that is stated."""
        ...

    def read(self, files: Sequence[FeedFile]) -> Iterator[Batch]: ...


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of a file without its end; `whole` is false where the file stops inside it."""

    number: int
    data: bytes
    whole: bool = True
    oversized: bool = False


def chunks_of_lines(stream: BinaryIO) -> Iterator[tuple[list[Line], int]]:
    """Lines of `stream` in bounded chunks with the bytes read so far; a line beyond the limit comes cut,
    once."""
    rest, number, position, skipping = b"", 0, 0, False
    while True:
        chunk = stream.read(CHUNK_BYTES)
        position += len(chunk)
        lines: list[Line] = []
        pieces = (rest + chunk).split(b"\n")
        rest = pieces.pop()
        if skipping and pieces:
            del pieces[0]
            skipping = False
        if max(map(len, pieces), default=0) <= LINE_BYTES_MAX:
            if b"\r" in chunk or (pieces[:1] and pieces[0].endswith(b"\r")):
                pieces = [piece.removesuffix(b"\r") for piece in pieces]
            lines = [Line(at, piece) for at, piece in enumerate(pieces, number + 1)]
        else:
            for at, piece in enumerate(pieces, number + 1):
                oversized = len(piece) > LINE_BYTES_MAX
                lines.append(Line(at, _trimmed(piece, oversized), True, oversized))
        number += len(pieces)
        if skipping:
            rest = b""
        elif len(rest) > LINE_BYTES_MAX:
            number += 1
            lines.append(Line(number, rest[:LINE_BYTES_MAX], True, True))
            rest, skipping = b"", True
        if not chunk and rest:
            lines.append(Line(number + 1, _trimmed(rest, False), False))
        yield lines, position
        if not chunk:
            return


def first_line(feed_file: FeedFile) -> Line:
    """The first line that is not blank; raises FileUnreadable where the file is no text in lines."""
    if reason := unreadable_file(feed_file):
        raise FileUnreadable(reason)
    with feed_file.open() as stream:
        for lines, _ in chunks_of_lines(stream):
            for line in lines:
                if line.data and not line.data.isspace():
                    if b"\r" in line.data and _is_utf8(line.data):
                        detail = "lines end in CR alone; LF or CRLF is expected"
                        raise FileUnreadable(
                            Unreadable("line-end-wrong", detail, kept(line.data)), line.number
                        )
                    return line
    raise FileUnreadable(Unreadable("file-empty", "the file holds blank lines only", b""))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _trimmed(piece: bytes, oversized: bool) -> bytes:
    return piece[:LINE_BYTES_MAX] if oversized else piece.removesuffix(b"\r")


def unreadable_file(feed_file: FeedFile) -> Unreadable | None:
    """The reason why the whole file cannot be a text feed; None where it can."""
    if feed_file.size_bytes == 0:
        return Unreadable("file-empty", "the file has no bytes", b"")
    with feed_file.open() as stream:
        head = stream.read(BINARY_PROBE_BYTES)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or _two_bytes_a_letter(head):
        return Unreadable("encoding-wrong", "UTF-16 where UTF-8 is expected", head[:64])
    if reason := _packed(head):
        return reason
    if _much_control(head):
        return Unreadable("file-binary", "the file holds binary data, not text", head[:64])
    if not head.strip():
        return Unreadable("file-empty", "the file holds blank lines only", b"")
    return None


def unreadable_packed(feed_file: FeedFile) -> Unreadable | None:
    """Why a file whose text cannot be looked at yet is no text, if its first bytes say so."""
    if feed_file.size_bytes == 0:
        return Unreadable("file-empty", "the file has no bytes", b"")
    with feed_file.open() as stream:
        return _packed(stream.read(BINARY_PROBE_BYTES))


def _packed(head: bytes) -> Unreadable | None:
    for magic, reason, detail in _PACKED:
        if head.startswith(magic):
            return Unreadable(reason, detail, head[:64])
    return None


def _two_bytes_a_letter(head: bytes) -> bool:
    """Text in UTF-16 without its mark: every other byte is zero."""
    return len(head) > 8 and (not any(head[1:64:2]) or not any(head[:64:2]))


def _much_control(head: bytes) -> bool:
    """Whether a file is full of control characters and so is not text.

    A single one makes only its record unreadable.
    """
    strange = sum(byte < 32 and byte not in b"\t\r\n\f\x1a\x1b" for byte in head)
    return strange * 50 > len(head) and (strange > 8 or strange * 10 > len(head))


def oversized(line: Line) -> Unreadable:
    """The reason for a line beyond the limit."""
    return Unreadable("record-oversized", f"more than {LINE_BYTES_MAX} bytes in one line", kept(line.data))


def kept(raw: bytes) -> bytes:
    """The part of a record that a quarantine entry shows."""
    return raw[:RAW_KEPT_BYTES_MAX]


class FileUnreadable(Exception):
    """The whole file does not match its format."""

    def __init__(self, unreadable: Unreadable, line: int = 0) -> None:
        super().__init__(unreadable.reason)
        self.unreadable = msgspec.structs.replace(unreadable, whole_file=True)
        self.line = line


class RowUnreadable(Exception):
    """One row does not match its format: the reason, and the column or byte."""

    def __init__(self, reason: str, detail: str, column: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.column = reason, detail, column

    def of(self, line: Line) -> Unreadable:
        """The item in the place of the row.

        A quoted value that the end of the file cuts off is not an open quote.
        """
        if self.reason == "quote-unclosed" and not line.whole:
            return Unreadable("record-truncated", "the file stops inside this record", kept(line.data))
        return Unreadable(self.reason, self.detail, kept(line.data), self.column)


def columns_differ(line: Line, found: int, wanted: int, separator: str) -> RowUnreadable:
    """The reason for a row with another number of columns than its header."""
    detail = f"{found} columns where the header has {wanted}"
    if not line.whole and found < wanted:
        return RowUnreadable("record-truncated", f"the file stops inside this record: {detail}")
    if found == 1 and any(line.data.count(other.encode()) >= wanted - 1 for other in SEPARATORS):
        return RowUnreadable("separator-wrong", f"the row is not separated by {separator!r}")
    return RowUnreadable("columns-differ", detail)


def batched(items: Iterator[tuple[Item, int]]) -> Iterator[Batch]:
    """Items in batches of at most BATCH_RECORDS; each item comes with the bytes of the feed read so far."""
    batch = Batch()
    for item, bytes_read in items:
        batch.items.append(item)
        batch.bytes_read = bytes_read
        if len(batch.items) >= BATCH_RECORDS:
            yield batch
            batch = Batch()
    if batch.items:
        yield batch


def rebatched(several: Iterator[tuple[list[Item], int]]) -> Iterator[Batch]:
    """As `batched`, for items that come several at a time."""
    batch = Batch()
    for items, bytes_read in several:
        rest = items
        while rest:
            room = BATCH_RECORDS - len(batch.items)
            batch.items += rest[:room]
            batch.bytes_read = bytes_read
            rest = rest[room:]
            if len(batch.items) >= BATCH_RECORDS:
                yield batch
                batch = Batch()
    if batch.items:
        yield batch
