"""Queries of what the customers of branches add up to."""

from collections.abc import Callable
from datetime import date

from chassis.lists import LiveViews, Scope
from chassis.read.mongo import Mongo
from chassis.read.summing import Summed, SumsReader

from customer.branches import SUMS, shows
from customer.lists import FACTS_LIST


class BranchQueries:
    """What the customers of branches add up to. A branch outside of its scope is not there."""

    def __init__(self, mongo: Mongo, live: LiveViews, today: Callable[[], date]) -> None:
        """`today` is the business date, from which days in a scope count."""
        self._sums = SumsReader(FACTS_LIST.view, SUMS, FACTS_LIST.collection, mongo, live)
        self._today = today

    async def summed(self, scope: Scope) -> Summed:
        """What the customers of each branch add up to; raises NotBuilt."""
        return await self._sums.read(shows(scope, self._today()))
