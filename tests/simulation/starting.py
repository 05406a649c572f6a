"""A bulk run that two persons start: several approve at once, its proposer tries alone, and runners do its items.

Each has a process of its own, which dies and goes on. The start is proposed twice, and takes place once.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

from chassis.bulk import Approval, Bulk, BulkNeedsApproval, BulkNotReady, listed, propose_start
from chassis.proposals import Carried, ProposalSettled
from chassis.write.deciding import Refusal

from tests.simulation.acting import TRIES_MAX, answered, by
from tests.simulation.kernel import Kernel
from tests.simulation.paying import (
    CATALOGUE,
    FAULTS,
    MakeBulk,
    PayAll,
    Payments,
    Process,
    over,
)
from tests.simulation.scenario import NAMESPACE, Broken
from tests.simulation.servers import Flaws, LogServer

ITEMS = tuple(uuid5(NAMESPACE, f"listed-{number}") for number in range(5))
CHIEF = frozenset({"chief"})
AT_ONCE = 2
APPROVAL = Approval(len(ITEMS) - 1, CHIEF, timedelta(days=1), "Pay all")


@dataclass(slots=True)
class Start(Payments):
    """All there is in one run."""

    proposals: dict[int, tuple[UUID, str]] = field(default_factory=dict)
    carried: list[str] = field(default_factory=list)
    """Who was told that its approval took place."""


def begun(start: Start, make: MakeBulk) -> Process:
    """A process that starts."""
    return over(start, make, AT_ONCE, APPROVAL)


def proposing(start: Start, make: MakeBulk) -> Callable[[], Awaitable[None]]:
    """Anna prepares the run, proposes its start twice, and tries to start it alone."""

    async def main() -> None:
        process = begun(start, make)
        bulk, eyes = process.bulk, process.eyes
        made = by(start, "anna", "run")
        shown = await answered(start, lambda: bulk.prepare("pay", PayAll(3), listed(ITEMS), made))
        start.run = run = shown.run_id
        for number in range(2):
            said = by(start, "anna", f"propose-{number}")
            found = await answered(start, lambda said=said: propose_start(bulk, eyes, run, said))
            if not isinstance(found, Refusal | None):
                start.proposals[number] = found.proposal_id, found.digest
            elif not isinstance(found, BulkNotReady | None):
                start.broken.append(Broken("I8", f"the proposal was refused: {found!r}"))
            alone = by(start, "anna", f"alone-{number}")
            before = any(row.name == "bulk-started" for row in start.log.rows)
            started = await answered(start, lambda alone=alone: bulk.start(run, alone))
            if not before and not isinstance(started, BulkNeedsApproval) and not _approved(start):
                start.broken.append(Broken("I9", f"anna started it alone: {started}"))

    return main


def approving(start: Start, make: MakeBulk, actor: str) -> Callable[[], Awaitable[None]]:
    """A second person, who approves whatever is proposed."""

    async def main() -> None:
        eyes = begun(start, make).eyes
        for number in range(2):
            if not await start.kernel.comes(lambda number=number: number in start.proposals, 30.0):
                continue
            proposal, digest = start.proposals[number]
            said = by(start, actor, f"approve-{number}")
            done = await answered(
                start, lambda p=proposal, d=digest, said=said: eyes.approve(p, d, said, CHIEF)
            )
            if isinstance(done, Carried):
                start.carried.append(actor)
            elif not isinstance(done, ProposalSettled | BulkNotReady | None):
                start.broken.append(Broken("I8", f"{actor} was refused: {done!r}"))

    return main


def running(start: Start, make: MakeBulk) -> Callable[[], Awaitable[None]]:
    """A runner that looks for runs that were started, until this one is finished."""

    async def main() -> None:
        bulk = begun(start, make).bulk

        async def looked() -> bool:
            return any([await bulk.run(run, chunks_max=1) == "finished" for run in await bulk.started()])

        await start.kernel.comes(lambda: _approved(start), 120.0)
        for _ in range(TRIES_MAX):
            await answered(start, looked)
            if any(row.name == "bulk-finished" for row in start.log.rows):
                return
            await start.kernel.sleep(0.05)

    return main


def _approved(start: Start) -> bool:
    return any(row.name == "proposal-approved" for row in start.log.rows)


def check(start: Start) -> list[Broken]:
    """Everything, when all is over."""
    return [*start.broken, *_checked(start)]


def _checked(start: Start) -> Iterator[Broken]:
    names = [row.name for row in start.log.rows]
    begun, approved = ([row for row in start.log.rows if row.name == name] for name in _TOGETHER)
    if len(begun) != 1 or len(approved) != 1:
        yield Broken("I2", f"{len(approved)} approvals started it {len(begun)} times")
        return
    [meta], proposal = map(CATALOGUE.metadata_of, begun), approved[0].stream_id
    if meta.proposal_id != proposal or _persons(meta) not in _PERSONS:
        yield Broken("I9", f"it was started by {meta}")
    if "bulk-finished" not in names:
        yield Broken("I10", "nobody finished the run")
    for item in ITEMS:
        rows = [row for row in start.log.rows if row.stream_id == item]
        metas = [CATALOGUE.metadata_of(row) for row in rows]
        if len(rows) != 1:
            yield Broken("I2", f"{item} was done {len(rows)} times")
        elif metas[0].proposal_id != proposal or _persons(metas[0]) != _persons(meta):
            yield Broken("I9", f"{item} was done by {metas}")
        elif (rows[0].position or 0) < (begun[0].position or 0):
            yield Broken("I9", f"{item} was done before the run was started")
    if set(start.carried) != {meta.actor}:
        yield Broken("I9", f"{start.carried} were told that they approved")


_TOGETHER = ("bulk-started", "proposal-approved")
_PERSONS = (("boris", "anna"), ("chen", "anna"))


def _persons(meta: Any) -> tuple[str, str | None]:
    return meta.actor, meta.proposed_by


async def lived(seed: int, make: MakeBulk = Bulk, flaws: Flaws | None = None) -> Start:
    """All that is left after a seed's schedule."""
    kernel = Kernel(seed, FAULTS)
    start = Start(kernel, LogServer(kernel, flaws or Flaws()))
    kernel.spawn("anna", proposing(start, make))
    for actor in ("boris", "chen"):
        kernel.spawn(actor, approving(start, make, actor))
    for number in range(2):
        kernel.spawn(f"runner-{number}", running(start, make))
    await kernel.run()
    return start
