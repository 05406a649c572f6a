"""The contexts that there are, as far as somebody who looks at their stores from outside needs them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chassis.connections.settings import Settings
from chassis.write.events import Event
from chassis.write.operations import OPERATIONS
from contracts.topics import EVENTS, Topic
from customer import catalogue as customer_catalogue
from customer import publishing as customer_publishing
from customer.domain.events import STORED_NAMES as CUSTOMER_EVENTS
from sync_ingest import publishing as ingest_publishing
from sync_ingest.archive import STORE_SCHEMA as INGEST_SCHEMA
from sync_ingest.domain.events import STORED_NAMES as INGEST_EVENTS

from crm_cli.running import settings_of

if TYPE_CHECKING:
    from chassis.relay import Words


@dataclass(frozen=True, slots=True)
class Context:
    """A context: its store, what of it is published, and where."""

    name: str
    schema: str
    words: "Words"
    stored_names: Mapping[str, type[Event]]

    @property
    def topic(self) -> Topic:
        """The topic of its events."""
        return EVENTS[self.name]


def settings() -> Settings:
    """Where the servers are."""
    return settings_of(Settings)


def reading_settings() -> Settings:
    """Where the servers are, for a command that only reads: as the auditor, where the environment says how."""
    return settings_of(Settings, reading=True)


CONTEXTS: Final[dict[str, Context]] = {
    each.name: each
    for each in (
        Context("ingest", INGEST_SCHEMA, ingest_publishing.published, INGEST_EVENTS),
        Context(
            "customer",
            customer_catalogue.SCHEMA,
            customer_publishing.published,
            CUSTOMER_EVENTS | OPERATIONS,
        ),
    )
}
