"""What takes the place of quarantined records: repairs, reversals whose original came, other readings."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import msgspec
from chassis.observability.telemetry import carrier
from chassis.write.store import Command

from sync_ingest.adapters.port import BATCH_RECORDS, FeedFile, Item, chunks_of_lines
from sync_ingest.archive.intakes import Intake
from sync_ingest.archive.quarantine import QuarantineEntry
from sync_ingest.domain.events import QuarantinedRecordDismissed, QuarantinedRecordReleased
from sync_ingest.domain.holders import holders_of
from sync_ingest.domain.identities import IntakeId, QuarantineId, repair_id, resolved_id
from sync_ingest.domain.records import (
    CardRecord,
    ControlRecord,
    HolderRecord,
    HoldersRecord,
    PartyRecord,
    Posting,
    Unreadable,
    shown,
)
from sync_ingest.domain.sources import UNATTRIBUTED, SourceReserved
from sync_ingest.pipeline.ports import FeedIntake, NotBookable
from sync_ingest.runs.booking import Booking
from sync_ingest.runs.context import Said
from sync_ingest.runs.ledgers import Bookable, Dry, Releasing
from sync_ingest.runs.ports import ITSELF, SubjectErased
from sync_ingest.runs.refusals import (
    AlreadyDismissed,
    AlreadyReleased,
    PersonMissing,
    QuarantineUnknown,
    ReleasesAreClosed,
    RepairRefused,
    worded,
)
from sync_ingest.runs.results import RunResult

RELEASES_AT_ONCE: Final = 2_000
REPAIR_RECORDS_MAX: Final = BATCH_RECORDS
"""A repair is booked in one transaction; a larger file is taken in as a file."""
REVERSALS_AT_ONCE: Final = 500
CONTROL: Final = "control"
"""The kind of record that states what a feed holds, and moves nothing."""


class Repairing(Booking):
    """Checks and books repairs; the source is locked."""

    __slots__ = ()

    def _entry(self, quarantined: QuarantineId) -> QuarantineEntry:
        entry = self.archive.quarantine.among([quarantined]).get(quarantined)
        if entry is None:
            raise QuarantineUnknown(quarantined)
        return entry

    def _to_resolve(self, quarantined: QuarantineId) -> QuarantineEntry:
        """The entry as it is now that the source is locked; raises where somebody was faster."""
        self._note_resolved([quarantined])
        entry = self._entry(quarantined)
        if entry.status == "released":
            raise AlreadyReleased(quarantined)
        if entry.status == "dismissed":
            raise AlreadyDismissed(quarantined)
        return entry

    def _note_resolved(self, entries: Sequence[QuarantineId]) -> None:
        """Lists as resolved what the store says is resolved: a crash may have come in between."""
        found = self.ledger.stored_under([resolved_id(entry) for entry in entries]).values()
        for recorded in found:
            match recorded.event:
                case QuarantinedRecordReleased(quarantine=entry):
                    self.archive.quarantine.resolved([QuarantineId(entry)], "released")
                case QuarantinedRecordDismissed(quarantine=entry):
                    self.archive.quarantine.resolved([QuarantineId(entry)], "dismissed")
                case _:
                    pass

    def _acts_with_reason(self, purpose: str | None = None) -> None:
        """From here on events name the person and the reason, and are privileged; raises where there is none."""
        if self.acting.actor == ITSELF.actor:
            raise PersonMissing
        reason = worded(purpose or self.acting.reason or "")
        self.ledger.said_by(self.acting._replace(reason=reason, privilege="high"), carrier())

    def _checked_repair(self, entry: QuarantineEntry, repaired: bytes) -> list[Item]:
        """The records of a repair, if they can take the place of the entry and be booked just now, all of them."""
        if entry.source == UNATTRIBUTED:
            raise SourceReserved("send the record under its own source, and dismiss the entry")
        feed = FeedFile("repair", len(repaired), lambda: io.BytesIO(repaired))
        items: list[Item] = []
        for batch in self.adapters("canonical").read([feed]):
            items += batch.items
            if len(items) > REPAIR_RECORDS_MAX:
                raise RepairRefused(f"it holds more than {REPAIR_RECORDS_MAX} records")
        for item in items:
            if isinstance(item.content, Unreadable):
                where = f", {item.content.column}" if item.content.column else ""
                raise RepairRefused(f"{item.content.reason} at line {item.line}{shown(where)}")
        records_max = self._records_of(entry) if entry.whole_file else 1
        if not 1 <= len(items) <= records_max:
            raise RepairRefused(f"it holds {len(items)} records where {records_max} could not be read")
        kinds = sorted({str(item.content.__struct_config__.tag) for item in items})
        wanted = entry.kind or kinds[0]
        if kinds != [wanted]:
            raise RepairRefused(f"it holds {', '.join(kinds)} where {wanted} was quarantined")
        self._check_open(entry.source, items)
        pipeline = self._pipeline(entry.source, Dry(self.ledger), whole=True)
        try:
            tried = FeedIntake(entry.id, "repair", open=True, covers="parts", kept=False)
            for _ in pipeline.book([items], [tried]):
                pass
        except Bookable:
            return items
        except NotBookable as reason:
            raise RepairRefused(str(reason)) from reason
        if kinds != [CONTROL]:
            raise RepairRefused("duplicate: what it holds is there already; dismiss the entry")
        return items

    def _check_open(self, source: str, items: Sequence[Item]) -> None:
        """Raises ReleasesAreClosed where one of the records names a party that is closed, or an account that it holds."""
        parties: set[UUID] = set()
        accounts: set[str] = set()
        for item in items:
            match item.content:
                case PartyRecord(party=party):
                    parties.add(self.ids.party(source, party))
                case HolderRecord(account=account, party=party):
                    parties.add(self.ids.party(source, party))
                    accounts.add(account)
                case HoldersRecord(account=account, holders=holders):
                    parties |= {self.ids.party(source, holder.party) for holder in holders}
                    accounts.add(account)
                case CardRecord(account=account, party=named):
                    parties |= {self.ids.party(source, named)} if named else set()
                    accounts.add(account)
                case ControlRecord() | Unreadable():
                    pass
                case _:
                    accounts.add(item.content.account)
        held = [self.ids.of_source("holders", source, account) for account in accounts]
        for description in self.archive.descriptions.of(held).values():
            parties |= holders_of(description.digest).rights.keys()
        if self.archive.closed_parties.among(parties):
            raise ReleasesAreClosed

    def _records_of(self, entry: QuarantineEntry) -> int:
        """At most so many records a refused file can hold: its lines after the one that it was refused for."""
        intake = self.archive.intakes.one(entry.intake)
        found = 0
        if intake is not None:
            with self.bytes_of(intake) as stream:
                for lines, _ in chunks_of_lines(stream):
                    found += sum(line.number > entry.line and bool(line.data.strip()) for line in lines)
                    if found >= REPAIR_RECORDS_MAX:
                        return REPAIR_RECORDS_MAX
        return found

    def _release(
        self,
        entry: QuarantineEntry,
        repaired: bytes,
        command: Command | None,
        *,
        proposed_by: str | None = None,
        settle: bool = False,
    ) -> RunResult:
        """Books a checked repair and notes the release, in one transaction; other entries of the same row go with it.

        `settle`: as for a run.
        """
        source = entry.source
        intake = self._keep_repair(entry, repaired, command)
        resolved = [entry.id, *self.archive.quarantine.same_row(entry)]
        self._note_resolved(resolved)
        releases = self._releases(
            source,
            dict.fromkeys(resolved, intake.id),
            repair=repair_id(self.ids, entry.source, entry.id, repaired),
            proposed_by=proposed_by,
        )
        ledger = Releasing(self.ledger, self.ledger.sealed(self._on_feed(source, releases)))
        started = self.elapsed()
        try:
            pipeline = self._book(source, [intake], ledger)
        except NotBookable as reason:
            self.archive.intakes.discard([intake])
            raise RepairRefused(str(reason)) from reason
        ledger.finish()
        self.reached("after-release")
        self.archive.quarantine.resolved(resolved, "released")
        if settle:
            self._settle_reversals(source)
            self._acts_with_reason()
        return self._certified_run(source, [intake], pipeline, command, started)

    def _keep_repair(self, entry: QuarantineEntry, repaired: bytes, command: Command | None) -> Intake:
        intake = self.archive.intakes.take_in(
            entry.source,
            f"repair-of-{entry.id}",
            io.BytesIO(repaired),
            format="canonical",
            mapping=None,
            reading=f"{self.adapters('canonical').reading}|repair|{entry.id}",
            received_at=self.now(),
            seal=self._sealed_part,
            command=command,
            repairs=entry.id,
        )
        self._note_intakes(entry.source, [intake])
        self.reached("after-intake")
        return intake

    def _releases(
        self,
        source: str,
        replaced_by: Mapping[QuarantineId, IntakeId],
        *,
        repair: UUID | None = None,
        proposed_by: str | None = None,
    ) -> list[Said]:
        """The events that say what took the place of entries; none for those that were resolved before."""
        known = self.ledger.known([resolved_id(entry) for entry in replaced_by])
        events: list[Said] = []
        for quarantined, intake in replaced_by.items():
            identity = resolved_id(quarantined)
            if identity not in known:
                event = QuarantinedRecordReleased(
                    source=source,
                    quarantine=quarantined,
                    replaced_by=intake,
                    repair=repair,
                    proposed_by=proposed_by,
                )
                events.append(Said(event, identity, intake))
        return events

    def _release_what_is_read_now(self, source: str, intakes: Sequence[Intake]) -> None:
        """Entries of bytes that are read in another way now: this reading posted what they hold, or waits itself."""
        fresh = [intake for intake in intakes if not intake.certified and intake.repairs is None]
        before = self.archive.quarantine.read_before(fresh) if fresh else {}
        every = list(before)
        for at in range(0, len(every), RELEASES_AT_ONCE):
            some = every[at : at + RELEASES_AT_ONCE]
            releases = self._releases(source, {entry: before[entry] for entry in some})
            with self._at_once():
                self.archive.quarantine.superseded(some)
                if releases:
                    self._append_for(None, self._on_feed(source, releases))

    def _settle_reversals(self, source: str) -> list[RunResult]:
        """Releases reversals that wait for a posting that is stored now, as they came; the source is locked.

        One that contradicts its original waits on for a person.
        """
        self.ledger.said_by(ITSELF._replace(reason="its original is booked"), carrier())
        results, after = [], None
        while awaited := self.archive.quarantine.awaited_originals(source, after, REVERSALS_AT_ONCE):
            *_, after = awaited
            stored = self.ledger.known(list(set(awaited.values())))
            for quarantined in [entry for entry, original in awaited.items() if original in stored]:
                try:
                    entry = self._to_resolve(quarantined)
                    record = self.raw_of(entry)
                    if self._is_booked(source, record):
                        releases = self._releases(source, {entry.id: entry.intake})
                        with self._at_once():
                            self.archive.quarantine.resolved([entry.id], "released")
                            self._certify_anew(source, releases)
                    else:
                        self._checked_repair(entry, record)
                        results.append(self._release(entry, record, None))
                except ReleasesAreClosed:
                    continue  # it is released by a later run, once its party is open again
                except (RepairRefused, AlreadyReleased, AlreadyDismissed, SubjectErased):
                    self.archive.quarantine.await_no_longer(quarantined)
        return results

    def _is_booked(self, source: str, record: bytes) -> bool:
        """Whether a posting that was quarantined is booked since: its intake was read again when its window closed."""
        posting = msgspec.json.decode(record, type=Posting)
        if posting.core_transaction_id is None:
            return False
        identity = self.ids.posting(source, posting.account, posting.core_transaction_id, posting.leg)
        return bool(self.ledger.known([identity]))


def amounts_of(items: Sequence[Item]) -> dict[str, int]:
    """What the postings among these move, by currency, whatever the direction; minor units."""
    sums: Counter[str] = Counter()
    for item in items:
        if isinstance(item.content, Posting):
            sums[item.content.currency] += abs(item.content.amount_minor)
    return dict(sums)
