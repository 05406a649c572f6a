"""The HTTP of all services in one application, as `crm up` serves it on `CRM_PORT`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from chassis.messaging.asyncapi import add_asyncapi, described
from chassis.observability.metrics import Beside
from chassis.web import create_app
from chassis.write.store import EventStore
from contracts.topics import COREBANK_POSTINGS
from customer import bootstrap as customer_service
from customer.settings import CustomerSettings
from starlette.types import ASGIApp
from sync_ingest import bootstrap as ingest_service
from sync_ingest.domain.records import canonical_schema
from sync_ingest.ledger import SCHEMA
from sync_ingest.listening import EXAMPLE, HEADERS_SCHEMA
from sync_ingest.settings import SyncIngestSettings

from crm_cli.running import running

TITLE = "CRM"


def _metrics_of_others() -> dict[str, str]:
    """Where the other processes of this `crm up` show their metrics."""
    here = running()
    parts = {} if here is None else here.parts
    return {name: f"{part.url}/metrics" for name, part in parts.items() if name != "web" and part.url}


def _head_of(stack: AsyncExitStack, postgres_url: str) -> Callable[[], Awaitable[int]]:
    """Where the store of ingest ends."""
    store = EventStore(postgres_url, SCHEMA, connections_max=1)
    stack.push_async_callback(store.close)
    return store.head_position


@asynccontextmanager
async def web_app(ingest: SyncIngestSettings, customer: CustomerSettings) -> AsyncIterator[ASGIApp]:
    """One application with the routes of every service; closes what they hold after the last answer."""
    async with AsyncExitStack() as stack:
        served = (
            await stack.enter_async_context(ingest_service.routes(ingest)),
            await stack.enter_async_context(
                customer_service.routes(customer, others={"ingest": _head_of(stack, ingest.postgres_url)})
            ),
        )
        app = create_app(
            TITLE,
            [each.router for each in served],
            ingest,
            body_limits={path: limit for each in served for path, limit in each.body_limits.items()},
            readiness=[each.not_ready for each in served],
            measures=[
                *(measure for each in served for measure in each.measures),
                Beside(_metrics_of_others).measure,
            ],
        )
        topic = COREBANK_POSTINGS.name
        add_asyncapi(
            app,
            described(
                {topic: canonical_schema()},
                headers={topic: HEADERS_SCHEMA},
                bodies={topic: [EXAMPLE]},
                brokers=ingest.kafka_url,
            ),
        )
        yield app
