"""The sagas of a context as a role of its own: the loop with its connections, from the settings."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

from typing_extensions import override

from chassis.clock import Clock
from chassis.connections.settings import Settings
from chassis.ending import closed
from chassis.observability import metrics
from chassis.process.leading import LeasedRole
from chassis.process.leases import Lease, PostgresLease
from chassis.relay.postgres import Listening
from chassis.sagas.loop import BROKEN, SagaLoop
from chassis.sagas.peers import HttpPeer, Peer, ServiceToken
from chassis.sagas.running import Sagas
from chassis.write.store import EventStore

SAGAS_LEASE: Final = "sagas"
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


class SagasRole(LeasedRole[SagaLoop]):
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
        super().__init__(f"{service}-sagas", clock)
        self._context = context
        self._schema = schema
        self._opened = opened
        self._settings = settings
        self._kinds: set[str] = set()

    @override
    async def _connected(self, stack: AsyncExitStack) -> SagaLoop:
        settings, clock = self._settings, self._clock
        opened = await stack.enter_async_context(self._opened(clock))
        row = PostgresLease(settings.postgres_url, self._schema, SAGAS_LEASE)
        hint = Listening(settings.postgres_url, self._schema, clock)
        for each in (row, hint):
            stack.push_async_callback(closed, each.close)
        return SagaLoop(
            self.name,
            opened.sagas,
            opened.store,
            Lease(row, clock),
            clock,
            hint=hint,
        )

    @override
    async def _measure(self, loop: SagaLoop) -> None:
        counts = loop.counts()
        self._kinds |= {kind for kind, _ in counts}
        for kind in self._kinds:
            for status in SHOWN:
                metrics.SAGAS_OPEN.labels(self._context, kind, status).set(counts[kind, status])
