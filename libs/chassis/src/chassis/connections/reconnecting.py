"""A connection that is opened again after it was lost, for callers that run one short statement at a time."""

import asyncio
from typing import Any

import psycopg
from psycopg import sql

from chassis.connections.postgres import AsyncConnection, connect_async
from chassis.connections.transient import DATABASE_LOST, StoreUnavailable


class Reconnecting:
    """Statements run as `role`, each for at most `statement_seconds`; opened by the first, and by the next
    after a loss. Many at once share one connection, also while it is opened."""

    def __init__(self, url: str, role: str, statement_seconds: float) -> None:
        self._url = url
        self._role = role
        self._statement_seconds = statement_seconds
        self._connection: AsyncConnection | None = None
        self._opening = asyncio.Lock()

    async def execute(
        self, statement: sql.Composed, values: tuple[object, ...]
    ) -> "psycopg.AsyncCursor[Any]":
        """Returns the result of a statement.

        Raises StoreUnavailable, and closes the connection, where the database does not answer.
        """
        connection = None
        try:
            connection = await self._opened()
            return await connection.execute(statement, values)
        except DATABASE_LOST as error:
            if connection is not None:
                # Another caller may have opened the next one by now.
                self._connection = None if self._connection is connection else self._connection
                await connection.close()
            raise StoreUnavailable(str(error)) from error

    async def _opened(self) -> AsyncConnection:
        async with self._opening:
            if self._connection is None or self._connection.closed:
                self._connection = await connect_async(
                    self._url, role=self._role, statement_seconds=self._statement_seconds
                )
            return self._connection

    async def close(self) -> None:
        """Lets the connection go."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
