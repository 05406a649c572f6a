"""The service sync-ingest, declared."""

from typing import Final

from chassis.messaging.asyncapi import Taken
from chassis.service import Context, Service
from contracts.topics import COREBANK_POSTINGS

from sync_ingest.api import create_router
from sync_ingest.bootstrap import roles, routes
from sync_ingest.domain.events import HIDES
from sync_ingest.domain.records import canonical_schema
from sync_ingest.ledger import CATALOGUE, SCHEMA, STORE
from sync_ingest.listening import EXAMPLE, HEADERS_SCHEMA
from sync_ingest.opening import TABLES
from sync_ingest.permissions import HIGH_PRIVILEGE, ROUTES
from sync_ingest.publishing import published
from sync_ingest.settings import SyncIngestSettings

SERVICE: Final = Service(
    name="sync-ingest",
    settings=SyncIngestSettings,
    tables=TABLES,
    context=Context(STORE, SCHEMA, published, lambda: CATALOGUE, HIDES),
    roles=roles,
    routes=lambda settings, _: routes(settings),
    router=create_router,
    rights=ROUTES,
    high_privilege=HIGH_PRIVILEGE,
    readers={"feed": (COREBANK_POSTINGS.name,)},
    own_roles={"feed": frozenset({"postgres", "keys", "kafka"})},
    taken=(Taken(COREBANK_POSTINGS, canonical_schema(), HEADERS_SCHEMA, (EXAMPLE,)),),
)
