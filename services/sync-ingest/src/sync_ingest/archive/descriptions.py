"""The last description of parties, accounts and what belongs to them."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sync_ingest.archive.connection import ArchiveConnection


class Descriptions:
    """Revision and digest of each."""

    def __init__(self, db: ArchiveConnection) -> None:
        self._db = db

    def of(self, subjects: Sequence[UUID]) -> dict[UUID, tuple[int, str]]:
        """Revision and digest of what was last said about each subject."""
        rows = self._db.rows(
            "select subject, revision, digest from {s}.descriptions where subject = any(%s)",
            (list(subjects),),
        )
        return {subject: (revision, digest) for subject, revision, digest in rows}

    def note(self, revisions: Mapping[UUID, tuple[int, str]]) -> None:
        """Remembers the last description of subjects."""
        with self._db.writing(), self._db.connection.cursor() as cursor:
            cursor.executemany(
                self._db.composed(
                    "insert into {s}.descriptions values (%s, %s, %s) on conflict (subject)"
                    " do update set revision = excluded.revision, digest = excluded.digest"
                ),
                [(subject, revision, digest) for subject, (revision, digest) in revisions.items()],
            )
