"""The gauge of the accounts that wait for their customer."""

from collections.abc import Callable
from datetime import date
from typing import Final

from chassis.clock import Clock
from chassis.lists import Scope
from chassis.observability import metrics
from chassis.privacy.key_encryption import KeyEncryption
from chassis.privacy.keys import KeyRing
from chassis.read.documents import DocumentsUnavailable
from chassis.read.generations import ViewReader
from chassis.read.mongo import Mongo
from prometheus_client import Gauge
from typing_extensions import override

from customer.queries import Queries
from customer.views import VIEWS

COUNTED_EVERY_SECONDS: Final = 60.0
COUNTING_SECONDS_MAX: Final = 0.5
"""Of one asking for metrics."""
UNLINKED: Final = Gauge(
    "crm_unlinked_accounts",
    "Accounts none of whose holders is a customer",
    registry=metrics.REGISTRY,
)


class _NoKeys(KeyEncryption):
    """Stands for the keys: counting opens no sealed value."""

    @override
    def wrap(self, material: bytes, aad: bytes) -> bytes:
        raise PermissionError("counting has no keys")

    @override
    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        raise PermissionError("counting has no keys")


def queries_without_keys(mongo: Mongo, clock: Clock, today: Callable[[], date]) -> Queries:
    """Queries for who counts and opens no sealed value."""
    ring = KeyRing("", _NoKeys(), clock.monotonic)
    return Queries(mongo, ViewReader(mongo, clock, VIEWS), ring, today=today)


async def unlinked_accounts(
    queries: Queries, clock: Clock, *, counting_seconds_max: float
) -> tuple[int, bool]:
    """How many accounts wait for their customer, and whether all were counted. Needs no key.

    After `counting_seconds_max` no further 2,000 accounts are looked at. Raises DocumentsUnavailable, also where the view
    is not built yet.
    """
    began = clock.monotonic()
    found, after = await queries.unlinked.count(Scope.all())
    while after is not None and clock.monotonic() - began < counting_seconds_max:
        count, after = await queries.unlinked.count(Scope.all(), after)
        found += count
    return found, after is None


def measuring(
    queries: Queries, clock: Clock, *, counting_seconds_max: float = COUNTING_SECONDS_MAX
) -> metrics.Measure:
    """Refreshes the gauge when metrics are asked for, at most once in `COUNTED_EVERY_SECONDS`.

    All accounts are counted, in as many askings as that takes: each goes on where the one before stopped, so none costs
    more than `counting_seconds_max` and another 2,000 accounts.
    """
    counted_at = float("-inf")
    found, after, counting = 0, None, False

    async def measure() -> None:
        nonlocal counted_at, found, after, counting
        began = clock.monotonic()
        if counting or (after is None and began - counted_at < COUNTED_EVERY_SECONDS):
            return
        counting = True
        try:
            while True:
                count, after = await queries.unlinked.count(Scope.all(), after)
                found += count
                if after is None:
                    UNLINKED.set(found)
                    found, counted_at = 0, began
                    return
                if clock.monotonic() - began >= counting_seconds_max:
                    return
        except DocumentsUnavailable:
            found, after = 0, None
        finally:
            counting = False

    return measure
