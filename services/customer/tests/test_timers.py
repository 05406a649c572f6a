"""Reviews of key customers, business days, claimed numbers and proposals, over a simulated year."""

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

import pytest
from chassis.calendar import Calendar, Span, public_holidays
from chassis.notices import Notices
from chassis.process.leases import Lease
from chassis.proposals import FourEyes, Proposable, ProposalHasExpired
from chassis.proposals.deciding import ProposalApproved, ProposalExpired, ProposalRejected, ProposalWithdrawn
from chassis.proposals.expiring import expiring_timer
from chassis.timers import TimerLoop
from chassis.timers.business_days import (
    BusinessDayOpened,
    business_day_timer,
    business_days_decider,
    business_days_stream,
    open_first_day,
)
from chassis.timers.loop import GIVEN_AT_ONCE_MAX
from chassis.write.deciding import CommandContext
from chassis.write.handling import CommandHandler
from contracts.purposes import CONTACT
from customer.catalogue import catalogue
from customer.domain.commands import (
    ConfirmReference,
    Details,
    EndKeyCustomer,
    EraseCustomer,
    LinkReference,
    NameKeyCustomer,
    Reference,
    RegisterCustomer,
    RejectReference,
    RemindOfReview,
    ReviewCustomer,
    UnlinkReference,
)
from customer.domain.customer import customer_decider
from customer.domain.events import (
    CustomerErased,
    CustomerRegistered,
    CustomerReviewed,
    NamedKeyCustomer,
    NoLongerKeyCustomer,
    ReviewFellDue,
)
from customer.domain.refusals import NotAKeyCustomer
from customer.domain.reviewing import month_after
from customer.notices import TEMPLATES
from customer.timers import CLAIMS_WAIT, claim_timer, review_timer

from tests.simulation.kernel import Faults, Kernel
from tests.simulation.servers import Flaws, LogServer, PositionServer
from tests.simulation.store import SimulatedKeys, StoreClient
from tests.simulation.timing import TableFlaws, TimerClient, TimerServer
from tests.support.specification import ManualClock, Specification

customer = Specification(customer_decider)
REGISTERED = CustomerRegistered(name="张伟", kind="person", origin="staff")
NAMED = NamedKeyCustomer(review_due_on=date(2026, 2, 28))
CALENDAR = Calendar(ZoneInfo("Asia/Shanghai"), public_holidays(), (Span.of("09:00-17:00"),))
ZHANG, LI, WANG = UUID(int=1), UUID(int=2), UUID(int=3)
PROPOSALS_LIVE = timedelta(days=14)


@pytest.mark.requirement("R020")
def test_a_review_is_due_a_month_after_the_one_before():
    customer.given(REGISTERED).when(NameKeyCustomer(date(2026, 1, 31))).then(NAMED)
    reviewed = CustomerReviewed(reviewed_on=date(2026, 2, 27), review_due_on=date(2026, 3, 27))
    customer.given(REGISTERED, NAMED).when(ReviewCustomer(date(2026, 2, 27))).then(reviewed)
    assert month_after(date(2026, 12, 31)) == date(2027, 1, 31)


def test_a_customer_is_named_once_and_reviewed_only_while_it_is_a_key_customer():
    customer.given(REGISTERED, NAMED).when(NameKeyCustomer(date(2026, 2, 1))).then()
    customer.given(REGISTERED).when(ReviewCustomer(date(2026, 2, 1))).then_rejected(NotAKeyCustomer)
    customer.given(REGISTERED).when(EndKeyCustomer()).then()
    customer.given(REGISTERED, NAMED).when(EndKeyCustomer()).then(NoLongerKeyCustomer())


def test_a_review_that_is_recorded_late_puts_no_later_one_back():
    reviewed = CustomerReviewed(reviewed_on=date(2026, 2, 27), review_due_on=date(2026, 3, 27))
    late = ReviewCustomer(date(2026, 2, 26))
    customer.given(REGISTERED, NAMED, reviewed).when(late).then()
    again = CustomerReviewed(reviewed_on=date(2026, 2, 27), review_due_on=date(2026, 3, 27))
    customer.given(REGISTERED, NAMED, reviewed).when(ReviewCustomer(date(2026, 2, 27))).then(again)


@pytest.mark.requirement("R020")
def test_a_reminder_comes_once_and_only_of_the_review_that_is_open():
    remind = RemindOfReview(date(2026, 2, 28))
    due = ReviewFellDue(due_on=date(2026, 2, 28))
    customer.given(REGISTERED, NAMED).when(remind).then(due)
    customer.given(REGISTERED, NAMED, due).when(remind).then()
    reviewed = CustomerReviewed(reviewed_on=date(2026, 2, 27), review_due_on=date(2026, 3, 27))
    customer.given(REGISTERED, NAMED, reviewed).when(remind).then()
    customer.given(REGISTERED, NAMED, NoLongerKeyCustomer()).when(remind).then()
    customer.given(REGISTERED, NAMED, CustomerErased(parties=(), accounts=())).when(
        ReviewCustomer(date(2026, 3, 1))
    )


@pytest.mark.requirement("R020")
async def test_a_review_that_is_recorded_after_the_reminder_is_not_reminded_of_again():
    """Two reviews on days of which the next one is due on the same day: the second is recorded when that has come."""
    year = Year(datetime(2026, 1, 28, 1, tzinfo=UTC))
    await year.do(ZHANG, RegisterCustomer(Details(name="张伟")))
    await year.do(ZHANG, NameKeyCustomer(date(2026, 1, 28)))
    await year.pass_until(datetime(2026, 2, 28, 2, tzinfo=UTC))
    [(first, _)] = year.happened(ZHANG, ReviewFellDue)
    assert first == ReviewFellDue(due_on=date(2026, 2, 28))
    for day in (28, 31):
        await year.do(ZHANG, ReviewCustomer(date(2026, 1, day)))
        await year.pass_until(year.clock.now() + timedelta(days=2))
    assert [event.reviewed_on.day for event, _ in year.happened(ZHANG, CustomerReviewed)] == [28, 31]
    assert len(year.happened(ZHANG, ReviewFellDue)) == 1
    await year.do(ZHANG, ReviewCustomer(date(2026, 3, 1)))
    await year.pass_until(datetime(2026, 4, 2, tzinfo=UTC))
    assert [event.due_on for event, _ in year.happened(ZHANG, ReviewFellDue)] == [
        date(2026, 2, 28),
        date(2026, 4, 1),
    ]


class Year:
    """Customer's timers over a store and a clock of the simulation, without faults."""

    def __init__(self, start: datetime) -> None:
        kernel = Kernel(1, Faults(crash=0, unanswered=0))
        self.clock, self.log = ManualClock(start), LogServer(kernel, Flaws(), abort=0)
        self.store, ring = StoreClient(self.log), SimulatedKeys(kernel, {})
        lease = PositionServer(kernel, Flaws())
        self.customers = CommandHandler(customer_decider, self.store, catalogue(), ring)
        self.days = CommandHandler(business_days_decider, self.store, catalogue(), ring)
        self.lease = Lease(lease, self.clock)
        self.table = TimerClient(TimerServer(kernel, TableFlaws(), lease))
        notices = Notices(self.store, catalogue(), ring, TEMPLATES, purpose=CONTACT)
        naming = Proposable(
            NameKeyCustomer, frozenset({"manager"}), PROPOSALS_LIVE, self.customers.handle, "name"
        )
        self.eyes = FourEyes(self.store, catalogue(), ring, {"name": naming})
        timers = [
            business_day_timer(self.days, CALENDAR),
            review_timer(self.customers, CALENDAR),
            expiring_timer(self.eyes),
            claim_timer(self.customers, notices, CALENDAR),
        ]
        self.loop = self.looping(timers)
        self.commands, self.catalogue = 0, catalogue()

    def looping(self, timers) -> TimerLoop:
        return TimerLoop(
            "year",
            timers,
            self.store,
            catalogue().decode,
            self.table,
            self.lease,
            self.clock,
            generation="1",
        )

    async def do(self, subject, command) -> None:
        await self.customers.handle(subject, command, self.by("staff"))

    async def proposed(self):
        command = NameKeyCustomer(date(2026, 1, 5))
        return await self.eyes.propose("name", ZHANG, command, self.by("lin"))

    def by(self, actor) -> CommandContext:
        self.commands += 1
        id = uuid5(ZHANG, str(self.commands))
        return CommandContext(actor=actor, now=self.clock.now(), command_id=id, reason="asked for")

    async def pass_until(self, end: datetime, each: Callable[[], Awaitable[None]] | None = None) -> None:
        """Lets the time pass from one due time to the next; `each` may act after each turn."""
        await self.loop.begin()
        while self.clock.now() < end:
            due = await self.loop.turn(await self.lease.acquire())
            if each is not None:
                await each()
            if not due:
                until = min(await self.table.next_at() or end, end)
                self.clock.advance(max((until - self.clock.now()).total_seconds(), 0.001))

    async def claim(self, subject, number, claim=None) -> UUID:
        """Staff state that a number of a source is the customer's; the party that it names."""
        party = uuid5(ZHANG, number)
        await self.do(subject, LinkReference(Reference("core", number, party, claim)))
        return party

    def told(self):
        """Which inboxes were told of which customer, and when."""
        requests = [self.catalogue.decode(row) for row in self.log.rows if row.name == "notice-requested"]
        return [(one.event.inbox, one.event.subject, one.metadata.recorded_at) for one in requests]

    def happened(self, subject, kind):
        name = self.catalogue.name_of(kind)
        return [
            (self.catalogue.decode(row).event, self.catalogue.metadata_of(row).recorded_at)
            for row in self.log.rows
            if row.name == name and row.stream_id == subject
        ]


@pytest.mark.requirement("R020")
async def test_a_year_opens_each_business_day_once_and_gives_each_reminder_once():
    begins, ends = datetime(2025, 12, 31, 16, tzinfo=UTC), datetime(2026, 12, 31, 16, tzinfo=UTC)
    year = Year(begins)
    await open_first_day(year.days, "customer", CALENDAR, begins)
    for subject, name in ((ZHANG, "张伟"), (LI, "李娜"), (WANG, "王芳")):
        await year.do(subject, RegisterCustomer(Details(name=name)))
        await year.do(subject, NameKeyCustomer(date(2026, 1, 1)))
    reviewed = 0

    async def each() -> None:
        nonlocal reviewed
        reminders = len(year.happened(ZHANG, ReviewFellDue))
        if reminders > reviewed:  # the first is reviewed as soon as it is reminded of
            reviewed = reminders
            await year.do(ZHANG, ReviewCustomer(CALENDAR.business_date(year.clock.now())))
        if year.clock.now() > begins + timedelta(days=20) and not year.happened(WANG, NoLongerKeyCustomer):
            await year.do(WANG, EndKeyCustomer())

    await year.pass_until(ends, each)
    opened = [event.on for event, _ in year.happened(business_days_stream("customer"), BusinessDayOpened)]
    assert opened == [date(2026, 1, 1) + timedelta(days=n) for n in range(365)]
    kinds = Counter(
        event.kind for event, _ in year.happened(business_days_stream("customer"), BusinessDayOpened)
    )
    assert kinds["make-up-working-day"] == 6
    of_zhang = year.happened(ZHANG, ReviewFellDue)
    assert len({event.due_on for event, _ in of_zhang}) == len(of_zhang) == 11
    assert len(year.happened(LI, ReviewFellDue)) == 1  # nobody reviewed it: reminded of once
    assert year.happened(WANG, ReviewFellDue) == []  # no key customer any more
    mornings = [at.astimezone(CALENDAR.zone) for _, at in of_zhang]
    assert {f"{at:%H:%M}" for at in mornings} == {"09:00"}
    assert all(CALENDAR.is_working_day(at.date()) for at in mornings)


async def test_days_that_an_outage_missed_are_opened_one_after_the_other_and_none_is_left_out():
    begins = datetime(2026, 2, 10, 1, tzinfo=UTC)
    year = Year(begins)
    await open_first_day(year.days, "customer", CALENDAR, begins)
    await year.pass_until(begins + timedelta(days=2))
    year.clock.advance(timedelta(days=14).total_seconds())
    back = year.clock.now()
    await year.loop.begin()
    epoch, turns = await year.lease.acquire(), []
    while given := await year.loop.turn(epoch):
        turns.append(given)
    happened = year.happened(business_days_stream("customer"), BusinessDayOpened)
    assert [event.on for event, _ in happened] == [date(2026, 2, 10) + timedelta(days=n) for n in range(17)]
    assert turns == [1] * 14
    assert {at for _, at in happened[3:]} == {back}
    assert {event.kind for event, _ in happened} > {"public-holiday", "make-up-working-day"}


async def test_a_proposal_on_which_nobody_decides_expires_once_when_its_time_is_over():
    year = Year(datetime(2026, 1, 5, 1, tzinfo=UTC))
    await year.do(ZHANG, RegisterCustomer(Details(name="张伟")))
    begins, made = year.clock.now(), [await year.proposed() for _ in range(4)]
    waiting, approved, rejected, withdrawn = made
    await year.eyes.approve(approved.proposal_id, approved.digest, year.by("chen"), ["manager"])
    await year.eyes.reject(rejected.proposal_id, year.by("chen"), ["manager"])
    await year.eyes.withdraw(withdrawn.proposal_id, year.by("lin"))

    await year.pass_until(begins + PROPOSALS_LIVE - timedelta(seconds=1))
    assert year.happened(waiting.proposal_id, ProposalExpired) == []
    await year.pass_until(begins + timedelta(days=60))
    decided = {
        id.proposal_id: [
            (kind, at)
            for kind in (ProposalExpired, ProposalApproved, ProposalRejected, ProposalWithdrawn)
            for _, at in year.happened(id.proposal_id, kind)
        ]
        for id in made
    }
    assert decided == {
        waiting.proposal_id: [(ProposalExpired, begins + PROPOSALS_LIVE)],
        approved.proposal_id: [(ProposalApproved, begins)],
        rejected.proposal_id: [(ProposalRejected, begins)],
        withdrawn.proposal_id: [(ProposalWithdrawn, begins)],
    }


async def test_proposals_that_expired_during_an_outage_are_expired_afterwards_a_bounded_number_a_turn():
    year = Year(datetime(2026, 1, 5, 1, tzinfo=UTC))
    await year.do(ZHANG, RegisterCustomer(Details(name="张伟")))
    made = [await year.proposed() for _ in range(GIVEN_AT_ONCE_MAX + 20)]
    year.clock.advance((PROPOSALS_LIVE * 2).total_seconds())
    late = made[-1]
    with pytest.raises(ProposalHasExpired):
        await year.eyes.approve(late.proposal_id, late.digest, year.by("chen"), ["manager"])
    await year.loop.begin()
    epoch = await year.lease.acquire()
    turns = [await year.loop.turn(epoch) for _ in range(3)]
    assert turns == [GIVEN_AT_ONCE_MAX, 20, 0]
    expired = [row.stream_id for row in year.log.rows if row.name == "proposal-expired"]
    assert sorted(expired) == sorted(one.proposal_id for one in made)


IN_INBOX = "role:relationship-manager"


async def test_a_year_of_claimed_numbers_tells_once_of_each_that_waits_for_four_working_hours():
    begins, ends = datetime(2025, 12, 31, 16, tzinfo=UTC), datetime(2026, 12, 31, 16, tzinfo=UTC)
    year, waiting = Year(begins), []
    await year.do(ZHANG, RegisterCustomer(Details(name="张伟")))
    for number in range(36):
        claimed_at = begins + timedelta(days=10 * number, hours=7 * number % 24)  # on all days, at all hours
        await year.pass_until(claimed_at)
        party = await year.claim(ZHANG, f"{number}")
        if number % 3 == 0:
            waiting.append(year.clock.now())
            continue
        await year.pass_until(claimed_at + CLAIMS_WAIT - timedelta(minutes=1))
        await year.do(ZHANG, (ConfirmReference if number % 3 == 1 else RejectReference)(party))
    await year.pass_until(ends)
    told_at = [at for inbox, subject, at in year.told() if (inbox, subject) == (IN_INBOX, ZHANG)]
    assert len(told_at) == len(year.told()) == len(waiting) == 12
    for claimed_at, at in zip(waiting, told_at, strict=True):
        assert CALENDAR.working_time_between(claimed_at, at) == CLAIMS_WAIT
        shown = at.astimezone(CALENDAR.zone)
        assert CALENDAR.is_working_day(shown.date())
        assert "09:00" < f"{shown:%H:%M}" <= "17:00"


async def test_a_claimed_number_is_told_of_in_the_branch_of_the_customer_alone():
    monday = datetime(2026, 1, 12, 2, tzinfo=UTC)
    year = Year(monday)
    await year.do(ZHANG, RegisterCustomer(Details(name="张伟", branch="支行007")))
    await year.claim(ZHANG, "1")
    await year.pass_until(monday + timedelta(days=1))
    assert year.told() == [(f"{IN_INBOX}@支行007", ZHANG, monday + CLAIMS_WAIT)]


async def test_of_a_number_that_was_settled_and_of_an_erased_customer_nobody_is_told():
    friday = datetime(2026, 1, 9, 7, tzinfo=UTC)  # 15:00 in Shanghai
    year = Year(friday)
    for subject, name in ((ZHANG, "张伟"), (LI, "李娜"), (WANG, "王芳")):
        await year.do(subject, RegisterCustomer(Details(name=name)))
    first = await year.claim(ZHANG, "1")
    await year.claim(ZHANG, "2")
    given_up = await year.claim(LI, "3")
    await year.claim(WANG, "4")
    await year.do(ZHANG, ConfirmReference(first))
    await year.do(LI, UnlinkReference(given_up, date(2026, 1, 9)))
    await year.do(WANG, EraseCustomer((), (), date(2026, 1, 9)))
    monday = datetime(2026, 1, 12, 3, tzinfo=UTC)
    await year.pass_until(monday)
    assert year.told() == []
    await year.pass_until(monday + timedelta(days=7))
    assert year.told() == [(IN_INBOX, ZHANG, monday)]


async def test_a_number_that_is_claimed_again_waits_anew():
    monday = datetime(2026, 1, 12, 2, tzinfo=UTC)
    year = Year(monday)
    await year.do(ZHANG, RegisterCustomer(Details(name="张伟")))
    party = await year.claim(ZHANG, "1")
    await year.pass_until(monday + timedelta(hours=3))
    await year.do(ZHANG, RejectReference(party))
    await year.claim(ZHANG, "1", uuid5(party, "again"))
    await year.pass_until(monday + timedelta(days=7))
    assert year.told() == [(IN_INBOX, ZHANG, monday + timedelta(hours=7))]
