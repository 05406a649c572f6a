"""Queries of the views: customers, their accounts, and the movements behind a figure.

Values are returned masked.
"""

from collections.abc import Callable
from datetime import date

from chassis.lists import Cursors, LiveViews, Reader
from chassis.privacy.keys import KeyRing
from chassis.read.blind import BlindIndex
from chassis.read.mongo import Mongo

from customer.lists import CUSTOMERS_LIST, FACTS_LIST, TAGS_LIST
from customer.panorama.sources import STALE_AFTER_SECONDS
from customer.queries.branches import BranchQueries
from customer.queries.collections import Collections
from customer.queries.customers import CustomerQueries
from customer.queries.holdings import HoldingQueries
from customer.queries.meanings import Meanings
from customer.queries.movements import AccountInScope, MovementQueries, MovementsWanted
from customer.queries.needs import NeedQueries
from customer.queries.tags import TagQueries
from customer.queries.unlinked import UNLINKED_WALKED_MAX, UnlinkedQueries

__all__ = ["UNLINKED_WALKED_MAX", "AccountInScope", "MovementsWanted", "Queries"]


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
        """`today` is the business date on which rights and links must stand."""
        views = Collections(mongo, live)
        self.movements = MovementQueries(views, ring)
        self.holdings = HoldingQueries(views, ring, today, self.movements, stale_after_seconds)
        self.blind = BlindIndex(ring)
        cursors = Cursors(ring.secret)
        self.tags = TagQueries(views, Reader(TAGS_LIST, mongo, live, cursors, today))
        self.meanings = Meanings(self.tags, self.blind)
        self.customers = CustomerQueries(views, ring, today, self.tags)
        self.needs = NeedQueries(views, ring, today)
        self.list = Reader(CUSTOMERS_LIST, mongo, live, cursors, today)
        self.facts = Reader(FACTS_LIST, mongo, live, cursors, today)
        self.branches = BranchQueries(mongo, live, today)
        self.unlinked = UnlinkedQueries(views, ring, today)
