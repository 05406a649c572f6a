"""Policies over the relay, the broker and the command handler: each event in a policy's range has its effect once.

Two processes run two policies: one takes all events, the other those that are published after its first start. A reaction
is a command on an account of the event's subject, in a store of its own. Some are refused for want of money, and park their
subject until an operator pays in.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid5

from chassis.connections.transient import StoreUnavailable
from chassis.messaging.delivered import Delivered
from chassis.privacy.keys import DataKey
from chassis.reactions.policies import Policy, PolicyRunner
from chassis.read.mongo_checkpoints import PARKED, POSITIONS, STARTS
from chassis.write.deciding import CommandContext, TooManyConflicts
from chassis.write.events import StoredEvent, event_id
from contracts.ingest import PostingBooked
from contracts.topics import INGEST_EVENTS, partition_of

from tests.simulation.broker import BrokerClient
from tests.simulation.commands import CATALOGUE, Handler, Pay, WriteSide
from tests.simulation.delivery import RELAYS, DataOf, Delivery, Parts, data, places_of, relaying
from tests.simulation.kernel import Faults, Injected
from tests.simulation.mongo_server import MongoFlaws
from tests.simulation.scenario import (
    CATCH_UP_SECONDS_MAX,
    SERVICES,
    SUBJECTS,
    Broken,
    honest_appender,
    service,
)
from tests.simulation.servers import Flaws, LogServer, position_of

SERVICE = "simulation"
FROM_THE_BEGINNING, FROM_NOW = "when_moved_then_pay", "when_moved_from_now_then_pay"
NAMES = (FROM_THE_BEGINNING, FROM_NOW)
PROCESSES = 2
STARTS_SECONDS_MAX = 0.3
FAULTS = Faults(crash=0.006, crashes_max=12, unanswered=0.01, unanswered_max=25)
ENOUGH_MINOR = 1_000_000
"""More than all that is ever paid out."""

CommandId = Callable[[Delivered, str], UUID]


def stable(event: Delivered, name: str) -> UUID:
    """The command id of a reaction."""
    return uuid5(event.id, name)


@dataclass(frozen=True, slots=True)
class Reacting:
    """What the processes are made of; a planted bug is another part."""

    runner: Callable[..., PolicyRunner] = PolicyRunner
    command_id: CommandId = stable


@dataclass(slots=True)
class Reactions:
    """All there is in one run."""

    delivery: Delivery
    target: LogServer
    keys: dict[UUID, DataKey] = field(default_factory=dict)
    before: set[tuple[UUID, int]] | None = None
    """What had been published when the first process started."""
    begun_at: int | None = None
    """The position of the log when it was recorded where the policies start."""
    parked: int = 0

    @classmethod
    def of(cls, seed: int) -> "Reactions":
        """Everything for a seed."""
        delivery = Delivery.of(seed, Flaws(), MongoFlaws(), FAULTS)
        return cls(delivery, LogServer(delivery.world.kernel, Flaws()))

    def handler(self) -> Handler:
        """As a process that starts has it."""
        return WriteSide().over(self.target, self.keys)


def account_of(name: str, subject: UUID) -> UUID:
    """The account of a policy for a subject."""
    return uuid5(subject, name)


def policies(run: Reactions, handler: Handler, command_id: CommandId, data_of: DataOf) -> list[Policy]:
    """The policies, as one process has them."""
    kernel = run.delivery.world.kernel

    def policy(name: str) -> Policy:
        async def react(event: Delivered) -> None:
            context = CommandContext(
                actor=f"policy:{name}",
                now=kernel.now(),
                command_id=command_id(event, name),
                causation_id=event.id,
            )
            command = Pay(data_of(event)["amount_minor"])
            await handler.handle(account_of(name, event.subject), command, context)

        async def prepare(events: Sequence[Delivered]) -> None:
            await handler.prepare([account_of(name, event.subject) for event in events])

        starts = "now" if name == FROM_NOW else "beginning"
        return Policy(
            name,
            (INGEST_EVENTS.name,),
            frozenset({PostingBooked.TYPE}),
            react,
            starts,
            prepare,  # type: ignore[arg-type]
        )

    return [policy(name) for name in NAMES]


# who acts


def reacting(run: Reactions, parts: Reacting, data_of: DataOf = data) -> Callable[[], Awaitable[None]]:
    """A process that runs the policies, as the role does."""
    delivery = run.delivery
    kernel = delivery.world.kernel

    async def main() -> None:
        await kernel.sleep(kernel.chance.random() * STARTS_SECONDS_MAX)
        while not delivery.world.over:
            if run.before is None:
                run.before = set(published(delivery))
            runner = parts.runner(
                "policies",
                policies(run, run.handler(), parts.command_id, data_of),
                service=SERVICE,
                mongo=delivery.mongo,
                broker=BrokerClient(delivery.broker),
                publisher=delivery.broker,
                clock=kernel,
            )
            stopping = asyncio.Event()
            delivery.stopping.append(stopping)
            try:
                await runner.run(stopping)
            except (ConnectionError, Injected):
                await kernel.sleep(0.02)

    return main


def looking(run: Reactions) -> Callable[[], Awaitable[None]]:
    """Notes when it was recorded where the policies start, and counts who was parked; asks for their release, also in vain."""
    delivery = run.delivery
    kernel = delivery.world.kernel

    async def main() -> None:
        while not delivery.world.over:
            rows = delivery.world.log.rows
            if run.begun_at is None and delivery.mongo.there.get(STARTS):
                run.begun_at = position_of(rows[-1]) if rows else 0
            waiting = delivery.mongo.there.get(PARKED, {})
            run.parked = max(run.parked, len(waiting))
            if kernel.chance.random() < 0.05 or kernel.healed:
                for one in waiting.values():
                    one["wanted"] = "release"
            await kernel.sleep(0.01)

    return main


def paying_in(run: Reactions) -> Callable[[], Awaitable[None]]:
    """Pays into an account now and then, and enough into all at the end."""
    delivery = run.delivery
    kernel = delivery.world.kernel
    accounts = [account_of(name, subject) for name in NAMES for subject in SUBJECTS]

    async def main() -> None:
        handler, number = run.handler(), 0
        left = list(accounts)
        while left:
            await kernel.sleep(0.1)
            healed = kernel.healed
            number += 1
            account = left[-1] if healed else kernel.chance.choice(accounts)
            context = CommandContext(
                actor="operator", now=kernel.now(), command_id=uuid5(account, f"{number}")
            )
            try:
                await handler.handle(account, Pay(ENOUGH_MINOR if healed else 500), context)
            except (StoreUnavailable, Injected, TooManyConflicts):
                continue
            if healed:
                left.pop()

    return main


def supervising(run: Reactions) -> Callable[[], Awaitable[None]]:
    """Heals the world when the clients are done; all must come through then, also who was parked."""
    delivery = run.delivery
    world, kernel = delivery.world, delivery.world.kernel

    async def main() -> None:
        while world.services_left > 0:
            await kernel.sleep(0.02)
        kernel.heal()
        if not await kernel.comes(lambda: caught_up(run), CATCH_UP_SECONDS_MAX):
            delivery.broken.append(Broken("I10", "the policies did not catch up"))
        world.over = True
        for stopping in delivery.stopping:
            stopping.set()

    return main


def caught_up(run: Reactions) -> bool:
    """Whether everything stored was published and reacted to, and nobody is parked."""
    delivery = run.delivery
    rows, there = delivery.world.log.rows, delivery.mongo.there
    if there.get(PARKED) or (rows and delivery.positions.position < position_of(rows[-1])):
        return False
    offsets = {one["_id"]: one["offset"] for one in there.get(POSITIONS, {}).values()}
    return all(
        offsets.get(f"{SERVICE}.{name}|{topic}|{number}", 0) >= delivery.broker.end((topic, number))
        for name in NAMES
        for topic, number in places_of(INGEST_EVENTS)
    )


# what must hold


def published(delivery: Delivery) -> Iterator[tuple[UUID, int]]:
    """The events that are in the topic now."""
    return delivery.events_in(INGEST_EVENTS)


def check(run: Reactions) -> list[Broken]:
    """Everything, when all is over."""
    return [*run.delivery.broken, *(one for name in NAMES for one in check_policy(run, name))]


def check_policy(run: Reactions, name: str) -> Iterator[Broken]:
    """The effects of a policy against the log of what it reacts to."""
    for subject in SUBJECTS:
        rows = [row for row in run.delivery.published() if row.stream_id == subject]
        causes = [
            metadata.causation_id
            for row in run.target.rows
            if row.stream_id == account_of(name, subject)
            and (metadata := CATALOGUE.metadata_of(row)).actor == f"policy:{name}"
        ]
        of_row = {event_id(subject, row.version): row for row in rows}
        versions = [of_row[cause].version for cause in causes]
        if len(set(versions)) != len(versions):
            yield Broken("I2", f"{name} reacted to {versions} of {subject}")
        if versions != sorted(versions):
            yield Broken("I3", f"{name} reacted to {versions} of {subject} in this order")
        for row in rows:
            reacted = row.version in versions
            if reacted != in_range(run, name, row):
                yield Broken(
                    "I1", f"{name} {'reacted' if reacted else 'did not react'} to {subject} {row.version}"
                )
            yield from _check_range(run, name, row, reacted)


def in_range(run: Reactions, name: str, row: StoredEvent) -> bool:
    """Whether a policy takes an event, by where it was recorded to start."""
    if name == FROM_THE_BEGINNING:
        return True
    starts = run.delivery.mongo.there[STARTS][f"{SERVICE}.{name}"]["places"]
    number = partition_of(row.stream_id)
    return position_of(row) > next(position for _, place, _, position in starts if place == number)


def _check_range(run: Reactions, name: str, row: StoredEvent, reacted: bool) -> Iterator[Broken]:
    """The same, by when it was published."""
    if name == FROM_THE_BEGINNING or run.before is None or run.begun_at is None:
        return
    if reacted and (row.stream_id, row.version) in run.before:
        yield Broken("I1", f"{name} reacted to {row.version}, which was published before it started")
    if not reacted and position_of(row) > run.begun_at:
        yield Broken("I1", f"{name} did not react to {row.version}, which was stored after it started")


async def lived(seed: int, parts: Reacting | None = None) -> Reactions:
    """All that is left after a seed's schedule."""
    run = Reactions.of(seed)
    world = run.delivery.world
    for number in range(SERVICES):
        world.kernel.spawn(f"service-{number}", service(world, number, honest_appender))
    for number in range(RELAYS):
        world.kernel.spawn(f"relay-{number}", relaying(run.delivery, Parts(), INGEST_EVENTS))
    for number in range(PROCESSES):
        world.kernel.spawn(f"policies-{number}", reacting(run, parts or Reacting()))
    world.kernel.spawn("looking", looking(run), mortal=False)
    world.kernel.spawn("operator", paying_in(run), mortal=False)
    world.kernel.spawn("supervisor", supervising(run), mortal=False)
    await world.kernel.run()
    return run
