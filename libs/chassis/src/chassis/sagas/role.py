"""The sagas of a context as a role of its own: the loop with its connections, from the settings."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

from chassis.clock import Clock, SystemClock
from chassis.connections.settings import Settings
from chassis.ending import closed, ended
from chassis.observability import metrics
from chassis.process.leases import Lease, PostgresLease
from chassis.relay.postgres import Listening
from chassis.sagas.loop import BROKEN, SagaLoop
from chassis.sagas.peers import HttpPeer, Peer, ServiceToken
from chassis.sagas.running import Sagas
from chassis.write.store import EventStore

SAGAS_LEASE: Final = "sagas"
MEASURED_SECONDS: Final = 1.0
SHOWN: Final = ("running", "compensating", "stuck", BROKEN)


class Opened(NamedTuple):
    """The sagas of a context over its open store."""

    sagas: Sagas
    store: EventStore


@asynccontextmanager
async def peers_of(settings: Settings, service: str, clock: Clock) -> AsyncIterator[Mapping[str, Peer]]:
    """The peers that the settings name, over HTTP."""
    token = ServiceToken(settings, service, clock)
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(HttpPeer(url, token))
            for name, url in settings.peer_urls.items()
        }


class SagasRole:
    """The role `<service>-sagas`, with connections of its own.

    `opened` opens the sagas with their peers.
    """

    def __init__(
        self,
        service: str,
        context: str,
        schema: str,
        opened: Callable[[Clock], AbstractAsyncContextManager[Opened]],
        settings: Settings,
        clock: Clock | None = None,
    ) -> None:
        self.name = f"{service}-sagas"
        self._context = context
        self._schema = schema
        self._opened = opened
        self._settings = settings
        self._clock = clock or SystemClock()
        self._loop: SagaLoop | None = None
        self._kinds: set[str] = set()

    def not_ready(self) -> list[str]:
        """Why no command is given."""
        return [f"{self.name}: starting"] if self._loop is None else self._loop.not_ready()

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`; raises ConnectionError where a server is not there at the start."""
        settings, clock = self._settings, self._clock
        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(self._opened(clock))
            row = PostgresLease(settings.postgres_url, self._schema, SAGAS_LEASE)
            hint = Listening(settings.postgres_url, self._schema, clock)
            for each in (row, hint):
                stack.push_async_callback(closed, each.close)
            loop = self._loop = SagaLoop(
                self.name,
                opened.sagas,
                opened.store,
                Lease(row, clock),
                clock,
                hint=hint,
            )
            measuring = asyncio.ensure_future(self._measure(loop))
            try:
                await loop.run(stopping)
            finally:
                await ended(measuring)

    async def _measure(self, loop: SagaLoop) -> None:
        while True:
            counts = loop.counts()
            self._kinds |= {kind for kind, _ in counts}
            for kind in self._kinds:
                for status in SHOWN:
                    metrics.SAGAS_OPEN.labels(self._context, kind, status).set(counts[kind, status])
            metrics.LEASE_HELD.labels(self.name).set(int(loop.leading))
            await self._clock.sleep(MEASURED_SECONDS)
