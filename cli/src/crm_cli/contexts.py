"""The contexts that there are, as far as somebody who looks at their stores from outside needs them."""

from dataclasses import dataclass
from typing import Final

from chassis.relay import Words
from chassis.settings import Settings
from contracts.topics import EVENTS, Topic
from customer import catalogue as customer_catalogue
from customer import publishing as customer_publishing
from sync_ingest import journal as ingest_journal
from sync_ingest import publishing as ingest_publishing

from crm_cli.running import settings_of


@dataclass(frozen=True, slots=True)
class Context:
    """A context: its store, what of it is published, and where."""

    name: str
    schema: str
    words: Words

    @property
    def topic(self) -> Topic:
        """The topic of its events."""
        return EVENTS[self.name]


def settings() -> Settings:
    """Where the servers are."""
    return settings_of(Settings)


CONTEXTS: Final[dict[str, Context]] = {
    each.name: each
    for each in (
        Context("ingest", ingest_journal.SCHEMA, ingest_publishing.published),
        Context("customer", customer_catalogue.SCHEMA, customer_publishing.published),
    )
}
