"""The way over Kafka: what a record is, how records are published, and how they are consumed.

`Publisher` is a port: Kafka in production, the simulation's broker in the simulation.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

Header = tuple[str, bytes]


class Record(NamedTuple):
    """One record of a topic. `offset` is the broker's, None on the way there."""

    topic: str
    partition: int
    key: bytes
    headers: tuple[Header, ...] | list[Header]
    value: bytes
    offset: int | None = None


class PublishFailed(ConnectionError):
    """Not every record was acknowledged; those that were are on the broker. Publish all of them again."""


class Publisher(Protocol):
    """Where records go."""

    async def publish(self, records: Sequence[Record]) -> None:
        """Returns when every record is acknowledged by all replicas in sync; raises PublishFailed otherwise.

        Records of one partition arrive in the order given. After PublishFailed any of them may have arrived.
        """
        ...
