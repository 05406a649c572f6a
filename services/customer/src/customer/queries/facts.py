"""Queries of customers by a condition on their facts."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

from chassis.conditions import Condition, as_filter
from chassis.read.documents import GONE, ID, Document

from customer.facts import FIELDS
from customer.queries.collections import Collections

COUNTED_MAX: Final = 10_000
"""Customers that are counted; of more it is only known that there are more."""


class FactQueries:
    """Facts as the derived view has them. There is nothing personal in them."""

    def __init__(self, views: Collections) -> None:
        self._views = views

    async def count(self, condition: Condition, as_of: date, counted_max: int = COUNTED_MAX) -> int:
        """How many customers meet the condition; one more than `counted_max` stands for all that are more."""
        where = _existing(as_filter(condition, FIELDS, as_of))
        return await self._views.mongo.count(await self._views.facts(), where, limit=counted_max + 1)

    async def page(self, condition: Condition, as_of: date, after: str | None, limit: int) -> list[Document]:
        """The facts of the customers that meet the condition, in the order of their ids."""
        where = _existing(as_filter(condition, FIELDS, as_of))
        if after is not None:
            where = {"$and": [{ID: {"$gt": after}}, where]}
        return await self._views.mongo.find(await self._views.facts(), where, order=[(ID, 1)], limit=limit)

    async def all_exist(self, customers: Sequence[UUID]) -> bool:
        """Whether all of these customers have facts."""
        wanted = {str(customer) for customer in customers}
        where = _existing({ID: {"$in": sorted(wanted)}})
        return await self._views.mongo.count(await self._views.facts(), where) == len(wanted)

    async def one(self, customer_id: UUID) -> Document | None:
        """The facts of a customer."""
        found = await self._views.mongo.find_one(await self._views.facts(), {ID: str(customer_id)})
        return None if found is None or GONE in found else found


def _existing(where: dict[str, Any]) -> dict[str, Any]:
    """Without the customers that have no facts any more. A negation would find them."""
    return {"$and": [where, {GONE: {"$exists": False}}]}
