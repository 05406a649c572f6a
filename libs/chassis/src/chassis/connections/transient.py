"""What is transient: an error of our own surroundings, which says nothing about what was being done.

The one list of it. Whoever meets such an error stops, says why, commits nothing and tries again; it never parks a
subject, buries a record, sets an intake aside or ends a process.
"""

from typing import Final

import psycopg
from psycopg import errors

WHY_CHARACTERS_MAX: Final = 200


class Transient(Exception):
    """Base of our own errors of this kind, for those that no driver raises."""


class ServerLost(Transient):
    """A server did not answer, or cannot do its work just now; what was asked of it may have happened."""


class StoreUnavailable(ServerLost):
    """The database did not answer; whether the write happened is unknown. Ask again with the same command key."""


DATABASE_LOST: Final[tuple[type[Exception], ...]] = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
)
"""What PostgreSQL raises where a new connection may do better.

By SQLSTATE: connection lost (08), the database is read-only during a failover (25006) or ended an idle transaction
(25P03), serialization and deadlock (40), disk full, out of memory or connections (53), locks and objects in use (55),
cancelled, shut down or not started yet (57), an error of its system or of itself (58, XX).
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
"""Everything of the kind, for `except`; an exception group is told by `is_transient` alone."""

_DRIVERS: Final = frozenset({"ConnectionFailure", "ExecutionTimeout", "WTimeoutError", "KafkaError"})
"""Of drivers that need not be imported here: pymongo and aiokafka. What else MongoDB says is told by `chassis.read.mongo`."""


def is_transient(error: BaseException) -> bool:
    """Whether an error is of our surroundings, so that trying again later may help."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_transient(each) for each in error.exceptions)
    if isinstance(error, TRANSIENT):
        return True
    return any(base.__name__ in _DRIVERS for base in type(error).__mro__)


def why(error: BaseException) -> str:
    """An error in one line for health and logs: what it is, and of an error of our surroundings what it says."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    name = type(error).__name__
    if not is_transient(error):
        return name
    first = next(iter(str(error).splitlines()), "")[:WHY_CHARACTERS_MAX]
    return f"{name}: {first}" if first else name
