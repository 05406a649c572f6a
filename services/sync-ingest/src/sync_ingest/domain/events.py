"""The private events of ingest.

Stream = account, except parties (their own) and feeds (one stream per source).

Money is signed minor units: credit positive, debit negative. Personal fields are sealed one by one when
stored.
"""

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from chassis.privacy.keys import ERASED
from chassis.write.events import Event, personal
from contracts.purposes import CONTACT

from sync_ingest.domain.certificate import Findings

Identifying = Annotated[str | None, personal("C2")]
Contact = Annotated[str | None, personal("C2", purpose=CONTACT)]


class AccountSeen(Event, frozen=True):
    """An account that postings or other records name, and no master data has opened yet."""

    source: str
    account: Annotated[str, personal("C2")]


class AccountOpened(Event, frozen=True):
    """The source's master data describes an account."""

    source: str
    account: Annotated[str, personal("C2")]
    opened_on: date
    product: str
    currency: str | None
    branch: str | None
    name: Identifying
    statement_frequency: str | None


class AccountClosed(Event, frozen=True):
    """The account is closed from this business date on."""

    source: str
    closed_on: date


class AccountReopened(Event, frozen=True):
    """The account is not closed: what closed it was taken back."""

    source: str


class HolderNamed(Event, frozen=True):
    """A party holds the account, as owner or joint holder, or may act on it as authorised signatory."""

    source: str
    party_id: UUID
    role: str
    held_from: date | None = None


class HolderRemoved(Event, frozen=True):
    """A party's right over the account stands before `held_until`, and not on that business date or later."""

    source: str
    party_id: UUID
    role: str
    held_from: date | None
    held_until: date


class CardIssued(Event, frozen=True):
    """A card on the account."""

    source: str
    card: Annotated[str, personal("C2")]
    party_id: UUID | None
    kind: str | None
    issued_on: date


class LoanGranted(Event, frozen=True):
    """A loan that the source's master data states for the account."""

    source: str
    loan: str
    granted_on: date
    amount_minor: int
    currency: str
    duration_months: int
    payment_minor: int
    status: str | None


class StandingOrderSet(Event, frozen=True):
    """A standing order on the account."""

    source: str
    order: str
    amount_minor: int
    currency: str
    kind: str | None
    counterparty_bank: str | None
    counterparty_account: Identifying


class RecordsMoved(Event, frozen=True):
    """What the events of these sequences say of a card, a loan or a standing order holds of `account_id` now.

    The source names another account for it.
    """

    source: str
    account_id: UUID
    sequences: tuple[int, ...]


class PostingBooked(Event, frozen=True, gc=False):
    """Money moved on the account; `posting_id` is the identity that makes it happen once."""

    source: str
    posting_id: UUID
    core_transaction_id: str
    leg: int
    amount_minor: int
    currency: str
    booked_on: date
    value_on: date | None
    balance_after_minor: int | None
    product: str | None
    channel: str | None
    kind: str | None
    branch: str | None
    teller: str | None
    counterparty_bank: str | None
    counterparty_account: Identifying
    counterparty_name: Identifying
    text: Identifying
    digest: str
    intake: UUID
    line: int


class PostingReversed(Event, frozen=True, gc=False):
    """Money moved back: a posting of its own whose amount undoes `reverses`, which stays in the history.

    `reversed_kind` and `reversed_booked_on` are transaction type and booking date of the posting that it
    undoes.
    """

    source: str
    posting_id: UUID
    reverses: UUID
    core_transaction_id: str
    leg: int
    amount_minor: int
    currency: str
    booked_on: date
    value_on: date | None
    balance_after_minor: int | None
    product: str | None
    channel: str | None
    kind: str | None
    branch: str | None
    teller: str | None
    counterparty_bank: str | None
    counterparty_account: Identifying
    counterparty_name: Identifying
    text: Identifying
    digest: str
    intake: UUID
    line: int
    reversed_kind: str | None = None
    reversed_booked_on: date | None = None


class PostingUndone(Event, frozen=True):
    """A posting was reversed. The store holds this once for each posting, in the transaction of its reversal."""

    source: str
    posting_id: UUID
    undone_by: UUID


class PartyDescribed(Event, frozen=True):
    """A person or company as the source describes it."""

    source: str
    party: Annotated[str, personal("C2")]
    kind: str
    name: Identifying
    born_on: Identifying
    gender: Identifying
    identity_number: Identifying
    phone: Contact
    email: Contact
    address: Contact
    branch: str | None


class IntakeReceived(Event, frozen=True):
    """Bytes of a feed were kept.

    `content` is a keyed digest of them: a plain one of a short file can be guessed.
    """

    source: str
    intake: UUID
    format: str
    size_bytes: int
    content: UUID | None = None


class FeedRecordQuarantined(Event, frozen=True):
    """A record of a feed could not be posted; `raw` is what came, cut to a bounded size.

    Version 2: `file` is personal, as people name files after customers and accounts. Version 1 had it in
    clear.
    """

    source: str
    quarantine: UUID
    intake: UUID
    file: Annotated[str, personal("C2")]
    line: int
    column: str | None
    reason: str
    detail: str
    raw: Annotated[str, personal("C2")]
    kind: str | None = None
    whole_file: bool = False


class QuarantinedRecordReleased(Event, frozen=True):
    """A quarantined record was repaired and its replacement taken in."""

    source: str
    quarantine: UUID
    replaced_by: UUID
    repair: UUID | None = None
    proposed_by: str | None = None


class QuarantinedRecordDismissed(Event, frozen=True):
    """A quarantined record was closed without being booked; the reason is in the metadata."""

    source: str
    quarantine: UUID


class QuarantinedRecordShown(Event, frozen=True):
    """Somebody saw a quarantined record in clear, for `purpose`."""

    source: str
    quarantine: UUID
    purpose: str


class RepairProposed(Event, frozen=True):
    """A repair that a second person must approve; `repair` names exactly what would be booked.

    `amounts_minor` are the absolute sums by currency, in minor units.
    """

    source: str
    quarantine: UUID
    repair: UUID
    records: int
    amounts_minor: dict[str, int]


class RepairRejected(Event, frozen=True):
    """A second person refused a proposed repair; the reason is in the metadata. The record goes on waiting."""

    source: str
    quarantine: UUID
    repair: UUID
    proposed_by: str


class RepairWithdrawn(Event, frozen=True):
    """Who proposed a repair wants it no more; the reason is in the metadata. The record goes on waiting."""

    source: str
    quarantine: UUID
    repair: UUID


class ReconciliationCertified(Event, frozen=True):
    """A certificate over a set of intakes; none where it only says that something was acknowledged.

    `received_at` is when the last that the source sent came. Version 1 knew GREEN and RED alone, and gave
    no reasons.
    """

    source: str
    certificate: UUID
    intakes: tuple[UUID, ...]
    findings: Findings
    expected_every_seconds: int | None = None
    received_at: datetime | None = None


class ContradictionsAcknowledged(Event, frozen=True):
    """A person has looked at contradictions of a source and takes them as known: they count no longer.

    Many are acknowledged by several events of one transaction.
    """

    source: str
    certificate: UUID
    contradictions: tuple[UUID, ...]


class SourceScheduled(Event, frozen=True):
    """How often a source sends: one that is silent for longer is stale."""

    source: str
    every_seconds: int


class ReleasesClosed(Event, frozen=True):
    """No record of quarantine that names this party, or an account that it holds, is released from now on."""

    source: str
    party_id: UUID


class ReleasesOpened(Event, frozen=True):
    """Records of quarantine that name this party may be released again."""

    source: str
    party_id: UUID


PostingEvent = PostingBooked | PostingReversed
IngestEvent = (
    AccountSeen
    | AccountOpened
    | AccountClosed
    | AccountReopened
    | HolderNamed
    | HolderRemoved
    | CardIssued
    | LoanGranted
    | StandingOrderSet
    | RecordsMoved
    | PostingBooked
    | PostingReversed
    | PostingUndone
    | PartyDescribed
    | IntakeReceived
    | FeedRecordQuarantined
    | QuarantinedRecordReleased
    | QuarantinedRecordDismissed
    | QuarantinedRecordShown
    | RepairProposed
    | RepairRejected
    | RepairWithdrawn
    | ReconciliationCertified
    | ContradictionsAcknowledged
    | SourceScheduled
    | ReleasesClosed
    | ReleasesOpened
)

STORED_NAMES: dict[str, type[Event]] = {
    "account-seen": AccountSeen,
    "account-opened": AccountOpened,
    "account-closed": AccountClosed,
    "account-reopened": AccountReopened,
    "holder-named": HolderNamed,
    "holder-removed": HolderRemoved,
    "card-issued": CardIssued,
    "loan-granted": LoanGranted,
    "standing-order-set": StandingOrderSet,
    "records-moved": RecordsMoved,
    "posting-booked": PostingBooked,
    "posting-reversed": PostingReversed,
    "posting-undone": PostingUndone,
    "party-described": PartyDescribed,
    "intake-received": IntakeReceived,
    "feed-record-quarantined": FeedRecordQuarantined,
    "quarantined-record-released": QuarantinedRecordReleased,
    "quarantined-record-dismissed": QuarantinedRecordDismissed,
    "quarantined-record-shown": QuarantinedRecordShown,
    "repair-proposed": RepairProposed,
    "repair-rejected": RepairRejected,
    "repair-withdrawn": RepairWithdrawn,
    "reconciliation-certified": ReconciliationCertified,
    "contradictions-acknowledged": ContradictionsAcknowledged,
    "source-scheduled": SourceScheduled,
    "releases-closed": ReleasesClosed,
    "releases-opened": ReleasesOpened,
}


def certified_v1_to_v2(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had neither reasons nor a schedule; both are empty where nothing was said."""
    return data


def received_v1_to_v2(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had the plain SHA-256 of the bytes, and no keyed digest."""
    return {field: value for field, value in data.items() if field != "sha256"}


def quarantined_v1_to_v2(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had the name of the file in clear, and quoted the record: who reads it now is shown that it was there."""
    return {**data, "file": ERASED, "detail": ERASED, "column": data.get("column") and ERASED}


UPCASTS: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {
    ("feed-record-quarantined", 1): quarantined_v1_to_v2,
    ("intake-received", 1): received_v1_to_v2,
    ("reconciliation-certified", 1): certified_v1_to_v2,
}


_FILE_IN_DETAIL: Final = re.compile(r", .*:[0-9]+\Z", re.DOTALL)
"""As it stood in a certificate: `records, name-of-the-file.csv:17`."""


def quarantined_as_shown(version: int, data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had the name of the file in clear, and its detail and column could quote the record."""
    return data if version > 1 else quarantined_v1_to_v2(data)


def received_as_shown(version: int, data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had a plain digest, from which the bytes of a short file can be guessed."""
    return data | {"sha256": ERASED} if "sha256" in data else data


def certified_as_shown(version: int, data: dict[str, Any]) -> dict[str, Any]:
    """Certificates of version 1, and the first ones of version 2, named files in the details of problems."""
    findings = data.get("findings")
    if not isinstance(findings, dict):
        return data
    problems = [
        problem | {"detail": problem.get("detail") and _FILE_IN_DETAIL.sub("", problem["detail"])}
        for problem in findings.get("problems") or ()
    ]
    return data | {"findings": findings | {"problems": problems}}


HIDES: Final[dict[str, Callable[[int, dict[str, Any]], dict[str, Any]]]] = {
    "feed-record-quarantined": quarantined_as_shown,
    "intake-received": received_as_shown,
    "reconciliation-certified": certified_as_shown,
}
"""What readers are not shown of events that stay as they were stored."""
