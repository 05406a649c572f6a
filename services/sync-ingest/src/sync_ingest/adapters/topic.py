"""Records of the branch topic: canonical JSON, in frames that keep every byte of the message.

A frame is partition, offset, length of a note and of the value (big-endian), and then these two. The note
is the trace parent, or after `!` the reason why the message is quarantined unread. The line of a record is
its place in the intake; its offset is in the detail of what cannot be read.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final, NamedTuple

from sync_ingest.adapters.canonical import read_line
from sync_ingest.adapters.port import LINE_BYTES_MAX, Batch, FeedFile, Item, Line, batched, kept
from sync_ingest.domain.records import AnyRecord, Covers, Unreadable

_HEAD: Final = struct.Struct(">iqBI")
FRAME_BYTES_MAX: Final = 16 << 20
REFUSED: Final = "!"


class Frame(NamedTuple):
    """One message as the topic delivered it."""

    partition: int
    offset: int
    value: bytes
    trace: str | None = None
    refused: str | None = None


def framed(frames: Iterable[Frame]) -> bytes:
    """The bytes of an intake made of these messages."""
    parts: list[bytes] = []
    for frame in frames:
        note = (frame.trace or "").encode("ascii")
        if frame.refused is not None:
            note = REFUSED.encode() + frame.refused.encode("ascii")
        parts += [_HEAD.pack(frame.partition, frame.offset, len(note), len(frame.value)), note, frame.value]
    return b"".join(parts)


class TopicAdapter:
    """Reads framed messages."""

    name: Final = "topic"
    reading: Final = "topic.2"
    covers: Covers | None = None

    def read(self, files: Sequence[FeedFile]) -> Iterator[Batch]:
        """Every frame of every file."""
        return batched(self._items(files))

    def _items(self, files: Sequence[FeedFile]) -> Iterator[tuple[Item, int]]:
        done = 0
        for index, feed_file in enumerate(files):
            with feed_file.open() as stream:
                number = 0
                while head := stream.read(_HEAD.size):
                    number += 1
                    content, size, trace = _frame(stream, head, number)
                    done += size
                    yield Item(index, number, content, trace), done


def _frame(stream: BinaryIO, head: bytes, number: int) -> tuple[AnyRecord | Unreadable, int, str | None]:
    if len(head) < _HEAD.size:
        return Unreadable("record-truncated", "a frame without its head", kept(head)), len(head), None
    partition, offset, of_trace, length = _HEAD.unpack(head)
    if length > FRAME_BYTES_MAX:
        rest = stream.read()
        detail = "a frame beyond the limit"
        return Unreadable("record-oversized", detail, kept(rest)), len(head) + len(rest), None
    trace = stream.read(of_trace).decode("ascii", "replace") or None
    value = stream.read(length)
    size = len(head) + of_trace + len(value)
    place = f"partition {partition}, offset {offset}"
    if len(value) < length:
        return Unreadable("record-truncated", f"a frame stops early: {place}", kept(value)), size, trace
    if not value:
        return Unreadable("record-empty", f"a message without a value: {place}", b""), size, trace
    oversized = length > LINE_BYTES_MAX
    content: AnyRecord | Unreadable
    if trace is not None and trace.startswith(REFUSED):
        content = Unreadable(
            trace.removeprefix(REFUSED), "the message names no source that can be used", kept(value)
        )
        trace = None
    else:
        content = read_line(Line(number, value[:LINE_BYTES_MAX] if oversized else value, True, oversized))
    if isinstance(content, Unreadable):
        detail = f"{content.detail}: {place}"
        return Unreadable(content.reason, detail, content.raw, content.column), size, trace
    return content, size, trace
