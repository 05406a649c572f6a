"""Runners that do the items of a bulk run at once, and persons who pause it, while others change its items.

Each runner has a process of its own. After its death, and after a failure of the database, it goes on. What a run pays has
the id of the run as its correlation.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

import msgspec
from chassis.bulk import BULK_RUNS, Bulk, Bulkable, ItemResult
from chassis.connections.transient import StoreUnavailable
from chassis.privacy.keys import DataKey
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Outcome, Refusal, TooManyConflicts
from chassis.write.handling import CommandHandler

from tests.simulation.commands import DECIDER, AccountEvent, Handler, Moved, Named, Pay
from tests.simulation.kernel import Faults, Injected, Kernel
from tests.simulation.scenario import NAMESPACE, Broken
from tests.simulation.servers import Flaws, LogServer
from tests.simulation.store import SimulatedKeys, StoreClient

ITEMS = tuple(uuid5(NAMESPACE, f"item-{number}") for number in range(7))
RUNNERS = 2
AT_ONCE = 3
TRIES_MAX = 200
PAYS_MINOR = -3
CATALOGUE = Catalogue(store="simulation", entries={"moved": Moved, "named": Named, **BULK_RUNS})
FAULTS = Faults(crash=0.02, crashes_max=8, unanswered=0.03, unanswered_max=20)

MakeBulk = Callable[..., Bulk]


class PayAll(msgspec.Struct, frozen=True):
    """Takes an amount from each account."""

    amount_minor: int


@dataclass(slots=True)
class Many:
    """All there is in one run."""

    kernel: Kernel
    log: LogServer
    keys: dict[UUID, DataKey] = field(default_factory=dict)
    run: UUID | None = None
    results: list[list[ItemResult]] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)


def over(many: Many, make: MakeBulk) -> tuple[Bulk, Handler]:
    """As a process that starts has it."""
    store, ring = StoreClient(many.log), SimulatedKeys(many.kernel, many.keys)
    accounts: Handler = CommandHandler(DECIDER, store, CATALOGUE, ring)

    async def carry_out(item: UUID, command: PayAll, context: CommandContext) -> Outcome[AccountEvent]:
        return await accounts.handle(item, Pay(command.amount_minor), context)

    async def previewed(item: UUID, command: PayAll) -> bool:
        return bool(DECIDER.decide(Pay(command.amount_minor), (await accounts.load(item)).state))

    async def undo(
        item: UUID, command: PayAll, before: int, version: int, context: CommandContext
    ) -> Outcome[AccountEvent]:
        return await accounts.handle(item, Pay(-command.amount_minor), context, expected_version=version)

    kind = Bulkable(PayAll, carry_out, previewed, accounts.read, undo)
    return make(store, CATALOGUE, ring, {"pay": kind}, many.kernel, items_at_once=AT_ONCE), accounts


def context(many: Many, key: str) -> CommandContext:
    """Of a person who gives a step of the run."""
    return CommandContext(
        actor="client", now=many.kernel.now(), command_id=uuid5(NAMESPACE, key), idempotency_key=key
    )


async def listed() -> AsyncIterator[UUID]:
    """The items."""
    for item in ITEMS:
        yield item


async def until_done(many: Many, act: Callable[[], Awaitable[Any]]) -> Any:
    """Acts until it is answered."""
    for _ in range(TRIES_MAX):
        try:
            return await act()
        except (StoreUnavailable, Injected, TooManyConflicts):
            await many.kernel.sleep(0.01)
    many.broken.append(Broken("I10", "no answer"))
    return None


def running(many: Many, make: MakeBulk, number: int) -> Callable[[], Awaitable[None]]:
    """A runner. It prepares, starts, runs to the end, and reads the results."""

    async def main() -> None:
        bulk, _ = over(many, make)

        async def whole() -> list[ItemResult]:
            shown = await bulk.prepare("pay", PayAll(PAYS_MINOR), listed(), context(many, "run"))
            many.run = shown.run_id
            await bulk.start(shown.run_id, context(many, "start"))
            while await bulk.run(shown.run_id) == "paused":
                await bulk.start(shown.run_id, context(many, f"resume-{many.kernel.turns}"))
            return await bulk.results(shown.run_id)

        found = await until_done(many, whole)
        if found is not None:
            many.results.append(found)

    return main


def pausing(many: Many, make: MakeBulk) -> Callable[[], Awaitable[None]]:
    """A person who pauses the run, whoever resumes it."""

    async def main() -> None:
        bulk, _ = over(many, make)
        for number in range(2):
            await many.kernel.sleep(many.kernel.chance.random() * 0.05)
            if many.run is not None:
                try:
                    await bulk.pause(many.run, context(many, f"pause-{number}"))
                except (StoreUnavailable, Injected, Refusal):
                    continue

    return main


def paying(many: Many, make: MakeBulk) -> Callable[[], Awaitable[None]]:
    """Somebody who pays into accounts while the run is under way, so that what was refused would no longer be."""

    async def main() -> None:
        _, accounts = over(many, make)
        for number, item in enumerate(ITEMS):
            given = context(many, f"pay-{number}")
            await until_done(many, lambda item=item, given=given: accounts.handle(item, Pay(5), given))
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
