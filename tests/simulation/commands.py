"""Clients that give commands to two processes, over the command handler, its snapshots and the store of the chassis.

A client repeats a command until it is answered, with the same key, also after the death of the process that had it. Some
commands are given by two clients at once, some expect a version, some are refused, some have no events, some record an identity
that another one may have recorded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, assert_never, cast
from uuid import UUID, uuid5

import msgspec
from chassis.connections.transient import StoreUnavailable
from chassis.privacy.keys import DataKey
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import (
    AlreadyRecorded,
    CommandContext,
    Decider,
    Outcome,
    Refusal,
    TooManyConflicts,
    VersionMismatch,
)
from chassis.write.events import Event
from chassis.write.handling import CommandHandler
from chassis.write.snapshots import Snapshots

from tests.simulation.kernel import Faults, Injected, Kernel
from tests.simulation.scenario import NAMESPACE, Broken
from tests.simulation.servers import Flaws, LogServer
from tests.simulation.store import SimulatedKeys, StoreClient

ACCOUNTS = tuple(uuid5(NAMESPACE, f"account-{number}") for number in range(3))
REFERENCES = 4
PROCESSES = 2
CLIENTS_PER_PROCESS = 2
COMMANDS_PER_CLIENT = 6
TRIES_MAX = 60
SNAPSHOT_EVENTS = 3
AMOUNT_MINOR_MAX = 100
FAULTS = Faults(crash=0.015, crashes_max=10, unanswered=0.03, unanswered_max=25)


# a small domain


class Moved(Event):
    """Money came, or went where it is less than 0."""

    amount_minor: int


class Named(Event):
    """An account got a reference, which no other one has."""

    reference: str


class Account(msgspec.Struct, frozen=True):
    """What is decided on."""

    balance_minor: int = 0
    moves: int = 0


class Pay(msgspec.Struct, frozen=True):
    """Moves money; nothing where it is none."""

    amount_minor: int


class Name(msgspec.Struct, frozen=True):
    """Gives a reference."""

    reference: str


class Overdrawn(Refusal):
    """There is less money than would go."""

    code = "overdrawn"
    status = 409
    title = "There is not so much money"
    title_zh = "余额不足"


AccountCommand = Pay | Name
AccountEvent = Moved | Named


def decide(command: AccountCommand, account: Account) -> list[AccountEvent]:
    """The events of a command."""
    match command:
        case Pay(0):
            return []
        case Pay(amount_minor):
            if account.balance_minor + amount_minor < 0:
                raise Overdrawn
            return [Moved(amount_minor)]
        case Name(reference):
            return [Named(reference), Moved(1)]
        case _:
            assert_never(command)


def evolve(account: Account, event: AccountEvent) -> Account:
    """The account after an event."""
    match event:
        case Moved(amount_minor):
            return Account(account.balance_minor + amount_minor, account.moves + 1)
        case Named():
            return account
        case _:
            assert_never(event)


def identity_of(event: AccountEvent) -> UUID | None:
    """A reference is recorded once."""
    return uuid5(NAMESPACE, event.reference) if isinstance(event, Named) else None


DECIDER: Decider[AccountCommand, Account, AccountEvent] = Decider(
    Account(), decide, evolve, AccountEvent, identity_of, state_type=Account
)
CATALOGUE = Catalogue(store="simulation", entries={"moved": Moved, "named": Named})


# who acts

Handler = CommandHandler[AccountCommand, Account, AccountEvent]
MakeHandler = Callable[..., Handler]
MakeSnapshots = Callable[..., "Snapshots[Account]"]


@dataclass(frozen=True, slots=True)
class WriteSide:
    """What a process handles commands with; a planted bug is another part."""

    handler: MakeHandler = CommandHandler
    snapshots: MakeSnapshots = Snapshots

    def over(self, log: LogServer, keys: dict[UUID, DataKey]) -> Handler:
        """As a process that starts has it: nothing is cached."""
        store, ring = StoreClient(log), SimulatedKeys(log.kernel, keys)
        snapshots = self.snapshots(store, ring, kind="account", decider=DECIDER, every_events=SNAPSHOT_EVENTS)
        return self.handler(DECIDER, store, CATALOGUE, ring, snapshots=snapshots)


@dataclass(frozen=True, slots=True)
class Given:
    """A command that a client gives; two clients may give the same."""

    key: str
    account: UUID
    command: AccountCommand
    expects: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client was told, and between which turns."""

    began: int
    ended: int
    outcome: "Outcome[AccountEvent] | None"
    """None where it was refused."""


@dataclass(slots=True)
class Bank:
    """All there is in one run."""

    kernel: Kernel
    log: LogServer
    keys: dict[UUID, DataKey] = field(default_factory=dict)
    clients: list[list[Given]] = field(default_factory=list)
    expected: dict[tuple[int, str], int] = field(default_factory=dict)
    """The version that a client has read, by client and key."""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int, flaws: Flaws) -> "Bank":
        """Everything for a seed: what each client will want is drawn once, so that it wants the same when restarted."""
        kernel = Kernel(seed, FAULTS)
        bank = cls(kernel, LogServer(kernel, flaws))
        for client in range(PROCESSES * CLIENTS_PER_PROCESS):
            bank.clients.append([_drawn(kernel, f"{client}-{n}") for n in range(COMMANDS_PER_CLIENT)])
        # The last client, of the other process, also gives some of the commands of the first.
        shared = [given for given in bank.clients[0] if kernel.chance.random() < 0.5]
        bank.clients[-1] = sorted([*bank.clients[-1], *shared], key=lambda given: given.key[2:])
        return bank

    def records(self, account: UUID) -> list[AccountEvent]:
        """What the log says of an account."""
        rows = [row for row in self.log.rows if row.stream_id == account]
        return [cast(AccountEvent, CATALOGUE.open(row, None).event) for row in rows]


def _drawn(kernel: Kernel, key: str) -> Given:
    chance = kernel.chance
    command: AccountCommand
    if chance.random() < 0.2:
        command = Name(f"reference-{chance.randrange(REFERENCES)}")
    else:
        command = Pay(chance.choice((0, *[chance.randrange(-AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX)] * 5)))
    return Given(key, chance.choice(ACCOUNTS), command, chance.random() < 0.3)


def serving(bank: Bank, number: int, parts: WriteSide) -> Callable[[], Awaitable[None]]:
    """A process that handles the commands of its clients at once; they go on where they were after its death."""
    mine = range(number * CLIENTS_PER_PROCESS, (number + 1) * CLIENTS_PER_PROCESS)
    done = dict.fromkeys(mine, 0)

    async def client(which: int, handler: Handler) -> None:
        while done[which] < len(bank.clients[which]):
            await answered(bank, which, bank.clients[which][done[which]], handler)
            done[which] += 1

    async def main() -> None:
        handler = parts.over(bank.log, bank.keys)
        await asyncio.gather(*(client(which, handler) for which in mine))

    return main


async def answered(bank: Bank, client: int, given: Given, handler: Handler) -> None:
    """Gives a command until it is carried out or refused."""
    kernel = bank.kernel
    for _ in range(TRIES_MAX):
        began, head = kernel.turns, bank.log.head(given.account)
        context = CommandContext(
            actor="client",
            now=kernel.now(),
            command_id=uuid5(NAMESPACE, given.key),
            idempotency_key=given.key,
        )
        try:
            if given.expects and (client, given.key) not in bank.expected:
                bank.expected[client, given.key] = (await handler.load(given.account)).version
            expected = bank.expected.get((client, given.key))
            outcome = await handler.handle(given.account, given.command, context, expected)
        except TooManyConflicts:
            if bank.log.head(given.account) == head:
                bank.broken.append(Broken("I10", f"{given} met conflicts, and nobody else wrote"))
            await kernel.sleep(0.01)
            continue
        except (StoreUnavailable, Injected):
            await kernel.sleep(0.01)
            continue
        except Refusal as refusal:
            if bank.log.head(given.account) == head and not has_reason(bank, given, expected, refusal):
                bank.broken.append(Broken("I8", f"{given} was refused as {refusal.code} at version {head}"))
            bank.answers.setdefault(given.key, []).append(Answer(began, kernel.turns, None))
            return
        if (
            expected is not None
            and not outcome.replayed
            and outcome.version - len(outcome.events) != expected
        ):
            bank.broken.append(Broken("I3", f"{given} expected {expected} and made {outcome.version}"))
        bank.answers.setdefault(given.key, []).append(Answer(began, kernel.turns, outcome))
        return
    bank.broken.append(Broken("I10", f"{given} was not answered"))


def has_reason(bank: Bank, given: Given, expected: int | None, refusal: Refusal) -> bool:
    """Whether a refusal is right for what the log says."""
    match refusal:
        case VersionMismatch():
            return expected != bank.log.head(given.account)
        case AlreadyRecorded():
            taken = {row.identity for row in bank.log.rows}
            return isinstance(given.command, Name) and identity_of(Named(given.command.reference)) in taken
        case Overdrawn():
            balance_minor = DECIDER.fold(bank.records(given.account)).balance_minor
            return isinstance(given.command, Pay) and balance_minor + given.command.amount_minor < 0
        case _:
            return False


# what must hold


def check(bank: Bank) -> list[Broken]:
    """Everything, when all is over."""
    return [*bank.broken, *check_answers(bank), *check_accounts(bank)]


def check_answers(bank: Bank) -> Iterator[Broken]:
    """What clients were told, against the log and against each other."""
    commands = [CATALOGUE.metadata_of(row).command_id for row in bank.log.rows]
    given = {one.key: one for client in bank.clients for one in client}
    for key, answers in bank.answers.items():
        outcomes = [answer.outcome for answer in answers if answer.outcome is not None]
        stored = commands.count(uuid5(NAMESPACE, key))
        if not outcomes:
            if stored:
                yield Broken("I8", f"{given[key]} was refused and is in the log")
            continue
        first = outcomes[0]
        if stored > len(first.events):
            yield Broken("I2", f"{given[key]} has {stored} events, and {len(first.events)} were answered")
        elif stored < len(first.events):
            yield Broken("I8", f"{given[key]} was acknowledged, and {stored} of its events are in the log")
        if {(one.version, one.events) for one in outcomes} != {(first.version, first.events)}:
            yield Broken("I2", f"{given[key]} was answered with {outcomes}")
        if sum(not one.replayed for one in outcomes) > 1:
            yield Broken("I2", f"{given[key]} was carried out more than once")
        yield from _check_refusals(given[key], answers)


def _check_refusals(given: Given, answers: list[Answer]) -> Iterator[Broken]:
    done = min(answer.ended for answer in answers if answer.outcome is not None)
    if any(answer.outcome is None and answer.began > done for answer in answers):
        yield Broken("I2", f"{given} was refused after it had been carried out")


def check_accounts(bank: Bank) -> Iterator[Broken]:
    """What the accounts say."""
    named: list[Any] = []
    for account in ACCOUNTS:
        rows = [row for row in bank.log.rows if row.stream_id == account]
        if [row.version for row in rows] != list(range(1, len(rows) + 1)):
            yield Broken("I3", f"versions of {account} are {[row.version for row in rows]}")
        balance_minor = 0
        for event in bank.records(account):
            if isinstance(event, Named):
                named.append(event.reference)
                continue
            balance_minor += event.amount_minor
            if balance_minor < 0:
                yield Broken("I5", f"{account} has {balance_minor}")
    if len(set(named)) != len(named):
        yield Broken("I2", f"references were given twice: {sorted(named)}")


async def lived(seed: int, parts: WriteSide | None = None, flaws: Flaws | None = None) -> Bank:
    """All that is left after a seed's schedule."""
    bank = Bank.of(seed, flaws or Flaws())
    for number in range(PROCESSES):
        bank.kernel.spawn(f"process-{number}", serving(bank, number, parts or WriteSide()))
    await bank.kernel.run()
    return bank
