"""Settings of customer: the bank's own choices beside what every process has."""

from collections.abc import Callable
from typing import Literal, Self

from chassis.calendar.settings import CalendarSettings
from chassis.files.settings import FilesSettings
from chassis.notices import NoticeSettings
from chassis.process.crashing import crash_at
from pydantic import Field, model_validator

from customer.claims import CLAIMS_MAX
from customer.needs import NEED_DAYS_MAX
from customer.panorama.sources import STALE_AFTER_SECONDS
from customer.retention import CONTACT_RETENTION_DAYS, RETENTION_YEARS, Retention
from customer.tier_overrides import OVERRIDE_DAYS_MAX

CrashPoint = Literal[
    "before-append", "after-append", "keys-destroyed", "after-reaction", "before-give", "after-give"
]


class CustomerSettings(CalendarSettings, FilesSettings, NoticeSettings):
    """`claims_max`: how often one number can be claimed by one customer after the other.
    `retention_years`: how long after the end of the relation no customer is erased. `contact_retention_days`: how long how it
    is reached is kept, at most as long as that.
    `stale_after_minutes`: after this long without a feed, the figures of a source are stale.
    `tier_override_days_max`: so long an override of a tier stands at most.
    `need_days_max`: so long ago a need may have come up at most that a device recorded without a connection.
    `app_push`: customers have the bank's app, and the push gateway knows the devices of each by the customer id.
    """

    claims_max: int = Field(default=CLAIMS_MAX, ge=1, le=1_000)
    retention_years: int = Field(default=RETENTION_YEARS, ge=0, le=100)
    contact_retention_days: int = Field(default=CONTACT_RETENTION_DAYS, ge=0, le=36_525)
    stale_after_minutes: int = Field(default=STALE_AFTER_SECONDS // 60, ge=1, le=31 * 24 * 60)
    tier_override_days_max: int = Field(default=OVERRIDE_DAYS_MAX, ge=1, le=3_660)
    need_days_max: int = Field(default=NEED_DAYS_MAX, ge=1, le=30)
    app_push: bool = False

    crash_at: CrashPoint | None = None
    freeze_at: CrashPoint | None = None

    @property
    def retention(self) -> Retention:
        """How long values are kept."""
        return Retention(self.contact_retention_days, self.retention_years)

    @property
    def reached(self) -> Callable[[str], None]:
        """What commands and policies call at their named points."""
        return crash_at(self.crash_at, self.environment, freeze_at=self.freeze_at)

    @model_validator(mode="after")
    def _kept_as_the_law_says(self) -> Self:
        if not self.development and self.retention_years < RETENTION_YEARS:
            raise ValueError(f"CRM_RETENTION_YEARS: the law says {RETENTION_YEARS}; less is for development")
        return self
