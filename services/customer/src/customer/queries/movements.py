"""Queries of the movements behind a figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chassis.privacy.keys import KeyRing
from chassis.read.documents import Document
from chassis.read.mongo import exact_sum
from chassis.read.showing import keys_of

from customer.panorama.rules import SPENDING_KINDS, keeps
from customer.queries.collections import Collections
from customer.queries.presenting import movement_shown
from customer.views.asset_panorama import movement_id


@dataclass(frozen=True, slots=True)
class AccountInScope:
    """An account that a customer in the caller's scope holds: of no other are movements and loans asked.
    `HoldingQueries.held_account` finds it."""

    customer_id: UUID
    account_id: UUID


@dataclass(frozen=True, slots=True)
class MovementsWanted:
    """Which movements of an account; `spending` leaves those that count as spending.

    `kind` and the month of spending are those under which a movement counts, see `asset_panorama.counted`.
    """

    currency: str | None = None
    month: str | None = None
    kind: str | None = None
    spending: bool = False

    def conditions(self) -> dict[str, Any]:
        """As a filter."""
        found: dict[str, Any] = {}
        if self.currency is not None:
            found["currency"] = self.currency
        if self.month is not None and not self.spending:
            found["booked_on"] = {"$gte": f"{self.month}-01", "$lte": f"{self.month}-31"}
        if self.month is not None and self.spending:
            found["counted_month"] = self.month
        if self.spending:
            found["counted_kind"] = {"$in": list(SPENDING_KINDS)}
            found["outflow_minor"] = {"$ne": 0}
        if self.kind is not None:
            found["counted_kind"] = (
                {"$in": [self.kind]} if not self.spending or self.kind in SPENDING_KINDS else {"$in": []}
            )
        return found


class MovementQueries:
    """Movements of accounts in the order in which they were recorded, masked, and what they sum to."""

    def __init__(self, views: Collections, ring: KeyRing) -> None:
        self._views = views
        self._ring = ring

    async def page(
        self, of: AccountInScope, wanted: MovementsWanted, after: int, limit: int
    ) -> list[Document]:
        """Movements of an account in the order in which they were recorded, masked."""
        subject = str(of.account_id)
        where = {
            "_id": {"$gt": movement_id(subject, after), "$lte": f"{subject}:~"},
            **wanted.conditions(),
        }
        collection = await self._views.movements()
        found = await self._views.mongo.find(collection, where, order=[("_id", 1)], limit=limit)
        keys = await keys_of(self._ring, [of.account_id])
        return [movement_shown(of.account_id, one, keys) for one in found]

    async def sums(self, of: AccountInScope, wanted: MovementsWanted) -> list[Document]:
        """Per currency the number of movements, their sum, and the outflow."""
        subject = str(of.account_id)
        where = {"_id": {"$gt": f"{subject}:", "$lte": f"{subject}:~"}, **wanted.conditions()}
        collection = await self._views.movements()
        group = {
            "_id": "$currency",
            "movements": {"$sum": 1},
            "amount_minor": exact_sum("$amount_minor"),
            "outflow_minor": exact_sum("$outflow_minor"),
        }
        found = await self._views.mongo.aggregate(collection, [{"$match": where}, {"$group": group}])
        return sorted(
            ({"currency": one.pop("_id"), **one} for one in found), key=lambda one: str(one["currency"])
        )

    async def add_outflows_of(self, month: str, accounts: Sequence[Document]) -> None:
        """Adds the outflows of a month that documents no longer keep, summed from the movements."""
        forgetful = [
            account
            for account in accounts
            if not all(keeps(months, month) for months in account["outflows"].values())
        ]
        if not forgetful:
            return
        ranges = [{"_id": {"$gt": f"{one['_id']}:", "$lte": f"{one['_id']}:~"}} for one in forgetful]
        where = {"$or": ranges, "counted_month": month, "outflow_minor": {"$ne": 0}}
        by = {"account": "$account", "currency": "$currency", "kind": "$counted_kind"}
        group = {"_id": by, "out": exact_sum("$outflow_minor")}
        collection = await self._views.movements()
        summed: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
        for one in await self._views.mongo.aggregate(collection, [{"$match": where}, {"$group": group}]):
            of = one["_id"]
            months = summed.setdefault(of["account"], {}).setdefault(of["currency"], {month: {}})
            months[month][of["kind"]] = one["out"]
        for account in forgetful:
            account["outflows"] = summed.get(account["_id"], {})
