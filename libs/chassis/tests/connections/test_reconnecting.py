"""One connection for many callers, also after it was lost."""

import asyncio

import psycopg
from chassis.connections.reconnecting import Reconnecting
from chassis.connections.transient import StoreUnavailable
from chassis.write.store.schema import writer_role
from psycopg import sql

PID = sql.SQL("select pg_backend_pid()").format()


async def test_many_at_once_open_one_connection_at_the_start_and_after_a_loss(
    postgres_url: str, schema: str
) -> None:
    """Else a role that has many calls under way takes all connections of a server that has just come back."""
    connection = Reconnecting(postgres_url, writer_role(schema), 5.0)

    async def pid() -> int:
        row = await (await connection.execute(PID, ())).fetchone()
        return 0 if row is None else int(row[0])

    [first] = set(await asyncio.gather(*[pid() for _ in range(20)]))
    with psycopg.connect(postgres_url) as other:
        other.execute("select pg_terminate_backend(%s)", (first,))
    lost = await asyncio.gather(*[pid() for _ in range(20)], return_exceptions=True)
    assert all(isinstance(one, StoreUnavailable) or one != first for one in lost)
    [second] = set(await asyncio.gather(*[pid() for _ in range(20)]))
    assert second != first
    await connection.close()
