"""Settings of customer: the bank's own choices beside what every process has."""

from chassis.settings import Settings
from pydantic import Field

from customer.panorama import STALE_AFTER_SECONDS


class CustomerSettings(Settings):
    """`stale_after_minutes`: a source that was silent for longer makes the figures that rest on it stale."""

    stale_after_minutes: int = Field(default=STALE_AFTER_SECONDS // 60, ge=1, le=31 * 24 * 60)
