"""Bytes are kept, and then read and booked."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import BinaryIO

import structlog
from chassis.connections.transient import is_transient
from chassis.write.deciding import Refusal
from chassis.write.store import Command

from sync_ingest.adapters.port import Adapter, FeedFile, Item
from sync_ingest.archive.intakes import Intake
from sync_ingest.domain.events import IntakeReceived
from sync_ingest.domain.identities import IntakeId, again_id, feed_id
from sync_ingest.domain.records import shown
from sync_ingest.domain.sources import SourceLooksAlike, look
from sync_ingest.pipeline.pipeline import Pipeline
from sync_ingest.pipeline.ports import Entry, FeedIntake, LedgerPort
from sync_ingest.runs.certifying import Certifying
from sync_ingest.runs.ledgers import Bookable, Dry
from sync_ingest.runs.quarantine_book import ArchivedQuarantine
from sync_ingest.runs.results import FeedContent, Progress, Unbookable

_log = structlog.get_logger(__name__)


class Booking(Certifying):
    """Takes intakes in and books them; the source is locked."""

    __slots__ = ()

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
        read: list[Intake] = []
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
            intakes[intake.id] = intake
            read.append(intake)
        self._note_intakes(source, list(intakes.values()))
        return read

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

    def _latest(self, source: str, intake: Intake) -> Intake:
        """The intake that was made last of a certified one, to read its bytes once more."""
        while (later := self.archive.intakes.one(again_id(self.ids, source, intake.id))) is not None:
            intake = later
        return intake

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

    def _is_bookable(self, source: str, intake: Intake) -> bool:
        """Whether a posting of a certified intake that waits could be booked now; nothing is stored."""
        if not self.archive.quarantine.waiting_lines(intake.id):
            return False
        try:
            self._book(source, [intake], Dry(self.ledger), trial=True)
        except Bookable:
            return True
        return False

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
        self.archive.descriptions.restore(
            source, self.ledger.known
        )  # a booking before this one may have failed
        previous = self.latest_certificate(source)
        partial_sums = self.archive.partial_sums.of(source)
        return Pipeline(
            source,
            self.ids,
            ledger,
            ArchivedQuarantine(self.archive, self.vault, self.now, source, self._folding(source)),
            now=self.now,
            dates=self.settings.dates,
            certified_through=previous.findings.booked_through if previous else None,
            days=self.settings.booking_days(self.now()),
            whole=whole,
            trial=trial,
            reached=self.reached,
            partial_sums=partial_sums,
            accounts_kept_max=self.settings.accounts_kept_max,
            controls_per_file_max=self.settings.controls_per_file_max,
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
        described = self.archive.descriptions.lines([intake.id for intake in intakes])
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
                    described_line=described[intake.id],
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
