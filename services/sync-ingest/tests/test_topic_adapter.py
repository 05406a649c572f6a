from io import BytesIO

from hypothesis import given
from hypothesis import strategies as st
from sync_ingest.adapters.port import FeedFile
from sync_ingest.adapters.topic import Frame, TopicAdapter, framed
from sync_ingest.domain.records import Posting, Unreadable

GOOD = (
    b'{"record":"posting","account":"1","core_transaction_id":"t1","amount_minor":-1234,"currency":"CNY",'
    b'"booked_on":"2026-01-05"}'
)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_whatever_a_topic_carries_is_one_item_each_and_harms_no_other(values):

    content = framed(Frame(1, at, value) for at, value in enumerate([*values, GOOD]))
    items = [
        item
        for batch in TopicAdapter().read([FeedFile("t", len(content), lambda: BytesIO(content))])
        for item in batch.items
    ]
    assert len(items) == len(values) + 1
    assert isinstance(items[-1].content, Posting)


def test_reasons_name_the_partition_and_the_offset(read_all):
    content = framed([Frame(3, 41, b"{"), Frame(3, 42, b""), Frame(3, 43, b"\n" * 70_000)])
    items = read_all(TopicAdapter(), content + framed([Frame(3, 44, GOOD)])[:-5])
    assert [item.content.reason for item in items] == [
        "record-truncated",
        "record-empty",
        "record-oversized",
        "record-truncated",
    ]
    assert all(isinstance(item.content, Unreadable) for item in items)
    assert "partition 3, offset 41" in items[0].content.detail
