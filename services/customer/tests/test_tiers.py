"""The tiers of customers: the rules of a month as given, when, then; and a year of assessments."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID, uuid5

import pytest
from chassis.timers import NotReady
from chassis.write.deciding import CommandContext
from chassis.write.events import RecordedEvent
from customer.derived.customer_facts import CHANGES_ON
from customer.domain.commands import AssessTier, Details, EraseCustomer, RegisterCustomer
from customer.domain.customer import customer_decider
from customer.domain.events import CustomerErased, CustomerRegistered, TierAssessed
from customer.domain.refusals import CustomerIsErased, CustomerNotRegistered
from customer.domain.tier_rules import TierRuleVersions
from customer.months import month_after
from customer.tiers import assessing
from customer.timers import review_timer, tier_rule, tier_timer
from hypothesis import given
from hypothesis import strategies as st

from tests.support.specification import Specification

from .test_timers import CALENDAR, LI, ZHANG, Year

customer = Specification(customer_decider)
registered = CustomerRegistered(name="张伟", kind="person", origin="staff")
MASS, WEALTH, PRIVATE = 49_999_999, 50_000_000, 600_000_000
LARGEST = 9 * 10**18


def assessed(tier, because, average, before=None, month="2026-02"):
    return TierAssessed(
        month=month,
        tier=tier,
        because=because,
        rules=1,
        currency="CNY",
        average_minor=average,
        average_before_minor=before,
    )


@pytest.mark.requirement("R021", "M06")
@pytest.mark.parametrize(
    ("average", "tier"),
    [
        (0, "mass"),
        (49_999_999, "mass"),
        (50_000_000, "wealth"),
        (599_999_999, "wealth"),
        (600_000_000, "private"),
        (LARGEST, "private"),
    ],
)
def test_a_tier_begins_at_its_limit_and_the_assessment_keeps_its_rules_and_its_inputs(average, tier):
    customer.given(registered).when(AssessTier("2026-02", average, 7)).then(assessed(tier, "met", average, 7))


@pytest.mark.requirement("R021", "M06")
@pytest.mark.parametrize(
    ("now", "before", "average", "tier", "because"),
    [
        ("mass", MASS, PRIVATE, "private", "met"),  # up at once, over a tier
        ("private", PRIVATE, MASS, "private", "grace"),  # the first month below
        ("private", MASS, MASS, "mass", "met"),  # the second one
        ("private", WEALTH, MASS, "wealth", "grace"),  # what both months reached
        ("private", MASS, WEALTH, "wealth", "met"),
        (
            "wealth",
            PRIVATE,
            MASS,
            "wealth",
            "grace",
        ),  # the month before reached more than the tier that was given
        ("private", None, MASS, "private", "grace"),  # nobody knows of a second month below
        ("wealth", MASS, WEALTH, "wealth", "met"),
    ],
)
def test_a_tier_is_reached_at_once_and_left_after_two_months_below_it(now, before, average, tier, because):
    had = assessed(now, "met", PRIVATE, month="2026-01")
    customer.given(registered, had).when(AssessTier("2026-02", average, before)).then(
        assessed(tier, because, average, before)
    )


@pytest.mark.requirement("M06")
def test_a_month_of_which_nothing_is_known_leaves_the_tier_as_it_is():
    had = assessed("wealth", "met", WEALTH, month="2026-01")
    customer.given(registered, had).when(AssessTier("2026-02", None, WEALTH)).then(
        assessed("wealth", "unknown", None, WEALTH)
    )
    customer.given(registered).when(AssessTier("2026-02", None)).then(assessed(None, "unknown", None))


@pytest.mark.requirement("M06")
def test_a_month_is_assessed_once_and_no_earlier_one_after_it():
    done = customer.given(registered, assessed("wealth", "met", WEALTH))
    done.when(AssessTier("2026-02", PRIVATE)).then()
    done.when(AssessTier("2025-12", PRIVATE)).then()


def test_who_is_not_registered_or_erased_has_no_tier():
    customer.given().when(AssessTier("2026-02", WEALTH)).then_rejected(CustomerNotRegistered)
    erased = CustomerErased(parties=(), accounts=())
    customer.given(registered, erased).when(AssessTier("2026-02", WEALTH)).then_rejected(CustomerIsErased)


def known(averages, changes_on="2026-04-01"):
    return {"aum_month_average": averages, CHANGES_ON: changes_on}


@pytest.mark.requirement("R021")
def test_the_last_whole_month_is_assessed_in_the_currency_of_the_rules():
    averages = {"2026-02": {"CNY": 5, "USD": PRIVATE}, "2026-01": {"USD": PRIVATE}}
    assert assessing(known(averages), "2026-03-31") == AssessTier("2026-02", 5, 0)
    assert assessing(known({"2026-01": {"CNY": 5}}), "2026-03-01") == AssessTier("2026-02", None, 5)


@pytest.mark.parametrize("facts", [None, known({}, "2026-03-01")])
def test_nothing_is_assessed_on_facts_of_the_month_before(facts):
    with pytest.raises(NotReady):
        assessing(facts, "2026-03-01")


def morning(year, month):
    return datetime(year, month, 1, 9, tzinfo=CALENDAR.zone)


def recorded(event, subject, at):
    context = CommandContext(actor="a", now=at, command_id=subject)
    return RecordedEvent(1, subject, 1, "stored", event, context.metadata())


INSTANTS = st.one_of(
    st.datetimes(datetime(2024, 1, 1), datetime(2029, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 (Hypothesis adds the zone)
    st.sampled_from(
        [
            datetime(2024, 2, 28, 16, tzinfo=UTC),  # midnight of the 29th of February in Shanghai
            datetime(2024, 2, 29, 15, 59, 59, 999_999, tzinfo=UTC),
            datetime(2024, 2, 29, 16, tzinfo=UTC),
            datetime(2026, 12, 31, 15, 59, tzinfo=UTC),
            datetime(2026, 12, 31, 16, tzinfo=UTC),
        ]
    ),
)


@pytest.mark.requirement("R021")
@given(INSTANTS, st.uuids(version=4), st.sampled_from([time(0), time(22)]))
def test_a_timer_is_due_in_the_first_morning_after_the_business_month_and_the_next_a_month_later(
    instant, subject, cut_off
):
    calendar = replace(CALENDAR, cut_off=cut_off)
    rule = tier_rule(calendar)

    def due_after(event):
        [one] = rule.changes(recorded(event, subject, instant))
        local = one.due_at.astimezone(calendar.zone)
        assert (local.day, 9 <= local.hour < 12) == (1, True)
        return one.due_at

    due_at, day = due_after(registered), calendar.business_date(instant).isoformat()
    assert instant < due_at < instant + timedelta(days=32, hours=12)
    assert month_after(day) == calendar.business_date(due_at).isoformat()
    command = assessing(known({}, "2030-01-01"), month_after(day))
    assert command.month == day[:7]
    following = due_after(assessed("mass", "met", 0, month=command.month))
    assert calendar.business_date(following).isoformat() == month_after(month_after(day))
    assert due_at.astimezone(calendar.zone).time() == following.astimezone(calendar.zone).time()


def test_not_all_customers_are_due_at_once():
    rule, minutes = tier_rule(CALENDAR), Counter()
    for number in range(18_000):
        subject = uuid5(ZHANG, str(number))
        [one] = rule.changes(recorded(registered, subject, morning(2026, 1)))
        minutes[(one.due_at - morning(2026, 2)) // timedelta(minutes=1)] += 1
    assert {*minutes} == {*range(180)}
    assert max(minutes.values()) < 200, "a hundred on average"


class Tiered(Year):
    """A year in which everybody's facts are derived, and say the same of each month."""

    def __init__(self, start: datetime, average: int) -> None:
        super().__init__(start)
        self.average, self.derived_from = average, start
        self.rules = TierRuleVersions()
        self.loop = self.looping([self.assessing()])

    def assessing(self):
        return tier_timer(self.customers, self.facts, self.versions, CALENDAR)

    async def versions(self):
        return self.rules

    def effective(self, subject):
        """From when each assessment of a customer is effective."""
        return [
            self.catalogue.metadata_of(row).effective_at
            for row in self.log.rows
            if (row.stream_id, row.name) == (subject, "tier-assessed")
        ]

    async def facts(self, subject: UUID):
        if self.clock.now() < self.derived_from:
            return None
        day = CALENDAR.business_date(self.clock.now()).isoformat()
        months = {f"{year}-{month:02d}" for year in (2025, 2026) for month in range(1, 13)}
        return known({month: {"CNY": self.average} for month in months}, month_after(day))


@pytest.mark.requirement("R021", "M06")
async def test_a_year_assesses_each_month_of_each_customer_once():
    year = Tiered(datetime(2026, 1, 15, tzinfo=UTC), WEALTH)
    await year.do(ZHANG, RegisterCustomer(Details(name="张伟")))
    await year.do(LI, RegisterCustomer(Details(name="李娜")))
    await year.pass_until(datetime(2026, 6, 15, tzinfo=UTC))
    await year.do(LI, EraseCustomer((), (), date(2026, 6, 15)))
    await year.pass_until(datetime(2026, 12, 31, tzinfo=UTC))
    of_zhang = year.happened(ZHANG, TierAssessed)
    assert [event.month for event, _ in of_zhang] == [f"2026-{month:02d}" for month in range(1, 12)]
    assert {CALENDAR.business_date(at).day for _, at in of_zhang} == {1}
    assert {event.tier for event, _ in of_zhang} == {"wealth"}
    assert [event.month for event, _ in year.happened(LI, TierAssessed)] == [
        f"2026-{month:02d}" for month in range(1, 6)
    ]


@pytest.mark.requirement("M06")
async def test_after_an_outage_of_months_the_last_whole_month_is_assessed_and_then_each():
    year = Tiered(datetime(2026, 1, 15, tzinfo=UTC), WEALTH)
    await year.do(ZHANG, RegisterCustomer(Details(name="张伟")))
    year.clock.advance((datetime(2026, 5, 20, tzinfo=UTC) - year.clock.now()).total_seconds())
    await year.pass_until(datetime(2026, 7, 2, tzinfo=UTC))
    assert [event.month for event, _ in year.happened(ZHANG, TierAssessed)] == [
        "2026-04",
        "2026-05",
        "2026-06",
    ]
    assert date(2026, 5, 20) == CALENDAR.business_date(year.happened(ZHANG, TierAssessed)[0][1])
    assert year.effective(ZHANG) == [morning(2026, month) for month in (5, 6, 7)]


@pytest.mark.requirement("M06")
async def test_who_was_registered_before_there_were_tiers_is_assessed_once_and_has_the_tier_from_this_month_on():
    year = Tiered(datetime(2024, 1, 15, tzinfo=UTC), WEALTH)
    before, year.loop = year.loop, year.looping([review_timer(year.customers, CALENDAR)])
    for subject in (ZHANG, LI):
        await year.do(subject, RegisterCustomer(Details(name="张伟")))
    await year.pass_until(datetime(2026, 4, 20, tzinfo=UTC))
    assert year.happened(ZHANG, TierAssessed) == []
    year.loop = before
    year.table._server.folded = None  # as with the version of a release that has another timer
    await year.pass_until(datetime(2026, 4, 21, tzinfo=UTC))
    for subject in (ZHANG, LI):
        assert [event.month for event, _ in year.happened(subject, TierAssessed)] == ["2026-03"]
        assert year.effective(subject) == [morning(2026, 4)]


@pytest.mark.requirement("M06")
async def test_who_has_no_facts_for_hours_is_assessed_when_they_are_derived_and_nobody_is_asked():
    year = Tiered(datetime(2026, 1, 15, tzinfo=UTC), WEALTH)
    await year.do(ZHANG, RegisterCustomer(Details(name="张伟")))
    year.derived_from = morning(2026, 2) + timedelta(hours=9)
    await year.pass_until(datetime(2026, 3, 2, tzinfo=UTC))
    [(first, at), (second, _)] = year.happened(ZHANG, TierAssessed)
    assert (first.month, second.month) == ("2026-01", "2026-02")
    assert year.derived_from <= at < year.derived_from + timedelta(hours=1)
