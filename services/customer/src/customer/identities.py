"""Ids of customers, derived from the party or the command that registers them.

A repeat therefore gives the same id.
"""

from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

from contracts.identity import CRM_NAMESPACE

from customer.domain.state import CustomerId

PARTIES_CACHED_MAX: Final = 4_096
"""A policy asks twice for each party of a batch."""


@lru_cache(PARTIES_CACHED_MAX)
def customer_of_party(party: UUID) -> CustomerId:
    """The customer that master data registers for a party."""
    return CustomerId(uuid5(CRM_NAMESPACE, f"customer:party:{party}"))


def customer_of_command(actor: str, idempotency_key: str) -> CustomerId:
    """The customer that a caller registers with a command. The same command again gives the same customer."""
    return CustomerId(uuid5(CRM_NAMESPACE, f"customer:command:{len(actor)}:{actor}:{idempotency_key}"))
