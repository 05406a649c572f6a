"""`business_day.opened`, once for each business date: the day's timer opens the next one.

The days of a context are a stream of its store. After an outage the days that were missed are opened one after the
other, each with what the calendar says of it.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Final, assert_never
from uuid import UUID, uuid5

import msgspec

from chassis.calendar import Calendar, DayKind
from chassis.timers.declaring import Change, Due, SetTimer, Timer, TimerRule, given_by
from chassis.write.deciding import CommandContext, Decider, VersionMismatch
from chassis.write.events import Event, RecordedEvent
from chassis.write.handling import CommandHandler

BUSINESS_DAY: Final = "business-day"
_NAMESPACE: Final = UUID("0a4bdb0e-6a55-5c0c-9d0e-9f5e6c1f5a31")
_ONE_DAY: Final = timedelta(days=1)


class BusinessDayOpened(Event, frozen=True):
    """A business date has begun. `announced`: the public holidays of its year were known then."""

    on: date
    kind: DayKind
    announced: bool


class OpenBusinessDay(msgspec.Struct, frozen=True):
    """Opens a business date; nothing where it, or a later one, is open."""

    on: date
    kind: DayKind
    announced: bool


class BusinessDays(msgspec.Struct, frozen=True):
    """The business date that was opened last."""

    on: date | None = None


STORED_BUSINESS_DAYS: Final[dict[str, type[Event]]] = {"business-day-opened": BusinessDayOpened}
"""The stored names, for the catalogue of a context."""

Handler = CommandHandler[OpenBusinessDay, BusinessDays, BusinessDayOpened]


def decide(command: OpenBusinessDay, days: BusinessDays) -> Sequence[BusinessDayOpened]:
    """The events of a command."""
    if days.on is not None and command.on <= days.on:
        return []
    return [BusinessDayOpened(command.on, command.kind, command.announced)]


def evolve(days: BusinessDays, event: BusinessDayOpened) -> BusinessDays:
    """The days after an event."""
    match event:
        case BusinessDayOpened():
            return BusinessDays(event.on)
        case _:
            assert_never(event)


business_days_decider: Final = Decider[OpenBusinessDay, BusinessDays, BusinessDayOpened](
    BusinessDays(), decide, evolve, BusinessDayOpened, state_type=BusinessDays
)


def business_days_stream(store: str) -> UUID:
    """The stream of the business dates of a context."""
    return uuid5(_NAMESPACE, f"business-days:{store}")


def business_day_rule(calendar: Calendar) -> TimerRule:
    """The next business date is opened when it begins."""

    def changes(recorded: RecordedEvent) -> Sequence[Change]:
        event = recorded.event
        if not isinstance(event, BusinessDayOpened):
            return []
        following = event.on + _ONE_DAY
        return [SetTimer(calendar.business_date_begins(following), data={"on": following.isoformat()})]

    return TimerRule(BUSINESS_DAY, 1, frozenset(STORED_BUSINESS_DAYS), changes)


def business_day_timer(handler: Handler, calendar: Calendar) -> Timer:
    """Opens the next business date when it begins."""

    def command(due: Due) -> OpenBusinessDay:
        return _opening(calendar, date.fromisoformat(due.data["on"]))

    return business_day_rule(calendar).giving(given_by(handler, command))


async def open_first_day(handler: Handler, store: str, calendar: Calendar, now: datetime) -> None:
    """Opens the business date of now where none was ever opened; its timer opens the others."""
    stream, today = business_days_stream(store), calendar.business_date(now)
    if (await handler.load(stream)).version:
        return
    context = CommandContext(
        actor=f"timer:{BUSINESS_DAY}", now=now, command_id=uuid5(stream, f"first:{today}")
    )
    with suppress(VersionMismatch):
        await handler.handle(stream, _opening(calendar, today), context, 0)


def _opening(calendar: Calendar, day: date) -> OpenBusinessDay:
    return OpenBusinessDay(day, calendar.kind_of(day), calendar.knows(day))
