"""The accounts that stand with a day of closing before the day of opening, until another record mends it."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sync_ingest.archive.connection import ArchiveConnection
from sync_ingest.domain.repeats import FeedPlace


class EarlyClosings:
    """The accounts of all sources."""

    def __init__(self, db: ArchiveConnection) -> None:
        self._db = db

    def note(self, source: str, found: Mapping[UUID, FeedPlace], others: Sequence[UUID]) -> None:
        """Notes accounts that stand so, each with the last record that names it; `others` do not."""
        with self._db.writing():
            self._db.execute(
                "delete from {s}.early_closings where account = any(%b::uuid[])", (list(others),)
            )
            self._db.execute(
                "insert into {s}.early_closings (account, source, intake, line)"
                " select account, %s, intake, line from unnest(%s::uuid[], %s::uuid[], %s::bigint[])"
                " as found (account, intake, line)"
                " on conflict (account) do update set intake = excluded.intake, line = excluded.line",
                (
                    source,
                    list(found),
                    [place.intake for place in found.values()],
                    [place.line for place in found.values()],
                ),
            )

    def of(self, source: str, limit: int) -> tuple[int, tuple[FeedPlace, ...]]:
        """How many accounts of a source stand so, and the first places."""
        rows = self._db.rows(
            "select e.intake, e.line, count(*) over () from {s}.early_closings as e"
            " left join {s}.intakes as i on i.id = e.intake where e.source = %s order by i.number, e.line limit %s",
            (source, limit),
        )
        return (int(rows[0][2]) if rows else 0), tuple(FeedPlace(intake, line) for intake, line, _ in rows)
