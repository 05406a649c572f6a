"""The one list of transient errors: errors of the environment, not of the work that met them.

A consumer or role that meets one stops, reports the reason, commits nothing and tries again. Such an error
never parks a subject, writes a dead letter, sets an intake aside or ends a process.
"""

from typing import ClassVar, Final

import psycopg
from psycopg import errors

WHY_CHARACTERS_MAX: Final = 200


class Transient(Exception):
    """Base of our own transient errors, which no driver raises."""

    own_words: ClassVar[bool] = True
    """The text is our own and quotes nothing that was read. Errors that are not transient may say so too."""


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
    """An error in one line for health and logs: its class, and its text where that is known to be harmless.

    It is the text of a transient error, and of a class with `own_words`. Of a database's other errors it is the names
    of table, column and constraint: the text may quote the row. Any other error may quote what it failed on.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    name = type(error).__name__
    if isinstance(error, psycopg.Error) and not is_transient(error):
        about = error.diag.table_name, error.diag.column_name, error.diag.constraint_name
        return ": ".join([name, *([", ".join(filter(None, about))] if any(about) else [])])
    if not is_transient(error) and not getattr(error, "own_words", False):
        return name
    first = next(iter(str(error).splitlines()), "")[:WHY_CHARACTERS_MAX]
    return f"{name}: {first}" if first else name
