"""Contradictions of a source: open until they are resolved, or acknowledged by a person."""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from sync_ingest.archive.connection import ArchiveConnection


class Contradiction(NamedTuple):
    """Figures of a source that contradict each other; `scope` is what they are found again under.

    `certificate` is the first one that names it.
    """

    id: UUID
    kind: str
    scope: str
    code: str
    account: UUID | None
    currency: str | None
    expected: int
    found: int
    detail: str | None
    certificate: UUID | None = None


class Contradictions(NamedTuple):
    """What a look at some figures found, and what it found to be resolved."""

    found: Sequence[Contradiction] = ()
    gone: Collection[UUID] = ()


def bounded(figure: int) -> int:
    """A figure as far as the database can hold it; only what was never booked can be larger."""
    return max(-(2**63), min(2**63 - 1, figure))


_CONTRADICTION: Final = "id, kind, scope, code, account, currency, expected, found, detail, certificate"


class OpenContradictions:
    """The contradictions of all sources."""

    def __init__(self, db: ArchiveConnection) -> None:
        self._db = db

    def standing(
        self,
        source: str,
        kind: str,
        *,
        accounts: Sequence[UUID] | None = None,
        scopes: Sequence[str] | None = None,
    ) -> dict[UUID, str]:
        """Contradictions that are not resolved, each with its scope; of these accounts or of these scopes."""
        return dict(
            self._db.rows(
                "select id, scope from {s}.contradictions where source = %s and kind = %s and status <> 'resolved'"
                " and (%s::uuid[] is null or account = any(%s)) and (%s::text[] is null or scope = any(%s))",
                (source, kind, *[accounts and list(accounts)] * 2, *[scopes and list(scopes)] * 2),
            )
        )

    def standing_among(self, source: str, kind: str, statements: Sequence[str]) -> dict[UUID, str]:
        """Contradictions of these statements that are not resolved, each with its scope, which begins with
        one."""
        rows = self._db.rows(
            "select id, scope from {s}.contradictions where source = %s and kind = %s and status <> 'resolved'"
            " and split_part(scope, '|', 1) = any(%s)",
            (source, kind, list(statements)),
        )
        return dict(rows)

    def standing_of(self, source: str, kind: str, limit: int) -> list[Contradiction]:
        """Contradictions of a kind that are not resolved, the newest first."""
        rows = self._db.rows(
            f"select {_CONTRADICTION} from {{s}}.contradictions where source = %s and kind = %s"
            " and status <> 'resolved' order by number desc limit %s",
            (source, kind, limit),
        )
        return [Contradiction(*row) for row in rows]

    def note(self, source: str, contradictions: "Contradictions") -> None:
        """Notes contradictions that were found and those that are resolved."""
        with self._db.writing():
            self.note_within(source, contradictions)

    def note_within(self, source: str, contradictions: "Contradictions") -> None:
        """As `note`, in the caller's transaction."""
        found, gone = contradictions.found, list(contradictions.gone)
        if gone:
            self._db.execute(
                "delete from {s}.contradictions where id = any(%s) and certificate is null and status = 'open'",
                (gone,),
            )
            self._db.execute(
                "update {s}.contradictions set status = 'resolved', certificate = null where id = any(%s)",
                (gone,),
            )
        if found:
            with self._db.connection.cursor() as cursor:
                cursor.executemany(
                    self._db.composed(
                        "insert into {s}.contradictions as c (id, source, kind, scope, code, account, currency,"
                        " expected, found, detail, status) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'open')"
                        " on conflict (id) do update set status = 'open' where c.status = 'resolved'"
                    ),
                    [
                        (
                            c.id,
                            source,
                            c.kind,
                            c.scope,
                            c.code,
                            c.account,
                            c.currency,
                            bounded(c.expected),
                            bounded(c.found),
                            c.detail,
                        )
                        for c in found
                    ],
                )

    def open(self, source: str, limit: int) -> tuple[list[Contradiction], int, list[str]]:
        """Open contradictions of a source, those that no certificate names first; how many; and their codes."""
        rows = self._db.rows(
            f"select {_CONTRADICTION} from {{s}}.contradictions where source = %s and status = 'open'"
            " order by certificate is not null, number limit %s",
            (source, limit),
        )
        codes = self._db.rows(
            "select code, count(*) from {s}.contradictions where source = %s and status = 'open'"
            " group by code order by code",
            (source,),
        )
        return [Contradiction(*row) for row in rows], sum(n for _, n in codes), [code for code, _ in codes]

    def acknowledge(self, source: str, contradictions: Sequence[UUID]) -> None:
        """Open contradictions that a person has acknowledged count no longer."""
        self._db.write(
            "update {s}.contradictions set status = 'acknowledged'"
            " where source = %s and id = any(%s) and status = 'open'",
            (source, list(contradictions)),
        )

    def open_under(self, source: str, certificate: int, only: Sequence[UUID]) -> list[UUID]:
        """Open contradictions that a certificate, by its number, or an earlier one counts; `only` these, if
        any."""
        rows = self._db.rows(
            "select x.id from {s}.contradictions as x join {s}.certificates as c on c.id = x.certificate"
            " where x.source = %s and x.status = 'open' and c.number <= %s"
            " and (%s or x.id = any(%s)) order by x.number",
            (source, certificate, not only, list(only)),
        )
        return [row[0] for row in rows]

    def unnamed(self, source: str) -> int:
        """How many open contradictions no certificate names yet."""
        return int(
            self._db.row(
                "select count(*) from {s}.contradictions"
                " where source = %s and status = 'open' and certificate is null",
                (source,),
            )[0]
        )
