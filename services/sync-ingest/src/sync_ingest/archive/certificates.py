"""Reconciliation certificates, and what each covers."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sync_ingest.archive.connection import ArchiveConnection
from sync_ingest.archive.series import Series
from sync_ingest.archive.totals import Totals
from sync_ingest.domain.identities import IntakeId
from sync_ingest.domain.totals import AccountCurrency, Flow

PAGE_MAX: Final = 200


class Certificates:
    """The certificates of all sources."""

    def __init__(self, db: ArchiveConnection, totals: Totals, series: Series) -> None:
        self._db = db
        self._totals = totals
        self._series = series

    def certify(
        self,
        certificate: UUID,
        source: str,
        *,
        certified_at: datetime,
        status: str,
        findings: bytes,
        intakes: Sequence[IntakeId],
        flows: Iterable[Mapping[AccountCurrency, Flow]] | None,
        series: Iterable[Mapping[str, bytes]],
    ) -> None:
        """Keeps a certificate and what it covers, in one transaction: `flows`, or everything that no other
        covers.

        `series` are the running numbers with those of its intakes: until they are certified, their own
        numbers are new.
        """
        with self._db.writing():
            for some in series:
                self._series.keep_within(source, some)
            self._db.execute(
                "with fresh as (insert into {s}.certificates (id, source, certified_at, status, findings)"
                " values (%s, %s, %s, %s, %s) on conflict do nothing returning source, findings)"
                " insert into {s}.source_counts as n select source, (f ->> 'posted')::bigint,"
                " (f ->> 'duplicates')::bigint, (f ->> 'quarantined')::bigint"
                " from (select source, convert_from(findings, 'UTF8')::jsonb as f from fresh) as told"
                " on conflict (source) do update set posted = n.posted + excluded.posted,"
                " duplicates = n.duplicates + excluded.duplicates,"
                " quarantined = n.quarantined + excluded.quarantined",
                (certificate, source, certified_at, status, findings),
            )
            if flows is None:
                self._db.execute(
                    "update {s}.account_totals set certified_postings = postings,"
                    " certified_credits_minor = credits_minor, certified_debits_minor = debits_minor"
                    " where source = %s and postings <> certified_postings",
                    (source,),
                )
            for covered in flows or ():
                self._totals.cover(covered)
            self._db.execute(
                "update {s}.contradictions set certificate = %s"
                " where source = %s and status = 'open' and certificate is null",
                (certificate, source),
            )
            self._db.execute(
                "update {s}.intakes set certificate = %s where id = any(%s)", (certificate, list(intakes))
            )

    def page(self, source: str | None, before: int | None, limit: int) -> list[tuple[Any, ...]]:
        """Certificates, newest first: number, id, source, certified_at, status, findings."""
        return self._db.rows(
            "select number, id, source, certified_at, status, findings from {s}.certificates"
            " where (%s::text is null or source = %s) and (%s::bigint is null or number < %s)"
            " order by number desc limit %s",
            (source, source, before, before, min(limit, PAGE_MAX)),
        )

    def one(self, certificate: UUID) -> tuple[Any, ...] | None:
        """One certificate by its id."""
        rows = self._db.rows(
            "select number, id, source, certified_at, status, findings from {s}.certificates where id = %s",
            (certificate,),
        )
        return rows[0] if rows else None
