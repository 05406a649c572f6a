"""Which day it is for the bank, in its time zone: the one place that says so.

The business date is the day under which the bank books: from the cut-off on it is that of the next day. What is booked,
owed, held, due or counted in days is by it: rights and links, windows of conditions, derived documents, reviews,
retention. The calendar date is that of the clock on the wall; people are born and documents dated by it.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

MIDNIGHT: Final = time(0)
ONE_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class BusinessDates:
    """`cut_off`: the time of the day from which on the next business date runs; at midnight a business date is the
    calendar date. Every calendar date is a business date, also one that is not worked."""

    zone: tzinfo
    cut_off: time = MIDNIGHT

    def calendar_date(self, instant: datetime) -> date:
        """The date that the bank's clocks show at an instant; raises ValueError where it has no time zone."""
        if instant.tzinfo is None:
            raise ValueError(f"{instant} has no time zone")
        return instant.astimezone(self.zone).date()

    def business_date(self, instant: datetime) -> date:
        """The business date at an instant: from `cut_off` on it is that of the next day."""
        day = self.calendar_date(instant)
        return day if instant < self.begins(day + ONE_DAY) else day + ONE_DAY

    def begins(self, day: date) -> datetime:
        """The first instant of a business date: the cut-off of the day before, or its own midnight."""
        return self.at(day if self.cut_off == MIDNIGHT else day - ONE_DAY, self.cut_off)

    def at(self, day: date, clock: time) -> datetime:
        """The instant at which the bank's clocks show that. Where they show it twice, the first time; where they
        skip it, as late after the change as it would have been after it."""
        return datetime.combine(day, clock, self.zone).astimezone(UTC)
