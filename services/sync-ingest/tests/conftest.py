"""What several tests of this package share."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from sync_ingest.adapters.port import Adapter, FeedFile, Item

REAL_FEEDS = Path(__file__).parents[4] / "shared" / "feeds"


@pytest.fixture(scope="session")
def real_feeds() -> Path:
    """Files that real systems produced; they are not part of the repository."""
    if not REAL_FEEDS.is_dir():
        pytest.skip(f"no real feed files at {REAL_FEEDS}")
    return REAL_FEEDS


Reading = Callable[..., list[Item]]


@pytest.fixture
def read_all() -> Reading:
    """Reads files given as bytes with an adapter and returns every item."""

    def read(adapter: Adapter, *contents: bytes, names: tuple[str, ...] = ()) -> list[Item]:
        files = [
            FeedFile(
                names[at] if names else f"file-{at}", len(content), lambda content=content: BytesIO(content)
            )
            for at, content in enumerate(contents)
        ]
        return [item for batch in adapter.read(files) for item in batch.items]

    return read
