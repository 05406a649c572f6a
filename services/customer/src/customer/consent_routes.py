"""The routes of the consents of customers (同意)."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from chassis.web import DatedBody, Dependencies, Page, refusals, tagged
from chassis.web.formats import Day, Instant
from chassis.web.problems import RequestInvalid
from chassis.write.deciding import (
    AlreadyRecorded,
    CommandContext,
    CommandKeyReused,
    SubjectUnknown,
    TooManyConflicts,
)
from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, Field

from customer.application import CustomerService
from customer.consents import ConsentThen
from customer.domain.events import (
    ConsentChannel,
    ConsentGiven,
    ConsentPurpose,
    ConsentWithdrawn,
)
from customer.domain.refusals import ConsentTermInvalid, CustomerIsErased, CustomerNotRegistered
from customer.done import done
from customer.masking import masked_note
from customer.shapes import AtInstant, BusinessDate, Done, KnownAt, Note, require_past

EVIDENCE: Final = ["柜台签署授权书，编号 S-0042"]


class ConsentBody(DatedBody):
    """One channel and one purpose; none is a default. `effective_at`: when the customer said so."""

    channel: ConsentChannel = Field(examples=["sms"])
    purpose: ConsentPurpose = Field(examples=["marketing"])


class GiveConsentBody(ConsentBody):
    """To what the customer consents, what shows it, and the business date before which it is valid."""

    evidence: Note = Field(examples=EVIDENCE)
    valid_until: BusinessDate | None = None


class WithdrawConsentBody(ConsentBody):
    """To what the customer does not consent, or no longer."""

    evidence: Note | None = Field(default=None, examples=["短信回复 TD"])


class ConsentShown(BaseModel):
    """What stood of a channel and purpose. `valid`: a consent that had not ended. `state`: what the last change said; `unknown` is refusal.
    `sequence`: the event of the customer that says it, which was recorded by `actor`. Numbers and e-mail addresses in
    `evidence` are masked."""

    channel: ConsentChannel = Field(examples=["sms"])
    purpose: ConsentPurpose = Field(examples=["marketing"])
    valid: bool
    state: Literal["given", "withdrawn", "erased", "unknown"] = Field(examples=["given"])
    since: Instant | None
    valid_until: Day | None
    recorded_at: Instant | None
    evidence: str | None = Field(examples=EVIDENCE)
    actor: str | None
    sequence: int | None


class ConsentsPage(Page[ConsentShown]):
    """What stood of each channel and purpose at the instant `at`, of what was recorded up to `known_at`; they fit into one page."""

    at: datetime
    known_at: datetime


CustomerPath = Annotated[UUID, Path(description="the customer")]
_CHANGED: Final[dict[int | str, dict[str, Any]]] = {
    **tagged("customer"),
    **refusals(CustomerNotRegistered),
    **refusals(CustomerIsErased, AlreadyRecorded, TooManyConflicts),
    **refusals(CommandKeyReused),
}
_GIVEN: Final = {**_CHANGED, **refusals(CommandKeyReused, ConsentTermInvalid)}


def add_consents(router: APIRouter, service: CustomerService, dependencies: Dependencies) -> None:
    """Adds the routes of the consents of customers."""
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]

    @router.post("/customers/{customer_id}/consents", responses=_GIVEN)
    async def give_consent(
        response: Response, context: Commanding, customer_id: CustomerPath, body: GiveConsentBody
    ) -> Done:
        """The customer consents to be reached over a channel for a purpose. A withdrawal that is effective at that time or later stands."""
        pair = (body.channel, body.purpose)
        given = service.consents.give(customer_id, pair, body.evidence, body.valid_until, context)
        return done(response, await given)

    @router.post("/customers/{customer_id}/consents/withdraw", responses=_CHANGED)
    async def withdraw_consent(
        response: Response, context: Commanding, customer_id: CustomerPath, body: WithdrawConsentBody
    ) -> Done:
        """The customer refuses a channel for a purpose, or withdraws what was given. A consent that is effective later stands."""
        pair = (body.channel, body.purpose)
        return done(response, await service.consents.withdraw(customer_id, pair, body.evidence, context))

    @router.get(
        "/customers/{customer_id}/consents",
        responses=refusals(CustomerNotRegistered, SubjectUnknown, RequestInvalid),
    )
    async def list_consents(
        customer_id: CustomerPath,
        at: AtInstant = None,
        known_at: KnownAt = None,
    ) -> ConsentsPage:
        """What the customer consented to at an instant, as it was known at another: the proof that a message had a valid consent (M36).

        The clock of the caller may be 60 seconds ahead: the answer is then for now, which it names."""
        now = service.clock.now()
        require_past(now, at, known_at)
        found = await service.consents.then(customer_id, at, known_at, now)
        items = [_shown(one) for one in found.consents]
        return ConsentsPage(items=items, next=None, at=found.at, known_at=found.known_at)


def _shown(one: ConsentThen) -> ConsentShown:
    channel, purpose = one.pair
    change, recorded = one.change, one.recorded
    return ConsentShown(
        channel=channel,
        purpose=purpose,
        valid=one.valid,
        state=_state(one),
        since=None if change is None else change.at.isoformat(),
        valid_until=None if change is None or change.valid_until is None else change.valid_until.isoformat(),
        recorded_at=None if change is None else change.recorded_at.isoformat(),
        evidence=masked_note(_evidence(one)),
        actor=None if recorded is None else recorded.metadata.actor,
        sequence=None if change is None else change.sequence,
    )


def _state(one: ConsentThen) -> Literal["given", "withdrawn", "erased", "unknown"]:
    match one.recorded and one.recorded.event:
        case None:
            return "unknown"
        case ConsentGiven():
            return "given"
        case ConsentWithdrawn():
            return "withdrawn"
        case _:
            return "erased"


def _evidence(one: ConsentThen) -> str | None:
    event = one.recorded and one.recorded.event
    return event.evidence if isinstance(event, ConsentGiven | ConsentWithdrawn) else None
