"""A bulk command over the accounts, which pays an amount to each, and the persons and processes that give it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

import msgspec
from chassis.bulk import BULK_RUNS, Approval, Bulk, Bulkable, starts
from chassis.privacy.keys import DataKey
from chassis.proposals import PROPOSALS, FourEyes
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Outcome
from chassis.write.handling import CommandHandler

from tests.simulation.commands import DECIDER, AccountEvent, Handler, Moved, Named, Pay
from tests.simulation.kernel import Faults, Kernel
from tests.simulation.scenario import Broken
from tests.simulation.servers import LogServer
from tests.simulation.store import SimulatedKeys, StoreClient

CATALOGUE = Catalogue(store="simulation", entries={"moved": Moved, "named": Named, **BULK_RUNS, **PROPOSALS})
FAULTS = Faults(crash=0.02, crashes_max=8, unanswered=0.03, unanswered_max=20)

MakeBulk = Callable[..., Bulk]


class PayAll(msgspec.Struct, frozen=True):
    """Pays an amount to each account, or takes it."""

    amount_minor: int


@dataclass(slots=True)
class Payments:
    """What is left when its processes die."""

    kernel: Kernel
    log: LogServer
    keys: dict[UUID, DataKey] = field(default_factory=dict)
    run: UUID | None = None
    broken: list[Broken] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Process:
    """What a process that starts has."""

    accounts: Handler
    bulk: Bulk
    eyes: FourEyes


def over(payments: Payments, make: MakeBulk, at_once: int, approval: Approval | None = None) -> Process:
    """A process that starts; `approval` where two persons start what it runs."""
    store, ring = StoreClient(payments.log), SimulatedKeys(payments.kernel, payments.keys)
    accounts: Handler = CommandHandler(DECIDER, store, CATALOGUE, ring)

    async def carry_out(item: UUID, command: PayAll, context: CommandContext) -> Outcome[AccountEvent]:
        return await accounts.handle(item, Pay(command.amount_minor), context)

    async def previewed(item: UUID, command: PayAll) -> bool:
        return bool(DECIDER.decide(Pay(command.amount_minor), (await accounts.load(item)).state))

    kind = Bulkable(PayAll, carry_out, previewed, accounts.read, approval=approval)
    bulk = make(store, CATALOGUE, ring, {"pay": kind}, payments.kernel, items_at_once=at_once)
    return Process(accounts, bulk, FourEyes(store, CATALOGUE, ring, starts(bulk)))
