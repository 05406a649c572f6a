"""The one list of transient errors: errors of the environment, not of the work that met them.

A consumer or role that meets one stops, reports the reason, commits nothing and tries again. Such an error
never parks a subject, writes a dead letter, sets an intake aside or ends a process.
"""

from typing import Final

import psycopg
from psycopg import errors

WHY_CHARACTERS_MAX: Final = 200


class Transient(Exception):
    """Base of our own transient errors, which no driver raises."""


class ServerLost(Transient):
    """A server did not answer, or cannot do its work just now. The requested write may have happened."""


class StoreUnavailable(ServerLost):
    """The database did not answer; whether the write happened is unknown.

    Ask again with the same command key.
    """


DATABASE_LOST: Final[tuple[type[Exception], ...]] = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
)
"""Errors of PostgreSQL after which a new connection may succeed.

By SQLSTATE: connection lost (08), the database is read-only during a failover (25006) or ended an idle
transaction (25P03), serialization and deadlock (40), disk full, out of memory or connections (53), locks
and objects in use (55), cancelled, shut down or not started yet (57), an error of its system or of itself
(58, XX).
"""

LOST: Final[tuple[type[Exception], ...]] = (ServerLost, *DATABASE_LOST, ConnectionError, TimeoutError)
"""A server that does not answer: the same call may succeed within seconds."""

TRANSIENT: Final[tuple[type[Exception], ...]] = (
    *LOST,
    Transient,
    OSError,  # a key file that may not be read, a full disk, no more open files
    MemoryError,
    errors.InsufficientPrivilege,  # a right, role or schema that is not there yet, or not any more
    errors.InvalidAuthorizationSpecification,
    errors.InvalidCatalogName,
    errors.InvalidSchemaName,
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
)
"""All transient errors, for `except`. Only `is_transient` recognises an exception group."""

_DRIVERS: Final = frozenset({"ConnectionFailure", "ExecutionTimeout", "WTimeoutError", "KafkaError"})
"""Errors of drivers that need not be imported here: pymongo and aiokafka. `chassis.read.mongo` translates
MongoDB's others."""


def is_transient(error: BaseException) -> bool:
    """Whether an error is transient, so that a later try may succeed."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_transient(each) for each in error.exceptions)
    if isinstance(error, TRANSIENT):
        return True
    return any(base.__name__ in _DRIVERS for base in type(error).__mro__)


def why(error: BaseException) -> str:
    """An error in one line for health and logs: its class, and the text of a transient error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    name = type(error).__name__
    if not is_transient(error):
        return name
    first = next(iter(str(error).splitlines()), "")[:WHY_CHARACTERS_MAX]
    return f"{name}: {first}" if first else name
