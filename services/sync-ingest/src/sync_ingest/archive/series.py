"""The running numbers that were read, by scope."""

from collections.abc import Iterable, Mapping, Sequence

from sync_ingest.archive.connection import ArchiveConnection


class Series:
    """The series of all sources."""

    def __init__(self, db: ArchiveConnection) -> None:
        self._db = db

    def of(self, source: str, scopes: Sequence[str]) -> dict[str, bytes]:
        """The running numbers that were read in each scope."""
        rows = self._db.rows(
            "select scope, body from {s}.number_series where source = %s and scope = any(%s)",
            (source, list(scopes)),
        )
        return {scope: bytes(body) for scope, body in rows}

    def keep(self, source: str, series: Iterable[Mapping[str, bytes]]) -> None:
        """Keeps running numbers where no certificate is due; else they are kept with it."""
        with self._db.writing():
            for some in series:
                self.keep_within(source, some)

    def keep_within(self, source: str, series: Mapping[str, bytes]) -> None:
        """As `keep`, in the caller's transaction."""
        self._db.execute(
            "insert into {s}.number_series select %s, * from unnest(%s::text[], %s::bytea[])"
            " on conflict (source, scope) do update set body = excluded.body",
            (source, list(series), list(series.values())),
        )
