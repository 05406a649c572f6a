"""The event store of one context on PostgreSQL: recorder, micro-batching appender, async facade."""

from chassis.write.store.facade import EventStore
from chassis.write.store.items import (
    EVENT_BYTES_MAX,
    Append,
    Appended,
    AppendResult,
    Command,
    CommandSeen,
    Fence,
    Fenced,
    IdentityConflict,
    VersionConflict,
)
from chassis.write.store.recorder import Recorder
from chassis.write.store.schema import prepare, tables, writer_role

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
    "VersionConflict",
    "prepare",
    "tables",
    "writer_role",
]
