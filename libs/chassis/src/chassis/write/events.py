"""The types of private events: as a domain declares them, as a store holds them, and as a reader gets them."""

from datetime import datetime
from typing import ClassVar, Literal, NewType
from uuid import UUID, uuid5

import msgspec

from chassis.privacy.personal import Personal, PersonalClass, PersonalMark, marked, personal

__all__ = [
    "Event",
    "EventId",
    "Metadata",
    "Personal",
    "PersonalClass",
    "PersonalMark",
    "RecordedEvent",
    "StoredEvent",
    "event_id",
    "personal",
    "personal_fields",
]

EventId = NewType("EventId", UUID)


class Event(msgspec.Struct, frozen=True):
    """Base of private events: a fact in the past tense.

    Its stored name is the catalogue's, not its class name. `sealed_under` is the field that names the subject under whose
    key its values were sealed by hand; by default, and where an event of before names none, its stream is that subject.
    """

    sealed_under: ClassVar[str | None] = None


class Metadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The metadata of every stored event (R091): two times, the actor, the reason, and the cause.

    `effective_at` is business time, `recorded_at` the time of storing; both aware UTC. `trace` is a W3C
    carrier. `proposed_by` and `proposal_id`: the proposal that `actor` approved with this.
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
    proposed_by: str | None = None
    proposal_id: UUID | None = None


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as the store holds it. `version` counts a stream from 1 without gaps; `position` comes from
    the store.

    `body` is JSON, {"meta": ..., "data": {"v": schema version, ...}}. `identity`, where given, is unique
    in the store.
    """

    stream_id: UUID
    version: int
    name: str
    body: bytes
    identity: UUID | None = None
    position: int | None = None


class RecordedEvent(msgspec.Struct, frozen=True):
    """An event as a reader gets it: decoded, and upcast to the current version of its schema."""

    position: int | None
    stream_id: UUID
    version: int
    name: str
    event: Event
    metadata: Metadata

    @property
    def event_id(self) -> EventId:
        """Event ids are derived from stream and version, so they are the same in every process and never
        change."""
        return event_id(self.stream_id, self.version)


def event_id(stream_id: UUID, version: int) -> EventId:
    """Id of the event at `version` of a stream."""
    return EventId(uuid5(stream_id, str(version)))


def personal_fields(event_class: type[Event]) -> dict[str, PersonalClass]:
    """The places of an event's personal values with their class: `owner`, `home.street`, `guests[].name`.

    Raises MarkMisplaced where a mark stands on what could not be sealed.
    """
    return marked(event_class).places()
