"""A record of a topic, as everything here reads and writes it."""

from collections.abc import Sequence
from typing import NamedTuple

from contracts.envelope import Header


class Record(NamedTuple):
    """One record of a topic. The broker sets `offset`; it is None before that."""

    topic: str
    partition: int
    key: bytes
    headers: Sequence[Header]
    value: bytes
    offset: int | None = None
