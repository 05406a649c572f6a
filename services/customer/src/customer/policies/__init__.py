"""The policies of this context: reactions to published events, never replayed."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from chassis.clock import Clock
from chassis.reactions.policies import Policy
from contracts.topics import CUSTOMER_EVENTS, INGEST_EVENTS

from customer.connections import write_side
from customer.policies import when_customer_erased_then_destroy_keys as erased
from customer.policies import when_party_described_then_register_customer as described
from customer.settings import CustomerSettings

READERS: Final = {described.NAME: (INGEST_EVENTS.name,), erased.NAME: (CUSTOMER_EVENTS.name,)}
"""The topics that each policy reads."""


@asynccontextmanager
async def policies(settings: CustomerSettings, clock: Clock) -> AsyncIterator[Sequence[Policy]]:
    """The policies of this service, with the write side that handles their commands."""
    async with write_side(settings, clock) as write:
        today = partial(settings.today, clock)
        register = described.RegisterDescribed(
            write.handler, write.store, write.ring, clock, write.ids, today, settings.claims_max
        )
        events = frozenset({described.EVENT})
        destroy = erased.DestroyKeys(write.ring)
        yield [
            Policy(described.NAME, READERS[described.NAME], events, register, "beginning", register.prepare),
            Policy(erased.NAME, READERS[erased.NAME], frozenset({erased.EVENT}), destroy, "beginning"),
        ]
