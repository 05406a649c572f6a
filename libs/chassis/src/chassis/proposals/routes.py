"""The routes of a context's proposals: shown, approved, rejected, withdrawn."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, get_args
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, Field, StringConstraints

from chassis.privacy.tokens import Caller
from chassis.proposals.approving import Carried, FourEyes, ProposalShown, SubjectErased
from chassis.proposals.deciding import (
    ApprovalForbidden,
    DigestDiffers,
    ProposalHasExpired,
    ProposalSettled,
    ProposalUnknown,
    ProposerNeeded,
    SecondPersonNeeded,
    Status,
)
from chassis.web import Dependencies, ExplainedBody, consistency_token, located, refusals
from chassis.write.deciding import CommandContext, TooManyConflicts

EXAMPLES: Final[Mapping[str, Any]] = {
    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "proposes": "erase",
    "proposed_by": "teller-7",
    "approved_by": "teller-9",
    "on_behalf_of": "manager-3",
    "command": {},
}
"""Examples of the names of fields here, for the `EXAMPLES` of a service."""

PROPOSED: Final = located(202, "where the proposal is")
"""Belongs to the `responses` of a route that proposes."""
ProposalPath = Annotated[UUID, Path(description="the proposal")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_PLAIN: Final = refusals(ProposalUnknown)
_DECIDED: Final = {
    **_PLAIN,
    **refusals(SecondPersonNeeded, ApprovalForbidden),
    **refusals(ProposalSettled, ProposalHasExpired, SubjectErased, TooManyConflicts),
}
_APPROVED: Final = {
    **_DECIDED,
    **refusals(DigestDiffers, ProposalSettled, ProposalHasExpired, SubjectErased, TooManyConflicts),
}
_WITHDRAWN: Final = {**_PLAIN, **refusals(ProposerNeeded), **refusals(ProposalSettled, ProposalHasExpired)}
Waiting = Literal["waiting", "approved", "rejected", "withdrawn", "expired"]
assert set(get_args(Waiting)) | {"none"} == set(get_args(Status))  # noqa: S101 (two lists of one thing)


class ApprovalBody(ExplainedBody):
    """What is approved, by the digest that the proposal was shown with, and why."""

    digest: Digest


class ProposalAnswer(BaseModel):
    """A proposal. `digest` names exactly this command with its reason; `command` is null once its subject was erased."""

    proposal_id: UUID
    proposes: str
    subject_id: UUID
    status: Waiting
    digest: Digest
    proposed_by: str
    on_behalf_of: str | None
    reason: str
    expires_at: datetime
    approved_by: str | None
    command: dict[str, Any] | None = Field(description="the proposed command")


class CarriedOut(BaseModel):
    """What an approval came to: the subject's version after it, and the position of its last event."""

    proposal_id: UUID
    subject_id: UUID
    version: int
    position: int


def add_proposals(
    router: APIRouter, eyes: Callable[[], FourEyes], dependencies: Dependencies, context: str
) -> None:
    """Adds the routes of the proposals of `context`; `permissions.py` names them.

    They are `get_<context>_proposal`, and `approve_`, `reject_` and `withdraw_<context>_proposal`.
    """
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]
    Asking = Annotated[Caller, Depends(dependencies.caller)]
    place = f"/proposals/{context}/{{proposal_id}}"

    @router.get(place, name=f"get_{context}_proposal", responses=_PLAIN)
    async def get_proposal(proposal_id: ProposalPath) -> ProposalAnswer:
        """A proposal as those see it who decide on it."""
        return answered(await eyes().shown(proposal_id))

    @router.post(f"{place}/approve", name=f"approve_{context}_proposal", responses=_APPROVED)
    async def approve_proposal(
        response: Response, asking: Asking, given: Commanding, proposal_id: ProposalPath, body: ApprovalBody
    ) -> CarriedOut:
        """Carries out exactly what another person proposed. The approval and its effect are stored together."""
        carried = await eyes().approve(proposal_id, body.digest, given, asking.roles)
        return _carried(response, context, carried)

    @router.post(f"{place}/reject", name=f"reject_{context}_proposal", responses=_DECIDED)
    async def reject_proposal(
        response: Response, asking: Asking, given: Commanding, proposal_id: ProposalPath, body: ExplainedBody
    ) -> ProposalAnswer:
        """Refuses what another person proposed."""
        return _decided(response, context, await eyes().reject(proposal_id, given, asking.roles))

    @router.post(f"{place}/withdraw", name=f"withdraw_{context}_proposal", responses=_WITHDRAWN)
    async def withdraw_proposal(
        response: Response, given: Commanding, proposal_id: ProposalPath, body: ExplainedBody
    ) -> ProposalAnswer:
        """Takes the own proposal back."""
        return _decided(response, context, await eyes().withdraw(proposal_id, given))


def proposed(response: Response, context: str, shown: ProposalShown) -> ProposalAnswer:
    """The answer of a route that proposes, with its headers."""
    response.headers["Location"] = f"/proposals/{context}/{shown.proposal_id}"
    return _decided(response, context, shown)


def _carried(response: Response, context: str, carried: Carried) -> CarriedOut:
    response.headers["Consistency-Token"] = consistency_token(context, carried.position)
    return CarriedOut(
        proposal_id=carried.proposal_id,
        subject_id=carried.subject,
        version=carried.version,
        position=carried.position,
    )


def _decided(response: Response, context: str, shown: ProposalShown) -> ProposalAnswer:
    response.headers["Consistency-Token"] = consistency_token(context, shown.position)
    return answered(shown)


def answered(shown: ProposalShown) -> ProposalAnswer:
    """A proposal over HTTP."""
    return ProposalAnswer(
        proposal_id=shown.proposal_id,
        proposes=shown.kind,
        subject_id=shown.subject,
        status=shown.status,  # type: ignore[arg-type]
        digest=shown.digest,
        proposed_by=shown.proposed_by,
        on_behalf_of=shown.on_behalf_of,
        reason=shown.reason,
        expires_at=shown.expires_at,
        approved_by=shown.approved_by,
        command=shown.command,
    )
