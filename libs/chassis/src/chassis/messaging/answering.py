"""Whether the servers of a role that follows topics answer."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from contracts.topics import Topic

from chassis.clock import Clock
from chassis.connections.answering import ReadinessCheck, checking_readiness
from chassis.messaging.transport import LeadersAsked

NO_KAFKA: Final = "Kafka does not answer"
NO_MONGODB: Final = "MongoDB does not answer"
_NO_OTHERS: Final[Mapping[str, ReadinessCheck]] = {}


@asynccontextmanager
async def answering(
    url: str, topics: Iterable[Topic], clock: Clock, others: Mapping[str, ReadinessCheck] = _NO_OTHERS
) -> AsyncIterator[Callable[[], list[str]]]:
    """Yields a function that returns which servers do not answer: the brokers of the topics, which are there, and others."""
    leaders = LeadersAsked(url, topics)
    try:
        async with checking_readiness({NO_KAFKA: leaders.ask, **others}, clock) as not_ready:
            yield not_ready
    finally:
        await leaders.close()
