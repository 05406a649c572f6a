"""Customers and their external ids: decide and evolve."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from typing import ClassVar, Final, NewType, assert_never
from uuid import UUID

import msgspec
from chassis.write.deciding import Decider, Refusal
from contracts.identity import ExternalIds, PartyId

from customer.domain.events import (
    CONTACT,
    DETAILS,
    IDENTITY,
    BranchAssigned,
    ContactDetailsChanged,
    ContradictionResolved,
    CustomerErased,
    CustomerEvent,
    CustomerKind,
    CustomerRegistered,
    CustomerRenamed,
    DeclaredAsset,
    Detail,
    DetailsConfirmed,
    DetailsContradicted,
    HeldAccount,
    IdentityDetailsCorrected,
    IdentityNumberShared,
    ReferenceClaimed,
    ReferenceConfirmed,
    ReferenceDisputed,
    ReferenceLinked,
    ReferenceRejected,
    ReferenceUnlinked,
    RegisteredBy,
)

CustomerId = NewType("CustomerId", UUID)
REFERENCES_MAX: Final = 50
_UNKNOWN_PARTY: Final = UUID(int=0)
"""The author of the details in registrations of version 1, which do not name one: a source, not staff."""


class CustomerNotRegistered(Refusal):
    """There is no such customer."""

    code: ClassVar[str] = "customer-not-registered"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such customer"
    title_zh: ClassVar[str] = "客户不存在"


class CustomerIsErased(Refusal):
    """The customer's personal values are no longer kept, and none are taken in again."""

    code: ClassVar[str] = "customer-erased"
    title: ClassVar[str] = "The customer is erased"
    title_zh: ClassVar[str] = "客户信息已销毁"


class CustomerAlreadyRegistered(Refusal):
    """The customer is registered and cannot be so again."""

    code: ClassVar[str] = "customer-already-registered"
    title: ClassVar[str] = "The customer is registered already"
    title_zh: ClassVar[str] = "客户已登记"


class TooManyReferences(Refusal):
    """A customer has a bounded number of external ids, because a read of the panorama joins over them."""

    code: ClassVar[str] = "too-many-references"
    title: ClassVar[str] = f"A customer has at most {REFERENCES_MAX} references"
    title_zh: ClassVar[str] = f"每位客户最多 {REFERENCES_MAX} 个外部编号"


class ReferenceNotLinked(Refusal):
    """The number is not this customer's."""

    code: ClassVar[str] = "reference-not-linked"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "The customer has no such reference"
    title_zh: ClassVar[str] = "该客户没有此外部编号"


class ReferenceSettled(Refusal):
    """The reference is confirmed or unlinked already, so the command no longer applies."""

    code: ClassVar[str] = "reference-settled"
    title: ClassVar[str] = "The reference is settled already"
    title_zh: ClassVar[str] = "该外部编号已处理"


class ContradictionUnknown(Refusal):
    """This field has no open contradiction."""

    code: ClassVar[str] = "contradiction-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such contradiction"
    title_zh: ClassVar[str] = "没有此数据冲突"


class Reference(msgspec.Struct, frozen=True):
    """An external id: the name of the source, its own id, and the party that it names in every service.

    `claim` is the identity under which the store holds the link once; None for the party's first.
    """

    source: str
    key: str
    party: PartyId
    claim: UUID | None = None

    @classmethod
    def of(cls, ids: ExternalIds, source: str, key: str) -> "Reference":
        """The reference of an external id."""
        return cls(source, key, ids.party(source, key))

    def linked(self, linked_from: date | None = None) -> ReferenceLinked:
        """The event that states it."""
        return ReferenceLinked(
            source=self.source, party_id=self.party, key=self.key, linked_from=linked_from, claim=self.claim
        )

    def claimed(self) -> ReferenceClaimed:
        """The event that states it while it is not confirmed."""
        return ReferenceClaimed(source=self.source, party_id=self.party, key=self.key, claim=self.claim)


class Details(msgspec.Struct, frozen=True):
    """The known details of a person or company. `invalid` names the fields whose values cannot be right.

    `proven`: the identity number has a valid checksum.
    """

    name: str | None
    kind: CustomerKind = "person"
    phone: str | None = None
    email: str | None = None
    address: str | None = None
    born_on: str | None = None
    identity_number: str | None = None
    branch: str | None = None
    gender: str | None = None
    invalid: tuple[str, ...] = ()
    proven: bool = False

    def stated(self) -> dict[Detail, str]:
        """The fields that are stated."""
        found = ((field, getattr(self, field)) for field in DETAILS)
        return {field: value for field, value in found if value is not None}


class RegisterCustomer(msgspec.Struct, frozen=True):
    """Staff enter a customer."""

    details: Details
    references: tuple[Reference, ...] = ()
    stated_assets: tuple[DeclaredAsset, ...] = ()
    number_claim: UUID | None = None


class AdoptDescription(msgspec.Struct, frozen=True):
    """Master data of a source describes a party: register it, or take over what the source changed itself.

    `shared_with`: the customer that has the identity number already.
    """

    reference: Reference
    details: Details
    on: date
    number_claim: UUID | None = None
    shared_with: UUID | None = None


class LinkReference(msgspec.Struct, frozen=True):
    """Staff state that an external id belongs to this customer. It must still be confirmed."""

    reference: Reference


class TakeOverReference(msgspec.Struct, frozen=True):
    """An external id is moved from another customer to this one from a bank day on, as a person decided."""

    reference: Reference
    linked_from: date


class ConfirmReference(msgspec.Struct, frozen=True):
    """A person confirms that a claimed number belongs to this customer.

    The rest is about the description of its party that waits: `invalid` names values that cannot be right, and
    `shared_with` the customer that has its identity number already.
    """

    party: UUID
    number_claim: UUID | None = None
    shared_with: UUID | None = None
    invalid: tuple[str, ...] = ()


class RejectReference(msgspec.Struct, frozen=True):
    """A person states that a claimed number does not belong to this customer."""

    party: UUID


class UnlinkReference(msgspec.Struct, frozen=True):
    """A number no longer belongs to this customer from the bank day `until` on."""

    party: UUID
    until: date


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
    number_claim: UUID | None = None


class ResolveContradiction(msgspec.Struct, frozen=True):
    """A person decides between what staff and a source state of a field."""

    field: Detail
    party: UUID
    accept: bool
    number_claim: UUID | None = None


class EraseCustomer(msgspec.Struct, frozen=True):
    """A person has the customer's personal values destroyed, after every retention period."""

    parties: tuple[UUID, ...]
    accounts: tuple[HeldAccount, ...]


CustomerCommand = (
    RegisterCustomer
    | AdoptDescription
    | LinkReference
    | TakeOverReference
    | ConfirmReference
    | RejectReference
    | UnlinkReference
    | ChangeContactDetails
    | RenameCustomer
    | CorrectIdentityDetails
    | ResolveContradiction
    | EraseCustomer
)


class Link(msgspec.Struct, frozen=True):
    """An external id of a customer. `described`: the description of a disputed one's party in master data.

    `earlier` is the link that had ended when the number was claimed again.
    """

    source: str
    key: str
    confirmed: bool
    linked_from: date | None = None
    until: date | None = None
    described: dict[Detail, str] | None = None
    earlier: "Link | None" = None

    def stands_on(self, day: date) -> bool:
        """Whether the number belongs to the customer on a bank day, confirmed or not."""
        return (self.linked_from is None or self.linked_from <= day) and self.ends_after(day)

    def ends_after(self, day: date) -> bool:
        """Whether the number belongs to the customer on a bank day or later. A claim that nobody confirmed ends at
        once."""
        return self.until is None or (self.confirmed and day < self.until)


class Customer(msgspec.Struct, frozen=True):
    """The state of a customer that decisions need. The initial value is an unregistered customer.

    `values` are the current details. `stated_by` is the author of each (None: staff). `last` are the
    values that each party's source stated last. `contradictions` are its values that differ from staff's,
    by field and party.
    """

    origin: RegisteredBy | None = None
    kind: CustomerKind = "person"
    values: dict[Detail, str | None] = {}
    stated_by: dict[Detail, UUID | None] = {}
    last: dict[UUID, dict[Detail, str]] = {}
    contradictions: dict[Detail, dict[UUID, str]] = {}
    links: dict[UUID, Link] = {}
    erased: bool = False

    @property
    def registered(self) -> bool:
        """Whether the customer is registered."""
        return self.origin is not None

    def has(self, party: UUID, day: date) -> bool:
        """Whether the party belongs to this customer on a bank day, confirmed or not."""
        link = self.links.get(party)
        return link is not None and link.stands_on(day)

    def has_later(self, party: UUID, day: date) -> bool:
        """Whether the party belongs to this customer on a bank day or later, confirmed or not."""
        link = self.links.get(party)
        return link is not None and link.ends_after(day)


def decide(  # noqa: PLR0911, PLR0912 (one arm per command)
    command: CustomerCommand, customer: Customer
) -> Sequence[CustomerEvent]:
    """Returns the events of a command; raises the refusals above."""
    if not customer.registered and not isinstance(command, (RegisterCustomer, AdoptDescription)):
        raise CustomerNotRegistered
    if customer.erased:
        if isinstance(command, (AdoptDescription, EraseCustomer)):
            return []  # later descriptions by a source and a second erasure change nothing
        raise CustomerIsErased
    match command:
        case RegisterCustomer(details, references, stated_assets, number_claim):
            if customer.registered:
                raise CustomerAlreadyRegistered
            claimed = [one.claimed() for one in dict.fromkeys(references)]
            if len(claimed) > REFERENCES_MAX:
                raise TooManyReferences
            return [_registered(details, "staff", stated_assets, number_claim=number_claim), *claimed]
        case AdoptDescription():
            return _adopted(command, customer)
        case LinkReference(reference):
            return _linked(customer, reference.party, reference.claimed())
        case TakeOverReference(reference, linked_from):
            return _linked(customer, reference.party, reference.linked(linked_from))
        case ConfirmReference(party):
            return _confirmed(command, customer)
        case RejectReference(party):
            link = _open_link(customer, party)
            if link.confirmed:
                raise ReferenceSettled
            return [ReferenceRejected(source=link.source, party_id=party)]
        case UnlinkReference(party, until):
            known = customer.links.get(party)
            if known is None:
                raise ReferenceNotLinked
            if known.until == until:
                return []
            if known.until is not None and known.until < until:
                raise ReferenceSettled  # another customer may have the number since
            return [ReferenceUnlinked(source=known.source, party_id=party, until=until)]
        case ChangeContactDetails(phone, email, address):
            wanted: dict[Detail, str | None] = {"phone": phone, "email": email, "address": address}
            return _stated(customer, _changed(customer, wanted))
        case RenameCustomer(name):
            return _stated(customer, _changed(customer, {"name": name}))
        case CorrectIdentityDetails(born_on, identity_number, number_claim):
            wanted = {"born_on": born_on, "identity_number": identity_number}
            return _stated(customer, _changed(customer, wanted), number_claim=number_claim)
        case ResolveContradiction(field, party, accept, number_claim):
            if party not in customer.contradictions.get(field, {}):
                raise ContradictionUnknown
            claim = number_claim if accept and field == "identity_number" else None
            return [
                ContradictionResolved(
                    source=customer.links[party].source,
                    party_id=party,
                    field=field,
                    accepted=accept,
                    number_claim=claim,
                )
            ]
        case EraseCustomer(parties, accounts):
            return [CustomerErased(parties=parties, accounts=accounts)]
        case _:
            assert_never(command)


def evolve(customer: Customer, event: CustomerEvent) -> Customer:  # noqa: PLR0911, PLR0912 (one arm per event)
    """Returns the customer after an event."""
    match event:
        case CustomerRegistered():
            stated: dict[Detail, str | None] = {
                field: value for field in DETAILS if (value := getattr(event, field)) is not None
            }
            begun = msgspec.structs.replace(customer, origin=event.origin, kind=event.kind)
            by_source = event.party_id or _UNKNOWN_PARTY
            return _with(begun, stated, by_source if event.origin == "master-data" else None)
        case ReferenceLinked():
            return _with_link(
                customer, event.party_id, Link(event.source, event.key, True, event.linked_from)
            )
        case ReferenceClaimed():
            earlier = customer.links.get(event.party_id)
            return _with_link(customer, event.party_id, Link(event.source, event.key, False, earlier=earlier))
        case ReferenceConfirmed():
            claimed = customer.links[event.party_id]
            link = msgspec.structs.replace(claimed, confirmed=True, described=None, earlier=None)
            return _with_link(customer, event.party_id, link)
        case ReferenceDisputed():
            described: dict[Detail, str] = {
                field: value for field in DETAILS if (value := getattr(event, field)) is not None
            }
            link = msgspec.structs.replace(customer.links[event.party_id], described=described)
            return _with_link(customer, event.party_id, link)
        case ReferenceRejected():
            earlier = customer.links[event.party_id].earlier
            if earlier is not None:
                return _with_link(customer, event.party_id, earlier)
            links = {party: link for party, link in customer.links.items() if party != event.party_id}
            return msgspec.structs.replace(customer, links=links)
        case ReferenceUnlinked():
            link = msgspec.structs.replace(customer.links[event.party_id], until=event.until)
            return _with_link(customer, event.party_id, link)
        case CustomerRenamed():
            return _with(customer, {"name": event.name}, event.party_id)
        case ContactDetailsChanged() | IdentityDetailsCorrected():
            fields = CONTACT if isinstance(event, ContactDetailsChanged) else IDENTITY
            values: dict[Detail, str | None] = {
                field: getattr(event, field)
                for field in DETAILS
                if field in fields
                and (field in event.changed if event.changed else _differs(customer, field, event))
            }
            return _with(customer, values, event.party_id)
        case BranchAssigned():
            return _with(customer, {"branch": event.branch}, event.party_id)
        case DetailsConfirmed():
            agreed: dict[Detail, str] = {
                field: value
                for field in DETAILS
                if field in event.fields and (value := customer.values.get(field))
            }
            return _remembered(customer, event.party_id, agreed, contradicting={})
        case DetailsContradicted():
            other: dict[Detail, str] = {
                field: value for field in DETAILS if (value := getattr(event, field)) is not None
            }
            return _remembered(customer, event.party_id, other, contradicting=other)
        case ContradictionResolved():
            [field] = [one for one in DETAILS if one == event.field]
            if event.accepted:
                value = customer.contradictions[field][event.party_id]
                return _with(customer, {field: value}, event.party_id)
            return _without_contradiction(customer, field, event.party_id)
        case IdentityNumberShared():
            return customer
        case CustomerErased():
            # A number that is not the customer's today, or that nobody confirmed, is free for whom it belongs to.
            bare = {
                party: msgspec.structs.replace(link, key="", described=None, earlier=None)
                for party, link in customer.links.items()
                if party in event.parties
            }
            return Customer(origin=customer.origin, kind=customer.kind, links=bare, erased=True)
        case _:
            assert_never(event)


def identify(event: CustomerEvent) -> UUID | None:
    """The identity under which the store holds an event once: a party, and an identity number, is one
    customer's."""
    match event:
        case ReferenceLinked() | ReferenceClaimed():
            return event.claim or event.party_id
        case CustomerRegistered() | IdentityDetailsCorrected() | ContradictionResolved():
            return event.number_claim
        case (
            ReferenceConfirmed()
            | ReferenceDisputed()
            | ReferenceRejected()
            | ReferenceUnlinked()
            | CustomerRenamed()
            | ContactDetailsChanged()
            | BranchAssigned()
            | DetailsConfirmed()
            | DetailsContradicted()
            | IdentityNumberShared()
            | CustomerErased()
        ):
            return None
        case _:
            assert_never(event)


customer_decider: Final = Decider[CustomerCommand, Customer, CustomerEvent](
    initial=Customer(),
    decide=decide,
    evolve=evolve,
    identify=identify,
    state_type=Customer,
    state_version=4,
)


def _registered(
    details: Details,
    origin: RegisteredBy,
    stated_assets: tuple[DeclaredAsset, ...] = (),
    *,
    reference: Reference | None = None,
    number_claim: UUID | None = None,
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
        source=None if reference is None else reference.source,
        party_id=None if reference is None else reference.party,
        invalid=details.invalid,
        number_claim=number_claim,
    )


def _adopted(command: AdoptDescription, customer: Customer) -> list[CustomerEvent]:
    reference, details = command.reference, command.details
    source, party = reference.source, reference.party
    events: list[CustomerEvent]
    if not customer.registered:
        begun = _registered(details, "master-data", reference=reference, number_claim=command.number_claim)
        events = [begun, reference.linked()]
    else:
        link = customer.links.get(party)
        if link is None or not link.stands_on(command.on):
            return []
        stated = details.stated()
        if not link.confirmed and not _agree(stated, customer.values):
            if link.described == stated:
                return []
            return [ReferenceDisputed(source=source, party_id=party, **stated)]
        events = [] if link.confirmed else [ReferenceConfirmed(source=source, party_id=party)]
        events += _differences(
            customer, source, party, stated, invalid=details.invalid, number_claim=command.number_claim
        )
        if customer.last.get(party, {}).get("identity_number") == details.identity_number:
            return events
    if command.shared_with is not None:
        events.append(IdentityNumberShared(source=source, party_id=party, customer_id=command.shared_with))
    return events


def _confirmed(command: ConfirmReference, customer: Customer) -> list[CustomerEvent]:
    party = command.party
    link = _open_link(customer, party)
    if link.confirmed:
        return []
    events: list[CustomerEvent] = [ReferenceConfirmed(source=link.source, party_id=party)]
    stated = link.described or {}
    events += _differences(
        customer, link.source, party, stated, invalid=command.invalid, number_claim=command.number_claim
    )
    if command.shared_with is not None:
        events.append(
            IdentityNumberShared(source=link.source, party_id=party, customer_id=command.shared_with)
        )
    return events


def _agree(stated: Mapping[Detail, str], values: Mapping[Detail, str | None]) -> bool:
    """Whether two descriptions are certainly of one person: by identity number, or by name and date of birth."""
    numbers = stated.get("identity_number"), values.get("identity_number")
    if None not in numbers:
        return numbers[0] == numbers[1]
    return all(
        stated.get(field) is not None and stated[field] == values.get(field) for field in _NAME_AND_BIRTH
    )


_NAME_AND_BIRTH: Final[tuple[Detail, ...]] = ("name", "born_on")


def _linked(
    customer: Customer, party: UUID, event: ReferenceLinked | ReferenceClaimed
) -> list[CustomerEvent]:
    known = customer.links.get(party)
    if known is not None and known.until is None:
        return []
    if known is None and len(customer.links) >= REFERENCES_MAX:
        raise TooManyReferences
    return [event]


def _open_link(customer: Customer, party: UUID) -> Link:
    link = customer.links.get(party)
    if link is None:
        raise ReferenceNotLinked
    if link.until is not None:
        raise ReferenceSettled
    return link


def _changed(customer: Customer, wanted: Mapping[Detail, str | None]) -> dict[Detail, str | None]:
    return {field: value for field, value in wanted.items() if value != customer.values.get(field)}


def _differs(
    customer: Customer, field: Detail, event: ContactDetailsChanged | IdentityDetailsCorrected
) -> bool:
    """Events from before the field `changed` existed do not name the fields that they change."""
    value: str | None = getattr(event, field)
    return value != customer.values.get(field)


def _differences(
    customer: Customer,
    source: str,
    party: UUID,
    stated: Mapping[Detail, str],
    *,
    invalid: tuple[str, ...] = (),
    number_claim: UUID | None = None,
) -> list[CustomerEvent]:
    """Returns the changes by a source's statement.

    A field with the same value as in its last statement changes nothing.

    A value of staff is kept beside the source's new value. Among sources the newest value is current. A
    field that the source leaves out is unknown to it, and is not changed.
    """
    before = customer.last.get(party, {})
    taken: dict[Detail, str | None] = {}
    agreed: list[Detail] = []
    against: dict[Detail, str] = {}
    for field, value in stated.items():
        if before.get(field) == value:
            continue
        if customer.values.get(field) == value:
            agreed.append(field)
        elif field in customer.stated_by and customer.stated_by[field] is None:
            against[field] = value
        else:
            taken[field] = value
    events = _stated(customer, taken, source=source, party=party, invalid=invalid, number_claim=number_claim)
    if agreed:
        events.append(DetailsConfirmed(source=source, party_id=party, fields=tuple(agreed)))
    if against:
        wrong = tuple(field for field in invalid if field in against)
        events.append(DetailsContradicted(source=source, party_id=party, invalid=wrong, **against))
    return events


def _stated(
    customer: Customer,
    changes: Mapping[Detail, str | None],
    *,
    source: str | None = None,
    party: UUID | None = None,
    invalid: tuple[str, ...] = (),
    number_claim: UUID | None = None,
) -> list[CustomerEvent]:
    """The events that state these changes; without a party, staff state them."""
    after = {**customer.values, **changes}
    wrong = tuple(field for field in invalid if field in changes)
    events: list[CustomerEvent] = []
    if changes.get("name") is not None:
        events.append(
            CustomerRenamed(
                name=changes["name"] or "", source=source, party_id=party, invalid=_of(wrong, {"name"})
            )
        )
    if CONTACT & changes.keys():
        events.append(
            ContactDetailsChanged(
                phone=after.get("phone"),
                email=after.get("email"),
                address=after.get("address"),
                source=source,
                party_id=party,
                changed=_of(DETAILS, CONTACT & changes.keys()),
                invalid=_of(wrong, CONTACT),
            )
        )
    if IDENTITY & changes.keys():
        events.append(
            IdentityDetailsCorrected(
                born_on=after.get("born_on"),
                identity_number=after.get("identity_number"),
                source=source,
                party_id=party,
                changed=_of(DETAILS, IDENTITY & changes.keys()),
                invalid=_of(wrong, IDENTITY),
                number_claim=number_claim if changes.get("identity_number") is not None else None,
            )
        )
    if changes.get("branch") is not None:
        events.append(
            BranchAssigned(
                branch=changes["branch"] or "", source=source, party_id=party, invalid=_of(wrong, {"branch"})
            )
        )
    return events


def _of(fields: Sequence[str], among: AbstractSet[str]) -> tuple[str, ...]:
    return tuple(field for field in fields if field in among)


def _with(customer: Customer, values: Mapping[Detail, str | None], party: UUID | None) -> Customer:
    """Returns the customer with new current values. Contradictions of these fields are resolved."""
    last = customer.last
    if party is not None:
        stated: dict[Detail, str] = {field: value for field, value in values.items() if value is not None}
        last = {**last, party: {**last.get(party, {}), **stated}}
    return msgspec.structs.replace(
        customer,
        values={**customer.values, **values},
        stated_by={**customer.stated_by, **dict.fromkeys(values, party)},
        last=last,
        contradictions={
            field: by_party for field, by_party in customer.contradictions.items() if field not in values
        },
    )


def _remembered(
    customer: Customer,
    party: UUID,
    stated: Mapping[Detail, str],
    *,
    contradicting: Mapping[Detail, str],
) -> Customer:
    last = {**customer.last, party: {**customer.last.get(party, {}), **stated}}
    after = msgspec.structs.replace(customer, last=last)
    for field in stated:
        after = _without_contradiction(after, field, party)
    contradictions = dict(after.contradictions)
    for field, value in contradicting.items():
        contradictions[field] = {**contradictions.get(field, {}), party: value}
    return msgspec.structs.replace(after, contradictions=contradictions)


def _without_contradiction(customer: Customer, field: Detail, party: UUID) -> Customer:
    left = {one: value for one, value in customer.contradictions.get(field, {}).items() if one != party}
    others = {one: by_party for one, by_party in customer.contradictions.items() if one != field}
    return msgspec.structs.replace(customer, contradictions={**others, field: left} if left else others)


def _with_link(customer: Customer, party: UUID, link: Link) -> Customer:
    return msgspec.structs.replace(customer, links={**customer.links, party: link})
