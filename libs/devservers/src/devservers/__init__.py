"""Real PostgreSQL, MongoDB and Kafka as child processes, from packages."""

from devservers.fleet import NAMES, VARIABLES, Servers, servers
from devservers.postgres import forget_other_postgres
from devservers.processes import (
    DataFolderUnusable,
    FolderLock,
    ServerFailed,
    ServerUnavailable,
    free_port,
    made_folder,
    port_is_free,
    process_began,
    stop_stranger,
    wrapped,
)

__all__ = [
    "NAMES",
    "VARIABLES",
    "DataFolderUnusable",
    "FolderLock",
    "ServerFailed",
    "ServerUnavailable",
    "Servers",
    "forget_other_postgres",
    "free_port",
    "made_folder",
    "port_is_free",
    "process_began",
    "servers",
    "stop_stranger",
    "wrapped",
]
