"""A public event as views and policies get it, read lazily from a record.

The fields of the envelope that every reader needs are parsed at once, the others on demand. The body is
checked against the schema of its contract and stays JSON: ids and dates are text, personal values are
sealed. A body of an older version is lifted to the newest one here, for every reader; what was published stays as it is.
"""

import re
import typing
from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache
from types import UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    TypedDict,
    Union,
    cast,
)
from uuid import UUID

import msgspec
from contracts.envelope import (
    CONTENT_TYPE,
    COUNTED_MAX,
    SOURCE_PREFIX,
    SPECIFICATION,
    WATERMARK,
    Envelope,
    EnvelopeInvalid,
    counted,
    instant_of,
    published_of,
    trace_text,
)
from contracts.registry import Lift, VersionNewer, lifts_of, model_of
from pydantic import BaseModel
from typing_extensions import override

from chassis.connections.transient import Transient
from chassis.messaging.records import Record

SUBJECTS_CACHED_MAX: Final = 65_536
INSTANTS_CACHED_MAX: Final = 4_096
"""Events of one batch were recorded at one instant."""
_FAULT: Final = re.compile(
    r"^(Input data was truncated|JSON is malformed|Expected `[\w |]+`, got `\w+`|Object missing required field `\w+`)",
    re.ASCII,
)
_PLACE: Final = re.compile(r"at `(key in )?[$\w.\[\]]+`\Z", re.ASCII)
"""What of a decoder's message may be told: other messages quote the value. It tells no key of data as a place."""
_WATERMARK: Final = WATERMARK.encode()
_TEXT: Final = frozenset({UUID, date, datetime})


Stream = tuple[str, UUID]
"""A context and one of its subjects, whose events are in order. Two contexts may share a subject."""


class WriterNewer(Transient):
    """A newer process published the event. While processes are replaced, an older one waits until it is its turn."""


class BodyInvalid(ValueError):
    """The body of an event does not match its contract: which one, and where, without the value."""

    own_words = True


class Delivered:
    """An event with its place in the topic. Properties that are read from a bad header raise EnvelopeInvalid."""

    __slots__ = (
        "_data",
        "_headers",
        "context",
        "position",
        "record",
        "sequence",
        "subject",
        "type",
        "version",
    )

    def __init__(
        self,
        record: Record,
        headers: Mapping[str, bytes],
        type: str,
        version: int,
        context: str,
        subject: UUID,
        sequence: int,
        position: int,
    ) -> None:
        self.record = record
        self.type = type
        self.version = version
        self.context = context
        self.subject = subject
        self.sequence = sequence
        self.position = position
        self._headers = headers
        self._data: dict[str, Any] | None = None

    @property
    def stream(self) -> Stream:
        """The context and the subject."""
        return (self.context, self.subject)

    @property
    def data(self) -> dict[str, Any]:
        """The body as the newest version of its contract has it; raises as `read_body`."""
        data = self._data
        if data is None:
            data = self._data = read_body(self.type, self.version, self.record.value)
        return data

    @property
    def id(self) -> UUID:
        """The event's id."""
        return _uuid(self._header("ce_id"))

    @property
    def correlation_id(self) -> UUID:
        """What the event came of at last."""
        return _correlation(self._header("ce_correlationid"))

    @property
    def stored_name(self) -> str:
        """The name under which the context's store holds it: with subject and sequence, what opens sealed
        values."""
        return _text(self._header("ce_storedname"))

    @property
    def recorded_at(self) -> datetime:
        """When the event was stored, aware UTC."""
        return _instant(self._header("ce_time"))

    @property
    def effective_at(self) -> datetime:
        """Business time, aware UTC."""
        return _instant(self._header("ce_effectiveat"))

    @property
    def traceparent(self) -> str | None:
        """W3C trace context under which the event was recorded; None where the header cannot be read."""
        return trace_text(self._headers.get("traceparent"))

    @property
    def tracestate(self) -> str | None:
        """W3C trace state beside it; None where the header cannot be read."""
        return trace_text(self._headers.get("tracestate"))

    @property
    def envelope(self) -> Envelope:
        """The whole envelope."""
        return Envelope.of(self.record.headers)

    def _header(self, name: str) -> bytes:
        try:
            return self._headers[name]
        except KeyError:
            raise EnvelopeInvalid(f"no header {name}") from None

    @override
    def __repr__(self) -> str:
        return (
            f"Delivered({self.type} {self.version}, {self.subject} {self.sequence}, position {self.position})"
        )


class Passed(NamedTuple):
    """A watermark: the partition holds every event of the context up to `position` before this record."""

    context: str
    position: int
    at: datetime
    published: int | None = None
    """The number of these events; None where the relay did not know it."""


def read(record: Record) -> Delivered | Passed:
    """Returns the event or watermark in a record of an event topic; raises EnvelopeInvalid."""
    headers = dict(record.headers)
    try:
        if headers["ce_specversion"] != SPECIFICATION:
            raise EnvelopeInvalid("ce_specversion is not 1.0")
        kind = headers["ce_type"]
        context = _context(headers["ce_source"])
        if kind == _WATERMARK:
            return Passed(
                context,
                counted("ce_position", headers["ce_position"], 0),
                _instant(headers["ce_time"]),
                published_of(headers),
            )
        if headers["content-type"] != CONTENT_TYPE:
            raise EnvelopeInvalid("content-type is not JSON's")
        position, sequence = int(headers["ce_position"]), int(headers["ce_sequence"])
        if not (1 <= position <= COUNTED_MAX and 1 <= sequence <= COUNTED_MAX):
            raise EnvelopeInvalid(f"ce_sequence or ce_position is not between 1 and {COUNTED_MAX}")
        return Delivered(
            record,
            headers,
            _text(kind),
            int(headers["ce_dataversion"]),
            context,
            _subject(headers["ce_subject"]),
            sequence,
            position,
        )
    except KeyError as missing:
        raise EnvelopeInvalid(f"no header {missing.args[0]}") from None
    except (ValueError, AttributeError, TypeError) as error:
        if isinstance(error, EnvelopeInvalid):
            raise
        raise EnvelopeInvalid(f"a header cannot be read: {type(error).__name__}") from error


def read_body(name: str, version: int, value: bytes) -> dict[str, Any]:
    """A body as JSON has it, checked against the contract of its version and lifted to the newest one.

    Raises BodyInvalid, WriterNewer, and TypeUnknown for what is no event of ours.
    """
    try:
        decoder, lifts = _reader(name, version)
    except VersionNewer as error:
        raise WriterNewer(str(error)) from error
    try:
        data = decoder.decode(value)
    except msgspec.DecodeError as error:
        found = [each[0] for kind in (_FAULT, _PLACE) if (each := kind.search(str(error)))]
        raise BodyInvalid(f"{name} {version}: {' '.join(found)}") from error
    for lift in lifts:
        data = lift(data)
    return data


@lru_cache(maxsize=1024)
def _reader(name: str, version: int) -> "tuple[msgspec.json.Decoder[dict[str, Any]], tuple[Lift, ...]]":
    model = cast(type[BaseModel], model_of(name, version))
    return msgspec.json.Decoder(_shape(model)), lifts_of(name, version)


def _shape(model: type[BaseModel]) -> Any:
    fields = {
        name: (Required if field.is_required() else NotRequired)[_plain(field.annotation)]
        for name, field in model.model_fields.items()
    }
    return TypedDict(model.__name__, fields)  # type: ignore[operator]


def _plain(hint: Any) -> Any:
    """The type of a field as JSON has it: what pydantic would parse stays text."""
    if hint in _TEXT:
        return str
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None:
        return _shape(hint) if issubclass(hint, BaseModel) else hint
    if origin is Literal:
        return hint
    if origin is Annotated:
        return _plain(arguments[0])
    plain = tuple(argument if argument is Ellipsis else _plain(argument) for argument in arguments)
    if origin is UnionType or origin is Union:
        return Union[plain]  # noqa: UP007
    return list[plain[0]] if origin is tuple else origin[plain]  # type: ignore[valid-type]


@lru_cache(SUBJECTS_CACHED_MAX)
def _subject(value: bytes) -> UUID:
    return UUID(value.decode())


@lru_cache(1024)
def _text(value: bytes) -> str:
    if not value:
        raise EnvelopeInvalid("a name is empty")
    return value.decode()


@lru_cache(1024)
def _context(value: bytes) -> str:
    text = value.decode()
    if not text.startswith(SOURCE_PREFIX):
        raise EnvelopeInvalid("ce_source is none of ours")
    return text.removeprefix(SOURCE_PREFIX)


def _uuid(value: bytes) -> UUID:
    try:
        return UUID(value.decode())
    except (ValueError, AttributeError) as error:
        raise EnvelopeInvalid("a header is no id") from error


_correlation: Final = lru_cache(1024)(_uuid)
_instant: Final = lru_cache(INSTANTS_CACHED_MAX)(instant_of)
