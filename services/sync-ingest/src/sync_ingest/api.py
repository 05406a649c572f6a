"""HTTP of sync-ingest: batches in, quarantine and certificates out."""

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

MinorUnits = int | dict[str, int]


class BatchResult(BaseModel):
    """What became of a batch. Sums are integers of one currency, or one integer per currency."""

    records: int
    posted: int
    duplicates: int
    quarantined: int
    accounts: int
    credits_minor: MinorUnits
    debits_minor: MinorUnits
    currency: str | list[str] | None
    certificate: Literal["GREEN", "RED"]
    seconds: float


class TakenIn(BatchResult):
    """The result of a batch, with the ids to ask about it again."""

    certificate_id: UUID | None
    intake_id: UUID


class QuarantineItem(BaseModel):
    """A record that could not be posted: reason and place, without the record, which is personal."""

    id: UUID
    number: int
    source: str
    intake: UUID
    file: str
    line: int
    column: str | None
    reason: str
    detail: str
    quarantined_at: str
    status: Literal["waiting", "released"]


class QuarantinePage(BaseModel):
    """A page in the order of arrival; `next` is the cursor of the page after it."""

    items: list[QuarantineItem]
    next: str | None


class CurrencyTotals(BaseModel):
    """opening + credits - debits = closing over all accounts of one currency."""

    currency: str
    opening_minor: int
    credits_minor: int
    debits_minor: int
    closing_minor: int
    stated_credits_minor: int
    stated_debits_minor: int


class PrintedBalancesOfRun(BaseModel):
    """Balances that the feed printed, compared row by row."""

    rows: int
    exact: int
    within_tolerance: int
    beyond_tolerance: int
    largest_minor: int
    accounts_differing: int
    difference_minor: int


class ProblemFound(BaseModel):
    """Why a certificate is RED, with the account it holds for."""

    code: str
    account: str | None
    account_id: UUID | None
    currency: str | None
    expected: int
    found: int
    detail: str | None


class Certificate(BaseModel):
    """A reconciliation certificate."""

    number: int
    certificate_id: UUID
    source: str
    certified_at: str
    status: Literal["GREEN", "RED"]
    records: int
    posted: int
    duplicates: int
    quarantined: int
    master_records: int
    accounts: int
    late: int
    back_dated: int
    booked_through: str | None
    credits_minor: MinorUnits
    debits_minor: MinorUnits
    currency: str | list[str] | None
    totals: list[CurrencyTotals]
    printed_balances: PrintedBalancesOfRun
    problems: list[ProblemFound]
    problems_total: int


class CertificatePage(BaseModel):
    """Certificates, newest first; `next` is the cursor of the page after it."""

    items: list[Certificate]
    next: str | None


class Repair(BaseModel):
    """The canonical record that takes the place of a quarantined one; see GET /ingest/schema."""

    model_config = ConfigDict(extra="forbid")

    record: dict[str, Any] = Field(min_length=1)
