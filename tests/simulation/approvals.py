"""Persons who decide on proposals at once: two approve, one withdraws, and the processes that they use die.

A proposal ends in one way, and its effect is there if and only if it was approved, once.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid5

import msgspec
from chassis.privacy.keys import DataKey
from chassis.proposals import PROPOSALS, Carried, FourEyes, Proposable, ProposalSettled
from chassis.proposals.deciding import SecondPersonNeeded
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Outcome
from chassis.write.handling import CommandHandler

from tests.simulation.acting import answered, by
from tests.simulation.commands import DECIDER, AccountEvent, Handler, Moved, Named, Pay
from tests.simulation.kernel import Faults, Kernel
from tests.simulation.scenario import NAMESPACE, Broken
from tests.simulation.servers import Flaws, LogServer
from tests.simulation.store import SimulatedKeys, StoreClient

ACCOUNT = uuid5(NAMESPACE, "approved account")
PROPOSALS_MADE = 3
CHIEF = frozenset({"chief"})
CATALOGUE = Catalogue(store="simulation", entries={"moved": Moved, "named": Named, **PROPOSALS})
FAULTS = Faults(crash=0.02, crashes_max=8, unanswered=0.03, unanswered_max=20)

MakeEyes = Callable[..., FourEyes]
MakeHandler = Callable[..., Handler]


class PayIn(msgspec.Struct, frozen=True):
    """Pays in."""

    amount_minor: int


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process decides with; a planted bug is another part."""

    eyes: MakeEyes = FourEyes
    handler: MakeHandler = CommandHandler


@dataclass(slots=True)
class Office:
    """All there is in one run."""

    kernel: Kernel
    log: LogServer
    keys: dict[UUID, DataKey] = field(default_factory=dict)
    proposals: dict[int, tuple[UUID, str]] = field(default_factory=dict)
    carried: dict[int, list[tuple[str, Carried]]] = field(default_factory=dict)
    """Who was told that its approval took place, and what it came to."""
    broken: list[Broken] = field(default_factory=list)


def over(office: Office, parts: Parts) -> FourEyes:
    """As a process that starts has it."""
    store, ring = StoreClient(office.log), SimulatedKeys(office.kernel, office.keys)
    accounts = parts.handler(DECIDER, store, CATALOGUE, ring)

    async def carry_out(item: UUID, command: PayIn, context: CommandContext) -> Outcome[AccountEvent]:
        return await accounts.handle(item, Pay(command.amount_minor), context)

    kind = Proposable(PayIn, CHIEF, timedelta(days=1), carry_out, "Pay in")
    return parts.eyes(store, CATALOGUE, ring, {"pay": kind})


def proposing(office: Office, parts: Parts) -> Callable[[], Awaitable[None]]:
    """Anna proposes, tries to approve it herself, and withdraws every third proposal."""

    async def main() -> None:
        eyes = over(office, parts)
        for number in range(PROPOSALS_MADE):
            said = by(office, "anna", f"propose-{number}")
            shown = await answered(office, lambda said=said: eyes.propose("pay", ACCOUNT, PayIn(7), said))
            proposal, digest = shown.proposal_id, shown.digest  # type: ignore[attr-defined]
            office.proposals[number] = proposal, digest
            own = by(office, "Anna", f"own-{number}")
            refused = await answered(
                office, lambda p=proposal, d=digest, own=own: eyes.approve(p, d, own, CHIEF)
            )
            if not isinstance(refused, SecondPersonNeeded | ProposalSettled | None):
                office.broken.append(Broken("I9", f"anna approved what she proposed: {refused}"))
            if number % 3 == 2:
                ending = by(office, "anna", f"withdraw-{number}")
                await answered(office, lambda p=proposal, ending=ending: eyes.withdraw(p, ending))

    return main


def approving(office: Office, parts: Parts, actor: str) -> Callable[[], Awaitable[None]]:
    """A second person, who approves whatever is proposed."""

    async def main() -> None:
        eyes = over(office, parts)
        for number in range(PROPOSALS_MADE):
            await office.kernel.comes(lambda number=number: number in office.proposals, 60.0)
            proposal, digest = office.proposals[number]
            said = by(office, actor, f"approve-{number}")
            done = await answered(
                office, lambda p=proposal, d=digest, said=said: eyes.approve(p, d, said, CHIEF)
            )
            if isinstance(done, Carried):
                office.carried.setdefault(number, []).append((actor, done))
            elif not isinstance(done, ProposalSettled | None):
                office.broken.append(Broken("I8", f"{actor} was refused: {done!r}"))

    return main


def check(office: Office) -> list[Broken]:
    """Everything, when all is over."""
    return [*office.broken, *_checked(office)]


def _checked(office: Office) -> Iterator[Broken]:
    for number, (proposal, _) in office.proposals.items():
        rows = [row for row in office.log.rows if row.stream_id == proposal]
        if len(rows) > 2:
            yield Broken("I2", f"a proposal ended more than once: {[row.name for row in rows]}")
        by = [CATALOGUE.metadata_of(row).actor for row in rows if row.name == "proposal-approved"]
        approved = bool(by)
        metas = [CATALOGUE.metadata_of(row) for row in office.log.rows if row.stream_id == ACCOUNT]
        effects = [meta for meta in metas if meta.proposal_id == proposal]
        if len(effects) != approved:
            yield Broken("I2", f"{len(effects)} effects where approved is {approved}")
        if any(meta.proposed_by != "anna" or meta.actor not in {"boris", "chen"} for meta in effects):
            yield Broken("I9", f"the persons are {effects}")
        carried = office.carried.get(number, [])
        if not {actor for actor, _ in carried} <= set(by):
            yield Broken("I9", f"{carried} were told that they approved, and {by} did")
        if len({(one.version, one.subject) for _, one in carried}) > 1:
            yield Broken("I2", f"an approval was answered with {carried}")
        if approved and not carried:
            yield Broken("I8", "nobody was told that the approval took place")
    versions = [row.version for row in office.log.rows if row.stream_id == ACCOUNT]
    if versions != list(range(1, len(versions) + 1)):
        yield Broken("I3", f"versions are {versions}")


async def lived(seed: int, parts: Parts | None = None, flaws: Flaws | None = None) -> Office:
    """All that is left after a seed's schedule."""
    kernel = Kernel(seed, FAULTS)
    office, parts = Office(kernel, LogServer(kernel, flaws or Flaws())), parts or Parts()
    kernel.spawn("anna", proposing(office, parts))
    for actor in ("boris", "chen"):
        kernel.spawn(actor, approving(office, parts, actor))
    await kernel.run()
    return office
