"""Bulk runs that two persons start: what is approved is what was previewed, once, by another person who may."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from chassis.bulk import (
    Approval,
    BulkDiffers,
    BulkNeedsApproval,
    BulkNotReady,
    BulkUnknown,
    StartRun,
    propose_start,
)
from chassis.privacy.keys import KeyRing
from chassis.proposals import (
    ApprovalForbidden,
    Carried,
    DigestDiffers,
    ProposalHasExpired,
    ProposalSettled,
    ProposalShown,
    SecondPersonNeeded,
)
from chassis.write.deciding import CommandContext, CommandKeyReused, Refusal
from chassis.write.store import EventStore
from msgspec import structs

from tests.support.jars import FillJar, jar

from .test_bulk import CATALOGUE, NOW, Crash, Fill, Side, by, other, several

__all__ = ["other"]

CHIEF = frozenset({"chief"})
LIVES = timedelta(days=2)
TWO_PERSONS = Approval(2, CHIEF, LIVES, "Fill many jars")
MANY = ["a", "b", "c"]


@pytest.fixture
def side(store: EventStore, key_ring: KeyRing) -> Side:
    return Side(store, key_ring, approval=TWO_PERSONS)


def boris(key: str = "approve", **changes: Any) -> CommandContext:
    return by(key, **{"actor": "boris", "reason": "seen", **changes})


async def proposed(side: Side, run: UUID, key: str = "propose") -> ProposalShown:
    return await propose_start(side.bulk, side.eyes, run, by(key))


async def many(side: Side) -> tuple[UUID, ProposalShown]:
    """A run of more items than one person may start, and the proposal of its start."""
    await side.open(*MANY)
    run = await side.prepared(MANY)
    return run, await proposed(side, run)


async def approved(side: Side, shown: ProposalShown, context: CommandContext | None = None) -> Carried:
    return await side.eyes.approve(shown.proposal_id, shown.digest, context or boris(), CHIEF)


async def names(side: Side, run: UUID) -> list[str]:
    return [one.name for one in await side.store.read_stream(run)]


@pytest.mark.requirement("M33", "R091")
async def test_a_run_above_the_size_starts_when_another_person_approves_it_and_both_are_in_every_event(
    side: Side,
) -> None:
    run, shown = await many(side)
    assert (await side.bulk.shown(run)).needs_approval
    with pytest.raises(BulkNeedsApproval):
        await side.bulk.start(run, by("start"))
    assert shown.command is not None
    assert (shown.command["run"]["items"], shown.command["preview"]["changed"]) == (3, 3)
    await approved(side, shown)
    after = await side.bulk.shown(run)
    assert (after.status, after.needs_approval) == ("running", False)
    assert await side.bulk.run(run) == "finished"
    for stream in (run, *map(jar, MANY)):
        meta = CATALOGUE.metadata_of([one for one in await side.store.read_stream(stream) if _done(one)][-1])
        assert (meta.actor, meta.proposed_by, meta.proposal_id) == ("boris", "anna", shown.proposal_id)
        assert (meta.reason, meta.privilege) == ("moved", "high")


def _done(stored: Any) -> bool:
    return stored.name in {"bulk-started", "jar-filled"}


@pytest.mark.requirement("M33", "R091")
async def test_who_prepared_a_run_does_not_approve_it_where_another_person_proposed_it(side: Side) -> None:
    await side.open(*MANY)
    run = await side.prepared(MANY)
    shown = await propose_start(side.bulk, side.eyes, run, boris("propose"))
    for context in (by("own", reason="seen"), by("for", actor="carla", on_behalf_of="Anna", reason="seen")):
        with pytest.raises(SecondPersonNeeded):
            await approved(side, shown, context)
    assert (await side.bulk.shown(run)).status == "ready"
    await approved(side, shown, by("other", actor="carla", reason="seen"))
    assert (await side.bulk.shown(run)).status == "running"


async def test_one_person_starts_a_run_of_the_size_and_nothing_is_proposed_of_it(side: Side) -> None:
    await side.open("a", "b")
    run = await side.prepared(["a", "b"])
    with pytest.raises(BulkNotReady, match="one person"):
        await proposed(side, run)
    await side.bulk.start(run, by("start"))
    with pytest.raises(BulkNotReady, match="running"):
        await proposed(side, run, "later")
    with pytest.raises(BulkUnknown):
        await proposed(side, jar("no run"), "unknown")


async def test_each_run_of_a_privileged_command_takes_two_persons(
    store: EventStore, key_ring: KeyRing
) -> None:
    side = Side(store, key_ring, approval=Approval(0, CHIEF, LIVES, "Fill a jar"))
    await side.open("a")
    run = await side.prepared(["a"])
    with pytest.raises(BulkNeedsApproval):
        await side.bulk.start(run, by("start"))
    await approved(side, await proposed(side, run))
    assert await side.bulk.run(run) == "finished"


@pytest.mark.parametrize("spelling", ["anna", "ANNA", " Ａnna ", "an\u200bna"])
async def test_who_proposed_does_not_approve_under_any_spelling(side: Side, spelling: str) -> None:
    run, shown = await many(side)
    for context in (boris(actor=spelling), boris(on_behalf_of=spelling)):
        with pytest.raises(SecondPersonNeeded):
            await approved(side, shown, context)
    assert (await side.bulk.shown(run)).status == "ready"


async def test_two_approvals_at_once_start_the_run_once(side: Side, other: Side) -> None:
    run, shown = await many(side)
    theirs = Side(other.store, side.jars.keys, approval=TWO_PERSONS)
    ended = await asyncio.gather(
        approved(side, shown), approved(theirs, shown, boris(actor="chen")), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in ended) == ["Carried", "ProposalSettled"]
    assert (await names(side, run)).count("bulk-started") == 1


async def test_two_proposals_of_one_run_start_it_once(side: Side) -> None:
    run, first = await many(side)
    second = await proposed(side, run, "propose again")
    await approved(side, first)
    with pytest.raises(BulkNotReady):
        await approved(side, second, boris("second"))
    assert (await side.eyes.shown(second.proposal_id)).status == "waiting", "nothing was stored of it"
    await side.bulk.pause(run, by("pause"))
    with pytest.raises(BulkNotReady):
        await approved(side, second, boris("third"))
    assert (await side.bulk.start(run, by("resume"))).status == "running", "one person resumes"


async def test_an_approval_that_comes_again_has_the_answer_of_the_first_time(side: Side) -> None:
    run, shown = await many(side)
    first = await approved(side, shown)
    assert await side.bulk.run(run) == "finished"
    again = await approved(side, shown)
    assert (again.subject, again.version) == (first.subject, first.version) == (run, first.version)
    assert (await names(side, run)).count("bulk-started") == 1
    with pytest.raises(ProposalSettled):
        await approved(side, shown, boris("late", actor="chen"))


async def test_a_proposal_that_comes_again_is_the_first_one_also_when_its_items_have_changed(
    side: Side,
) -> None:
    run, shown = await many(side)
    await side.jars.handle(jar("a"), FillJar(-20), by("since", reason=None))
    assert await proposed(side, run) == shown
    await approved(side, shown)
    assert (await proposed(side, run)).status == "approved"
    with pytest.raises(CommandKeyReused):
        await propose_start(side.bulk, side.eyes, run, by("propose", reason="another"))
    await side.bulk.pause(run, by("pause"))
    with pytest.raises(CommandKeyReused):
        await propose_start(side.bulk, side.eyes, run, by("pause"))


async def test_nobody_approves_late_without_the_right_or_something_else(side: Side) -> None:
    run, shown = await many(side)
    other_run = await proposed(side, await side.prepared([*MANY, "a"], key="other"), "other proposal")
    expected: list[tuple[type[Refusal], str, frozenset[str], CommandContext]] = [
        (ApprovalForbidden, shown.digest, frozenset({"clerk"}), boris()),
        (ApprovalForbidden, shown.digest, frozenset(), boris()),
        (DigestDiffers, other_run.digest, CHIEF, boris()),
        (ProposalHasExpired, shown.digest, CHIEF, boris(now=NOW + LIVES)),
    ]
    for refusal, digest, roles, context in expected:
        with pytest.raises(refusal):
            await side.eyes.approve(shown.proposal_id, digest, context, roles)
    assert (await names(side, run))[-1] == "bulk-ready"
    await approved(side, shown, boris(now=NOW + LIVES - timedelta(seconds=1)))


async def test_what_was_listed_is_done_whoever_meets_the_condition_since(side: Side) -> None:
    """The list was made before the proposal; what its source gives later does not count."""
    run, shown = await many(side)
    await side.open("d")
    again = await side.bulk.prepare("fill", Fill(3), several([*MANY, "d"]), by("run"))
    assert (again.run_id, again.items) == (run, 3)
    await approved(side, shown)
    assert await side.bulk.run(run) == "finished"
    assert await side.amounts(*MANY, "d") == [3, 3, 3, 0]


async def test_a_run_that_does_something_else_than_was_proposed_is_not_started(side: Side) -> None:
    """Its list names the same number of items, and others."""
    run, _ = await many(side)
    contents = await side.bulk.contents(run)
    others = await side.bulk.contents(await side.prepared(["a", "b", "b"], key="other"))
    assert others.items_digest != contents.items_digest
    changed = structs.replace(contents, items_digest=others.items_digest)
    altered = StartRun(changed, await side.bulk.preview(run))
    shown = await side.eyes.propose("start-fill", run, altered, by("altered"))
    with pytest.raises(BulkDiffers):
        await approved(side, shown)
    assert (await side.bulk.shown(run)).status == "ready"


@pytest.mark.parametrize("point", ["before-append", "after-append"])
async def test_no_crash_leaves_an_approval_without_the_start(
    side: Side, store: EventStore, key_ring: KeyRing, point: str
) -> None:
    """The runner of another process goes on with it."""
    run, shown = await many(side)

    def reached(name: str) -> None:
        if name == point:
            raise Crash

    dying = Side(store, key_ring, reached, approval=TWO_PERSONS)
    with pytest.raises(Crash):
        await approved(dying, shown)
    done = point == "after-append"
    assert ((await side.eyes.shown(shown.proposal_id)).status == "approved") == done
    assert (run in await side.bulk.started()) == done
    await approved(side, shown)
    assert await side.bulk.run(run) == "finished"
    assert await side.amounts(*MANY) == [3, 3, 3]


async def test_the_undo_of_many_takes_two_persons_too(side: Side) -> None:
    run, shown = await many(side)
    await approved(side, shown)
    await side.bulk.run(run)
    undo = (await side.bulk.prepare_undo(run, by("undo"))).run_id
    with pytest.raises(BulkNeedsApproval):
        await side.bulk.start(undo, by("start undo"))
    await approved(side, await proposed(side, undo, "propose undo"), boris("approve undo"))
    assert await side.bulk.run(undo) == "finished"
    assert await side.amounts(*MANY) == [0, 0, 0]


async def test_a_run_whose_kind_takes_one_person_now_is_refused_and_is_prepared_anew(
    side: Side, store: EventStore, key_ring: KeyRing
) -> None:
    await side.open(*MANY)
    run = await side.prepared(MANY)
    relaxed = Side(store, key_ring)
    with pytest.raises(BulkNotReady, match="prepared anew"):
        await proposed(relaxed, run)
    with pytest.raises(BulkNeedsApproval):
        await relaxed.bulk.start(run, by("start"))
    await relaxed.bulk.start(await relaxed.prepared(MANY, key="anew"), by("start anew"))


async def test_a_list_that_is_not_complete_is_not_proposed(side: Side) -> None:
    async def cut_off() -> Any:
        yield jar("a")
        raise Crash

    with pytest.raises(Crash):
        await side.bulk.prepare("fill", Fill(3), cut_off(), by("run"))
    run = [one for one in await side.store.read_after(0) if one.name == "bulk-opened"][-1].stream_id
    with pytest.raises(BulkNotReady, match="listing"):
        await proposed(side, run)
