"""Queries of what a customer holds: the panorama, accounts with their holders, loans."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any
from uuid import UUID

from chassis.connections.coalescing import Coalesced
from chassis.lists import Scope
from chassis.privacy.keys import KeyRing
from chassis.read.documents import AnswerTooLarge, Document
from chassis.read.mongo import Frozen, id_of
from chassis.read.showing import keys_of
from chassis.write.deciding import Refusal

from customer.holdings import held, others, parties_on, standing
from customer.lists import CUSTOMERS_LIST
from customer.panorama.accounts import loans_of
from customer.panorama.composing import panorama
from customer.panorama.schema import HeldLoan, Panorama
from customer.queries.collections import Collections
from customer.queries.movements import AccountInScope, MovementQueries
from customer.queries.pipelines import JOINED_BYTES_MAX, bounded, lookup
from customer.queries.presenting import (
    account_shown,
    customers_by_party,
    in_order,
    name_of,
    opened_account,
    subjects_of,
    uuid_of,
)
from customer.retention import ACCOUNTS_MAX, TooManyAccounts


class HoldingsTooLarge(Refusal):
    """The accounts of a customer, and their holders, are larger than one answer can be."""

    code = "holdings-too-large"
    title = f"The customer's accounts and their holders are larger than {JOINED_BYTES_MAX // 1_000_000} MB"
    title_zh = f"客户账户及持有人数据超过 {JOINED_BYTES_MAX // 1_000_000} MB"


class HoldingQueries:
    """What customers hold on the business date now, masked."""

    def __init__(
        self,
        views: Collections,
        ring: KeyRing,
        today: Callable[[], date],
        movements: MovementQueries,
        stale_after_seconds: int,
    ) -> None:
        """`today` is the business date on which rights and links must stand."""
        self._views = views
        self._ring = ring
        self._today = today
        self._movements = movements
        self._stale_after_seconds = stale_after_seconds
        self._holdings: Coalesced[str, bytes | None] = Coalesced(self._load_holdings)

    async def panorama(
        self, scope: Scope, customer_id: UUID, now: datetime, month: str | None
    ) -> Panorama | None:
        """A customer's panorama: one aggregation for all concurrent requests (request coalescing), one more
        for an old month. Raises HoldingsTooLarge."""
        with _alone():
            raw = await self._holdings.get(str(customer_id))
        if raw is None:
            return None
        if (found := self._within(scope, Frozen(raw).thawed())) is None:
            return None
        day = self._today().isoformat()
        parties = parties_on(found, day)
        standing_accounts = held(in_order(found["accounts"]), parties, day)
        keys = await keys_of(self._ring, subjects_of(found, standing_accounts))
        shown = {**found, "name": name_of(found, keys), "parties": standing(found["parties"], day)}
        accounts = [opened_account(account, keys) for account in standing_accounts]
        if month is not None:
            await self._movements.add_outflows_of(month, accounts)
        return panorama(
            shown,
            accounts,
            found["sources"],
            now=now,
            today=day,
            month=month,
            stale_after_seconds=self._stale_after_seconds,
            customers=await self._customers_of(others(accounts, parties), day),
        )

    async def accounts(self, scope: Scope, customer_id: UUID) -> list[Document] | None:
        """The accounts of a customer with all their holders, masked; None where there is no such customer. Of a holder that
        is, or was, a customer out of scope neither id nor name is shown.

        Raises HoldingsTooLarge.
        """
        pipeline = await self._accounts_of([str(customer_id)], holders=True)
        with _alone():
            answer = await self._views.mongo.aggregate(await self._views.customers(), pipeline)
        if not answer:
            return None
        if (found := self._within(scope, answer[0])) is None:
            return None
        day = self._today().isoformat()
        own = parties_on(found, day)
        accounts = held(in_order(found["accounts"]), own, day)
        subjects = [*subjects_of(found, accounts), *(uuid_of(party["_id"]) for party in found["described"])]
        keys = await keys_of(self._ring, subjects)
        described = {party["_id"]: party for party in found["described"]}
        linked = customers_by_party(found["linked"], day)
        outside = [one for one in found["linked"] if not self._covers(scope, one)]
        hidden = {party["party_id"] for one in outside for party in one["parties"]}
        return [
            account_shown(opened_account(account, keys), own, described, linked, hidden, keys)
            for account in accounts
        ]

    async def relations(self, parties: Sequence[str]) -> tuple[list[Document], list[Document]]:
        """The accounts over which these parties have or ever had a right, and the parties as last described.

        Raises TooManyAccounts.
        """
        found = await self._views.mongo.find(
            await self._views.accounts(), {"holders.party_id": {"$in": list(parties)}}, limit=ACCOUNTS_MAX + 1
        )
        if len(found) > ACCOUNTS_MAX:
            raise TooManyAccounts
        collection = await self._views.parties()
        described = await self._views.mongo.find(
            collection, {"_id": {"$in": list(parties)}}, limit=max(1, len(parties))
        )
        return in_order(found), described

    async def loans(self, of: AccountInScope, currency: str | None) -> list[HeldLoan]:
        """The loans that master data states for an account, with the link to its movements."""
        found = await self._views.mongo.find_one(await self._views.accounts(), {"_id": str(of.account_id)})
        link = f"/customers/{of.customer_id}/accounts/{of.account_id}/movements"
        loans = [] if found is None else loans_of(str(of.account_id), found, link)
        return [loan for loan in loans if currency in {None, loan["currency"]}]

    async def held_account(self, scope: Scope, customer_id: UUID, account: UUID) -> AccountInScope | None:
        """The account, where a customer in scope holds it."""
        customer = await self._views.mongo.find_one(await self._views.customers(), {"_id": str(customer_id)})
        if customer is None or not self._covers(scope, customer):
            return None
        day = self._today().isoformat()
        fields = {"holders": 1}
        found = await self._views.mongo.find_one(
            await self._views.accounts(), {"_id": str(account)}, fields=fields
        )
        there = found is not None and bool(held([found], parties_on(customer, day), day))
        return AccountInScope(customer_id, account) if there else None

    async def described(self, party: UUID) -> bool:
        """Whether master data has described the party."""
        parties = await self._views.parties()
        return await self._views.mongo.find_one(parties, {"_id": str(party)}, fields={"_id": 1}) is not None

    def _within(self, scope: Scope, found: Document) -> Document | None:
        """A customer with what was joined to it; None out of scope, however much that is. Raises HoldingsTooLarge."""
        return _fitting(found) if self._covers(scope, found) else None

    def _covers(self, scope: Scope, customer: Document) -> bool:
        return scope.covers(customer, CUSTOMERS_LIST.fields, self._today())

    async def _load_holdings(self, ids: Sequence[str]) -> dict[str, bytes | None]:
        """Each customer is decoded by who asked for it: what was decoded together is not in the processor's caches any
        more when it is used."""
        pipeline = await self._accounts_of(ids)
        found = await self._views.mongo.aggregate_raw(await self._views.customers(), pipeline)
        return {**dict.fromkeys(ids), **{id_of(raw): raw for raw in found}}

    async def _customers_of(self, parties: Sequence[str], day: str) -> dict[str, str]:
        """Returns the customers of these parties on a business date."""
        if not parties:
            return {}
        where = {"parties.party_id": {"$in": list(parties)}}
        return customers_by_party(await self._views.mongo.find(await self._views.customers(), where), day)

    async def _accounts_of(self, ids: Sequence[str], *, holders: bool = False) -> list[dict[str, Any]]:
        accounts, customers = await self._views.accounts(), await self._views.customers()
        found = {"$match": {"_id": ids[0] if len(ids) == 1 else {"$in": list(ids)}}}
        owned = lookup(accounts, "parties.party_id", "holders.party_id", "accounts")
        if not holders:
            sources = await self._views.sources()
            return [
                found,
                owned,
                {"$unset": "accounts.months"},
                bounded("accounts"),
                lookup(sources, "accounts.source", "source", "sources"),
            ]
        parties = await self._views.parties()
        share = JOINED_BYTES_MAX // 3
        return [
            found,
            owned,
            bounded("accounts", share),
            lookup(parties, "accounts.holders.party_id", "_id", "described"),
            bounded("described", share),
            lookup(customers, "accounts.holders.party_id", "parties.party_id", "linked"),
            bounded("linked", share),
        ]


def _fitting(found: Document) -> Document:
    if any(found.get(joined, ()) is None for joined in ("accounts", "described", "linked")):
        raise HoldingsTooLarge
    return found


@contextmanager
def _alone() -> Iterator[None]:
    """Where the database itself gives up, so much was joined to one customer."""
    try:
        yield
    except AnswerTooLarge as error:
        raise HoldingsTooLarge from error
