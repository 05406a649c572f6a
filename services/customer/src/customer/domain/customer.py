"""The decider of customers, and the identities that its events claim."""

from typing import Final, assert_never
from uuid import UUID

from chassis.write.deciding import Decider

from customer.domain.commands import CustomerCommand
from customer.domain.deciding import decide
from customer.domain.events import (
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
from customer.domain.evolving import evolve
from customer.domain.state import Customer


def identify(event: CustomerEvent) -> UUID | None:
    """The identity under which the store holds an event once: a party, and an identity number, is one
    customer's, and a need or a consent is recorded once."""
    match event:
        case ReferenceLinked() | ReferenceClaimed():
            return event.claim or event.party_id
        case CustomerRegistered() | IdentityDetailsCorrected() | ContradictionResolved():
            return event.number_claim
        case NeedRecorded():
            return event.need
        case ConsentGiven() | ConsentWithdrawn():
            return event.consent
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
            | CustomerContactErased()
            | ErasureDeferred()
            | LegalHoldPlaced()
            | LegalHoldLifted()
            | NamedKeyCustomer()
            | NoLongerKeyCustomer()
            | CustomerReviewed()
            | ReviewFellDue()
            | ErasurePreparationBegun()
            | ErasurePrepared()
            | ErasurePreparationEnded()
            | TagAdded()
            | TagRemoved()
            | TierAssessed()
            | TierOverridden()
            | TierOverrideEnded()
            | NeedCorrected()
            | NeedClosed()
            | ProfileExtended()
        ):
            return None
        case _:
            assert_never(event)


customer_decider: Final = Decider[CustomerCommand, Customer, CustomerEvent](
    initial=Customer(),
    decide=decide,
    evolve=evolve,
    events=CustomerEvent,
    identify=identify,
    state_type=Customer,
    state_version=16,
)
