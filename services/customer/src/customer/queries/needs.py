"""Queries of the needs of customers."""

from collections.abc import Callable
from datetime import date
from uuid import UUID

from chassis.lists import Scope
from chassis.privacy.keys import KeyRing
from chassis.privacy.masking import Mask
from chassis.read.documents import ID, Document
from chassis.read.showing import Keys, keys_of

from customer.catalogue import CONTEXT
from customer.lists import CUSTOMERS_LIST
from customer.masking import masked_note
from customer.queries.collections import Collections


class NeedQueries:
    """Needs as the view shows them, masked. Those of a customer out of scope are not there."""

    def __init__(self, views: Collections, ring: KeyRing, today: Callable[[], date]) -> None:
        """`today` is the business date, from which days in a scope count."""
        self._views = views
        self._ring = ring
        self._today = today

    async def page(
        self, scope: Scope, customer_id: UUID, after: tuple[str, str] | None, limit: int
    ) -> list[Document] | None:
        """Needs of a customer, what came up last first, after one that came up at `after[0]` and has the id `after[1]`; None where
        there is no such customer."""
        customer = await self._views.mongo.find_one(await self._views.customers(), {ID: str(customer_id)})
        if customer is None or not scope.covers(customer, CUSTOMERS_LIST.fields, self._today()):
            return None
        where: Document = {"customer": str(customer_id)}
        if after is not None:
            at, need = after
            where["$or"] = [{"at": {"$lt": at}}, {"at": at, ID: {"$lt": need}}]
        order = [("at", -1), (ID, -1)]
        found = await self._views.mongo.find(await self._views.needs(), where, order=order, limit=limit)
        keys = await keys_of(self._ring, [customer_id])
        return [_need_shown(customer_id, one, keys) for one in found]


def _need_shown(customer_id: UUID, document: Document, keys: Keys) -> Document:
    """A need as `NeedShown` has it."""

    def shown(value: Document | None, field: str, mask: Mask = masked_note) -> str | None:
        return keys.masked(value, mask, context=CONTEXT, subject=customer_id, field=field)

    closed = document["closed"]
    plain = ("kind", "channel", "branch", "served_by", "at", "recorded_at", "corrections")
    return {
        "need_id": document[ID],
        **{name: document[name] for name in plain},
        "kind_text": shown(document["kind_text"], "kind_text"),
        "text": shown(document["text"], "text"),
        "closed": None if closed is None else {**closed, "text": shown(closed["text"], "text")},
    }
