"""The schemas of HTTP: bodies of requests and of responses."""

from datetime import date, datetime, timedelta
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from chassis.lists.asking import WHERE_CHARACTERS_MAX
from chassis.lists.routes import Total
from chassis.money import CurrencyCode, exponent, minor_units
from chassis.web import CommandBody, DatedBody, DatedExplainedBody, ExplainedBody
from chassis.web.commands import CLOCK_AHEAD_SECONDS_MAX
from chassis.web.formats import LINE, LINES, Day, Instant, Month, StatedDay, StatedInstant, stating
from chassis.web.problems import RequestInvalid
from contracts.identity import ExternalIds, source_name
from fastapi import Query
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from customer.domain.commands import Details, Reference, RegisterCustomer
from customer.domain.events import ConsentChannel, ConsentPurpose, DeclaredAsset, Detail, Tier
from customer.domain.refusals import REFERENCES_MAX
from customer.normalising import text as normalised_text
from customer.panorama.schema import HeldCard, HeldLoan, LoansSum, TransactionType

DECLARED_ASSETS_MAX: Final = 50
LISTED_MAX: Final = 10_000

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
BranchName = Annotated[Text, AfterValidator(normalised_text)]
"""Normalised as what master data states: of two names that look alike a scope takes one for another branch."""
LongText = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
Note = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=1_000,
        pattern=stating(LINES),
    ),
]
"""A text of some lines, of which something can be seen."""
Wording = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=stating(LINE))]
"""A text of one line, of which something can be seen."""
SourceName = Annotated[
    str, StringConstraints(pattern=r"^[^:\x00-\x1f\x7f]{1,64}$"), AfterValidator(source_name)
]


def external_id(text: str) -> str:
    """The external id, if a feed can contain it; raises ValueError where it has an invisible character or a
    blank at an end, because it would match none."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("an invisible character, or a blank at an end")
    return text


def reference(text: str) -> str:
    """SOURCE:NUMBER, with the source in its one spelling; raises ValueError."""
    source, _, number = text.partition(":")
    return f"{source_name(source)}:{external_id(number)}"


AtInstant = Annotated[
    StatedInstant | None,
    Query(description="the instant at which it stood; now by default", examples=["2026-11-01T00:00:00Z"]),
]
KnownAt = Annotated[
    StatedInstant | None,
    Query(description="of what was recorded up to then; now by default", examples=["2026-11-01T00:00:00Z"]),
]


def require_past(now: datetime, *instants: datetime | None) -> None:
    """Raises RequestInvalid where an instant that is asked about is after now by the clock of a caller, which may be ahead."""
    if any(one is not None and one > now + timedelta(seconds=CLOCK_AHEAD_SECONDS_MAX) for one in instants):
        raise RequestInvalid(f"at or known_at is after {now.isoformat()}")


BusinessDate = Annotated[StatedDay, Field(ge=date(1900, 1, 1), le=date(2199, 12, 31))]


class ReferenceStated(BaseModel):
    """The number under which a source knows the customer."""

    model_config = ConfigDict(extra="forbid")

    source: SourceName = Field(description="the name of the source")
    key: Annotated[Text, AfterValidator(external_id)] = Field(description="its own number of the customer")

    def said(self, ids: ExternalIds) -> Reference:
        """As the domain says it."""
        return Reference.of(ids, self.source, self.key)


class ReferenceBody(ReferenceStated, CommandBody):
    """A number that is claimed for a customer."""


class DeclaredAssetBody(BaseModel):
    """An asset that the customer declares; no figure of the panorama counts it.

    The amount is text, such as "5432.10".
    """

    model_config = ConfigDict(extra="forbid")

    product: Literal["deposit", "wealth", "insurance", "fund", "property", "other"]
    currency: CurrencyCode
    amount: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,16}([.][0-9]{1,4})?$")]

    @field_validator("amount")
    @classmethod
    def in_minor_units(cls, amount: str, known: ValidationInfo) -> str:
        """Refuses what its currency does not have, instead of rounding it."""
        if "currency" in known.data:
            minor_units(amount, exponent(known.data["currency"]))
        return amount

    def said(self) -> DeclaredAsset:
        """As the domain says it."""
        return DeclaredAsset(self.product, minor_units(self.amount, exponent(self.currency)), self.currency)


class RegisterBody(DatedBody):
    """A customer whom staff enter: at least a name, a way to reach it, and one declared asset (R014)."""

    name: Text
    kind: Literal["person", "company"] = "person"
    phone: Text
    email: Text | None = None
    address: LongText | None = None
    born_on: StatedDay | None = None
    identity_number: Text | None = None
    branch: Text | None = None
    references: list[ReferenceStated] = Field(default=[], max_length=REFERENCES_MAX)
    stated_assets: list[DeclaredAssetBody] = Field(min_length=1, max_length=DECLARED_ASSETS_MAX)

    def said(self, ids: ExternalIds) -> RegisterCustomer:
        """As the domain says it."""
        details = Details(
            name=self.name,
            kind=self.kind,
            phone=self.phone,
            email=self.email,
            address=self.address,
            born_on=None if self.born_on is None else self.born_on.isoformat(),
            identity_number=self.identity_number,
            branch=self.branch,
        )
        references = tuple(one.said(ids) for one in self.references)
        return RegisterCustomer(details, references, tuple(one.said() for one in self.stated_assets))


class NameBody(DatedBody):
    """Another name."""

    name: Text


class ContactDetailsBody(DatedBody):
    """All contact details of a customer. A detail that is left out is removed."""

    phone: Text | None = None
    email: Text | None = None
    address: LongText | None = None


class IdentityDetailsBody(DatedBody):
    """Everything that identifies the person."""

    born_on: StatedDay | None = None
    identity_number: Text | None = None


class UnlinkBody(ExplainedBody):
    """The business date from which the external id is no longer the customer's; by default today."""

    effective_on: BusinessDate | None = None


class MoveBody(UnlinkBody):
    """The customer that gets the external id."""

    to: UUID


class ResolveBody(DatedExplainedBody):
    """Which value stands: that of the party's source (`accept`), or that of staff."""

    party_id: UUID
    accept: bool


class SelectionBody(ExplainedBody):
    """Which customers: these, or those who meet a condition on their facts now."""

    customers: list[UUID] = Field(default=[], max_length=LISTED_MAX)
    where: str | None = Field(default=None, min_length=1, max_length=WHERE_CHARACTERS_MAX)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.customers) == (self.where is not None):
            raise ValueError("either customers or where")
        return self


class BranchAssignmentBody(SelectionBody):
    """The branch that customers are assigned to, and which: these, or those who meet a condition on their facts now."""

    branch: BranchName


class Done(BaseModel):
    """The result of a command: the customer's version after it (its ETag), and the position of its last
    event."""

    customer_id: UUID
    version: int
    position: int


class LinkedReference(BaseModel):
    """A source that knows the customer; its number for the customer is not shown.

    `pending` and `disputed` ones show no account yet. It stands from `linked_from` on and before `until`.
    """

    source: str
    party_id: UUID
    status: Literal["confirmed", "pending", "disputed"]
    linked_from: date | None
    until: date | None


class Provenance(BaseModel):
    """Who stated a field, and with which event of the customer: a source, or staff where there is none."""

    source: str | None
    party_id: UUID | None
    at: Instant
    sequence: int


class Contradiction(BaseModel):
    """What a source states of a field against staff, masked. Both are kept until a person decides."""

    field: Detail
    stated: str | None
    source: str
    party_id: UUID
    invalid: bool
    at: Instant
    sequence: int


class Review(BaseModel):
    """The review of a key customer: when it is due, when the last one was, and since when it is reminded of."""

    due_on: Day
    reviewed_on: Day | None
    reminded_at: Instant | None


class CustomerTag(BaseModel):
    """A tag of a customer under its present name. `origin`: staff added it, or a rule of the system, which `rule` names; `since`:
    from when it is so."""

    tag: str
    name: str = Field(examples=["房贷客户"])
    origin: Literal["manual", "system"]
    rule: str | None
    since: Instant


class TierOverrideShown(BaseModel):
    """A tier that staff put a customer into since `since`; on the business date `valid_until` it lapses. Who did so, and why, is in the
    customer's events."""

    tier: Tier
    valid_until: Day
    since: Instant


class CustomerTier(BaseModel):
    """The tier in force, since `since`: that of the override while one stands, else `assessed`, which is what the rules give.

    `assessed` is the tier as the assessment of the last whole month left it, by that version of the rules; null where none is known.
    `because`: the month reaches the tier (`met`), it is below and the tier is not left yet (`grace`), or its
    average daily AUM is unknown and the tier stands (`unknown`).
    """

    tier: Tier
    since: Instant
    assessed: Tier | None
    because: Literal["met", "grace", "unknown"] | None
    month: Month | None
    rules: int | None
    override: TierOverrideShown | None


class TierOverrideStated(BaseModel):
    """The tier that a customer is put into, and the business date on which that lapses."""

    tier: Tier
    valid_until: BusinessDate


class TierOverrideBody(ExplainedBody, TierOverrideStated):
    """The tier that the customer is put into, why, and the business date on which that lapses."""


class CustomerConsent(BaseModel):
    """What the customer said last of a channel and purpose: a consent is valid before the business date `valid_until`. What is not here
    is unknown, which is refusal."""

    channel: ConsentChannel = Field(examples=["sms"])
    purpose: ConsentPurpose = Field(examples=["marketing"])
    given: bool
    since: Instant
    valid_until: Day | None


class CustomerShown(BaseModel):
    """A customer, masked. `references_since`: of the references that ended on that business date or before, some are left out; none
    is where it is null. `shares_number_out_of_scope`: how many customers that you may not see have its identity number, beside
    those of `shares_number_with`.
    """

    customer_id: UUID
    version: int
    kind: Literal["person", "company"]
    origin: Literal["staff", "master-data"]
    name: str | None
    phone: str | None
    email: str | None
    address: str | None
    born_on: str | None
    identity_number: str | None
    branch: str | None
    provenance: dict[str, Provenance]
    invalid: list[str]
    contradictions: list[Contradiction]
    shares_number_with: list[UUID]
    shares_number_out_of_scope: int
    references: list[LinkedReference]
    references_since: Day | None
    review: Review | None
    tags: list[CustomerTag]
    consents: list[CustomerConsent]
    tier: CustomerTier | None
    registered_at: Instant
    changed_at: Instant
    erased_at: Instant | None
    contact_erased_at: Instant | None


class LegalHoldBody(ExplainedBody):
    """Why nothing of a customer may be erased, and before which business date; without one, until it is lifted."""

    until: StatedDay | None = None


class LegalHoldShown(BaseModel):
    """A legal hold; `until`: the business date before which it stands, None where it has to be lifted."""

    hold_id: UUID
    until: date | None


class ErasureAnswer(BaseModel):
    """How far a customer is erased, and the legal holds that forbid more. `rest_from`: the business date on which the rest is due."""

    customer_id: UUID
    erased: bool
    contact_erased: bool
    rest_from: date | None
    legal_holds: list[LegalHoldShown]


class SearchBody(ExplainedBody):
    """A phone number, e-mail address or identity number, whole; why it is searched for is stored with the search."""

    field: Literal["phone", "email", "identity_number"]
    value: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class SearchFound(BaseModel):
    """The customers that have the value, masked, of those that you may see; `more`: there are others."""

    items: list[CustomerShown]
    more: bool


class CustomerPage(BaseModel):
    """A page; `next` is the cursor of the page after it. `total` where it was asked for."""

    items: list[CustomerShown]
    next: str | None
    total: Total | None = None


class AccountBalance(TypedDict):
    """What the movements of an account in one currency sum to."""

    currency: str
    balance_minor: int
    movements: int


class AccountKnown(BaseModel):
    """An account by its master data and its movements."""

    account_id: UUID
    account: str | None
    source: str
    product: Literal["deposit", "wealth", "loan", "card"] | None
    opened_on: Day | None
    closed_on: Day | None
    branch: str | None
    balances: list[AccountBalance]
    holders_named: int
    movements: int
    booked_through: Day | None
    recorded_at: Instant


class Holder(BaseModel):
    """A holder of an account; `customer_id` where it is a customer, `name` where master data has described
    it. Neither is shown of a customer that you may not see (`out_of_scope`)."""

    party_id: UUID
    role: Literal["owner", "joint", "signatory"]
    is_this_customer: bool
    customer_id: UUID | None
    out_of_scope: bool
    name: str | None


class StandingOrder(BaseModel):
    """A standing order on an account."""

    order: str
    amount_minor: int
    currency: str
    kind: TransactionType | None
    counterparty_bank: str | None
    counterparty_account: str | None


class AccountHeld(AccountKnown):
    """An account of a customer with all its holders."""

    joint: bool
    holders: list[Holder]
    cards: list[HeldCard]
    standing_orders: list[StandingOrder]


class Accounts(BaseModel):
    """All accounts of a customer."""

    items: list[AccountHeld]
    next: None = None


class UnlinkedPage(BaseModel):
    """Accounts that wait for their customer; `counted` of them, at least so many where `all_counted` is
    false.

    The list ends where `next` is null; a page may be short before that.
    """

    items: list[AccountKnown]
    next: str | None
    counted: int
    all_counted: bool


class Movement(BaseModel):
    """A movement and the event that it is: `position` is its place in the store of ingest.

    What went out counts under `counted_kind` in `counted_month`: of a reversal, those of the posting that
    it reverses.
    """

    event_id: UUID
    sequence: int
    position: int
    posting_id: UUID
    core_transaction_id: str
    leg: int
    amount_minor: int
    currency: str
    outflow_minor: int
    booked_on: Day
    value_on: Day | None
    kind: TransactionType
    counted_kind: TransactionType
    counted_month: Month
    channel: str | None
    reverses: UUID | None
    counterparty_bank: str | None
    counterparty_account: str | None
    counterparty_name: str | None
    text: str | None
    source: str
    intake: UUID
    line: int
    recorded_at: Instant


class MovementsSum(TypedDict):
    """What all movements asked for sum to, not only those of the page."""

    currency: str
    movements: int
    amount_minor: int
    outflow_minor: int


class MovementPage(BaseModel):
    """A page in the order in which they were recorded; `next` is the cursor of the page after it."""

    items: list[Movement]
    next: str | None
    sums: list[MovementsSum]


class Loans(BaseModel):
    """The loans of an account; `sums` over those without an account of their own is the panorama's figure."""

    items: list[HeldLoan]
    next: None = None
    sums: list[LoansSum]


class CustomerEventShown(BaseModel):
    """An event of a customer with its times, actor and reason, without personal values."""

    event_id: UUID
    name: str
    sequence: int
    position: int
    recorded_at: Instant
    effective_at: Instant
    actor: str
    post: str | None
    reason: str | None
    command_id: UUID
    correlation_id: UUID
    causation_id: UUID
    traceparent: str | None


class EventPage(BaseModel):
    """A page of a customer's events, oldest first; `next` is the cursor of the page after it."""

    items: list[CustomerEventShown]
    next: str | None
