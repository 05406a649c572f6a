"""The commands that a customer takes."""

from datetime import date, datetime
from typing import Literal
from uuid import UUID

import msgspec
from contracts.identity import ExternalIds, PartyId

from customer.domain.events import (
    DETAILS,
    ConsentChannel,
    ConsentPurpose,
    CustomerKind,
    DeclaredAsset,
    Detail,
    HeldAccount,
    NeedChannel,
    NeedOutcome,
    PartyOfSource,
    ProfileChannel,
    ProfileField,
    ReferenceClaimed,
    ReferenceLinked,
    Tier,
)
from customer.domain.state import Need, TierOverride
from customer.domain.tier_rules import TierRuleVersions


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
    """An external id is moved from another customer to this one from a business date on, as a person decided."""

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
    """A number no longer belongs to this customer from the business date `until` on."""

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


class EditDetails(msgspec.Struct, frozen=True):
    """Staff change these details of the basic information, and leave the others; None removes one."""

    changes: dict[Detail, str | None]
    number_claim: UUID | None = None


class ResolveContradiction(msgspec.Struct, frozen=True):
    """A person decides between what staff and a source state of a field."""

    field: Detail
    party: UUID
    accept: bool
    number_claim: UUID | None = None


class AssignBranch(msgspec.Struct, frozen=True):
    """Staff assign the customer to a branch."""

    branch: str


class EraseCustomer(msgspec.Struct, frozen=True):
    """A person has the customer's personal values destroyed, after every retention period."""

    parties: tuple[UUID, ...]
    accounts: tuple[HeldAccount, ...]
    on: date


class EraseContact(msgspec.Struct, frozen=True):
    """A person has the customer's values for contact destroyed; the rest is looked at again on the business date `rest_from`."""

    parties: tuple[UUID, ...]
    rest_from: date
    on: date


class DeferErasure(msgspec.Struct, frozen=True):
    """The rest of an erasure has to wait until a later business date."""

    rest_from: date


class PlaceLegalHold(msgspec.Struct, frozen=True):
    """A person forbids every erasure of the customer, before the business date `until` or until it is lifted."""

    hold: UUID
    until: date | None
    on: date


class LiftLegalHold(msgspec.Struct, frozen=True):
    """Two persons lift a legal hold."""

    hold: UUID


class NameKeyCustomer(msgspec.Struct, frozen=True):
    """The customer is a key customer from the business date `on` on."""

    on: date


class EndKeyCustomer(msgspec.Struct, frozen=True):
    """The customer is no key customer any more."""


class ReviewCustomer(msgspec.Struct, frozen=True):
    """A key customer was reviewed on the business date `on`."""

    on: date


class RemindOfReview(msgspec.Struct, frozen=True):
    """The review that was due on `due_on` is still open; nothing where it is not, or was reminded of."""

    due_on: date


class BeginErasurePreparation(msgspec.Struct, frozen=True):
    """Compliance prepares the erasure of the customer; nothing where that is under way."""

    preparation: UUID
    parties: tuple[PartyOfSource, ...]


class AcceptErasurePreparation(msgspec.Struct, frozen=True):
    """The preparation is taken up; refused where it is over. It changes nothing."""

    preparation: UUID


class ConfirmErasurePreparation(msgspec.Struct, frozen=True):
    """All sources have closed the customer's parties; refused where the preparation is over."""

    preparation: UUID


class EndErasurePreparation(msgspec.Struct, frozen=True):
    """Ends the preparation of that id, or the one that is under way where none is named; nothing where it is over."""

    because: Literal["withdrawn", "failed"]
    preparation: UUID | None = None


class Tagging(msgspec.Struct, frozen=True):
    """A tag, and the tags that stand for it since they were merged into it."""

    code: str
    merged: tuple[str, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        """All codes under which a customer may have the tag."""
        return (self.code, *self.merged)


class ChangeTags(msgspec.Struct, frozen=True):
    """Tags are added and removed, all or none. `rule`: the rule of the system that says so; None where a person does.

    `overriding`: what somebody else has added is removed too.
    """

    add: tuple[Tagging, ...] = ()
    remove: tuple[Tagging, ...] = ()
    rule: str | None = None
    overriding: bool = False


class AssessTier(msgspec.Struct, frozen=True):
    """A whole month, YYYY-MM, is assessed: its average daily AUM and that of the month before, in the currency of the rules of each;
    None where it is unknown. `earlier_minor`: the months before those, the latest first, where the grace is longer."""

    month: str
    average_minor: int | None
    average_before_minor: int | None = None
    earlier_minor: tuple[int | None, ...] = ()
    rules: TierRuleVersions = TierRuleVersions()


class OverrideTier(msgspec.Struct, frozen=True):
    """Staff put the customer into a tier on the business date `on`, before the business date `valid_until`, at the latest
    `valid_until_max`.

    `approved`: two persons say so. `replaces`: the override that has to stand, or None where none may; any where it is left out.
    """

    tier: Tier
    valid_until: date
    on: date
    valid_until_max: date
    approved: bool = False
    replaces: TierOverride | msgspec.UnsetType | None = msgspec.UNSET


class EndTierOverride(msgspec.Struct, frozen=True):
    """The override that stands ends, or only one that ends on `valid_until`; nothing where there is none."""

    because: Literal["lapsed", "withdrawn"]
    valid_until: date | None = None


class RecordNeed(msgspec.Struct, frozen=True):
    """Staff note what the customer needs. It came up at `at`, on the business date `on`, and no earlier than `earliest`."""

    need: UUID
    stated: Need
    channel: NeedChannel
    branch: str | None
    served_by: str
    at: datetime
    on: date
    earliest: datetime


class CorrectNeed(msgspec.Struct, frozen=True):
    """What was noted of an open need is corrected as it was seen after `corrections` corrections; its kind on the business date `on`."""

    need: UUID
    stated: Need
    corrections: int
    on: date


class CloseNeed(msgspec.Struct, frozen=True):
    """An open need is closed with what came of it."""

    need: UUID
    outcome: NeedOutcome
    text: str | None = None


class GiveConsent(msgspec.Struct, frozen=True):
    """The customer consents, as `evidence` shows, on the business date `on` and before `valid_until`."""

    channel: ConsentChannel
    purpose: ConsentPurpose
    evidence: str
    valid_until: date | None
    on: date
    consent: UUID | None = None


class WithdrawConsent(msgspec.Struct, frozen=True):
    """The customer does not consent, or no longer."""

    channel: ConsentChannel
    purpose: ConsentPurpose
    evidence: str | None = None
    consent: UUID | None = None


class ExtendProfile(msgspec.Struct, frozen=True):
    """Staff note these fields of the profile, with None where one is no longer known; the codes are those of the business date `on`.

    It is so from `since` on. Unless that is `stated`, it is the time of a clock, and the fields change after all that is known of them.
    """

    changes: dict[ProfileField, str | None]
    channel: ProfileChannel
    since: datetime
    on: date
    stated: bool = False


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
    | EditDetails
    | ResolveContradiction
    | AssignBranch
    | EraseCustomer
    | EraseContact
    | DeferErasure
    | PlaceLegalHold
    | LiftLegalHold
    | NameKeyCustomer
    | EndKeyCustomer
    | ReviewCustomer
    | RemindOfReview
    | BeginErasurePreparation
    | AcceptErasurePreparation
    | ConfirmErasurePreparation
    | EndErasurePreparation
    | ChangeTags
    | AssessTier
    | OverrideTier
    | EndTierOverride
    | RecordNeed
    | CorrectNeed
    | CloseNeed
    | GiveConsent
    | WithdrawConsent
    | ExtendProfile
)
