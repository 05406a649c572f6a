"""The version that a reader is shown of a subject, to be named in `If-Match` when it is changed."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from chassis.read.documents import ID, SEQUENCE, Document

Ends = Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, tuple[int, int]]]]
"""Version and position of the last event of each stream, as `EventStore.stream_ends` gives them."""


def _of_document(document: Mapping[str, Any]) -> tuple[UUID, int]:
    return UUID(str(document[ID])), document[SEQUENCE]


async def versioned(
    found: Sequence[Document],
    ends: Ends,
    caught_up: Callable[[int], Awaitable[bool]],
    again: Callable[[Sequence[UUID]], Awaitable[Sequence[Document]]],
    of: Callable[[Document], tuple[UUID, int]] = _of_document,
) -> list[tuple[Document, int]]:
    """Documents, each with the version of its stream that is shown.

    An event that does not change the view, or is not published, raises the stream's version and not the
    document's. Where the view is past the last event of a stream (`caught_up(position)`), its document shows
    that event's version. Where it is not, the version is that of the last event that is shown, so that no
    edit overwrites a change that its caller did not see.

    `again` reads documents by their ids: those that were read first may be older than the position that the
    view has reached. `of` gives the id and the version of a document.
    """
    shown = [of(document) for document in found]
    last = await ends([subject for subject, _ in shown])
    behind = {subject: last[subject] for subject, version in shown if last.get(subject, (0, 0))[0] > version}
    position = max((position for _, position in behind.values()), default=0)
    fresh: dict[UUID, Document] = {}
    if behind and await caught_up(position):
        fresh = {of(document)[0]: document for document in await again(list(behind))}
    return [
        (fresh[subject], max(of(fresh[subject])[1], behind[subject][0]))
        if subject in fresh
        else (document, version)
        for document, (subject, version) in zip(found, shown, strict=True)
    ]
