"""What surrounds a public event on the wire: CloudEvents 1.0 in Kafka's binary mode, JSON body.

Attributes are headers `ce_*`; our extensions are `sequence` (version of the subject's stream), `position` (place in the
store of the context), `dataversion`, `storedname`, `effectiveat`, `correlationid` and `causationid`. The trace context
is in the plain headers `traceparent` and `tracestate`, where W3C propagators look for it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TypeVar
from uuid import UUID

Header = tuple[str, bytes]
T = TypeVar("T")

SPECIFICATION: Final = b"1.0"
CONTENT_TYPE: Final = b"application/json"
WATERMARK: Final = "crm.watermark"
SOURCE_PREFIX: Final = "/crm/"
PUBLISHED: Final = "ce_published"
LATE: Final = ("ce_late", b"1")
"""On an event that watermarks had covered before it: its subject was held, because it could not be published."""
COUNTED_MAX: Final = 10**12 - 1
"""Of positions, sequences and versions: what is larger is no number of ours, and databases have no type for it."""

_WATERMARK: Final = WATERMARK.encode()
_SPECIFICATION: Final = ("ce_specversion", SPECIFICATION)
_CONTENT_TYPE: Final = ("content-type", CONTENT_TYPE)
_CACHED_MAX: Final = 4096


class EnvelopeInvalid(ValueError):
    """The headers are not those of an event of ours: what is missing or wrong, in words that quote no header."""

    own_words = True


@dataclass(frozen=True, slots=True)
class Envelope:
    """Where an event comes from, which one it is, and when. Both instants are aware UTC.

    `sequence` counts the events of the subject in its store from 1; not all of them are published, so it may jump.
    `position` orders all events of the context and may jump too.
    """

    id: UUID
    type: str
    version: int
    context: str
    subject: UUID
    sequence: int
    position: int
    recorded_at: datetime
    effective_at: datetime
    stored_name: str
    correlation_id: UUID
    causation_id: UUID
    traceparent: str | None = None
    tracestate: str | None = None

    def headers(self) -> list[Header]:
        """The record's headers."""
        return headers_of(
            str(self.id),
            self.type,
            self.version,
            self.context,
            str(self.subject).encode(),
            self.sequence,
            self.position,
            self.recorded_at,
            self.effective_at,
            self.stored_name,
            str(self.correlation_id),
            str(self.causation_id),
            self.traceparent,
            self.tracestate,
        )

    @classmethod
    def of(cls, headers: Iterable[Header]) -> "Envelope":
        """Reads the headers of an event; raises EnvelopeInvalid."""
        return _reading(_envelope, dict(headers))


def headers_of(
    id: str,
    type: str,
    version: int,
    context: str,
    subject: bytes,
    sequence: int,
    position: int,
    recorded_at: datetime,
    effective_at: datetime,
    stored_name: str,
    correlation_id: str,
    causation_id: str,
    traceparent: str | None,
    tracestate: str | None,
) -> list[Header]:
    """The headers of an envelope without the envelope, for whoever writes tens of thousands a second.

    Ids are in their canonical text, the subject's as bytes because it is the record's key too.
    """
    headers = [
        _SPECIFICATION,
        ("ce_id", id.encode()),
        _source(context),
        _header("ce_type", type),
        ("ce_subject", subject),
        _instant_header("ce_time", recorded_at),
        _CONTENT_TYPE,
        ("ce_sequence", b"%d" % sequence),
        ("ce_position", b"%d" % position),
        _version(version),
        _header("ce_storedname", stored_name),
        _instant_header("ce_effectiveat", effective_at),
        ("ce_correlationid", correlation_id.encode()),
        ("ce_causationid", causation_id.encode()),
    ]
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    if tracestate is not None:
        headers.append(("tracestate", tracestate.encode()))
    return headers


@dataclass(frozen=True, slots=True)
class Watermark:
    """Every event of this context up to `position` lies before this record in its partition.

    `published` is how many these are, so that a reader knows by itself whether the partition still holds all of them;
    None where the relay does not know it.

    It is a CloudEvent like any other, with a JSON body, so that readers who know nothing of it pass over it by its type.
    """

    context: str
    position: int
    at: datetime
    published: int | None = None

    def headers(self, partition: int) -> list[Header]:
        """The record's headers in this partition; a watermark has no subject. No two have the same `ce_id`: it names
        the partition, and the microsecond of a sign of life that repeats a position."""
        unique = f"{self.context}-{partition}-{self.position}-{self.at:%Y%m%d%H%M%S%f}"
        headers = [
            _SPECIFICATION,
            ("ce_id", unique.encode()),
            _source(self.context),
            _header("ce_type", WATERMARK),
            ("ce_time", self.at.isoformat().encode()),
            _CONTENT_TYPE,
            ("ce_position", b"%d" % self.position),
            _version(1),
        ]
        return headers if self.published is None else [*headers, (PUBLISHED, b"%d" % self.published)]

    @property
    def body(self) -> bytes:
        """The record's body, which says the same for readers who look at no headers."""
        if self.published is None:
            return b'{"position":%d}' % self.position
        return b'{"position":%d,"published":%d}' % (self.position, self.published)

    @classmethod
    def of(cls, headers: Iterable[Header]) -> "Watermark":
        """Reads the headers of a watermark; raises EnvelopeInvalid."""
        return _reading(_watermark, dict(headers))


def unwrap(headers: Iterable[Header]) -> Envelope | Watermark:
    """What a record of an event topic is; raises EnvelopeInvalid for anything else."""
    found = dict(headers)
    if found.get("ce_type") == _WATERMARK:
        return _reading(_watermark, found)
    return _reading(_envelope, found)


def _envelope(found: dict[str, bytes]) -> Envelope:
    if found["ce_specversion"] != SPECIFICATION:
        raise EnvelopeInvalid("ce_specversion is not 1.0")
    return Envelope(
        UUID(found["ce_id"].decode()),
        _decoded(found["ce_type"]),
        counted("ce_dataversion", found["ce_dataversion"]),
        _context(found["ce_source"]),
        UUID(found["ce_subject"].decode()),
        counted("ce_sequence", found["ce_sequence"]),
        counted("ce_position", found["ce_position"]),
        _instant(found["ce_time"]),
        _instant(found["ce_effectiveat"]),
        _decoded(found["ce_storedname"]),
        _id(found["ce_correlationid"]),
        _id(found["ce_causationid"]),
        trace_text(found.get("traceparent")),
        trace_text(found.get("tracestate")),
    )


def _watermark(found: dict[str, bytes]) -> Watermark:
    if found["ce_type"] != _WATERMARK:
        raise EnvelopeInvalid("not a watermark")
    return Watermark(
        _context(found["ce_source"]),
        counted("ce_position", found["ce_position"], 0),
        _instant(found["ce_time"]),
        published_of(found),
    )


def _reading(read: Callable[[dict[str, bytes]], T], found: dict[str, bytes]) -> T:
    try:
        return read(found)
    except EnvelopeInvalid:
        raise
    except KeyError as missing:
        raise EnvelopeInvalid(f"no header {missing.args[0]}") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise EnvelopeInvalid(f"a header cannot be read: {type(error).__name__}") from error


# What many records of a batch have in common is read and written once.


def counted(name: str, value: bytes, least: int = 1) -> int:
    """The number in a header; raises EnvelopeInvalid, or what `int` raises."""
    number = int(value)
    if not least <= number <= COUNTED_MAX:
        raise EnvelopeInvalid(f"{name} is not between {least} and {COUNTED_MAX}")
    return number


def published_of(found: Mapping[str, bytes]) -> int | None:
    """The count of a watermark; None where it has none. Raises EnvelopeInvalid, or what `int` raises."""
    value = found.get(PUBLISHED)
    return None if value is None else counted(PUBLISHED, value, 0)


def trace_text(value: bytes | None) -> str | None:
    """The text of a header of the trace context. One that cannot be read is left out: the event is
    valid without it."""
    if value is None or not value.isascii():
        return None
    return value.decode("ascii")


def instant_of(value: bytes) -> datetime:
    """The aware instant in a header; raises EnvelopeInvalid, also for one that UTC has no year for."""
    try:
        instant = datetime.fromisoformat(value.decode())
        if instant.tzinfo is None:
            raise EnvelopeInvalid("an instant without a zone")
        instant.astimezone(UTC)
    except EnvelopeInvalid:
        raise
    except (ValueError, OverflowError, AttributeError) as error:
        raise EnvelopeInvalid("not an instant") from error
    return instant


@lru_cache(_CACHED_MAX)
def _header(name: str, value: str) -> Header:
    return name, value.encode()


@lru_cache(_CACHED_MAX)
def _instant_header(name: str, instant: datetime) -> Header:
    return name, instant.isoformat().encode()


@lru_cache(_CACHED_MAX)
def _source(context: str) -> Header:
    return "ce_source", f"{SOURCE_PREFIX}{context}".encode()


@lru_cache(_CACHED_MAX)
def _version(version: int) -> Header:
    return "ce_dataversion", b"%d" % version


@lru_cache(_CACHED_MAX)
def _id(value: bytes) -> UUID:
    return UUID(value.decode())


_instant: Final = lru_cache(_CACHED_MAX)(instant_of)


@lru_cache(_CACHED_MAX)
def _context(source: bytes) -> str:
    text = source.decode()
    if not text.startswith(SOURCE_PREFIX) or len(text) == len(SOURCE_PREFIX):
        raise EnvelopeInvalid("ce_source is none of ours")
    return text.removeprefix(SOURCE_PREFIX)


@lru_cache(_CACHED_MAX)
def _decoded(name: bytes) -> str:
    if not name:
        raise EnvelopeInvalid("a name is empty")
    return name.decode()
