"""`crm verify` compares the results of bulk runs with the streams of their items, and their starts with their approvals."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pytest
from chassis.bulk import Bulk, Bulkable, listed
from chassis.bulk.deciding import BulkAdvanced, BulkFinished, BulkListed, BulkOpened, BulkReady, BulkStarted
from chassis.proposals.deciding import ProposalApproved, ProposalMade, ProposalRejected
from chassis.write.deciding import Approved
from chassis.write.events import Event
from crm_cli.contexts import CONTEXTS
from crm_cli.verify_bulk import check_bulk
from crm_cli.verify_report import Report
from crm_cli.verify_store import Store
from customer.catalogue import catalogue
from customer.connections import Write
from customer.domain.commands import AssignBranch, Details, RegisterCustomer
from msgspec import structs

from .planting import CLOCK, by, new_write_side, planted, spoiled

CONTEXT = CONTEXTS["customer"]
ZHANG, LI, NOBODY = UUID(int=1), UUID(int=2), UUID(int=3)
RUN = UUID(int=100)
PROPOSAL = UUID(int=200)


@pytest.fixture
async def write(postgres_url: str, tmp_path: Path) -> AsyncIterator[Write]:
    """The write side of customer with two customers, over a database of its own."""
    async with new_write_side(postgres_url, tmp_path) as write:
        for customer in (ZHANG, LI):
            await write.handler.handle(customer, RegisterCustomer(Details(name="张伟")), by())
        yield write


def problems(write: Write) -> dict[str, list[str]]:
    """What is wrong, by invariant."""
    report = Report()
    store = Store(write.settings.postgres_url, CONTEXT, report)
    try:
        check_bulk(write.settings.postgres_url, CONTEXT, store, report)
    finally:
        store.close()
    found = report.as_json()["invariants"]
    assert report.checked["I12"]
    return {name: one["problems"] for name, one in found.items() if one["problems"]}


def opened(alone_items_max: int | None = None) -> BulkOpened:
    return BulkOpened("assign-branch", "{}", UUID(int=9), alone_items_max=alone_items_max)


def ready(*subjects: UUID, alone_items_max: int | None = None) -> tuple[Event, ...]:
    return opened(alone_items_max), BulkListed(subjects), BulkReady(len(subjects))


def started() -> BulkStarted:
    return BulkStarted(CLOCK.now())


def advanced(*results: int, first: int = 0, refusals: tuple[str, ...] = ()) -> BulkAdvanced:
    return BulkAdvanced(first, results, refusals, CLOCK.now())


async def given(write: Write, customer: UUID) -> int:
    """The version of a customer after the command of the run."""
    command = by(command_id=uuid5(RUN, str(customer)))
    return (await write.handler.handle(customer, AssignBranch("9"), command)).version


async def test_a_run_whose_results_are_in_the_streams_is_green(write: Write) -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError("nothing is previewed")

    kinds = {"assign-branch": Bulkable(AssignBranch, write.handler.handle, never, write.handler.read)}
    bulk = Bulk(write.store, catalogue(), write.ring, kinds, CLOCK, items_at_once=2)
    for number, branch in enumerate(("7", "7", "8")):
        items = listed([ZHANG, NOBODY, LI, ZHANG])
        made = await bulk.prepare(
            "assign-branch", AssignBranch(branch), items, by(idempotency_key=f"{number}")
        )
        await bulk.start(made.run_id, by())
        assert await bulk.run(made.run_id) == "finished"
        shown = await bulk.shown(made.run_id)
        assert (shown.refused, shown.done) == (1, 0 if number == 1 else 3)
    assert problems(write) == {}


@pytest.mark.parametrize(
    ("results", "refusals", "named"),
    [
        ((5, 2), (), f"item 0, {ZHANG}: it says version 5, its stream version 2"),
        ((0, 2), (), f"item 0, {ZHANG}: it says version 0, its stream version 2"),
        ((-1, 2), ("no",), f"item 0, {ZHANG}: it says version 0, its stream version 2"),
        ((2, 1), (), f"item 1, {LI}: it says version 1, its stream version 2"),
    ],
)
async def test_a_result_that_the_stream_of_its_item_contradicts_is_named(
    write: Write, results: tuple[int, ...], refusals: tuple[str, ...], named: str
) -> None:
    assert [await given(write, customer) for customer in (ZHANG, LI)] == [2, 2]
    await planted(write, RUN, by(), *ready(ZHANG, LI), started(), advanced(*results, refusals=refusals))
    [problem] = problems(write).pop("I12")
    assert named in problem
    assert str(RUN) in problem


async def test_a_result_of_what_another_run_did_is_named(write: Write) -> None:
    await write.handler.handle(ZHANG, AssignBranch("9"), by())
    await planted(write, RUN, by(), *ready(ZHANG), started(), advanced(2))
    [problem] = problems(write)["I12"]
    assert f"item 0, {ZHANG}: it says version 2, its stream version 0" in problem


@pytest.mark.parametrize(
    ("events", "named"),
    [
        ((BulkReady(2),), "items of its list: expected 1, found 2"),
        ((BulkReady(1), BulkFinished(0, 2, 0)), "items, done, unchanged, refused"),
        ((BulkReady(1), advanced(0, first=1)), "next item: expected 0, found 1"),
        ((BulkReady(1), advanced(0, 0)), "it has results behind its 1 items"),
    ],
)
async def test_a_run_that_contradicts_itself_is_named(
    write: Write, events: tuple[Event, ...], named: str
) -> None:
    await planted(write, RUN, by(), opened(), BulkListed((ZHANG,)), *events)
    assert named in problems(write)["I12"][0]


def proposed(subject: UUID = RUN) -> ProposalMade:
    return ProposalMade(
        kind="start-assign-branch",
        subject=subject,
        command="k1.a.b",
        digest="d",
        proposed_by="chen",
        reason="asked for",
        expires_at=CLOCK.now(),
    )


@pytest.mark.parametrize(
    ("proposal", "prepares", "named"),
    [
        ((proposed(), ProposalApproved("d", "chen", "wu")), "lin", None),
        ((proposed(), ProposalRejected("chen")), "lin", "which is no approved proposal of it"),
        ((proposed(),), "lin", "which is no approved proposal of it"),
        ((), "lin", "which is no approved proposal of it"),
        (
            (proposed(ZHANG), ProposalApproved("d", "chen", "wu")),
            "lin",
            "which is no approved proposal of it",
        ),
        ((proposed(), ProposalApproved("d", "chen", "wu")), "WU", "who prepared it has approved its start"),
    ],
)
async def test_a_start_that_needs_an_approval_has_that_of_a_second_person(
    write: Write, proposal: tuple[Event, ...], prepares: str, named: str | None
) -> None:
    if proposal:
        await planted(write, PROPOSAL, by(), *proposal)
    await planted(write, RUN, by(prepares), *ready(ZHANG, LI, alone_items_max=1))
    approved = structs.replace(by("wu"), approved=Approved(PROPOSAL, "chen"))
    await planted(write, RUN, approved, started(), advanced(0, 0))
    found = problems(write)
    if named is None:
        assert found == {}
    else:
        [problem] = found["I13"]
        assert named in problem


async def test_a_start_without_the_approval_that_it_needs_is_named(write: Write) -> None:
    await planted(write, RUN, by(), *ready(ZHANG, LI, alone_items_max=1), started())
    alone = UUID(int=101)
    await planted(write, alone, by(), *ready(ZHANG, alone_items_max=1), started())
    [problem] = problems(write)["I13"]
    assert f"{RUN}: it was started without the approval that it needs" in problem


@pytest.mark.requirement("D05", "M04")
@pytest.mark.parametrize("body", [b"", b"{", b'{"meta":{},"data":{}}'])
async def test_a_run_that_cannot_be_read_is_named_and_the_others_are_checked(
    write: Write, body: bytes
) -> None:
    other = UUID(int=101)
    await planted(write, RUN, by(), *ready(ZHANG))
    await planted(write, other, by(), *ready(ZHANG), started(), advanced(2))
    spoiled(write.settings.postgres_url, RUN, body)
    unread, contradicted = problems(write)["I12"]
    assert unread.startswith(f"customer: the bulk run {RUN} cannot be read: ")
    assert str(other) in contradicted
