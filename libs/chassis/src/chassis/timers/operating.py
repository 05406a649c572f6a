"""An operator's requests about timers that failed: list them, have one given again, drop one. Blocking.

A command that failed is given again by the role, which finds its timer due. An event that could not be folded is mended in
the code: another version of the timer folds it again.
"""

from typing import Final, NamedTuple
from uuid import UUID

from psycopg import sql

from chassis.connections.postgres import connect
from chassis.timers.table import DROPPED
from chassis.write.store.schema import checked, writer_role

FAILED_SHOWN_MAX: Final = 1_000


class Failed(NamedTuple):
    """A timer that failed. `given`: its command was given; else the event that sets it could not be folded."""

    subject: UUID
    name: str
    slot: str
    position: int
    outcome: str
    tries: int
    given: bool


def failed_of(url: str, schema: str) -> list[Failed]:
    """The timers that failed, at most `FAILED_SHOWN_MAX`; raises psycopg.Error."""
    rows = (
        "select subject, name, slot, position, outcome, tries, settled_at is not null from {t}"
        " where outcome like 'failed:%%' order by position, subject, name, slot limit %s"
    )
    with connect(url, role=writer_role(schema)) as connection:
        found = connection.execute(_of(rows, schema), (FAILED_SHOWN_MAX,)).fetchall()
    return [Failed(*row) for row in found]


def try_again(url: str, schema: str, subject: UUID, name: str, slot: str) -> bool:
    """Has the command of a failed timer given again, at once; False where there is none that was given."""
    again = (
        "update {t} set outcome = null, run_at = clock_timestamp(), tries = 0, settled_at = null"
        " where (subject, name, slot) = (%s, %s, %s) and outcome like 'failed:%%' and settled_at is not null"
    )
    with connect(url, role=writer_role(schema)) as connection:
        return connection.execute(_of(again, schema), (subject, name, slot)).rowcount == 1


def drop(url: str, schema: str, subject: UUID, name: str, slot: str) -> bool:
    """Gives a failed timer up: neither its command nor its event is tried again. False where none failed."""
    dropped = (
        "update {t} set outcome = %s, settled_at = clock_timestamp()"
        " where (subject, name, slot) = (%s, %s, %s) and outcome like 'failed:%%'"
    )
    with connect(url, role=writer_role(schema)) as connection:
        return connection.execute(_of(dropped, schema), (DROPPED, subject, name, slot)).rowcount == 1


def _of(statement: str, schema: str) -> sql.Composed:
    return sql.SQL(statement).format(t=sql.Identifier(checked(schema), "timers"))  # type: ignore[arg-type, unused-ignore]
