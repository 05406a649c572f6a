"""What the views of this service share: the shape of an event as they get it, and sealed values in documents."""

from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

Document = dict[str, Any]


class Told(Protocol):
    """A public event as a view reads it; `data` is its decoded body, personal values in it still sealed."""

    @property
    def type(self) -> str: ...

    @property
    def subject(self) -> UUID: ...

    @property
    def sequence(self) -> int: ...

    @property
    def position(self) -> int: ...

    @property
    def recorded_at(self) -> datetime: ...

    @property
    def stored_name(self) -> str: ...

    @property
    def data(self) -> dict[str, Any]: ...


def sealed(event: Told, field: str) -> Document | None:
    """The token of a personal field with what opens it: version and stored name of the event that it was sealed for."""
    token = event.data.get(field)
    return None if token is None else {"t": token, "v": event.sequence, "n": event.stored_name}
