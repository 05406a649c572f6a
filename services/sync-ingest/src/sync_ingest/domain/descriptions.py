"""What was described of master data, and how far. Pure."""

from collections.abc import Mapping
from typing import Final, NamedTuple
from uuid import UUID


class Description(NamedTuple):
    """The last description of one thing: how often it was described, and a digest of what was said; of holders the text."""

    revision: int
    digest: str


NOT_DESCRIBED: Final = Description(0, "")


class Described(NamedTuple):
    """What a batch of master data describes. `lines`: of each intake the last line that was described before, and now.

    `by` is the identity of one of its events, which are stored together; None where it has none.
    """

    subjects: Mapping[UUID, Description]
    lines: Mapping[UUID, tuple[int, int]]
    by: UUID | None
