"""Quarantine entries, repairs that wait for a second person, and the postings that reversals wait for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec

from sync_ingest.archive.connection import ArchiveConnection
from sync_ingest.archive.intakes import Intake
from sync_ingest.domain.identities import IntakeId, QuarantineId

PAGE_MAX: Final = 200
SAME_ROW_MAX: Final = 1_000
"""The most entries of one row that are resolved with it."""
QuarantineStatus = Literal["waiting", "released", "dismissed"]


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """One record, or one file, that could not be posted; `raw` is sealed.

    `row` is the same in every file that has it.

    The name of its file is that of its intake.
    """

    id: QuarantineId
    source: str
    intake: IntakeId
    line: int
    column: str | None
    reason: str
    detail: str
    raw_sealed: str
    quarantined_at: datetime
    status: QuarantineStatus
    kind: str | None = None
    whole_file: bool = False
    row: UUID | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A repair that waits for a second person.

    `repaired` is sealed. `amounts_minor` are absolute sums by currency. `on_behalf_of` is the person for whom
    `proposed_by` acted; neither of the two is a second person.
    """

    entry: QuarantineId
    repair: UUID
    repaired: bytes
    records: int
    amounts_minor: dict[str, int]
    proposed_by: str
    reason: str
    proposed_at: datetime
    on_behalf_of: str | None = None


_ENTRY: Final = 'id, source, intake, line, "column", reason, detail, raw_sealed, quarantined_at, status, kind, whole_file, "row"'


class Quarantine:
    """The entries of all sources."""

    def __init__(self, db: ArchiveConnection) -> None:
        self._db = db

    def waiting_lines(self, intake: IntakeId) -> frozenset[int]:
        """The lines of an intake of which entries wait."""
        rows = self._db.rows(
            "select line from {s}.quarantine where intake = %s and status = 'waiting'", (intake,)
        )
        return frozenset(row[0] for row in rows)

    def enter(self, entries: Iterable[QuarantineEntry]) -> None:
        """Stores entries; existing ones are not changed."""
        with self._db.writing(), self._db.connection.cursor() as cursor:
            cursor.executemany(
                self._db.composed(
                    'insert into {s}.quarantine (id, source, intake, line, "column", reason, detail,'
                    ' raw_sealed, quarantined_at, kind, whole_file, "row")'
                    " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                    " on conflict do nothing"
                ),
                [
                    (
                        e.id,
                        e.source,
                        e.intake,
                        e.line,
                        e.column,
                        e.reason,
                        e.detail,
                        e.raw_sealed,
                        e.quarantined_at,
                        e.kind,
                        e.whole_file,
                        e.row,
                    )
                    for e in entries
                ],
            )

    def among(self, ids: Sequence[QuarantineId]) -> dict[QuarantineId, QuarantineEntry]:
        """The entries among `ids` that are there."""
        return {e.id: e for e in self._where("where id = any(%s)", (list(ids),))}

    def page(
        self, source: str | None, status: str | None, after: int, limit: int
    ) -> list[tuple[int, QuarantineEntry]]:
        """A page of entries in the order they came, each with the number to go on after."""
        rows = self._db.rows(
            "select number, " + _ENTRY + " from {s}.quarantine where number > %s"
            " and (%s::text is null or source = %s) and (%s::text is null or status = %s) order by number limit %s",
            (after, source, source, status, status, min(limit, PAGE_MAX)),
        )
        return [(row[0], QuarantineEntry(*row[1:])) for row in rows]

    def read_before(self, intakes: Sequence[Intake]) -> dict[QuarantineId, IntakeId]:
        """Entries that wait since the bytes of these intakes were read in another way, each with the intake
        of now."""
        rows = self._db.rows(
            "select q.id, now.id from {s}.intakes as now"
            " join {s}.intakes as before using (source, sha256)"
            " join {s}.quarantine as q on q.intake = before.id and q.status = 'waiting'"
            " where now.id = any(%s) and before.id <> now.id order by q.number",
            ([intake.id for intake in intakes],),
        )
        return {QuarantineId(entry): IntakeId(intake) for entry, intake in rows}

    def rows_resolved(self, source: str, rows: Sequence[UUID]) -> set[UUID]:
        """Returns those of these rows that were released or dismissed in any file of the source."""
        found = self._db.rows(
            'select distinct "row" from {s}.quarantine'
            " where \"row\" = any(%s) and source = %s and status <> 'waiting'",
            (list(rows), source),
        )
        return {row[0] for row in found}

    def same_row(self, entry: QuarantineEntry) -> list[QuarantineId]:
        """Other entries that wait for the same row, which came in other files."""
        if entry.row is None:
            return []
        found = self._db.rows(
            "select id from {s}.quarantine where \"row\" = %s and source = %s and id <> %s and status = 'waiting'"
            " order by number limit %s",
            (entry.row, entry.source, entry.id, SAME_ROW_MAX),
        )
        return [QuarantineId(row[0]) for row in found]

    def resolved(self, entries: Sequence[QuarantineId], status: QuarantineStatus) -> None:
        """Marks entries as released or dismissed.

        A repair that was proposed for them is proposed no more, and they wait for no original.
        """
        with self._db.writing():
            self._db.execute(
                "update {s}.quarantine set status = %s where id = any(%s) and status = 'waiting'",
                (status, list(entries)),
            )
            self._db.execute("delete from {s}.proposals where entry = any(%s)", (list(entries),))
            self._db.execute("delete from {s}.awaited_originals where quarantine = any(%s)", (list(entries),))

    def superseded(self, entries: Sequence[QuarantineId]) -> None:
        """Marks entries as released because their bytes are read in another way now.

        Their rows are resolved by what that reading made of them, so these entries say nothing of them any
        more.
        """
        with self._db.writing():
            self._db.execute('update {s}.quarantine set "row" = null where id = any(%s)', (list(entries),))
            self.resolved(entries, "released")

    def propose(self, proposal: Proposal) -> None:
        """Keeps a repair for a second person; it takes the place of one that was proposed before."""
        self._db.write(
            "insert into {s}.proposals (entry, repair, repaired, records, amounts_minor, proposed_by, reason,"
            " proposed_at, on_behalf_of) values (%s, %s, %s, %s, %s::jsonb, %s, %s, %s, %s)"
            " on conflict (entry) do update set (repair, repaired, records, amounts_minor, proposed_by, reason,"
            " proposed_at, on_behalf_of) = (excluded.repair, excluded.repaired, excluded.records,"
            " excluded.amounts_minor, excluded.proposed_by, excluded.reason, excluded.proposed_at,"
            " excluded.on_behalf_of)",
            (
                proposal.entry,
                proposal.repair,
                proposal.repaired,
                proposal.records,
                msgspec.json.encode(proposal.amounts_minor).decode(),
                proposal.proposed_by,
                proposal.reason,
                proposal.proposed_at,
                proposal.on_behalf_of,
            ),
        )

    def propose_no_more(self, entry: QuarantineId) -> None:
        """Removes the repair that was proposed for an entry."""
        self._db.write("delete from {s}.proposals where entry = %s", (entry,))

    def proposals(self, entries: Sequence[QuarantineId]) -> dict[QuarantineId, Proposal]:
        """The repairs that wait for a second person, by entry."""
        rows = self._db.rows(
            "select entry, repair, repaired, records, amounts_minor::text, proposed_by, reason, proposed_at, on_behalf_of"
            " from {s}.proposals where entry = any(%s)",
            (list(entries),),
        )
        return {
            QuarantineId(entry): Proposal(
                entry,
                repair,
                repaired,
                records,
                msgspec.json.decode(amounts, type=dict[str, int]),
                by,
                why,
                at,
                behalf,
            )
            for entry, repair, repaired, records, amounts, by, why, at, behalf in rows
        }

    def waiting(self, source: str | None = None) -> int:
        """How many entries wait for repair."""
        row = self._db.rows(
            "select count(*) from {s}.quarantine where status = 'waiting' and (%s::text is null or source = %s)",
            (source, source),
        )[0]
        return int(row[0])

    def _where(self, where: str, values: tuple[object, ...]) -> list[QuarantineEntry]:
        return [
            QuarantineEntry(*row)
            for row in self._db.rows(f"select {_ENTRY} from {{s}}.quarantine {where}", values)
        ]

    def await_originals(self, source: str, originals: Mapping[QuarantineId, UUID]) -> None:
        """Remembers for which postings quarantined reversals wait."""
        with self._db.writing(), self._db.connection.cursor() as cursor:
            cursor.executemany(
                self._db.composed(
                    "insert into {s}.awaited_originals values (%s, %s, %s) on conflict do nothing"
                ),
                [(entry, source, original) for entry, original in originals.items()],
            )

    def await_no_longer(self, entry: QuarantineId) -> None:
        """Records that the original came and the reversal cannot be booked, so that a person decides."""
        self._db.write("delete from {s}.awaited_originals where quarantine = %s", (entry,))

    def awaited_originals(self, source: str, after: UUID | None, limit: int) -> dict[QuarantineId, UUID]:
        """Reversals of a source that wait in quarantine, each with the posting that it waits for, in the
        order of ids."""
        rows = self._db.rows(
            "select a.quarantine, a.original from {s}.awaited_originals as a join {s}.quarantine as q"
            " on q.id = a.quarantine and q.status = 'waiting' where a.source = %s"
            " and (%s::uuid is null or a.quarantine > %s) order by a.quarantine limit %s",
            (source, after, after, limit),
        )
        return {QuarantineId(entry): original for entry, original in rows}
