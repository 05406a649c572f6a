"""The HTTP of all services in one application, as `crm up` serves it on `CRM_PORT`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from chassis.connections.settings import Settings
from chassis.messaging.asyncapi import add_asyncapi, described
from chassis.observability.metrics import Beside
from chassis.service import Service, services
from chassis.web import create_app
from chassis.web.consistency import Heads
from chassis.write.store import EventStore
from starlette.types import ASGIApp

from crm_cli.running import running, settings_of

TITLE = "CRM"


def _metrics_of_others() -> dict[str, str]:
    """The addresses of the metrics of the other processes of this `crm up`."""
    here = running()
    parts = {} if here is None else here.parts
    return {name: f"{part.url}/metrics" for name, part in parts.items() if name != "web" and part.url}


def _heads_beside(stack: AsyncExitStack, service: Service[Any], postgres_url: str) -> Heads:
    """The last positions of the stores of the other contexts."""
    found = {}
    for other in services():
        if other is not service:
            store = EventStore(postgres_url, other.context.schema, connections_max=1)
            stack.push_async_callback(store.close)
            found[other.context.name] = store.head_position
    return found


@asynccontextmanager
async def web_app(given: Callable[[type[Any]], Any] = settings_of) -> AsyncIterator[ASGIApp]:
    """One application with the routes of every service; closes what they hold after the last answer.

    `given`: the settings of a kind.
    """
    settings: Settings = given(Settings)
    async with AsyncExitStack() as stack:
        served = [
            await stack.enter_async_context(
                service.routes(given(service.settings), _heads_beside(stack, service, settings.postgres_url))
            )
            for service in services()
        ]
        app = create_app(
            TITLE,
            [each.router for each in served],
            settings,
            body_limits={path: limit for each in served for path, limit in each.body_limits.items()},
            readiness=[each.not_ready for each in served],
            measures=[
                *(measure for each in served for measure in each.measures),
                Beside(_metrics_of_others).measure,
            ],
        )
        taken = [each for service in services() for each in service.taken]
        add_asyncapi(app, described(taken, brokers=settings.kafka_url))
        yield app
