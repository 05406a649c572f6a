"""Consents of customers (同意): given and withdrawn, and what stood at a time as it was known at another (M36)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from itertools import product
from typing import Final, NamedTuple
from uuid import UUID

from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Outcome
from chassis.write.events import RecordedEvent
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

from customer.domain.commands import CustomerCommand, GiveConsent, WithdrawConsent
from customer.domain.consenting import CHANNELS, PURPOSES, ConsentChange, Pair, standing
from customer.domain.events import (
    ConsentChannel,
    ConsentGiven,
    ConsentPurpose,
    ConsentWithdrawn,
    CustomerEvent,
)
from customer.domain.refusals import CustomerNotRegistered
from customer.domain.state import Customer

_NAMES: Final = frozenset(
    {"consent-given", "consent-withdrawn", "customer-erased", "customer-contact-erased"}
)


class ConsentThen(NamedTuple):
    """What stood of a channel and purpose: the change with its event, or None where nothing was known; `valid`: a consent was."""

    pair: Pair
    change: ConsentChange | None
    recorded: RecordedEvent | None
    valid: bool


@dataclass(frozen=True, slots=True)
class CustomerConsents:
    """Commands to the consents of customers, at any version: what is effective last stands."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    store: EventStore
    catalogue: Catalogue
    business_date: Callable[[datetime], date]

    async def give(
        self,
        customer: UUID,
        pair: Pair,
        evidence: str,
        valid_until: date | None,
        context: CommandContext,
    ) -> Outcome[CustomerEvent]:
        """The customer consents from the effective time on. Raises CustomerNotRegistered, CustomerIsErased, ConsentTermInvalid."""
        command = GiveConsent(*pair, evidence, valid_until, self.business_date(context.effective))
        asked = ("give-consent", *pair, evidence, valid_until)
        return await self.handler.handle(customer, command, context, asked=asked)

    async def withdraw(
        self, customer: UUID, pair: Pair, evidence: str | None, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        """The customer does not consent from the effective time on. Raises CustomerNotRegistered, CustomerIsErased."""
        return await self.handler.handle(customer, WithdrawConsent(*pair, evidence), context)

    async def then(self, customer: UUID, as_of: datetime, known_at: datetime) -> list[ConsentThen]:
        """What stood of each channel and purpose at `as_of`, of what was recorded up to `known_at`; from the event store. Raises
        CustomerNotRegistered, SubjectUnknown."""
        events = await self._events(customer)
        if not events and not (await self.handler.load(customer)).version:
            raise CustomerNotRegistered
        stood = standing((change for one in events for change in changes_of(one)), as_of, known_at)
        by_sequence = {one.version: one for one in events}
        day = self.business_date(as_of)
        return [
            ConsentThen(
                pair,
                change,
                None if change is None else by_sequence[change.sequence],
                change is not None and change.valid_on(day),
            )
            for pair in product(CHANNELS, PURPOSES)
            for change in [stood.get(pair)]
        ]

    async def _events(self, customer: UUID) -> list[RecordedEvent]:
        keys = await asyncio.to_thread(self.handler.keys.keys_for, [customer], create=False)
        stored = self.store.read_named(customer, _NAMES)
        return [self.catalogue.open(one, keys.get(customer)) async for one in stored]


def changes_of(recorded: RecordedEvent) -> list[ConsentChange]:
    """The changes of consents that an event of a customer is; an erasure ends all of them."""
    given, valid_until = False, None
    pairs: list[tuple[ConsentChannel, ConsentPurpose]] = list(product(CHANNELS, PURPOSES))
    match recorded.event:
        case ConsentGiven(channel, purpose, _, until):
            pairs, given, valid_until = [(channel, purpose)], True, until
        case ConsentWithdrawn(channel, purpose):
            pairs = [(channel, purpose)]
        case _:
            pass  # an erasure
    meta = recorded.metadata
    return [
        ConsentChange(
            channel, purpose, given, valid_until, meta.effective_at, meta.recorded_at, recorded.version
        )
        for channel, purpose in pairs
    ]
