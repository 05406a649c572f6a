"""`crm verify` reads every proposal: who proposed, who decided, over which digest, and what was carried out."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from chassis.proposals import FourEyes, Proposable
from chassis.proposals.approving import effect_id
from chassis.proposals.deciding import (
    ProposalApproved,
    ProposalExpired,
    ProposalMade,
    ProposalRejected,
    ProposalWithdrawn,
)
from chassis.write.deciding import Approved
from chassis.write.events import Event
from crm_cli.contexts import CONTEXTS
from crm_cli.verify_proposals import check_proposals
from crm_cli.verify_report import Report
from crm_cli.verify_store import Store
from customer.catalogue import catalogue
from customer.connections import Write
from customer.domain.commands import AssignBranch, Details, RegisterCustomer
from msgspec import structs

from .planting import CLOCK, by, new_write_side, planted, spoiled

CONTEXT = CONTEXTS["customer"]
ZHANG, PROPOSAL, OTHER = UUID(int=1), UUID(int=200), UUID(int=201)
DAY = timedelta(days=1)


@pytest.fixture
async def write(postgres_url: str, tmp_path: Path) -> AsyncIterator[Write]:
    """The write side of customer with one customer, over a database of its own."""
    async with new_write_side(postgres_url, tmp_path) as write:
        await write.handler.handle(ZHANG, RegisterCustomer(Details(name="张伟")), by())
        yield write


def problems(write: Write) -> list[str]:
    """What is wrong."""
    report = Report()
    store = Store(write.settings.postgres_url, CONTEXT, report)
    try:
        check_proposals(write.settings.postgres_url, CONTEXT, store, report)
    finally:
        store.close()
    assert report.checked["I13"]
    found: list[str] = report.as_json()["invariants"]["I13"]["problems"]
    return found


def made(lives: timedelta = DAY, on_behalf_of: str | None = None) -> ProposalMade:
    return ProposalMade(
        kind="assign",
        subject=ZHANG,
        command="k1.a.b",
        digest="d",
        proposed_by="chen",
        reason="asked for",
        expires_at=CLOCK.now() + lives,
        on_behalf_of=on_behalf_of,
    )


APPROVED = ProposalApproved("d", "chen", "wu")


async def test_proposals_that_two_persons_decided_are_green(write: Write) -> None:
    kind = Proposable(AssignBranch, frozenset({"manager"}), DAY, write.handler.handle, "assign")
    eyes = FourEyes(write.store, catalogue(), write.ring, {"assign": kind})
    for number, branch in enumerate(("7", "7", "8", "9", "10")):
        key = f"propose-{number}"
        shown = await eyes.propose("assign", ZHANG, AssignBranch(branch), by(idempotency_key=key))
        match number:
            case 0 | 1:  # the second changes nothing, so its approval stands alone
                await eyes.approve(shown.proposal_id, shown.digest, by("wu"), ["manager"])
            case 2:
                await eyes.reject(shown.proposal_id, by("wu"), ["manager"])
            case 3:
                await eyes.withdraw(shown.proposal_id, by())
            case _:
                await eyes.expire(shown.proposal_id, by(now=CLOCK.now() + 2 * DAY))
    assert problems(write) == []


@pytest.mark.parametrize(
    ("proposal", "decision", "actor", "named"),
    [
        (made(), APPROVED, "wu", None),
        (made(), APPROVED, "Chen", "is approved by who proposed it"),
        (made(), ProposalApproved("d", "chen", "chen"), "wu", "is approved by who proposed it"),
        (made(on_behalf_of="wu"), APPROVED, "wu", "is approved by who proposed it"),
        (made(), ProposalApproved("e", "chen", "wu"), "wu", "is approved with the digest of something else"),
        (made(-DAY), APPROVED, "wu", "is approved after its time was over"),
        (made(), ProposalRejected("chen"), "chen", "is rejected by who proposed it"),
        (made(), ProposalRejected("chen"), "wu", None),
        (made(), ProposalWithdrawn(), "wu", "is withdrawn by who did not propose it"),
        (made(), ProposalWithdrawn(), "chen", None),
        (made(-DAY), ProposalRejected("chen"), "wu", "is rejected after its time was over"),
        (made(-DAY), ProposalWithdrawn(), "chen", "is withdrawn after its time was over"),
        (made(), ProposalExpired(), "timer:proposal-expires", "is expired before its time was over"),
        (made(-DAY), ProposalExpired(), "timer:proposal-expires", None),
    ],
)
async def test_a_decision_that_no_second_person_made_over_the_same_digest_is_named(
    write: Write, proposal: Event, decision: Event, actor: str, named: str | None
) -> None:
    await planted(write, PROPOSAL, by(), proposal)
    await planted(write, PROPOSAL, by(actor), decision)
    found = problems(write)
    if named is None:
        assert found == []
    else:
        [problem] = found
        assert problem == f"customer: the proposal {PROPOSAL} {named}"


async def test_a_second_decision_is_named(write: Write) -> None:
    await planted(write, PROPOSAL, by(), made())
    await planted(write, PROPOSAL, by("wu"), ProposalRejected("chen"), APPROVED)
    assert problems(write) == [f"customer: the proposal {PROPOSAL} is decided more than once"]


@pytest.mark.parametrize(
    ("decisions", "names", "actor", "named"),
    [
        ((APPROVED,), PROPOSAL, "wu", None),
        ((), PROPOSAL, "wu", "is carried out, and nobody has approved it"),
        ((ProposalRejected("chen"),), PROPOSAL, "wu", "is carried out, and nobody has approved it"),
        ((APPROVED,), None, "wu", f"is carried out by an event of {ZHANG} that does not name its approval"),
        (
            (APPROVED,),
            PROPOSAL,
            "lin",
            f"is carried out by an event of {ZHANG} that does not name its approval",
        ),
    ],
)
async def test_what_is_carried_out_names_its_approval(
    write: Write, decisions: tuple[Event, ...], names: UUID | None, actor: str, named: str | None
) -> None:
    await planted(write, PROPOSAL, by(), made())
    if decisions:
        await planted(write, PROPOSAL, by("wu"), *decisions)
    context = by(actor, command_id=effect_id(PROPOSAL))
    if names is not None:
        context = structs.replace(context, approved=Approved(names, "chen"))
    await write.handler.handle(ZHANG, AssignBranch("7"), context)
    expected = [] if named is None else [f"customer: the proposal {PROPOSAL} {named}"]
    assert problems(write) == expected


@pytest.mark.parametrize(
    ("proposal", "actor", "named"),
    [
        ((made(), APPROVED), "wu", None),
        ((), "wu", "which is not there"),
        ((APPROVED,), "wu", "which is not there"),
        ((made(),), "wu", "which nobody has approved"),
        ((made(), ProposalRejected("chen")), "wu", "which nobody has approved"),
        ((made(), APPROVED), "lin", "and other persons than it"),
    ],
)
async def test_an_event_that_names_a_proposal_has_an_approved_one_behind_it(
    write: Write, proposal: tuple[Event, ...], actor: str, named: str | None
) -> None:
    """Its command is another one than that of an approval, or forgotten."""
    await planted(write, OTHER, by(), made())
    for event, who in zip(proposal, ("chen", "wu"), strict=False):
        await planted(write, PROPOSAL, by(who), event)
    context = structs.replace(by(actor), approved=Approved(PROPOSAL, "chen"))
    version = (await write.handler.handle(ZHANG, AssignBranch("7"), context)).version
    found = [one for one in problems(write) if "does not begin" not in one]
    where = f"customer: version {version} of {ZHANG} names the proposal {PROPOSAL}"
    assert found == ([] if named is None else [f"{where}, {named}"])


@pytest.mark.requirement("D05", "M04")
@pytest.mark.parametrize("body", [b"", b"{", b'{"meta":{},"data":{}}', b"\x00\xff"])
async def test_a_proposal_that_cannot_be_read_is_named_and_the_others_are_checked(
    write: Write, body: bytes
) -> None:
    await planted(write, PROPOSAL, by(), made())
    await planted(write, OTHER, by(), made())
    await planted(write, OTHER, by("chen"), ProposalRejected("chen"))
    spoiled(write.settings.postgres_url, PROPOSAL, body)
    unread, rejected = problems(write)
    assert unread.startswith(f"customer: the proposal {PROPOSAL} cannot be read: ")
    assert rejected == f"customer: the proposal {OTHER} is rejected by who proposed it"
