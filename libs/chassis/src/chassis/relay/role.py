"""The relay of a context as a role of its own: the loop with its connections, from URLs."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import structlog
from contracts.topics import EVENTS

from chassis.clock import Clock, SystemClock
from chassis.connections.migrating import require
from chassis.connections.settings import COMMANDS_KEPT_DAYS
from chassis.connections.transient import StoreUnavailable, why
from chassis.ending import ended
from chassis.messaging.answering import answering
from chassis.messaging.transport import KafkaPublisher, batch_bytes_max, ensure_topics
from chassis.observability import metrics
from chassis.process.leases import Lease, PostgresLease
from chassis.relay.loop import BATCH_EVENTS_MAX, RECORD_BYTES_MAX, Published, Relay, Words
from chassis.relay.postgres import RELAY_LEASE, Listening, PostgresPositions, StoreLog
from chassis.write.catalogue import Catalogue
from chassis.write.events import StoredEvent
from chassis.write.store.recorder import Recorder
from chassis.write.store.schema import tables

CLOSING_SECONDS_MAX: Final = 5
FRAMING_BYTES: Final = 1_024
"""The bytes of a batch of one record beside its key, headers and body."""
MEASURED_SECONDS: Final = 1.0
PRUNE_EVERY_SECONDS: Final = 600.0
PRUNE_PAUSE_SECONDS: Final = 0.5
PRUNED_AT_ONCE_MAX: Final = 5_000

_log = structlog.get_logger(__name__)


class RelayRole:
    """Waits for its schema, makes its topic where that is missing, then relays until it is told to stop."""

    def __init__(
        self,
        context: str,
        schema: str,
        words: Words,
        catalogue: Catalogue,
        *,
        postgres_url: str,
        kafka_url: str,
        clock: Clock | None = None,
        batch_max: int = BATCH_EVENTS_MAX,
        commands_kept_days: int = COMMANDS_KEPT_DAYS,
    ) -> None:
        clock = self._clock = clock or SystemClock()
        self._postgres_url = postgres_url
        self._kafka_url = kafka_url
        self._schema = schema
        self._topic = EVENTS[context]
        self._log = StoreLog(postgres_url, schema)
        self._pruner = Recorder(postgres_url, schema)
        self._commands_kept_days = commands_kept_days
        self._positions = PostgresPositions(postgres_url, schema, context)
        self._lease = PostgresLease(postgres_url, schema, RELAY_LEASE)
        self._publisher = KafkaPublisher(kafka_url, client_id=f"{context}-relay")
        self._hint = Listening(postgres_url, schema, clock)
        self._unanswered: Callable[[], list[str]] = list
        self.relay = Relay(
            context,
            self._topic,
            self._log,
            self._positions,
            Lease(self._lease, clock),
            self._publisher,
            partial(_known, catalogue, words),
            clock,
            hint=self._hint,
            batch_max=batch_max,
        )

    @property
    def name(self) -> str:
        """As in the logs and the metrics."""
        return self.relay.name

    def not_ready(self) -> list[str]:
        """Why no event is published."""
        return self._unanswered() + self.relay.not_ready()

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping` is set. Raises ConnectionError when a server is not there at the start."""
        try:
            await asyncio.to_thread(require, self._postgres_url, [tables(self._schema)])
            await ensure_topics(self._kafka_url, [self._topic], complete=False)
            await self._limit()
            beside = [asyncio.ensure_future(self._measure()), asyncio.ensure_future(self._prune())]
            try:
                async with answering(self._kafka_url, [self._topic], self._clock) as self._unanswered:
                    await self.relay.run(stopping)
            finally:
                await ended(*beside)
        finally:
            async with asyncio.timeout(CLOSING_SECONDS_MAX):
                await self._publisher.close()
                await self._hint.close()
                await self._positions.close()
                await self._lease.close()
            self._log.close()
            self._pruner.close()

    async def _limit(self) -> None:
        """Limits records and batches to this broker's limit, where that is lower than required."""
        room = await batch_bytes_max(self._kafka_url, self._topic.name) - FRAMING_BYTES
        self.relay.record_bytes_max = min(self.relay.record_bytes_max, room)
        self._publisher.batch_bytes_max = min(self._publisher.batch_bytes_max, room)
        if room < RECORD_BYTES_MAX:
            _log.error(
                "the broker takes too little", topic=self._topic.name, bytes=room, least=RECORD_BYTES_MAX
            )

    async def _prune(self) -> None:
        """Deletes commands that are too old to be repeated. The relay that leads does it, some at a time."""
        while True:
            while not self.relay.leading:
                await self._clock.sleep(MEASURED_SECONDS)
            try:
                while (
                    await asyncio.to_thread(
                        self._pruner.prune_commands, self._commands_kept_days, PRUNED_AT_ONCE_MAX
                    )
                    >= PRUNED_AT_ONCE_MAX
                ):
                    await self._clock.sleep(PRUNE_PAUSE_SECONDS)
            except StoreUnavailable as error:
                _log.warning("old commands wait to be deleted", context=self.relay.context, error=why(error))
            await self._clock.sleep(PRUNE_EVERY_SECONDS)

    async def _measure(self) -> None:
        """Sets the outbox's gauges.

        Its size counts positions, so it includes the gaps of aborted transactions.
        """
        context = self.relay.context
        while True:
            metrics.UNPUBLISHABLE.labels(context).set(self.relay.held)
            metrics.LEASE_HELD.labels(self.name).set(int(self.relay.leading))
            metrics.OUTBOX_AGE_SECONDS.labels(context).set(self.relay.outbox_age_seconds())
            with suppress(StoreUnavailable):
                left = await self._log.head_position() - self.relay.position if self.relay.leading else 0
                metrics.OUTBOX_EVENTS.labels(context).set(max(0, left))
            await self._clock.sleep(MEASURED_SECONDS)


def _known(catalogue: Catalogue, words: Words, stored: StoredEvent) -> Published | None:
    """The words for an event. A newer one is left to a newer process: with the words of an older version it would be
    published wrongly, and for ever."""
    catalogue.check(stored)
    return words(stored)
