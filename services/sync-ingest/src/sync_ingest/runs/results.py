"""What is given to a run, and what comes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple

import msgspec
from chassis.write.events import RecordedEvent

from sync_ingest.archive.quarantine import Proposal
from sync_ingest.domain.certificate import Findings
from sync_ingest.domain.events import ReconciliationCertified, RepairProposed
from sync_ingest.domain.identities import CertificateId, IntakeId, QuarantineId


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


class Unbookable(Exception):
    """Booking an intake broke, which is a fault of ours; its bytes are kept and it is set aside."""


def certified_before(events: Sequence[RecordedEvent]) -> RunResult:
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


def released_or_proposed(events: Sequence[RecordedEvent]) -> RunResult | Proposal:
    """What a release came to before."""
    recorded = events[-1]
    event, meta = recorded.event, recorded.metadata
    if not isinstance(event, RepairProposed):
        return certified_before(events)
    return Proposal(
        QuarantineId(event.quarantine),
        event.repair,
        b"",
        event.records,
        event.amounts_minor,
        meta.actor,
        meta.reason or "",
        meta.effective_at,
        meta.on_behalf_of,
    )
