"""Preparing an erasure: while it is prepared, no source releases records of the customer's parties."""

from collections.abc import Sequence
from typing import assert_never

from msgspec import structs

from customer.domain.commands import (
    AcceptErasurePreparation,
    BeginErasurePreparation,
    ConfirmErasurePreparation,
    EndErasurePreparation,
)
from customer.domain.events import ErasurePreparationBegun, ErasurePreparationEnded, ErasurePrepared
from customer.domain.refusals import ErasurePreparationOver
from customer.domain.state import Customer

PreparationCommand = (
    BeginErasurePreparation | AcceptErasurePreparation | ConfirmErasurePreparation | EndErasurePreparation
)
PreparationEvent = ErasurePreparationBegun | ErasurePrepared | ErasurePreparationEnded


def decide_preparation(command: PreparationCommand, customer: Customer) -> Sequence[PreparationEvent]:
    """The events of a command; raises ErasurePreparationOver."""
    current = customer.preparation
    match command:
        case BeginErasurePreparation(preparation, parties):
            return [] if current is not None else [ErasurePreparationBegun(preparation, parties)]
        case AcceptErasurePreparation(preparation) | ConfirmErasurePreparation(preparation):
            if current != preparation:
                raise ErasurePreparationOver
            if isinstance(command, AcceptErasurePreparation) or customer.prepared:
                return []
            return [ErasurePrepared(preparation)]
        case EndErasurePreparation(because, preparation):
            if current is None or preparation not in {None, current}:
                return []
            return [ErasurePreparationEnded(current, because)]
        case _:
            assert_never(command)


def evolve_preparation(customer: Customer, event: PreparationEvent) -> Customer:
    """The customer after an event."""
    match event:
        case ErasurePreparationBegun(preparation):
            return structs.replace(customer, preparation=preparation)
        case ErasurePrepared():
            return structs.replace(customer, prepared=True)
        case ErasurePreparationEnded():
            return structs.replace(customer, preparation=None, prepared=False)
        case _:
            assert_never(event)
