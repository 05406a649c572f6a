"""The last description of parties, accounts and what belongs to them, and up to which line intakes were described.

Both are noted in one transaction, before the events that describe are stored in another one. What is noted counts where
its event is in the store; a crash in between leaves what stood before, which is noted beside it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

from sync_ingest.archive.connection import ArchiveConnection
from sync_ingest.domain.descriptions import NOT_DESCRIBED, Described, Description
from sync_ingest.domain.identities import described_id

Known = Callable[[Sequence[UUID]], Collection[UUID]]
"""The identities among these that the event store holds."""


class Descriptions:
    """The descriptions of all sources."""

    def __init__(self, db: ArchiveConnection) -> None:
        self._db = db

    def of(self, subjects: Sequence[UUID], known: Known) -> dict[UUID, Description]:
        """The last description of each subject that has one."""
        rows = self._db.rows(
            "select subject, revision, digest, before_revision, before_digest from {s}.descriptions"
            " where subject = any(%s)",
            (list(subjects),),
        )
        # A row without what stood before is of a description that was stored first.
        doubtful = {row[0]: described_id(row[0], row[1]) for row in rows if row[3] is not None}
        stored = known(list(doubtful.values())) if doubtful else ()
        found = {}
        for subject, revision, digest, before_revision, before_digest in rows:
            if subject not in doubtful or doubtful[subject] in stored:
                found[subject] = Description(revision, digest)
            else:
                found[subject] = Description(before_revision, before_digest)
        return found

    def lines(self, intakes: Sequence[UUID], known: Known) -> dict[UUID, int]:
        """Up to which line the master data of each intake were described; 0 where none were."""
        rows = self._db.rows(
            "select id, described_line, described_line_before, described_by from {s}.intakes where id = any(%s)",
            (list(intakes),),
        )
        doubtful = list({by for *_, by in rows if by is not None})
        stored = known(doubtful) if doubtful else ()
        return {
            intake: (line if by is None or by in stored else before) or 0 for intake, line, before, by in rows
        }

    def note(self, described: Described, before: Mapping[UUID, Description]) -> None:
        """Notes what is about to be described, with what stood before."""
        rows = []
        for subject, now in described.subjects.items():
            stood = before.get(subject, NOT_DESCRIBED)
            # Without an event of its own there is nothing that could be lost.
            undone = stood if now.revision != stood.revision else (None, None)
            rows.append((subject, *now, *undone))
        with self._db.writing(), self._db.connection.cursor() as cursor:
            if rows:
                cursor.executemany(
                    self._db.composed(
                        "insert into {s}.descriptions (subject, revision, digest, before_revision, before_digest)"
                        " values (%s, %s, %s, %s, %s) on conflict (subject) do update set"
                        " revision = excluded.revision, digest = excluded.digest,"
                        " before_revision = excluded.before_revision, before_digest = excluded.before_digest"
                    ),
                    rows,
                )
            cursor.executemany(
                self._db.composed(
                    "update {s}.intakes set described_line = %s, described_line_before = %s, described_by = %s"
                    " where id = %s"
                ),
                [(line, stood, described.by, intake) for intake, (stood, line) in described.lines.items()],
            )
