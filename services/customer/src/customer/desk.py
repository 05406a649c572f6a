"""What a caller can ask of this service, whoever carries the question: commands to customers, questions to the views."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar
from uuid import UUID

from chassis.catalogue import Catalogue
from chassis.clock import Clock
from chassis.deciding import CommandContext, Outcome, Refusal
from chassis.documents import Document
from chassis.events import Metadata, event_id
from chassis.handling import CommandHandler
from chassis.store import EventStore
from contracts.identity import OutsideIds

from customer.domain.customer import (
    Customer,
    CustomerCommand,
    CustomerNotRegistered,
    RegisterCustomer,
)
from customer.domain.events import CustomerEvent
from customer.identities import customer_of_command
from customer.panorama import HeldLoan, LoansSum, Panorama
from customer.reading import MovementsWanted, Reading

Handler = CommandHandler[CustomerCommand, Customer, CustomerEvent]
T = TypeVar("T")


class AccountNotHeld(Refusal):
    """The customer holds no such account, or it is not known yet."""

    code: ClassVar[str] = "account-not-held"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "The customer holds no such account"
    title_zh: ClassVar[str] = "客户没有该账户"


@dataclass(frozen=True, slots=True)
class Desk:
    """Commands and questions. Values come out masked."""

    handler: Handler
    store: EventStore
    catalogue: Catalogue
    reading: Reading
    ids: OutsideIds
    clock: Clock

    # commands

    async def register(self, command: RegisterCustomer, context: CommandContext) -> Outcome[CustomerEvent]:
        """Registers a customer; the id follows from the caller and its idempotency key."""
        customer = customer_of_command(context.actor, context.idempotency_key or str(context.command_id))
        return await self.handler.handle(customer, command, context)

    async def change(
        self, customer: UUID, command: CustomerCommand, context: CommandContext, version: int
    ) -> Outcome[CustomerEvent]:
        """Changes a customer that the caller saw at `version`; raises VersionMismatch where it stands elsewhere."""
        if not await self.store.stream_heads([customer]):
            raise CustomerNotRegistered
        return await self.handler.handle(customer, command, context, expected_version=version)

    # questions

    async def customer(self, customer: UUID) -> Document:
        """Who a customer is."""
        return _found(await self.reading.customer(customer))

    async def panorama(self, customer: UUID, month: str | None) -> Panorama:
        """What a customer owns and owes."""
        return _found(await self.reading.panorama(customer, self.clock.now(), month))

    async def accounts(self, customer: UUID) -> list[Document]:
        """The accounts of a customer with all their holders."""
        return _found(await self.reading.accounts(customer))

    async def movements(
        self, customer: UUID, account: UUID, wanted: MovementsWanted, after: int, limit: int
    ) -> tuple[list[Document], list[Document]]:
        """A page of the movements of a customer's account, and what all of those wanted sum to."""
        if not await self.reading.holds(customer, account):
            raise AccountNotHeld
        sums = await self.reading.movements_sum(account, wanted)
        return await self.reading.movements(account, wanted, after, limit), sums

    async def loans(
        self, customer: UUID, account: UUID, currency: str | None
    ) -> tuple[list[HeldLoan], list[LoansSum]]:
        """The loans of a customer's account, and per currency what those without an account of their own sum to."""
        if not await self.reading.holds(customer, account):
            raise AccountNotHeld
        link = f"/customers/{customer}/accounts/{account}/movements"
        loans = await self.reading.loans(account, link, currency)
        owed = [loan for loan in loans if loan["outstanding_minor"] is not None]
        return loans, [_summed(code, owed) for code in sorted({loan["currency"] for loan in owed})]

    async def events(self, customer: UUID, after: int, limit: int) -> list[Document]:
        """What happened to a customer, who did it and why: the event log itself, without personal values."""
        stored = await self.store.read_stream(customer, after, limit)
        if not stored and not await self.store.read_stream(customer, 0, 1):
            raise CustomerNotRegistered
        return [
            _event(customer, one.version, one.name, one.position, self.catalogue.metadata_of(one))
            for one in stored
        ]

    async def customers(self, after: UUID | None, limit: int) -> list[Document]:
        """Customers in the order of their ids."""
        return await self.reading.customers(None if after is None else str(after), limit)

    async def by_reference(self, source: str, key: str) -> list[Document]:
        """The customer that a source knows under its own number."""
        return await self.reading.of_party(self.ids.party(source, key))

    async def unlinked(
        self, after: UUID | None, limit: int
    ) -> tuple[Sequence[Document], str | None, int, bool]:
        """Accounts that wait for their customer, where to go on, how many were counted, and whether that is all."""
        count, all_counted = await self.reading.unlinked_count()
        found, reached = await self.reading.unlinked(None if after is None else str(after), limit)
        return found, reached, count, all_counted


def _found(answer: T | None) -> T:
    if answer is None:
        raise CustomerNotRegistered
    return answer


def _summed(currency: str, loans: Sequence[HeldLoan]) -> LoansSum:
    those = [loan for loan in loans if loan["currency"] == currency]
    return {
        "currency": currency,
        "granted_minor": sum(loan["granted_minor"] for loan in those),
        "repaid_minor": sum(loan["repaid_minor"] or 0 for loan in those),
        "outstanding_minor": sum(loan["outstanding_minor"] or 0 for loan in those),
    }


def _event(customer: UUID, version: int, name: str, position: int | None, metadata: Metadata) -> Document:
    return {
        "event_id": str(event_id(customer, version)),
        "name": name,
        "sequence": version,
        "position": position,
        "recorded_at": metadata.recorded_at.isoformat(),
        "effective_at": metadata.effective_at.isoformat(),
        "actor": metadata.actor,
        "post": metadata.post,
        "reason": metadata.reason,
        "command_id": str(metadata.command_id),
        "correlation_id": str(metadata.correlation_id),
        "causation_id": str(metadata.causation_id),
        "traceparent": metadata.trace.get("traceparent"),
    }
