"""Evolve: the customer after an event."""

from collections.abc import Mapping
from typing import Final, assert_never
from uuid import UUID

import msgspec

from customer.domain.erasing import evolve_erasure
from customer.domain.events import (
    CONTACT,
    DETAILS,
    IDENTITY,
    BranchAssigned,
    ConsentGiven,
    ConsentWithdrawn,
    ContactDetailsChanged,
    ContradictionResolved,
    CustomerContactErased,
    CustomerErased,
    CustomerEvent,
    CustomerRegistered,
    CustomerRenamed,
    CustomerReviewed,
    Detail,
    DetailsConfirmed,
    DetailsContradicted,
    ErasureDeferred,
    ErasurePreparationBegun,
    ErasurePreparationEnded,
    ErasurePrepared,
    IdentityDetailsCorrected,
    IdentityNumberShared,
    LegalHoldLifted,
    LegalHoldPlaced,
    NamedKeyCustomer,
    NeedClosed,
    NeedCorrected,
    NeedRecorded,
    NoLongerKeyCustomer,
    ProfileExtended,
    ReferenceClaimed,
    ReferenceConfirmed,
    ReferenceDisputed,
    ReferenceLinked,
    ReferenceRejected,
    ReferenceUnlinked,
    ReviewFellDue,
    TagAdded,
    TagRemoved,
    TierAssessed,
    TierOverridden,
    TierOverrideEnded,
)
from customer.domain.needs import evolve_needs
from customer.domain.overriding import evolve_tiers
from customer.domain.preparing import evolve_preparation
from customer.domain.profile import evolve_profile
from customer.domain.reviewing import evolve_review
from customer.domain.state import Customer, Link
from customer.domain.tagging import evolve_tags

_UNKNOWN_PARTY: Final = UUID(int=0)
"""The author of the details in registrations of version 1, which do not name one: a source, not staff."""


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
            earlier = customer.last_confirmed(event.party_id)
            link = Link(event.source, event.key, True, event.linked_from, earlier=earlier)
            return _with_link(customer, event.party_id, link)
        case ReferenceClaimed():
            earlier = customer.last_confirmed(event.party_id)
            return _with_link(customer, event.party_id, Link(event.source, event.key, False, earlier=earlier))
        case ReferenceConfirmed():
            claimed = customer.links[event.party_id]
            link = msgspec.structs.replace(claimed, confirmed=True, described=None)
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
            return _with_link(customer, event.party_id, customer.links[event.party_id].ended(event.until))
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
            # A number that stands beside that of staff is not the customer's: staff's is claimed.
            not_by_staff = customer.stated_by.get("identity_number") is not None
            return msgspec.structs.replace(customer, number_shared=not_by_staff)
        case (
            CustomerErased()
            | CustomerContactErased()
            | ErasureDeferred()
            | LegalHoldPlaced()
            | LegalHoldLifted()
        ):
            return evolve_erasure(customer, event)
        case NamedKeyCustomer() | NoLongerKeyCustomer() | CustomerReviewed() | ReviewFellDue():
            return evolve_review(customer, event)
        case ErasurePreparationBegun() | ErasurePrepared() | ErasurePreparationEnded():
            return evolve_preparation(customer, event)
        case TagAdded() | TagRemoved():
            return evolve_tags(customer, event)
        case TierAssessed() | TierOverridden() | TierOverrideEnded():
            return evolve_tiers(customer, event)
        case NeedRecorded() | NeedCorrected() | NeedClosed():
            return evolve_needs(customer, event)
        case ConsentGiven() | ConsentWithdrawn():
            return customer  # each is decided by itself
        case ProfileExtended():
            return evolve_profile(customer, event)
        case _:
            assert_never(event)


def _differs(
    customer: Customer, field: Detail, event: ContactDetailsChanged | IdentityDetailsCorrected
) -> bool:
    """Events from before the field `changed` existed do not name the fields that they change."""
    value: str | None = getattr(event, field)
    return value != customer.values.get(field)


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
        number_shared=customer.number_shared and "identity_number" not in values,
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
