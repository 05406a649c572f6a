"""Erasing a customer, purpose by purpose, and the legal holds (法定冻结保全) that forbid it.

What is kept for contact may go before what is kept of the relation. Then the rest has a day on which it is looked at again.
A legal hold holds all of a customer: nothing of it is erased while one stands.
"""

from collections.abc import Sequence
from datetime import date
from typing import assert_never

from msgspec import structs

from customer.domain.commands import (
    DeferErasure,
    EraseContact,
    EraseCustomer,
    LiftLegalHold,
    PlaceLegalHold,
)
from customer.domain.events import (
    CONTACT,
    CustomerContactErased,
    CustomerErased,
    ErasureDeferred,
    ErasurePreparationEnded,
    LegalHoldLifted,
    LegalHoldPlaced,
)
from customer.domain.refusals import (
    LEGAL_HOLDS_MAX,
    LegalHoldEnded,
    LegalHoldStands,
    LegalHoldUnknown,
    TooManyLegalHolds,
)
from customer.domain.state import Customer

ErasureCommand = EraseCustomer | EraseContact | DeferErasure | PlaceLegalHold | LiftLegalHold
ErasureEvent = CustomerErased | CustomerContactErased | ErasureDeferred | LegalHoldPlaced | LegalHoldLifted


def decide_erasure(  # noqa: PLR0911 (one arm per command)
    command: ErasureCommand, customer: Customer
) -> Sequence[ErasureEvent | ErasurePreparationEnded]:
    """The events of a command; raises LegalHoldStands, LegalHoldEnded, LegalHoldUnknown, TooManyLegalHolds."""
    match command:
        case EraseCustomer(parties, accounts, on):
            _check_holds(customer, on)
            return [CustomerErased(parties=parties, accounts=accounts), *_preparation_ended(customer)]
        case EraseContact(parties, rest_from, on):
            if customer.contact_erased:
                return []
            _check_holds(customer, on)
            return [CustomerContactErased(parties, rest_from), *_preparation_ended(customer)]
        case DeferErasure(rest_from):
            # The same day again too: the event sets the timer, and one that was given does not come again.
            return [] if customer.rest_from is None else [ErasureDeferred(rest_from)]
        case PlaceLegalHold(hold, until, on):
            if until is not None and until <= on:
                raise LegalHoldEnded
            if hold in customer.holds:
                return []
            if len(standing(customer, on)) >= LEGAL_HOLDS_MAX:
                raise TooManyLegalHolds
            return [LegalHoldPlaced(hold, until)]
        case LiftLegalHold(hold):
            if hold not in customer.holds:
                raise LegalHoldUnknown
            return [LegalHoldLifted(hold, customer.rest_from)]
        case _:
            assert_never(command)


def evolve_erasure(customer: Customer, event: ErasureEvent) -> Customer:
    """The customer after an event."""
    match event:
        case CustomerErased(parties):
            # A number that is not the customer's today, or that nobody confirmed, is free for whom it belongs to.
            bare = {
                party: structs.replace(link, key="", described=None, earlier=None)
                for party, link in customer.links.items()
                if party in parties
            }
            return Customer(origin=customer.origin, kind=customer.kind, links=bare, erased=True)
        case CustomerContactErased(rest_from=rest_from):
            return structs.replace(
                customer,
                values={field: value for field, value in customer.values.items() if field not in CONTACT},
                last={},
                contradictions={},
                links={
                    party: structs.replace(link, described=None) for party, link in customer.links.items()
                },
                contact_erased=True,
                rest_from=rest_from,
                review_due_on=None,
                tier_override=None,
            )
        case ErasureDeferred(rest_from):
            return structs.replace(customer, rest_from=rest_from)
        case LegalHoldPlaced(hold, until):
            return structs.replace(customer, holds={**customer.holds, hold: until})
        case LegalHoldLifted(hold):
            holds = {one: until for one, until in customer.holds.items() if one != hold}
            return structs.replace(customer, holds=holds)
        case _:
            assert_never(event)


def standing(customer: Customer, on: date) -> list[date | None]:
    """Until when each legal hold stands that stands on a business date; None for one without an end. The last day is the one
    before."""
    return [until for until in customer.holds.values() if until is None or on < until]


def _check_holds(customer: Customer, on: date) -> None:
    holds = standing(customer, on)
    if None in holds:
        raise LegalHoldStands("until it is lifted")
    if holds:
        raise LegalHoldStands(f"until {max(until for until in holds if until is not None)}")


def _preparation_ended(customer: Customer) -> list[ErasurePreparationEnded]:
    if customer.preparation is None:
        return []
    return [ErasurePreparationEnded(customer.preparation, "erased")]
