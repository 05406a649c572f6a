"""The bank's own choices."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final

from chassis.business_dates import BusinessDates

from sync_ingest.domain.balances import DRIFT_MINOR_MAX, TOLERANCE_MINOR
from sync_ingest.domain.controls.feed_read import CONTROLS_PER_FILE_MAX
from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX
from sync_ingest.domain.records import BOOKED_DAYS_AHEAD_MAX, FIRST_DAY, BookingDays

IN_UTC: Final = BusinessDates(UTC)
RELEASE_APPROVAL_MINOR: Final = 5_000_000
"""CNY 50,000.00, from which on cash is a large transaction to be reported in the bank's country."""


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """The bank's own choices."""

    dates: BusinessDates = IN_UTC
    printed_tolerance_minor: int = TOLERANCE_MINOR
    printed_drift_minor_max: int = DRIFT_MINOR_MAX
    stream_every_seconds: int = 15 * 60
    file_every_seconds: int = 24 * 60 * 60
    booked_from: date = FIRST_DAY
    booked_days_ahead_max: int = BOOKED_DAYS_AHEAD_MAX
    release_approval_minor: int | None = RELEASE_APPROVAL_MINOR
    release_approval_minor_by_currency: Mapping[str, int] = field(default_factory=dict)
    accounts_kept_max: int = ACCOUNTS_KEPT_MAX
    """Accounts whose sums a run keeps in memory; those of more are stored meanwhile."""
    controls_per_file_max: int = CONTROLS_PER_FILE_MAX
    """Control records that are compared of one file; more are quarantined."""

    def booking_days(self, now: datetime) -> BookingDays:
        """The days on which a posting may be booked that is read at `now`."""
        today = self.dates.business_date(now)
        return BookingDays.around(today, self.booked_from, self.booked_days_ahead_max)
