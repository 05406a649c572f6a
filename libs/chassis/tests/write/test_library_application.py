"""A context's store opened as an application of the library: its notification log and subscription over our recorder."""

from uuid import UUID

import pytest
from chassis.write.events import StoredEvent
from chassis.write.store import Recorder
from chassis.write.store.library import application


@pytest.mark.requirement("D10")
def test_a_store_is_read_as_an_application_of_the_library(
    postgres_url: str, schema: str, recorder: Recorder
) -> None:
    stream = UUID(int=7)
    recorder.append_bulk(
        [StoredEvent(stream, version, "noted", b"%d" % version) for version in range(1, 2_501)]
    )
    store, read = application(postgres_url, schema), list[StoredEvent]()
    try:
        assert store.head_position() == recorder.head_position()
        while page := store.read_after((read[-1].position or 0) if read else 0, 1_000):
            read += page
        head = recorder.head_position()
        with store.recorder.subscribe(gt=head - 3) as following:
            assert [next(following).id for _ in range(3)] == [head - 2, head - 1, head]
    finally:
        store.close()
    assert read == recorder.read_after(0, 10_000)
