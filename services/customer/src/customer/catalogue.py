"""The stored names of this context's events, and the upcasters of their older versions."""

from typing import Final

from chassis.bulk import BULK_RUNS
from chassis.exports import EXPORTS
from chassis.files import FILES
from chassis.lists.searching import SEARCHES
from chassis.notices import NOTICES
from chassis.proposals import PROPOSALS
from chassis.sagas import SAGAS
from chassis.timers.business_days import STORED_BUSINESS_DAYS
from chassis.write.catalogue import Catalogue
from chassis.write.operations import OPERATIONS

from customer.domain.events import STORED_NAMES, UPCASTS
from customer.domain.tag import TAGS
from customer.domain.tier_rules import TIER_RULES

CONTEXT: Final = "customer"
SCHEMA: Final = "store_customer"
INGEST: Final = "ingest"
"""The context whose sealed values this one opens beside its own, and which its sagas give commands to."""


def catalogue() -> Catalogue:
    """Returns a new catalogue for each caller, because a catalogue caches the encoding of the last metadata."""
    return Catalogue(
        store=CONTEXT,
        entries=STORED_NAMES
        | STORED_BUSINESS_DAYS
        | OPERATIONS
        | PROPOSALS
        | BULK_RUNS
        | SEARCHES
        | SAGAS
        | FILES
        | EXPORTS
        | NOTICES
        | TAGS
        | TIER_RULES,
        upcasts=UPCASTS,
    )
