"""One ingest: what it works with, under what lock, and what can be read of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import BinaryIO, NamedTuple
from uuid import UUID

from chassis.observability.telemetry import carrier, span
from chassis.privacy.keys import ERASED
from chassis.write.events import Event, RecordedEvent
from chassis.write.store import Command
from contracts.identity import ExternalIds, spelled

from sync_ingest.adapters.registry import Adapters, adapter_for
from sync_ingest.archive.archive import Archive
from sync_ingest.archive.intakes import NAME, Intake
from sync_ingest.archive.quarantine import QuarantineEntry
from sync_ingest.domain.identities import ContentId, IntakeId, feed_id
from sync_ingest.pipeline.ports import Entry
from sync_ingest.runs.choices import IngestSettings
from sync_ingest.runs.ports import ITSELF, Acting, Ledger, SubjectErased, Vault
from sync_ingest.runs.results import Certificate, Progress


class Said(NamedTuple):
    """An event of a source's stream: its identity, where it has one, and the intake that it is about."""

    event: Event
    identity: UUID | None
    intake: UUID


@dataclass(slots=True)
class IngestContext:
    """Everything that a run needs; one instance per thread."""

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

    def expected_every_seconds(self, source: str) -> int:
        """How often a source sends: as it was scheduled, else as often as its way of sending allows."""
        scheduled = self.archive.sources.scheduled(source)
        if scheduled is not None:
            return scheduled
        streams = self.archive.sources.streams(source)
        return self.settings.stream_every_seconds if streams else self.settings.file_every_seconds

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

    @contextmanager
    def _locked(self, source: str, command: Command | None = None) -> Iterator[None]:
        """Holds the source, and the command's key: from when another run took it nothing more is stored."""
        with self.archive.locked(source, command) as fence, self.ledger.fenced(fence):
            self.archive.descriptions.restore(source, self.ledger.known)
            yield

    @contextmanager
    def _traced(self, name: str) -> Iterator[None]:
        """A span of its own, or one below the caller's; events carry it to whoever reads them."""
        with span(name):
            self.ledger.said_by(self.acting, carrier())
            yield

    def _append(self, entries: Sequence[Entry]) -> None:
        self.ledger.append(self.ledger.sealed(entries))

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """What the archive keeps meanwhile and the events that say so are one transaction. Events are appended last."""
        with self.archive.writing() as connection, self.ledger.within(connection):
            yield

    def _append_for(self, command: Command | None, entries: Sequence[Entry]) -> int:
        """Stores events of one stream, with the command that they come of where there is one; the last position."""
        sealed = self.ledger.sealed(entries)
        return self.ledger.append_for(command, sealed[0].stream_id, sealed)

    def _on_feed(self, source: str, events: Iterable[Said]) -> list[Entry]:
        """The events as entries of the source's stream, after its last one."""
        stream, now = feed_id(source), self.now()
        head = self.ledger.heads([stream]).get(stream, 0)
        return [
            Entry(stream, head + at, event, identity, now, intake)
            for at, (event, identity, intake) in enumerate(events, 1)
        ]

    def _outcome(self, command: Command | None) -> tuple[RecordedEvent, ...] | None:
        """What came of the command before; None where it has not been carried out."""
        return self.ledger.outcome(command) if command else None
