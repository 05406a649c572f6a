"""A run: bytes are kept, then read, then booked, then certified. Whatever a crash left open goes on from there."""

from collections.abc import Sequence, Set
from typing import Final

import msgspec
from chassis.observability.telemetry import carrier
from chassis.write.events import RecordedEvent
from chassis.write.store import Command

from sync_ingest.adapters.registry import FORMATS, FormatUnknown
from sync_ingest.archive.intakes import Intake
from sync_ingest.domain.certificate import INTAKES_MAX, Comparison, Judgement, certify
from sync_ingest.domain.identities import IntakeId, QuarantineId, feed_id, resolved_id
from sync_ingest.domain.records import ControlRecord
from sync_ingest.domain.sources import checked_source
from sync_ingest.folding import ACCOUNTS_PER_FOLD
from sync_ingest.runs.repairing import Repairing
from sync_ingest.runs.results import FeedContent, RunResult, Unbookable, certified_before

FEED_FILES_MAX: Final = INTAKES_MAX
STATEMENT: Final = "statement"
"""What control totals beside a batch are sealed as."""


class Running(Repairing):
    """Runs over files, batches and windows."""

    __slots__ = ()

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
                return certified_before(done)
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

    def _outcome_after_crash(self, source: str, command: Command | None) -> tuple[RecordedEvent, ...] | None:
        """As `_outcome`, after what a crash left open is finished: that may be the very same command.

        A window that is open is closed by it, so that the certificate of a release covers no posting but its own.
        """
        if done := self._outcome(command):
            return done
        self._finish_all(source)
        return self._outcome(command)

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
                    self._note_intakes(source, intakes)
                    with self._setting_aside(intakes):
                        results.append(self._book_and_certify(source, intakes, intakes[0].command, stated))
            except Unbookable:
                continue
            self.archive.intakes.checked([statement.number])
        return results, own

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
            self._note_intakes(source, group)  # a crash may have come between keeping them and this
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
