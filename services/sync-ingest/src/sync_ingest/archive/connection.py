"""The connection to ingest's own tables, and the lock of a source under which is written."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from chassis.connections.postgres import Connection
from chassis.connections.transient import Transient
from chassis.process.locks import LockBusy, LockFence, Locks
from chassis.write.deciding import Refusal
from chassis.write.store import Command
from psycopg import sql

LOCK_WAIT_SECONDS_MAX: Final = 60


class SourceBusy(Refusal, Transient):
    """Another run of this source holds its lock; one run at a time keeps its certificate exact."""

    code = "source-busy"
    title = "Another run of this source is under way"
    title_zh = "该来源的另一次处理正在进行"


class ArchiveConnection:
    """One connection; not shared between threads. Where a source is locked, every write is under its fence."""

    def __init__(self, connection: Connection, locks: Locks, schema: str) -> None:
        self.connection = connection
        self._locks = locks
        self._schema = sql.Identifier(schema)
        self._fence: LockFence | None = None

    @contextmanager
    def locked(self, source: str, command: Command | None = None) -> Iterator[LockFence]:
        """Holds the source's run lock, and that of a command's key before it: a key never runs twice at once.

        From when another run has the lock nothing more is stored here, and the fence says so to the event
        store. Raises SourceBusy after `lock_wait_seconds_max` for either.
        """
        with ExitStack() as stack:
            try:
                if command is not None:
                    stack.enter_context(self._locks.held(f"ingest command {command.key}"))
                fence = stack.enter_context(self._locks.fenced(f"ingest run {source}"))
            except LockBusy:
                raise SourceBusy(source) from None
            self._fence = fence
            stack.callback(self._unfenced)
            yield fence

    def _unfenced(self) -> None:
        self._fence = None

    def composed(self, statement: str) -> sql.Composed:
        """The statement, with the schema for `{s}`."""
        return sql.SQL(statement).format(s=self._schema)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, which is undone where another run took the source meanwhile; the connection that has it."""
        with self.connection.transaction():
            yield self.connection
            if self._fence is not None:
                self._fence.hold(self.connection)

    def write(self, statement: str, values: tuple[object, ...]) -> None:
        """One statement in a transaction of its own."""
        with self.writing():
            self.execute(statement, values)

    def execute(self, statement: str, values: tuple[object, ...]) -> None:
        """One statement."""
        self.connection.execute(self.composed(statement), values)

    def rows(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """The rows that a statement returns."""
        return self.connection.execute(self.composed(statement), values, binary=True).fetchall()

    def row(self, statement: str, values: tuple[object, ...]) -> tuple[Any, ...]:
        """The one row that a statement returns."""
        return self.rows(statement, values)[0]
