"""Real PostgreSQL, MongoDB and Kafka as child processes, from packages."""

from devservers.fleet import NAMES, VARIABLES, Servers, servers
from devservers.processes import DataFolderUnusable, ServerFailed, ServerUnavailable, port_is_free

__all__ = [
    "NAMES",
    "VARIABLES",
    "DataFolderUnusable",
    "ServerFailed",
    "ServerUnavailable",
    "Servers",
    "port_is_free",
    "servers",
]
