"""Checks that what two persons must decide was decided by two, once, over exactly what was proposed (I13).

What is not checked: the effect of an approval whose command the store no longer remembers, and the repairs of ingest.
"""

from collections.abc import Sequence
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
from chassis.write.events import Metadata, StoredEvent
from chassis.write.store import CommandSeen, Recorder
from chassis.write.store.items import NIL

from crm_cli.contexts import Context
from crm_cli.verify_report import Report
from crm_cli.verify_store import Store


def check_proposals(url: str, context: Context, store: Store, report: Report) -> None:
    """Checks every proposal of a context. Raises psycopg.Error, StoreUnavailable."""
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
    finally:
        recorder.close()


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
