"""The parties that are closed to releases: no record of quarantine that names one of them is released."""

from collections.abc import Collection
from uuid import UUID

from sync_ingest.archive.connection import ArchiveConnection


class ClosedParties:
    """The parties of all sources."""

    def __init__(self, db: ArchiveConnection) -> None:
        self._db = db

    def close(self, party: UUID) -> None:
        """Notes a party."""
        self._db.write("insert into {s}.closed_parties values (%s) on conflict (party) do nothing", (party,))

    def open(self, party: UUID) -> None:
        """Forgets a party."""
        self._db.write("delete from {s}.closed_parties where party = %s", (party,))

    def among(self, parties: Collection[UUID]) -> set[UUID]:
        """Those of these that are closed."""
        rows = self._db.rows("select party from {s}.closed_parties where party = any(%s)", (list(parties),))
        return {row[0] for row in rows}
