"""The stored names of this context's events, and the way up from their older versions."""

from typing import Final

from chassis.write.catalogue import Catalogue
from chassis.write.operations import OPERATIONS

from customer.domain.events import STORED_NAMES, registered_v1_to_v2

CONTEXT: Final = "customer"
SCHEMA: Final = "store_customer"


def catalogue() -> Catalogue:
    """A catalogue of its own for each that asks, because it keeps the encoding of the last metadata."""
    return Catalogue(
        store=CONTEXT,
        entries=STORED_NAMES | OPERATIONS,
        upcasts={("customer-registered", 1): registered_v1_to_v2},
    )
