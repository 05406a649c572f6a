"""Boxes in a database of their own, and a hub that runs."""

from collections.abc import AsyncIterator

import pytest
from chassis.read.mongo import Mongo
from chassis.watching import hearing

from .support import Boxes


@pytest.fixture
async def boxes(mongo: Mongo) -> AsyncIterator[Boxes]:
    """The first generation is live, and its hub runs."""
    made = Boxes(mongo, members_max=5, pending_max=10, conditions_max=2)
    await made.switch(await made.begin())
    async with hearing(made.hub):
        yield made
