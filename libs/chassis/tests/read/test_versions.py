"""The version that a reader is shown: of the stream where the view has seen all of it, else of the document."""

from uuid import UUID

import pytest
from chassis.read.versions import versioned

ONE, TWO = UUID(int=1), UUID(int=2)


def document(subject, version):
    return {"_id": str(subject), "_seq": version}


@pytest.mark.parametrize(
    ("reached", "again", "shown"),
    [
        (0, 1, 1),  # the view may lack what came after: the version of what is shown
        (9, 1, 3),  # the last events do not change the document
        (9, 2, 3),
        (9, 4, 4),  # the view went on in between
    ],
)
async def test_the_version_is_the_streams_where_the_view_has_seen_all_of_it(reached, again, shown):
    asked = []

    async def ends(subjects):
        return {ONE: (3, 9), TWO: (1, 4)}

    async def caught_up(position):
        return reached >= position

    async def some(subjects):
        asked.extend(subjects)
        return [document(ONE, again)]

    found = await versioned([document(ONE, 1), document(TWO, 1)], ends, caught_up, some)
    assert [(one["_id"], version) for one, version in found] == [(str(ONE), shown), (str(TWO), 1)]
    assert asked == ([ONE] if reached else [])


async def test_a_document_that_is_gone_when_it_is_read_again_keeps_what_was_read():
    async def ends(subjects):
        return {ONE: (2, 5)}

    async def yes(position):
        return True

    async def none(subjects):
        return []

    assert await versioned([document(ONE, 1)], ends, yes, none) == [(document(ONE, 1), 1)]
