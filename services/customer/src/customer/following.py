"""The roles that follow the topics: one keeps the views, one runs the policies."""

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from chassis.clock import Clock, SystemClock
from chassis.mongo import Mongo
from chassis.reacting import Policy, PolicyRunner
from chassis.transport import KafkaPublisher, ensure_topics
from chassis.viewing import ViewRunner
from contracts.topics import INGEST_EVENTS, TOPICS

from customer.connections import write_side
from customer.policies import when_party_described_then_register_customer as described
from customer.settings import CustomerSettings
from customer.views import VIEWS

SERVICE: Final = "customer"


class ViewsRole:
    """Keeps the views of this service, with connections of its own."""

    name: Final = "customer-views"

    def __init__(self, settings: CustomerSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._runner: ViewRunner | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`; raises ConnectionError where a server is lost."""
        settings = self._settings
        await ensure_topics(settings.kafka_url, TOPICS)
        async with AsyncExitStack() as stack:
            mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
            stack.push_async_callback(mongo.close)
            publisher = KafkaPublisher(settings.kafka_url, client_id=self.name)
            stack.push_async_callback(publisher.close)
            self._runner = ViewRunner(
                self.name,
                VIEWS,
                service=SERVICE,
                mongo=mongo,
                kafka_url=settings.kafka_url,
                publisher=publisher,
                clock=self._clock,
            )
            await self._runner.run(stopping)

    def not_ready(self) -> list[str]:
        """Which views do not show what is known."""
        return ["starting"] if self._runner is None else self._runner.not_ready()


class PoliciesRole:
    """Runs the policies of this service, with connections of its own."""

    name: Final = "customer-policies"

    def __init__(self, settings: CustomerSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._runner: PolicyRunner | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`; raises ConnectionError where a server is lost."""
        settings = self._settings
        await ensure_topics(settings.kafka_url, TOPICS)
        async with AsyncExitStack() as stack:
            write = await stack.enter_async_context(write_side(settings, self._clock))
            mongo = Mongo.connect(settings.mongo_url, settings.mongo_driver)
            stack.push_async_callback(mongo.close)
            publisher = KafkaPublisher(settings.kafka_url, client_id=self.name)
            stack.push_async_callback(publisher.close)
            register = described.RegisterDescribed(write.handler, write.store, write.ring, self._clock)
            policy = Policy(described.NAME, (INGEST_EVENTS.name,), frozenset({described.EVENT}), register)
            self._runner = PolicyRunner(
                self.name,
                [policy],
                service=SERVICE,
                mongo=mongo,
                kafka_url=settings.kafka_url,
                publisher=publisher,
                clock=self._clock,
            )
            await self._runner.run(stopping)

    def not_ready(self) -> list[str]:
        """Why policies do not react."""
        return ["starting"] if self._runner is None else self._runner.not_ready()
