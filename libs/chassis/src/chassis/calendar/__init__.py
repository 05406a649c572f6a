"""The bank's calendar: working days, working hours, business dates. Pure functions of days and instants."""

from chassis.calendar.calendar import Calendar, CalendarExhausted, DayKind, Span
from chassis.calendar.days import CalendarInvalid, DaysKnown, public_holidays, read_days

__all__ = [
    "Calendar",
    "CalendarExhausted",
    "CalendarInvalid",
    "DayKind",
    "DaysKnown",
    "Span",
    "public_holidays",
    "read_days",
]
