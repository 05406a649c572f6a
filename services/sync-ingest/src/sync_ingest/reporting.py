"""What a run and a certificate look like to people and programs outside: plain values, accounts by number."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog

from sync_ingest.archive.quarantine import Proposal, QuarantineEntry
from sync_ingest.domain.certificate import Findings, Problem
from sync_ingest.domain.records import masked_file
from sync_ingest.runs.ingest import Ingest
from sync_ingest.runs.results import Certificate, RunResult

Amounts = int | dict[str, int]

_log: Final = structlog.get_logger(__name__)


def result_of(result: RunResult) -> dict[str, Any]:
    """The result object of `crm ingest --json`.

    Sums are what the feed states, each posting once, whether this run posted it or an earlier one. Currencies are
    never added up: with more than one, sums come per currency.
    """
    findings = result.findings
    credits_minor, debits_minor = _sums(findings)
    currencies = [line.currency for line in findings.lines]
    return {
        "records": findings.records,
        "posted": findings.posted,
        "duplicates": findings.duplicates,
        "quarantined": findings.quarantined,
        "accounts": findings.accounts,
        "credits_minor": credits_minor,
        "debits_minor": debits_minor,
        "currency": currencies[0] if len(currencies) == 1 else (currencies or None),
        "certificate": findings.status,
        "reasons": list(findings.reasons),
        "seconds": round(result.seconds, 3),
    }


def note_run(what: str, result: RunResult, *, certified: bool = True) -> None:
    """One line of the log with the counts of a run; a warning where a person is needed. It names no account."""
    findings = result.findings
    wants_a_person = findings.quarantined > 0 or (certified and findings.status == "RED")
    (_log.warning if wants_a_person else _log.info)(
        what,
        source=result.source,
        records=findings.records,
        posted=findings.posted,
        duplicates=findings.duplicates,
        quarantined=findings.quarantined,
        certificate=findings.status if certified else None,
        reasons=list(findings.reasons) if certified else None,
        seconds=round(result.seconds, 3),
    )


def certificate_of(certificate: Certificate, numbers: Mapping[UUID, str]) -> dict[str, Any]:
    """A certificate with its accounts named as the source names them, where `numbers` knows them."""
    findings = certificate.findings
    credits_minor, debits_minor = _sums(findings)
    currencies = [line.currency for line in findings.lines]
    return {
        "number": certificate.number,
        "certificate_id": str(certificate.id),
        "source": certificate.source,
        "certified_at": certificate.certified_at.isoformat(),
        "status": findings.status,
        "reasons": list(findings.reasons),
        "records": findings.records,
        "posted": findings.posted,
        "duplicates": findings.duplicates,
        "quarantined": findings.quarantined,
        "master_records": findings.master_records,
        "accounts": findings.accounts,
        "late": findings.late,
        "back_dated": findings.back_dated,
        "differing": findings.differing,
        "differing_fields": findings.differing_fields,
        "coverage_unstated": findings.coverage_unstated,
        "repeats_older": findings.repeats_older,
        "repeats_older_at": [
            {"intake": str(place.intake), "line": place.line} for place in findings.repeats_older_at
        ],
        "closed_early": findings.closed_early,
        "closed_early_at": [
            {"intake": str(place.intake), "line": place.line} for place in findings.closed_early_at
        ],
        "booked_through": findings.booked_through.isoformat() if findings.booked_through else None,
        "credits_minor": credits_minor,
        "debits_minor": debits_minor,
        "currency": currencies[0] if len(currencies) == 1 else (currencies or None),
        "totals": [msgspec.to_builtins(line) for line in findings.lines],
        "printed_balances": msgspec.to_builtins(findings.printed),
        "problems": [_problem(problem, numbers) for problem in findings.problems],
        "problems_total": findings.problems_total,
        "acknowledges": str(findings.acknowledges) if findings.acknowledges else None,
    }


NUMBER_START_SHOWN: Final = 6
NUMBER_END_SHOWN: Final = 4


def masked_number(number: str) -> str:
    """An account number as a certificate prints it: enough to recognise it, for whom it is known."""
    hidden = len(number) - NUMBER_START_SHOWN - NUMBER_END_SHOWN
    if hidden >= NUMBER_END_SHOWN:
        return f"{number[:NUMBER_START_SHOWN]}{'*' * hidden}{number[-NUMBER_END_SHOWN:]}"
    shown = min(NUMBER_END_SHOWN, len(number) // 3)
    return "*" * (len(number) - shown) + (number[-shown:] if shown else "")


def quarantine_of(
    number: int, entry: QuarantineEntry, file: str, proposal: Proposal | None = None
) -> dict[str, Any]:
    """A quarantine entry without the record itself, which is personal; of its file's name the ending."""
    return {
        "id": str(entry.id),
        "number": number,
        "source": entry.source,
        "intake": str(entry.intake),
        "file": masked_file(file),
        "line": entry.line,
        "column": entry.column,
        "reason": entry.reason,
        "detail": entry.detail,
        "quarantined_at": entry.quarantined_at.isoformat(),
        "status": entry.status,
        "kind": entry.kind,
        "whole_file": entry.whole_file,
        "proposal": proposal_of(proposal) if proposal else None,
    }


def quarantine_page_of(
    ingest: Ingest, source: str | None, status: str | None, after: int, limit: int
) -> list[dict[str, Any]]:
    """A page of quarantine entries in the order they came, with the repairs that wait for a second person."""
    page = ingest.archive.quarantine.page(source, status, after, limit)
    proposals = ingest.proposals([entry.id for _, entry in page])
    files = ingest.files_of([entry.intake for _, entry in page])
    return [
        quarantine_of(number, entry, files[entry.intake], proposals.get(entry.id)) for number, entry in page
    ]


def proposal_of(proposal: Proposal) -> dict[str, Any]:
    """A repair that waits for a second person: what it moves, and the id that names exactly its bytes."""
    return {
        "repair": str(proposal.repair),
        "records": proposal.records,
        "amounts_minor": proposal.amounts_minor,
        "proposed_by": proposal.proposed_by,
        "reason": proposal.reason,
        "proposed_at": proposal.proposed_at.isoformat(),
    }


def _problem(problem: Problem, numbers: Mapping[UUID, str]) -> dict[str, Any]:
    return {
        "code": problem.code,
        "account": numbers.get(problem.account_id) if problem.account_id else None,
        "contradiction": str(problem.contradiction) if problem.contradiction else None,
        "new": not problem.known,
        "account_id": str(problem.account_id) if problem.account_id else None,
        "currency": problem.currency,
        "expected": problem.expected,
        "found": problem.found,
        "detail": problem.detail,
    }


def _sums(findings: Findings) -> tuple[Amounts, Amounts]:
    if len(findings.lines) == 1:
        (line,) = findings.lines
        return line.stated_credits_minor, line.stated_debits_minor
    if not findings.lines:
        return 0, 0
    return (
        {line.currency: line.stated_credits_minor for line in findings.lines},
        {line.currency: line.stated_debits_minor for line in findings.lines},
    )
