"""All services in one process over servers of their own, with spans kept: for what only the whole can show."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.clock import SystemClock
from chassis.messaging.transport import KafkaPublisher
from chassis.observability import telemetry
from chassis.privacy.tokens import development_token
from chassis.read.mongo import Mongo
from contracts.identity import ExternalIds
from crm_cli import demo_bank
from crm_cli.demo_bank import DemoBank, DemoPlan
from crm_cli.migrate import migrated
from crm_cli.web import web_app
from customer.settings import CustomerSettings
from devservers import servers
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from sync_ingest import bootstrap as ingest_service
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings
from typing_extensions import override

from tests.support.roles import FOLLOWING, heads, hosted, roles_of_all, settings_of

CLOCK = SystemClock()
PATIENCE_SECONDS = 60.0
PLAN = DemoPlan(customers=25, days=60, duplicates=10, late=10, reversals=5, malformed=len(demo_bank.SPOILERS))


class Spans(SpanExporter):
    """Keeps every span."""

    def __init__(self) -> None:
        self.all: list[ReadableSpan] = []

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.all += spans
        return SpanExportResult.SUCCESS

    def of(self, trace_id: str) -> list[ReadableSpan]:
        """The spans of a trace."""
        return [span for span in self.all if span.context and f"{span.context.trace_id:032x}" == trace_id]


@dataclass
class System:
    """The services, and what tests need of them."""

    customer: CustomerSettings
    ingest: SyncIngestSettings
    folder: Path
    spans: Spans
    web: httpx.AsyncClient
    mongo: Mongo
    publisher: KafkaPublisher
    tasks: "list[asyncio.Task[None]]"

    def take_in(self, source: str, content: bytes, name: str = "feed.jsonl") -> Any:
        """A feed, through the real ingest."""
        with ingest_service.opened(self.ingest) as ingest:
            return ingest.run(source, [FeedContent(name, lambda: io.BytesIO(content))], format="canonical")

    def ids(self) -> ExternalIds:
        """How external ids become ids here."""
        with ingest_service.opened(self.ingest) as ingest:
            return ingest.ids

    def heads(self) -> dict[str, int]:
        """The last position of each context."""
        return heads(self.ingest.postgres_url)

    async def caught_up(self) -> None:
        """Waits until nothing moves any more: every view shows all that is stored, and no policy adds to it."""
        until = CLOCK.monotonic() + PATIENCE_SECONDS
        before: dict[str, int] = {}
        while before != (heads := await asyncio.to_thread(self.heads)):
            before = heads
            for context, position in heads.items():
                await self._shown(context, position, until)
            await asyncio.sleep(0.5)

    async def _shown(self, context: str, position: int, until: float) -> None:
        while True:
            assert CLOCK.monotonic() < until, f"{context}-{position} is not shown"
            assert not any(task.done() for task in self.tasks), [task for task in self.tasks if task.done()]
            asked: dict[str, str | int] = {"limit": 1, "at_least": f"{context}-{position}"}
            lists = ("/customers", "/customers/selection") if position else ()
            answers = [await self.web.get(of_view, params=asked) for of_view in lists]
            if all(answer.status_code == 200 for answer in answers):
                return
            await asyncio.sleep(0.1)

    async def panorama(self, reference: str) -> dict[str, Any]:
        """What a caller is shown of who bears the reference."""
        [one] = (await self.web.get("/customers", params={"reference": reference})).json()["items"]
        answer = await self.web.get(f"/customers/{one['customer_id']}/panorama")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown


@pytest.fixture(scope="session")
def bank() -> DemoBank:
    """The bank whose feed was taken in."""
    return demo_bank.make(PLAN)


@pytest.fixture(scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory, bank: DemoBank) -> AsyncIterator[System]:
    """Everything runs, and the bank's feed has become panoramas."""
    folder = tmp_path_factory.mktemp("system")
    async with AsyncExitStack() as stack:
        started = await asyncio.to_thread(
            stack.enter_context,
            servers(folder, {"postgres", "mongo", "kafka"}, lambda _: None, durable=False),
        )
        places: dict[str, Any] = {
            "postgres_url": started.urls["POSTGRES_URL"],
            "mongo_url": started.urls["MONGO_URL"],
            "kafka_url": started.urls["KAFKA_URL"],
            "data": folder,
            "environment": "development",
        }
        customer, ingest = CustomerSettings(**places), SyncIngestSettings(**places)
        migrated(ingest)
        spans = Spans()
        telemetry.configure_tracing("crm", exporter=spans)
        stack.callback(telemetry.configure_tracing, "crm")
        mongo = Mongo.connect(customer.mongo_url)
        stack.push_async_callback(mongo.close)
        publisher = KafkaPublisher(customer.kafka_url)
        stack.push_async_callback(publisher.close)
        stopping = asyncio.Event()
        making = roles_of_all(customer, FOLLOWING | {"feed"}).values()
        tasks = [asyncio.create_task(hosted(make, stopping)) for make in making]

        async def stop() -> None:
            stopping.set()
            await asyncio.gather(*tasks)

        stack.push_async_callback(stop)
        app = await stack.enter_async_context(web_app(lambda kind: settings_of(kind, customer)))
        token = development_token(customer, CLOCK.now())
        web = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://crm",
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )
        system = System(
            customer,
            ingest,
            folder,
            spans,
            await stack.enter_async_context(web),
            mongo,
            publisher,
            tasks,
        )
        await asyncio.to_thread(system.take_in, PLAN.source, bank.feed)
        await system.caught_up()
        yield system


def lines(*records: dict[str, Any]) -> bytes:
    """A canonical feed."""
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)
