"""Runners that do the items of a bulk run at once, and persons who pause it, while others change its items.

Each runner has a process of its own. After its death, and after a failure of the database, it goes on. What a run pays has
the id of the run as its correlation.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid5

from chassis.bulk import Bulk, ItemResult, listed
from chassis.connections.transient import StoreUnavailable
from chassis.write.deciding import Refusal

from tests.simulation.acting import answered, by
from tests.simulation.commands import Pay
from tests.simulation.kernel import Injected, Kernel
from tests.simulation.paying import CATALOGUE, FAULTS, MakeBulk, PayAll, Payments, over
from tests.simulation.scenario import NAMESPACE, Broken
from tests.simulation.servers import Flaws, LogServer

ITEMS = tuple(uuid5(NAMESPACE, f"item-{number}") for number in range(7))
RUNNERS = 2
AT_ONCE = 3
PAYS_MINOR = -3
CLIENT = "client"


@dataclass(slots=True)
class Many(Payments):
    """All there is in one run."""

    results: list[list[ItemResult]] = field(default_factory=list)


async def carried_out(many: Many, act: Callable[[], Awaitable[Any]]) -> Any:
    """The answer of what nobody may refuse."""
    found = await answered(many, act)
    if not isinstance(found, Refusal):
        return found
    many.broken.append(Broken("I8", f"refused: {found!r}"))
    return None


def running(many: Many, make: MakeBulk, number: int) -> Callable[[], Awaitable[None]]:
    """A runner. It prepares, starts, runs to the end, and reads the results."""

    async def main() -> None:
        bulk = over(many, make, AT_ONCE).bulk

        async def whole() -> list[ItemResult]:
            shown = await bulk.prepare("pay", PayAll(PAYS_MINOR), listed(ITEMS), by(many, CLIENT, "run"))
            many.run = shown.run_id
            await bulk.start(shown.run_id, by(many, CLIENT, "start"))
            while await bulk.run(shown.run_id) == "paused":
                await bulk.start(shown.run_id, by(many, CLIENT, f"resume-{many.kernel.turns}"))
            return await bulk.results(shown.run_id)

        found = await carried_out(many, whole)
        if found is not None:
            many.results.append(found)

    return main


def pausing(many: Many, make: MakeBulk) -> Callable[[], Awaitable[None]]:
    """A person who pauses the run, whoever resumes it."""

    async def main() -> None:
        bulk = over(many, make, AT_ONCE).bulk
        for number in range(2):
            await many.kernel.sleep(many.kernel.chance.random() * 0.05)
            if many.run is not None:
                try:
                    await bulk.pause(many.run, by(many, CLIENT, f"pause-{number}"))
                except (StoreUnavailable, Injected, Refusal):
                    continue

    return main


def paying(many: Many, make: MakeBulk) -> Callable[[], Awaitable[None]]:
    """Somebody who pays into accounts while the run is under way, so that what was refused would no longer be."""

    async def main() -> None:
        accounts = over(many, make, AT_ONCE).accounts
        for number, item in enumerate(ITEMS):
            given = by(many, CLIENT, f"pay-{number}")
            await carried_out(many, lambda item=item, given=given: accounts.handle(item, Pay(5), given))
            await many.kernel.sleep(many.kernel.chance.random() * 0.1)

    return main


def check(many: Many) -> list[Broken]:
    """Everything, when all is over."""
    return [*many.broken, *_checked(many)]


def _checked(many: Many) -> Iterator[Broken]:
    if not many.results:
        yield Broken("I10", "no runner came to an end")
        return
    first = many.results[0]
    if any(results != first for results in many.results):
        yield Broken("I2", f"the results are {many.results}")
    if [one.subject for one in first] != list(ITEMS):
        yield Broken("I2", f"the results are of {[one.subject for one in first]}")
    for one in first:
        rows = [row for row in many.log.rows if row.stream_id == one.subject]
        own = [row.version for row in rows if CATALOGUE.metadata_of(row).correlation_id == many.run]
        if len(own) > 1:
            yield Broken("I2", f"{one.subject} was done {len(own)} times")
        if [one.version] * (one.result == "done") != own:
            yield Broken("I8", f"the result of {one.subject} is {one}, and its events are {own}")


async def lived(seed: int, make: MakeBulk = Bulk, flaws: Flaws | None = None) -> Many:
    """All that is left after a seed's schedule."""
    kernel = Kernel(seed, FAULTS)
    many = Many(kernel, LogServer(kernel, flaws or Flaws()))
    for number in range(RUNNERS):
        kernel.spawn(f"runner-{number}", running(many, make, number))
    kernel.spawn("pausing", pausing(many, make), mortal=False)
    kernel.spawn("paying", paying(many, make), mortal=False)
    await kernel.run()
    return many
