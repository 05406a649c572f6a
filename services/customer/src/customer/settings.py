"""Settings of customer: the bank's own choices beside what every process has."""

from datetime import date
from zoneinfo import ZoneInfo

from chassis.clock import Clock
from chassis.settings import Settings
from pydantic import Field

from customer.panorama import STALE_AFTER_SECONDS


class CustomerSettings(Settings):
    """`bank_time_zone`: where the bank's days begin and end.

    `stale_after_minutes`: a source that was silent for longer makes the figures that rest on it stale.
    """

    bank_time_zone: str = "Asia/Shanghai"
    stale_after_minutes: int = Field(default=STALE_AFTER_SECONDS // 60, ge=1, le=31 * 24 * 60)

    def today(self, clock: Clock) -> date:
        """The bank day."""
        return clock.now().astimezone(ZoneInfo(self.bank_time_zone)).date()
