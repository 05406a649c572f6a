"""Files of customers: contracts, letters, copies of what identifies them. Their content is sealed under the customer's key."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from chassis.files import Content, FileKeeper, FileShown, Kept, Limits, Offered
from chassis.write.deciding import CommandContext, Outcome
from chassis.write.handling import CommandHandler

from customer.domain.commands import CustomerCommand
from customer.domain.events import CustomerEvent
from customer.domain.refusals import CustomerIsErased, CustomerNotRegistered
from customer.domain.state import Customer

Purpose = Literal["identification", "contract", "letter", "other"]

TYPES: Final = frozenset({"application/pdf", "image/jpeg", "image/png", "image/tiff", "text/plain"})
LIMITS: Final = Limits(TYPES)


@dataclass(frozen=True, slots=True)
class CustomerFiles:
    """The files of customers that are registered."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    keeper: FileKeeper

    async def attach(
        self, customer: UUID, offered: Offered, content: AsyncIterator[bytes], context: CommandContext
    ) -> Kept:
        """Keeps a file. Raises CustomerNotRegistered, CustomerIsErased, and what `FileKeeper.attach` raises.

        A customer whose values for contact are erased gets none either: a letter would bring an address back.
        """
        state = await self._registered(customer)
        if state.erased or state.contact_erased:
            raise CustomerIsErased
        return await self.keeper.attach(customer, offered, content, context)

    async def of_customer(self, customer: UUID, now: datetime) -> list[FileShown]:
        """The files of a customer; raises CustomerNotRegistered."""
        await self._registered(customer)
        return await self.keeper.files(customer, now)

    async def read(self, customer: UUID, file: UUID, context: CommandContext) -> Content:
        """The content of a file; each reading is an event. Raises what `FileKeeper.read` raises."""
        await self._registered(customer)
        return await self.keeper.read(customer, file, context)

    async def remove(self, customer: UUID, file: UUID, context: CommandContext) -> Outcome[Any]:
        """Keeps a file no more. Raises FileUnknown, and FileHeld while a legal hold stands."""
        await self._registered(customer)
        return await self.keeper.remove(customer, file, context)

    async def _registered(self, customer: UUID) -> Customer:
        """A customer as it is now; raises CustomerNotRegistered where there is none."""
        self.handler.forget(customer)
        state = (await self.handler.load(customer)).state
        if not state.registered:
            raise CustomerNotRegistered
        return state
