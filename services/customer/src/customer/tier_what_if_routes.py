"""The routes of what-if (规则试算): a candidate for the rules of tiers over what was assessed. They change nothing, so they are questions."""

from datetime import date
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from chassis.money import AmountUnreadable, CurrencyCode, exponent, minor_units
from chassis.web import Page, Paging, cursor, cursor_values, paging, refusals
from chassis.web.formats import Integer, Month
from chassis.web.paging import CursorInvalid
from chassis.web.problems import RequestInvalid
from chassis.web.streams import EventStream
from chassis.web.working import WORK_SECONDS_MAX, Tell, worked, working
from chassis.write.deciding import SubjectUnknown
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from customer.application import CustomerService
from customer.domain.events import Tier
from customer.domain.refusals import CustomerNotRegistered
from customer.domain.tier_replaying import Assessed, Move
from customer.domain.tier_rules import GRACE_MONTHS_MAX, TIERS, Threshold, TierRules, TierRulesInvalid
from customer.panorama.schema import MONTH_PATTERN
from customer.tier_routes import Amount, CustomerPath, ThresholdShown, thresholds_shown
from customer.tier_what_if import (
    COST_MINOR_MAX,
    Asked,
    Costs,
    Counts,
    Progress,
    Sums,
    WhatIfOutOfRange,
    branch_of,
)

BRANCHES_SHOWN_MAX: Final = 1_000
_POSITION_MAX: Final = 2**63 - 1
_PLACE_MAX: Final = 2**31 - 1


class CandidateShown(BaseModel):
    """The candidate: where each tier begins, and its grace. `version`: the number that it would have."""

    version: int
    from_month: Month | None
    currency: str
    thresholds: list[ThresholdShown]
    grace_months: int


class WhatIfProgress(BaseModel):
    """How many customers were replayed, and how much of all was read, in hundredths of a per cent."""

    customers: int
    hundredths: int


class TierCustomers(BaseModel):
    """How many of the customers are in a tier now, and would be by the candidate; null: in none."""

    tier: Tier | None
    customers: int
    candidate_customers: int


class MovesOfMonth(BaseModel):
    """How many moves begin in a month."""

    month: Month
    up: int
    down: int


class MovedCustomers(BaseModel):
    """Customers, and those of them who moved: at all, to a higher tier and to a lower one. `moved_hundredths`: their share, in hundredths of
    a per cent. `yearly_cost_minor`: what the candidate costs more in a year, in minor units of its currency."""

    customers: int
    moved: int
    moved_hundredths: int
    up: int
    down: int
    yearly_cost_minor: int


class MovedOfBranch(MovedCustomers):
    """The same of the customers of a branch; null: of those that have none."""

    branch: str | None


class WhatIfResult(BaseModel):
    """What a candidate comes to over all customers who were assessed for its first month or a later one, up to `position`.

    `digest` is the SHA-256 of what was asked, of each move and of each figure: the same question has the same one. `held`: customers whom
    an override keeps in their tier, and whom the candidate assesses otherwise. `not_comparable`: assessments in another currency than
    that of the candidate, which knows nothing of these months. `branches`: those with the largest share of moved customers first, and
    `branch_count` how many there are.
    """

    digest: str
    position: int
    candidate: CandidateShown
    assessments: int
    not_comparable: int
    held: int
    whole_bank: MovedCustomers
    tiers: list[TierCustomers]
    months: list[MovesOfMonth]
    yearly_cost_minor: int
    candidate_yearly_cost_minor: int
    branch_count: int
    branches: list[MovedOfBranch]


class MoveShown(BaseModel):
    """From `since` on and before `until`, both business dates, the customer is in `tier`, and by the candidate in another one. `until` is
    null where that goes on. `branch`: of the customer at the position."""

    customer_id: UUID
    branch: str | None
    month: Month
    since: date
    until: date | None
    tier: Tier | None
    candidate_tier: Tier | None


class MovesPage(Page[MoveShown]):
    """A page of the moves in the order of the customers' ids, up to `position`. It may have fewer than asked for, or none, and another page
    after it."""

    position: int


class MonthTried(BaseModel):
    """A month as it was assessed, and as the candidate assesses it: the average daily AUM, and for both the version, the tier, its reason,
    and the tier in force after it."""

    month: Month
    since: date
    currency: str
    average_minor: int | None
    rules: int
    assessed: Tier | None
    because: Literal["met", "grace", "unknown"]
    tier: Tier | None
    candidate_rules: int
    candidate_assessed: Tier | None
    candidate_because: Literal["met", "grace", "unknown"]
    candidate_tier: Tier | None


class CustomerTried(BaseModel):
    """The months of a customer by a candidate, and where it moves. Both are empty, and `branch` is null, where no month was assessed that the
    candidate is for, and where the customer is erased by now. `branch`: of the customer at the position."""

    customer_id: UUID
    position: int
    candidate: CandidateShown
    branch: str | None
    months: list[MonthTried]
    moves: list[MoveShown]


def _candidate(
    from_month: Annotated[
        str, Query(pattern=MONTH_PATTERN, description="the first month that is assessed once more")
    ],
    currency: Annotated[CurrencyCode, Query(description="the currency of the candidate")],
    grace_months: Annotated[
        Integer, Query(ge=0, le=GRACE_MONTHS_MAX, description="months below a tier that do not leave it yet")
    ],
    potential: Annotated[
        Amount | None, Query(description="where 财富潜力 begins; without it no rule gives it")
    ] = None,
    wealth: Annotated[
        Amount | None, Query(description="where 财富 begins; without it no rule gives it")
    ] = None,
    private: Annotated[
        Amount | None, Query(description="where 私行 begins; without it no rule gives it")
    ] = None,
) -> TierRules:
    given: dict[Tier, str | None] = {"private": private, "wealth": wealth, "potential": potential}
    try:
        found = [
            Threshold(tier, minor_units(amount, exponent(currency)))
            for tier, amount in given.items()
            if amount is not None
        ]
    except AmountUnreadable as error:
        raise RequestInvalid(str(error)) from None
    return TierRules(0, currency, tuple(found), grace_months, from_month)


_Cost = Annotated[
    Integer,
    Query(ge=0, le=COST_MINOR_MAX, description="what a customer of the tier costs in a year, in minor units"),
]


def _costs(
    cost_mass: _Cost = 0, cost_potential: _Cost = 0, cost_wealth: _Cost = 0, cost_private: _Cost = 0
) -> Costs:
    return {"mass": cost_mass, "potential": cost_potential, "wealth": cost_wealth, "private": cost_private}


Candidate = Annotated[TierRules, Depends(_candidate)]
Position = Annotated[
    Integer | None,
    Query(
        ge=0,
        le=_POSITION_MAX,
        description="what was stored up to there is replayed; by default all that is stored now",
    ),
]
Seconds = Annotated[
    Integer, Query(ge=0, le=WORK_SECONDS_MAX, description="how long the caller waits at most")
]
Paged = Annotated[Paging, Depends(paging)]
_REFUSED: Final = (TierRulesInvalid, WhatIfOutOfRange, RequestInvalid)
_SUMMED: Final = worked(WhatIfProgress, WhatIfResult, *_REFUSED)
_LISTED: Final[dict[int | str, dict[str, Any]]] = refusals(CursorInvalid, *_REFUSED)
_EXPLAINED: Final[dict[int | str, dict[str, Any]]] = refusals(
    CustomerNotRegistered, SubjectUnknown, *_REFUSED
)


def add_what_if(router: APIRouter, service: CustomerService) -> None:
    """Adds the routes of what-if."""

    @router.get("/tier-rules/what-if", responses=_SUMMED, response_class=EventStream)
    async def try_tier_rules(
        rules: Candidate,
        costs: Annotated[Costs, Depends(_costs)],
        position: Position = None,
        seconds: Seconds = WORK_SECONDS_MAX,
    ) -> Response:
        """Server-sent events: what a candidate for the rules of tiers comes to over the months that were assessed (M07). Nothing is changed.

        It takes up to a minute for 100,000 customers and 24 months. One is summed at a time in a process; the next one waits.
        """
        asked = await service.what_if.asked(rules, position)

        async def work(tell: Tell) -> Any:
            def told(progress: Progress) -> None:
                tell(progress._asdict())

            sums = await service.what_if.summed(asked, costs, told)
            return _result(asked, sums).model_dump(mode="json")

        return working(work, str(asked.position), seconds, service.clock)

    @router.get("/tier-rules/what-if/moves", responses=_LISTED)
    async def list_tier_moves(page: Paged, rules: Candidate, position: Position = None) -> MovesPage:
        """Who moves by a candidate for the rules of tiers, when and from where to where, in the order of the customers' ids (M07). `next`
        keeps the position of the first page, and belongs to the candidate."""
        after = of = None
        if page.after is not None:
            of, at, customer, place = cursor_values(page.after, str, int, UUID, int)
            if at < 0 or position not in {None, at} or not 0 <= place <= _PLACE_MAX:
                raise CursorInvalid
            position, after = at, (customer, place)
        asked = await service.what_if.asked(rules, position)
        if of not in {None, asked.digest}:
            raise CursorInvalid
        found = await service.what_if.moves(asked, after, page.limit)
        return MovesPage(
            items=[_move(one.customer, one.branch, one.move) for one in found.moves],
            next=None if found.after is None else cursor(asked.digest, asked.position, *found.after),
            position=asked.position,
        )

    @router.get("/customers/{customer_id}/tier/what-if", responses=_EXPLAINED)
    async def explain_tier_moves(
        customer_id: CustomerPath, rules: Candidate, position: Position = None
    ) -> CustomerTried:
        """Why a customer moves by a candidate for the rules of tiers, or does not, month by month (M07)."""
        asked = await service.what_if.asked(rules, position)
        found = await service.what_if.one(asked, customer_id)
        branch = None if found is None else branch_of(found)
        return CustomerTried(
            customer_id=customer_id,
            position=asked.position,
            candidate=_candidate_shown(asked.candidate),
            branch=branch,
            months=[]
            if found is None
            else [_month(one, service.business_date(one.at)) for one in found.months],
            moves=[] if found is None else [_move(customer_id, branch, one) for one in found.moves],
        )


def _result(asked: Asked, sums: Sums) -> WhatIfResult:
    tiers: list[Tier | None] = [None, *TIERS]
    months = sorted(sums.moves_up.keys() | sums.moves_down.keys())
    most_moved_first = sorted(
        sums.by_branch.items(), key=lambda one: (-_share(one[1]), one[0] is not None, one[0] or "")
    )
    before, after = sums.yearly_cost_minor(sums.tiers), sums.yearly_cost_minor(sums.candidate_tiers)
    return WhatIfResult(
        digest=sums.digest(),
        position=asked.position,
        candidate=_candidate_shown(asked.candidate),
        assessments=sums.assessments,
        not_comparable=sums.not_comparable,
        held=sums.held,
        whole_bank=MovedCustomers(**_counted(sums.all)),
        tiers=[
            TierCustomers(tier=one, customers=sums.tiers[one], candidate_customers=sums.candidate_tiers[one])
            for one in tiers
        ],
        months=[MovesOfMonth(month=one, up=sums.moves_up[one], down=sums.moves_down[one]) for one in months],
        yearly_cost_minor=before,
        candidate_yearly_cost_minor=after,
        branch_count=len(sums.by_branch),
        branches=[
            MovedOfBranch(branch=branch, **_counted(counts))
            for branch, counts in most_moved_first[:BRANCHES_SHOWN_MAX]
        ],
    )


def _counted(counts: Counts) -> dict[str, int]:
    return {
        "customers": counts.customers,
        "moved": counts.moved,
        "moved_hundredths": _share(counts),
        "up": counts.up,
        "down": counts.down,
        "yearly_cost_minor": counts.yearly_cost_minor,
    }


def _share(counts: Counts) -> int:
    return 10_000 * counts.moved // max(1, counts.customers)


def _candidate_shown(rules: TierRules) -> CandidateShown:
    return CandidateShown(
        version=rules.version,
        from_month=rules.from_month,
        currency=rules.currency,
        thresholds=thresholds_shown(rules),
        grace_months=rules.grace_months,
    )


def _move(customer: UUID, branch: str | None, move: Move) -> MoveShown:
    return MoveShown(
        customer_id=customer,
        branch=branch,
        month=move.since.isoformat()[:7],
        since=move.since,
        until=move.until,
        tier=move.tier,
        candidate_tier=move.candidate_tier,
    )


def _month(one: Assessed, since: date) -> MonthTried:
    return MonthTried(
        month=one.real.month,
        since=since,
        currency=one.real.currency,
        average_minor=one.real.average_minor,
        rules=one.real.rules,
        assessed=one.real.tier,
        because=one.real.because,
        tier=one.tier,
        candidate_rules=one.candidate.rules,
        candidate_assessed=one.candidate.tier,
        candidate_because=one.candidate.because,
        candidate_tier=one.candidate_tier,
    )
