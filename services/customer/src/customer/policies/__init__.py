"""The policies of this context: reactions to published events, never replayed."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from chassis.clock import Clock
from chassis.messaging.delivered import Delivered
from chassis.reactions.policies import Policy
from contracts.topics import CUSTOMER_EVENTS, INGEST_EVENTS

from customer.connections import write_side
from customer.policies import when_customer_erased_then_destroy_keys as erased
from customer.policies import when_party_described_then_register_customer as described
from customer.settings import CustomerSettings

Act = Callable[[Delivered], Awaitable[None]]

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
        reached = settings.reached
        destroy = _reaching(erased.DestroyKeys(write.ring, reached), reached)
        reacting = _reaching(register, reached)
        yield [
            Policy(described.NAME, READERS[described.NAME], events, reacting, "beginning", register.prepare),
            Policy(erased.NAME, READERS[erased.NAME], frozenset({erased.EVENT}), destroy, "beginning"),
        ]


def _reaching(react: Act, reached: Callable[[str], None]) -> Act:
    """As `react`, with a named point after it: its effect is there, and that the event was handled is not kept yet."""

    async def reacting(event: Delivered) -> None:
        await react(event)
        reached("after-reaction")

    return reacting
