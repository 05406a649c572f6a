"""Ids of customers: derived from what makes them the same customer, so that a repeat meets itself."""

from uuid import UUID, uuid5

from contracts.identity import CRM_NAMESPACE

from customer.domain.customer import CustomerId


def customer_of_party(party: UUID) -> CustomerId:
    """The customer that master data registers for a party."""
    return CustomerId(uuid5(CRM_NAMESPACE, f"customer:party:{party}"))


def customer_of_command(actor: str, idempotency_key: str) -> CustomerId:
    """The customer that a caller registers with a command; the same command again means the same customer."""
    return CustomerId(uuid5(CRM_NAMESPACE, f"customer:command:{len(actor)}:{actor}:{idempotency_key}"))
