"""Every connection to PostgreSQL is opened here: as the role that is asked for, and with a limit on each
wait.

There are three limits. The server ends a statement that runs too long. TCP detects a server that is gone
without closing the connection. The client's own limit, which is a little longer than the server's, detects
a server that runs and does not answer (a frozen process, a stalled disk).
"""

from typing import Any, Final

import psycopg
from psycopg import errors
from typing_extensions import override

CONNECT_SECONDS_MAX: Final = 5
SILENT_SECONDS_MAX: Final = 10
"""How long TCP waits for the acknowledgement of sent data, and how long an idle connection may be dead
unnoticed."""
LOCK_SECONDS_MAX: Final = 10.0
STATEMENT_SECONDS_MAX: Final = 30.0
ANSWER_SECONDS_SPARE: Final = 5.0
"""How much longer than the server's own limit the client waits for an answer."""

_GIVEN: Final[dict[str, Any]] = {
    "client_encoding": "UTF8",  # whatever PGCLIENTENCODING, or a setting of the login, says
    "connect_timeout": CONNECT_SECONDS_MAX,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": SILENT_SECONDS_MAX * 1000,
}
_SESSION: Final = (
    "select set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),"
    " set_config('role', coalesce(%s, current_setting('role')), false)"
)


class ServerCursor(psycopg.ServerCursor[Any]):
    """A cursor of the server that is closed, too, where its connection breaks while it closes.

    The library's own is left open then, and warns when it is collected.
    """

    @override
    def close(self) -> None:
        try:
            super().close()
        finally:
            if not self.closed and self._conn.closed:
                super().close()


class Connection(psycopg.Connection[Any]):
    """A connection whose every wait ends within `answer_seconds`; one that did not answer is closed."""

    answer_seconds: float = STATEMENT_SECONDS_MAX + ANSWER_SECONDS_SPARE

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.server_cursor_factory = ServerCursor

    @override
    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except errors._WaitTimeout:
            if timeout is not None:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {self.answer_seconds:g} s") from None


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """As `Connection`, for an event loop."""

    answer_seconds: float = STATEMENT_SECONDS_MAX + ANSWER_SECONDS_SPARE

    @override
    async def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return await super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except errors._WaitTimeout:
            if timeout is not None:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {self.answer_seconds:g} s") from None


class NoDatabaseNamed(Exception):
    """A connection was asked for without an address. libpq would then take any server of this machine."""


def connect(
    url: str,
    *,
    role: str | None = None,
    statement_seconds: float = STATEMENT_SECONDS_MAX,
    lock_seconds: float = LOCK_SECONDS_MAX,
    **options: Any,
) -> Connection:
    """A connection in autocommit that acts as `role`, or as its login where none is named; raises
    OperationalError."""
    connection = Connection.connect(_named(url), autocommit=True, **_GIVEN, **options)
    connection.answer_seconds = statement_seconds + ANSWER_SECONDS_SPARE
    try:
        connection.execute(_SESSION, _limits(role, statement_seconds, lock_seconds))
    except BaseException:
        connection.close()
        raise
    return connection


async def connect_async(
    url: str,
    *,
    role: str | None = None,
    statement_seconds: float = STATEMENT_SECONDS_MAX,
    lock_seconds: float = LOCK_SECONDS_MAX,
) -> AsyncConnection:
    """As `connect`, for an event loop."""
    connection = await AsyncConnection.connect(_named(url), autocommit=True, **_GIVEN)
    connection.answer_seconds = statement_seconds + ANSWER_SECONDS_SPARE
    try:
        await connection.execute(_SESSION, _limits(role, statement_seconds, lock_seconds))
    except BaseException:
        await connection.close()
        raise
    return connection


def _named(url: str) -> str:
    if not url:
        raise NoDatabaseNamed("POSTGRES_URL is not set")
    return url


def _limits(role: str | None, statement_seconds: float, lock_seconds: float) -> tuple[str, str, str | None]:
    return f"{statement_seconds * 1000:.0f}ms", f"{lock_seconds * 1000:.0f}ms", role
