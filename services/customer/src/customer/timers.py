"""The timers of customer: what is done at a time that an event has set."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date
from functools import partial

from chassis.calendar import Calendar
from chassis.clock import Clock
from chassis.sagas import TIMEOUT, saga_timer
from chassis.timers import Change, Due, SetTimer, Timer, TimerRule, Timers, WithdrawTimer, given_by
from chassis.timers.business_days import (
    business_day_rule,
    business_day_timer,
    business_days_decider,
    open_first_day,
)
from chassis.write.events import RecordedEvent
from chassis.write.handling import CommandHandler

from customer.application import Handler
from customer.catalogue import CONTEXT, catalogue
from customer.connections import write_side
from customer.domain.commands import RemindOfReview
from customer.domain.events import CustomerErased, CustomerReviewed, NamedKeyCustomer, NoLongerKeyCustomer
from customer.sagas import handler_of
from customer.settings import CustomerSettings


def review_rule(calendar: Calendar) -> TimerRule:
    """A review is reminded of on the morning of the day on which it is due, or of the first working day after it (R020)."""

    def changes(recorded: RecordedEvent) -> Sequence[Change]:
        match recorded.event:
            case NamedKeyCustomer(due_on) | CustomerReviewed(review_due_on=due_on):
                morning = calendar.at(calendar.next_working_day(due_on), calendar.hours[0].start)
                return [SetTimer(morning, data={"due_on": due_on.isoformat()})]
            case NoLongerKeyCustomer() | CustomerErased():
                return [WithdrawTimer()]
            case _:
                return []

    events = frozenset(
        {"named-key-customer", "customer-reviewed", "no-longer-key-customer", "customer-erased"}
    )
    return TimerRule("customer-review", 1, events, changes)


def review_timer(handler: Handler, calendar: Calendar) -> Timer:
    """Reminds of a review."""

    def command(due: Due) -> RemindOfReview:
        return RemindOfReview(date.fromisoformat(due.data["due_on"]))

    return review_rule(calendar).giving(given_by(handler, command))


def rules(settings: CustomerSettings) -> tuple[TimerRule, ...]:
    """When the timers are due."""
    return business_day_rule(settings.calendar), review_rule(settings.calendar), TIMEOUT


@asynccontextmanager
async def timers(settings: CustomerSettings, clock: Clock) -> AsyncIterator[Timers]:
    """Opens what the commands of the timers are given to."""
    calendar = settings.calendar
    async with write_side(settings, clock) as write:
        days = CommandHandler(business_days_decider, write.store, catalogue(), write.ring)
        yield Timers(
            [
                business_day_timer(days, calendar),
                review_timer(write.handler, calendar),
                saga_timer(handler_of(write)),
            ],
            write.store,
            catalogue(),
            partial(open_first_day, days, CONTEXT, calendar),
        )
