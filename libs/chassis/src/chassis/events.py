"""The vocabulary of private events: what a domain declares, what a store holds, what a reader gets back."""

import typing
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, NewType
from uuid import UUID, uuid5

import msgspec

PersonalClass = Literal["C1", "C2", "C3"]
EventId = NewType("EventId", UUID)


@dataclass(frozen=True, slots=True)
class PersonalMark:
    """Marks a text field of an event as personal: it is sealed on its own, under the key of the stream."""

    sensitivity: PersonalClass


def personal(sensitivity: PersonalClass = "C2") -> PersonalMark:
    """The mark for `Annotated[str, personal("C2")]`; the field may be optional, never anything but text."""
    return PersonalMark(sensitivity)


Personal = Annotated[str, PersonalMark("C2")]


class Event(msgspec.Struct, frozen=True):
    """Base of private events: a fact in the past tense. Its stored name is the catalogue's, not its class name."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every stored event carries beside its fact (R091): two clocks, who, why, and what led to it.

    `effective_at` is business time, `recorded_at` when it was written down; both aware UTC. `trace` is a W3C carrier.
    """

    effective_at: datetime
    recorded_at: datetime
    actor: str
    command_id: UUID
    correlation_id: UUID
    causation_id: UUID
    post: str | None = None
    on_behalf_of: str | None = None
    reason: str | None = None
    privilege: Literal["normal", "high"] = "normal"
    trace: dict[str, str] = {}
    client_address: str | None = None


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as the store holds it. `version` counts a stream from 1 without gaps; `position` comes from the store.

    `body` is JSON, {"meta": ..., "data": {"v": schema version, ...}}. `identity`, where given, is unique in the store.
    """

    stream_id: UUID
    version: int
    name: str
    body: bytes
    identity: UUID | None = None
    position: int | None = None


class RecordedEvent(msgspec.Struct, frozen=True):
    """An event as a reader gets it: decoded, and lifted to the current version of its schema."""

    position: int | None
    stream_id: UUID
    version: int
    name: str
    event: Event
    metadata: Metadata

    @property
    def event_id(self) -> EventId:
        """The same everywhere and for ever: derived from stream and version."""
        return event_id(self.stream_id, self.version)


def event_id(stream_id: UUID, version: int) -> EventId:
    """Id of the event at `version` of a stream."""
    return EventId(uuid5(stream_id, str(version)))


@lru_cache(maxsize=1024)
def personal_fields(event_class: type[Event]) -> dict[str, PersonalClass]:
    """The personal fields of an event class with their class, in field order."""
    found: dict[str, PersonalClass] = {}
    for name, hint in typing.get_type_hints(event_class, include_extras=True).items():
        mark = _mark(hint)
        if mark is not None:
            if not _is_text(hint):
                raise TypeError(f"{event_class.__name__}.{name} is personal and not text")
            found[name] = mark.sensitivity
    return found


def _mark(hint: Any) -> PersonalMark | None:
    for metadata in getattr(hint, "__metadata__", ()):
        if isinstance(metadata, PersonalMark):
            return metadata
    for argument in typing.get_args(hint):
        mark = _mark(argument)
        if mark is not None:
            return mark
    return None


def _is_text(hint: Any) -> bool:
    if typing.get_origin(hint) is Annotated:
        return _is_text(typing.get_args(hint)[0])
    arguments = typing.get_args(hint)
    return hint in {str, type(None)} or (bool(arguments) and all(_is_text(a) for a in arguments))
