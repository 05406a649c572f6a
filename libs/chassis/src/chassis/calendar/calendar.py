"""Working days, working hours and business dates, in the time zone of the bank.

Instants are aware, and answers are in UTC. A duration is time that passes, so a working hour is one hour also on a day
on which the clocks are changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import blake2b
from typing import Final, Literal
from zoneinfo import ZoneInfo

from typing_extensions import override

from chassis.business_dates import MIDNIGHT, ONE_DAY, BusinessDates
from chassis.calendar.days import SATURDAY, DaysKnown

DayKind = Literal["working-day", "make-up-working-day", "weekend", "public-holiday"]

SEARCHED_DAYS_MAX: Final = 400
"""A calendar without a working day for so long is wrong."""
WORKING_DAYS_MAX: Final = 10_000
WORKING_TIME_MAX: Final = timedelta(days=2_500)
NO_TIME: Final = timedelta(0)


class CalendarExhausted(ValueError):
    """The calendar has no working day, or no working hour, within `SEARCHED_DAYS_MAX` days."""

    own_words = True


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the day that is worked, by the clock on the wall; `end` at midnight is the end of the day."""

    start: time
    end: time

    def __post_init__(self) -> None:
        if self.end != MIDNIGHT and self.end <= self.start:
            raise ValueError(f"{self} does not end after it begins")

    @override
    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M}"

    @classmethod
    def of(cls, text: str) -> "Span":
        """Reads `09:00-12:00`; raises ValueError."""
        start, dash, end = text.strip().partition("-")
        if not dash:
            raise ValueError(f"{text[:40]!r} is no span of hours; write 09:00-12:00")
        try:
            return cls(_clock(start), MIDNIGHT if end.strip() == "24:00" else _clock(end))
        except ValueError as error:
            raise ValueError(f"{text[:40]!r} is no span of hours; write 09:00-12:00") from error


def _clock(text: str) -> time:
    return datetime.strptime(text.strip(), "%H:%M").time()  # noqa: DTZ007 (a time of the day, in no zone)


@dataclass(frozen=True, slots=True)
class Calendar:
    """`zone`: that of the bank's days. `hours`: the parts of a working day that are worked, in order.

    `cut_off`: the time of the day from which on the next business date runs; at midnight a business date is the
    calendar date. Every calendar date is a business date, also one that is not worked.
    """

    zone: ZoneInfo
    days: DaysKnown
    hours: tuple[Span, ...]
    cut_off: time = MIDNIGHT

    def __post_init__(self) -> None:
        if not self.hours:
            raise ValueError("a working day has at least one span of hours")
        for before, after in zip(self.hours, self.hours[1:], strict=False):
            if before.end == MIDNIGHT or after.start < before.end:
                raise ValueError(f"{after} begins before {before} has ended")

    def digest(self) -> str:
        """Equal for calendars that give equal answers."""
        text = f"{self.zone.key}|{self.days.digest()}|{','.join(map(str, self.hours))}|{self.cut_off}"
        return blake2b(text.encode(), digest_size=8).hexdigest()

    # days

    def is_working_day(self, day: date) -> bool:
        """Whether the day is worked; of a year that is not announced, whether it is a weekday."""
        return self.days.is_working_day(day)

    def knows(self, day: date) -> bool:
        """Whether the holidays of the day's year are announced."""
        return self.days.knows(day)

    def kind_of(self, day: date) -> DayKind:
        """What kind of day it is."""
        weekend = day.weekday() >= SATURDAY
        if self.is_working_day(day):
            return "make-up-working-day" if weekend else "working-day"
        return "weekend" if weekend and day not in self.days.worked else "public-holiday"

    def next_working_day(self, day: date) -> date:
        """The day itself where it is worked, else the first one after it that is; raises CalendarExhausted."""
        return self._worked(day, ONE_DAY)

    def last_working_day(self, day: date) -> date:
        """The day itself where it is worked, else the last one before it that is; raises CalendarExhausted."""
        return self._worked(day, -ONE_DAY)

    def working_days_after(self, day: date, count: int) -> date:
        """The `count`-th working day after a day; the day itself for 0. Raises CalendarExhausted."""
        return self._counted(day, count, ONE_DAY)

    def working_days_before(self, day: date, count: int) -> date:
        """The `count`-th working day before a day; the day itself for 0. Raises CalendarExhausted."""
        return self._counted(day, count, -ONE_DAY)

    def working_days_between(self, after: date, until: date) -> int:
        """How many of the days after `after`, up to and with `until`, are worked; 0 where `until` is not after it."""
        count = (until - after).days
        if count > WORKING_DAYS_MAX:
            raise ValueError(f"more than {WORKING_DAYS_MAX} days")
        return sum(self.is_working_day(after + n * ONE_DAY) for n in range(1, count + 1))

    def _worked(self, day: date, step: timedelta) -> date:
        for _ in range(SEARCHED_DAYS_MAX):
            if self.is_working_day(day):
                return day
            day += step
        raise CalendarExhausted(f"no working day within {SEARCHED_DAYS_MAX} days of {day}")

    def _counted(self, day: date, count: int, step: timedelta) -> date:
        if not 0 <= count <= WORKING_DAYS_MAX:
            raise ValueError(f"0 to {WORKING_DAYS_MAX} working days, not {count}")
        for _ in range(count):
            day = self._worked(day + step, step)
        return day

    # business dates

    @property
    def dates(self) -> BusinessDates:
        """Which day it is at an instant."""
        return BusinessDates(self.zone, self.cut_off)

    def business_date(self, instant: datetime) -> date:
        """The business date at an instant: from `cut_off` on it is that of the next day."""
        return self.dates.business_date(instant)

    def business_date_begins(self, day: date) -> datetime:
        """The first instant of a business date: the cut-off of the day before, or its own midnight."""
        return self.dates.begins(day)

    def at(self, day: date, clock: time) -> datetime:
        """The instant at which the bank's clocks show that (`BusinessDates.at`)."""
        return self.dates.at(day, clock)

    # hours

    def after_working_time(self, instant: datetime, worked: timedelta) -> datetime:
        """The earliest instant up to which so much working time has passed; raises CalendarExhausted."""
        left = _worked_time(worked)
        instant = _aware(instant).astimezone(UTC)
        if left == NO_TIME:
            return instant
        for start, end in self._spans_from(instant, ONE_DAY):
            begins = max(start, instant)
            if begins < end:
                if left <= end - begins:
                    return begins + left
                left -= end - begins
        raise AssertionError("unreachable")

    def before_working_time(self, instant: datetime, worked: timedelta) -> datetime:
        """The latest instant from which on so much working time passes until `instant`; raises CalendarExhausted."""
        left = _worked_time(worked)
        instant = _aware(instant).astimezone(UTC)
        if left == NO_TIME:
            return instant
        for start, end in self._spans_from(instant, -ONE_DAY):
            ends = min(end, instant)
            if start < ends:
                if left <= ends - start:
                    return ends - left
                left -= ends - start
        raise AssertionError("unreachable")

    def working_time_between(self, start: datetime, end: datetime) -> timedelta:
        """The working time from one instant to a later one; none where `end` is not later."""
        start, end = _aware(start).astimezone(UTC), _aware(end).astimezone(UTC)
        if end - start > WORKING_TIME_MAX * 4:
            raise ValueError(f"more than {WORKING_TIME_MAX * 4}")
        passed = NO_TIME
        day, last = start.astimezone(self.zone).date(), end.astimezone(self.zone).date()
        while day <= last:
            for begins, ends in self._spans(day):
                passed += max(min(ends, end) - max(begins, start), NO_TIME)
            day += ONE_DAY
        return passed

    def _spans_from(self, instant: datetime, step: timedelta) -> Iterator[tuple[datetime, datetime]]:
        """The working spans of the instant's day and of those after it, or before it; raises CalendarExhausted."""
        day = instant.astimezone(self.zone).date()
        empty = 0
        while empty < SEARCHED_DAYS_MAX:
            spans = self._spans(day)
            empty = 0 if spans else empty + 1
            yield from spans if step > NO_TIME else reversed(spans)
            day += step
        raise CalendarExhausted(f"no working hour within {SEARCHED_DAYS_MAX} days of {day}")

    def _spans(self, day: date) -> list[tuple[datetime, datetime]]:
        """The spans of a day in which time passes, in order and apart, whatever is done to the clocks on it."""
        if not self.is_working_day(day):
            return []
        reached, end_of_day = self.at(day, MIDNIGHT), self.at(day + ONE_DAY, MIDNIGHT)
        found: list[tuple[datetime, datetime]] = []
        for span in self.hours:
            start = max(self.at(day, span.start), reached)
            end = end_of_day if span.end == MIDNIGHT else min(self.at(day, span.end), end_of_day)
            if start < end:
                found.append((start, end))
                reached = end
        return found


def _aware(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError(f"{instant} has no time zone")
    return instant


def _worked_time(worked: timedelta) -> timedelta:
    if not NO_TIME <= worked <= WORKING_TIME_MAX:
        raise ValueError(f"a working time is 0 to {WORKING_TIME_MAX}, not {worked}")
    return worked
