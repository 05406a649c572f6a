"""A run: bytes are kept, then read, then booked, then certified. Whatever a crash left open goes on from there."""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from itertools import islice
from typing import Any, BinaryIO, Final, Literal, NamedTuple, Protocol
from uuid import UUID

import msgspec
import structlog
from chassis.connections.transient import is_transient
from chassis.observability.telemetry import carrier, span
from chassis.privacy.keys import ERASED
from chassis.write.deciding import Refusal
from chassis.write.events import RecordedEvent, StoredEvent
from chassis.write.store import Command, Fence
from contracts.identity import ExternalIds, spelled

from sync_ingest.adapters.port import BATCH_RECORDS, Adapter, FeedFile, Item, chunks_of_lines
from sync_ingest.adapters.registry import FORMATS, Adapters, FormatUnknown, adapter_for
from sync_ingest.archive.archive import Archive
from sync_ingest.archive.intakes import NAME, Intake
from sync_ingest.archive.quarantine import Proposal, QuarantineEntry
from sync_ingest.checking import Checking
from sync_ingest.domain.balances import DRIFT_MINOR_MAX, TOLERANCE_MINOR
from sync_ingest.domain.certificate import (
    INTAKES_MAX,
    LASTING_REASONS,
    PROBLEMS_NAMED_MAX,
    QUARANTINE_WAITING,
    Comparison,
    Findings,
    Judgement,
    Problem,
    certify,
    status_of,
)
from sync_ingest.domain.events import (
    ContradictionsAcknowledged,
    FeedRecordQuarantined,
    IntakeReceived,
    QuarantinedRecordDismissed,
    QuarantinedRecordReleased,
    QuarantinedRecordShown,
    ReconciliationCertified,
    RepairProposed,
    SourceScheduled,
)
from sync_ingest.domain.identities import (
    CertificateId,
    ContentId,
    IntakeId,
    QuarantineId,
    again_id,
    certificate_id,
    feed_id,
    repair_id,
    resolved_id,
)
from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX, PartialSums
from sync_ingest.domain.records import (
    BOOKED_DAYS_AHEAD_MAX,
    FIRST_DAY,
    BookingDays,
    ControlRecord,
    Posting,
    Unreadable,
    shown,
)
from sync_ingest.domain.sources import (
    UNATTRIBUTED,
    SourceLooksAlike,
    SourceReserved,
    checked_source,
    look,
)
from sync_ingest.domain.totals import AccountCurrency, AccountTotal, ControlTotals, Flow
from sync_ingest.folding import ACCOUNTS_PER_FOLD, Folding, Movements
from sync_ingest.pipeline.pipeline import Pipeline
from sync_ingest.pipeline.ports import AppendConflict, Entry, FeedIntake, LedgerPort, NotBookable

_log = structlog.get_logger(__name__)

FEED_FILES_MAX: Final = INTAKES_MAX
RELEASES_AT_ONCE: Final = 2_000
REPAIR_RECORDS_MAX: Final = BATCH_RECORDS
"""A repair is booked in one transaction; a larger file is taken in as a file."""
REASON_CHARACTERS_MAX: Final = 500
RELEASE_APPROVAL_MINOR: Final = 5_000_000
"""CNY 50,000.00, from which on cash is a large transaction to be reported in the bank's country."""
SHOWN_RETRIES_MAX: Final = 5
CONTROL: Final = "control"
"""The kind of record that states what a feed holds, and moves nothing."""
STATEMENT: Final = "statement"
"""What control totals beside a batch are sealed as."""
REVERSALS_AT_ONCE: Final = 500
ACKNOWLEDGED_PER_EVENT_MAX: Final = 5_000
"""Ids that one event names, of 39 bytes each: an event may have 512 KiB."""


class Acting(NamedTuple):
    """Who has a run done, and why; the machinery itself where nobody is named."""

    actor: str = "sync-ingest"
    post: str | None = None
    on_behalf_of: str | None = None
    client_address: str | None = None
    reason: str | None = None
    privilege: Literal["normal", "high"] = "normal"


ITSELF: Final = Acting()


class Ledger(LedgerPort, Movements, Protocol):
    """The store as a whole run needs it: the pipeline's ledger, and reading accounts back."""

    def account_numbers(self, accounts: Sequence[UUID]) -> dict[UUID, str]:
        """How the source names these accounts, where that can still be read."""
        ...

    def head_position(self) -> int:
        """Position of the last event of the store."""
        ...

    def append_command(self, stream: UUID, sealed: Sequence[StoredEvent], command: Command) -> int:
        """Stores events of one stream and the command that they come of in one transaction; the position after it.

        Raises CommandKeyReused where the key is taken, AppendConflict where the stream has moved on.
        """
        ...

    def outcome(self, command: Command) -> tuple[RecordedEvent, ...] | None:
        """What came of the command when it was carried out; None where it was not. Raises CommandKeyReused."""
        ...

    def stored_under(self, identities: Sequence[UUID]) -> dict[UUID, RecordedEvent]:
        """The events that took these identities, without what is personal in them."""
        ...

    def fenced(self, fence: Fence) -> AbstractContextManager[None]:
        """Meanwhile what is to be stored is refused with Fenced from when another run took the source."""
        ...

    def said_by(self, acting: Acting, trace: Mapping[str, str]) -> None:
        """What is stored from now on names who had it stored, and in which trace unless its record brought its own."""
        ...


class Vault(Protocol):
    """Seals what ingest keeps beside its events."""

    def seal_bytes(self, subject: UUID, place: str, plain: bytes) -> bytes: ...

    def open_bytes(self, subject: UUID, place: str, sealed: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class FeedContent:
    """One file to take in: its name and a way to read its bytes from the beginning."""

    name: str
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    bytes_read: int
    bytes_total: int
    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run read and did. `certificate` is None where nothing new was there to certify.

    `position` is that of the certificate's event, or of the last event of the store where there is none.
    """

    source: str
    findings: Findings
    certificate: CertificateId | None
    intakes: tuple[IntakeId, ...]
    appended: int
    seconds: float
    position: int = 0


class Seen(NamedTuple):
    """A quarantined record in clear: as it came, the name of its file, and its line."""

    raw: bytes
    file: str
    line: int


class Certificate(NamedTuple):
    """A reconciliation certificate; `number` counts those of all sources."""

    number: int
    id: CertificateId
    source: str
    certified_at: datetime
    findings: Findings

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> "Certificate":
        """From a row of the archive."""
        number, identity, source, certified_at, _, findings = row
        return cls(number, identity, source, certified_at, msgspec.json.decode(findings, type=Findings))


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """The bank's own choices."""

    bank_time: tzinfo = UTC
    printed_tolerance_minor: int = TOLERANCE_MINOR
    printed_drift_minor_max: int = DRIFT_MINOR_MAX
    stream_every_seconds: int = 15 * 60
    file_every_seconds: int = 24 * 60 * 60
    booked_from: date = FIRST_DAY
    booked_days_ahead_max: int = BOOKED_DAYS_AHEAD_MAX
    release_approval_minor: int | None = RELEASE_APPROVAL_MINOR
    release_approval_minor_by_currency: Mapping[str, int] = field(default_factory=dict)
    accounts_kept_max: int = ACCOUNTS_KEPT_MAX
    """Accounts whose sums a run keeps in memory; those of more are stored meanwhile."""

    def booking_days(self, now: datetime) -> BookingDays:
        """The days on which a posting may be booked that is read at `now`."""
        today = now.astimezone(self.bank_time).date()
        return BookingDays.around(today, self.booked_from, self.booked_days_ahead_max)


class SubjectErased(Exception):
    """The key under which something was kept has been destroyed."""


class Unbookable(Exception):
    """Booking an intake broke, which is a fault of ours; its bytes are kept and it is set aside."""


class QuarantineUnknown(Refusal):
    """No quarantine entry of that id."""

    code = "quarantine-unknown"
    status = 404
    title = "There is no such quarantine entry"
    title_zh = "没有该隔离记录"


class NothingToAcknowledge(Refusal):
    """No contradiction that the certificate names is open."""

    code = "nothing-to-acknowledge"
    title = "No contradiction of this certificate is open"
    title_zh = "该证书没有未处理的差异"


class CertificateUnknown(Refusal):
    """No certificate of that id."""

    code = "certificate-unknown"
    status = 404
    title = "There is no such certificate"
    title_zh = "没有该对账证书"


class AlreadyReleased(Refusal):
    """The entry was repaired before."""

    code = "already-released"
    title = "The quarantine entry was released before"
    title_zh = "该隔离记录已被放行"


class AlreadyDismissed(Refusal):
    """The entry was closed before, without being booked."""

    code = "already-dismissed"
    title = "The quarantine entry was dismissed before"
    title_zh = "该隔离记录已被驳回"


class PersonMissing(Refusal):
    """What is done to a quarantined record is done by a person, never by the machinery."""

    code = "person-missing"
    status = 403
    title = "A person must do this"
    title_zh = "此操作须由具体人员执行"


class ReasonMissing(Refusal):
    """Release and dismissal say why, showing says what for."""

    code = "reason-missing"
    status = 422
    title = "A reason is needed"
    title_zh = "必须说明理由"


class RepairRefused(Refusal):
    """The repair cannot take the place of what was quarantined; nothing of it is kept."""

    code = "repair-refused"
    status = 422
    title = "The repair cannot take the place of the quarantined record"
    title_zh = "修复内容不能替代该隔离记录"


class ProposalUnknown(Refusal):
    """No repair waits for approval under that id: none was proposed, or another one was since."""

    code = "proposal-unknown"
    title = "This repair does not wait for approval"
    title_zh = "没有等待批准的该修复内容"


class SecondPersonNeeded(Refusal):
    """Who proposed a repair does not approve it."""

    code = "second-person-needed"
    status = 403
    title = "Another person must approve this repair"
    title_zh = "须由另一人员批准该修复内容"


@dataclass(slots=True)
class Ingest:
    """Everything a run needs; one instance per thread."""

    archive: Archive
    ids: ExternalIds
    ledger: Ledger
    vault: Vault
    now: Callable[[], datetime]
    elapsed: Callable[[], float]
    settings: IngestSettings = field(default_factory=IngestSettings)
    reached: Callable[[str], None] = lambda _: None
    progress: Callable[[Progress], None] = lambda _: None
    acting: Acting = ITSELF
    adapters: Adapters = adapter_for

    def run(
        self,
        source: str,
        contents: Sequence[FeedContent],
        *,
        format: str,
        mapping: str | None = None,
        command: Command | None = None,
        controls: Sequence[ControlRecord] = (),
    ) -> RunResult:
        """Takes the files in and books them; what earlier runs of this source left open is finished first.

        `controls` are control totals of all files together, which come beside them.
        The same command again has the result of the first time. Raises CommandKeyReused where its key was another's.
        """
        source = checked_source(source)
        if format not in FORMATS:
            raise FormatUnknown(format)
        self.adapters(format, mapping)
        with self._traced("ingest run"), self._locked(source, command):
            if done := self._outcome(command):
                return _certified(done)
            statement = self._state(source, controls)
            intakes = self._take_in(source, contents, format, mapping, command, statement)
            self.reached("after-intake")
            given = {intake.id for intake in intakes}
            _, said = self._finish_stated(source, given, controls)
            self._finish_open(source, without=given)
            kept = self.archive.intakes.among(list(given))
            intakes = [kept[intake.id] for intake in intakes]
            intakes = self._read_again(source, intakes, command)
            result = self._book_and_certify(source, intakes, command, controls, settle=True)
            self.archive.intakes.checked(said)
            return result

    def keep(self, source: str, content: FeedContent, *, format: str) -> RunResult:
        """Books one intake and leaves its certificate to the window: what a stream of small batches does."""
        with self._traced("ingest keep"), self._locked(source):
            intakes = self._take_in(source, [content], format, None)
            started = self.elapsed()
            with self._setting_aside(intakes):
                pipeline = self._book(source, intakes)
            folding = self._folding(source)
            for counted in pipeline.totals.by_account(ACCOUNTS_PER_FOLD):
                folding.totals([account_currency.account for account_currency in counted])
            findings = certify(pipeline.totals, Comparison(pipeline.totals), Judgement())
            ids = tuple(intake.id for intake in intakes)
            return RunResult(source, findings, None, ids, pipeline.appended, self.elapsed() - started)

    def close_window(self, source: str) -> list[RunResult]:
        """Certifies everything of a source that no certificate covers yet."""
        with self._traced("ingest close window"), self._locked(source):
            results = self._finish_all(source)
            return results + self._settle_reversals(source)

    # quarantine

    def release(
        self, quarantined: QuarantineId, repaired: bytes, command: Command | None = None
    ) -> RunResult | Proposal:
        """Books the canonical records that replace what was quarantined, or proposes them to a second person.

        One entry is one record; an entry for a whole file stands for at most as many as it has lines. Everything is
        checked and done under the source's lock, and nothing new is kept of what is refused.
        """
        source = self._entry(quarantined).source
        with self._traced("ingest release"), self._locked(source, command):
            if done := self._outcome_after_crash(source, command):
                return _released_or_proposed(done)
            self._acts_with_reason()
            entry = self._to_resolve(quarantined)
            items = self._checked_repair(entry, repaired)
            amounts_minor = _amounts(items)
            if self._needs_second_person(amounts_minor):
                return self._propose(entry, repaired, len(items), amounts_minor, command)
            return self._release(entry, repaired, command, settle=True)

    def approve(self, quarantined: QuarantineId, repair: UUID, command: Command | None = None) -> RunResult:
        """Books the repair that another person proposed; `repair` names its bytes, so nothing else is booked."""
        source = self._entry(quarantined).source
        with self._traced("ingest approve"), self._locked(source, command):
            if done := self._outcome_after_crash(source, command):
                return _certified(done)
            self._acts_with_reason()
            entry = self._to_resolve(quarantined)
            proposal = self.archive.quarantine.proposals([quarantined]).get(quarantined)
            if proposal is None or proposal.repair != repair:
                raise ProposalUnknown(repair)
            if proposal.proposed_by in {self.acting.actor, self.acting.on_behalf_of}:
                raise SecondPersonNeeded(repair)
            repaired = self._open_proposal(source, proposal)
            self._checked_repair(entry, repaired)
            return self._release(entry, repaired, command, proposed_by=proposal.proposed_by, settle=True)

    def dismiss(self, quarantined: QuarantineId, command: Command | None = None) -> int:
        """Closes an entry without booking anything; returns the position of its event."""
        source = self._entry(quarantined).source
        with self._traced("ingest dismiss"), self._locked(source, command):
            if done := self._outcome_after_crash(source, command):
                return done[-1].position or 0
            self._acts_with_reason()
            entry = self._to_resolve(quarantined)
            stream, now = feed_id(source), self.now()
            head = self.ledger.heads([stream]).get(stream, 0)
            event = QuarantinedRecordDismissed(source=source, quarantine=entry.id)
            written = Entry(stream, head + 1, event, resolved_id(entry.id), now, entry.intake)
            position = self._append_for(command, [written])
            self.archive.quarantine.resolved([entry.id], "dismissed")
            self._certify_anew(source)
            return position

    def show(self, quarantined: QuarantineId, purpose: str) -> Seen:
        """The record as it came, which may be personal; that it was seen, by whom and what for, is stored first."""
        _worded(purpose)
        entry = self._entry(quarantined)
        with self._traced("ingest show"):
            self._acts_with_reason(purpose)
            for attempt in range(SHOWN_RETRIES_MAX):
                # On a stream of the entry's own: the feed's is written under the lock of the source alone.
                head = self.ledger.heads([entry.id]).get(entry.id, 0)
                event = QuarantinedRecordShown(source=entry.source, quarantine=entry.id, purpose=purpose)
                try:
                    self._append([Entry(entry.id, head + 1, event, None, self.now(), entry.intake)])
                except AppendConflict:
                    if attempt + 1 == SHOWN_RETRIES_MAX:
                        raise
                    continue
                break
        return Seen(self.raw_of(entry), self.file_of(entry.intake), entry.line)

    def proposals(self, entries: Sequence[QuarantineId]) -> dict[QuarantineId, Proposal]:
        """The repairs that wait for a second person, by entry."""
        return self.archive.quarantine.proposals(entries)

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
        reason = _worded(purpose or self.acting.reason or "")
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
        pipeline = self._pipeline(entry.source, _Dry(self.ledger), whole=True)
        try:
            for _ in pipeline.book([items], [FeedIntake(entry.id, "repair", open=True, covers="parts")]):
                pass
        except _Bookable:
            return items
        except NotBookable as reason:
            raise RepairRefused(str(reason)) from reason
        if kinds != [CONTROL]:
            raise RepairRefused("duplicate: what it holds is there already; dismiss the entry")
        return items

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

    def _needs_second_person(self, amounts_minor: Mapping[str, int]) -> bool:
        limits, otherwise = (
            self.settings.release_approval_minor_by_currency,
            self.settings.release_approval_minor,
        )
        for currency, amount_minor in amounts_minor.items():
            limit = limits.get(currency, otherwise)
            if limit is not None and amount_minor > limit:
                return True
        return False

    def _propose(
        self,
        entry: QuarantineEntry,
        repaired: bytes,
        records: int,
        amounts_minor: dict[str, int],
        command: Command | None,
    ) -> Proposal:
        stream, now, repair = (
            feed_id(entry.source),
            self.now(),
            repair_id(self.ids, entry.source, entry.id, repaired),
        )
        sealed = self.vault.seal_bytes(stream, f"proposal|{repair}", repaired)
        reason = _worded(self.acting.reason or "")
        proposal = Proposal(entry.id, repair, sealed, records, amounts_minor, self.acting.actor, reason, now)
        head = self.ledger.heads([stream]).get(stream, 0)
        event = RepairProposed(
            source=entry.source,
            quarantine=entry.id,
            repair=repair,
            records=records,
            amounts_minor=amounts_minor,
        )
        self.archive.quarantine.propose(proposal)
        self._append_for(command, [Entry(stream, head + 1, event, None, now, entry.intake)])
        return proposal

    def _open_proposal(self, source: str, proposal: Proposal) -> bytes:
        return self.vault.open_bytes(feed_id(source), f"proposal|{proposal.repair}", proposal.repaired)

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
        ledger = _Releasing(self.ledger, self.ledger.sealed(releases))
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

    def acknowledge(
        self, certificate: UUID, only: Sequence[UUID] = (), command: Command | None = None
    ) -> Certificate:
        """Contradictions that a certificate counts, or some of them, count no longer; the certificate that says so.

        A certificate names the first ones and counts all of them; those that came after it stay open.

        Who acts gives the reason. Raises CertificateUnknown, ReasonMissing, and NothingToAcknowledge where none is open.
        """
        named = self.certificate(certificate)
        if named is None:
            raise CertificateUnknown(str(certificate))
        _worded(self.acting.reason or "")
        source = named.source
        with self._traced("ingest acknowledge"), self._locked(source, command):
            if not self._outcome(command):
                standing = self.archive.contradictions.open_under(source, named.number, only)
                if not standing:
                    raise NothingToAcknowledge(str(certificate))
                stream, now = feed_id(source), self.now()
                head = self.ledger.heads([stream]).get(stream, 0)
                entries: list[Entry] = []
                for at in range(0, len(standing), ACKNOWLEDGED_PER_EVENT_MAX):
                    some = tuple(standing[at : at + ACKNOWLEDGED_PER_EVENT_MAX])
                    event = ContradictionsAcknowledged(
                        source=source, certificate=certificate, contradictions=some
                    )
                    version = head + len(entries) + 1
                    entries.append(Entry(stream, version, event, None, now, IntakeId(certificate)))
                self._append_for(command, entries)
                self.archive.contradictions.acknowledge(source, standing)
                self._certify_anew(source, certificate)
            latest = self.latest_certificate(source)
            return latest or named

    def _certify_anew(self, source: str, acknowledged: UUID | None = None) -> None:
        """Certifies a source's status without a new feed: the last one's lasting reasons, and what stands now."""
        previous = self.latest_certificate(source)
        before = previous.findings.reasons if previous else ()
        judgement = self._judgement(source, 0, 0)
        reasons = [*judgement.codes, *([QUARANTINE_WAITING] if judgement.waiting else [])]
        reasons += [reason for reason in before if reason in LASTING_REASONS]
        empty = ControlTotals()
        findings = msgspec.structs.replace(
            certify(empty, Comparison(empty), judgement),
            status=status_of(reasons, judgement),
            reasons=tuple(reasons),
            booked_through=previous.findings.booked_through if previous else None,
            acknowledges=acknowledged,
        )
        self._certify(source, [], findings, None, ())

    def schedule(self, source: str, every_seconds: int) -> None:
        """Says how often a source sends; it is stale when it is silent for longer."""
        checked_source(source)
        with self._traced("ingest schedule"), self._locked(source):
            stream, now = feed_id(source), self.now()
            head = self.ledger.heads([stream]).get(stream, 0)
            event = SourceScheduled(source=source, every_seconds=every_seconds)
            self._append([Entry(stream, head + 1, event, None, now, IntakeId(feed_id(source)))])
            self.archive.sources.schedule(source, every_seconds)

    def expected_every_seconds(self, source: str) -> int:
        """How often a source sends: as it was scheduled, else as often as its way of sending allows."""
        scheduled = self.archive.sources.scheduled(source)
        if scheduled is not None:
            return scheduled
        streams = self.archive.sources.streams(source)
        return self.settings.stream_every_seconds if streams else self.settings.file_every_seconds

    def certificates(self, source: str | None, before: int | None, limit: int) -> list[Certificate]:
        """A page of certificates, newest first, going on before a number."""
        wanted = None if source is None else spelled(source)
        return [Certificate.of(row) for row in self.archive.certificates.page(wanted, before, limit)]

    def latest_certificate(self, source: str) -> Certificate | None:
        """The last certificate of a source."""
        return next(iter(self.certificates(source, None, 1)), None)

    def certificate(self, identity: UUID) -> Certificate | None:
        """One certificate by its id."""
        row = self.archive.certificates.one(identity)
        return Certificate.of(row) if row else None

    def accounts_named(self, certificate: Certificate) -> dict[UUID, str]:
        """How the source names the accounts that a certificate finds a problem with."""
        accounts = {problem.account_id for problem in certificate.findings.problems}
        return self.ledger.account_numbers([account for account in accounts if account is not None])

    def raw_of(self, entry: QuarantineEntry) -> bytes:
        """What a quarantined record looked like."""
        sealed = bytes.fromhex(entry.raw_sealed)
        return self.vault.open_bytes(feed_id(entry.source), f"quarantine|{entry.id}", sealed)

    def bytes_of(self, intake: Intake) -> BinaryIO:
        """The bytes of an intake as they came."""
        return self.archive.intakes.read(intake, self._open_part)

    def file_of(self, intake: IntakeId) -> str:
        """The name under which the bytes of an intake came, which may be personal; `***` where it is no longer known."""
        return self.files_of([intake])[intake]

    def files_of(self, intakes: Sequence[IntakeId]) -> dict[IntakeId, str]:
        """As `file_of`, of several."""
        kept = self.archive.intakes.among(list(dict.fromkeys(intakes)))
        return {intake: self._name_of(kept[intake]) if intake in kept else ERASED for intake in intakes}

    def _name_of(self, intake: Intake) -> str:
        if intake.name_sealed is None:
            return ERASED
        try:
            return self._open_part(intake.content, NAME, intake.name_sealed).decode()
        except SubjectErased:
            return ERASED

    def _sealed_part(self, content: ContentId, part: str, plain: bytes) -> bytes:
        return self.vault.seal_bytes(content, f"intake|{part}", plain)

    def _open_part(self, content: ContentId, part: str, sealed: bytes) -> bytes:
        return self.vault.open_bytes(content, f"intake|{part}", sealed)

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
                        self._append(self._releases(source, {entry.id: entry.intake}))
                        self.archive.quarantine.resolved([entry.id], "released")
                        self._certify_anew(source)
                    else:
                        self._checked_repair(entry, record)
                        results.append(self._release(entry, record, None))
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

    @contextmanager
    def _locked(self, source: str, command: Command | None = None) -> Iterator[None]:
        """Holds the source, and the command's key: from when another run took it nothing more is stored."""
        with self.archive.locked(source, command) as fence, self.ledger.fenced(fence):
            yield

    @contextmanager
    def _traced(self, name: str) -> Iterator[None]:
        """A span of its own, or one below the caller's; events carry it to whoever reads them."""
        with span(name):
            self.ledger.said_by(self.acting, carrier())
            yield

    def _releases(
        self,
        source: str,
        replaced_by: Mapping[QuarantineId, IntakeId],
        *,
        repair: UUID | None = None,
        proposed_by: str | None = None,
    ) -> list[Entry]:
        """The events that say what took the place of entries; none for those that were resolved before."""
        stream, now = feed_id(source), self.now()
        known = self.ledger.known([resolved_id(entry) for entry in replaced_by])
        version = self.ledger.heads([stream]).get(stream, 0)
        entries: list[Entry] = []
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
                entries.append(Entry(stream, version + len(entries) + 1, event, identity, now, intake))
        return entries

    def _release_what_is_read_now(self, source: str, intakes: Sequence[Intake]) -> None:
        """Entries of bytes that are read in another way now: this reading posted what they hold, or waits itself."""
        fresh = [intake for intake in intakes if not intake.certified and intake.repairs is None]
        before = self.archive.quarantine.read_before(fresh) if fresh else {}
        every = list(before)
        for at in range(0, len(every), RELEASES_AT_ONCE):
            some = every[at : at + RELEASES_AT_ONCE]
            if entries := self._releases(source, {entry: before[entry] for entry in some}):
                self._append(entries)
            self.archive.quarantine.superseded(some)

    def _append(self, entries: Sequence[Entry]) -> None:
        self.ledger.append(self.ledger.sealed(entries))

    def _append_for(self, command: Command | None, entries: Sequence[Entry]) -> int:
        """Stores events of one stream, with the command that they come of where there is one; the last position."""
        sealed = self.ledger.sealed(entries)
        if command is None:
            return self.ledger.append(sealed)[-1]
        return self.ledger.append_command(sealed[0].stream_id, sealed, command)

    def _outcome(self, command: Command | None) -> tuple[RecordedEvent, ...] | None:
        """What came of the command before; None where it has not been carried out."""
        return self.ledger.outcome(command) if command else None

    def _outcome_after_crash(self, source: str, command: Command | None) -> tuple[RecordedEvent, ...] | None:
        """As `_outcome`, after what a crash left open is finished: that may be the very same command.

        A window that is open is closed by it, so that the certificate of a release covers no posting but its own.
        """
        if done := self._outcome(command):
            return done
        self._finish_all(source)
        return self._outcome(command)

    # intake

    def _take_in(
        self,
        source: str,
        contents: Sequence[FeedContent],
        format: str,
        mapping: str | None,
        command: Command | None = None,
        statement: int | None = None,
    ) -> list[Intake]:
        self._known(source)
        reading = self.adapters(format, mapping).reading

        intakes: dict[IntakeId, Intake] = {}
        copies: list[Intake] = []
        for content in contents:
            with content.open() as stream:
                intake = self.archive.intakes.take_in(
                    source,
                    shown(content.name),
                    stream,
                    format=format,
                    mapping=mapping,
                    reading=reading,
                    received_at=self.now(),
                    seal=self._sealed_part,
                    command=command,
                    statement=statement,
                )
            if intake.id in intakes:
                copies.append(intake)
            intakes[intake.id] = intake
        self._note_intakes(source, list(intakes.values()))
        return [*intakes.values(), *copies]

    def _read_again(self, source: str, intakes: Sequence[Intake], command: Command | None) -> list[Intake]:
        """The intakes, and another one in the place of each that is certified and of which more can be booked now.

        A limit was widened, say, since a record was refused. What comes of it is of a new intake, so that a certificate
        covers it; the entries of the one before are resolved by it.
        """
        found: dict[IntakeId, Intake] = {}
        for intake in dict.fromkeys(intake.id for intake in intakes if intake.certified):
            latest = self._latest(source, next(each for each in intakes if each.id == intake))
            if latest.certified and self._is_bookable(source, latest):
                identity = again_id(self.ids, source, latest.id)
                latest = self.archive.intakes.take_in_again(latest, identity, self.now(), command)
                self._note_intakes(source, [latest])
            found[intake] = latest
        return [found.get(intake.id, intake) for intake in intakes]

    def _latest(self, source: str, intake: Intake) -> Intake:
        """The intake that was made last of a certified one, to read its bytes once more."""
        while (later := self.archive.intakes.one(again_id(self.ids, source, intake.id))) is not None:
            intake = later
        return intake

    def _is_bookable(self, source: str, intake: Intake) -> bool:
        """Whether a posting of a certified intake that waits could be booked now; nothing is stored."""
        if not self.archive.quarantine.waiting_lines(intake.id):
            return False
        try:
            self._book(source, [intake], _Dry(self.ledger), trial=True)
        except _Bookable:
            return True
        return False

    def _known(self, source: str) -> None:
        """The source is known by its name from now on; raises SourceLooksAlike where another one looks like it."""
        known = self.archive.sources.known(look(source), source)
        if known != source:
            raise SourceLooksAlike(f"there is a source {known!r}; send under that name, or under another one")

    def _note_intakes(self, source: str, intakes: Sequence[Intake]) -> None:
        known = self.ledger.known([intake.id for intake in intakes])
        stream = feed_id(source)
        head = self.ledger.heads([stream]).get(stream, 0)
        entries = []
        for intake in intakes:
            if intake.id not in known:
                head += 1
                event = IntakeReceived(
                    source=source,
                    intake=intake.id,
                    content=intake.content,
                    format=intake.format,
                    size_bytes=intake.size_bytes,
                )
                entries.append(Entry(stream, head, event, intake.id, intake.received_at, intake.id))
        if entries:
            self._append(entries)

    # control totals beside a batch

    def _state(self, source: str, controls: Sequence[ControlRecord]) -> int | None:
        """Keeps control totals until they are checked: whoever finishes what a crash left open needs them."""
        if not controls:
            return None
        self._known(source)
        sealed = self.vault.seal_bytes(feed_id(source), STATEMENT, msgspec.json.encode(controls))
        return self.archive.intakes.state(source, sealed)

    def _finish_stated(
        self, source: str, given: Set[IntakeId] = frozenset(), controls: Sequence[ControlRecord] = ()
    ) -> tuple[list[RunResult], list[int]]:
        """Books, checks and certifies batches whose control totals a crash left unchecked.

        Also returns the statements that the run of `given` checks itself: its own, and those of the same words that
        were left of a part of it. Bytes that are set aside are checked when they come again.
        """
        results: list[RunResult] = []
        own: list[int] = []
        for statement in self.archive.intakes.statements(source):
            opened = self.vault.open_bytes(feed_id(source), STATEMENT, statement.sealed)
            stated = msgspec.json.decode(opened, type=tuple[ControlRecord, ...])
            if stated == tuple(controls) and given >= set(statement.intakes):
                own.append(statement.number)
                continue
            kept = self.archive.intakes.among(statement.intakes)
            intakes = [self._latest(source, kept[each]) for each in statement.intakes if each in kept]
            if any(intake.set_aside and intake.id not in given for intake in intakes):
                continue
            try:
                if intakes:
                    with self._setting_aside(intakes):
                        results.append(self._book_and_certify(source, intakes, intakes[0].command, stated))
            except Unbookable:
                continue
            self.archive.intakes.checked([statement.number])
        return results, own

    # booking

    def _finish_all(self, source: str) -> list[RunResult]:
        """As `_finish_open`, of everything."""
        results, _ = self._finish_stated(source)
        return results + self._finish_open(source, without=set())

    def _finish_open(self, source: str, without: set[IntakeId]) -> list[RunResult]:
        """Books and certifies what earlier runs left open: those that read alike and came with one request together."""
        groups: dict[tuple[str | None, ...], list[Intake]] = {}
        for intake in self.archive.intakes.open(source):
            if intake.id not in without:
                repairs = str(intake.repairs) if intake.repairs else None
                key = (intake.format, intake.mapping, intake.request, repairs)
                groups.setdefault(key, []).append(intake)
        results = []
        parts = [
            group[at : at + INTAKES_MAX]
            for group in groups.values()
            for at in range(0, len(group), INTAKES_MAX)
        ]
        for group in parts:
            if group[0].repairs is not None and not self._was_released(group[0].repairs):
                self.archive.intakes.discard(group)
                continue
            try:
                with self._setting_aside(group):
                    results.append(self._book_and_certify(source, group, group[0].command))
            except Unbookable:
                continue
        return results

    def _was_released(self, entry: QuarantineId) -> bool:
        """Whether a repair was booked before its run was cut off; its release was stored with it or not at all."""
        found = self.archive.quarantine.among([entry])
        self._note_resolved(
            [entry, *(same for each in found.values() for same in self.archive.quarantine.same_row(each))]
        )
        return resolved_id(entry) in self.ledger.known([resolved_id(entry)])

    @contextmanager
    def _setting_aside(self, intakes: Sequence[Intake]) -> Iterator[None]:
        """What breaks the booking itself, which is a fault of ours, is set aside, so that no later run stops at it."""
        ids = [intake.id for intake in intakes]
        try:
            yield
        except Exception as error:
            if isinstance(error, Refusal) or is_transient(error):
                raise
            self.archive.intakes.set_aside(ids, type(error).__name__)
            _log.error("intakes set aside", count=len(ids), error=type(error).__name__)
            raise Unbookable(type(error).__name__) from error
        if any(intake.set_aside for intake in intakes):
            self.archive.intakes.set_aside(ids, None)

    def _pipeline(
        self, source: str, ledger: LedgerPort, *, whole: bool = False, trial: bool = False
    ) -> Pipeline:
        previous = self.latest_certificate(source)
        partial_sums = self.archive.partial_sums.of(source)
        return Pipeline(
            source,
            self.ids,
            ledger,
            _Book(self.archive, self.vault, self.now, source, self._folding(source)),
            now=self.now,
            bank_time=self.settings.bank_time,
            certified_through=previous.findings.booked_through if previous else None,
            days=self.settings.booking_days(self.now()),
            whole=whole,
            trial=trial,
            reached=self.reached,
            partial_sums=partial_sums,
            accounts_kept_max=self.settings.accounts_kept_max,
        )

    def _book(
        self,
        source: str,
        intakes: Sequence[Intake],
        ledger: LedgerPort | None = None,
        *,
        trial: bool = False,
    ) -> Pipeline:
        """Books intakes; those of a repair, which come with a ledger of their own, as a whole or not at all."""
        whole = ledger is not None and not trial
        pipeline = self._pipeline(source, ledger or self.ledger, whole=whole, trial=trial)
        adapter = self.adapters(intakes[0].format, intakes[0].mapping, kept=True)
        files, origins, met = [], [], set[IntakeId]()
        readings = self.archive.intakes.readings(intakes)
        for intake in intakes:
            name = self._name_of(intake)
            files.append(FeedFile(name, intake.size_bytes, self._opener(intake)))
            fresh = not intake.certified and intake.id not in met
            origins.append(
                FeedIntake(
                    intake.id,
                    name,
                    open=fresh,
                    closed=intake.certified and not trial,
                    covers="parts" if intake.repairs else adapter.covers,
                    readings=frozenset([intake.id]) if intake.repairs else readings[intake.id],
                    kind="posting" if intake.format == "csv" else None,
                    waited=self.archive.quarantine.waiting_lines(intake.again) if intake.again else None,
                )
            )
            met.add(intake.id)
        total, started = sum(feed_file.size_bytes for feed_file in files), self.elapsed()
        reading = _Reading(adapter, files)
        with closing(
            pipeline.book(reading, origins)
        ) as booked:  # nothing is under way when the source is let go
            for records in booked:
                self.progress(Progress(reading.bytes_read, total, records, self.elapsed() - started))
        return pipeline

    def _opener(self, intake: Intake) -> Callable[[], BinaryIO]:
        return lambda: self.bytes_of(intake)

    def _book_and_certify(
        self,
        source: str,
        intakes: Sequence[Intake],
        command: Command | None = None,
        controls: Sequence[ControlRecord] = (),
        *,
        settle: bool = False,
    ) -> RunResult:
        """`settle`: reversals that waited for what is booked here are settled before it is certified."""
        started = self.elapsed()
        pipeline = self._book(source, intakes)
        if pipeline.names_all:
            self._release_what_is_read_now(source, intakes)
        if settle:
            self._settle_reversals(source)
            self.ledger.said_by(self.acting, carrier())
        return self._certified_run(source, intakes, pipeline, command, started, controls)

    def _certified_run(
        self,
        source: str,
        intakes: Sequence[Intake],
        pipeline: Pipeline,
        command: Command | None,
        started: float,
        controls: Sequence[ControlRecord] = (),
    ) -> RunResult:
        """Compares what was read with what the ledger got of it and with what it states, and certifies it."""
        ids = list(dict.fromkeys(intake.id for intake in intakes))
        pending = {intake.id for intake in intakes if not intake.certified}
        self.reached("before-certificate")
        partial_sums = self.archive.partial_sums.of(source)
        shared = self.archive.intakes.others_open(source, list(pending))
        comparison, flows = self._compared(source, pipeline.totals, pending if shared else None, partial_sums)
        checking = Checking(self.archive, self.ledger, source, partial_sums, self.settings.accounts_kept_max)
        read, as_one = [intake.id for intake in intakes], intakes[0].format == "topic"
        checking.check(pipeline.read, read, self._contents(intakes), controls, pipeline.totals, as_one=as_one)
        checking.faults(comparison.problems, sorted(pending))
        judgement = self._judgement(source, checking.unchecked, comparison.uncompared)
        certificate, covered = None, sorted(pending) or ids
        findings = certify(pipeline.totals, comparison, judgement, len(covered))
        if pending or self.archive.contradictions.unnamed(source) or self._is_news(source, findings):
            certificate, position = self._certify(
                source, covered, findings, command, flows.by_account() if shared else None, checking.series()
            )
        elif command is not None and self._outcome(command) is None:
            position = self.ledger.append_command(feed_id(source), [], command)
        else:
            position = self.ledger.head_position()
        if certificate is None and checking.any_series:
            self.archive.series.keep(source, checking.series())
        seconds = self.elapsed() - started
        return RunResult(source, findings, certificate, tuple(covered), pipeline.appended, seconds, position)

    def _compared(
        self, source: str, totals: ControlTotals, of: Set[IntakeId] | None, partial_sums: PartialSums
    ) -> tuple[Comparison, "_Flows"]:
        """Folds and compares every account that was moved; with `of`, what these intakes moved of each is kept too.

        Without it, all that no certificate covers is theirs.
        """
        folding, comparison = self._folding(source), Comparison(totals)
        flows = _Flows(partial_sums, self.settings.accounts_kept_max)
        for counted in totals.by_account(ACCOUNTS_PER_FOLD):
            held = folding.totals([account_currency.account for account_currency in counted])
            if of is None:
                comparison.add(
                    counted,
                    held,
                    {account_currency: total.movement for account_currency, total in held.items()},
                )
            else:
                moved = folding.flows(held, of)
                comparison.add(counted, held, moved)
                flows.add(moved)
        return comparison, flows

    def _is_news(self, source: str, findings: Findings) -> bool:
        """Whether a source stands otherwise than its last certificate says: bytes that came again resolve something."""
        latest = self.latest_certificate(source)
        known = latest.findings if latest else None
        said = (findings.status, findings.reasons, findings.problems_total)
        return known is not None and (known.status, known.reasons, known.problems_total) != said

    def _contents(self, intakes: Sequence[Intake]) -> list[ContentId]:
        """The bytes of each; of a repair the bytes that it repairs a record of."""
        repaired = self.archive.quarantine.among([intake.repairs for intake in intakes if intake.repairs])
        kept = self.archive.intakes.among([entry.intake for entry in repaired.values()])

        def content(intake: Intake) -> ContentId:
            entry = repaired.get(intake.repairs) if intake.repairs else None
            return kept[entry.intake].content if entry and entry.intake in kept else intake.content

        return [content(intake) for intake in intakes]

    def _folding(self, source: str) -> Folding:
        settings = self.settings
        return Folding(
            self.archive,
            self.ledger,
            source,
            settings.printed_tolerance_minor,
            settings.printed_drift_minor_max,
        )

    def _judgement(self, source: str, unchecked: int, uncompared: int) -> Judgement:
        """What stands against a source now, whatever the last feed brought."""
        found, total, codes = self.archive.contradictions.open(source, PROBLEMS_NAMED_MAX)
        return Judgement(
            open=tuple(
                Problem(
                    each.code,
                    each.expected,
                    each.found,
                    each.account,
                    each.currency,
                    each.detail,
                    each.id,
                    known=each.certificate is not None,
                )
                for each in found
            ),
            open_total=total,
            codes=tuple(codes),
            waiting=self.archive.quarantine.waiting(source),
            unchecked=unchecked,
            uncompared=uncompared,
        )

    def _certify(
        self,
        source: str,
        intakes: Sequence[IntakeId],
        findings: Findings,
        command: Command | None,
        flows: Iterable[Mapping[AccountCurrency, Flow]] | None = None,
        series: Iterable[Mapping[str, bytes]] = (),
    ) -> tuple[CertificateId, int]:
        """Stores the certificate, with the command that asked for the run in the same transaction; its position.

        `flows` is what it covers where other intakes are open; None: everything that no certificate covers yet.
        """
        previous = self.latest_certificate(source)
        parts = list(intakes) or [IntakeId(p.contradiction) for p in findings.problems if p.contradiction]
        certificate = certificate_id(self.ids, source, previous.id if previous else None, parts)
        stream, now = feed_id(source), self.now()
        stored = self.ledger.stored_under([certificate]).get(certificate)
        position = (stored.position if stored else None) or 0
        if stored is None:
            event = ReconciliationCertified(
                source=source,
                certificate=certificate,
                intakes=tuple(intakes),
                findings=findings,
                expected_every_seconds=self.expected_every_seconds(source),
                received_at=self.archive.sources.last_received(source),
            )
            head = self.ledger.heads([stream]).get(stream, 0)
            intake = intakes[0] if intakes else IntakeId(certificate)
            written = [Entry(stream, head + 1, event, certificate, now, intake)]
            if self._outcome(command) is not None:
                command = None  # it was answered before a crash, and what it brought is certified once more
            position = self._append_for(command, written)
        self.archive.certificates.certify(
            certificate,
            source,
            certified_at=now,
            status=findings.status,
            findings=msgspec.json.encode(findings),
            intakes=intakes,
            flows=flows,
            series=series,
        )
        return certificate, position


class _Beside:
    """A ledger that reads as the ledger does."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.postings = ledger.postings
        self.known = ledger.known
        self.heads = ledger.heads
        self.digest_keys = ledger.digest_keys
        self.differences = ledger.differences
        self.sealed = ledger.sealed


class _Bookable(Exception):
    """Everything was planned, and would be stored now."""


class _Dry(_Beside):
    """A ledger that stores nothing: whoever comes as far as storing could be booked."""

    def append(self, sealed: Sequence[StoredEvent]) -> list[int]:
        """Raises _Bookable."""
        raise _Bookable


class _Releasing(_Beside):
    """A ledger that stores the events of a release in the transaction of the repair that it books."""

    def __init__(self, ledger: Ledger, releases: Sequence[StoredEvent]) -> None:
        super().__init__(ledger)
        self._releases = releases

    def append(self, sealed: Sequence[StoredEvent]) -> list[int]:
        """As the ledger's; the releases go with what is stored first."""
        positions = self._ledger.append([*sealed, *self._releases])
        self._releases = ()
        return positions[: len(sealed)]

    def finish(self) -> None:
        """Stores the releases alone where the repair held nothing that was not there before."""
        if self._releases:
            self.append([])


def _worded(reason: str) -> str:
    """The reason, if it says something that can be stored and shown; raises ReasonMissing."""
    text = reason.strip()
    if not text or not text.isprintable() or len(text) > REASON_CHARACTERS_MAX:
        raise ReasonMissing(f"1 to {REASON_CHARACTERS_MAX} printable characters")
    return text


def _amounts(items: Sequence[Item]) -> dict[str, int]:
    """What the postings among these move, by currency, whatever the direction; minor units."""
    sums: Counter[str] = Counter()
    for item in items:
        if isinstance(item.content, Posting):
            sums[item.content.currency] += abs(item.content.amount_minor)
    return dict(sums)


def _certified(events: Sequence[RecordedEvent]) -> RunResult:
    """The result of a run that was certified before, from its certificate."""
    recorded = events[-1]
    event = recorded.event
    if not isinstance(event, ReconciliationCertified):
        raise TypeError(f"a run ends with a certificate, not with {recorded.name}")
    return RunResult(
        event.source,
        event.findings,
        CertificateId(event.certificate),
        tuple(IntakeId(intake) for intake in event.intakes),
        0,
        0.0,
        recorded.position or 0,
    )


def _released_or_proposed(events: Sequence[RecordedEvent]) -> RunResult | Proposal:
    """What a release came to before."""
    recorded = events[-1]
    event, meta = recorded.event, recorded.metadata
    if not isinstance(event, RepairProposed):
        return _certified(events)
    return Proposal(
        QuarantineId(event.quarantine),
        event.repair,
        b"",
        event.records,
        event.amounts_minor,
        meta.actor,
        meta.reason or "",
        meta.effective_at,
    )


class _PartialFlow(msgspec.Struct, array_like=True):
    currency: str
    flow: Flow


_flow: Final = msgspec.json.Decoder(_PartialFlow)


class _Flows:
    """What some intakes moved, by account and currency. It leaves the process where there are many accounts."""

    KIND: Final = "flows"

    def __init__(self, partial_sums: PartialSums, kept_max: int) -> None:
        self._partial_sums = partial_sums
        self._kept_max = kept_max
        self._kept: dict[AccountCurrency, Flow] = {}
        self._stored = False

    def add(self, flows: Mapping[AccountCurrency, Flow]) -> None:
        """Adds those of further accounts."""
        self._kept |= flows
        if len(self._kept) >= self._kept_max:
            self._store()

    def by_account(self) -> Iterator[Mapping[AccountCurrency, Flow]]:
        """All of them, some at a time."""
        if not self._stored:
            yield self._kept
            return
        self._store()
        rows = self._partial_sums.stored(self.KIND)
        while some := list(islice(rows, ACCOUNTS_PER_FOLD)):
            decoded = [(account, _flow.decode(body)) for account, body in some]
            yield {AccountCurrency(account, partial.currency): partial.flow for account, partial in decoded}

    def _store(self) -> None:
        rows = [
            (account_currency.account, msgspec.json.encode(_PartialFlow(account_currency.currency, flow)))
            for account_currency, flow in self._kept.items()
        ]
        self._partial_sums.store(self.KIND, rows)
        self._kept, self._stored = {}, True


class _Reading:
    """Batches of a feed, remembering how many bytes were read."""

    def __init__(self, adapter: Adapter, files: Sequence[FeedFile]) -> None:
        self._adapter = adapter
        self._files = files
        self.bytes_read = 0

    def __iter__(self) -> Iterator[list[Item]]:
        for batch in self._adapter.read(self._files):
            self.bytes_read = batch.bytes_read
            yield batch.items


@dataclass(frozen=True, slots=True)
class _Book:
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

    def descriptions(self, subjects: Sequence[UUID]) -> dict[UUID, tuple[int, str]]:
        return self.archive.descriptions.of(subjects)

    def describe(self, revisions: Mapping[UUID, tuple[int, str]]) -> None:
        self.archive.descriptions.note(revisions)

    def await_originals(self, source: str, originals: Mapping[QuarantineId, UUID]) -> None:
        self.archive.quarantine.await_originals(source, originals)
