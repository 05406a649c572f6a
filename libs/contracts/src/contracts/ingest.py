"""Public events of the context ingest.

Money is signed minor units of an ISO 4217 currency: credit positive, debit negative. Fields named in `PERSONAL` carry
sealed tokens; only who holds the subject's key reads them. A reversal moves money of its own, so a balance is the sum
over `posting.booked` and `posting.reversed`.
"""

from collections.abc import Callable
from datetime import date, datetime
from typing import Any, ClassVar, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class IngestEvent(BaseModel):
    """Base of ingest's public events. Readers ignore fields that they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1
    PERSONAL: ClassVar[frozenset[str]] = frozenset()

    source: str


class AccountSeen(IngestEvent):
    """An account that a feed names and no master data has opened yet."""

    TYPE = "account.seen"
    PERSONAL = frozenset({"account"})

    account: str


class AccountOpened(IngestEvent):
    """The source's master data describes an account; a later one replaces an earlier one."""

    TYPE = "account.opened"
    PERSONAL = frozenset({"account", "name"})

    account: str
    opened_on: date
    product: Literal["deposit", "wealth", "loan", "card"]
    currency: str | None = None
    branch: str | None = None
    name: str | None = None
    statement_frequency: str | None = None


class AccountClosed(IngestEvent):
    """The account is closed from this business date on, which may lie in the future; its history stays."""

    TYPE = "account.closed"

    closed_on: date


class AccountReopened(IngestEvent):
    """The account is not closed: what closed it was taken back."""

    TYPE = "account.reopened"


class AccountHolderNamed(IngestEvent):
    """A party holds the account as owner or joint holder, or may act on it as authorised signatory, which owns nothing.

    The right stands from `held_from` on; where it is null, from the beginning.
    """

    TYPE = "account.holder_named"

    party_id: UUID
    role: Literal["owner", "joint", "signatory"]
    held_from: date | None = None


class AccountHolderRemoved(IngestEvent):
    """A party's right over the account stands before `held_until`, and not on that business date or later."""

    TYPE = "account.holder_removed"

    party_id: UUID
    role: Literal["owner", "joint", "signatory"]
    held_from: date | None = None
    held_until: date


class CardIssued(IngestEvent):
    """A card on the account."""

    TYPE = "card.issued"
    PERSONAL = frozenset({"card"})

    card: str
    party_id: UUID | None = None
    kind: str | None = None
    issued_on: date


class LoanGranted(IngestEvent):
    """A loan that the source's master data states for the account."""

    TYPE = "loan.granted"

    loan: str
    granted_on: date
    amount_minor: int
    currency: str
    duration_months: int
    payment_minor: int
    status: str | None = None


class StandingOrderSet(IngestEvent):
    """A standing order on the account."""

    TYPE = "standing_order.set"
    PERSONAL = frozenset({"counterparty_account"})

    order: str
    amount_minor: int
    currency: str
    kind: str | None = None
    counterparty_bank: str | None = None
    counterparty_account: str | None = None


class AccountRecordsMoved(IngestEvent):
    """Cards, loans or standing orders are no longer this account's: the source names them under `account_id` now.

    `sequences` are those of the events of this account that told of them.
    """

    TYPE = "account.records_moved"

    account_id: UUID
    sequences: tuple[int, ...]


class PostingBooked(IngestEvent):
    """Money moved on the account."""

    TYPE = "posting.booked"
    PERSONAL = frozenset({"counterparty_account", "counterparty_name", "text"})

    posting_id: UUID
    core_transaction_id: str
    leg: int
    amount_minor: int
    currency: str
    booked_on: date
    value_on: date | None = None
    balance_after_minor: int | None = None
    product: str | None = None
    channel: str | None = None
    kind: str | None = None
    branch: str | None = None
    teller: str | None = None
    counterparty_bank: str | None = None
    counterparty_account: str | None = None
    counterparty_name: str | None = None
    text: str | None = None
    intake: UUID
    line: int


class PostingReversed(PostingBooked):
    """Money moved back; `reverses` names the posting that this one undoes.

    `reversed_kind` and `reversed_booked_on` are transaction type and booking date of that posting, so that a reader can
    take it back where it counted.
    """

    TYPE = "posting.reversed"

    reverses: UUID
    reversed_kind: str | None = None
    reversed_booked_on: date | None = None


class PartyDescribed(IngestEvent):
    """A person or company as the source describes it; a later description replaces an earlier one."""

    TYPE = "party.described"
    PERSONAL = frozenset(
        {"party", "name", "born_on", "gender", "identity_number", "phone", "email", "address"}
    )

    party: str
    kind: str
    name: str | None = None
    born_on: str | None = None
    gender: str | None = None
    identity_number: str | None = None
    phone: str | None = None
    email: str | None = None
    address: str | None = None
    branch: str | None = None


class FeedRecordQuarantined(IngestEvent):
    """A record of a feed could not be posted: reason and place, never the record."""

    TYPE = "feed.record_quarantined"

    quarantine: UUID
    intake: UUID
    file: str
    line: int
    column: str | None = None
    reason: str
    detail: str


class FeedRecordQuarantinedV2(FeedRecordQuarantined):
    """As before; the name of the file is sealed, because people name files after customers and accounts."""

    VERSION = 2
    PERSONAL = frozenset({"file"})


class FeedRecordReleased(IngestEvent):
    """A quarantined record was repaired, and what replaces it was booked."""

    TYPE = "feed.record_released"

    quarantine: UUID
    replaced_by: UUID


class FeedRecordDismissed(IngestEvent):
    """A quarantined record was closed without being booked: nothing replaces it."""

    TYPE = "feed.record_dismissed"

    quarantine: UUID


class FeedCertified(IngestEvent):
    """A reconciliation certificate of before AMBER: GREEN where feed and store agree, RED with the accounts that do not."""

    TYPE = "feed.certified"

    certificate: UUID
    status: Literal["GREEN", "RED"]
    records: int
    posted: int
    duplicates: int
    quarantined: int
    accounts: int
    late: int
    booked_through: date | None = None
    red_accounts: tuple[UUID, ...] = ()


class FeedCertifiedV2(IngestEvent):
    """The status of a source at a moment, and what was read since the certificate before.

    GREEN: everything is posted or a duplicate, and control totals or running balances agree. AMBER: something waits
    for a person, or nothing was there to check against. RED: figures contradict each other, and nobody has resolved or
    acknowledged that; `red_accounts` names accounts. `reasons` are codes of why it is not GREEN. A source that is not
    heard of for longer than `expected_every_seconds` is stale: `received_at` is when the last that it sent came, which a
    certificate that acknowledges or repairs something does not change.
    """

    TYPE = "feed.certified"
    VERSION = 2

    certificate: UUID
    status: Literal["GREEN", "AMBER", "RED"]
    records: int
    posted: int
    duplicates: int
    quarantined: int
    accounts: int
    late: int
    booked_through: date | None = None
    red_accounts: tuple[UUID, ...] = ()
    reasons: tuple[str, ...] = ()
    expected_every_seconds: int | None = None
    received_at: datetime | None = None


EVENTS: tuple[type[IngestEvent], ...] = (
    AccountSeen,
    AccountOpened,
    AccountClosed,
    AccountReopened,
    AccountHolderNamed,
    AccountHolderRemoved,
    CardIssued,
    LoanGranted,
    StandingOrderSet,
    AccountRecordsMoved,
    PostingBooked,
    PostingReversed,
    PartyDescribed,
    FeedRecordQuarantined,
    FeedRecordQuarantinedV2,
    FeedRecordReleased,
    FeedRecordDismissed,
    FeedCertified,
    FeedCertifiedV2,
)


_HIDDEN: Final = "***"
"""As a reader without the key of a sealed value sees it."""


def quarantined_v1_to_v2(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had the name of the file in clear, and quoted the record: a reader is given neither."""
    return {**data, "file": _HIDDEN, "detail": _HIDDEN, "column": data.get("column") and _HIDDEN}


def certified_v1_to_v2(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had neither reasons nor a schedule: what it does not state is left out, as version 2 allows."""
    return data


LIFTS: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {
    ("feed.record_quarantined", 1): quarantined_v1_to_v2,
    ("feed.certified", 1): certified_v1_to_v2,
}
"""By type and version: what makes the body of that version one of the next. A personal field stays where it was sealed."""
