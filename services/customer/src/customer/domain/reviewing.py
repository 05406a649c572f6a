"""Reviews of key customers: each is due one calendar month after the one before (R020)."""

from calendar import monthrange
from collections.abc import Sequence
from datetime import date
from typing import assert_never

from msgspec import structs

from customer.domain.commands import EndKeyCustomer, NameKeyCustomer, RemindOfReview, ReviewCustomer
from customer.domain.events import CustomerReviewed, NamedKeyCustomer, NoLongerKeyCustomer, ReviewFellDue
from customer.domain.refusals import NotAKeyCustomer
from customer.domain.state import Customer

ReviewCommand = NameKeyCustomer | EndKeyCustomer | ReviewCustomer | RemindOfReview
ReviewEvent = NamedKeyCustomer | NoLongerKeyCustomer | CustomerReviewed | ReviewFellDue


def decide_review(command: ReviewCommand, customer: Customer) -> Sequence[ReviewEvent]:
    """The events of a command; raises NotAKeyCustomer."""
    due_on = customer.review_due_on
    match command:
        case NameKeyCustomer(on):
            return [NamedKeyCustomer(month_after(on))] if due_on is None else []
        case EndKeyCustomer():
            return [] if due_on is None else [NoLongerKeyCustomer()]
        case ReviewCustomer(on):
            if due_on is None:
                raise NotAKeyCustomer
            # Of an earlier day than the one that the next is counted from: a later review is recorded already.
            return [] if month_after(on) < due_on else [CustomerReviewed(on, month_after(on))]
        case RemindOfReview(of):
            return [ReviewFellDue(of)] if due_on == of and not customer.review_reminded else []
        case _:
            assert_never(command)


def evolve_review(customer: Customer, event: ReviewEvent) -> Customer:
    """The customer after an event."""
    match event:
        case NamedKeyCustomer(due_on) | CustomerReviewed(review_due_on=due_on):
            # A review that is recorded late may leave the next one due on the day of which there was a reminder.
            reminded = customer.review_reminded and due_on == customer.review_due_on
            return structs.replace(customer, review_due_on=due_on, review_reminded=reminded)
        case NoLongerKeyCustomer():
            return structs.replace(customer, review_due_on=None, review_reminded=False)
        case ReviewFellDue():
            return structs.replace(customer, review_reminded=True)
        case _:
            assert_never(event)


def month_after(day: date) -> date:
    """The same day of the next month; its last day where it has no such day."""
    year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
    return date(year, month, min(day.day, monthrange(year, month)[1]))
