"""An operator's requests to a relay: try held subjects again, and publish a context again.

Only the relay that leads publishes. A request is written to the store, where that relay reads it.
"""

from uuid import UUID

from psycopg import sql

from chassis.connections.postgres import connect
from chassis.relay.loop import Held
from chassis.relay.postgres import RELAY_LEASE
from chassis.write.store.schema import checked, writer_role


def held_of(url: str, schema: str) -> list[Held]:
    """The subjects that are held because one of their events cannot be published."""
    table = sql.Identifier(checked(schema), "unpublishable")
    with connect(url, role=writer_role(schema)) as connection:
        rows = connection.execute(
            sql.SQL(
                "select subject, position, version, name, reason, again from {} order by position"
            ).format(table)
        ).fetchall()
    return [Held(*row) for row in rows]


def try_again(url: str, schema: str, subject: UUID | None = None) -> int:
    """Asks the relay to publish the waiting events of a subject, by default of all.

    Returns the number of subjects.
    """
    table = sql.Identifier(checked(schema), "unpublishable")
    with connect(url, role=writer_role(schema)) as connection:
        return connection.execute(
            sql.SQL("update {} set again = true where %s::uuid is null or subject = %s").format(table),
            (subject, subject),
        ).rowcount


def republish(url: str, schema: str, context: str, first: int = 1) -> int:
    """Sets a relay back, so that it publishes everything from position `first` on again, in order; returns
    the position up to which it had been.

    This raises the epoch. A relay that leads just now can therefore not save its old position: it takes
    its lease again and goes on from `first`. Readers skip the events that they have seen. From the first
    position on the relay also counts again.
    """
    names = {"leases": sql.Identifier(checked(schema), "leases"), "relay": sql.Identifier(schema, "relay")}
    with connect(url, role=writer_role(schema)) as connection, connection.transaction():
        connection.execute(
            sql.SQL(
                "update {leases} set epoch = epoch + 1, expires_at = clock_timestamp() where name = %s"
            ).format(**names),
            (RELAY_LEASE,),
        )
        row = connection.execute(
            sql.SQL("select position from {relay} where context = %s for update").format(**names), (context,)
        ).fetchone()
        reached = 0 if row is None else int(row[0])
        connection.execute(
            sql.SQL("update {relay} set position = least(position, %s) where context = %s").format(**names),
            (first - 1, context),
        )
        if first == 1:
            connection.execute(
                sql.SQL("update {relay} set published = '{{}}', counted_to = 0 where context = %s").format(
                    **names
                ),
                (context,),
            )
        return reached
