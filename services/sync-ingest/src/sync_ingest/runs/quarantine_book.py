"""The quarantine of the archive, as the pipeline writes in it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sync_ingest.archive.archive import Archive
from sync_ingest.archive.quarantine import QuarantineEntry
from sync_ingest.domain.descriptions import Described, Description
from sync_ingest.domain.events import FeedRecordQuarantined
from sync_ingest.domain.identities import IntakeId, QuarantineId, feed_id
from sync_ingest.domain.repeats import FeedPlace
from sync_ingest.domain.totals import AccountCurrency, AccountTotal
from sync_ingest.folding import Folding
from sync_ingest.runs.ports import Vault


@dataclass(frozen=True, slots=True)
class ArchivedQuarantine:
    """The pipeline's quarantine book, kept in the archive."""

    archive: Archive
    vault: Vault
    now: Callable[[], datetime]
    source: str
    folding: Folding

    def ledger_totals(self, accounts: Sequence[UUID]) -> dict[AccountCurrency, AccountTotal]:
        return self.folding.totals(accounts)

    def turnovers(self) -> dict[str, int]:
        return self.archive.totals.turnovers(self.source)

    def resolved_among(self, rows: Mapping[QuarantineId, UUID | None]) -> set[QuarantineId]:
        listed = self.archive.quarantine.among(list(rows))
        unlisted = [row for entry, row in rows.items() if row is not None and entry not in listed]
        resolved = self.archive.quarantine.rows_resolved(self.source, unlisted)
        return {
            entry
            for entry, row in rows.items()
            if (listed[entry].status != "waiting" if entry in listed else row in resolved)
        }

    def enter(self, entries: Sequence[tuple[FeedRecordQuarantined, bytes, UUID | None]]) -> None:
        now = self.now()
        self.archive.quarantine.enter(
            [
                QuarantineEntry(
                    id=QuarantineId(event.quarantine),
                    source=event.source,
                    intake=IntakeId(event.intake),
                    line=event.line,
                    column=event.column,
                    reason=event.reason,
                    detail=event.detail,
                    raw_sealed=self._sealed(event, raw).hex(),
                    quarantined_at=now,
                    status="waiting",
                    kind=event.kind,
                    whole_file=event.whole_file,
                    row=row,
                )
                for event, raw, row in entries
            ]
        )

    def _sealed(self, event: FeedRecordQuarantined, raw: bytes) -> bytes:
        return self.vault.seal_bytes(feed_id(event.source), f"quarantine|{event.quarantine}", raw)

    def descriptions(self, subjects: Sequence[UUID]) -> dict[UUID, Description]:
        return self.archive.descriptions.of(subjects)

    def describe(self, described: Described, before: Mapping[UUID, Description]) -> None:
        self.archive.descriptions.note(described, before)

    def note_early_closings(self, found: Mapping[UUID, FeedPlace], others: Sequence[UUID]) -> None:
        self.archive.early_closings.note(self.source, found, others)

    def await_originals(self, source: str, originals: Mapping[QuarantineId, UUID]) -> None:
        self.archive.quarantine.await_originals(source, originals)
