"""The relay publishes a context's event store to its topic: every event, in order per subject, at least once."""

from chassis.relay.loop import (
    Held,
    Hint,
    Log,
    Polling,
    Published,
    Relay,
    RelayPositions,
    Words,
)
from chassis.relay.postgres import RELAY_LEASE, Listening, PostgresPositions, StoreLog
from chassis.relay.role import RelayRole
from chassis.write.store.items import Fenced

__all__ = [
    "RELAY_LEASE",
    "Fenced",
    "Held",
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
    "Words",
]
