"""The routes of tiers (客户层级)."""

from typing import Annotated, Any, Final
from uuid import UUID

from chassis.proposals.routes import PROPOSED, ProposalAnswer, proposed
from chassis.web import (
    Dependencies,
    ExplainedBody,
    consistency_token,
    entity_tag,
    refusals,
)
from chassis.write.deciding import (
    CommandContext,
    CommandKeyReused,
    Outcome,
    TooManyConflicts,
    VersionMismatch,
)
from fastapi import APIRouter, Depends, Path, Response

from customer.application import CustomerService
from customer.catalogue import CONTEXT
from customer.domain.refusals import (
    CustomerIsErased,
    CustomerNotRegistered,
    TierOverrideNeedsApproval,
    TierOverrideTermInvalid,
)
from customer.shapes import Done, TierOverrideBody

CustomerPath = Annotated[UUID, Path(description="the customer")]
_ENDED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"headers": {"ETag": {"schema": {"type": "string"}, "description": "the customer's version"}}},
    **refusals(CustomerNotRegistered, VersionMismatch),
    **refusals(CustomerIsErased, TooManyConflicts),
}
_OVERRIDDEN: Final = {
    **_ENDED,
    **refusals(CustomerIsErased, TooManyConflicts, TierOverrideNeedsApproval),
    **refusals(CommandKeyReused, TierOverrideTermInvalid),
}
_PROPOSED: Final[dict[int | str, dict[str, Any]]] = {
    **PROPOSED,
    **refusals(CustomerNotRegistered, VersionMismatch, CustomerIsErased),
    **refusals(CommandKeyReused, TierOverrideTermInvalid),
}


def add_tiers(router: APIRouter, service: CustomerService, dependencies: Dependencies) -> None:
    """Adds the routes of the tiers of customers."""
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]
    Expected = Annotated[int, Depends(dependencies.expected_version)]

    @router.post("/customers/{customer_id}/tier-override", responses=_OVERRIDDEN)
    async def override_tier(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: TierOverrideBody,
    ) -> Done:
        """Puts the customer into a tier before a business date, whatever the rules give (R022). It replaces an override that stands.
        It takes a second person to put a customer into 财富 (`wealth`) or 私行 (`private`): that is proposed."""
        overridden = service.overrides.override(customer_id, body.tier, body.valid_until, context, version)
        return _done(response, await overridden)

    @router.post("/customers/{customer_id}/tier-override/propose", status_code=202, responses=_PROPOSED)
    async def propose_tier_override(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: TierOverrideBody,
    ) -> ProposalAnswer:
        """Proposes to put the customer into a tier. A second person approves it; the approval is refused where another override has
        come since."""
        asked = service.overrides.propose(
            service.eyes, customer_id, body.tier, body.valid_until, context, version
        )
        return proposed(response, CONTEXT, await asked)

    @router.post("/customers/{customer_id}/tier-override/end", responses=_ENDED)
    async def end_tier_override(
        response: Response,
        context: Commanding,
        version: Expected,
        customer_id: CustomerPath,
        body: ExplainedBody,
    ) -> Done:
        """Withdraws the override of the customer's tier: what the rules give is in force again. Nothing where none stands."""
        return _done(response, await service.overrides.end(customer_id, context, version))


def _done(response: Response, outcome: Outcome[Any]) -> Done:
    response.headers["ETag"] = entity_tag(outcome.version)
    response.headers["Consistency-Token"] = consistency_token(CONTEXT, outcome.position)
    return Done(customer_id=outcome.stream_id, version=outcome.version, position=outcome.position)
