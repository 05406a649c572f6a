"""Versions over HTTP (RFC 9110): an ETag is the stream's version, and an edit names the one it was decided on."""

import re
from typing import Annotated, Final

from fastapi import Depends, Header
from starlette.requests import Request

from chassis.deciding import Refusal

_VERSION: Final = re.compile(r'"(0|[1-9][0-9]{0,17})"')


class PreconditionUnknown(Refusal):
    """An entity tag that was never given out matches nothing."""

    code = "version-mismatch"
    status = 412
    title = "If-Match names no version that was given out"
    title_zh = "If-Match 中的版本无效"


def entity_tag(version: int) -> str:
    """The ETag of a version."""
    return f'"{version}"'


async def expected_version(
    if_match: Annotated[
        str,
        Header(
            alias="If-Match",
            max_length=100,
            description="the ETag that was read; `*` and weak tags match nothing",
        ),
    ],
) -> int:
    """The version that an edit was decided on; without the header the answer is 428."""
    found = _VERSION.fullmatch(if_match.strip())
    if found is None:
        raise PreconditionUnknown
    return int(found[1])


Expected = Annotated[int, Depends(expected_version)]


def unchanged(request: Request, tag: str) -> bool:
    """Whether the caller has what `tag` names (If-None-Match): then 304 without a body is the answer."""
    said = request.headers.get("if-none-match", "")
    return said.strip() == "*" or tag in {each.strip().removeprefix("W/") for each in said.split(",")}
