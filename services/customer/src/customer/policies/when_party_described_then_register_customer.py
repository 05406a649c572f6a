"""When a source's master data describes a party, then its customer is registered, linked to the party, and
kept up to date.

A party belongs to one customer at a time (`claims`). A description that comes twice, late, or to two
consumers at once therefore registers no customer twice. A description of a party that staff have linked
updates the linked customer. Invalid values are kept unchanged and their fields named. An identity number
that another customer has already is kept and recorded as shared, because a statement of a source is a
fact.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, Final
from uuid import UUID

from chassis.clock import Clock
from chassis.messaging.delivered import Delivered
from chassis.privacy.keys import ERASED, DataKey, KeyRing, Origin, opening
from chassis.reactions.policies import DeclaredPolicy, Reaction, command_of
from chassis.write.deciding import AlreadyRecorded, CommandKeyReused
from chassis.write.handling import CommandHandler
from chassis.write.secret_checks import SecretDiffers
from chassis.write.store import EventStore
from contracts.identity import EXTERNAL_IDS, ExternalIds, PartyId
from contracts.topics import INGEST_EVENTS
from msgspec import structs

from customer.catalogue import INGEST
from customer.claims import CLAIMS_MAX, Claims, number_claim
from customer.connections import Write, reaching
from customer.domain.commands import AdoptDescription, CustomerCommand, Details, Reference
from customer.domain.events import CustomerEvent
from customer.domain.state import Customer
from customer.identities import customer_of_party
from customer.normalising import normalised_or_kept

NAME: Final = "when_party_described_then_register_customer"
EVENT: Final = "party.described"


@dataclass(frozen=True, slots=True)
class RegisterDescribed:
    """The policy, with what it needs."""

    handler: CommandHandler[CustomerCommand, Customer, CustomerEvent]
    store: EventStore
    ring: KeyRing
    clock: Clock
    ids: ExternalIds
    today: Callable[[], date]
    claims_max: int = CLAIMS_MAX
    born_until: Callable[[], date] | None = None
    """The last day on which somebody may have been born, a date of the calendar; by default `today`."""

    @property
    def claims(self) -> Claims:
        """Looks up the customer of a party or of an identity number."""
        return Claims(self.handler, self.store, self.claims_max)

    async def prepare(self, events: Sequence[Delivered]) -> None:
        """Reads the keys of the parties, and keys and states of their customers, for all events together."""
        parties = list({event.subject: None for event in events})
        keys = await asyncio.to_thread(self.ring.keys_for, parties, create=False)
        await self.handler.prepare([customer_of_party(party) for party in parties if party in keys])

    async def __call__(self, event: Delivered) -> None:
        """Registers the party of the event, or takes over its changes. A second call changes nothing."""
        if event.type != EVENT:
            return
        party = event.subject
        key = self.ring.cached(party)
        if key is None:
            key = (await asyncio.to_thread(self.ring.keys_for, [party], create=False)).get(party)
        today = self.today()
        command = self._command(event, key, today)
        if command is None:
            return
        customer: UUID = customer_of_party(party)
        state = (await self.handler.load(customer)).state
        if state.registered and not state.has(party, today):
            holder = (await self.claims.of_party(party, today)).holder
            if holder is None:
                return  # a person unlinked the party from its customer: a person must link it again
            customer = holder
        try:
            await self._adopt(customer, command, event)
        except AlreadyRecorded:
            await self._adopt(*await self._settled(customer, command), event)

    def _command(self, event: Delivered, key: DataKey | None, today: date) -> AdoptDescription | None:
        """Returns the command for a description; None for a party whose key is gone."""
        described = _described(event, key)
        if described is None:
            return None
        reference, raw = described
        if self.ids.party(reference.source, reference.key) != reference.party:
            # The number opened, so the event is valid: its publisher derived ids under another secret.
            raise SecretDiffers(
                f"the secret {EXTERNAL_IDS!r} in the key database is not the one that ids of {INGEST} were derived under:"
                " restore the key database"
            )
        details = normalised_or_kept(raw, (self.born_until or self.today)())
        return AdoptDescription(reference, details, today, number_claim(self.ids, details))

    async def _settled(self, customer: UUID, command: AdoptDescription) -> tuple[UUID, AdoptDescription]:
        """Returns the customer of the party, and the command with the identities that are free to be claimed."""
        reference, first = command.reference, command.number_claim
        party = await self.claims.of_party(reference.party, command.on)
        if party.holder is not None:
            customer = party.holder
        elif party.identity != reference.party:
            command = structs.replace(command, reference=structs.replace(reference, claim=party.identity))
        if first is not None:
            number = await self.claims.of_number(first, command.details.identity_number or "")
            if number.free_for(customer):
                command = structs.replace(command, number_claim=number.identity)
            else:
                command = structs.replace(command, number_claim=None, shared_with=number.holder)
        return customer, command

    async def _adopt(self, customer: UUID, command: AdoptDescription, event: Delivered) -> None:
        try:
            await self.handler.handle(customer, command, command_of(event, NAME, customer, self.clock))
        except CommandKeyReused:
            return  # the event was processed before, on another day or while other numbers were free


def _described(event: Delivered, key: DataKey | None) -> tuple[Reference, Details] | None:
    """The party's number and details, opened; None of a party whose key is gone."""
    data = event.data
    open_value = opening(key, Origin(INGEST, event.subject, event.sequence, event.stored_name))

    def opened(field: str) -> str | None:
        plain = open_value(field, data.get(field))
        return None if plain == ERASED else plain

    number = opened("party")
    if number is None:
        return None
    return (
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
            gender=opened("gender"),
        ),
    )


def _kind(data: dict[str, Any]) -> Any:
    if data["kind"] not in {"person", "company"}:
        raise ValueError(f"a party is a person or a company, not {data['kind']!r}")
    return data["kind"]


def _reaction(write: Write) -> Reaction:
    register = RegisterDescribed(
        write.handler,
        write.store,
        write.ring,
        write.clock,
        write.ids,
        write.today,
        write.settings.claims_max,
        partial(write.settings.calendar_date, write.clock),
    )
    return Reaction(reaching(register, write.settings.reached), register.prepare)


POLICY: Final = DeclaredPolicy(
    name=NAME,
    sources=(INGEST_EVENTS.name,),
    events=frozenset({EVENT}),
    starts="beginning",
    reaction=_reaction,
)
