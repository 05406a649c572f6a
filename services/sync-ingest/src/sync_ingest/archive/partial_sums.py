"""Partial sums of runs that are under way (`domain.partial_sums`)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Final
from uuid import UUID

from sync_ingest.archive.connection import ArchiveConnection

SUMS_AT_ONCE: Final = 2_000


class StoredPartialSums:
    """The partial sums of all sources."""

    def __init__(self, db: ArchiveConnection) -> None:
        self._db = db
        self._runs = count()
        self._any = False
        """Whether there are partial sums of the source that is locked."""

    @contextmanager
    def removed(self, source: str) -> Iterator[None]:
        """Afterwards those of the source are removed. After an error they stay until the next ones come."""
        try:
            yield
            if self._any:
                self._db.write("delete from {s}.partial_sums where source = %s", (source,))
        finally:
            self._any = False

    def of(self, source: str) -> "RunSums":
        """A place for the partial sums of one run. The source must be locked while it is used."""
        return RunSums(self, source, next(self._runs))

    def store(self, source: str, run: int, kind: str, rows: Iterable[tuple[UUID, bytes]]) -> None:
        """Stores partial sums. The first ones under a lock replace those that a crash left of the source."""
        with self._db.writing():
            if not self._any:
                self._db.execute("delete from {s}.partial_sums where source = %s", (source,))
            statement = "copy {s}.partial_sums (source, run, kind, account, body) from stdin (format binary)"
            with self._db.connection.cursor() as cursor, cursor.copy(self._db.composed(statement)) as copy:
                copy.set_types(["text", "int8", "text", "uuid", "bytea"])
                for account, body in rows:
                    copy.write_row((source, run, kind, account, body))
        self._any = True

    def stored(self, source: str, run: int, kind: str) -> Iterator[tuple[UUID, bytes]]:
        """Partial sums in the order of accounts, by a cursor of the server that outlasts its transaction."""
        name = f"partial_sums_{next(self._runs)}"
        with self._db.connection.cursor(name, binary=True, withhold=True) as cursor:
            cursor.itersize = SUMS_AT_ONCE
            cursor.execute(
                self._db.composed(
                    "select account, body from {s}.partial_sums where source = %s and run = %s and kind = %s"
                    " order by account"
                ),
                (source, run, kind),
            )
            yield from cursor

    def stored_of(self, source: str, run: int, kind: str, accounts: Sequence[UUID]) -> list[tuple[Any, ...]]:
        """Partial sums of these accounts: account and sum."""
        return self._db.rows(
            "select account, body from {s}.partial_sums"
            " where source = %s and run = %s and kind = %s and account = any(%s)",
            (source, run, kind, list(accounts)),
        )

    def accounts(self, source: str, run: int, kind: str) -> int:
        """The number of accounts with partial sums."""
        return int(
            self._db.row(
                "select count(distinct account) from {s}.partial_sums"
                " where source = %s and run = %s and kind = %s",
                (source, run, kind),
            )[0]
        )


@dataclass(frozen=True, slots=True)
class RunSums:
    """The partial sums of one run."""

    table: StoredPartialSums
    source: str
    run: int

    def store(self, kind: str, rows: Iterable[tuple[UUID, bytes]]) -> None:
        """Stores a sum for each account named; one account may come any number of times."""
        self.table.store(self.source, self.run, kind, rows)

    def stored(self, kind: str) -> Iterator[tuple[UUID, bytes]]:
        """All sums of a kind, in the order of accounts. Others may be stored meanwhile."""
        return self.table.stored(self.source, self.run, kind)

    def stored_of(self, kind: str, accounts: Sequence[UUID]) -> Iterator[tuple[UUID, bytes]]:
        """Those of these accounts."""
        for account, body in self.table.stored_of(self.source, self.run, kind, accounts):
            yield account, bytes(body)

    def accounts(self, kind: str) -> int:
        """The number of different accounts with a sum of a kind."""
        return self.table.accounts(self.source, self.run, kind)
