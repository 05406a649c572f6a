"""A proposal: made by one person, then approved, rejected, withdrawn or expired, once. Pure; no I/O.

Its events are not published. The store is the audit log.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Final, Literal, assert_never
from uuid import UUID

import msgspec

from chassis.proposals.persons import persons
from chassis.write.deciding import Decider, Refusal
from chassis.write.events import Event

Status = Literal["none", "waiting", "approved", "rejected", "withdrawn", "expired"]


class ProposalMade(Event, frozen=True):
    """Somebody proposes a command to `subject`.

    `command` is its canonical JSON, sealed under the key of `subject` for the purpose of its kind. `digest` names exactly this
    command with its reason; it is keyed with the same key, so it says nothing after an erasure.
    """

    sealed_under: ClassVar[str] = "subject"

    kind: str
    subject: UUID
    command: str
    digest: str
    proposed_by: str
    reason: str
    expires_at: datetime
    on_behalf_of: str | None = None
    effective_at: datetime | None = None


class ProposalApproved(Event, frozen=True):
    """A second person approved it. The effect was stored in the same transaction."""

    digest: str
    proposed_by: str
    approved_by: str


class ProposalRejected(Event, frozen=True):
    """A second person refused it."""

    proposed_by: str


class ProposalWithdrawn(Event, frozen=True):
    """Who proposed it wants it no more."""


class ProposalExpired(Event, frozen=True):
    """Nobody decided in time."""


ProposalEvent = ProposalMade | ProposalApproved | ProposalRejected | ProposalWithdrawn | ProposalExpired

MADE: Final = "proposal-made"
PROPOSALS: Final[dict[str, type[Event]]] = {
    MADE: ProposalMade,
    "proposal-approved": ProposalApproved,
    "proposal-rejected": ProposalRejected,
    "proposal-withdrawn": ProposalWithdrawn,
    "proposal-expired": ProposalExpired,
}
"""Their stored names, for the catalogue of a context."""


class Propose(msgspec.Struct, frozen=True):
    """Proposes; the event holds all of it."""

    made: ProposalMade


class Approve(msgspec.Struct, frozen=True):
    """Approves what `digest` names. `on_behalf_of` is for whom `actor` acts."""

    digest: str
    actor: str
    on_behalf_of: str | None
    now: datetime


class Reject(msgspec.Struct, frozen=True):
    """Refuses the proposal of another person."""

    actor: str
    on_behalf_of: str | None
    now: datetime


class Withdraw(msgspec.Struct, frozen=True):
    """Takes the own proposal back."""

    actor: str
    on_behalf_of: str | None
    now: datetime


class Expire(msgspec.Struct, frozen=True):
    """Ends the waiting of a proposal whose time is over."""

    now: datetime


ProposalCommand = Propose | Approve | Reject | Withdraw | Expire


class Proposal(msgspec.Struct, frozen=True):
    """The state of a proposal."""

    status: Status = "none"
    made: ProposalMade | None = None
    approved_by: str | None = None


class ProposalUnknown(Refusal):
    """There is no proposal of that id."""

    code: ClassVar[str] = "proposal-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such proposal"
    title_zh: ClassVar[str] = "没有该提议"


class ProposalSettled(Refusal):
    """The proposal no longer waits; the text says what became of it."""

    code: ClassVar[str] = "proposal-settled"
    title: ClassVar[str] = "The proposal no longer waits for a decision"
    title_zh: ClassVar[str] = "该提议已有结论"


class ProposalHasExpired(Refusal):
    """The time in which the proposal could be decided is over."""

    code: ClassVar[str] = "proposal-expired"
    title: ClassVar[str] = "The proposal has expired"
    title_zh: ClassVar[str] = "该提议已过期"


class ProposalStillWaits(Refusal):
    """The proposal expires later."""

    code: ClassVar[str] = "proposal-still-waits"
    title: ClassVar[str] = "The proposal has not expired yet"
    title_zh: ClassVar[str] = "该提议尚未过期"


class DigestDiffers(Refusal):
    """The digest names another command than the proposed one."""

    code: ClassVar[str] = "digest-differs"
    title: ClassVar[str] = "What was proposed is something else"
    title_zh: ClassVar[str] = "批准内容与提议内容不一致"


class SecondPersonNeeded(Refusal):
    """Who proposed, or for whom it was proposed, does not decide on it."""

    code: ClassVar[str] = "second-person-needed"
    status: ClassVar[int] = 403
    title: ClassVar[str] = "Another person must decide on this proposal"
    title_zh: ClassVar[str] = "须由另一人员对该提议作出决定"


class ProposerNeeded(Refusal):
    """Only who proposed can withdraw."""

    code: ClassVar[str] = "proposer-needed"
    status: ClassVar[int] = 403
    title: ClassVar[str] = "Only the proposer can withdraw a proposal"
    title_zh: ClassVar[str] = "仅提议人可撤回提议"


class ApprovalForbidden(Refusal):
    """None of the caller's roles may decide on proposals of this kind."""

    code: ClassVar[str] = "approval-forbidden"
    status: ClassVar[int] = 403
    title: ClassVar[str] = "You may not decide on proposals of this kind"
    title_zh: ClassVar[str] = "您无权对此类提议作出决定"


def decide(command: ProposalCommand, proposal: Proposal) -> Sequence[ProposalEvent]:
    """The events of a command; raises the refusals above."""
    match command:
        case Propose(made):
            if proposal.made is not None:
                raise ProposalSettled("it was made before")
            return [made]
        case Approve(digest, actor, on_behalf_of, now):
            made = _waiting(proposal, now)
            require_second_person((made.proposed_by, made.on_behalf_of), (actor, on_behalf_of))
            if digest != made.digest:
                raise DigestDiffers
            return [ProposalApproved(digest, made.proposed_by, actor)]
        case Reject(actor, on_behalf_of, now):
            made = _waiting(proposal, now)
            require_second_person((made.proposed_by, made.on_behalf_of), (actor, on_behalf_of))
            return [ProposalRejected(made.proposed_by)]
        case Withdraw(actor, on_behalf_of, now):
            made = _waiting(proposal, now)
            if persons(made.proposed_by, made.on_behalf_of).isdisjoint(persons(actor, on_behalf_of)):
                raise ProposerNeeded
            return [ProposalWithdrawn()]
        case Expire(now):
            if proposal.made is None:
                raise ProposalUnknown
            if proposal.status != "waiting":
                return []
            if now < proposal.made.expires_at:
                raise ProposalStillWaits
            return [ProposalExpired()]
        case _:
            assert_never(command)


def evolve(proposal: Proposal, event: ProposalEvent) -> Proposal:
    """The proposal after an event."""
    match event:
        case ProposalMade():
            return Proposal("waiting", event)
        case ProposalApproved():
            return Proposal("approved", proposal.made, event.approved_by)
        case ProposalRejected():
            return Proposal("rejected", proposal.made)
        case ProposalWithdrawn():
            return Proposal("withdrawn", proposal.made)
        case ProposalExpired():
            return Proposal("expired", proposal.made)
        case _:
            assert_never(event)


def require_second_person(proposed: tuple[str, str | None], decides: tuple[str, str | None]) -> None:
    """Raises SecondPersonNeeded where a person behind the one act, actor or on whose behalf, is behind the other."""
    if persons(*proposed) & persons(*decides):
        raise SecondPersonNeeded


def _waiting(proposal: Proposal, now: datetime) -> ProposalMade:
    if proposal.made is None:
        raise ProposalUnknown
    if proposal.status != "waiting":
        raise ProposalSettled(
            f"it was {proposal.status}" if proposal.status != "expired" else "it has expired"
        )
    if now >= proposal.made.expires_at:
        raise ProposalHasExpired
    return proposal.made


PROPOSAL: Final = Decider[ProposalCommand, Proposal, ProposalEvent](
    initial=Proposal(), decide=decide, evolve=evolve, events=ProposalEvent
)
