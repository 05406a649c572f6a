"""What happens to a customer. Stream = customer; personal fields are sealed one by one when stored.

Each detail knows who stated it. Where an event of details names a `party_id`, that party's source stated them; without
one, staff did. `changed` names the fields that an event changes, `invalid` those of its values that cannot be right.
`claim` and `number_claim` are identities in the store: two events never share one (ADR 0024, 0025).
"""

from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal, get_args
from uuid import UUID

import msgspec
from chassis.write.events import Event, personal
from contracts import purposes

Identifying = Annotated[str | None, personal("C2")]
ForContact = Annotated[str | None, personal("C2", purpose=purposes.CONTACT)]
CustomerKind = Literal["person", "company"]
RegisteredBy = Literal["staff", "master-data"]
ConsentChannel = Literal["sms", "phone", "email", "push"]
ConsentPurpose = Literal["marketing", "profiling", "sharing"]
NeedChannel = Literal["counter", "phone", "visit", "online"]
ProfileChannel = Literal["counter", "phone", "visit", "online"]
NeedOutcome = Literal["fulfilled", "not-fulfilled", "dropped", "mistaken"]
Tier = Literal["mass", "potential", "wealth", "private"]
ProfileField = Literal["occupation", "marital_status", "family_structure", "children", "education"]
Detail = Literal["name", "phone", "email", "address", "born_on", "identity_number", "branch"]

DETAILS: Final[tuple[Detail, ...]] = (
    "name",
    "phone",
    "email",
    "address",
    "born_on",
    "identity_number",
    "branch",
)
PROFILE_FIELDS: Final[tuple[ProfileField, ...]] = get_args(ProfileField)
CONTACT: Final = frozenset({"phone", "email", "address"})
IDENTITY: Final = frozenset({"born_on", "identity_number"})


class DeclaredAsset(msgspec.Struct, frozen=True):
    """A declared asset as the customer states it when first met (R014); never part of a figure of the panorama."""

    product: Literal["deposit", "wealth", "insurance", "fund", "property", "other"]
    amount_minor: int
    currency: str


class CustomerRegistered(Event, frozen=True):
    """The bank knows this customer from now on.

    Version 2. Version 1 is from when all customers were persons entered by staff: it has no `kind` and no `origin`.
    """

    name: Identifying
    kind: CustomerKind
    origin: RegisteredBy
    phone: ForContact = None
    email: ForContact = None
    address: ForContact = None
    born_on: Identifying = None
    identity_number: Identifying = None
    branch: str | None = None
    stated_assets: tuple[DeclaredAsset, ...] = ()
    source: str | None = None
    party_id: UUID | None = None
    invalid: tuple[str, ...] = ()
    number_claim: UUID | None = None


class ReferenceLinked(Event, frozen=True):
    """`source` knows the customer under its own number; whatever that party holds is the customer's.

    From the business date `linked_from` on; where it is None, from the beginning. One party is one customer's at a time, by
    `claim`; without one, by `party_id`.
    """

    source: str
    party_id: UUID
    key: Annotated[str, personal("C2")]
    linked_from: date | None = None
    claim: UUID | None = None


class ReferenceClaimed(Event, frozen=True):
    """Staff say that a number of a source is this customer's. It shows nothing until somebody who knows confirms it."""

    source: str
    party_id: UUID
    key: Annotated[str, personal("C2")]
    claim: UUID | None = None


class ReferenceConfirmed(Event, frozen=True):
    """A claimed number is this customer's: its party's details agree, or a person says so."""

    source: str
    party_id: UUID


class ReferenceDisputed(Event, frozen=True):
    """Master data describes the party of a claimed number as somebody else, or too little to tell: a person decides."""

    source: str
    party_id: UUID
    name: Identifying = None
    phone: ForContact = None
    email: ForContact = None
    address: ForContact = None
    born_on: Identifying = None
    identity_number: Identifying = None
    branch: str | None = None


class ReferenceRejected(Event, frozen=True):
    """A claimed number is not this customer's."""

    source: str
    party_id: UUID


class ReferenceUnlinked(Event, frozen=True):
    """The number is this customer's before `until`, and not on that business date or later."""

    source: str
    party_id: UUID
    until: date


class CustomerRenamed(Event, frozen=True):
    """The customer bears another name."""

    name: Annotated[str, personal("C2")]
    source: str | None = None
    party_id: UUID | None = None
    invalid: tuple[str, ...] = ()


class ContactDetailsChanged(Event, frozen=True):
    """How the customer is reached from now on; None where there is no such way."""

    phone: ForContact
    email: ForContact
    address: ForContact
    source: str | None = None
    party_id: UUID | None = None
    changed: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


class IdentityDetailsCorrected(Event, frozen=True):
    """What identifies the person was wrong or missing."""

    born_on: Identifying
    identity_number: Identifying
    source: str | None = None
    party_id: UUID | None = None
    changed: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    number_claim: UUID | None = None


class BranchAssigned(Event, frozen=True):
    """The branch that the customer belongs to from now on."""

    branch: str
    source: str | None = None
    party_id: UUID | None = None
    invalid: tuple[str, ...] = ()


class DetailsConfirmed(Event, frozen=True):
    """A source states of these fields what stands already."""

    source: str
    party_id: UUID
    fields: tuple[str, ...]


class DetailsContradicted(Event, frozen=True):
    """A source states something else than staff did: both are kept until a person decides. None where they agree."""

    source: str
    party_id: UUID
    name: Identifying = None
    phone: ForContact = None
    email: ForContact = None
    address: ForContact = None
    born_on: Identifying = None
    identity_number: Identifying = None
    branch: str | None = None
    invalid: tuple[str, ...] = ()


class ContradictionResolved(Event, frozen=True):
    """A person decided between what staff and a source state of a field; `accepted`: for the source."""

    source: str
    party_id: UUID
    field: str
    accepted: bool
    number_claim: UUID | None = None


class IdentityNumberShared(Event, frozen=True):
    """Master data gives this customer an identity number that is another customer's: a person looks at both."""

    source: str
    party_id: UUID
    customer_id: UUID


class HeldAccount(msgspec.Struct, frozen=True):
    """An account over which an erased customer had a right, and the parties of others that have or had one."""

    account: UUID
    others: tuple[UUID, ...]


class CustomerErased(Event, frozen=True):
    """The customer's personal values are no longer kept: whose keys are to be destroyed, and nothing about the person.

    The customer's own key, those of `parties`, and that of each account once all who hold it are erased.
    """

    parties: tuple[UUID, ...]
    accounts: tuple[HeldAccount, ...]


class CustomerContactErased(Event, frozen=True):
    """The customer's values for contact are no longer kept: the keys for contact of the customer and of `parties` are to be
    destroyed. All else is looked at on the business date `rest_from`, and is erased then where nothing forbids it.
    """

    parties: tuple[UUID, ...]
    rest_from: date


class ErasureDeferred(Event, frozen=True):
    """The rest of an erasure waits until a later business date: a right, a retention period or a legal hold stands until then."""

    rest_from: date


class LegalHoldPlaced(Event, frozen=True):
    """Nothing of the customer is erased before the business date `until`, or until the hold is lifted where it is None."""

    hold: UUID
    until: date | None


class LegalHoldLifted(Event, frozen=True):
    """A legal hold does not stand any more. `rest_from`: of an erasure whose rest waits; it is looked at again at once."""

    hold: UUID
    rest_from: date | None


class NamedKeyCustomer(Event, frozen=True):
    """The customer is a key customer (重点客户) from now on, and its review is due on a business date (R020)."""

    review_due_on: date


class NoLongerKeyCustomer(Event, frozen=True):
    """The customer is no key customer any more, and no review of it falls due."""


class CustomerReviewed(Event, frozen=True):
    """A key customer was reviewed on a business date; the next review is due on another one."""

    reviewed_on: date
    review_due_on: date


class ReviewFellDue(Event, frozen=True):
    """A key customer was not reviewed up to `due_on`: a reminder, once for each review."""

    due_on: date


class PartyOfSource(msgspec.Struct, frozen=True):
    """A party, and the source that knows it."""

    source: str
    party_id: UUID


class ErasurePreparationBegun(Event, frozen=True):
    """The erasure of the customer is prepared: no source is to release records of these parties."""

    preparation: UUID
    parties: tuple[PartyOfSource, ...]


class ErasurePrepared(Event, frozen=True):
    """No source releases records of the customer's parties any more."""

    preparation: UUID


class ErasurePreparationEnded(Event, frozen=True):
    """The customer is erased, compliance withdrew the preparation, or it failed: a source refused, or did not answer in time."""

    preparation: UUID
    because: Literal["erased", "withdrawn", "failed"]


class TagAdded(Event, frozen=True):
    """The customer has a tag from now on. `origin`: staff added it, or a rule of the system, which `rule` names (R007)."""

    code: str
    origin: Literal["manual", "system"]
    rule: str | None = None


class TagRemoved(Event, frozen=True):
    """The customer has a tag no more. `rule`: the rule of the system that removed it; None where a person did."""

    code: str
    rule: str | None = None


class TierAssessed(Event, frozen=True):
    """A whole month, YYYY-MM, was assessed: the tier of the customer from now on, by that version of the rules (R021).

    `because`: the average of the month reaches it (`met`), it is below and the tier is not left yet (`grace`), or the average is
    unknown and the tier stands (`unknown`); None where there was none. The averages are of daily AUM in integer minor units, of the
    month, of the one before, and of those before it where the rules give a longer grace; None where unknown.
    """

    month: str
    tier: Tier | None
    because: Literal["met", "grace", "unknown"]
    rules: int
    currency: str
    average_minor: int | None = None
    average_before_minor: int | None = None
    averages_earlier_minor: tuple[int | None, ...] = ()


class TierOverridden(Event, frozen=True):
    """Staff put the customer into a tier, whatever the rules give, before the business date `valid_until` (R022).

    It takes the place of an override that stood. Why is in the metadata, as of every event.
    """

    tier: Tier
    valid_until: date


class TierOverrideEnded(Event, frozen=True):
    """No override stands any more: its date has come, or staff withdrew it. `tier`: the assessed one, which is in force again."""

    because: Literal["lapsed", "withdrawn"]
    tier: Tier | None


class NeedRecorded(Event, frozen=True):
    """A member of staff noted what the customer needs: when it came up is the effective time, which may be hours before it is stored (R065).

    `kind` is a code of `customer.domain.needs.KINDS`; where it is None, `kind_text` says it. `channel` and `branch`: how and
    where it came up. `served_by`: who noted it.
    """

    need: UUID
    kind: str | None
    kind_text: Annotated[str | None, personal("C2")]
    text: Annotated[str, personal("C2")]
    channel: NeedChannel
    branch: str | None
    served_by: str


class NeedCorrected(Event, frozen=True):
    """What was noted of a need that is open was wrong: the kind and the text from now on."""

    need: UUID
    kind: str | None
    kind_text: Annotated[str | None, personal("C2")]
    text: Annotated[str, personal("C2")]


class NeedClosed(Event, frozen=True):
    """A need is open no more: it was fulfilled or not, the customer has it no more (`dropped`), or it was noted by mistake."""

    need: UUID
    outcome: NeedOutcome
    text: Annotated[str | None, personal("C2")] = None


class ConsentGiven(Event, frozen=True):
    """The customer consents to be reached over a channel for a purpose, from the effective time on and before the business date
    `valid_until`. `evidence`: what shows it, such as a signed form and its number (M36). `consent`: what distinguishes it from any other that
    was given or withdrawn; it follows from the key of the command."""

    channel: ConsentChannel
    purpose: ConsentPurpose
    evidence: Annotated[str, personal("C2")]
    valid_until: date | None = None
    consent: UUID | None = None


class ConsentWithdrawn(Event, frozen=True):
    """The customer does not consent, or no longer: to a channel for a purpose, from the effective time on."""

    channel: ConsentChannel
    purpose: ConsentPurpose
    evidence: Annotated[str | None, personal("C2")] = None
    consent: UUID | None = None


class ProfileExtended(Event, frozen=True):
    """Staff noted more of the person: the fields that `changed` names, each a code of its dictionary, or None where it is no longer known
    (R016).

    `since`: from when it is so. It is the effective time, but no earlier than what stood where nobody stated one: the clock of one
    process may be behind that of another. `channel`: how the bank learned it.
    """

    since: datetime
    channel: ProfileChannel
    changed: tuple[ProfileField, ...]
    occupation: Identifying = None
    marital_status: Identifying = None
    family_structure: Identifying = None
    children: Identifying = None
    education: Identifying = None


CustomerEvent = (
    CustomerRegistered
    | ReferenceLinked
    | ReferenceClaimed
    | ReferenceConfirmed
    | ReferenceDisputed
    | ReferenceRejected
    | ReferenceUnlinked
    | CustomerRenamed
    | ContactDetailsChanged
    | IdentityDetailsCorrected
    | BranchAssigned
    | DetailsConfirmed
    | DetailsContradicted
    | ContradictionResolved
    | IdentityNumberShared
    | CustomerErased
    | CustomerContactErased
    | ErasureDeferred
    | LegalHoldPlaced
    | LegalHoldLifted
    | NamedKeyCustomer
    | NoLongerKeyCustomer
    | CustomerReviewed
    | ReviewFellDue
    | ErasurePreparationBegun
    | ErasurePrepared
    | ErasurePreparationEnded
    | TagAdded
    | TagRemoved
    | TierAssessed
    | TierOverridden
    | TierOverrideEnded
    | NeedRecorded
    | NeedCorrected
    | NeedClosed
    | ConsentGiven
    | ConsentWithdrawn
    | ProfileExtended
)

STORED_NAMES: dict[str, type[Event]] = {
    "customer-registered": CustomerRegistered,
    "reference-linked": ReferenceLinked,
    "reference-claimed": ReferenceClaimed,
    "reference-confirmed": ReferenceConfirmed,
    "reference-disputed": ReferenceDisputed,
    "reference-rejected": ReferenceRejected,
    "reference-unlinked": ReferenceUnlinked,
    "customer-renamed": CustomerRenamed,
    "contact-details-changed": ContactDetailsChanged,
    "identity-details-corrected": IdentityDetailsCorrected,
    "branch-assigned": BranchAssigned,
    "details-confirmed": DetailsConfirmed,
    "details-contradicted": DetailsContradicted,
    "contradiction-resolved": ContradictionResolved,
    "identity-number-shared": IdentityNumberShared,
    "customer-erased": CustomerErased,
    "customer-contact-erased": CustomerContactErased,
    "erasure-deferred": ErasureDeferred,
    "legal-hold-placed": LegalHoldPlaced,
    "legal-hold-lifted": LegalHoldLifted,
    "named-key-customer": NamedKeyCustomer,
    "no-longer-key-customer": NoLongerKeyCustomer,
    "customer-reviewed": CustomerReviewed,
    "review-fell-due": ReviewFellDue,
    "erasure-preparation-begun": ErasurePreparationBegun,
    "erasure-prepared": ErasurePrepared,
    "erasure-preparation-ended": ErasurePreparationEnded,
    "tag-added": TagAdded,
    "tag-removed": TagRemoved,
    "tier-assessed": TierAssessed,
    "tier-overridden": TierOverridden,
    "tier-override-ended": TierOverrideEnded,
    "need-recorded": NeedRecorded,
    "need-corrected": NeedCorrected,
    "need-closed": NeedClosed,
    "consent-given": ConsentGiven,
    "consent-withdrawn": ConsentWithdrawn,
    "profile-extended": ProfileExtended,
}


def registered_v1_to_v2(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew persons only, and only staff entered them."""
    return {**data, "kind": "person", "origin": "staff"}


UPCASTS: Final[dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    ("customer-registered", 1): registered_v1_to_v2
}
"""By stored name and old version: the function from its data to that of the next version."""
