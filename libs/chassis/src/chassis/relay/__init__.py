"""From a context's store to its topic: everything, in order per subject, at least once."""

from chassis.relay.loop import (
    Fenced,
    Hint,
    Log,
    Polling,
    Published,
    Relay,
    RelayPositions,
    Taken,
    Words,
)
from chassis.relay.postgres import Listening, PostgresPositions, StoreLog
from chassis.relay.role import RelayRole

__all__ = [
    "Fenced",
    "Hint",
    "Listening",
    "Log",
    "Polling",
    "PostgresPositions",
    "Published",
    "Relay",
    "RelayPositions",
    "RelayRole",
    "StoreLog",
    "Taken",
    "Words",
]
