"""Pages by cursor: bounded, stable while others write, and opaque to the caller."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar
from uuid import UUID

import msgspec
from fastapi import Depends, Query
from pydantic import BaseModel, Field

from chassis.web.formats import Integer
from chassis.write.deciding import Refusal

LIMIT_MAX: Final = 200
LIMIT_DEFAULT: Final = 50
CURSOR_CHARACTERS_MAX: Final = 2_000
"""The longest text that a list is sorted by has 200 characters, of up to 4 bytes."""

ItemT = TypeVar("ItemT")
_encode: Final = msgspec.json.Encoder().encode


class CursorInvalid(Refusal):
    """A cursor that no page issued: there is no page after it."""

    code = "cursor-invalid"
    status = 400
    title = "The cursor was given out by no page"
    title_zh = "分页游标无效"


class Page(BaseModel, Generic[ItemT]):
    """One page; `next` is the cursor of the page after it, null on the last."""

    items: list[ItemT] = Field(max_length=LIMIT_MAX)
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page is asked for."""

    limit: int = LIMIT_DEFAULT
    after: str | None = None


async def paging(
    limit: Annotated[Integer, Query(ge=1, le=LIMIT_MAX, description="items per page")] = LIMIT_DEFAULT,
    after: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=CURSOR_CHARACTERS_MAX,
            pattern=r"^[A-Za-z0-9_-]+$",
            description="the `next` of the page before",
        ),
    ] = None,
) -> Paging:
    """The page that a query asks for: `limit` and `after`."""
    return Paging(limit, after)


Paged = Annotated[Paging, Depends(paging)]


def cursor(*values: str | int | UUID) -> str:
    """The cursor of the page after `values`, the sort key of a page's last item."""
    return urlsafe_b64encode(_encode(values)).rstrip(b"=").decode()


def cursor_values(text: str, *types: type[Any]) -> tuple[Any, ...]:
    """The values of a cursor, each of the type given (str, int, UUID); raises CursorInvalid."""
    try:
        content = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        values: tuple[Any, ...] = msgspec.json.decode(content, type=tuple[types])  # type: ignore[valid-type]
    except (ValueError, msgspec.DecodeError) as error:
        raise CursorInvalid from error
    if any(isinstance(value, int) and abs(value) >= 2**63 for value in values):
        raise CursorInvalid
    if any(isinstance(value, str) and "\x00" in value for value in values):
        raise CursorInvalid
    return values
