"""Control totals: what the feed says, counted while it is read and never from what was stored."""

from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple
from uuid import UUID


class Purse(NamedTuple):
    """One currency of one account: money is never summed across purses without saying so."""

    account: UUID
    currency: str


@dataclass(slots=True)
class Flow:
    """Counted movements of a purse, in minor units; debits are positive here."""

    postings: int = 0
    credits_minor: int = 0
    debits_minor: int = 0

    def count(self, amount_minor: int) -> None:
        """Adds one movement by its sign."""
        self.postings += 1
        if amount_minor >= 0:
            self.credits_minor += amount_minor
        else:
            self.debits_minor -= amount_minor


@dataclass(slots=True)
class ControlTotals:
    """Of one run: every record read is posted, a duplicate, or quarantined.

    `movements` holds what this run posted; `stated` every distinct posting the feed holds, posted now or before, so
    that reading a feed again states the same sums.
    """

    records: int = 0
    posted: int = 0
    duplicates: int = 0
    quarantined: int = 0
    master_records: int = 0
    late: int = 0
    back_dated: int = 0
    booked_through: date | None = None
    movements: dict[Purse, Flow] = field(default_factory=dict)
    stated: dict[Purse, Flow] = field(default_factory=dict)

    def count_posted(self, purse: Purse, amount_minor: int) -> None:
        """A posting that this run added."""
        self.records += 1
        self.posted += 1
        _flow(self.movements, purse).count(amount_minor)
        _flow(self.stated, purse).count(amount_minor)

    def count_days(self, booked_on: date, value_on: date | None, certified_through: date | None) -> None:
        """Late: booked on a day that a certificate has closed. Back-dated: valued before it was booked."""
        self.late += certified_through is not None and booked_on < certified_through
        self.back_dated += value_on is not None and value_on < booked_on
        if self.booked_through is None or booked_on > self.booked_through:
            self.booked_through = booked_on

    def count_duplicate(self, purse: Purse, amount_minor: int, *, first_in_feed: bool) -> None:
        """A posting that was there before, or a repetition within the feed."""
        self.records += 1
        self.duplicates += 1
        if first_in_feed:
            _flow(self.stated, purse).count(amount_minor)

    def count_released(self) -> None:
        """A record that was quarantined before and has been repaired since: nothing new."""
        self.records += 1
        self.duplicates += 1

    def count_quarantined(self) -> None:
        """A record that could not be posted."""
        self.records += 1
        self.quarantined += 1

    @property
    def accounts(self) -> int:
        """How many accounts the feed moves."""
        return len({purse.account for purse in self.stated})

    def stated_by_currency(self) -> dict[str, Flow]:
        """The feed's sums, one per currency."""
        sums: dict[str, Flow] = {}
        for purse, flow in self.stated.items():
            total = sums.setdefault(purse.currency, Flow())
            total.postings += flow.postings
            total.credits_minor += flow.credits_minor
            total.debits_minor += flow.debits_minor
        return sums


def _flow(flows: dict[Purse, Flow], purse: Purse) -> Flow:
    flow = flows.get(purse)
    if flow is None:
        flow = flows[purse] = Flow()
    return flow
