"""A fresh database for each test, on either driver."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
from chassis.read.mongo import Mongo

_NUMBERS = count(1)


@pytest.fixture(params=["pymongo", "motor"])
async def both(request: pytest.FixtureRequest, mongo_url: str) -> AsyncIterator[Mongo]:
    """A database of its own, once on each driver."""
    mongo = Mongo.connect(mongo_url, request.param, f"test{next(_NUMBERS)}")
    yield mongo
    await mongo.drop_database()
    await mongo.close()


@pytest.fixture
async def mongo(mongo_url: str) -> AsyncIterator[Mongo]:
    """A database of its own, on the default driver."""
    mongo = Mongo.connect(mongo_url, database=f"test{next(_NUMBERS)}")
    yield mongo
    await mongo.drop_database()
    await mongo.close()
