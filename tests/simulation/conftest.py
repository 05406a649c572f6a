"""Fixtures of the simulation."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs


@pytest.fixture
def quiet() -> Iterator[None]:
    """Keeps what is logged to itself: schedules are full of failures."""
    with capture_logs():
        yield
