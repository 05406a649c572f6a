"""Tiers from postings to assessments: over the real event store, the timers beside it, and facts in the real MongoDB."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID, uuid5

import pytest
from chassis.connections.transient import StoreUnavailable
from chassis.lists import Scope
from chassis.process.leases import Lease, PostgresLease
from chassis.timers import PostgresTimers, TimerLoop
from chassis.timers.table import TIMERS_LEASE
from chassis.write.deciding import CommandContext
from chassis.write.store.items import Fenced
from customer.catalogue import catalogue
from customer.derived.customer_facts import VIEW
from customer.domain.commands import Details, EraseCustomer, RegisterCustomer
from customer.domain.events import TierAssessed
from customer.domain.tier_rules import TierRuleVersions
from customer.queries import Queries
from customer.timers import tier_timer

from tests.support.specification import ManualClock

from .test_queries import Bank, Live
from .test_timers import CALENDAR

BEGINS = datetime(2026, 1, 15, tzinfo=UTC)
ALL_DUE = CALENDAR.at(date(2026, 2, 1), time(12))
A, B, C, D, E = [uuid5(UUID(int=7), name) for name in "abcde"]


async def built_in():
    return TierRuleVersions()


class Assessing:
    """Customers with accounts, in the store and in the views, and processes that give their timers."""

    def __init__(self, handler, store, ring, mongo, url, schema):
        self.clock, self.bank = ManualClock(BEGINS), Bank(ring)
        self.handler, self.store, self.mongo = handler, store, mongo
        self.url, self.schema, self.commands = url, schema, 0
        self.queries = Queries(mongo, Live(), ring, today=self.today)

    def today(self):
        return CALENDAR.business_date(self.clock.now())

    async def do(self, subject, command):
        self.commands += 1
        id = uuid5(subject, str(self.commands))
        context = CommandContext(actor="staff", now=self.clock.now(), command_id=id)
        return await self.handler.handle(subject, command, context)

    async def registered(self, *customers):
        """Registers customers, each with a number at the core bank."""
        for one in customers:
            await self.do(one, RegisterCustomer(Details(name="张伟")))
            self.bank.customer(one, "张伟", ("core", str(one)))

    def account(self, product, *owners):
        number = f"6222{len(self.bank.sequences):012d}"
        first, *others = [str(one) for one in owners]
        return self.bank.account(
            "core", number, product, (first, "owner"), *[(one, "joint") for one in others]
        )

    async def derived(self, day=None):
        """Shows what was told, and derives the facts of a day, today's where none is named."""
        shown = {f"{view.VIEW.name}_v1_{key.collection}" for view, key in self.bank.folded}
        for name in shown | {f"{VIEW.name}_v1_{one.name}" for one in VIEW.collections}:
            await self.mongo.drop(name)
        await self.bank.keep(self.mongo)
        await self.bank.keep_facts(self.mongo, day or self.today())

    async def facts(self, customer):
        return await self.queries.facts.one(Scope.all(), str(customer), None)

    @asynccontextmanager
    async def process(self, facts=None):
        """A process of the role, as its loop and its lease."""
        row, table = PostgresLease(self.url, self.schema, TIMERS_LEASE), PostgresTimers(self.url, self.schema)
        lease = Lease(row, self.clock)
        timer = tier_timer(self.handler, facts or self.facts, built_in, CALENDAR)
        decode = catalogue().decode
        loop = TimerLoop("timers", [timer], self.store, decode, table, lease, self.clock, generation="1")
        try:
            await loop.begin()
            yield loop, lease
        finally:
            await lease.release()
            await row.close()
            await table.close()

    async def assessed(self):
        """Gives what is due, by one process."""
        async with self.process() as (loop, lease):
            while await loop.turn(await lease.acquire()):
                pass

    async def tiers(self, customer):
        """The assessments of a customer: month, tier, and average."""
        found = [catalogue().decode(one).event for one in await self.store.read_stream(customer)]
        return [(one.month, one.tier, one.average_minor) for one in found if isinstance(one, TierAssessed)]

    def pass_until(self, at):
        self.clock.advance((at - self.clock.now()).total_seconds())


@pytest.fixture
def bank_of(handler, store, key_ring, mongo, postgres_url, schema):
    return Assessing(handler, store, key_ring, mongo, postgres_url, schema)


@pytest.mark.requirement("R021", "M06")
async def test_the_limits_of_the_tiers_from_postings_to_assessments(bank_of):
    limits = {A: 49_999_999, B: 50_000_000, C: 599_999_999, D: 600_000_000}
    await bank_of.registered(*limits)
    for customer, minor in limits.items():
        account = bank_of.account("deposit", customer)
        bank_of.bank.posting(account, minor, "2025-12-31")
    bank_of.pass_until(ALL_DUE)
    await bank_of.derived()
    await bank_of.assessed()
    assert {one: await bank_of.tiers(one) for one in limits} == {
        A: [("2026-01", "mass", 49_999_999)],
        B: [("2026-01", "wealth", 50_000_000)],
        C: [("2026-01", "wealth", 599_999_999)],
        D: [("2026-01", "private", 600_000_000)],
    }


@pytest.mark.requirement("R021")
async def test_what_counts_as_assets_of_the_month(bank_of):
    """By the end of each day, in the currency of the rules, without what is owed, and for each owner in full."""
    await bank_of.registered(A, B, C, D, E)
    posting = bank_of.bank.posting
    a_day, other, owed, joint = [bank_of.account("deposit", *owners) for owners in ((A,), (B,), (C,), (D, E))]
    posting(a_day, 31 * 50_000_000, "2026-01-31")  # one of 31 days
    posting(a_day, 10**12, "2026-02-01")
    posting(other, 10**12, "2025-12-31", currency="USD")
    posting(owed, -(10**12), "2025-12-31")
    posting(bank_of.account("wealth", C), 50_000_000, "2025-12-31")
    posting(joint, 600_000_000 * 31, "2026-01-31")
    bank_of.pass_until(ALL_DUE)
    await bank_of.derived()
    await bank_of.assessed()
    assert {one: await bank_of.tiers(one) for one in (A, B, C, D, E)} == {
        A: [("2026-01", "wealth", 50_000_000)],
        B: [("2026-01", "mass", 0)],
        C: [("2026-01", "wealth", 50_000_000)],
        D: [("2026-01", "private", 600_000_000)],
        E: [("2026-01", "private", 600_000_000)],
    }


@pytest.mark.requirement("M06")
async def test_a_correction_after_the_assessment_changes_none_and_counts_as_the_month_before(bank_of):
    await bank_of.registered(A, B)
    for customer in (A, B):
        posted = bank_of.bank.posting(bank_of.account("deposit", customer), 600_000_000, "2025-12-31")
    bank_of.pass_until(ALL_DUE)
    await bank_of.derived()
    await bank_of.assessed()
    bank_of.bank.reversal(posted, "2026-02-20")  # that of B, of which January had nothing then
    bank_of.pass_until(CALENDAR.at(date(2026, 3, 1), time(12)))
    await bank_of.derived()
    await bank_of.assessed()
    first = ("2026-01", "private", 600_000_000)
    assert await bank_of.tiers(A) == [first, ("2026-02", "private", 600_000_000)]
    assert await bank_of.tiers(B) == [first, ("2026-02", "mass", 0)]


@pytest.mark.requirement("M06")
async def test_facts_of_the_day_before_or_none_are_not_assessed_and_hold_back_nobody(bank_of):
    await bank_of.registered(A, B)
    bank_of.bank.posting(bank_of.account("deposit", A), 50_000_000, "2025-12-31")
    await bank_of.do(C, RegisterCustomer(Details(name="李娜")))  # and in no view
    bank_of.pass_until(ALL_DUE)
    await bank_of.derived(date(2026, 1, 31))
    await bank_of.assessed()
    assert await bank_of.tiers(A) == await bank_of.tiers(B) == []
    await bank_of.derived()
    bank_of.clock.advance(30)
    await bank_of.assessed()
    assert [len(await bank_of.tiers(one)) for one in (A, B, C)] == [1, 1, 0]


@pytest.mark.requirement("M06")
async def test_a_process_that_lost_the_lease_while_it_assessed_assesses_nothing_again(bank_of):
    await bank_of.registered(A)
    bank_of.pass_until(ALL_DUE)
    await bank_of.derived()
    asked, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly(customer):
        found = await bank_of.facts(customer)
        asked.set()
        await goes_on.wait()
        return {**found, "aum_month_average": {}}  # another answer than that of the other process

    async with bank_of.process(slowly) as (loop, lease):
        epoch = await lease.acquire()
        late = asyncio.ensure_future(loop.turn(epoch))
        await asked.wait()
        await lease.release()
        await bank_of.assessed()
        goes_on.set()
        with pytest.raises(Fenced):
            await late
    assert await bank_of.tiers(A) == [("2026-01", "mass", 0)]
    await bank_of.assessed()
    assert len(await bank_of.tiers(A)) == 1


@pytest.mark.requirement("M06")
async def test_a_crash_between_the_assessment_and_its_record_repeats_nothing_also_in_the_next_month(bank_of):
    await bank_of.registered(A)
    bank_of.pass_until(ALL_DUE)
    await bank_of.derived()

    class Crashed(BaseException):
        """The process ends."""

    def crash(point):
        if point == "after-append":
            raise Crashed

    async with bank_of.process() as (loop, lease):
        handler, reached = bank_of.handler, bank_of.handler._reached
        handler._reached = crash
        with pytest.raises(Crashed):
            await loop.turn(await lease.acquire())
        handler._reached = reached
    handler.forget(A)
    assert len(await bank_of.tiers(A)) == 1
    await bank_of.assessed()
    bank_of.pass_until(CALENDAR.at(date(2026, 2, 28), time(23, 59)))
    await bank_of.assessed()
    assert len(await bank_of.tiers(A)) == 1
    bank_of.pass_until(CALENDAR.at(date(2026, 3, 1), time(12)))
    await bank_of.derived()
    await bank_of.assessed()
    assert [month for month, _, _ in await bank_of.tiers(A)] == ["2026-01", "2026-02"]


@pytest.mark.requirement("M06")
async def test_while_the_views_do_not_answer_no_timer_fails_and_all_are_assessed_afterwards(bank_of):
    customers = [uuid5(A, str(number)) for number in range(5)]
    await bank_of.registered(*customers)
    bank_of.pass_until(ALL_DUE)
    await bank_of.derived()

    async def away(_):
        raise StoreUnavailable("the views")

    async with bank_of.process(away) as (loop, lease):
        for _ in range(5):
            with pytest.raises(StoreUnavailable):
                await loop.turn(await lease.acquire())
    await bank_of.assessed()
    assert [len(await bank_of.tiers(one)) for one in customers] == [1] * 5


@pytest.mark.requirement("M06", "M22")
async def test_who_is_erased_while_it_is_assessed_has_no_tier(bank_of):
    await bank_of.registered(A)
    bank_of.pass_until(ALL_DUE)
    await bank_of.derived()

    async def erased_meanwhile(customer):
        found = await bank_of.facts(customer)
        await bank_of.do(customer, EraseCustomer((), (), BEGINS.date()))
        return found

    async with bank_of.process(erased_meanwhile) as (loop, lease):
        await loop.turn(await lease.acquire())
    await bank_of.assessed()
    bank_of.clock.advance(timedelta(days=60).total_seconds())
    await bank_of.assessed()
    assert await bank_of.tiers(A) == []
