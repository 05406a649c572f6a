"""Queries of the views: customers, their accounts, and the movements behind a figure.

Values are returned masked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, Protocol
from uuid import UUID

from chassis.connections.coalescing import Coalesced
from chassis.privacy.keys import ERASED, KeyRing, Origin
from chassis.read.documents import Document, DocumentsUnavailable
from chassis.read.generations import NotBuilt
from chassis.read.mongo import Mongo, exact_sum
from chassis.write.events import event_id

from customer.holdings import held, others, owners, parties_on, standing
from customer.masking import (
    masked_account,
    masked_address,
    masked_birthday,
    masked_company,
    masked_email,
    masked_identity_number,
    masked_name,
    masked_phone,
    masked_text,
)
from customer.opening import CUSTOMER, INGEST, Keys, Mask, keys_of
from customer.panorama import (
    SPENDING_KINDS,
    STALE_AFTER_SECONDS,
    HeldLoan,
    Panorama,
    keeps,
    loans_of,
    panorama,
)
from customer.retention import ACCOUNTS_MAX, TooManyAccounts
from customer.views import asset_panorama, customers
from customer.views.asset_panorama import ACCOUNTS, MOVEMENTS, PARTIES, SOURCES, movement_id
from customer.views.customers import CUSTOMERS

QUERY_MILLISECONDS_MAX: Final = 10_000
UNLINKED_STEP: Final = 500
UNLINKED_WALKED_MAX: Final = 2_000
"""Accounts that one query checks. Whether an account waits takes a look-up in two views for each account."""
IDS_CACHED_MAX: Final = 65_536

_MASKS: Final[dict[str, Mask]] = {
    "phone": masked_phone,
    "email": masked_email,
    "address": masked_address,
    "born_on": masked_birthday,
    "identity_number": masked_identity_number,
}


class LiveViews(Protocol):
    """Finds the live generation of a view."""

    async def collection(self, view: str, name: str) -> str:
        """The collection of the database that holds this collection of the view."""
        ...


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


class Queries:
    """All queries; one object per process, used from one event loop."""

    def __init__(
        self,
        mongo: Mongo,
        live: LiveViews,
        ring: KeyRing,
        stale_after_seconds: int = STALE_AFTER_SECONDS,
        *,
        today: Callable[[], date],
    ) -> None:
        """`today` is the bank day on which rights and links must stand."""
        self._mongo = mongo
        self._live = live
        self._ring = ring
        self._stale_after_seconds = stale_after_seconds
        self._today = today
        self._holdings: Coalesced[str, Document | None] = Coalesced(self._load_holdings)

    # customers

    async def customer(self, customer_id: UUID) -> Document | None:
        """A customer, masked."""
        found = await self._mongo.find_one(await self._customers(), {"_id": str(customer_id)})
        return None if found is None else (await self._masked_customers([found]))[0]

    async def customers_of(self, ids: Sequence[str]) -> list[Document]:
        """These customers, masked, in any order."""
        found = await self._mongo.find(await self._customers(), {"_id": {"$in": list(ids)}}, limit=len(ids))
        return await self._masked_customers(found)

    async def customers(self, after: str | None, limit: int) -> list[Document]:
        """Customers in the order of their ids, masked."""
        where = {} if after is None else {"_id": {"$gt": after}}
        found = await self._mongo.find(await self._customers(), where, order=[("_id", 1)], limit=limit)
        return await self._masked_customers(found)

    async def questions(self, kind: str | None, after: str | None, limit: int) -> list[Document]:
        """Customers with an open data-quality question, of this kind or any, in the order of their ids."""
        where: dict[str, Any] = {"questions": {"$exists": True, "$ne": []} if kind is None else kind}
        if after is not None:
            where["_id"] = {"$gt": after}
        found = await self._mongo.find(await self._customers(), where, order=[("_id", 1)], limit=limit)
        return await self._masked_customers(found)

    async def of_party(self, party: UUID) -> list[Document]:
        """The customer that has the party today, masked."""
        found = await self._mongo.find(await self._customers(), {"parties.party_id": str(party)})
        today = self._today().isoformat()
        return await self._masked_customers([one for one in found if str(party) in parties_on(one, today)])

    async def described(self, party: UUID) -> bool:
        """Whether master data has described the party."""
        parties = await self._collection(asset_panorama.VIEW.name, PARTIES)
        return await self._mongo.find_one(parties, {"_id": str(party)}, fields={"_id": 1}) is not None

    # what a customer holds

    async def panorama(self, customer_id: UUID, now: datetime, month: str | None) -> Panorama | None:
        """A customer's panorama: one aggregation for all concurrent requests (request coalescing), one more
        for an old month."""
        found = await self._holdings.get(str(customer_id))
        if found is None:
            return None
        day = self._today().isoformat()
        parties = parties_on(found, day)
        standing_accounts = held(_in_order(found["accounts"]), parties, day)
        keys = await keys_of(self._ring, _subjects(found, standing_accounts))
        shown = {**found, "name": _name(found, keys), "parties": standing(found["parties"], day)}
        accounts = [_opened_account(account, keys) for account in standing_accounts]
        if month is not None:
            await self._remember(month, accounts)
        return panorama(
            shown,
            accounts,
            found["sources"],
            now=now,
            month=month,
            stale_after_seconds=self._stale_after_seconds,
            customers=await self._customers_of(others(accounts, parties), day),
        )

    async def accounts(self, customer_id: UUID) -> list[Document] | None:
        """The accounts of a customer with all their holders, masked; None where there is no such customer."""
        answer = await self._mongo.aggregate(
            await self._customers(), await self._accounts_of([str(customer_id)], holders=True)
        )
        if not answer:
            return None
        found, day = answer[0], self._today().isoformat()
        own = parties_on(found, day)
        accounts = held(_in_order(found["accounts"]), own, day)
        subjects = [*_subjects(found, accounts), *(_uuid(party["_id"]) for party in found["described"])]
        keys = await keys_of(self._ring, subjects)
        described = {party["_id"]: party for party in found["described"]}
        linked = _linked(found["linked"], day)
        return [_held(_opened_account(account, keys), own, described, linked, keys) for account in accounts]

    async def relations(self, parties: Sequence[str]) -> tuple[list[Document], list[Document]]:
        """The accounts over which these parties have or ever had a right, and the parties as last described.

        Raises TooManyAccounts.
        """
        found = await self._mongo.find(
            await self._accounts(), {"holders.party_id": {"$in": list(parties)}}, limit=ACCOUNTS_MAX + 1
        )
        if len(found) > ACCOUNTS_MAX:
            raise TooManyAccounts
        collection = await self._collection(asset_panorama.VIEW.name, PARTIES)
        described = await self._mongo.find(
            collection, {"_id": {"$in": list(parties)}}, limit=max(1, len(parties))
        )
        return _in_order(found), described

    async def loans(self, account: UUID, movements: str, currency: str | None) -> list[HeldLoan]:
        """The loans that master data states for an account; `movements` is the link to its movements."""
        found = await self._mongo.find_one(await self._accounts(), {"_id": str(account)})
        loans = [] if found is None else loans_of(str(account), found, movements)
        return [loan for loan in loans if currency in {None, loan["currency"]}]

    async def movements(
        self, account: UUID, wanted: MovementsWanted, after: int, limit: int
    ) -> list[Document]:
        """Movements of an account in the order in which they were recorded, masked."""
        subject = str(account)
        where = {
            "_id": {"$gt": movement_id(subject, after), "$lte": f"{subject}:~"},
            **wanted.conditions(),
        }
        collection = await self._collection(asset_panorama.VIEW.name, MOVEMENTS)
        found = await self._mongo.find(collection, where, order=[("_id", 1)], limit=limit)
        keys = await keys_of(self._ring, [account])
        return [_movement(account, one, keys) for one in found]

    async def movements_sum(self, account: UUID, wanted: MovementsWanted) -> list[Document]:
        """Per currency the number of movements, their sum, and the outflow."""
        subject = str(account)
        where = {"_id": {"$gt": f"{subject}:", "$lte": f"{subject}:~"}, **wanted.conditions()}
        collection = await self._collection(asset_panorama.VIEW.name, MOVEMENTS)
        group = {
            "_id": "$currency",
            "movements": {"$sum": 1},
            "amount_minor": exact_sum("$amount_minor"),
            "outflow_minor": exact_sum("$outflow_minor"),
        }
        found = await self._mongo.aggregate(collection, [{"$match": where}, {"$group": group}])
        return sorted(
            ({"currency": one.pop("_id"), **one} for one in found), key=lambda one: str(one["currency"])
        )

    async def holds(self, customer_id: UUID, account: UUID) -> bool:
        """Whether the customer holds the account."""
        customer = await self._mongo.find_one(await self._customers(), {"_id": str(customer_id)})
        if customer is None:
            return False
        day = self._today().isoformat()
        fields = {"holders": 1}
        found = await self._mongo.find_one(await self._accounts(), {"_id": str(account)}, fields=fields)
        return found is not None and bool(held([found], parties_on(customer, day), day))

    # who waits

    async def unlinked(self, after: str | None, limit: int) -> tuple[list[Document], str | None]:
        """Accounts none of whose holders is a customer, in the order of their ids, masked, and where to go
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
            found += await self._mongo.aggregate(
                await self._accounts(),
                [*first, {"$sort": {"_id": 1}}, *await self._without_customer(), wanted],
            )
        ended = len(found) < limit and walked < UNLINKED_WALKED_MAX
        reached = found[-1]["_id"] if len(found) == limit else after
        keys = await keys_of(self._ring, [_uuid(one["_id"]) for one in found])
        return [_unlinked(_opened_account(one, keys)) for one in found], None if ended else reached

    async def unlinked_count(self, after: str | None = None) -> tuple[int, str | None]:
        """How many of the next `UNLINKED_WALKED_MAX` accounts wait, and where to go on; None is the end."""
        count, walked = 0, 0
        while walked < UNLINKED_WALKED_MAX:
            some = await self._step(after)
            if some is None:
                return count, None
            first, after, accounts = some
            walked += accounts
            pipeline = [*first, *await self._without_customer(), {"$count": "accounts"}]
            counted = await self._mongo.aggregate(await self._accounts(), pipeline)
            count += counted[0]["accounts"] if counted else 0
        return count, None if await self._step(after) is None else after

    async def _step(self, after: str | None) -> tuple[list[dict[str, Any]], str, int] | None:
        """The next `UNLINKED_STEP` accounts by id: a stage that takes them, the last one, how many; None at
        the end."""
        beyond = {} if after is None else {"_id": {"$gt": after}}
        found = await self._mongo.find(
            await self._accounts(), beyond, fields={"_id": 1}, order=[("_id", 1)], limit=UNLINKED_STEP
        )
        if not found:
            return None
        last = found[-1]["_id"]
        return [{"$match": {"_id": {"$gte": found[0]["_id"], "$lte": last}}}], last, len(found)

    # pipelines

    async def _remember(self, month: str, accounts: Sequence[Document]) -> None:
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
        collection = await self._collection(asset_panorama.VIEW.name, MOVEMENTS)
        summed: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
        for one in await self._mongo.aggregate(collection, [{"$match": where}, {"$group": group}]):
            of = one["_id"]
            months = summed.setdefault(of["account"], {}).setdefault(of["currency"], {month: {}})
            months[month][of["kind"]] = one["out"]
        for account in forgetful:
            account["outflows"] = summed.get(account["_id"], {})

    async def _load_holdings(self, ids: Sequence[str]) -> dict[str, Document | None]:
        found = await self._mongo.aggregate(await self._customers(), await self._accounts_of(ids))
        return {**dict.fromkeys(ids), **{one["_id"]: one for one in found}}

    async def _customers_of(self, parties: Sequence[str], day: str) -> dict[str, str]:
        """Returns the customers of these parties on a bank day."""
        if not parties:
            return {}
        where = {"parties.party_id": {"$in": list(parties)}}
        return _linked(await self._mongo.find(await self._customers(), where), day)

    async def _accounts_of(self, ids: Sequence[str], *, holders: bool = False) -> list[dict[str, Any]]:
        asset = asset_panorama.VIEW.name
        pipeline: list[dict[str, Any]] = [
            {"$match": {"_id": ids[0] if len(ids) == 1 else {"$in": list(ids)}}},
            _lookup(await self._accounts(), "parties.party_id", "holders.party_id", "accounts"),
        ]
        if holders:
            parties = await self._collection(asset, PARTIES)
            return [
                *pipeline,
                _lookup(parties, "accounts.holders.party_id", "_id", "described"),
                _lookup(await self._customers(), "accounts.holders.party_id", "parties.party_id", "linked"),
            ]
        sources = await self._collection(asset, SOURCES)
        return [*pipeline, _lookup(sources, "accounts.source", "source", "sources")]

    async def _without_customer(self) -> list[dict[str, Any]]:
        """Accounts over which no customer has a right today, by rights and links that stand today."""
        day = self._today().isoformat()
        links = {"$reduce": {"input": "$customers.parties", "initialValue": [], "in": _CONCATENATED}}
        linked = {"$map": {"input": _standing(links, day), "as": "one", "in": "$$one.party_id"}}
        rights = {"$map": {"input": _standing("$holders", day), "as": "one", "in": "$$one.party_id"}}
        return [
            _lookup(await self._customers(), "holders.party_id", "parties.party_id", "customers"),
            {"$match": {"$expr": {"$eq": [{"$setIntersection": [rights, linked]}, []]}}},
        ]

    async def _collection(self, view: str, name: str) -> str:
        try:
            return await self._live.collection(view, name)
        except NotBuilt as error:
            raise DocumentsUnavailable(f"the view {view} is not built yet") from error

    async def _customers(self) -> str:
        return await self._collection(customers.VIEW.name, CUSTOMERS)

    async def _accounts(self) -> str:
        return await self._collection(asset_panorama.VIEW.name, ACCOUNTS)

    async def _masked_customers(self, found: Sequence[Document]) -> list[Document]:
        keys = await keys_of(self._ring, [_uuid(one["_id"]) for one in found])
        return [_customer(one, keys) for one in found]


_CONCATENATED: Final = {"$concatArrays": ["$$value", "$$this"]}


def _standing(members: object, day: str) -> dict[str, Any]:
    """`holdings.stands_on` as an expression of MongoDB: null and missing sort before every text."""
    since = {"$lte": [{"$ifNull": ["$$one.from", ""]}, day]}
    until = {"$gt": [{"$ifNull": ["$$one.until", "9999-12-32"]}, day]}
    return {"$filter": {"input": members, "as": "one", "cond": {"$and": [since, until]}}}


def _in_order(documents: Sequence[Document]) -> list[Document]:
    """Sorts by id: the database returns documents in the order of writing, which differs in a rebuilt view."""
    return sorted(documents, key=itemgetter("_id"))


@lru_cache(IDS_CACHED_MAX)
def _uuid(text: str) -> UUID:
    return UUID(text)


def _lookup(collection: str, local: str, foreign: str, into: str) -> dict[str, Any]:
    return {"$lookup": {"from": collection, "localField": local, "foreignField": foreign, "as": into}}


def _subjects(found: Mapping[str, Any], accounts: Sequence[Mapping[str, Any]]) -> list[UUID]:
    return [_uuid(found["_id"]), *(_uuid(account["_id"]) for account in accounts)]


def _linked(customers: Sequence[Document], day: str) -> dict[str, str]:
    """Returns the customers of the parties of these customers on a bank day."""
    return {party: customer["_id"] for customer in customers for party in parties_on(customer, day)}


def _name(document: Mapping[str, Any], keys: Keys) -> str | None:
    kind = document["kind"]
    return keys.masked(
        document["name"],
        masked_company if kind == "company" else masked_name,
        context=CUSTOMER,
        subject=_uuid(document["_id"]),
        field="name",
    )


def _customer(document: Document, keys: Keys) -> Document:
    subject = _uuid(document["_id"])
    masked = {
        field: keys.masked(document[field], mask, context=CUSTOMER, subject=subject, field=field)
        for field, mask in _MASKS.items()
    }
    return {
        "customer_id": document["_id"],
        "version": document["_seq"],
        "kind": document["kind"],
        "origin": document["origin"],
        "name": _name(document, keys),
        **masked,
        "branch": document["branch"],
        "provenance": document.get("provenance", {}),
        "invalid": document.get("invalid", []),
        "contradictions": [_contradiction(document, one, keys) for one in document.get("contradictions", ())],
        "shares_number_with": document.get("shares_number_with", []),
        "references": [
            *(_reference(one, "confirmed") for one in document["parties"]),
            *(
                _reference(one, "disputed" if one["disputed"] else "pending")
                for one in document.get("claimed", ())
            ),
        ],
        "registered_at": document["registered_at"],
        "erased_at": document.get("erased_at"),
        "changed_at": document["changed_at"],
    }


def _reference(party: Mapping[str, Any], status: str) -> Document:
    return {
        "source": party["source"],
        "party_id": party["party_id"],
        "status": status,
        "linked_from": party.get("from"),
        "until": party.get("until"),
    }


def _contradiction(document: Mapping[str, Any], one: Mapping[str, Any], keys: Keys) -> Document:
    """A source's value of a field that differs from staff's, masked.

    The current value is the customer's own field.
    """
    field, value = one["field"], one["value"]
    if field != "branch":
        company = document["kind"] == "company"
        mask = _MASKS.get(field) or (masked_company if company else masked_name)
        value = keys.masked(value, mask, context=CUSTOMER, subject=_uuid(document["_id"]), field=field)
    named = ("field", "source", "party_id", "invalid", "at", "sequence")
    return {**{name: one[name] for name in named}, "stated": value}


def _opened_account(document: Document, keys: Keys) -> Document:
    subject = _uuid(document["_id"])
    return {
        **document,
        "account": keys.masked(
            document["account"], masked_account, context=INGEST, subject=subject, field="account"
        ),
        "cards": _cards(document["cards"], subject, keys) if document["cards"] else [],
    }


def _cards(cards: Sequence[Document], subject: UUID, keys: Keys) -> list[Document]:
    """The cards of an account; of one that was described twice, the later description."""
    found: dict[str, Document] = {}
    for card in cards:
        number = keys.opened(card["card"], context=INGEST, subject=subject, field="card")
        place = str(card["sequence"]) if number is None or number == ERASED else number
        found.pop(place, None)
        found[place] = {**card, "card": masked_account(number)}
    return list(found.values())


def _held(
    account: Document,
    own: set[str],
    described: Mapping[str, Document],
    linked: Mapping[str, str],
    keys: Keys,
) -> Document:
    holders = []
    for holder in account["holders"]:
        party = described.get(holder["party_id"])
        kind = "person" if party is None else party["kind"]
        name = None if party is None else party["name"]
        holders.append(
            {
                "party_id": holder["party_id"],
                "role": holder["role"],
                "is_this_customer": holder["party_id"] in own,
                "customer_id": linked.get(holder["party_id"]),
                "name": keys.masked(
                    name,
                    masked_company if kind == "company" else masked_name,
                    context=INGEST,
                    subject=_uuid(holder["party_id"]),
                    field="name",
                ),
            }
        )
    return {
        **_unlinked(account),
        "joint": owners(account["holders"], own, linked) > 1,
        "holders": holders,
        "cards": [
            {"card": card["card"], "kind": card["kind"], "issued_on": card["issued_on"]}
            for card in account["cards"]
        ],
        "standing_orders": [
            {
                "order": order["order"],
                "amount_minor": order["amount_minor"],
                "currency": order["currency"],
                "kind": order["kind"],
                "counterparty_bank": order["counterparty_bank"],
                "counterparty_account": keys.masked(
                    order["counterparty_account"],
                    masked_account,
                    context=INGEST,
                    subject=_uuid(account["_id"]),
                    field="counterparty_account",
                ),
            }
            for order in account["orders"]
        ],
    }


def _unlinked(account: Document) -> Document:
    return {
        "account_id": account["_id"],
        "account": account["account"],
        "source": account["source"],
        "product": account["product"],
        "opened_on": account["opened_on"],
        "closed_on": account.get("closed_on"),
        "branch": account["branch"],
        "balances": [
            {"currency": currency, "balance_minor": one["minor"], "movements": one["movements"]}
            for currency, one in sorted(account["balances"].items())
        ],
        "holders_named": len(account["holders"]),
        "movements": account["movements"],
        "booked_through": account["booked_through"],
        "recorded_at": account["changed_at"],
    }


def _movement(account: UUID, document: Document, keys: Keys) -> Document:
    sequence = document["_seq"]
    origin = Origin(INGEST, account, sequence, document["stored_name"])

    def shown(field: str, mask: Mask) -> str | None:
        return keys.masked_token(document.get(field), mask, origin=origin, field=field)

    plain = (
        "posting_id",
        "core_transaction_id",
        "leg",
        "amount_minor",
        "currency",
        "booked_on",
        "value_on",
        "outflow_minor",
        "kind",
        "counted_kind",
        "counted_month",
        "channel",
        "reverses",
        "counterparty_bank",
        "source",
        "intake",
        "line",
        "position",
        "recorded_at",
    )
    return {
        "event_id": str(event_id(account, sequence)),
        "sequence": sequence,
        **{field: document.get(field) for field in plain},
        "counterparty_account": shown("counterparty_account", masked_account),
        "counterparty_name": shown("counterparty_name", masked_name),
        "text": shown("text", masked_text),
    }
