"""Text types with a format, for responses that are sent as the views store them, and the integers of a query.

Only the OpenAPI document uses the format of a text.
"""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

_DIGITS: Final = re.compile(r"-?[0-9]+")


def _plain(value: Any) -> Any:
    if isinstance(value, str) and _DIGITS.fullmatch(value) is None:
        raise ValueError("it is no integer in plain digits")
    return value


Integer = Annotated[int, BeforeValidator(_plain)]
"""An integer of a query: `50`, but not `5_0`, `+50`, `50.0` or ` 50`, which pydantic reads as 50."""

Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""An aware instant."""
Day = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
"""A day of the calendar."""
Month = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$"})]
"""A month of the calendar, YYYY-MM."""
Id = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
"""A UUID."""
