"""Who is a customer, and by which outside numbers: decide and evolve."""

from collections.abc import Sequence
from typing import ClassVar, Final, NewType, assert_never
from uuid import UUID

import msgspec
from chassis.deciding import Decider, Refusal
from contracts.identity import OutsideIds, PartyId

from customer.domain.events import (
    ContactDetailsChanged,
    CustomerEvent,
    CustomerKind,
    CustomerRegistered,
    CustomerRenamed,
    IdentityDetailsCorrected,
    Origin,
    ReferenceLinked,
    StatedAsset,
)

CustomerId = NewType("CustomerId", UUID)
REFERENCES_MAX: Final = 50


class CustomerNotRegistered(Refusal):
    """There is no such customer."""

    code: ClassVar[str] = "customer-not-registered"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such customer"
    title_zh: ClassVar[str] = "客户不存在"


class CustomerAlreadyRegistered(Refusal):
    """The customer is registered and cannot be so again."""

    code: ClassVar[str] = "customer-already-registered"
    title: ClassVar[str] = "The customer is registered already"
    title_zh: ClassVar[str] = "客户已登记"


class TooManyReferences(Refusal):
    """A customer has a bounded number of outside numbers, because a read of the panorama joins over them."""

    code: ClassVar[str] = "too-many-references"
    title: ClassVar[str] = f"A customer has at most {REFERENCES_MAX} references"
    title_zh: ClassVar[str] = f"每位客户最多 {REFERENCES_MAX} 个外部编号"


class Reference(msgspec.Struct, frozen=True):
    """An outside number: the name of the source, its own id, and the party that it names in every service."""

    source: str
    key: str
    party: PartyId

    @classmethod
    def of(cls, ids: OutsideIds, source: str, key: str) -> "Reference":
        """The reference of an outside number."""
        return cls(source, key, ids.party(source, key))

    def linked(self) -> ReferenceLinked:
        """The event that states it."""
        return ReferenceLinked(source=self.source, party_id=self.party, key=self.key)


class Details(msgspec.Struct, frozen=True):
    """Who somebody is, as far as it is known."""

    name: str | None
    kind: CustomerKind = "person"
    phone: str | None = None
    email: str | None = None
    address: str | None = None
    born_on: str | None = None
    identity_number: str | None = None
    branch: str | None = None


class RegisterCustomer(msgspec.Struct, frozen=True):
    """Staff enter a customer."""

    details: Details
    references: tuple[Reference, ...] = ()
    stated_assets: tuple[StatedAsset, ...] = ()


class AdoptDescription(msgspec.Struct, frozen=True):
    """Master data of a source describes a party: register it, or take over what changed."""

    reference: Reference
    details: Details


class LinkReference(msgspec.Struct, frozen=True):
    """An outside number is this customer's."""

    reference: Reference


class ChangeContactDetails(msgspec.Struct, frozen=True):
    """How the customer is reached from now on."""

    phone: str | None
    email: str | None
    address: str | None


class RenameCustomer(msgspec.Struct, frozen=True):
    """The customer bears another name."""

    name: str


class CorrectIdentityDetails(msgspec.Struct, frozen=True):
    """What identifies the person was wrong or missing."""

    born_on: str | None
    identity_number: str | None


CustomerCommand = (
    RegisterCustomer
    | AdoptDescription
    | LinkReference
    | ChangeContactDetails
    | RenameCustomer
    | CorrectIdentityDetails
)


class Customer(msgspec.Struct, frozen=True):
    """What decisions need to know of a customer; the initial value is nobody yet."""

    origin: Origin | None = None
    name: str | None = None
    phone: str | None = None
    email: str | None = None
    address: str | None = None
    born_on: str | None = None
    identity_number: str | None = None
    parties: frozenset[UUID] = frozenset()

    @property
    def registered(self) -> bool:
        """Whether there is such a customer."""
        return self.origin is not None


def decide(  # noqa: PLR0911, PLR0912 (one arm per command)
    command: CustomerCommand, customer: Customer
) -> Sequence[CustomerEvent]:
    """The facts that follow from a command; raises what the refusals above name."""
    match command:
        case RegisterCustomer(details, references, stated_assets):
            if customer.registered:
                raise CustomerAlreadyRegistered
            linked = [one.linked() for one in dict.fromkeys(references)]
            if len(linked) > REFERENCES_MAX:
                raise TooManyReferences
            return [_registered(details, "staff", stated_assets), *linked]
        case AdoptDescription(reference, details):
            if not customer.registered:
                return [_registered(details, "master-data"), reference.linked()]
            # What staff entered stands: a branch's dump must not overwrite what the customer told an adviser.
            return _differences(details, customer) if customer.origin == "master-data" else []
        case LinkReference(reference):
            if not customer.registered:
                raise CustomerNotRegistered
            if reference.party in customer.parties:
                return []
            if len(customer.parties) >= REFERENCES_MAX:
                raise TooManyReferences
            return [reference.linked()]
        case ChangeContactDetails(phone, email, address):
            if not customer.registered:
                raise CustomerNotRegistered
            if (phone, email, address) == (customer.phone, customer.email, customer.address):
                return []
            return [ContactDetailsChanged(phone=phone, email=email, address=address)]
        case RenameCustomer(name):
            if not customer.registered:
                raise CustomerNotRegistered
            return [] if name == customer.name else [CustomerRenamed(name=name)]
        case CorrectIdentityDetails(born_on, identity_number):
            if not customer.registered:
                raise CustomerNotRegistered
            if (born_on, identity_number) == (customer.born_on, customer.identity_number):
                return []
            return [IdentityDetailsCorrected(born_on=born_on, identity_number=identity_number)]
        case _:
            assert_never(command)


def evolve(customer: Customer, event: CustomerEvent) -> Customer:
    """The customer after a fact."""
    match event:
        case CustomerRegistered():
            return msgspec.structs.replace(
                customer,
                origin=event.origin,
                name=event.name,
                phone=event.phone,
                email=event.email,
                address=event.address,
                born_on=event.born_on,
                identity_number=event.identity_number,
            )
        case ReferenceLinked():
            return msgspec.structs.replace(customer, parties=customer.parties | {event.party_id})
        case CustomerRenamed():
            return msgspec.structs.replace(customer, name=event.name)
        case ContactDetailsChanged():
            return msgspec.structs.replace(
                customer, phone=event.phone, email=event.email, address=event.address
            )
        case IdentityDetailsCorrected():
            return msgspec.structs.replace(
                customer, born_on=event.born_on, identity_number=event.identity_number
            )
        case _:
            assert_never(event)


def identify(event: CustomerEvent) -> UUID | None:
    """The identity under which the store holds an event once: a party is one customer's."""
    return event.party_id if isinstance(event, ReferenceLinked) else None


customer_decider: Final = Decider[CustomerCommand, Customer, CustomerEvent](
    initial=Customer(), decide=decide, evolve=evolve, identify=identify, state_type=Customer
)


def _registered(
    details: Details, origin: Origin, stated_assets: tuple[StatedAsset, ...] = ()
) -> CustomerRegistered:
    return CustomerRegistered(
        name=details.name,
        kind=details.kind,
        origin=origin,
        phone=details.phone,
        email=details.email,
        address=details.address,
        born_on=details.born_on,
        identity_number=details.identity_number,
        branch=details.branch,
        stated_assets=stated_assets,
    )


def _differences(details: Details, customer: Customer) -> list[CustomerEvent]:
    """What a later description changes. A field that it leaves out is not known there, and stays as it is."""
    changes: list[CustomerEvent] = []
    if details.name is not None and details.name != customer.name:
        changes.append(CustomerRenamed(name=details.name))
    contact = (
        details.phone or customer.phone,
        details.email or customer.email,
        details.address or customer.address,
    )
    if contact != (customer.phone, customer.email, customer.address):
        changes.append(ContactDetailsChanged(phone=contact[0], email=contact[1], address=contact[2]))
    identity = (details.born_on or customer.born_on, details.identity_number or customer.identity_number)
    if identity != (customer.born_on, customer.identity_number):
        changes.append(IdentityDetailsCorrected(born_on=identity[0], identity_number=identity[1]))
    return changes
