"""Queries of the accounts that wait for their customer."""

from collections.abc import Callable
from datetime import date
from typing import Any, Final

from chassis.lists import Scope
from chassis.privacy.keys import KeyRing
from chassis.read.documents import Document
from chassis.read.showing import keys_of

from customer.lists import CUSTOMERS_LIST
from customer.queries.collections import Collections
from customer.queries.pipelines import CONCATENATED, lookup, standing_expression
from customer.queries.presenting import account_known, opened_account, uuid_of

UNLINKED_STEP: Final = 500
UNLINKED_WALKED_MAX: Final = 2_000
"""Accounts that one query checks. Whether an account waits takes a look-up in two views for each account."""


class UnlinkedQueries:
    """Accounts none of whose holders is a customer today, in the order of their ids.

    Until it has a customer, an account is of the branch that its source states.
    """

    def __init__(self, views: Collections, ring: KeyRing, today: Callable[[], date]) -> None:
        """`today` is the business date on which rights and links must stand."""
        self._views = views
        self._ring = ring
        self._today = today

    async def page(self, scope: Scope, after: str | None, limit: int) -> tuple[list[Document], str | None]:
        """Accounts in scope none of whose holders is a customer, in the order of their ids, masked, and where to go
        on.

        One call looks at `UNLINKED_WALKED_MAX` accounts at most, so it may give fewer than `limit` before
        the end; None is the end.
        """
        found: list[Document] = []
        walked = 0
        while len(found) < limit and walked < UNLINKED_WALKED_MAX:
            some = await self._step(after)
            if some is None:
                break
            first, after, accounts = some
            walked += accounts
            wanted = {"$limit": limit - len(found)}
            found += await self._views.mongo.aggregate(
                await self._views.accounts(),
                [*first, self._within(scope), {"$sort": {"_id": 1}}, *await self._without_customer(), wanted],
            )
        ended = len(found) < limit and walked < UNLINKED_WALKED_MAX
        reached = found[-1]["_id"] if len(found) == limit else after
        keys = await keys_of(self._ring, [uuid_of(one["_id"]) for one in found])
        return [account_known(opened_account(one, keys)) for one in found], None if ended else reached

    async def count(self, scope: Scope, after: str | None = None) -> tuple[int, str | None]:
        """How many of the next `UNLINKED_WALKED_MAX` accounts wait in scope, and where to go on; None is the end."""
        count, walked = 0, 0
        while walked < UNLINKED_WALKED_MAX:
            some = await self._step(after)
            if some is None:
                return count, None
            first, after, accounts = some
            walked += accounts
            pipeline = [*first, self._within(scope), *await self._without_customer(), {"$count": "accounts"}]
            counted = await self._views.mongo.aggregate(await self._views.accounts(), pipeline)
            count += counted[0]["accounts"] if counted else 0
        return count, None if await self._step(after) is None else after

    def _within(self, scope: Scope) -> dict[str, Any]:
        return {"$match": scope.filter(CUSTOMERS_LIST.fields, self._today())}

    async def _step(self, after: str | None) -> tuple[list[dict[str, Any]], str, int] | None:
        """The next `UNLINKED_STEP` accounts by id: a stage that takes them, the last one, how many; None at
        the end."""
        beyond = {} if after is None else {"_id": {"$gt": after}}
        found = await self._views.mongo.find(
            await self._views.accounts(), beyond, fields={"_id": 1}, order=[("_id", 1)], limit=UNLINKED_STEP
        )
        if not found:
            return None
        last = found[-1]["_id"]
        return [{"$match": {"_id": {"$gte": found[0]["_id"], "$lte": last}}}], last, len(found)

    async def _without_customer(self) -> list[dict[str, Any]]:
        """Accounts over which no customer has a right today, by rights and links that stand today."""
        day = self._today().isoformat()
        links = {"$reduce": {"input": "$customers.parties", "initialValue": [], "in": CONCATENATED}}
        linked = {"$map": {"input": standing_expression(links, day), "as": "one", "in": "$$one.party_id"}}
        rights = {
            "$map": {"input": standing_expression("$holders", day), "as": "one", "in": "$$one.party_id"}
        }
        return [
            lookup(await self._views.customers(), "holders.party_id", "parties.party_id", "customers"),
            {"$match": {"$expr": {"$eq": [{"$setIntersection": [rights, linked]}, []]}}},
        ]
