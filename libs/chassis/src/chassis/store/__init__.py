"""The event store of one context on PostgreSQL: recorder, micro-batching appender, async facade."""

from chassis.store.facade import EventStore
from chassis.store.items import (
    EVENT_BYTES_MAX,
    Append,
    Appended,
    AppendResult,
    Command,
    CommandSeen,
    Fence,
    Fenced,
    IdentityConflict,
    StoreUnavailable,
    VersionConflict,
)
from chassis.store.recorder import Recorder
from chassis.store.schema import prepare, tables, writer_role

__all__ = [
    "EVENT_BYTES_MAX",
    "Append",
    "AppendResult",
    "Appended",
    "Command",
    "CommandSeen",
    "EventStore",
    "Fence",
    "Fenced",
    "IdentityConflict",
    "Recorder",
    "StoreUnavailable",
    "VersionConflict",
    "prepare",
    "tables",
    "writer_role",
]
