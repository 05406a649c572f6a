"""What a person does beside runs: quarantined records, contradictions, schedules. `Ingest` is all of it."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from chassis.proposals import ProposalHasExpired, ProposerNeeded, require_second_person
from chassis.proposals.persons import persons
from chassis.write.store import Command

from sync_ingest.archive.quarantine import Proposal, QuarantineEntry
from sync_ingest.domain.events import (
    ContradictionsAcknowledged,
    PartyDescribed,
    QuarantinedRecordDismissed,
    QuarantinedRecordShown,
    ReleasesClosed,
    ReleasesOpened,
    RepairProposed,
    RepairRejected,
    RepairWithdrawn,
    SourceScheduled,
)
from sync_ingest.domain.identities import QuarantineId, described_id, feed_id, repair_id, resolved_id
from sync_ingest.domain.sources import checked_source
from sync_ingest.pipeline.ports import Entry, tried_anew
from sync_ingest.runs.context import Said
from sync_ingest.runs.refusals import (
    CertificateUnknown,
    NothingToAcknowledge,
    PartyUnknown,
    ProposalUnknown,
    worded,
)
from sync_ingest.runs.repairing import amounts_of
from sync_ingest.runs.results import Certificate, RunResult, Seen, certified_before, released_or_proposed
from sync_ingest.runs.running import Running

PROPOSALS_LIVE: Final = timedelta(days=14)
"""How long a repair waits for a second person. It can be proposed anew."""
ACKNOWLEDGED_PER_EVENT_MAX: Final = 5_000
"""Ids that one event names, of 39 bytes each: an event may have 512 KiB."""


class Ingest(Running):
    """Everything that can be done with feeds; one instance per thread."""

    __slots__ = ()

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
                return released_or_proposed(done)
            self._acts_with_reason()
            entry = self._to_resolve(quarantined)
            items = self._checked_repair(entry, repaired)
            amounts_minor = amounts_of(items)
            if self._needs_second_person(amounts_minor):
                return self._propose(entry, repaired, len(items), amounts_minor, command)
            return self._release(entry, repaired, command, settle=True)

    def approve(self, quarantined: QuarantineId, repair: UUID, command: Command | None = None) -> RunResult:
        """Books the repair that another person proposed; `repair` names its bytes, so nothing else is booked."""
        source = self._entry(quarantined).source
        with self._traced("ingest approve"), self._locked(source, command):
            if done := self._outcome_after_crash(source, command):
                return certified_before(done)
            self._acts_with_reason()
            entry = self._to_resolve(quarantined)
            proposal = self._proposed(quarantined, repair)
            require_second_person(
                (proposal.proposed_by, proposal.on_behalf_of), (self.acting.actor, self.acting.on_behalf_of)
            )
            repaired = self._open_proposal(source, proposal)
            self._checked_repair(entry, repaired)
            return self._release(entry, repaired, command, proposed_by=proposal.proposed_by, settle=True)

    def reject(self, quarantined: QuarantineId, repair: UUID, command: Command | None = None) -> int:
        """Refuses the repair that another person proposed. The record goes on waiting; returns the position of the event."""
        source = self._entry(quarantined).source
        with self._traced("ingest reject"), self._locked(source, command):
            if (done := self._outcome(command)) is not None:
                return done[-1].position or 0
            self._acts_with_reason()
            entry, proposal = self._to_resolve(quarantined), self._proposed(quarantined, repair)
            require_second_person(
                (proposal.proposed_by, proposal.on_behalf_of), (self.acting.actor, self.acting.on_behalf_of)
            )
            rejected = RepairRejected(
                source=source, quarantine=entry.id, repair=repair, proposed_by=proposal.proposed_by
            )
            return self._proposed_no_more(entry, rejected, command)

    def withdraw(self, quarantined: QuarantineId, repair: UUID, command: Command | None = None) -> int:
        """Takes the own repair back. The record goes on waiting; returns the position of the event."""
        source = self._entry(quarantined).source
        with self._traced("ingest withdraw"), self._locked(source, command):
            if (done := self._outcome(command)) is not None:
                return done[-1].position or 0
            self._acts_with_reason()
            entry, proposal = self._to_resolve(quarantined), self._proposed(quarantined, repair)
            proposers = persons(proposal.proposed_by, proposal.on_behalf_of)
            if proposers.isdisjoint(persons(self.acting.actor, self.acting.on_behalf_of)):
                raise ProposerNeeded
            withdrawn = RepairWithdrawn(source=source, quarantine=entry.id, repair=repair)
            return self._proposed_no_more(entry, withdrawn, command)

    def _proposed(self, quarantined: QuarantineId, repair: UUID) -> Proposal:
        """The repair that waits for an entry; raises ProposalUnknown where it is another one, or none, and ProposalHasExpired."""
        proposal = self.archive.quarantine.proposals([quarantined]).get(quarantined)
        if proposal is None or proposal.repair != repair:
            raise ProposalUnknown(repair)
        if self.now() >= proposal.proposed_at + PROPOSALS_LIVE:
            raise ProposalHasExpired
        return proposal

    def _proposed_no_more(
        self, entry: QuarantineEntry, event: RepairRejected | RepairWithdrawn, command: Command | None
    ) -> int:
        entries = self._on_feed(entry.source, [Said(event, None, entry.intake)])
        with self._at_once():
            self.archive.quarantine.propose_no_more(entry.id)
            return self._append_for(command, entries)

    def dismiss(self, quarantined: QuarantineId, command: Command | None = None) -> int:
        """Closes an entry without booking anything; returns the position of its event."""
        source = self._entry(quarantined).source
        with self._traced("ingest dismiss"), self._locked(source, command):
            if done := self._outcome_after_crash(source, command):
                return done[-1].position or 0
            self._acts_with_reason()
            entry = self._to_resolve(quarantined)
            event = QuarantinedRecordDismissed(source=source, quarantine=entry.id)
            dismissal = Said(event, resolved_id(entry.id), entry.intake)
            with self._at_once():
                self.archive.quarantine.resolved([entry.id], "dismissed")
                position = self._certify_anew(source, [dismissal], command)
                self.reached("after-dismissal")
            return position

    def show(self, quarantined: QuarantineId, purpose: str) -> Seen:
        """The record as it came, which may be personal; that it was seen, by whom and what for, is stored first."""
        worded(purpose)
        entry = self._entry(quarantined)
        with self._traced("ingest show"):
            self._acts_with_reason(purpose)

            def appended() -> None:
                # On a stream of the entry's own: the feed's is written under the lock of the source alone.
                head = self.ledger.heads([entry.id]).get(entry.id, 0)
                event = QuarantinedRecordShown(source=entry.source, quarantine=entry.id, purpose=purpose)
                self._append([Entry(entry.id, head + 1, event, None, self.now(), entry.intake)])

            tried_anew(appended)
        return Seen(self.raw_of(entry), self.file_of(entry.intake), entry.line)

    def proposals(self, entries: Sequence[QuarantineId]) -> dict[QuarantineId, Proposal]:
        """The repairs that wait for a second person, by entry."""
        return self.archive.quarantine.proposals(entries)

    def _needs_second_person(self, amounts_minor: Mapping[str, int]) -> bool:
        """From the limit on: the limit itself needs one."""
        limits, otherwise = (
            self.settings.release_approval_minor_by_currency,
            self.settings.release_approval_minor,
        )
        for currency, amount_minor in amounts_minor.items():
            limit = limits.get(currency, otherwise)
            if limit is not None and amount_minor >= limit:
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
        repair = repair_id(self.ids, entry.source, entry.id, repaired)
        sealed = self.vault.seal_bytes(feed_id(entry.source), f"proposal|{repair}", repaired)
        event = RepairProposed(
            source=entry.source,
            quarantine=entry.id,
            repair=repair,
            records=records,
            amounts_minor=amounts_minor,
        )
        entries = self._on_feed(entry.source, [Said(event, None, entry.intake)])
        proposal = Proposal(
            entry.id,
            repair,
            sealed,
            records,
            amounts_minor,
            self.acting.actor,
            worded(self.acting.reason or ""),
            entries[0].effective_at,
            self.acting.on_behalf_of,
        )
        with self._at_once():
            self.archive.quarantine.propose(proposal)
            self._append_for(command, entries)
        return proposal

    def _open_proposal(self, source: str, proposal: Proposal) -> bytes:
        return self.vault.open_bytes(feed_id(source), f"proposal|{proposal.repair}", proposal.repaired)

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
        worded(self.acting.reason or "")
        source = named.source
        with self._traced("ingest acknowledge"), self._locked(source, command):
            if not self._outcome(command):
                standing = self.archive.contradictions.open_under(source, named.number, only)
                if not standing:
                    raise NothingToAcknowledge(str(certificate))
                said = [
                    Said(
                        ContradictionsAcknowledged(
                            source=source,
                            certificate=certificate,
                            contradictions=tuple(standing[at : at + ACKNOWLEDGED_PER_EVENT_MAX]),
                        ),
                        None,
                        certificate,
                    )
                    for at in range(0, len(standing), ACKNOWLEDGED_PER_EVENT_MAX)
                ]
                with self._at_once():
                    self.archive.contradictions.acknowledge(source, standing)
                    self._certify_anew(source, said, command, certificate)
                    self.reached("after-acknowledgement")
            latest = self.latest_certificate(source)
            return latest or named

    def schedule(self, source: str, every_seconds: int) -> None:
        """Says how often a source sends; it is stale when it is silent for longer."""
        checked_source(source)
        with self._traced("ingest schedule"), self._locked(source):
            event = SourceScheduled(source=source, every_seconds=every_seconds)
            entries = self._on_feed(source, [Said(event, None, feed_id(source))])
            with self._at_once():
                self.archive.sources.schedule(source, every_seconds)
                self._append_for(None, entries)

    def close_releases(self, source: str, party: UUID, command: Command | None = None) -> int:
        """From now on no record of quarantine that names the party, or an account that it holds, is released.

        What is under way is released before. Returns the position. Raises PartyUnknown, ReasonMissing.
        """
        return self._switch_releases(source, party, command, closing=True)

    def open_releases(self, source: str, party: UUID, command: Command | None = None) -> int:
        """Takes `close_releases` back."""
        return self._switch_releases(source, party, command, closing=False)

    def _switch_releases(self, source: str, party: UUID, command: Command | None, *, closing: bool) -> int:
        checked_source(source)
        with self._traced("ingest switch releases"), self._locked(source, command):
            if (done := self._outcome(command)) is not None:
                return done[-1].position or 0 if done else self.ledger.head_position()
            self._acts_with_reason()
            if not self._is_described(source, party):
                raise PartyUnknown(str(party))
            if (party in self.archive.closed_parties.among([party])) == closing:
                if command is None:
                    return self.ledger.head_position()
                return self.ledger.append_for(command, feed_id(source), [])
            switched = ReleasesClosed if closing else ReleasesOpened
            entries = self._on_feed(source, [Said(switched(source=source, party_id=party), None, party)])
            with self._at_once():
                if closing:
                    self.archive.closed_parties.close(party)
                else:
                    self.archive.closed_parties.open(party)
                return self._append_for(command, entries)

    def _is_described(self, source: str, party: UUID) -> bool:
        """Whether the party is one that this source has described."""
        description = self.archive.descriptions.of([party]).get(party)
        if description is None:
            return False
        told = self.ledger.stored_under([described_id(party, description.revision)]).values()
        return any(isinstance(one.event, PartyDescribed) and one.event.source == source for one in told)
