"""The timers of customer: what is done at a time that an event has set."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from chassis.calendar import Calendar
from chassis.clock import Clock
from chassis.notices import Notices, Wanted, of_role
from chassis.proposals.expiring import PROPOSAL_EXPIRES, expiring_timer
from chassis.proposals.telling import PROPOSAL_WAITS, waiting_timer
from chassis.sagas import TIMEOUT, saga_timer
from chassis.timers import Change, Due, SetTimer, Timer, TimerRule, Timers, WithdrawTimer, given_by
from chassis.timers.business_days import (
    business_day_rule,
    business_day_timer,
    business_days_decider,
    open_first_day,
)
from chassis.write.deciding import CommandContext, VersionMismatch
from chassis.write.events import RecordedEvent
from chassis.write.handling import CommandHandler
from contracts.roles import RELATIONSHIP_MANAGER
from msgspec import structs

from customer.application import CustomerService, Handler
from customer.catalogue import CONTEXT, catalogue
from customer.connections import notices_of, timers_side
from customer.domain.commands import EndTierOverride, RemindOfReview
from customer.domain.events import (
    CustomerContactErased,
    CustomerErased,
    CustomerRegistered,
    CustomerReviewed,
    ErasureDeferred,
    LegalHoldLifted,
    NamedKeyCustomer,
    NoLongerKeyCustomer,
    ReferenceClaimed,
    ReferenceConfirmed,
    ReferenceRejected,
    ReferenceUnlinked,
    TierAssessed,
    TierOverridden,
    TierOverrideEnded,
)
from customer.domain.refusals import CustomerIsErased, ReferenceSettled
from customer.domain.tier_rules import TierRuleVersions
from customer.months import month_after
from customer.notices import CLAIM_WAITS
from customer.notices import PROPOSAL_WAITS as PROPOSAL_TEXT
from customer.sagas import handler_of
from customer.settings import CustomerSettings
from customer.tiers import assessing

Facts = Callable[[UUID], Awaitable[Mapping[str, Any] | None]]
Rules = Callable[[], Awaitable[TierRuleVersions]]
CLAIMS_WAIT: Final = timedelta(hours=4)
"""The working time that a claimed number waits before somebody is asked to look at it."""
ASSESSED_WITHIN: Final = timedelta(hours=3)
"""A million customers are then fewer than a hundred in a second."""


def review_rule(calendar: Calendar) -> TimerRule:
    """A review is reminded of on the morning of the day on which it is due, or of the first working day after it (R020)."""

    def changes(recorded: RecordedEvent) -> Sequence[Change]:
        match recorded.event:
            case NamedKeyCustomer(due_on) | CustomerReviewed(review_due_on=due_on):
                morning = calendar.at(calendar.next_working_day(due_on), calendar.hours[0].start)
                return [SetTimer(morning, data={"due_on": due_on.isoformat()})]
            case NoLongerKeyCustomer() | CustomerErased() | CustomerContactErased():
                return [WithdrawTimer()]
            case _:
                return []

    events = frozenset(
        {
            "named-key-customer",
            "customer-reviewed",
            "no-longer-key-customer",
            "customer-erased",
            "customer-contact-erased",
        }
    )
    return TimerRule("customer-review", 1, events, changes)


def review_timer(handler: Handler, calendar: Calendar) -> Timer:
    """Reminds of a review."""

    def command(due: Due) -> RemindOfReview:
        return RemindOfReview(date.fromisoformat(due.data["due_on"]))

    return review_rule(calendar).giving(given_by(handler, command))


def erasure_rule(calendar: Calendar) -> TimerRule:
    """The rest of a customer is erased in the morning of the day on which its retention period ends (M22).

    It is looked at as soon as a hold is lifted too: the hold may have put that day off.
    """

    def changes(recorded: RecordedEvent) -> Sequence[Change]:
        match recorded.event:
            case LegalHoldLifted(rest_from=date()):
                return [SetTimer(recorded.metadata.recorded_at)]
            case CustomerContactErased(rest_from=rest_from) | ErasureDeferred(rest_from=rest_from):
                return [SetTimer(calendar.at(rest_from, calendar.hours[0].start))]
            case CustomerErased():
                return [WithdrawTimer()]
            case _:
                return []

    events = frozenset(
        {"customer-contact-erased", "erasure-deferred", "legal-hold-lifted", "customer-erased"}
    )
    return TimerRule("customer-erasure", 2, events, changes)


def erasure_timer(service: CustomerService, calendar: Calendar) -> Timer:
    """Erases the rest of a customer."""

    async def give(due: Due, context: CommandContext, version: int) -> Any:
        return await service.finish_erasure(due.subject, context, version)

    return erasure_rule(calendar).giving(give)


def claim_rule(calendar: Calendar) -> TimerRule:
    """A number that was claimed, and that nobody has confirmed or rejected after four working hours, is told of."""

    def changes(recorded: RecordedEvent) -> Sequence[Change]:
        match recorded.event:
            case ReferenceClaimed(_, party):
                due_at = calendar.after_working_time(recorded.metadata.recorded_at, CLAIMS_WAIT)
                return [SetTimer(due_at, str(party))]
            case ReferenceConfirmed(_, party) | ReferenceRejected(_, party) | ReferenceUnlinked(_, party):
                return [WithdrawTimer(str(party))]
            case _:
                return []

    def notice(due: Due) -> Sequence[tuple[UUID, UUID]]:
        return [(due.id, due.id)]

    events = frozenset(
        {"reference-claimed", "reference-confirmed", "reference-rejected", "reference-unlinked"}
    )
    return TimerRule("claim-waits", 1, events, changes, commands=notice)


def claim_timer(handler: Handler, notices: Notices, calendar: Calendar) -> Timer:
    """Tells those who look after customers, in the inbox of their role in the customer's branch, so that no other branch
    learns of the customer. The notice has the id of the timer."""

    async def give(due: Due, context: CommandContext, version: int) -> None:
        handler.forget(due.subject)
        customer = await handler.load(due.subject)
        if customer.version != version:
            raise VersionMismatch(version, customer.version)
        if customer.state.erased:
            raise CustomerIsErased
        link = customer.state.links.get(UUID(due.slot))
        if link is None or link.confirmed or link.until is not None:
            raise ReferenceSettled
        values = {"customer": str(due.subject)}
        inbox = of_role(RELATIONSHIP_MANAGER, customer.state.values.get("branch"))
        wanted = Wanted(due.subject, inbox, CLAIM_WAITS.name, values)
        await notices.request(due.id, wanted, context)

    return claim_rule(calendar).giving(give)


def tier_rule(calendar: Calendar) -> TimerRule:
    """The tier is assessed in the morning of the first day of each month, of the month before (R021). Customers are due at
    times of their own within `ASSESSED_WITHIN`, so that all of them do not come at once."""

    def after_month(customer: UUID, day: str) -> SetTimer:
        own_time = timedelta(seconds=customer.int % int(ASSESSED_WITHIN.total_seconds()))
        return SetTimer(_morning_after_month(calendar, day) + own_time)

    def changes(recorded: RecordedEvent) -> Sequence[Change]:
        match recorded.event:
            case CustomerRegistered():
                day = calendar.business_date(recorded.metadata.recorded_at).isoformat()
                return [after_month(recorded.stream_id, day)]
            case TierAssessed(month):
                return [after_month(recorded.stream_id, month_after(f"{month}-01"))]
            case CustomerErased() | CustomerContactErased():
                return [WithdrawTimer()]
            case _:
                return []

    events = frozenset({"customer-registered", "tier-assessed", "customer-erased", "customer-contact-erased"})
    return TimerRule("customer-tier", 2, events, changes)


def tier_timer(handler: Handler, facts: Facts, rules: Rules, calendar: Calendar) -> Timer:
    """Assesses the last whole month of a customer, however late the timer is. `facts`: those of a customer now. `rules`: all versions
    that were adopted before the running month.

    The assessment is effective from the morning after that month, also where the timer was set for one before it.
    """

    async def give(due: Due, context: CommandContext, version: int) -> Any:
        day = calendar.business_date(context.now).isoformat()
        command = assessing(await facts(due.subject), day, await rules())
        since = _morning_after_month(calendar, f"{command.month}-01")
        context = structs.replace(context, effective_at=since)
        return await handler.handle(due.subject, command, context, version, asked="assess-tier")

    return tier_rule(calendar).giving(give)


def _morning_after_month(calendar: Calendar, day: str) -> datetime:
    """When work begins on the first day of the month after that of a day."""
    return calendar.at(date.fromisoformat(month_after(day)), calendar.hours[0].start)


def override_rule(calendar: Calendar) -> TimerRule:
    """An override of a tier lapses when its business date begins (R022)."""

    def changes(recorded: RecordedEvent) -> Sequence[Change]:
        match recorded.event:
            case TierOverridden(valid_until=day):
                return [SetTimer(calendar.business_date_begins(day), data={"valid_until": day.isoformat()})]
            case TierOverrideEnded() | CustomerErased() | CustomerContactErased():
                return [WithdrawTimer()]
            case _:
                return []

    events = frozenset(
        {"tier-overridden", "tier-override-ended", "customer-erased", "customer-contact-erased"}
    )
    return TimerRule("tier-override-lapses", 1, events, changes)


def override_timer(handler: Handler, calendar: Calendar) -> Timer:
    """Ends an override of a tier on its date."""

    def command(due: Due) -> EndTierOverride:
        return EndTierOverride("lapsed", date.fromisoformat(due.data["valid_until"]))

    return override_rule(calendar).giving(given_by(handler, command))


def rules(settings: CustomerSettings) -> tuple[TimerRule, ...]:
    """When the timers are due."""
    calendar = settings.calendar
    own = business_day_rule(calendar), review_rule(calendar), erasure_rule(calendar), claim_rule(calendar)
    of_tiers = tier_rule(calendar), override_rule(calendar)
    return *own, *of_tiers, TIMEOUT, PROPOSAL_WAITS, PROPOSAL_EXPIRES


@asynccontextmanager
async def timers(settings: CustomerSettings, clock: Clock) -> AsyncIterator[Timers]:
    """Opens what the commands of the timers are given to."""
    calendar = settings.calendar
    async with timers_side(settings, clock) as (service, write):
        days = CommandHandler(business_days_decider, write.store, catalogue(), write.ring)
        notices = notices_of(write)
        yield Timers(
            [
                business_day_timer(days, calendar),
                review_timer(write.handler, calendar),
                erasure_timer(service, calendar),
                claim_timer(write.handler, notices, calendar),
                tier_timer(write.handler, service.facts_now, service.rulebook.versions, calendar),
                override_timer(write.handler, calendar),
                saga_timer(handler_of(write)),
                waiting_timer(service.eyes.kinds, notices, PROPOSAL_TEXT),
                expiring_timer(service.eyes),
            ],
            write.store,
            catalogue(),
            partial(open_first_day, days, CONTEXT, calendar),
        )
