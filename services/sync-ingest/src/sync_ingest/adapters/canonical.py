"""Canonical JSON lines: the published schema for branch systems, one record per line, UTF-8."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, get_args

import msgspec

from sync_ingest.adapters.port import (
    BATCH_RECORDS,
    Batch,
    FeedFile,
    Item,
    Line,
    chunks_of_lines,
    kept,
    oversized,
    rebatched,
    unreadable_file,
)
from sync_ingest.domain.records import AnyRecord, Covers, ListedHolder, Unreadable

_decoder: Final[msgspec.json.Decoder[AnyRecord]] = msgspec.json.Decoder(AnyRecord)
_encoder: Final = msgspec.json.Encoder()
_plain: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
_FIELDS: Final = frozenset(
    ["record", *(name for kind in (*get_args(AnyRecord), ListedHolder) for name in kind.__struct_fields__)]
)
"""The names that a quarantine entry may show: fields of the schema, and no text of a feed."""
_SHOWN: Final = re.compile(
    r"Expected `[a-z| ]+`(?:, got `[a-z]+`| (?:of length )?[<>]=? -?[0-9]+)?|[a-z][a-z ,]{0,150}"
)
_PATH: Final = re.compile(r" - at `\$\.?([^`]*)`")
_BYTE: Final = re.compile(r"\(byte (\d+)\)")
_BOM: Final = b"\xef\xbb\xbf"


class CanonicalAdapter:
    """JSON lines whose objects are the canonical records themselves."""

    name: Final = "canonical"
    reading: Final = "canonical.2"
    covers: Covers | None = None

    def read(self, files: Sequence[FeedFile]) -> Iterator[Batch]:
        """Every non-blank line of every file, in the order of the files."""
        return rebatched(self._items(files))

    def _items(self, files: Sequence[FeedFile]) -> Iterator[tuple[list[Item], int]]:
        before = 0
        for index, feed_file in enumerate(files):
            if reason := unreadable_file(feed_file):
                yield [Item(index, 0, reason)], before + feed_file.size_bytes
            else:
                with feed_file.open() as stream:
                    for lines, position in chunks_of_lines(stream):
                        for items in _contents(index, lines):
                            yield items, before + position
            before += feed_file.size_bytes


def _contents(file: int, lines: list[Line]) -> Iterator[list[Item]]:
    """Reads all lines of a chunk at once where they are valid, which is four times as fast; else one by one."""
    for at in range(0, len(lines), BATCH_RECORDS):
        some = [line for line in lines[at : at + BATCH_RECORDS] if line.data and not line.data.isspace()]
        contents: Sequence[AnyRecord | Unreadable]
        joined = b"\n".join([line.data for line in some])
        try:
            contents = decoded = _decoder.decode_lines(joined)
            if (
                len(decoded) != len(some)
                or any(line.oversized for line in some)
                or _may_repeat(joined, decoded)
            ):
                contents = [read_line(line) for line in some]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            contents = [read_line(line) for line in some]
        yield [Item(file, line.number, content) for line, content in zip(some, contents, strict=True)]


def read_line(line: Line) -> AnyRecord | Unreadable:
    """Returns the record of one line, or the reason why it cannot be read."""
    if line.oversized:
        return oversized(line)
    data = line.data.removeprefix(_BOM) if line.number == 1 else line.data
    try:
        return _once(data, _decoder.decode(data))
    except msgspec.ValidationError as error:
        return _not_valid(data, str(error))
    except msgspec.DecodeError as error:
        return _not_json(line, data, str(error))
    except UnicodeDecodeError as error:
        return _not_json(line, data, str(error))
    except RecursionError:
        return Unreadable("json-malformed", "nested too deeply", kept(data))


def _once(data: bytes, record: AnyRecord) -> AnyRecord | Unreadable:
    if _may_repeat(data, [record]) and _repeats(data):
        return Unreadable("json-duplicate-key", "a field is there twice in one object", kept(data))
    return record


def _may_repeat(data: bytes, records: Sequence[AnyRecord]) -> bool:
    """Whether an object may name a field twice, of which the decoder would let the last one win.

    Each field costs one colon. What was decoded and is written again has every field once, and the colons
    of its values, unless somebody wrote one as an escape. As many colons in `data` leave none for a field
    that is there twice. The records are tried first, which leave out defaults that a feed may write; plain
    objects have those too.
    """
    if b"\\" in data and (b"\\u003a" in data or b"\\u003A" in data):
        return True
    colons = data.count(b":")
    return colons != _encoder.encode_lines(records).count(b":") and colons != _encoder.encode_lines(
        _plain.decode_lines(data)
    ).count(b":")


def _repeats(data: bytes) -> bool:
    """Whether an object of one line of valid JSON names a field twice."""
    return bool(json.loads(data, object_pairs_hook=_Pairs).repeats)


class _Pairs(list[Any]):
    """An object as its pairs, which knows whether it or one inside it names a field twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(value for _, value in pairs)
        self.repeats = len({name for name, _ in pairs}) < len(pairs) or any(map(_repeated_in, self))


def _repeated_in(value: object) -> bool:
    if isinstance(value, _Pairs):
        return value.repeats
    return isinstance(value, list) and any(map(_repeated_in, value))


def _not_json(line: Line, data: bytes, message: str) -> Unreadable:
    if b"\x00" in data:
        return Unreadable("record-binary", "binary data in a line of text", kept(data))
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Unreadable("encoding-wrong", "not UTF-8", kept(data), f"byte {error.start + 1}")
    if "truncated" in message:
        where = "the file stops inside this record" if not line.whole else "the record stops early"
        return Unreadable("record-truncated", where, kept(data), f"byte {len(data)}")
    at = _BYTE.search(message)
    return Unreadable(
        "json-malformed", "not a JSON object", kept(data), f"byte {int(at[1]) + 1}" if at else None
    )


def _not_valid(data: bytes, message: str) -> Unreadable:
    path = _PATH.search(message)
    field = path[1] if path else None
    told = message[: path.start()] if path else message
    detail = told if _SHOWN.fullmatch(told) else "a value that this field cannot hold"
    if missing := re.search(r"missing required field `(\w+)`", message):
        return Unreadable("field-missing", "a required field is missing", kept(data), _known(missing[1]))
    if "unknown field" in told:
        return Unreadable("field-unknown", "an unknown field", kept(data))
    if field is None:
        stated = detail if told.islower() and detail == told else "not an object of the schema"
        return Unreadable("record-unknown", stated, kept(data))
    return Unreadable(_reason(field), detail, kept(data), _known(field))


def _known(path: str) -> str | None:
    """A path of which each part is a field of the schema or a place in a list, else None: it is the feed's
    own text."""
    parts = [re.sub(r"\[(?:[0-9]+|\.\.\.)\]", "", part) for part in path.split(".")]
    return path if all(part in _FIELDS for part in parts) else None


def _reason(field: str) -> str:
    if field.endswith("_minor"):
        return "amount-malformed"
    if field.endswith("_on"):
        return "date-impossible"
    if field == "currency":
        return "currency-unknown"
    if field == "record":
        return "record-unknown"
    return "field-invalid"
