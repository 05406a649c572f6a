"""Text types with a format, for responses that are sent as the views store them, and the integers of a query.

Only the OpenAPI document uses the format of a text. And the instants and days that callers state.
"""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, WithJsonSchema

_DIGITS: Final = re.compile(r"-?[0-9]+")
_DATED: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ].*")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _plain(value: Any) -> Any:
    if isinstance(value, str) and _DIGITS.fullmatch(value) is None:
        raise ValueError("it is no integer in plain digits")
    return value


Integer = Annotated[int, BeforeValidator(_plain)]
"""An integer of a query: `50`, but not `5_0`, `+50`, `50.0` or ` 50`, which pydantic reads as 50."""


def _dated(value: Any) -> Any:
    if not isinstance(value, str) or _DATED.fullmatch(value) is None:
        raise ValueError("it is no date and time of RFC 3339")
    return value


_FIRST: Final = datetime(1, 1, 3, tzinfo=UTC)
"""From it on each time zone has a date, and the cut-off of the day before."""


def _in_utc(value: datetime) -> datetime:
    try:
        stated = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("it is in no year from 1 to 9999 of UTC") from None
    if stated < _FIRST:
        raise ValueError(f"it is before {_FIRST.date()}")
    return stated


StatedInstant = Annotated[AwareDatetime, BeforeValidator(_dated), AfterValidator(_in_utc)]
"""An instant that a caller states, in UTC: RFC 3339 with an offset, and no number, which pydantic reads as seconds or
milliseconds."""


def _of_calendar(value: Any) -> Any:
    if (isinstance(value, str) and _DAY.fullmatch(value) is None) or isinstance(value, int | float):
        raise ValueError("it is no day of the form YYYY-MM-DD")
    return value


StatedDay = Annotated[date, BeforeValidator(_of_calendar)]
"""A day that a caller states, YYYY-MM-DD, and neither an instant nor a number, which pydantic reads as seconds or
milliseconds."""

LINE: Final = r"[^\x00-\x1f\x7f]"
"""The characters of one line, for a pattern."""
LINES: Final = r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
"""The characters of some lines."""
_UNSEEN: Final = (
    r"\x00-\x20\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f"
    r"\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
)
"""Blanks, and what takes no space or is drawn as a blank."""


def stating(characters: str) -> str:
    """The pattern of a text of these characters that states something: one of them can be seen."""
    return f"^{characters}*[^{_UNSEEN}]{characters}*$"


Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""An aware instant."""
Day = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
"""A day of the calendar."""
Month = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$"})]
"""A month of the calendar, YYYY-MM."""
Id = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
"""A UUID."""
