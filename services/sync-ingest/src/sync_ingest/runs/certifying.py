"""What was booked is compared with what the ledger holds and with what was stated, and is certified."""

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec
from chassis.write.store import Command

from sync_ingest.archive.intakes import Intake
from sync_ingest.checking.checking import Checking
from sync_ingest.domain.certificate import (
    CLOSED_EARLY,
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
from sync_ingest.domain.events import ReconciliationCertified
from sync_ingest.domain.identities import CertificateId, ContentId, IntakeId, certificate_id, feed_id
from sync_ingest.domain.partial_sums import PartialSums
from sync_ingest.domain.records import ControlRecord
from sync_ingest.domain.repeats import REPEATS_NAMED_MAX
from sync_ingest.domain.totals import AccountCurrency, ControlTotals, Flow
from sync_ingest.folding import ACCOUNTS_PER_FOLD, Folding
from sync_ingest.pipeline.pipeline import Pipeline
from sync_ingest.runs.context import IngestContext, Said
from sync_ingest.runs.flows import Flows
from sync_ingest.runs.results import RunResult


class Certifying(IngestContext):
    """Certifies what a pipeline has booked; the source is locked."""

    __slots__ = ()

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
            certificate, position, findings = self._certify(
                source, covered, findings, command, flows.by_account() if shared else None, checking.series()
            )
        elif command is not None and self._outcome(command) is None:
            position = self.ledger.append_for(command, feed_id(source), [])
        else:
            position = self.ledger.head_position()
        if certificate is None and checking.any_series:
            self.archive.series.keep(source, checking.series())
        seconds = self.elapsed() - started
        return RunResult(source, findings, certificate, tuple(covered), pipeline.appended, seconds, position)

    def _compared(
        self, source: str, totals: ControlTotals, of: Set[IntakeId] | None, partial_sums: PartialSums
    ) -> tuple[Comparison, "Flows"]:
        """Folds and compares every account that was moved; with `of`, what these intakes moved of each is kept too.

        Without it, all that no certificate covers is theirs.
        """
        folding, comparison = self._folding(source), Comparison(totals)
        flows = Flows(partial_sums, self.settings.accounts_kept_max)
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
        return known is not None and _standing(known) != _standing(findings)

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
        closed_early, closed_early_at = self.archive.early_closings.of(source, REPEATS_NAMED_MAX)
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
            closed_early=closed_early,
            closed_early_at=closed_early_at,
        )

    def _certify(
        self,
        source: str,
        intakes: Sequence[IntakeId],
        findings: Findings,
        command: Command | None,
        flows: Iterable[Mapping[AccountCurrency, Flow]] | None = None,
        series: Iterable[Mapping[str, bytes]] = (),
        after: Sequence[Said] = (),
    ) -> "_Certified":
        """Stores the certificate, what it covers and the command that asked for it, in one transaction.

        `flows` is what it covers where other intakes are open; None: everything that no certificate covers yet.
        `after` are the events that lead to it, in the same transaction.
        """
        previous = self.latest_certificate(source)
        parts = list(intakes) or [IntakeId(p.contradiction) for p in findings.problems if p.contradiction]
        certificate = certificate_id(self.ids, source, previous.id if previous else None, parts)
        stored = self.ledger.stored_under([certificate]).get(certificate)
        event = stored.event if stored is not None else None
        if stored is not None and isinstance(event, ReconciliationCertified):
            # Stored by a version that listed it only afterwards, and was cut off: what was said is listed.
            certified = _Certified(certificate, stored.position or 0, event.findings)
            self._list(source, certified, stored.metadata.effective_at, intakes, flows, series)
            if not after:
                return certified
            # It says nothing of these events, which come after it: the certificate that does follows it.
            return self._certify(source, intakes, findings, command, flows, series, after)
        event = ReconciliationCertified(
            source=source,
            certificate=certificate,
            intakes=tuple(intakes),
            findings=findings,
            expected_every_seconds=self.expected_every_seconds(source),
            received_at=self.archive.sources.last_received(source),
        )
        intake = intakes[0] if intakes else IntakeId(certificate)
        entries = self._on_feed(source, [*after, Said(event, certificate, intake)])
        if self._outcome(command) is not None:
            command = None  # it was answered before a crash, and what it brought is certified once more
        certified = _Certified(certificate, 0, findings)
        with self._at_once():
            self._list(source, certified, entries[-1].effective_at, intakes, flows, series)
            certified = certified._replace(position=self._append_for(command, entries))
            self.reached("after-certificate")
        return certified

    def _list(
        self,
        source: str,
        certified: "_Certified",
        certified_at: datetime,
        intakes: Sequence[IntakeId],
        flows: Iterable[Mapping[AccountCurrency, Flow]] | None,
        series: Iterable[Mapping[str, bytes]],
    ) -> None:
        self.archive.certificates.certify(
            certified.id,
            source,
            certified_at=certified_at,
            status=certified.findings.status,
            findings=msgspec.json.encode(certified.findings),
            intakes=intakes,
            flows=flows,
            series=series,
        )

    def _certify_anew(
        self,
        source: str,
        after: Sequence[Said],
        command: Command | None = None,
        acknowledged: UUID | None = None,
    ) -> int:
        """Certifies a source's status without a new feed: the last one's lasting reasons, and what stands now.

        What stands now is due to the events `after` which the certificate comes; its position. The caller has what
        they changed in the same transaction.
        """
        previous = self.latest_certificate(source)
        before = previous.findings.reasons if previous else ()
        judgement = self._judgement(source, 0, 0)
        reasons = [*judgement.codes, *([QUARANTINE_WAITING] if judgement.waiting else [])]
        reasons += [reason for reason in before if reason in LASTING_REASONS]
        reasons += [CLOSED_EARLY] if judgement.closed_early else []
        empty = ControlTotals()
        findings = msgspec.structs.replace(
            certify(empty, Comparison(empty), judgement),
            status=status_of(reasons, judgement),
            reasons=tuple(reasons),
            booked_through=previous.findings.booked_through if previous else None,
            acknowledges=acknowledged,
            repeats_older=previous.findings.repeats_older if previous else 0,
            repeats_older_at=previous.findings.repeats_older_at if previous else (),
        )
        return self._certify(source, [], findings, command, (), after=after).position


class _Certified(NamedTuple):
    """A certificate that is stored, with the position of its event."""

    id: CertificateId
    position: int
    findings: Findings


def _standing(findings: Findings) -> tuple[object, ...]:
    repeats = findings.repeats_older, findings.repeats_older_at
    closed_early = findings.closed_early, findings.closed_early_at
    return findings.status, findings.reasons, findings.problems_total, repeats, closed_early
