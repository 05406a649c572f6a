"""A bulk command over the accounts, which pays an amount to each, and the persons and processes that give it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

import msgspec
from chassis.bulk import BULK_RUNS, Approval, Bulk, Bulkable, starts
from chassis.connections.transient import StoreUnavailable
from chassis.privacy.keys import DataKey
from chassis.proposals import PROPOSALS, FourEyes
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Outcome, Refusal, TooManyConflicts
from chassis.write.handling import CommandHandler

from tests.simulation.commands import DECIDER, AccountEvent, Handler, Moved, Named, Pay
from tests.simulation.kernel import Faults, Injected, Kernel
from tests.simulation.scenario import NAMESPACE, Broken
from tests.simulation.servers import LogServer
from tests.simulation.store import SimulatedKeys, StoreClient

TRIES_MAX = 200
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


def by(payments: Payments, actor: str, key: str) -> CommandContext:
    """What one person does."""
    return CommandContext(
        actor=actor,
        now=payments.kernel.now(),
        command_id=uuid5(NAMESPACE, f"{actor}|{key}"),
        idempotency_key=key,
        reason="so",
    )


async def answered(payments: Payments, act: Callable[[], Awaitable[Any]]) -> Any:
    """The answer, or the refusal, of an act that is tried until it has one."""
    for _ in range(TRIES_MAX):
        try:
            return await act()
        except (StoreUnavailable, Injected, TooManyConflicts):
            await payments.kernel.sleep(0.01)
        except Refusal as refusal:
            return refusal
    payments.broken.append(Broken("I10", "no answer"))
    return None
