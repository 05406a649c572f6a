"""Public events of the context customer, version 1.

Subject = customer. Fields named in `PERSONAL` carry sealed tokens; only who holds the customer's key reads them.
Details know who stated them: the party `party_id` of `source`, or staff where there is none. `changed` names the fields
that an event changes (of older events, all), `invalid` those whose values cannot be right.
"""

from collections.abc import Callable
from datetime import date, datetime
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class CustomerContextEvent(BaseModel):
    """Base of the customer context's public events. Readers ignore fields that they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1
    PERSONAL: ClassVar[frozenset[str]] = frozenset()


class CustomerRegistered(CustomerContextEvent):
    """The bank knows this customer from now on; `origin` says whether staff or a source's master data said so."""

    TYPE = "customer.registered"
    PERSONAL = frozenset({"name", "phone", "email", "address", "born_on", "identity_number"})

    name: str | None = None
    kind: Literal["person", "company"]
    origin: Literal["staff", "master-data"]
    phone: str | None = None
    email: str | None = None
    address: str | None = None
    born_on: str | None = None
    identity_number: str | None = None
    branch: str | None = None
    source: str | None = None
    party_id: UUID | None = None
    invalid: tuple[str, ...] = ()


class CustomerReferenceLinked(CustomerContextEvent):
    """A source knows the customer as the party `party_id`; the party's accounts are the customer's.

    From the business date `linked_from` on; where it is null, from the beginning.
    """

    TYPE = "customer.reference_linked"

    source: str
    party_id: UUID
    linked_from: date | None = None


class CustomerReferenceClaimed(CustomerContextEvent):
    """Staff say that the party is this customer; nothing of the party is the customer's before it is confirmed."""

    TYPE = "customer.reference_claimed"

    source: str
    party_id: UUID


class CustomerReferenceConfirmed(CustomerContextEvent):
    """A claimed party is this customer: its accounts are the customer's from now on."""

    TYPE = "customer.reference_confirmed"

    source: str
    party_id: UUID


class CustomerReferenceDisputed(CustomerContextEvent):
    """Master data does not show that a claimed party is this customer: a person decides."""

    TYPE = "customer.reference_disputed"

    source: str
    party_id: UUID


class CustomerReferenceRejected(CustomerContextEvent):
    """A claimed party is not this customer."""

    TYPE = "customer.reference_rejected"

    source: str
    party_id: UUID


class CustomerReferenceUnlinked(CustomerContextEvent):
    """The party is this customer before `until`, and not on that business date or later."""

    TYPE = "customer.reference_unlinked"

    source: str
    party_id: UUID
    until: date


class CustomerRenamed(CustomerContextEvent):
    """The customer bears another name."""

    TYPE = "customer.renamed"
    PERSONAL = frozenset({"name"})

    name: str
    source: str | None = None
    party_id: UUID | None = None
    invalid: tuple[str, ...] = ()


class CustomerContactDetailsChanged(CustomerContextEvent):
    """How the customer is reached from now on."""

    TYPE = "customer.contact_details_changed"
    PERSONAL = frozenset({"phone", "email", "address"})

    phone: str | None = None
    email: str | None = None
    address: str | None = None
    source: str | None = None
    party_id: UUID | None = None
    changed: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


class CustomerIdentityDetailsCorrected(CustomerContextEvent):
    """What identifies the person was wrong or missing."""

    TYPE = "customer.identity_details_corrected"
    PERSONAL = frozenset({"born_on", "identity_number"})

    born_on: str | None = None
    identity_number: str | None = None
    source: str | None = None
    party_id: UUID | None = None
    changed: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


class CustomerBranchAssigned(CustomerContextEvent):
    """The branch that the customer belongs to from now on."""

    TYPE = "customer.branch_assigned"

    branch: str
    source: str | None = None
    party_id: UUID | None = None
    invalid: tuple[str, ...] = ()


class CustomerDetailsConfirmed(CustomerContextEvent):
    """A source states of these fields what stands already."""

    TYPE = "customer.details_confirmed"

    source: str
    party_id: UUID
    fields: tuple[str, ...]


class CustomerDetailsContradicted(CustomerContextEvent):
    """A source states something else than staff did; both are kept until a person decides. None where they agree."""

    TYPE = "customer.details_contradicted"
    PERSONAL = frozenset({"name", "phone", "email", "address", "born_on", "identity_number"})

    source: str
    party_id: UUID
    name: str | None = None
    phone: str | None = None
    email: str | None = None
    address: str | None = None
    born_on: str | None = None
    identity_number: str | None = None
    branch: str | None = None
    invalid: tuple[str, ...] = ()


class CustomerContradictionResolved(CustomerContextEvent):
    """A person decided between what staff and a source state of a field; `accepted`: the source's value stands."""

    TYPE = "customer.contradiction_resolved"

    source: str
    party_id: UUID
    field: str
    accepted: bool


class CustomerIdentityNumberShared(CustomerContextEvent):
    """Master data gives this customer an identity number that is the customer `customer_id`'s already."""

    TYPE = "customer.identity_number_shared"

    source: str
    party_id: UUID
    customer_id: UUID


class HeldAccount(BaseModel):
    """An account over which an erased customer had a right; `others` are the parties of others that have or had one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    account: UUID
    others: tuple[UUID, ...]


class CustomerErased(CustomerContextEvent):
    """The customer's personal values are no longer kept, nor those of these parties: whoever has opened them forgets them.

    What is sealed of an account can be opened until all who hold it are erased.
    """

    TYPE = "customer.erased"

    parties: tuple[UUID, ...]
    accounts: tuple[HeldAccount, ...]


class CustomerContactErased(CustomerContextEvent):
    """How the customer and these parties are reached is no longer kept: whoever has opened it forgets it.

    All else is kept until the business date `rest_from` at least; `customer.erased` says when it is gone.
    """

    TYPE = "customer.contact_erased"

    parties: tuple[UUID, ...]
    rest_from: date


class CustomerNamedKeyCustomer(CustomerContextEvent):
    """The customer is a key customer (重点客户) from now on; its review is due on a business date."""

    TYPE = "customer.named_key_customer"

    review_due_on: date


class CustomerNoLongerKeyCustomer(CustomerContextEvent):
    """The customer is no key customer any more, and no review of it falls due."""

    TYPE = "customer.no_longer_key_customer"


class CustomerReviewed(CustomerContextEvent):
    """A key customer was reviewed on a business date; the next review is due on another one."""

    TYPE = "customer.reviewed"

    reviewed_on: date
    review_due_on: date


class CustomerReviewDue(CustomerContextEvent):
    """A key customer was not reviewed up to `due_on`: its relationship manager is to be reminded. Once for each review."""

    TYPE = "customer.review_due"

    due_on: date


class PartyOfSource(BaseModel):
    """A party, and the source that knows it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: str
    party_id: UUID


class CustomerErasurePreparationBegun(CustomerContextEvent):
    """The erasure of the customer is prepared: no source is to release records of these parties."""

    TYPE = "customer.erasure_preparation_begun"

    preparation: UUID
    parties: tuple[PartyOfSource, ...]


class CustomerErasurePrepared(CustomerContextEvent):
    """No source releases records of the customer's parties any more."""

    TYPE = "customer.erasure_prepared"

    preparation: UUID


class CustomerErasurePreparationEnded(CustomerContextEvent):
    """The customer is erased, compliance withdrew the preparation, or it failed: a source refused, or did not answer in time."""

    TYPE = "customer.erasure_preparation_ended"

    preparation: UUID
    because: Literal["erased", "withdrawn", "failed"]


class CustomerTagAdded(CustomerContextEvent):
    """The customer has a tag from now on. `origin`: staff added it, or a rule of the system, which `rule` names."""

    TYPE = "customer.tag_added"

    code: str
    origin: Literal["manual", "system"]
    rule: str | None = None


class CustomerTagRemoved(CustomerContextEvent):
    """The customer has a tag no more. `rule`: the rule of the system that removed it; null where a person did."""

    TYPE = "customer.tag_removed"

    code: str
    rule: str | None = None


class CustomerTierAssessed(CustomerContextEvent):
    """A whole month, YYYY-MM, was assessed: the tier of the customer from now on, by that version of the rules; null where none
    is known yet. While an override stands, that one is in force.

    `because`: the month reaches the tier (`met`), it is below and the tier is not left yet (`grace`), or what the
    customer had in the month is unknown and the tier stands (`unknown`). `currency`: in which the rules compare.
    """

    TYPE = "customer.tier_assessed"

    month: str
    tier: Literal["mass", "potential", "wealth", "private"] | None
    because: Literal["met", "grace", "unknown"]
    rules: int
    currency: str


class CustomerTierOverridden(CustomerContextEvent):
    """Staff put the customer into a tier, which is in force before the business date `valid_until`, whatever is assessed. It takes
    the place of an override that stood."""

    TYPE = "customer.tier_overridden"

    tier: Literal["mass", "potential", "wealth", "private"]
    valid_until: date


class CustomerTierOverrideEnded(CustomerContextEvent):
    """The date of the override has come, or staff withdrew it. `tier`: the assessed one, which is in force again; null where none
    is known yet."""

    TYPE = "customer.tier_override_ended"

    because: Literal["lapsed", "withdrawn"]
    tier: Literal["mass", "potential", "wealth", "private"] | None


class CustomerNeedRecorded(CustomerContextEvent):
    """Staff noted what the customer needs, which came up at the effective time. `kind` is the code of a kind of need; where it is
    null, `kind_text` says it. `channel`, `branch`: how and where it came up. `served_by`: the member of staff."""

    TYPE = "customer.need_recorded"
    PERSONAL = frozenset({"kind_text", "text"})

    need: UUID
    kind: str | None
    kind_text: str | None
    text: str
    channel: Literal["counter", "phone", "visit", "online"]
    branch: str | None
    served_by: str


class CustomerNeedCorrected(CustomerContextEvent):
    """What was noted of an open need was wrong: its kind and its text from now on."""

    TYPE = "customer.need_corrected"
    PERSONAL = frozenset({"kind_text", "text"})

    need: UUID
    kind: str | None
    kind_text: str | None
    text: str


class CustomerNeedClosed(CustomerContextEvent):
    """A need is open no more: fulfilled or not, the customer has it no more (`dropped`), or it was noted by mistake."""

    TYPE = "customer.need_closed"
    PERSONAL = frozenset({"text"})

    need: UUID
    outcome: Literal["fulfilled", "not-fulfilled", "dropped", "mistaken"]
    text: str | None = None


class CustomerConsentGiven(CustomerContextEvent):
    """The customer consents to be reached over a channel for a purpose, from the effective time on and before the business date
    `valid_until`. Of the consents and withdrawals of one channel and purpose the one that is effective last stands, of two at the same instant
    the withdrawal; unknown is refusal. An erasure ends all."""

    TYPE = "customer.consent_given"

    channel: Literal["sms", "phone", "email", "push"]
    purpose: Literal["marketing", "profiling", "sharing"]
    valid_until: date | None = None


class CustomerConsentWithdrawn(CustomerContextEvent):
    """The customer does not consent, or no longer, from the effective time on."""

    TYPE = "customer.consent_withdrawn"

    channel: Literal["sms", "phone", "email", "push"]
    purpose: Literal["marketing", "profiling", "sharing"]


class CustomerProfileExtended(CustomerContextEvent):
    """Staff noted more of the person: the fields that `changed` names, each a code of a dictionary, or null where it is no longer known.

    Of the values of a field the one with the latest `since` stands, of two with the same the later event's. An erasure ends all.
    """

    TYPE = "customer.profile_extended"
    PERSONAL = frozenset({"occupation", "marital_status", "family_structure", "children", "education"})

    since: datetime
    channel: Literal["counter", "phone", "visit", "online"]
    changed: tuple[str, ...]
    occupation: str | None = None
    marital_status: str | None = None
    family_structure: str | None = None
    children: str | None = None
    education: str | None = None


class TagDefined(CustomerContextEvent):
    """There is a tag from now on, in the dictionary or a free one. Subject = tag, no customer.

    `code` never changes, and is what customers' events hold. Two tags never have or had one name.
    """

    TYPE = "tag.defined"

    code: str
    name: str
    kind: Literal["dictionary", "free"]


class TagRenamed(CustomerContextEvent):
    """The tag has another name; the names that it had stay its own. Subject = tag."""

    TYPE = "tag.renamed"

    code: str
    name: str


class TagMerged(CustomerContextEvent):
    """Whoever has the tag counts as having `into`, which may be merged itself later. Subject = tag."""

    TYPE = "tag.merged"

    code: str
    into: str


class TagRetired(CustomerContextEvent):
    """The tag is not added to customers any more; who has it keeps it. Subject = tag."""

    TYPE = "tag.retired"

    code: str


class TagReinstated(CustomerContextEvent):
    """The tag, which was retired, is added to customers again. Subject = tag."""

    TYPE = "tag.reinstated"

    code: str


class TagAccepted(CustomerContextEvent):
    """The dictionary has the tag, which was a free one. Subject = tag."""

    TYPE = "tag.accepted"

    code: str


class BusinessDayOpened(CustomerContextEvent):
    """A business date of the bank has begun; once for each date, in order. Subject = the bank's days, no customer.

    Every calendar date is one. `kind` says whether it is worked; where the public holidays of its year were not
    `announced` yet, only its weekends were known.
    """

    TYPE = "business_day.opened"

    on: date
    kind: Literal["working-day", "make-up-working-day", "weekend", "public-holiday"]
    announced: bool


EVENTS: tuple[type[CustomerContextEvent], ...] = (
    CustomerRegistered,
    CustomerReferenceLinked,
    CustomerReferenceClaimed,
    CustomerReferenceConfirmed,
    CustomerReferenceDisputed,
    CustomerReferenceRejected,
    CustomerReferenceUnlinked,
    CustomerRenamed,
    CustomerContactDetailsChanged,
    CustomerIdentityDetailsCorrected,
    CustomerBranchAssigned,
    CustomerDetailsConfirmed,
    CustomerDetailsContradicted,
    CustomerContradictionResolved,
    CustomerIdentityNumberShared,
    CustomerErased,
    CustomerContactErased,
    CustomerNamedKeyCustomer,
    CustomerNoLongerKeyCustomer,
    CustomerReviewed,
    CustomerReviewDue,
    CustomerErasurePreparationBegun,
    CustomerErasurePrepared,
    CustomerErasurePreparationEnded,
    CustomerTagAdded,
    CustomerTagRemoved,
    CustomerTierAssessed,
    CustomerTierOverridden,
    CustomerTierOverrideEnded,
    CustomerNeedRecorded,
    CustomerNeedCorrected,
    CustomerNeedClosed,
    CustomerConsentGiven,
    CustomerConsentWithdrawn,
    CustomerProfileExtended,
    TagDefined,
    TagRenamed,
    TagMerged,
    TagRetired,
    TagReinstated,
    TagAccepted,
    BusinessDayOpened,
)

LIFTS: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""By type and version: what makes the body of that version one of the next. A personal field stays where it was sealed."""
