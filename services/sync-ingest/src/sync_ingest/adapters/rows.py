"""Rows of a delimited file: from bytes in any encoding to the values of each row, quoted ones over several lines too."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final, NamedTuple

from typing_extensions import override

from sync_ingest.adapters.mapping import MappingFile, check_encoding
from sync_ingest.adapters.port import (
    LINE_BYTES_MAX,
    FeedFile,
    FileUnreadable,
    Line,
    RowUnreadable,
    chunks_of_lines,
    first_line,
    unreadable_packed,
)
from sync_ingest.domain.records import Unreadable

RECORD_LINES_MAX: Final = 100
"""A quote that is not closed within so many lines, or within LINE_BYTES_MAX, is refused with the line it stands in."""
TRANSCODED_BYTES: Final = 1 << 18

_BOM: Final = "\ufeff"
_NEEDS_MARK: Final = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}


class Row(NamedTuple):
    """One record of a file: its first line, or all its lines joined, and its values or why it has none."""

    line: Line
    values: list[str] | RowUnreadable


class Rows:
    """Splits files as one mapping says."""

    def __init__(self, mapping: MappingFile) -> None:
        self._quote, self._separator = mapping.quote, mapping.separator
        self._first = max(mapping.header_line, 1)
        self._source = check_encoding(mapping.encoding)
        wide = "\n".encode(mapping.encoding) != b"\n" or "a".encode(mapping.encoding) != b"a"
        self._wide = wide and self._source != "utf-8-sig"
        self._encoding = "utf-8" if self._wide or self._source == "utf-8-sig" else mapping.encoding
        blanks = [blank for blank in " \t\xa0\u3000" if blank != self._separator]
        quote, separator, padding = (
            re.escape(self._quote),
            re.escape(self._separator),
            f"[{''.join(blanks)}]*+",
        )
        inside = f"{padding}{quote}((?:[^{quote}]|{quote}{quote})*+)"
        self._value = re.compile(
            f"{inside}{quote}{padding}(?={separator}|\\Z)|(?!{padding}{quote})([^{separator}]*+)"
        )
        self._open = re.compile(f"{inside}\\Z")
        self._perhaps_padded = [
            pair for blank in blanks for pair in (blank + self._quote, self._quote + blank)
        ]

    def read(self, feed_file: FeedFile) -> Iterator[tuple[Row, int]]:
        """Rows from the header line on, each with the bytes read so far; raises FileUnreadable for what is no text."""
        if self._wide and (packed := unreadable_packed(feed_file)):
            raise FileUnreadable(packed)
        first_line(FeedFile(feed_file.name, feed_file.size_bytes, lambda: self._opened(feed_file)))
        with self._opened(feed_file) as stream:
            held: list[Line] = []
            position = 0
            for lines, position in chunks_of_lines(stream):
                at, lines = 0, held + lines if held else lines  # noqa: PLW2901
                held = []
                end = len(lines)
                while at < end:
                    line = lines[at]
                    data = line.data
                    if line.number < self._first or not data or data.isspace():
                        at += 1
                        continue
                    row, used = self._row(lines, at)
                    if row is None:
                        held = lines[at:]
                        break
                    at += used
                    yield row, position
            while held:
                row, used = self._row(held, 0, final=True)
                if row is not None and held[0].data and not held[0].data.isspace():
                    yield row, position
                held = held[used:]

    def _opened(self, feed_file: FeedFile) -> BinaryIO:
        stream = feed_file.open()
        if not self._wide:
            return stream
        marks = _NEEDS_MARK.get(self._source)
        if marks:
            with feed_file.open() as head:
                if not head.read(4).startswith(marks):
                    detail = f"no byte-order mark: the mapping says {self._source}-le or {self._source}-be"
                    raise FileUnreadable(Unreadable("encoding-wrong", detail, b""))
        return io.BufferedReader(_Transcoded(stream, self._source), TRANSCODED_BYTES)

    def _row(self, lines: Sequence[Line], at: int, *, final: bool = False) -> tuple[Row | None, int]:
        """The row that begins at a line and of how many lines it is; None where the next lines are needed for it."""
        line = lines[at]
        if line.oversized:
            return Row(line, []), 1
        try:
            text = self._text(line)
            if self._quote not in text:
                return Row(line, text.split(self._separator)), 1
            values = self._quoted(text)
            if values is not None:
                return Row(line, values), 1
            joined, used = self._joined(lines, at, text, final=final)
        except RowUnreadable as problem:
            return Row(line, problem), 1
        return joined, used

    def _joined(self, lines: Sequence[Line], at: int, text: str, *, final: bool) -> tuple[Row | None, int]:
        """A row whose quoted value goes on in the lines below."""
        texts, size, quotes, used = [text], len(lines[at].data), text.count(self._quote), 1
        for more in lines[at + 1 : at + RECORD_LINES_MAX]:
            size += len(more.data)
            if more.oversized or size > LINE_BYTES_MAX:
                raise _unclosed()
            texts.append(self._text(more))
            quotes += texts[-1].count(self._quote)
            used += 1
            if quotes % 2 == 0 and (values := self._quoted("\n".join(texts))) is not None:
                data = b"\n".join([line.data for line in lines[at : at + used]])
                whole = Line(lines[at].number, data, more.whole)
                return Row(whole, [" ".join(value.split("\n")) for value in values]), used
        if final or used >= RECORD_LINES_MAX:
            raise _unclosed()
        return None, 0

    def _quoted(self, text: str) -> list[str] | None:
        """The values of a text with quotes; None where it ends inside one."""
        if any([pair in text for pair in self._perhaps_padded]):  # noqa: C419 - faster
            return self._padded(text)
        try:
            return next(csv.reader([text], delimiter=self._separator, quotechar=self._quote, strict=True))
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                return None
            raise _unclosed() from None

    def _padded(self, text: str) -> list[str] | None:
        """As `_quoted`, where blanks may stand between a quote and its separator; slower."""
        values, at = list[str](), 0
        while match := self._value.match(text, at):
            quoted, plain = match.groups()
            values.append(plain if quoted is None else quoted.replace(self._quote * 2, self._quote))
            at = match.end()
            if at == len(text):
                return values
            at += 1
        if self._open.match(text, at):
            return None
        raise _unclosed()

    def _text(self, line: Line) -> str:
        if b"\x00" in line.data:
            raise RowUnreadable("record-binary", "binary data in a line of text")
        try:
            text = line.data.decode(self._encoding)
        except UnicodeDecodeError as error:
            where = f"byte {error.start + 1}"
            raise RowUnreadable("encoding-wrong", f"not {self._source}", where) from None
        return text.removeprefix(_BOM) if line.number == 1 else text


def _unclosed() -> RowUnreadable:
    return RowUnreadable("quote-unclosed", "a quoted value has no end")


def _unreadable(error: UnicodeError) -> tuple[str, int]:
    """Stands for bytes that are no text; `surrogateescape` writes it as a byte that is no UTF-8."""
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    raise error


codecs.register_error("crm.unreadable", _unreadable)


class _Transcoded(io.RawIOBase):
    """Bytes in UTF-8 of a stream in an encoding in which a line end is another byte than LF, or more than one.

    What cannot be decoded becomes bytes that are no UTF-8, so that its own line is refused and no other.
    """

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("crm.unreadable")
        self._rest = memoryview(b"")
        self._ended = False

    @override
    def readable(self) -> bool:
        return True

    @override
    def close(self) -> None:
        self._stream.close()
        super().close()

    @override
    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._ended:
            chunk = self._stream.read(TRANSCODED_BYTES)
            self._ended = not chunk
            text = self._decoder.decode(chunk, self._ended)
            self._rest = memoryview(text.encode("utf-8", "surrogateescape"))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
