"""Whom a source's master data describes is a customer: registered, linked to the party, and kept up to date.

A party is one customer's, whoever said so first: the identity of `ReferenceLinked` is the party. So a description
that comes twice, late, or to two consumers at once registers nobody twice, and one of a party that staff have linked
goes to the customer that they linked it to.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

from chassis.clock import Clock
from chassis.deciding import AlreadyRecorded, CommandContext
from chassis.delivered import Delivered
from chassis.handling import CommandHandler
from chassis.privacy import ERASED, DataKey, KeyRing, Origin, open_value
from chassis.store import EventStore
from contracts.identity import PartyId

from customer.domain.customer import AdoptDescription, Customer, CustomerCommand, Details, Reference
from customer.domain.events import CustomerEvent
from customer.identities import customer_of_party
from customer.opening import INGEST

NAME: Final = "when_party_described_then_register_customer"
EVENT: Final = "party.described"
ACTOR: Final = f"policy:{NAME}"


@dataclass(frozen=True, slots=True)
class RegisterDescribed:
    """The policy, with what it needs."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    store: EventStore
    ring: KeyRing
    clock: Clock

    async def prepare(self, events: Sequence[Delivered]) -> None:
        """Reads the keys of the parties, and keys and states of their customers, for all events together."""
        parties = list({event.subject: None for event in events})
        keys = await asyncio.to_thread(self.ring.keys_for, parties, create=False)
        await self.handler.prepare([customer_of_party(party) for party in parties if party in keys])

    async def __call__(self, event: Delivered) -> None:
        """Registers the party of the event or takes over what changed; a second time nothing."""
        if event.type != EVENT:
            return
        party = event.subject
        key = self.ring.cached(party)
        if key is None:
            key = (await asyncio.to_thread(self.ring.keys_for, [party], create=False)).get(party)
        command = _described(event, key)
        if command is None:
            return
        try:
            await self._adopt(customer_of_party(party), command, event)
        except AlreadyRecorded:
            [link] = await self.store.read_identities([party])
            await self._adopt(link.stream_id, command, event)

    async def _adopt(self, customer: UUID, command: AdoptDescription, event: Delivered) -> None:
        await self.handler.handle(customer, command, self._context(customer, event))

    def _context(self, customer: UUID, event: Delivered) -> CommandContext:
        envelope = event.envelope
        trace = {"traceparent": envelope.traceparent, "tracestate": envelope.tracestate}
        return CommandContext(
            actor=ACTOR,
            now=self.clock.now(),
            command_id=uuid5(envelope.id, f"{NAME}:{customer}"),
            effective_at=envelope.effective_at,
            correlation_id=envelope.correlation_id,
            causation_id=envelope.id,
            trace={name: value for name, value in trace.items() if value is not None},
        )


def _described(event: Delivered, key: DataKey | None) -> AdoptDescription | None:
    """The command that a description amounts to; None of a party whose key is gone."""
    data = event.data
    origin = Origin(INGEST, event.subject, event.sequence, event.stored_name)

    def opened(field: str) -> str | None:
        plain = open_value(key, origin, field, data.get(field))
        return None if plain == ERASED else plain

    number = opened("party")
    if number is None:
        return None
    return AdoptDescription(
        Reference(data["source"], number, PartyId(event.subject)),
        Details(
            name=opened("name"),
            kind=_kind(data),
            phone=opened("phone"),
            email=opened("email"),
            address=opened("address"),
            born_on=opened("born_on"),
            identity_number=opened("identity_number"),
            branch=data.get("branch"),
        ),
    )


def _kind(data: dict[str, Any]) -> Any:
    if data["kind"] not in {"person", "company"}:
        raise ValueError(f"a party is a person or a company, not {data['kind']!r}")
    return data["kind"]
