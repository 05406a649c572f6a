"""Tiers over months that pass in half a second: facts are derived late, postings are corrected, customers are renamed and
erased, and two processes that die give the timers.

Timer, decision and command handler are those of the customer service; its facts are documents that a process derives of what
the customers have, as of a day. Each day has its figures, so that an assessment shows of which month its own are.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from chassis.calendar import Calendar, Span, public_holidays
from chassis.connections.transient import StoreUnavailable
from chassis.privacy.keys import DataKey
from chassis.timers import Timer, TimerLoop
from chassis.write.deciding import CommandContext, Refusal, TooManyConflicts
from chassis.write.handling import CommandHandler
from customer.application import Handler
from customer.catalogue import catalogue
from customer.derived.customer_facts import CHANGES_ON
from customer.domain.commands import (
    CustomerCommand,
    Details,
    EraseCustomer,
    RegisterCustomer,
    RenameCustomer,
)
from customer.domain.customer import customer_decider
from customer.domain.events import CustomerErased, CustomerRegistered, TierAssessed
from customer.domain.tier_rules import TierRuleVersions
from customer.months import month_after, whole_months
from customer.timers import ASSESSED_WITHIN, Facts, tier_timer
from typing_extensions import override

from tests.simulation.kernel import EPOCH, Faults, Injected, Kernel
from tests.simulation.scenario import Broken
from tests.simulation.servers import Flaws, LogServer, PositionServer
from tests.simulation.store import SimulatedKeys, StoreClient
from tests.simulation.timing import TableFlaws, TimerServer, given

DAYS_PER_SECOND = 60
FIRST_DAY = date(2025, 11, 20)
"""The months that pass have 28, 30 and 31 days, and a year ends among them."""
CUSTOMERS = [UUID(int=int(ASSESSED_WITHIN.total_seconds()) * number) for number in range(1, 4)]
"""Of a time of their own that is the first of a morning: hours are too long for this calendar."""
TIERS = ["mass", "wealth", "private"]
AMOUNTS = [0, 49_999_999, 50_000_000, 599_999_999, 600_000_000, 10**12]
ACTS_MAX = 24
TRIES_MAX = 60
CATCH_UP_SECONDS_MAX = 20.0
FAULTS = Faults(crash=0.004, unanswered=0.02, freeze=0.002, freezes_max=3, freeze_seconds=0.8)
CATALOGUE = catalogue()


class Fast(Calendar):
    """A calendar of which sixty days pass in a second."""

    @override
    def business_date(self, instant: datetime) -> date:
        return FIRST_DAY + timedelta(days=int((instant - EPOCH) / timedelta(seconds=1) * DAYS_PER_SECOND))

    @override
    def at(self, day: date, clock: time) -> datetime:
        # A hair after the day begins: the instants of its beginning are no whole microseconds.
        return EPOCH + timedelta(seconds=(day - FIRST_DAY).days / DAYS_PER_SECOND, microseconds=1)


CALENDAR = Fast(ZoneInfo("Asia/Shanghai"), public_holidays(), (Span.of("09:00-17:00"),))


async def built_in() -> TierRuleVersions:
    """The only version of the rules."""
    return TierRuleVersions()


@dataclass(frozen=True, slots=True)
class Parts:
    """What the processes work with; a planted bug is another part."""

    timer: Callable[[Handler, Facts], Timer] = lambda handler, facts: tier_timer(
        handler, facts, built_in, CALENDAR
    )
    loop: Callable[..., TimerLoop] = TimerLoop


@dataclass(slots=True)
class Bank:
    """All there is in one run. `had`: what a customer had on average in a month, the last figure as it is corrected by now."""

    kernel: Kernel
    log: LogServer
    timers: TimerServer
    had: dict[tuple[UUID, str], list[int]] = field(default_factory=dict)
    facts: dict[UUID, Mapping[str, Any]] = field(default_factory=dict)
    keys: dict[UUID, DataKey] = field(default_factory=dict)
    done: bool = False
    over: bool = False
    stopping: list[asyncio.Event] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int) -> "Bank":
        """Everything for a seed."""
        kernel = Kernel(seed, FAULTS)
        timers = TimerServer(kernel, TableFlaws(), PositionServer(kernel, Flaws()))
        return cls(kernel, LogServer(kernel, Flaws()), timers)

    def today(self) -> str:
        """The business date of now."""
        return CALENDAR.business_date(self.kernel.now()).isoformat()

    def handler(self) -> tuple[StoreClient, Handler]:
        """Store and command handler of a process that starts."""
        store = StoreClient(self.log)
        ring = SimulatedKeys(self.kernel, self.keys)
        return store, CommandHandler(customer_decider, store, CATALOGUE, ring)

    def figures(self, customer: UUID, month: str) -> list[int]:
        """What a customer had in a month, as it was corrected; drawn when somebody asks first."""
        drawn = self.kernel.chance.choice(AMOUNTS)
        return self.had.setdefault((customer, month), [drawn])

    def derive(self, customer: UUID) -> None:
        """The facts of a customer as of today."""
        day = self.today()
        months = {month: {"CNY": self.figures(customer, month)[-1]} for month, _ in whole_months(day)}
        self.facts[customer] = {"aum_month_average": months, CHANGES_ON: month_after(day)}


def deriving(bank: Bank) -> Callable[[], Awaitable[None]]:
    """A process that derives facts, and is away for up to two months at times."""

    async def main() -> None:
        while not bank.over:
            for customer in registered(bank):
                await bank.kernel.call("derive", lambda of=customer: bank.derive(of), may_fail=False)
            away = not bank.done and bank.kernel.chance.random() < 0.1
            await bank.kernel.sleep(bank.kernel.chance.random() * (1.0 if away else 0.1))

    return main


def giving(bank: Bank, parts: Parts) -> Callable[[], Awaitable[None]]:
    """A process that gives what is due."""

    async def main() -> None:
        store, handler = bank.handler()

        async def facts(customer: UUID) -> Mapping[str, Any] | None:
            try:
                return await bank.kernel.call("facts", lambda: bank.facts.get(customer))
            except Injected as error:
                raise StoreUnavailable("facts") from error

        timer = parts.timer(handler, facts)
        await given(bank, parts.loop, timer, store, CATALOGUE, generation="1", try_again_seconds=0.01)

    return main


def acting(bank: Bank) -> Callable[[], Awaitable[None]]:
    """Staff register, rename and erase customers, and postings of months that are over come in; each is repeated until it is
    answered."""
    chance = bank.kernel.chance
    acts: list[tuple[UUID, CustomerCommand | None]] = [
        (one, RegisterCustomer(Details(name="张伟"))) for one in CUSTOMERS
    ]
    for number in range(ACTS_MAX - len(acts)):
        drawn, one = chance.random(), chance.choice(CUSTOMERS)
        command: CustomerCommand | None = RenameCustomer(f"张{number}") if drawn < 0.3 else None
        acts.append((one, EraseCustomer((), (), FIRST_DAY) if drawn > 0.97 else command))
    at = [0]

    async def main() -> None:
        _, handler = bank.handler()
        while at[0] < len(acts):
            subject, command = acts[at[0]]
            if command is None:
                month = chance.choice(whole_months(bank.today())[:2]).month
                bank.figures(subject, month).append(chance.choice(AMOUNTS))
            else:
                await answered(handler, subject, command)
            at[0] += 1
            await bank.kernel.sleep(chance.random() * 0.25)
        bank.done = True

    async def answered(handler: Handler, subject: UUID, command: CustomerCommand) -> None:
        id = UUID(int=at[0])
        for _ in range(TRIES_MAX):
            context = CommandContext(actor="staff", now=bank.kernel.now(), command_id=id, reason="asked for")
            with suppress(StoreUnavailable, Injected, TooManyConflicts):
                with suppress(Refusal):
                    await handler.handle(subject, command, context)
                return
            await bank.kernel.sleep(0.01)
        bank.broken.append(Broken("I10", f"no answer to {command}"))

    return main


def supervising(bank: Bank) -> Callable[[], Awaitable[None]]:
    """Heals the world when staff are done; everybody's last month must be assessed then."""

    async def main() -> None:
        while not bank.done:
            await bank.kernel.sleep(0.02)
        bank.kernel.heal()
        if not await bank.kernel.comes(lambda: not late(bank), CATCH_UP_SECONDS_MAX):
            bank.broken.append(Broken("I1", f"nobody assesses {late(bank)}"))
        bank.over = True
        for stopping in bank.stopping:
            stopping.set()

    return main


def registered(bank: Bank) -> list[UUID]:
    """The customers that are registered and not erased."""
    ends = {row.stream_id: "erased" in row.name for row in bank.log.rows if "-assessed" not in row.name}
    return sorted(one for one, erased in ends.items() if not erased)


def late(bank: Bank) -> list[UUID]:
    """The customers of whom the last whole month is not assessed, though they were registered before it ended."""
    day = bank.today()
    done = {
        row.stream_id
        for row in bank.log.rows
        if month_after(CALENDAR.business_date(CATALOGUE.metadata_of(row).recorded_at).isoformat()) > day
        if row.name in {"tier-assessed", "customer-registered"}
    }
    return [one for one in registered(bank) if one not in done]


def check(bank: Bank) -> list[Broken]:
    """Everything, when all is over."""
    return [*bank.broken, *check_assessments(bank)]


def check_assessments(bank: Bank) -> Iterator[Broken]:
    """Each assessment, against the months, the figures and the assessment before it."""
    last = dict[UUID, TierAssessed]()
    there = set[UUID]()
    for row in bank.log.rows:
        one, recorded, who = CATALOGUE.decode(row).event, CATALOGUE.metadata_of(row), row.stream_id
        match one:
            case CustomerRegistered():
                there.add(who)
            case CustomerErased():
                there.discard(who)
            case TierAssessed(month, tier):
                before = last.get(who)
                if who not in there:
                    yield Broken("I3", f"{who} is assessed, and is not there")
                if before is not None and month <= before.month:
                    yield Broken("I2", f"{month} of {who} is assessed after {before.month}")
                day = CALENDAR.business_date(recorded.recorded_at).isoformat()
                (whole, _), (earlier, _) = whole_months(day)[:2]
                if month != whole:
                    yield Broken("I3", f"{month} of {who} is assessed on {day}")
                if recorded.effective_at != CALENDAR.at(
                    date.fromisoformat(month_after(f"{month}-01")), time()
                ):
                    yield Broken("I3", f"{month} of {who} is effective at {recorded.effective_at}")
                figures = one.average_minor, one.average_before_minor
                if any(
                    figure not in bank.had.get((who, of), ())
                    for of, figure in zip((month, earlier), figures, strict=True)
                ):
                    yield Broken("I3", f"{month} of {who} is assessed by {figures}")
                elif tier != wanted(None if before is None else before.tier, *map(int, figures)):  # type: ignore[arg-type]
                    yield Broken("I8", f"{who} had {figures}, and is {tier} after {before}")
                last[who] = one
            case _:
                pass


def wanted(now: str | None, average: int, before: int) -> str:
    """The tier by what is written of tiers: what the month reaches, or what both months and the tier of now have."""

    def reached(minor: int) -> int:
        return (minor >= 50_000_000) + (minor >= 600_000_000)

    stays = -1 if now is None else min(TIERS.index(now), reached(before))
    return TIERS[max(reached(average), stays)]


async def lived(seed: int, parts: Parts | None = None) -> Bank:
    """All that is left after a seed's schedule."""
    bank = Bank.of(seed)
    bank.kernel.spawn("staff", acting(bank))
    bank.kernel.spawn("deriver", deriving(bank), mortal=False)
    for number in range(2):
        bank.kernel.spawn(f"timers-{number}", giving(bank, parts or Parts()))
    bank.kernel.spawn("supervisor", supervising(bank), mortal=False)
    await bank.kernel.run()
    return bank
