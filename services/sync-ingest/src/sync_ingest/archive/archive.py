"""Ingest's own tables, each kind behind its own attribute, over one connection."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

from chassis.connections.postgres import Connection, connect
from chassis.process.locks import IN_TRANSACTION_SECONDS_MAX, LockFence, Locks
from chassis.write.store import Command
from contracts.identity import ExternalIds
from psycopg import sql

from sync_ingest.archive.certificates import Certificates
from sync_ingest.archive.closed_parties import ClosedParties
from sync_ingest.archive.connection import LOCK_WAIT_SECONDS_MAX, ArchiveConnection
from sync_ingest.archive.contradictions import OpenContradictions
from sync_ingest.archive.descriptions import Descriptions
from sync_ingest.archive.early_closings import EarlyClosings
from sync_ingest.archive.intakes import Intakes
from sync_ingest.archive.partial_sums import StoredPartialSums
from sync_ingest.archive.quarantine import Quarantine
from sync_ingest.archive.schema import STORE_SCHEMA, TABLES
from sync_ingest.archive.series import Series
from sync_ingest.archive.sources import Sources
from sync_ingest.archive.totals import Totals


class Archive:
    """One connection to ingest's tables; not shared between threads."""

    def __init__(self, db: ArchiveConnection, ids: ExternalIds) -> None:
        self._db = db
        self.intakes = Intakes(db, ids)
        self.quarantine = Quarantine(db)
        self.contradictions = OpenContradictions(db)
        self.totals = Totals(db, self.contradictions)
        self.series = Series(db)
        self.certificates = Certificates(db, self.totals, self.series)
        self.sources = Sources(db)
        self.descriptions = Descriptions(db)
        self.early_closings = EarlyClosings(db)
        self.closed_parties = ClosedParties(db)
        self.partial_sums = StoredPartialSums(db)

    @classmethod
    @contextmanager
    def connect(
        cls,
        url: str,
        ids: ExternalIds,
        monotonic: Callable[[], float],
        schema: str = "ingest",
        *,
        lock_wait_seconds_max: int = LOCK_WAIT_SECONDS_MAX,
    ) -> Iterator["Archive"]:
        """Opens the tables, which `migrate` made."""
        locks = Locks(url, STORE_SCHEMA, monotonic, wait_seconds_max=lock_wait_seconds_max)
        with (
            closing(locks),
            connect(url, role=TABLES.role, statement_seconds=2 * LOCK_WAIT_SECONDS_MAX) as connection,
        ):
            connection.execute(
                sql.SQL("set idle_in_transaction_session_timeout = {}").format(
                    sql.Literal(f"{IN_TRANSACTION_SECONDS_MAX:.0f}s")
                )
            )
            yield cls(ArchiveConnection(connection, locks, schema), ids)

    def writing(self) -> AbstractContextManager[Connection]:
        """As `ArchiveConnection.writing`."""
        return self._db.writing()

    @contextmanager
    def locked(self, source: str, command: Command | None = None) -> Iterator[LockFence]:
        """As `ArchiveConnection.locked`. Partial sums of the source are gone afterwards."""
        with self._db.locked(source, command) as fence, self.partial_sums.removed(source):
            yield fence
