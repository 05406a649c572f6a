"""What a partition has brought is counted once, whatever came again, and a watermark says what is missing."""

from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

from chassis.messaging.records import Record
from chassis.messaging.transport import Partition
from chassis.read.arrivals import NOWHERE, Arrivals, further
from chassis.read.checkpoints import Position
from contracts.envelope import Envelope, Watermark
from hypothesis import given
from hypothesis import strategies as st

AT = datetime(2026, 1, 5, 8, tzinfo=UTC)
PLACE: Partition = ("crm.customer.events", 0)
SUBJECT = UUID(int=7)


def event(position: int, context: str = "customer") -> list[tuple[str, bytes]]:
    return Envelope(
        UUID(int=position), "customer.renamed", 1, context, SUBJECT, position, position, AT, AT, "renamed", SUBJECT,
        SUBJECT,
    ).headers()  # fmt: skip


def mark(position: int, published: int | None) -> list[tuple[str, bytes]]:
    return Watermark("customer", position, AT, published).headers(0)


def read(*headers: list[tuple[str, bytes]], before: Position = NOWHERE, first: int = 0) -> Position:
    arrivals = Arrivals()
    records = [Record(*PLACE, b"", each, b"{}", first + at) for at, each in enumerate(headers)]
    list(arrivals.events(records))
    return arrivals.counted({PLACE: before})[PLACE]


def test_all_that_was_published_is_there():
    assert read(event(1), event(4), mark(5, 2), event(6))[4:] == (3, 0)


def test_a_partition_that_begins_with_its_third_event_lacks_two():
    assert read(event(6), mark(6, 3))[4:] == (1, 2)
    assert read(mark(6, 3))[4:] == (0, 3)


def test_what_is_published_again_behind_the_rest_is_not_counted():
    tail = read(event(6), mark(6, 3), event(1), event(4), event(6), mark(6, 3), event(7), mark(7, 4))
    assert tail[4:] == (2, 2)


def test_an_event_that_was_held_and_comes_late_is_counted_by_nobody():
    assert read(event(1), event(6), mark(8, 2), event(4), event(7), mark(9, 2))[4:] == (2, 0)


def test_a_watermark_of_a_relay_that_was_taken_over_says_nothing_of_what_is_ahead_of_it():
    assert read(event(1), event(4), mark(1, 1), mark(4, 2))[4:] == (2, 0)


def test_a_watermark_without_a_count_says_nothing():
    assert read(event(6), mark(6, None))[4:] == (1, 0)


def test_a_partition_that_was_not_counted_from_the_beginning_is_not_counted():
    assert read(event(6), mark(6, 3), before=Position(9, "customer", 4, AT))[4:] == (None, 0)


def test_an_event_of_another_context_is_not_counted_and_moves_nothing():
    found = read(event(1), event(10**9, "ingest"), event(2), mark(2, 2))
    assert (found.context, found.position, found[4:]) == ("customer", 2, (2, 0))


@given(
    st.integers(0, 12),
    st.lists(st.integers(0, 12), max_size=4),
    st.sets(st.integers(0, 60), max_size=5),
    st.integers(0, 5),
)
def test_any_cuts_and_repeats_count_the_same(count, setbacks, cuts, lost):
    """The relay is set back to any acknowledged event; batches are cut anywhere; the first `lost` are gone."""
    positions = list(range(1, count + 1))
    for back in setbacks:
        positions += range(min(back, count) + 1, count + 1)
    kept = positions[lost:]
    headers = [*(event(position) for position in kept), mark(count, count)]
    ends = sorted({0, len(headers), *(cut for cut in cuts if cut < len(headers))})
    reached: dict[Partition, Position] = {PLACE: NOWHERE}
    for first, end in pairwise(ends):
        further(reached, {PLACE: read(*headers[first:end], before=reached[PLACE], first=first)})
    # What lies before the first event that is kept was never seen, or comes too late.
    seen = count - kept[0] + 1 if kept else 0
    assert reached[PLACE][4:] == (seen, count - seen)
