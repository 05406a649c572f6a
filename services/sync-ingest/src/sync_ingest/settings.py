"""Settings of sync-ingest: the bank's own choices beside what every process has."""

from datetime import date, timedelta
from typing import Literal

from chassis.calendar.settings import CalendarSettings
from pydantic import Field, field_validator

from sync_ingest.domain.balances import DRIFT_MINOR_MAX, TOLERANCE_MINOR
from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX
from sync_ingest.domain.records import BOOKED_DAYS_AHEAD_MAX, FIRST_DAY
from sync_ingest.domain.sources import SourceNameInvalid, checked_source
from sync_ingest.runs.choices import RELEASE_APPROVAL_MINOR, IngestSettings

CrashPoint = Literal[
    "after-intake",
    "before-append",
    "mid-batch",
    "after-append",
    "before-progress",
    "before-certificate",
    "after-certificate",
    "after-release",
    "after-dismissal",
    "after-acknowledgement",
]
"""`after-certificate`, `after-dismissal` and `after-acknowledgement` lie before the end of their transaction."""


class SyncIngestSettings(CalendarSettings):
    """A posting is booked from `booked_from` to `booked_days_ahead_max` days after the bank's business date.

    `printed_tolerance_minor` is of one running balance, `printed_drift_minor_max` of all of an account added up.
    A source sends as often as it was scheduled to; else a window of the branch topic, or `file_every_minutes`.
    `topic_source` is the source of messages that name none: without it they are quarantined. `feed_instance` is a
    feed process's name that outlives it.
    """

    printed_tolerance_minor: int = Field(default=TOLERANCE_MINOR, ge=0)
    printed_drift_minor_max: int = Field(default=DRIFT_MINOR_MAX, ge=0)
    file_every_minutes: int = Field(default=24 * 60, ge=1, le=366 * 24 * 60)
    booked_from: date = FIRST_DAY
    booked_days_ahead_max: int = Field(default=BOOKED_DAYS_AHEAD_MAX, ge=0, le=3_660)
    window_minutes: int = Field(default=15, ge=1, le=24 * 60)
    topic_source: str | None = None
    feed_instance: str | None = None
    batch_bytes_max: int = Field(default=16 << 20, ge=1)
    release_approval_minor: int | None = Field(default=RELEASE_APPROVAL_MINOR, ge=0)
    """A release that books this or more, in minor units of any currency, needs a second person; null: none does."""
    release_approval_minor_by_currency: dict[str, int] = Field(default_factory=dict)
    """The same where a currency has another limit."""
    accounts_kept_max: int = Field(default=ACCOUNTS_KEPT_MAX, ge=1)
    """Accounts that a run keeps in memory with their sums; a larger feed stores partial sums meanwhile."""
    crash_at: CrashPoint | None = None
    freeze_at: CrashPoint | None = None

    @field_validator("topic_source")
    @classmethod
    def _names_a_source(cls, name: str | None) -> str | None:
        """A default that no message could name is refused at the start."""
        if name is None:
            return None
        try:
            return checked_source(name)
        except SourceNameInvalid as error:
            raise ValueError(f"topic_source is no name of a source: {error}") from None

    @property
    def window(self) -> timedelta:
        """How long a window of the branch topic is."""
        return timedelta(minutes=self.window_minutes)

    @property
    def ingest(self) -> IngestSettings:
        """What a run needs to know of them."""
        return IngestSettings(
            dates=self.dates,
            accounts_kept_max=self.accounts_kept_max,
            printed_tolerance_minor=self.printed_tolerance_minor,
            booked_from=self.booked_from,
            booked_days_ahead_max=self.booked_days_ahead_max,
            release_approval_minor=self.release_approval_minor,
            release_approval_minor_by_currency=self.release_approval_minor_by_currency,
            printed_drift_minor_max=self.printed_drift_minor_max,
            stream_every_seconds=self.window_minutes * 60,
            file_every_seconds=self.file_every_minutes * 60,
        )
