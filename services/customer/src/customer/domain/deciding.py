"""Decide: the events of a command, or the refusal."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, assert_never, get_args
from uuid import UUID

from customer.domain.commands import (
    AcceptErasurePreparation,
    AdoptDescription,
    AssessTier,
    AssignBranch,
    BeginErasurePreparation,
    ChangeContactDetails,
    ChangeTags,
    CloseNeed,
    ConfirmErasurePreparation,
    ConfirmReference,
    CorrectIdentityDetails,
    CorrectNeed,
    CustomerCommand,
    DeferErasure,
    Details,
    EditDetails,
    EndErasurePreparation,
    EndKeyCustomer,
    EndTierOverride,
    EraseContact,
    EraseCustomer,
    ExtendProfile,
    GiveConsent,
    LiftLegalHold,
    LinkReference,
    NameKeyCustomer,
    OverrideTier,
    PlaceLegalHold,
    RecordNeed,
    Reference,
    RegisterCustomer,
    RejectReference,
    RemindOfReview,
    RenameCustomer,
    ResolveContradiction,
    ReviewCustomer,
    TakeOverReference,
    UnlinkReference,
    WithdrawConsent,
)
from customer.domain.consenting import decide_consent
from customer.domain.erasing import ErasureCommand, decide_erasure
from customer.domain.events import (
    CONTACT,
    DETAILS,
    IDENTITY,
    BranchAssigned,
    ContactDetailsChanged,
    ContradictionResolved,
    CustomerEvent,
    CustomerRegistered,
    CustomerRenamed,
    DeclaredAsset,
    Detail,
    DetailsConfirmed,
    DetailsContradicted,
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
from customer.domain.needs import decide_needs
from customer.domain.overriding import decide_tiers
from customer.domain.preparing import decide_preparation
from customer.domain.profile import decide_profile
from customer.domain.refusals import (
    REFERENCES_MAX,
    ContradictionUnknown,
    CustomerAlreadyRegistered,
    CustomerIsErased,
    CustomerNotRegistered,
    ReferenceNotLinked,
    ReferenceSettled,
    TooManyReferences,
)
from customer.domain.reviewing import decide_review
from customer.domain.state import Customer, Link
from customer.domain.tagging import decide_tags


def decide(  # noqa: PLR0911, PLR0912, PLR0915 (one arm per command)
    command: CustomerCommand, customer: Customer
) -> Sequence[CustomerEvent]:
    """Returns the events of a command; raises those of `customer.domain.refusals`."""
    if not customer.registered and not isinstance(command, (RegisterCustomer, AdoptDescription)):
        raise CustomerNotRegistered
    if customer.erased:
        if isinstance(command, (AdoptDescription, EraseCustomer, EndErasurePreparation)):
            return []  # later descriptions by a source and a second erasure change nothing
        raise CustomerIsErased
    if customer.contact_erased and not isinstance(command, get_args(ErasureCommand)):
        if isinstance(command, (AdoptDescription, EndErasurePreparation)):
            return []
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
            if known.until is not None and (known.until < until or not known.confirmed):
                raise ReferenceSettled  # another customer may have the number since
            return [ReferenceUnlinked(source=known.source, party_id=party, until=until)]
        case ChangeContactDetails(phone, email, address):
            wanted: dict[Detail, str | None] = {"phone": phone, "email": email, "address": address}
            return _stated(customer, _changed(customer, wanted))
        case RenameCustomer(name):
            return _stated(customer, _changed(customer, {"name": name}))
        case CorrectIdentityDetails(born_on, identity_number, number_claim):
            return _edited(customer, {"born_on": born_on, "identity_number": identity_number}, number_claim)
        case EditDetails(changes, number_claim):
            return _edited(customer, changes, number_claim)
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
        case AssignBranch(branch):
            return _stated(customer, _changed(customer, {"branch": branch}))
        case EraseCustomer() | EraseContact() | DeferErasure() | PlaceLegalHold() | LiftLegalHold():
            return decide_erasure(command, customer)
        case NameKeyCustomer() | EndKeyCustomer() | ReviewCustomer() | RemindOfReview():
            return decide_review(command, customer)
        case (
            BeginErasurePreparation()
            | AcceptErasurePreparation()
            | ConfirmErasurePreparation()
            | EndErasurePreparation()
        ):
            return decide_preparation(command, customer)
        case ChangeTags():
            return decide_tags(command, customer)
        case AssessTier() | OverrideTier() | EndTierOverride():
            return decide_tiers(command, customer)
        case RecordNeed() | CorrectNeed() | CloseNeed():
            return decide_needs(command, customer)
        case GiveConsent() | WithdrawConsent():
            return decide_consent(command)
        case ExtendProfile():
            return decide_profile(command, customer)
        case _:
            assert_never(command)


def _edited(
    customer: Customer, wanted: Mapping[Detail, str | None], number_claim: UUID | None
) -> list[CustomerEvent]:
    """The events of details that staff state; none where all of them stand."""
    changes = _changed(customer, wanted)
    if customer.number_shared and number_claim is not None:
        changes["identity_number"] = wanted["identity_number"]  # the same, and nobody else's any more
    return _stated(customer, changes, number_claim=number_claim)


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
        link = customer.link_on(party, command.on)
        if link is None:
            return []
        stated = details.stated()
        if not link.confirmed and not _agree(stated, customer.values, proven=details.proven):
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


def _agree(stated: Mapping[Detail, str], values: Mapping[Detail, str | None], *, proven: bool) -> bool:
    """Whether two descriptions are certainly of one person: by identity number, or by name and date of birth.

    A number without a valid checksum may be that of another country, or a placeholder, so the names have to be equal too.
    """
    numbers = stated.get("identity_number"), values.get("identity_number")
    if None not in numbers:
        named = stated.get("name") is not None and stated["name"] == values.get("name")
        return numbers[0] == numbers[1] and (proven or named)
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
