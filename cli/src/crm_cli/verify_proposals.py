"""Checks that what two persons must decide was decided by two, once, over exactly what was proposed, and that what names a
proposal has an approved one behind it (I13).

What is not checked: an effect that names no proposal, once the store has forgotten its command, and the repairs of ingest.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final
from uuid import UUID

from chassis.proposals.approving import effect_id
from chassis.proposals.deciding import (
    MADE,
    ProposalApproved,
    ProposalExpired,
    ProposalMade,
    ProposalRejected,
    ProposalWithdrawn,
)
from chassis.proposals.persons import persons
from chassis.write.catalogue import Catalogue
from chassis.write.events import Metadata, RecordedEvent, StoredEvent
from chassis.write.store import CommandSeen, Recorder
from chassis.write.store.items import NIL

from crm_cli.contexts import Context
from crm_cli.verify_report import Report
from crm_cli.verify_store import Store

EFFECTS_AT_ONCE: Final = 200
_NAMING: Final = (
    "select stream_id, version, name, body from {events}"
    " where position(convert_to('\"proposal_id\":\"', 'UTF8') in body) > 0 order by position"
)
"""Events that name a proposal, and some whose data does."""


def check_proposals(url: str, context: Context, store: Store, report: Report) -> None:
    """Checks every proposal of a context, and every event that names one. Raises psycopg.Error, StoreUnavailable."""
    catalogue = context.catalogue()
    if MADE not in catalogue.names:
        return
    recorder = Recorder(url, context.schema, as_login=True)
    try:
        after = NIL
        while page := store.streams_with(MADE, after):
            # First what was carried out: what is approved meanwhile is then found approved.
            effects = recorder.commands([str(effect_id(proposal)) for proposal in page])
            for proposal, stored in recorder.read_streams(dict.fromkeys(page, 0)).items():
                effect = effects.get(str(effect_id(proposal)))
                with report.reading("I13", f"{context.name}: the proposal {proposal}"):
                    for wrong in _wrong(catalogue, recorder, proposal, stored, effect):
                        report.broken("I13", f"{context.name}: the proposal {proposal} {wrong}")
                report.passed("I13")
            after = page[-1]
        rows = store.rows(_NAMING)
        while some := list(islice(rows, EFFECTS_AT_ONCE)):
            _check_effects(context.name, catalogue, recorder, some, report)
    finally:
        recorder.close()


def _check_effects(
    name: str, catalogue: Catalogue, recorder: Recorder, rows: Sequence[tuple[Any, ...]], report: Report
) -> None:
    """Checks that each event that names a proposal is the effect of its approval."""
    effects = list(_naming(name, catalogue, rows, report))
    proposals = recorder.read_streams({proposal: 0 for *_, proposal in effects})
    remembered = recorder.commands([str(effect_id(proposal)) for proposal in proposals])
    for stored, by, proposal in effects:
        if by.command_id == effect_id(proposal) and str(by.command_id) in remembered and proposals[proposal]:
            continue  # it is checked with its proposal
        where = f"{name}: version {stored.version} of {stored.stream_id}"
        with report.reading("I13", f"{where}: the proposal {proposal}"):
            wrong = _wrong_named([catalogue.decode(one) for one in proposals[proposal]], by)
            if wrong is not None:
                report.broken("I13", f"{where} names the proposal {proposal}, {wrong}")
        report.passed("I13")


def _wrong_named(proposal: Sequence[RecordedEvent], by: Metadata) -> str | None:
    """What is wrong with a proposal as what an event of these persons carries out; None where nothing is."""
    made = proposal[0].event if proposal else None
    if not isinstance(made, ProposalMade):
        return "which is not there"
    approvers = {one.metadata.actor for one in proposal if isinstance(one.event, ProposalApproved)}
    if not approvers:
        return "which nobody has approved"
    if by.actor not in approvers or by.proposed_by != made.proposed_by:
        return "and other persons than it"
    return None


def _naming(
    name: str, catalogue: Catalogue, rows: Sequence[tuple[Any, ...]], report: Report
) -> Iterator[tuple[StoredEvent, Metadata, UUID]]:
    """The events whose metadata names a proposal, each with its metadata and the proposal."""
    for row in rows:
        stored = StoredEvent(*row)
        with report.reading("I13", f"{name}: version {stored.version} of {stored.stream_id}"):
            by = catalogue.metadata_of(stored)
            if by.proposal_id is not None:
                yield stored, by, by.proposal_id


def _wrong(
    catalogue: Catalogue,
    recorder: Recorder,
    proposal: UUID,
    stored: Sequence[StoredEvent],
    effect: CommandSeen | None,
) -> list[str]:
    """What is wrong with a proposal, in words."""
    made, *decisions = (catalogue.decode(one) for one in stored)
    if not isinstance(made.event, ProposalMade):
        return ["does not begin with what was proposed"]
    found = ["is decided more than once"] if len(decisions) > 1 else []
    approval: Metadata | None = None
    for one in decisions:
        if isinstance(one.event, ProposalApproved):
            approval = one.metadata
        found += _wrong_decision(made.event, one.event, one.metadata)
    if effect is not None:
        if approval is None:
            found.append("is carried out, and nobody has approved it")
        else:
            found += _wrong_effect(catalogue, recorder, proposal, approval, effect)
    return found


def _wrong_decision(made: ProposalMade, event: object, by: Metadata) -> list[str]:
    proposers = persons(made.proposed_by, made.on_behalf_of)
    own = not proposers.isdisjoint(persons(by.actor, by.on_behalf_of))
    late = by.recorded_at >= made.expires_at
    match event:
        case ProposalApproved(digest, _, approved_by):
            found = (
                ["is approved by who proposed it"] if own or proposers & persons(approved_by, None) else []
            )
            if digest != made.digest:
                found.append("is approved with the digest of something else")
            if late:
                found.append("is approved after its time was over")
            return found
        case ProposalRejected():
            found = ["is rejected by who proposed it"] if own else []
            return [*found, *(["is rejected after its time was over"] if late else [])]
        case ProposalWithdrawn():
            found = [] if own else ["is withdrawn by who did not propose it"]
            return [*found, *(["is withdrawn after its time was over"] if late else [])]
        case ProposalExpired() if not late:
            return ["is expired before its time was over"]
        case _:
            return []


def _wrong_effect(
    catalogue: Catalogue, recorder: Recorder, proposal: UUID, approval: Metadata, effect: CommandSeen
) -> list[str]:
    if not effect.event_count:
        return []
    first = effect.version - effect.event_count
    for one in recorder.read_stream(effect.stream_id, first, effect.event_count):
        named = catalogue.metadata_of(one)
        if (named.proposal_id, named.actor) != (proposal, approval.actor):
            return [f"is carried out by an event of {effect.stream_id} that does not name its approval"]
    return []
