"""What operators hear of customers: how many accounts wait for theirs."""

from collections.abc import Callable
from datetime import date
from typing import Final

from chassis import metrics
from chassis.clock import Clock
from chassis.documents import DocumentsUnavailable
from chassis.generations import ViewReader
from chassis.mongo import Mongo
from chassis.privacy import KeyEncryption, KeyRing
from prometheus_client import Gauge
from typing_extensions import override

from customer.reading import Reading
from customer.views import VIEWS

COUNTED_EVERY_SECONDS: Final = 60.0
UNLINKED: Final = Gauge(
    "crm_unlinked_accounts",
    "Accounts none of whose holders is a customer, among the first that are counted",
    registry=metrics.REGISTRY,
)


class _NoKeys(KeyEncryption):
    """Counting opens no value."""

    @override
    def wrap(self, material: bytes, aad: bytes) -> bytes:
        raise PermissionError("who counts has no keys")

    @override
    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        raise PermissionError("who counts has no keys")


async def unlinked_accounts(mongo: Mongo, clock: Clock, today: Callable[[], date]) -> tuple[int, bool]:
    """How many accounts wait for their customer, and whether all accounts were counted. Needs no key.

    Raises DocumentsUnavailable, also where the view is not built yet.
    """
    ring = KeyRing("", _NoKeys(), clock.monotonic)
    return await Reading(mongo, ViewReader(mongo, clock, VIEWS), ring, today=today).unlinked_count()


def measuring(reading: Reading, clock: Clock) -> metrics.Measure:
    """Refreshes the gauge when metrics are asked for, at most once in `COUNTED_EVERY_SECONDS`."""
    counted_at = float("-inf")

    async def measure() -> None:
        nonlocal counted_at
        if clock.monotonic() - counted_at < COUNTED_EVERY_SECONDS:
            return
        try:
            UNLINKED.set((await reading.unlinked_count())[0])
        except DocumentsUnavailable:
            return
        counted_at = clock.monotonic()

    return measure
