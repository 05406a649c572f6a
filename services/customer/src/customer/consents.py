"""Consents of customers (同意): given and withdrawn, and what stood at an instant as it was known at another (M36)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from itertools import product
from typing import Final, NamedTuple
from uuid import UUID, uuid5

from chassis.write.deciding import CommandContext, Outcome
from chassis.write.events import RecordedEvent
from chassis.write.handling import CommandHandler

from customer.domain.commands import CustomerCommand, GiveConsent, WithdrawConsent
from customer.domain.consenting import CHANNELS, PURPOSES, ConsentChange, Pair, standing
from customer.domain.events import (
    ConsentGiven,
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


class ConsentsThen(NamedTuple):
    """What stood of each channel and purpose at `at`, of what was recorded up to `known_at`."""

    at: datetime
    known_at: datetime
    consents: list[ConsentThen]


@dataclass(frozen=True, slots=True)
class CustomerConsents:
    """Commands to the consents of customers, at any version: what is effective last stands."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    business_date: Callable[[datetime], date]

    async def give(
        self,
        customer: UUID,
        pair: Pair,
        evidence: str,
        valid_until: date | None,
        context: CommandContext,
    ) -> Outcome[CustomerEvent]:
        """The customer consents from the effective time on. Raises CustomerNotRegistered, CustomerIsErased, ConsentTermInvalid, and
        AlreadyRecorded where the same key comes again after its outcome was forgotten."""
        on = self.business_date(context.effective)
        command = GiveConsent(*pair, evidence, valid_until, on, _consent_of(customer, context))
        asked = ("give-consent", *pair, evidence, valid_until)
        return await self.handler.handle(customer, command, context, asked=asked)

    async def withdraw(
        self, customer: UUID, pair: Pair, evidence: str | None, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        """The customer does not consent from the effective time on. Raises CustomerNotRegistered, CustomerIsErased, AlreadyRecorded."""
        command = WithdrawConsent(*pair, evidence, _consent_of(customer, context))
        asked = ("withdraw-consent", *pair, evidence)
        return await self.handler.handle(customer, command, context, asked=asked)

    async def then(
        self, customer: UUID, at: datetime | None, known_at: datetime | None, now: datetime
    ) -> ConsentsThen:
        """What stood of each channel and purpose at an instant, of what was recorded up to another; each is now where it is None, and
        at the latest. From the event store. Raises CustomerNotRegistered, SubjectUnknown."""
        events = [one async for one in self.handler.recorded(customer, _NAMES)]
        if not events and not (await self.handler.load(customer)).version:
            raise CustomerNotRegistered
        # What is stored was so: the clock of the process that stored it may be ahead of ours.
        now = max([now, *(one.metadata.recorded_at for one in events)])
        at, known_at = min(at or now, now), min(known_at or now, now)
        stood = standing((change for one in events for change in changes_of(one)), at, known_at)
        by_sequence = {one.version: one for one in events}
        day = self.business_date(at)
        consents = [
            ConsentThen(
                pair,
                change,
                None if change is None else by_sequence[change.sequence],
                change is not None and change.valid_on(day),
            )
            for pair in product(CHANNELS, PURPOSES)
            for change in [stood.get(pair)]
        ]
        return ConsentsThen(at, known_at, consents)


def _consent_of(customer: UUID, context: CommandContext) -> UUID:
    """What a command gives or withdraws: the same key, the same."""
    return uuid5(customer, f"consent {context.key}")


def changes_of(recorded: RecordedEvent) -> list[ConsentChange]:
    """The changes of consents that an event of a customer is; an erasure ends all of them."""
    event, meta = recorded.event, recorded.metadata
    when = meta.effective_at, meta.recorded_at, recorded.version
    match event:
        case ConsentGiven(channel, purpose, _, until):
            return [ConsentChange(channel, purpose, True, until, *when)]
        case ConsentWithdrawn(channel, purpose):
            return [ConsentChange(channel, purpose, False, None, *when)]
        case _:
            return [
                ConsentChange(channel, purpose, False, None, *when, erased=True)
                for channel, purpose in product(CHANNELS, PURPOSES)
            ]
