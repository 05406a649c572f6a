"""Versions over HTTP (RFC 9110): an ETag is the stream's version, and an edit names the one it was decided
on."""

import re
from typing import Annotated, Final

from fastapi import Depends, Header
from starlette.requests import Request

_VERSION: Final = re.compile(r'"(0|[1-9][0-9]{0,17})"')
_ENTITY_TAG: Final = r'^(\*|(W/)?"[!#-~]{0,40}")$'
NO_VERSION: Final = -1
"""The version of a tag that was never issued. It matches no version, so the edit is refused with 412 when it
is decided."""


def entity_tag(version: int) -> str:
    """The ETag of a version."""
    return f'"{version}"'


async def expected_version(
    if_match: Annotated[
        str,
        Header(
            alias="If-Match",
            pattern=_ENTITY_TAG,
            description="the ETag that was read; `*` and weak tags match nothing",
        ),
    ],
) -> int:
    """The version that an edit was decided on; without the header the answer is 428."""
    found = _VERSION.fullmatch(if_match)
    return NO_VERSION if found is None else int(found[1])


Expected = Annotated[int, Depends(expected_version)]


def unchanged(request: Request, tag: str) -> bool:
    """Whether the caller has the version of `tag` already (If-None-Match).

    The response is then 304 without a body.
    """
    said = request.headers.get("if-none-match", "")
    return said.strip() == "*" or tag in {each.strip().removeprefix("W/") for each in said.split(",")}
