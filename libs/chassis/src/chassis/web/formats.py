"""Text types with a format, for responses that are sent as the views store them.

Only the OpenAPI document uses the format.
"""

from typing import Annotated

from pydantic import WithJsonSchema

Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""An aware instant."""
Day = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
"""A day of the calendar."""
Month = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$"})]
"""A month of the calendar, YYYY-MM."""
Id = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
"""A UUID."""
