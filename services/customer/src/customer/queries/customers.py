"""Queries of customers."""

from collections.abc import Callable, Sequence
from datetime import date
from uuid import UUID

from chassis.lists import Scope
from chassis.privacy.keys import KeyRing
from chassis.read.documents import Document
from chassis.read.showing import keys_of

from customer.holdings import parties_on
from customer.lists import CUSTOMERS_LIST
from customer.queries.collections import Collections
from customer.queries.presenting import customer_shown, uuid_of
from customer.queries.tags import TagQueries


class CustomerQueries:
    """Customers as the view shows them, masked. Outside of its scope a customer is not there."""

    def __init__(
        self, views: Collections, ring: KeyRing, today: Callable[[], date], tags: TagQueries
    ) -> None:
        """`today` is the business date on which rights and links must stand."""
        self._views = views
        self._ring = ring
        self._today = today
        self._tags = tags

    async def one(self, scope: Scope, customer_id: UUID) -> Document | None:
        """A customer, masked."""
        found = await self._views.mongo.find_one(await self._views.customers(), {"_id": str(customer_id)})
        within = self._within(scope, [] if found is None else [found])
        return next(iter(await self.masked(scope, within)), None)

    async def some(self, scope: Scope, ids: Sequence[str]) -> list[Document]:
        """These customers, masked, in any order."""
        found = await self._views.mongo.find(
            await self._views.customers(), {"_id": {"$in": list(ids)}}, limit=len(ids)
        )
        return await self.masked(scope, self._within(scope, found))

    async def of_party(self, scope: Scope, party: UUID) -> list[Document]:
        """The customer that has the party today, masked."""
        found = await self._views.mongo.find(await self._views.customers(), {"parties.party_id": str(party)})
        today = self._today().isoformat()
        there = [one for one in found if str(party) in parties_on(one, today)]
        return await self.masked(scope, self._within(scope, there))

    async def masked(self, scope: Scope, found: Sequence[Document]) -> list[Document]:
        """Documents of customers in scope as they are shown. Of the customers that have the same identity number those in
        scope are named, and the others counted."""
        keys = await keys_of(self._ring, [uuid_of(one["_id"]) for one in found])
        sharing = {each for one in found for each in one.get("shares_number_with", ())}
        named = await self._named(scope, sorted(sharing)) if sharing else frozenset[str]()
        tags = await self._tags.ends({tag["code"] for one in found for tag in one.get("tags", ())})
        return [customer_shown(one, named, tags, keys) for one in found]

    async def _named(self, scope: Scope, ids: Sequence[str]) -> frozenset[str]:
        """Those of these customers that are in scope."""
        if scope.everything:
            return frozenset(ids)
        found = await self._views.mongo.find(
            await self._views.customers(), {"_id": {"$in": list(ids)}}, limit=len(ids)
        )
        return frozenset(one["_id"] for one in self._within(scope, found))

    def _within(self, scope: Scope, found: Sequence[Document]) -> list[Document]:
        day = self._today()
        return [one for one in found if scope.covers(one, CUSTOMERS_LIST.fields, day)]
