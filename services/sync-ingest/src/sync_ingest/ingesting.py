"""A run: bytes are kept, then read, then booked, then certified. Whatever a crash left open goes on from there."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from typing import Any, BinaryIO, Final, NamedTuple, Protocol
from uuid import UUID

import msgspec
import structlog
from chassis.deciding import Refusal
from chassis.telemetry import carrier, span
from chassis.transient import is_transient
from contracts.identity import OutsideIds

from sync_ingest.adapters.port import Adapter, BalanceOrder, FeedFile, Item
from sync_ingest.adapters.registry import FORMATS, FormatUnknown, adapter_for
from sync_ingest.archive import Archive, Intake, QuarantineEntry
from sync_ingest.domain.balances import TOLERANCE_MINOR, PrintedBalances, PrintedRow, compare
from sync_ingest.domain.certificate import Findings, StoreFold, certify
from sync_ingest.domain.events import (
    FeedRecordQuarantined,
    IntakeReceived,
    QuarantinedRecordReleased,
    ReconciliationCertified,
)
from sync_ingest.domain.identities import (
    CertificateId,
    ContentId,
    IntakeId,
    QuarantineId,
    certificate_id,
    feed_id,
    released_id,
)
from sync_ingest.domain.records import BOOKED_DAYS_AHEAD_MAX, FIRST_DAY, BookingDays, shown
from sync_ingest.domain.totals import Purse
from sync_ingest.pipeline import Entry, Journal, Origin, Pipeline

_log = structlog.get_logger(__name__)

ACCOUNTS_PER_READING: Final = 200
FEED_FILES_MAX: Final = 10_000
RELEASES_AT_ONCE: Final = 2_000
SOURCE_CHARACTERS_MAX: Final = 64


class StoredMovement(msgspec.Struct, frozen=True):
    """One stored posting as reconciliation reads it."""

    stream_id: UUID
    booked_on: date
    amount_minor: int
    currency: str
    balance_after_minor: int | None
    intake: UUID


class Acting(NamedTuple):
    """Who has a run done; the machinery itself where nobody is named."""

    actor: str = "sync-ingest"
    post: str | None = None
    on_behalf_of: str | None = None
    client_address: str | None = None


ITSELF: Final = Acting()


class Ledger(Journal, Protocol):
    """The store as a whole run needs it: the pipeline's journal, and reading accounts back."""

    def movements(self, streams: Sequence[UUID]) -> Iterator[StoredMovement]:
        """Every stored posting of these accounts, account by account in stored order."""
        ...

    def account_numbers(self, accounts: Sequence[UUID]) -> dict[UUID, str]:
        """How the source names these accounts, where that can still be read."""
        ...

    def head_position(self) -> int:
        """Position of the last event of the store."""
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
    """What a run read and did. `certificate` is None where nothing new was there to certify."""

    source: str
    findings: Findings
    certificate: CertificateId | None
    intakes: tuple[IntakeId, ...]
    appended: int
    seconds: float


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
    booked_from: date = FIRST_DAY
    booked_days_ahead_max: int = BOOKED_DAYS_AHEAD_MAX

    def booking_days(self, now: datetime) -> BookingDays:
        """The days on which a posting may be booked that is read at `now`."""
        today = now.astimezone(self.bank_time).date()
        return BookingDays.around(today, self.booked_from, self.booked_days_ahead_max)


class SourceNameInvalid(Refusal):
    """Ids are derived from the name of the source, so it is short, printable and without a colon."""

    code = "source-name-invalid"
    status = 422
    title = "Not a name of a source"
    title_zh = "来源名称无效"


class Unbookable(Exception):
    """Booking an intake broke, which is a fault of ours; its bytes are kept and it is set aside."""


class QuarantineUnknown(Refusal):
    """No quarantine entry of that id."""

    code = "quarantine-unknown"
    status = 404
    title = "There is no such quarantine entry"
    title_zh = "没有该隔离记录"


class AlreadyReleased(Refusal):
    """The entry was repaired before."""

    code = "already-released"
    title = "The quarantine entry was released before"
    title_zh = "该隔离记录已被放行"


def checked_source(source: str) -> str:
    """The name, if it is one; raises SourceNameInvalid."""
    if not 1 <= len(source) <= SOURCE_CHARACTERS_MAX or ":" in source or not source.isprintable():
        raise SourceNameInvalid(f"1 to {SOURCE_CHARACTERS_MAX} printable characters, no colon")
    if source != source.strip():
        raise SourceNameInvalid("no blank at either end")
    return source


@dataclass(slots=True)
class Ingest:
    """Everything a run needs; one instance per thread."""

    archive: Archive
    ids: OutsideIds
    ledger: Ledger
    vault: Vault
    now: Callable[[], datetime]
    elapsed: Callable[[], float]
    settings: IngestSettings = field(default_factory=IngestSettings)
    reached: Callable[[str], None] = lambda _: None
    progress: Callable[[Progress], None] = lambda _: None
    acting: Acting = ITSELF

    def run(
        self, source: str, contents: Sequence[FeedContent], *, format: str, mapping: str | None = None
    ) -> RunResult:
        """Takes the files in and books them; what earlier runs of this source left open is finished first."""
        checked_source(source)
        if format not in FORMATS:
            raise FormatUnknown(format)
        adapter_for(format, mapping)
        with self._traced("ingest run"), self.archive.locked(source):
            intakes = self._take_in(source, contents, format, mapping)
            self.reached("after-intake")
            given = {intake.id for intake in intakes}
            self._finish_open(source, without=given)
            return self._book_and_certify(source, intakes)

    def keep(self, source: str, content: FeedContent, *, format: str) -> RunResult:
        """Books one intake and leaves its certificate to the window: what a stream of small batches does."""
        with self._traced("ingest keep"), self.archive.locked(source):
            intakes = self._take_in(source, [content], format, None)
            started = self.elapsed()
            with self._setting_aside(intakes):
                pipeline = self._book(source, intakes)
            findings = certify(pipeline.totals, StoreFold(), {}, {}, {})
            ids = tuple(intake.id for intake in intakes)
            return RunResult(source, findings, None, ids, pipeline.appended, self.elapsed() - started)

    def close_window(self, source: str) -> list[RunResult]:
        """Certifies everything of a source that no certificate covers yet."""
        with self._traced("ingest close window"), self.archive.locked(source):
            return self._finish_open(source, without=set())

    def release(self, quarantined: QuarantineId, repaired: bytes) -> RunResult:
        """Books the canonical record that replaces a quarantined one, and notes the release."""
        entry = self.archive.quarantined([quarantined]).get(quarantined)
        if entry is None:
            raise QuarantineUnknown(quarantined)
        if entry.status == "released":
            raise AlreadyReleased(quarantined)
        source = entry.source
        with self._traced("ingest release"), self.archive.locked(source):
            content = FeedContent(f"repair-of-{quarantined}", lambda: io.BytesIO(repaired))
            intakes = self._take_in(source, [content], "canonical", None)
            result = self._book_and_certify(source, intakes)
            if result.findings.quarantined == 0:
                self._note_releases(source, {quarantined: intakes[0].id})
            return result

    def certificates(self, source: str | None, before: int | None, limit: int) -> list[Certificate]:
        """A page of certificates, newest first, going on before a number."""
        return [Certificate.of(row) for row in self.archive.certificates(source, before, limit)]

    def latest_certificate(self, source: str) -> Certificate | None:
        """The last certificate of a source."""
        return next(iter(self.certificates(source, None, 1)), None)

    def certificate(self, identity: UUID) -> Certificate | None:
        """One certificate by its id."""
        row = self.archive.certificate(identity)
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

        def open_chunk(of: ContentId, number: int, sealed: bytes) -> bytes:
            return self.vault.open_bytes(of, f"intake|{number}", sealed)

        return self.archive.read(intake, open_chunk)

    @contextmanager
    def _traced(self, name: str) -> Iterator[None]:
        """A span of its own, or one below the caller's; events carry it to whoever reads them."""
        with span(name):
            self.ledger.said_by(self.acting, carrier())
            yield

    def _note_releases(self, source: str, releases: Mapping[QuarantineId, IntakeId]) -> None:
        """Notes what took the place of quarantined records; a second time changes nothing."""
        stream, every, now = feed_id(source), list(releases), self.now()
        for at in range(0, len(every), RELEASES_AT_ONCE):
            some = every[at : at + RELEASES_AT_ONCE]
            known = self.ledger.known([released_id(entry) for entry in some])
            version = self.ledger.heads([stream]).get(stream, 0)
            entries = []
            for quarantined in some:
                identity, intake = released_id(quarantined), releases[quarantined]
                if identity not in known:
                    version += 1
                    event = QuarantinedRecordReleased(
                        source=source, quarantine=quarantined, replaced_by=intake
                    )
                    entries.append(Entry(stream, version, event, identity, now, intake))
            if entries:
                self._append(entries)
            self.archive.released(some)

    def _release_what_is_read_now(
        self, source: str, intakes: Sequence[Intake], waiting: frozenset[QuarantineId] | None
    ) -> None:
        """Records that could not be read before and were now, as the same bytes came to be read in another way."""
        fresh = [intake for intake in intakes if not intake.certified]
        if fresh and waiting is not None:
            before = self.archive.read_before(fresh)
            now_read = {entry: intake for entry, intake in before.items() if entry not in waiting}
            self._note_releases(source, now_read)

    def _append(self, entries: Sequence[Entry]) -> None:
        self.ledger.append(self.ledger.sealed(entries))

    # intake

    def _take_in(
        self, source: str, contents: Sequence[FeedContent], format: str, mapping: str | None
    ) -> list[Intake]:
        def seal(content: ContentId, number: int, chunk: bytes) -> bytes:
            return self.vault.seal_bytes(content, f"intake|{number}", chunk)

        reading = adapter_for(format, mapping).reading

        intakes: dict[IntakeId, Intake] = {}
        copies: list[Intake] = []
        for content in contents:
            with content.open() as stream:
                intake = self.archive.take_in(
                    source,
                    shown(content.name),
                    stream,
                    format=format,
                    mapping=mapping,
                    reading=reading,
                    received_at=self.now(),
                    seal=seal,
                )
            if intake.id in intakes:
                copies.append(intake)
            intakes[intake.id] = intake
        self._note_intakes(source, list(intakes.values()))
        return [*intakes.values(), *copies]

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
                    sha256=intake.sha256.hex(),
                    format=intake.format,
                    size_bytes=intake.size_bytes,
                )
                entries.append(Entry(stream, head, event, intake.id, intake.received_at, intake.id))
        if entries:
            self._append(entries)

    # booking

    def _finish_open(self, source: str, without: set[IntakeId]) -> list[RunResult]:
        groups: dict[tuple[str, str | None], list[Intake]] = {}
        for intake in self.archive.open_intakes(source):
            if intake.id not in without:
                groups.setdefault((intake.format, intake.mapping), []).append(intake)
        results = []
        for group in groups.values():
            try:
                with self._setting_aside(group):
                    results.append(self._book_and_certify(source, group))
            except Unbookable:
                continue
        return results

    @contextmanager
    def _setting_aside(self, intakes: Sequence[Intake]) -> Iterator[None]:
        """What breaks the booking itself, which is a fault of ours, is set aside, so that no later run stops at it."""
        ids = [intake.id for intake in intakes]
        try:
            yield
        except Exception as error:
            if isinstance(error, Refusal) or is_transient(error):
                raise
            self.archive.set_aside(ids, type(error).__name__)
            _log.error("intakes set aside", count=len(ids), error=type(error).__name__)
            raise Unbookable(type(error).__name__) from error
        if any(intake.set_aside for intake in intakes):
            self.archive.set_aside(ids, None)

    def _book(self, source: str, intakes: Sequence[Intake]) -> Pipeline:
        previous = self.latest_certificate(source)
        pipeline = Pipeline(
            source,
            self.ids,
            self.ledger,
            _Book(self.archive, self.vault, self.now),
            now=self.now,
            bank_time=self.settings.bank_time,
            certified_through=previous.findings.booked_through if previous else None,
            days=self.settings.booking_days(self.now()),
            reached=self.reached,
        )
        adapter = adapter_for(intakes[0].format, intakes[0].mapping)
        files, origins, met = [], [], set[IntakeId]()
        readings = self.archive.readings(intakes)
        for intake in intakes:
            files.append(FeedFile(intake.name, intake.size_bytes, self._opener(intake)))
            fresh = not intake.certified and intake.id not in met
            origins.append(
                Origin(
                    intake.id,
                    intake.name,
                    open=fresh,
                    closed=intake.certified,
                    covers=adapter.covers,
                    readings=readings[intake.content],
                )
            )
            met.add(intake.id)
        total, started = sum(feed_file.size_bytes for feed_file in files), self.elapsed()
        reading = _Reading(adapter, files)
        for records in pipeline.book(reading, origins):
            self.progress(Progress(reading.bytes_read, total, records, self.elapsed() - started))
        return pipeline

    def _opener(self, intake: Intake) -> Callable[[], BinaryIO]:
        return lambda: self.bytes_of(intake)

    def _book_and_certify(self, source: str, intakes: Sequence[Intake]) -> RunResult:
        started = self.elapsed()
        pipeline = self._book(source, intakes)
        self._release_what_is_read_now(source, intakes, pipeline.waiting)
        ids = list(dict.fromkeys(intake.id for intake in intakes))
        pending = {intake.id for intake in intakes if not intake.certified}
        order = adapter_for(intakes[0].format, intakes[0].mapping).balance_order
        found = self._reconcile(pipeline.totals.account_ids, pending, order)
        findings = certify(pipeline.totals, found.fold, found.openings, found.closings, found.printed)
        self.reached("before-certificate")
        certificate = None
        if pending:
            certificate = self._certify(source, sorted(pending), findings, found.closings)
        return RunResult(
            source, findings, certificate, tuple(ids), pipeline.appended, self.elapsed() - started
        )

    def _reconcile(
        self, accounts: Sequence[UUID], pending: set[IntakeId], order: BalanceOrder
    ) -> "_Reconciled":
        """Folds the accounts from what is stored, some at a time, so that memory does not follow the feed."""
        found = _Reconciled()
        for at in range(0, len(accounts), ACCOUNTS_PER_READING):
            some = accounts[at : at + ACCOUNTS_PER_READING]
            found.openings |= self.archive.balances(some)
            rows: dict[Purse, list[PrintedRow]] = {}
            for movement in self.ledger.movements(some):
                purse = Purse(movement.stream_id, movement.currency)
                found.closings[purse] = found.closings.get(purse, 0) + movement.amount_minor
                if movement.intake in pending:
                    found.fold.add(purse, movement.amount_minor)
                _remember(rows.setdefault(purse, []), movement)
            for purse, of_purse in rows.items():
                if any(row.printed_minor is not None for row in of_purse):
                    tolerance_minor = self.settings.printed_tolerance_minor
                    found.printed[purse] = compare(of_purse, order, tolerance_minor)
        return found

    def _certify(
        self, source: str, intakes: Sequence[IntakeId], findings: Findings, closings: Mapping[Purse, int]
    ) -> CertificateId:
        previous = self.latest_certificate(source)
        certificate = certificate_id(self.ids, source, previous.id if previous else None, list(intakes))
        stream, now = feed_id(source), self.now()
        if certificate not in self.ledger.known([certificate]):
            event = ReconciliationCertified(
                source=source, certificate=certificate, intakes=tuple(intakes), findings=findings
            )
            head = self.ledger.heads([stream]).get(stream, 0)
            self._append([Entry(stream, head + 1, event, certificate, now, intakes[0])])
        self.archive.certify(
            certificate,
            source,
            certified_at=now,
            status=findings.status,
            findings=msgspec.json.encode(findings),
            intakes=intakes,
            closings=closings,
        )
        return certificate


@dataclass(slots=True)
class _Reconciled:
    """What the store says about the accounts of a run."""

    fold: StoreFold = field(default_factory=StoreFold)
    openings: dict[Purse, int] = field(default_factory=dict)
    closings: dict[Purse, int] = field(default_factory=dict)
    printed: dict[Purse, PrintedBalances] = field(default_factory=dict)


def _remember(rows: list[PrintedRow], movement: StoredMovement) -> None:
    """Movements of a day that print no balance become one row: most accounts then need one row a day."""
    row = PrintedRow(movement.booked_on, movement.amount_minor, movement.balance_after_minor)
    if row.printed_minor is None and rows and rows[-1][::2] == row[::2]:
        row = row._replace(amount_minor=row.amount_minor + rows.pop().amount_minor)
    rows.append(row)


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

    def released_among(self, ids: Sequence[QuarantineId]) -> set[QuarantineId]:
        return {e.id for e in self.archive.quarantined(ids).values() if e.status == "released"}

    def enter(self, entries: Sequence[tuple[FeedRecordQuarantined, bytes]]) -> None:
        now = self.now()
        self.archive.quarantine(
            [
                QuarantineEntry(
                    id=QuarantineId(event.quarantine),
                    source=event.source,
                    intake=IntakeId(event.intake),
                    file=event.file,
                    line=event.line,
                    column=event.column,
                    reason=event.reason,
                    detail=event.detail,
                    raw_sealed=self._sealed(event, raw).hex(),
                    quarantined_at=now,
                    status="waiting",
                )
                for event, raw in entries
            ]
        )

    def _sealed(self, event: FeedRecordQuarantined, raw: bytes) -> bytes:
        return self.vault.seal_bytes(feed_id(event.source), f"quarantine|{event.quarantine}", raw)

    def descriptions(self, subjects: Sequence[UUID]) -> dict[UUID, tuple[int, str]]:
        return self.archive.descriptions(subjects)

    def describe(self, revisions: Mapping[UUID, tuple[int, str]]) -> None:
        self.archive.describe(revisions)

    def await_originals(self, source: str, originals: Mapping[QuarantineId, UUID]) -> None:
        self.archive.await_originals(source, originals)
