"""Needs of customers (客户需求): recorded, corrected and closed by staff, and listed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

from chassis.lists import Scope
from chassis.read.documents import Document
from chassis.write.deciding import AlreadyRecorded, CommandContext, Outcome
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

from customer.domain.commands import CloseNeed, CorrectNeed, CustomerCommand, RecordNeed
from customer.domain.events import CustomerEvent, NeedChannel, NeedOutcome
from customer.domain.refusals import (
    CustomerNotRegistered,
    NeedKindUnknown,
    NeedTooOld,
    TooManyNeeds,
)
from customer.domain.state import Customer, Need
from customer.queries import Queries

NEED_DAYS_MAX: Final = 7
"""So long ago a need may have come up at most, where the bank has not chosen otherwise."""


def need_of(customer: UUID, context: CommandContext) -> UUID:
    """The id of the need that a command records: the same key gives the same need."""
    return uuid5(customer, f"need {context.key}")


@dataclass(frozen=True, slots=True)
class CustomerNeeds:
    """Commands to the needs of customers, at any version: devices give them that were without a connection. A need came up at
    most `days_max` days ago."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    store: EventStore
    queries: Queries
    business_date: Callable[[datetime], date]
    days_max: int = NEED_DAYS_MAX

    async def record(
        self, customer: UUID, stated: Need, channel: NeedChannel, branch: str | None, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        """Records what the customer needs, once for each key; it came up at the effective time.

        Raises CustomerNotRegistered, CustomerIsErased, NeedTooOld, NeedKindUnknown, TooManyNeeds, and AlreadyRecorded where the
        same key comes again after its outcome was forgotten.
        """
        command = RecordNeed(
            need_of(customer, context),
            stated,
            channel,
            branch,
            context.actor,
            context.effective,
            self.business_date(context.effective),
            context.now - timedelta(days=self.days_max),
        )
        asked = ("record-need", stated, channel, branch)
        try:
            return await self.handler.handle(customer, command, context, asked=asked)
        except (NeedTooOld, NeedKindUnknown, TooManyNeeds):
            # It may be recorded, and its outcome forgotten: the device must not take it for lost.
            if await self.store.known_identities([command.need]):
                raise AlreadyRecorded from None
            raise

    async def correct(
        self, customer: UUID, need: UUID, stated: Need, corrections: int, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        """Corrects an open need that the caller saw after so many corrections; raises NeedNotOpen, NeedChanged, NeedKindUnknown."""
        command = CorrectNeed(need, stated, corrections, self.business_date(context.effective))
        asked = ("correct-need", need, stated, corrections)
        return await self.handler.handle(customer, command, context, asked=asked)

    async def close(
        self, customer: UUID, need: UUID, outcome: NeedOutcome, text: str | None, context: CommandContext
    ) -> Outcome[CustomerEvent]:
        """Closes an open need; raises NeedNotOpen."""
        return await self.handler.handle(customer, CloseNeed(need, outcome, text), context)

    async def page(
        self, scope: Scope, customer: UUID, after: tuple[str, str] | None, limit: int
    ) -> list[Document]:
        """Needs of a customer, masked, what came up last first; raises CustomerNotRegistered."""
        found = await self.queries.needs.page(scope, customer, after, limit)
        if found is None:
            raise CustomerNotRegistered
        return found
