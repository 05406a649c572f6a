"""The bank's calendar from the settings."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from chassis.calendar.calendar import Calendar, Span
from chassis.calendar.days import public_holidays, read_days
from chassis.connections.settings import Settings

WORKING_HOURS: Final = "09:00-12:00,13:30-17:30"


def _hours(text: str) -> str:
    for part in text.split(","):
        Span.of(part)
    return text


class CalendarSettings(Settings):
    """`calendar_file`: the bank's own holidays and working days, over the public ones (`chassis.calendar.days`).
    `working_hours`: the parts of a working day that are worked. `timers_per_second_max`: so many commands of timers are
    given in a second.
    """

    calendar_file: Path | None = None
    working_hours: Annotated[str, AfterValidator(_hours)] = WORKING_HOURS
    timers_per_second_max: float = Field(default=200.0, ge=1.0, le=10_000.0)

    @cached_property
    def calendar(self) -> Calendar:
        """The calendar, read once."""
        days = public_holidays()
        if self.calendar_file is not None:
            days = read_days(self.calendar_file, days)
        hours = tuple([Span.of(part) for part in self.working_hours.split(",")])
        return Calendar(ZoneInfo(self.bank_time_zone), days, hours, self.cut_off)

    @model_validator(mode="after")
    def _with_a_calendar(self) -> Self:
        """Reads the calendar, so that no process starts with one that is wrong."""
        _ = self.calendar
        return self
