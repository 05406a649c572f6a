"""What is known of a source: its name, its schedule, and when it was last heard of."""

from datetime import UTC, datetime

from sync_ingest.archive.connection import ArchiveConnection


class Sources:
    """All sources."""

    def __init__(self, db: ArchiveConnection) -> None:
        self._db = db

    def known(self, look: str, name: str) -> str:
        """The name of the source that looks so; `name` where it is the first."""
        self._db.write(
            "insert into {s}.source_names values (%s, %s) on conflict (look) do nothing", (look, name)
        )
        return str(self._db.row("select name from {s}.source_names where look = %s", (look,))[0])

    def schedule(self, source: str, every_seconds: int) -> None:
        """Remembers how often a source sends."""
        self._db.write(
            "insert into {s}.schedules values (%s, %s)"
            " on conflict (source) do update set every_seconds = excluded.every_seconds",
            (source, every_seconds),
        )

    def scheduled(self, source: str) -> int | None:
        """How often a source was said to send, in seconds."""
        rows = self._db.rows("select every_seconds from {s}.schedules where source = %s", (source,))
        return int(rows[0][0]) if rows else None

    def streams(self, source: str) -> bool:
        """Whether the last that a source sent came over the branch topic."""
        rows = self._db.rows(
            "select format from {s}.intakes where source = %s and repairs is null"
            " order by number desc limit 1",
            (source,),
        )
        return bool(rows) and rows[0][0] == "topic"

    def last_received(self, source: str) -> datetime | None:
        """The time at which data of a source was last received.

        A repair does not count as data of the source.
        """
        rows = self._db.rows(
            "select received_at from {s}.intakes where source = %s and repairs is null"
            " order by number desc limit 1",
            (source,),
        )
        return rows[0][0].astimezone(UTC) if rows else None

    def every(self) -> list[str]:
        """Every source from which data was ever received."""
        return [
            row[0] for row in self._db.rows("select distinct source from {s}.intakes order by source", ())
        ]
