"""Four eyes over a real store: who may approve, what is approved, two at once, and what is left after a crash."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID, uuid5

import msgspec
import pytest
from chassis.privacy.keys import KeyRing
from chassis.privacy.personal import personal
from chassis.proposals import (
    PROPOSALS,
    ApprovalForbidden,
    DigestDiffers,
    FourEyes,
    Proposable,
    ProposalHasExpired,
    ProposalSettled,
    ProposalShown,
    ProposalUnknown,
    ProposerNeeded,
    SecondPersonNeeded,
)
from chassis.proposals.approving import ReasonMissing, SubjectErased
from chassis.proposals.deciding import ProposalStillWaits
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, CommandKeyReused, Outcome
from chassis.write.events import Event
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

from tests.support.jars import (
    JAR,
    NAMESPACE,
    NOW,
    EmptyJar,
    FillJar,
    Jar,
    JarCommand,
    JarEmptied,
    JarEvent,
    JarFilled,
    JarNotOpened,
    JarOpened,
    OpenJar,
    jar,
)


class JarCalled(Event, frozen=True):
    """Somebody called."""

    phone: Annotated[str, personal("C2", purpose="contact")]


CHIEF = frozenset({"chief"})
LIVES = timedelta(days=2)
A = jar("a")
CATALOGUE = Catalogue(
    store="jars",
    entries={
        "jar-opened": JarOpened,
        "jar-filled": JarFilled,
        "jar-emptied": JarEmptied,
        "jar-called": JarCalled,
        **PROPOSALS,
    },
)


class Fill(msgspec.Struct, frozen=True):
    """Fills a jar; `note` stands for what a person typed."""

    amount: int
    note: str = ""


class Called(msgspec.Struct, frozen=True):
    """A call to whoever owns a jar."""

    phone: str


class Side:
    """One process: its store, its handler and its proposals."""

    def __init__(self, store: EventStore, ring: KeyRing, reached: Any = lambda _: None) -> None:
        self.store = store
        self.jars = CommandHandler[JarCommand, Jar, JarEvent](JAR, store, CATALOGUE, ring, reached=reached)
        self.notes: list[str] = []
        fill = Proposable(Fill, CHIEF, LIVES, self._fill, "Fill a jar")
        call = Proposable(Called, CHIEF, LIVES, self._fill, "Call an owner", purpose="contact")
        self.eyes = FourEyes(store, CATALOGUE, ring, {"fill": fill, "call": call})

    async def _fill(self, subject: UUID, command: Fill, context: CommandContext) -> Outcome[JarEvent]:
        self.notes.append(command.note)
        fill = FillJar(command.amount) if command.amount else EmptyJar()
        return await self.jars.handle(subject, fill, context)

    async def open(self) -> None:
        await self.jars.handle(A, OpenJar("Li Wei"), by("lin", "open"))

    async def propose(self, key: str = "p", actor: str = "anna", amount: int = 3) -> ProposalShown:
        return await self.eyes.propose("fill", A, Fill(amount), by(actor, key))

    async def amount(self) -> int:
        self.jars.forget(A)
        return (await self.jars.load(A)).state.amount


def by(actor: str, key: str = "a", **changes: Any) -> CommandContext:
    said = CommandContext(
        actor=actor,
        now=NOW,
        command_id=uuid5(NAMESPACE, f"{actor}|{key}"),
        idempotency_key=key,
        reason="it is right",
    )
    return msgspec.structs.replace(said, **changes)


@pytest.fixture
async def side(store: EventStore, key_ring: KeyRing) -> Side:
    made = Side(store, key_ring)
    await made.open()
    return made


@pytest.fixture
async def other(postgres_url: str, schema: str, key_ring: KeyRing) -> AsyncIterator[Side]:
    store = EventStore(postgres_url, schema)
    yield Side(store, key_ring)
    await store.close()


@pytest.mark.requirement("R091")
async def test_an_approval_and_its_effect_are_stored_together_with_both_persons(side: Side) -> None:
    proposed = await side.propose()
    assert (proposed.status, proposed.command, proposed.proposed_by) == (
        "waiting",
        {"amount": 3, "note": ""},
        "anna",
    )
    assert await side.amount() == 0
    before = await side.store.head_position()
    carried = await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris"), CHIEF)
    filled, approved = await side.store.read_after(before)
    assert (filled.name, approved.name) == ("jar-filled", "proposal-approved")
    assert (carried.subject, carried.version, carried.position) == (A, 2, filled.position)
    meta = CATALOGUE.metadata_of(filled)
    assert (meta.actor, meta.proposed_by, meta.proposal_id) == ("boris", "anna", proposed.proposal_id)
    assert (meta.privilege, meta.reason) == ("high", "it is right")
    shown = await side.eyes.shown(proposed.proposal_id)
    assert (shown.status, shown.approved_by) == ("approved", "boris")


@pytest.mark.parametrize(
    "spelt",
    ["anna", "ANNA", " anna ", "ａｎｎａ", "an\u200bna", "an na\u00a0", "anna\ufe0f", "an\u034fna\u3164"],
)
async def test_the_proposer_in_no_spelling_is_a_second_person(side: Side, spelt: str) -> None:
    proposed = await side.propose()
    for context in (by(spelt), by("boris", on_behalf_of=spelt)):
        with pytest.raises(SecondPersonNeeded):
            await side.eyes.approve(proposed.proposal_id, proposed.digest, context, CHIEF)
        with pytest.raises(SecondPersonNeeded):
            await side.eyes.reject(proposed.proposal_id, context, CHIEF)
    assert await side.amount() == 0


async def test_for_whom_it_was_proposed_is_no_second_person(side: Side) -> None:
    proposed = await side.eyes.propose("fill", A, Fill(3), by("anna", on_behalf_of="Boris"))
    with pytest.raises(SecondPersonNeeded):
        await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris"), CHIEF)


async def test_exactly_what_was_proposed_is_carried_out(side: Side) -> None:
    note = 'a "quote", a NUL \x00, a line\nend, 王'
    proposed = await side.eyes.propose("fill", A, Fill(3, note), by("anna"))
    another = await side.propose("q", amount=4)
    assert proposed.digest != another.digest
    with pytest.raises(DigestDiffers):
        await side.eyes.approve(proposed.proposal_id, another.digest, by("boris"), CHIEF)
    await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris"), CHIEF)
    assert (side.notes, await side.amount()) == ([note], 3)


async def test_the_right_is_checked_when_it_is_approved(side: Side) -> None:
    proposed = await side.propose()
    for roles in (frozenset(), {"clerk"}):
        with pytest.raises(ApprovalForbidden):
            await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris"), roles)
        with pytest.raises(ApprovalForbidden):
            await side.eyes.reject(proposed.proposal_id, by("boris"), roles)


async def test_two_approvers_at_once_have_one_effect(side: Side, other: Side) -> None:
    proposed = await side.propose()
    results = await asyncio.gather(
        *(
            one.eyes.approve(proposed.proposal_id, proposed.digest, by(actor), CHIEF)
            for actor, one in (("boris", side), ("chen", other), ("du", side), ("boris", other))
        ),
        return_exceptions=True,
    )
    done = [one for one in results if not isinstance(one, BaseException)]
    assert done
    assert {one.version for one in done} == {2}
    assert all(isinstance(one, ProposalSettled) for one in results if isinstance(one, BaseException))
    assert await side.amount() == 3
    names = [one.name for one in await side.store.read_after(0)]
    assert (names.count("proposal-approved"), names.count("jar-filled")) == (1, 1)
    told = {
        actor for actor, one in zip(("boris", "chen", "du", "boris"), results, strict=True) if one in done
    }
    assert told == {(await side.eyes.shown(proposed.proposal_id)).approved_by}, "who is in the event, alone"


@pytest.mark.parametrize("point", ["before-append", "after-append"])
async def test_a_crash_leaves_both_or_neither_and_the_same_approval_again_has_one_answer(
    side: Side, store: EventStore, key_ring: KeyRing, point: str
) -> None:
    class Crash(BaseException):
        """The process is gone."""

    def reached(name: str) -> None:
        if name == point:
            raise Crash

    proposed = await side.propose()
    with pytest.raises(Crash):
        await Side(store, key_ring, reached).eyes.approve(
            proposed.proposal_id, proposed.digest, by("boris"), CHIEF
        )
    approved = (await side.eyes.shown(proposed.proposal_id)).status == "approved"
    assert approved == (point == "after-append") == (await side.amount() == 3)
    answers = [
        await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris", key), CHIEF)
        for key in ("a", "a", "again")
    ]
    assert {one.version for one in answers} == {2}
    assert await side.amount() == 3
    with pytest.raises(ProposalSettled):
        await side.eyes.approve(proposed.proposal_id, proposed.digest, by("chen"), CHIEF)


async def test_what_is_refused_at_the_approval_leaves_the_proposal_waiting(side: Side) -> None:
    proposed = await side.eyes.propose("fill", jar("never opened"), Fill(3), by("anna"))
    before = await side.store.head_position()
    with pytest.raises(JarNotOpened):
        await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris"), CHIEF)
    assert await side.store.head_position() == before
    assert (await side.eyes.shown(proposed.proposal_id)).status == "waiting"


async def test_an_approval_of_what_has_nothing_to_do_is_stored_all_the_same(side: Side) -> None:
    proposed = await side.propose(amount=0)
    for _ in range(2):
        carried = await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris"), CHIEF)
        assert (carried.subject, carried.version) == (A, 1)
    assert (await side.eyes.shown(proposed.proposal_id)).status == "approved"


async def test_a_proposal_expires_by_the_clock_that_is_given(side: Side) -> None:
    proposed = await side.propose()
    assert proposed.expires_at == NOW + LIVES
    with pytest.raises(ProposalStillWaits):
        await side.eyes.expire(proposed.proposal_id, by("clock", now=NOW + LIVES - timedelta(microseconds=1)))
    late = by("boris", now=NOW + LIVES)
    for act in (
        side.eyes.approve(proposed.proposal_id, proposed.digest, late, CHIEF),
        side.eyes.reject(proposed.proposal_id, late, CHIEF),
        side.eyes.withdraw(proposed.proposal_id, by("anna", "w", now=NOW + LIVES)),
    ):
        with pytest.raises(ProposalHasExpired):
            await act
    for key in ("c1", "c1", "c2"):
        assert (
            await side.eyes.expire(proposed.proposal_id, by("clock", key, now=NOW + LIVES))
        ).status == "expired"
    with pytest.raises(ProposalSettled):
        await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris"), CHIEF)
    assert await side.amount() == 0


@pytest.mark.parametrize("first", range(5))
async def test_of_decisions_at_once_with_the_expiry_one_is_stored(
    side: Side, other: Side, first: int
) -> None:
    made = await side.propose()
    id, last = made.proposal_id, NOW + LIVES - timedelta(microseconds=1)
    acts: list[Coroutine[Any, Any, Any]] = [
        side.eyes.expire(id, by("timer", now=NOW + LIVES)),
        other.eyes.approve(id, made.digest, by("boris", now=last), CHIEF),
        side.eyes.reject(id, by("chen", now=last), CHIEF),
        other.eyes.expire(id, by("timer", now=NOW + LIVES)),
        other.eyes.withdraw(id, by("anna", "w", now=last)),
    ]
    results = await asyncio.gather(*acts[first:], *acts[:first], return_exceptions=True)
    assert all(isinstance(one, ProposalSettled) for one in results if isinstance(one, BaseException))
    decided = (await side.eyes.shown(id)).status
    assert (await side.amount() == 3) == (decided == "approved")
    assert (await side.eyes.expire(id, by("timer", "again", now=NOW + LIVES))).status == decided
    assert [one.name for one in await side.store.read_stream(id)] == ["proposal-made", f"proposal-{decided}"]


async def test_the_proposer_withdraws_and_another_person_rejects(side: Side) -> None:
    first, second = await side.propose("1"), await side.propose("2")
    with pytest.raises(ProposerNeeded):
        await side.eyes.withdraw(first.proposal_id, by("boris"))
    assert (await side.eyes.withdraw(first.proposal_id, by("Anna", "w"))).status == "withdrawn"
    assert (await side.eyes.reject(second.proposal_id, by("boris", "r"), CHIEF)).status == "rejected"
    for proposed in (first, second):
        with pytest.raises(ProposalSettled):
            await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris"), CHIEF)
    with pytest.raises(ProposalUnknown):
        await side.eyes.shown(jar("nothing"))


async def test_the_same_proposal_again_is_one_and_another_under_its_key_is_refused(side: Side) -> None:
    first, again = await side.propose(), await side.propose()
    assert first == again
    with pytest.raises(CommandKeyReused):
        await side.propose(amount=4)
    other = await side.propose("q")
    await side.jars.handle(A, FillJar(1), by("boris", "used"))
    with pytest.raises(CommandKeyReused):
        await side.eyes.approve(other.proposal_id, other.digest, by("boris", "used"), CHIEF)
    assert await side.amount() == 1


@pytest.mark.parametrize("reason", [None, " ", "a\x00b", "x" * 501])
async def test_a_proposal_and_a_decision_say_why(side: Side, reason: str | None) -> None:
    with pytest.raises(ReasonMissing):
        await side.eyes.propose("fill", A, Fill(3), by("anna", reason=reason))
    proposed = await side.propose()
    with pytest.raises(ReasonMissing):
        await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris", reason=reason), CHIEF)


async def test_what_was_proposed_for_an_erased_subject_cannot_be_read_or_approved(
    side: Side, key_ring: KeyRing, store: EventStore
) -> None:
    proposed = await side.eyes.propose("fill", A, Fill(3, "Li Wei"), by("anna"))
    [made] = await store.read_stream(proposed.proposal_id)
    assert b"Li Wei" not in made.body
    key_ring.erase([A])
    with pytest.raises(SubjectErased):
        await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris"), CHIEF)
    assert (await side.eyes.shown(proposed.proposal_id)).command is None
    assert (await side.eyes.withdraw(proposed.proposal_id, by("anna", "w"))).status == "withdrawn"


async def test_what_is_proposed_is_kept_for_the_purpose_of_its_kind_and_no_longer(
    side: Side, key_ring: KeyRing
) -> None:
    of_contact = await side.eyes.propose("call", A, Called("13800001234"), by("anna"))
    other = await side.propose()
    key_ring.erase([A], "contact")
    assert (await side.eyes.shown(of_contact.proposal_id)).command is None
    with pytest.raises(SubjectErased):
        await side.eyes.propose("call", A, Called("13800001234"), by("anna", "b"))
    assert (await side.eyes.approve(other.proposal_id, other.digest, by("boris"), CHIEF)).version == 2


async def test_a_proposal_gets_no_key_and_its_subject_gets_one_for_each_purpose(
    side: Side, key_ring: KeyRing
) -> None:
    proposed = await side.eyes.propose("fill", jar("new"), Fill(3), by("anna"))
    found = key_ring.keys_for([proposed.proposal_id, jar("new")], create=False)
    assert list(found) == [jar("new")]
    assert key_ring.inseparable([jar("new")], "contact") == set()


async def test_the_effect_has_the_business_time_that_was_proposed(side: Side) -> None:
    then = NOW - timedelta(days=3)
    proposed = await side.eyes.propose("fill", A, Fill(3), by("anna", "p", effective_at=then))
    await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris"), CHIEF)
    assert CATALOGUE.metadata_of((await side.store.read_stream(A))[-1]).effective_at == then


async def test_the_key_of_one_approval_is_for_no_other(side: Side) -> None:
    first, second = await side.propose("1"), await side.propose("2")
    for proposed, key in ((first, "a1"), (second, "a2")):
        await side.eyes.approve(proposed.proposal_id, proposed.digest, by("boris", key), CHIEF)
    with pytest.raises(CommandKeyReused):
        await side.eyes.approve(second.proposal_id, second.digest, by("boris", "a1"), CHIEF)


async def test_each_decision_is_of_high_privilege(side: Side) -> None:
    first, second = await side.propose("1"), await side.propose("2")
    await side.eyes.withdraw(first.proposal_id, by("anna", "w"))
    await side.eyes.reject(second.proposal_id, by("boris", "r"), CHIEF)
    for proposed in (first, second):
        [_, decided] = await side.store.read_stream(proposed.proposal_id)
        assert CATALOGUE.metadata_of(decided).privilege == "high"
