"""The last description of parties, accounts and what belongs to them, and up to which line intakes were described.

Both are noted in one transaction, before the events that describe are stored in another one. What stood before is
noted beside it, and put back by the next one who holds the source where a crash came in between.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

from sync_ingest.archive.connection import ArchiveConnection
from sync_ingest.domain.descriptions import NOT_DESCRIBED, Described, Description

Known = Callable[[Sequence[UUID]], Collection[UUID]]
"""The identities among these that the event store holds."""


class Descriptions:
    """The descriptions of all sources."""

    def __init__(self, db: ArchiveConnection) -> None:
        self._db = db

    def of(self, subjects: Sequence[UUID]) -> dict[UUID, Description]:
        """The last description of each subject that has one."""
        rows = self._db.rows(
            "select subject, revision, digest from {s}.descriptions where subject = any(%b::uuid[])",
            (list(subjects),),
        )
        return {row[0]: Description(*row[1:]) for row in rows}

    def lines(self, intakes: Sequence[UUID]) -> dict[UUID, int]:
        """Up to which line the master data of each intake were described; 0 where none were."""
        rows = self._db.rows(
            "select id, described_line from {s}.intakes where id = any(%s)", (list(intakes),)
        )
        return {intake: line or 0 for intake, line in rows}

    def restore(self, source: str, known: Known) -> None:
        """Puts back what stood before batches that were noted and never stored.

        Before anything else is described: another batch may take the identity by which this one is known.
        """
        noted = [
            row[0]
            for row in self._db.rows(
                "select distinct described_by from {s}.intakes"
                " where source = %s and certificate is null and described_by is not null",
                (source,),
            )
        ]
        lost = list(set(noted).difference(known(noted))) if noted else []
        if lost:
            with self._db.writing():
                self._db.execute(
                    "update {s}.descriptions set revision = before_revision, digest = before_digest,"
                    " described_by = null where described_by = any(%s)",
                    (lost,),
                )
                self._db.execute(
                    "update {s}.intakes set described_line = described_line_before, described_by = null"
                    " where source = %s and certificate is null and described_by = any(%s)",
                    (source, lost),
                )

    def note(self, described: Described, before: Mapping[UUID, Description]) -> None:
        """Notes what is about to be described, with what stood before."""
        now = described.subjects
        stood = [before.get(subject, NOT_DESCRIBED) for subject in now]
        with self._db.writing(), self._db.connection.cursor() as cursor:
            if now:
                # As columns: as rows each of them is a statement of its own.
                self._db.execute(
                    "insert into {s}.descriptions (subject, revision, digest, before_revision, before_digest,"
                    " described_by) select *, %b::uuid from unnest(%b::uuid[], %b::integer[], %b::text[], %b::integer[],"
                    " %b::text[]) on conflict (subject) do update set"
                    " revision = excluded.revision, digest = excluded.digest,"
                    " before_revision = excluded.before_revision, before_digest = excluded.before_digest,"
                    " described_by = excluded.described_by",
                    (
                        described.by,
                        list(now),
                        [one.revision for one in now.values()],
                        [one.digest for one in now.values()],
                        [one.revision for one in stood],
                        [one.digest for one in stood],
                    ),
                )
            cursor.executemany(
                self._db.composed(
                    "update {s}.intakes set described_line = %s, described_line_before = %s, described_by = %s"
                    " where id = %s"
                ),
                [(line, stood, described.by, intake) for intake, (stood, line) in described.lines.items()],
            )
