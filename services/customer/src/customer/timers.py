"""The timers of customer: what is done at a time that an event has set."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from chassis.clock import Clock
from chassis.timers import Timers
from chassis.timers.business_days import business_day_timer, business_days_decider, open_first_day
from chassis.write.handling import CommandHandler

from customer.catalogue import CONTEXT, catalogue
from customer.connections import write_side
from customer.settings import CustomerSettings


@asynccontextmanager
async def timers(settings: CustomerSettings, clock: Clock) -> AsyncIterator[Timers]:
    """Opens what the commands of the timers are given to."""
    calendar = settings.calendar
    async with write_side(settings, clock) as write:
        days = CommandHandler(business_days_decider, write.store, catalogue(), write.ring)
        yield Timers(
            [business_day_timer(days, calendar)],
            write.store,
            catalogue(),
            partial(open_first_day, days, CONTEXT, calendar),
        )
