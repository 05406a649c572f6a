"""The routes of tiers (客户层级): their rules, and the overrides of customers."""

from datetime import date, datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from chassis.bulk import BulkOversized
from chassis.bulk.routes import PREPARED, BulkAnswer, prepared
from chassis.lists import ConditionInvalid, FieldNotPermitted, QueryTooSlow, question
from chassis.money import CurrencyCode, decimal_text, exponent, minor_units
from chassis.proposals.routes import PROPOSED, ProposalAnswer, proposed
from chassis.web import (
    Asking,
    Dependencies,
    ExplainedBody,
    Page,
    Paging,
    cursor,
    cursor_values,
    entity_tag,
    paging,
    refusals,
    tagged,
)
from chassis.web.formats import Month, StatedDay
from chassis.web.paging import CursorInvalid
from chassis.web.problems import RequestInvalid
from chassis.write.deciding import (
    CommandContext,
    CommandKeyReused,
    SubjectUnknown,
    TooManyConflicts,
    VersionMismatch,
)
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from customer.application import CustomerService
from customer.catalogue import CONTEXT
from customer.domain.events import Tier, TierAssessed
from customer.domain.refusals import (
    CustomerIsErased,
    CustomerNotRegistered,
    TierOverrideNeedsApproval,
    TierOverrideTermInvalid,
)
from customer.domain.state import TierOverride
from customer.domain.tier_rules import (
    GRACE_MONTHS_MAX,
    TIERS,
    Threshold,
    TierRules,
    TierRulesInvalid,
    TierRulesNotAhead,
    TierRulesOutdated,
    TooManyTierRules,
)
from customer.done import done
from customer.lists import FACTS_LIST, scope_of
from customer.panorama.schema import MONTH_PATTERN
from customer.selecting import may_of
from customer.shapes import Done, SelectionBody, TierOverrideBody, TierOverrideStated
from customer.tier_history import TierChange
from customer.tier_rulebook import AdoptedRules

AboveLowest = Literal["potential", "wealth", "private"]
Amount = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,16}([.][0-9]{1,4})?$")]


class ThresholdBody(BaseModel):
    """The average daily AUM of a month from which on a customer is in a tier, inclusive, as text such as "500000.00"."""

    model_config = ConfigDict(extra="forbid")

    tier: AboveLowest
    amount: Amount


class TierRulesBody(ExplainedBody):
    """A version of the rules: where each tier begins, the higher at the larger amount. A tier that is left out is given by no rule.

    `from_month`: the first month that is assessed by it. `grace_months`: months below a tier that do not leave it yet.
    """

    from_month: Annotated[str, StringConstraints(pattern=MONTH_PATTERN)]
    currency: CurrencyCode
    thresholds: list[ThresholdBody] = Field(min_length=1, max_length=len(TIERS) - 1)
    grace_months: int = Field(ge=0, le=GRACE_MONTHS_MAX)

    @model_validator(mode="after")
    def _in_minor_units(self) -> Self:
        """Refuses what its currency does not have, instead of rounding it."""
        self.said()
        return self

    def said(self) -> TierRules:
        """As the domain says it; the number of the version comes with the proposal."""
        places = exponent(self.currency)
        found = [Threshold(one.tier, minor_units(one.amount, places)) for one in self.thresholds]
        highest_first = sorted(found, key=lambda one: TIERS.index(one.tier), reverse=True)
        return TierRules(0, self.currency, tuple(highest_first), self.grace_months, self.from_month)


class ThresholdShown(BaseModel):
    """Where a tier begins: at this average daily AUM of a month, inclusive."""

    tier: AboveLowest
    amount: str
    amount_minor: int


class TierRulesShown(BaseModel):
    """A version of the rules, by which months from `from_month` on are assessed, and before the next version begins; `in_force`: the
    running month is. `actor` adopted what `proposed_by` proposed. The version that is built in has neither, nor a first month."""

    version: int
    from_month: Month | None
    in_force: bool
    currency: str
    thresholds: list[ThresholdShown]
    grace_months: int
    recorded_at: datetime | None
    actor: str | None
    proposed_by: str | None
    reason: str | None


class TierChangeShown(BaseModel):
    """An event of a customer's tier: who gave it, when and why, and the tier in force after it.

    `assessed` is what the rules give, `override` the override that stands, and `valid_until` when it lapses. `because`, `month` and
    `rules` are of an assessment. `actor` approved what `proposed_by` proposed.
    """

    event_id: UUID
    sequence: int
    change: Literal["assessed", "overridden", "lapsed", "withdrawn", "erased"]
    tier: Tier | None
    assessed: Tier | None
    override: Tier | None
    valid_until: date | None
    because: Literal["met", "grace", "unknown"] | None
    month: Month | None
    rules: int | None
    recorded_at: datetime
    effective_at: datetime
    actor: str
    post: str | None
    proposed_by: str | None
    reason: str | None


class TierHistoryPage(Page[TierChangeShown]):
    """A page of the history of a customer's tier, oldest first."""


class TierOnDay(BaseModel):
    """The tier that was in force at the end of a business date, what the rules gave by then, and the event that gave it: the override that
    stood, else the last assessment; null where there was neither."""

    as_of: date
    tier: Tier | None
    assessed: Tier | None
    given_by: TierChangeShown | None


class TierRulesPage(Page[TierRulesShown]):
    """All versions, the newest first; they fit into one page."""


class TierOverridesBody(SelectionBody, TierOverrideStated):
    """The tier that customers are put into, the business date on which that lapses, and which customers: these, or those who meet a
    condition on their facts now."""


CustomerPath = Annotated[UUID, Path(description="the customer")]
Paged = Annotated[Paging, Depends(paging)]
_ENDED: Final[dict[int | str, dict[str, Any]]] = {
    **tagged("customer"),
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


_RULES_PROPOSED: Final[dict[int | str, dict[str, Any]]] = {
    **PROPOSED,
    **refusals(VersionMismatch, TierRulesOutdated, TooManyTierRules),
    **refusals(CommandKeyReused, TierRulesNotAhead, TierRulesInvalid),
}
_LISTED: Final = tagged("list")


_PREPARED: Final[dict[int | str, dict[str, Any]]] = {
    **PREPARED,
    **refusals(ConditionInvalid, FieldNotPermitted, QueryTooSlow, CommandKeyReused, BulkOversized),
    **refusals(TooManyConflicts, CustomerNotRegistered),
    **refusals(ConditionInvalid, CommandKeyReused, BulkOversized, TierOverrideTermInvalid),
}


def add_tiers(router: APIRouter, service: CustomerService, dependencies: Dependencies) -> None:
    """Adds the routes of the rules of tiers, and of the tiers of customers."""
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
        return done(response, await overridden)

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
        return done(response, await service.overrides.end(customer_id, context, version))

    @router.post("/customers/tier-overrides", status_code=201, responses=_PREPARED)
    async def prepare_tier_overrides(
        response: Response, context: Commanding, caller: Asking, body: TierOverridesBody
    ) -> BulkAnswer:
        """Lists customers who are to be put into a tier (R024), of a condition those who meet it now. Nothing is done until the run is
        started, which takes a second person."""
        asked = question(FACTS_LIST, may_of(caller), body.where)
        those = await service.to_change(scope_of(caller), asked, body.customers)
        run = await service.overrides.prepare(
            service.bulk,
            TierOverride(body.tier, body.valid_until),
            those.customers,
            context,
            asked=[body.tier, body.valid_until, *those.asked],
            selection=those.words,
        )
        return prepared(response, CONTEXT, run)

    @router.get(
        "/customers/{customer_id}/tier",
        responses=refusals(CustomerNotRegistered, SubjectUnknown, RequestInvalid),
    )
    async def get_tier(
        customer_id: CustomerPath,
        as_of: Annotated[
            StatedDay | None, Query(description="a business date that has begun; today by default")
        ] = None,
    ) -> TierOnDay:
        """The tier that was in force on a business date, with who gave it and why: by an assessment or by an override."""
        today = service.today()
        day = as_of or today
        if day > today:
            raise RequestInvalid(f"as_of is after {today}")
        found = await service.tiers.on(customer_id, day)
        given_by = None if found.given_by is None else _change_shown(found.given_by)
        return TierOnDay(as_of=day, tier=found.tier, assessed=found.assessed, given_by=given_by)

    @router.get(
        "/customers/{customer_id}/tier/history",
        responses=refusals(CustomerNotRegistered, SubjectUnknown, CursorInvalid),
    )
    async def list_tier_history(customer_id: CustomerPath, page: Paged) -> TierHistoryPage:
        """What was assessed and overridden of the customer's tier, by whom, when and why, oldest first."""
        after = 0 if page.after is None else cursor_values(page.after, int)[0]
        found = await service.tiers.page(customer_id, after, page.limit)
        following = cursor(found[-1].recorded.version) if len(found) == page.limit else None
        return TierHistoryPage(items=[_change_shown(one) for one in found], next=following)

    @router.get("/tier-rules", responses=_LISTED)
    async def list_tier_rules(response: Response) -> TierRulesPage:
        """The versions of the rules of tiers, the newest first, each with the month from which on it holds, who adopted it and why."""
        found, version = await service.rulebook.listed()
        response.headers["ETag"] = entity_tag(version)
        return TierRulesPage(items=[_rules_shown(one) for one in found])

    @router.post("/tier-rules", status_code=202, responses=_RULES_PROPOSED)
    async def propose_tier_rules(
        response: Response, context: Commanding, version: Expected, body: TierRulesBody
    ) -> ProposalAnswer:
        """Proposes a version of the rules of tiers from a later month on (R021). A second person approves it; the approval is refused
        once that month has begun, or another version was adopted. What was assessed stays as it is."""
        asked = service.rulebook.propose(service.eyes, body.said(), context, version)
        return proposed(response, CONTEXT, await asked)


def _change_shown(one: TierChange) -> TierChangeShown:
    recorded, metadata, override = one.recorded, one.recorded.metadata, one.after.tier_override
    event = recorded.event if isinstance(recorded.event, TierAssessed) else None
    return TierChangeShown(
        event_id=recorded.event_id,
        sequence=recorded.version,
        change=one.change,
        tier=one.after.tier_in_force,
        assessed=one.after.tier,
        override=None if override is None else override.tier,
        valid_until=None if override is None else override.valid_until,
        because=None if event is None else event.because,
        month=None if event is None else event.month,
        rules=None if event is None else event.rules,
        recorded_at=metadata.recorded_at,
        effective_at=metadata.effective_at,
        actor=metadata.actor,
        post=metadata.post,
        proposed_by=metadata.proposed_by,
        reason=metadata.reason,
    )


def thresholds_shown(rules: TierRules) -> list[ThresholdShown]:
    """Where each tier begins, the lowest first."""
    return [
        ThresholdShown(
            tier=each.tier,  # type: ignore[arg-type]  # the lowest has none
            amount=decimal_text(each.at_least_minor, rules.currency),
            amount_minor=each.at_least_minor,
        )
        for each in reversed(rules.thresholds)
    ]


def _rules_shown(one: AdoptedRules) -> TierRulesShown:
    rules, metadata = one.rules, one.metadata
    return TierRulesShown(
        version=rules.version,
        from_month=rules.from_month,
        in_force=one.in_force,
        currency=rules.currency,
        thresholds=thresholds_shown(rules),
        grace_months=rules.grace_months,
        recorded_at=None if metadata is None else metadata.recorded_at,
        actor=None if metadata is None else metadata.actor,
        proposed_by=None if metadata is None else metadata.proposed_by,
        reason=None if metadata is None else metadata.reason,
    )
