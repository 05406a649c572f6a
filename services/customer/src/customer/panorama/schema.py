"""The schema of a panorama: figures, accounts and sources, as HTTP and the command line return them."""

from typing import Annotated, Final, Literal, get_args

from chassis.web.formats import Day, Id, Instant, Month
from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from customer.domain.events import CustomerKind
from customer.holdings import Role

Section = Literal["deposits", "wealth", "credit_balances", "loans", "cards", "overdrafts"]
Status = Literal["GREEN", "AMBER", "RED"]
Product = Literal["deposit", "wealth", "loan", "card"]
TransactionTypeKnown = Literal[
    "cash",
    "transfer",
    "card",
    "interest",
    "fee",
    "household",
    "pension",
    "insurance",
    "loan_repayment",
    "penalty_interest",
    "wealth",
    "other",
]
"""What `kind` of a posting is published as, in the order of the canonical schema."""
TransactionType = Annotated[
    str, WithJsonSchema({"type": "string", "enum": list(get_args(TransactionTypeKnown))})
]
"""A transaction type as the view stores it; only the document lists the types."""
MONTH_PATTERN: Final = r"^[0-9]{4}-(0[1-9]|1[0-2])$"
"""A month of the bank's calendar, YYYY-MM."""


class Figure(TypedDict):
    """An amount in minor units and as people write it, and where it comes from.

    `as_of`: the business date up to which every source of it is booked. `recorded_at`: when its newest event
    was written down. `freshness_seconds`: how long ago its stalest source was last received from. `stale`:
    the sources among its own that have been silent for longer than the rules allow; where there is one,
    the figure may have been overtaken (amber). `position`: the highest position in the store of ingest
    among its events. `events`: links to what sums to it; movements of a liability sum to minus it.
    """

    amount_minor: int
    amount: str
    joint_minor: int
    accounts: int
    sources: list[str]
    as_of: Day | None
    recorded_at: Instant | None
    freshness_seconds: int | None
    stale: list[str]
    position: int | None
    events: list[str]


class Share(TypedDict):
    """A part of AUM; `percent` has two decimals, `hundredths` is the same as an integer. They sum to 100.00."""

    section: Section
    amount_minor: int
    percent: str
    hundredths: int


class SpendingOfKind(TypedDict):
    """What was spent in one way."""

    kind: TransactionType
    amount_minor: int
    amount: str


class Spending(Figure):
    """What went out in a month, reversals taken back."""

    month: Month
    by_kind: list[SpendingOfKind]


class CurrencyBlock(TypedDict):
    """Everything in one currency."""

    currency: str
    aum: Figure
    liabilities: Figure
    net_worth: Figure
    deposits: Figure
    wealth: Figure
    credit_balances: Figure
    loans: Figure
    cards: Figure
    overdrafts: Figure
    spending: Spending
    allocation: list[Share]


class HeldBalance(TypedDict):
    """The balance of an account in one currency, and where it counts."""

    currency: str
    balance_minor: int
    balance: str
    movements: int
    section: Section
    booked_through: Day | None
    events: str


class HeldCard(TypedDict):
    """A card on an account."""

    card: str | None
    kind: str | None
    issued_on: Day


class HeldLoan(TypedDict):
    """A loan as master data states it.

    `outstanding_minor` is null where an account of its own carries the debt.

    `granted_by` is the event that granted it, of the account's stream; `events` are the movements that
    repay it. outstanding = granted - repaid, and `repaid_minor` is this loan's part of the outflows behind
    `events`.
    """

    loan: str
    granted_by: Id
    currency: str
    granted_minor: int
    repaid_minor: int | None
    outstanding_minor: int | None
    payment_minor: int
    duration_months: int
    granted_on: Day
    status: str | None
    events: str


class LoansSum(TypedDict):
    """What loans without an account of their own amount to."""

    currency: str
    granted_minor: int
    repaid_minor: int
    outstanding_minor: int


class HeldAccount(TypedDict):
    """An account of the customer. `holders` are its owners; with role `signatory` its money is in no figure."""

    account_id: Id
    account: str | None
    source: str
    product: Product
    role: Role
    holders: int
    joint: bool
    opened_on: Day | None
    closed_on: Day | None
    balances: list[HeldBalance]
    cards: list[HeldCard]
    loans: list[HeldLoan]
    standing_orders: int
    source_status: Status | None
    as_of: Day | None
    recorded_at: Instant
    freshness_seconds: int


class SourceShown(TypedDict):
    """A source of the panorama: how far it is booked, and its status by its last certificate.

    GREEN: everything read is posted and checked. AMBER: something waits for a person or could not be
    checked. RED: figures contradict each other. `reasons` are codes of why it is not GREEN.
    """

    source: str
    booked_through: Day | None
    heard_at: Instant
    freshness_seconds: int
    stale: bool
    certificate: Id | None
    status: Status | None
    reasons: list[str]
    certified_at: Instant | None


class Rules(TypedDict):
    """The rules behind the figures."""

    joint_accounts: str
    aum: str
    loans: str
    spending_kinds: list[TransactionType]
    stale_after_seconds: int


class Panorama(TypedDict):
    """What a customer owns and owes."""

    customer_id: Id
    name: str | None
    kind: CustomerKind
    month: Month
    as_of: Day | None
    currencies: list[CurrencyBlock]
    accounts: list[HeldAccount]
    sources: list[SourceShown]
    rules: Rules
