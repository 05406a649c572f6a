"""Balances of months against a model that knows every day."""

from calendar import monthrange
from datetime import date, timedelta

import bson
import pytest
from chassis.money import AMOUNT_MINOR_MAX, TURNOVER_MINOR_MAX
from customer.derived.customer_facts import facts, months_falling
from customer.months import (
    MONTHS_SHOWN,
    MONTHS_SUMMED_MAX,
    MonthBalance,
    Wanted,
    add_posting,
    balances,
    month_after,
    whole_months,
)
from hypothesis import example, given
from hypothesis import strategies as st

from .test_facts import customer
from .test_panorama import documents, opened
from .told import Teller

FIRST, TODAY = date(2023, 11, 1), date(2024, 12, 10)
"""Between them lie the months that are shown on the latter day, and the 29th of February."""
DAYS = st.one_of(
    st.dates(FIRST, TODAY),
    st.sampled_from([date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1), date(2024, 11, 30), TODAY]),
)
AMOUNTS = st.one_of(
    st.integers(-(10**6), 10**6), st.sampled_from([1, -1, AMOUNT_MINOR_MAX, -AMOUNT_MINOR_MAX])
).filter(bool)
POSTINGS = st.lists(st.tuples(DAYS, AMOUNTS, st.sampled_from(["CNY", "USD"])), max_size=30)


def of_every_day(posted, month, days):
    """The closing balance of a month, and the sum of the daily ones of its first days; the balance before `FIRST` is 0."""
    first = date.fromisoformat(f"{month}-01")
    ends = [
        sum(amount for day, amount in posted if day <= first + timedelta(days=number))
        for number in range(monthrange(first.year, first.month)[1])
    ]
    return MonthBalance(ends[-1], sum(ends[:days]))


def summed(posted):
    sums = {}
    for day, amount in posted:
        add_posting(sums, day.isoformat(), amount)
    return sums


@given(POSTINGS, st.randoms(use_true_random=False))
def test_balances_of_months_are_those_of_every_day_whatever_the_order(posted, chance):
    ours = [(day, amount) for day, amount, _ in posted]
    shuffled = chance.sample(ours, len(ours))
    wanted = [Wanted("2024-12", TODAY.day), *whole_months(TODAY.isoformat())]
    assert [one.month for one in wanted] == sorted([one.month for one in wanted], reverse=True)
    found = balances(sum(amount for _, amount in ours), summed(shuffled), wanted)
    assert found == {month: of_every_day(ours, month, days) for month, days in wanted}
    assert summed(shuffled) == summed(ours)


@given(POSTINGS, st.lists(st.integers(0, 29), max_size=5), st.randoms(use_true_random=False))
@example([(date(2024, 2, 29), 5, "CNY")], [0], None)
def test_facts_of_months_are_sums_of_every_day_without_what_was_reversed(posted, reversed_, chance):
    teller = Teller()
    products = ("deposit", "wealth", "loan", "card")
    accounts, events = [], []
    for number, product in enumerate(products):
        account, told = opened(teller, number + 1, product)
        accounts.append(account)
        events += told
    moved, left = [], []
    for number, (day, amount, currency) in enumerate(posted):
        account = accounts[number % len(accounts)]
        moved.append(teller.posting(account, amount, day.isoformat(), currency=currency))
        if number in reversed_:
            moved.append(teller.reversal(moved[-1], TODAY.isoformat()))
        else:
            left.append((account, currency, day, amount))
    if chance is not None:
        chance.shuffle(moved)
    of_it = facts(customer(), documents([*events, *moved]), TODAY.isoformat())
    assert bson.decode(bson.encode(of_it)) == of_it
    places = {(account, currency) for account, currency, *_ in left}
    assert sorted(of_it["aum_month_end"]) == sorted(of_it["aum_month_average"])
    assert len(of_it["aum_month_end"]) == MONTHS_SHOWN
    for month, days in whole_months(TODAY.isoformat()):
        closing, daily = {}, {}
        for place in places:
            model = of_every_day([one[2:] for one in left if one[:2] == place], month, days)
            closing[place[1]] = closing.get(place[1], 0) + max(0, model.closing_minor)
            daily[place[1]] = daily.get(place[1], 0) + max(0, model.daily_minor)
        assert of_it["aum_month_end"][month] == {one: minor for one, minor in closing.items() if minor}
        assert of_it["aum_month_average"][month] == {
            one: minor // days for one, minor in daily.items() if minor
        }
    for field, months in (("aum_month_average", 1), ("aum_month_end", 3), ("aum_month_end", 12)):
        month = whole_months(TODAY.isoformat())[months - 1].month
        minor = of_it[field][month].get("CNY", 0)
        assert of_it["ago"][f"{field}-{months}-CNY"] == minor
        assert of_it["ago"][f"{field}-{months}-CNY-magnitude"] == minor.bit_length()
    assert of_it["ago"]["of"] == TODAY.isoformat()[:7]


@given(
    st.lists(st.tuples(st.dates(date(2021, 1, 1), date(2026, 12, 31)), AMOUNTS), max_size=60),
    st.randoms(use_true_random=False),
    st.sampled_from(["2024-03-31", "2024-12-31", "2025-01-01"]),
)
def test_what_is_shown_of_a_month_is_right_however_old_or_ahead_the_postings_are(posted, chance, day):
    """Postings of six years: months before the earliest kept are left out, never shown with what was forgotten of them."""
    sums = summed(chance.sample(posted, len(posted)))
    assert sums == summed(posted)
    booked = sorted({on.isoformat()[:7] for on, _ in posted})
    assert sorted(sums) == booked[-MONTHS_SUMMED_MAX:]
    forgotten = len(booked) >= MONTHS_SUMMED_MAX
    wanted = [one for one in whole_months(day) if not forgotten or one.month >= min(sums)]
    found = balances(sum(amount for _, amount in posted), sums, whole_months(day))
    assert found == {month: of_every_day(posted, month, days) for month, days in wanted}


def test_an_average_and_a_month_end_by_hand():
    """100.00 on the 11th and 20.00 more on the last day of February: 19 days of the one, one day of the other."""
    posted = [(date(2024, 2, 11), 100_00), (date(2024, 2, 29), 20_00)]
    found = balances(120_00, summed(posted), whole_months("2024-03-01"))
    assert found["2024-02"] == MonthBalance(120_00, 19 * 100_00 + 20_00)
    assert found["2024-01"] == MonthBalance(0, 0)


def test_the_running_month_is_averaged_up_to_a_day():
    sums = summed([(date(2024, 2, 1), 30), (date(2024, 2, 3), 60), (date(2024, 2, 4), 500)])
    assert balances(590, sums, [Wanted("2024-02", 3)])["2024-02"].daily_minor == 30 + 30 + 90


def test_a_sum_of_days_beyond_an_integer_of_the_database_stays_exact():
    pairs = 400
    posted = [(date(2024, 1, 1), AMOUNT_MINOR_MAX), (date(2024, 1, 31), -AMOUNT_MINOR_MAX)] * pairs
    sums = summed(posted)
    assert bson.decode(bson.encode({"months": sums})) == {"months": sums}
    wanted = whole_months("2024-02-01")
    assert balances(0, sums, wanted)["2024-01"].daily_minor == 30 * pairs * AMOUNT_MINOR_MAX > 2**63
    for _ in range(pairs):
        add_posting(sums, "2024-01-01", -AMOUNT_MINOR_MAX)
        add_posting(sums, "2024-01-31", AMOUNT_MINOR_MAX)
    assert sums == {"2024-01": [0, 0]}


def test_a_figure_of_a_month_beyond_every_amount_is_kept_as_the_largest_one():
    teller = Teller()
    account, events = opened(teller, 1, "deposit")
    for _ in range(9_500):
        events.append(teller.posting(account, AMOUNT_MINOR_MAX, "2024-01-31"))
        events.append(teller.posting(account, -AMOUNT_MINOR_MAX, "2024-02-01"))
    of_it = facts(customer(), documents(events), "2024-03-01")
    assert of_it["aum_month_end"]["2024-01"] == {"CNY": TURNOVER_MINOR_MAX}
    assert of_it["aum_month_average"]["2024-01"] == {"CNY": 9_500 * AMOUNT_MINOR_MAX // 31}
    assert bson.decode(bson.encode(of_it)) == of_it


def test_months_are_bounded_and_a_month_that_is_not_kept_is_unknown():
    days = [date(2023 + number // 12, number % 12 + 1, 15) for number in range(MONTHS_SUMMED_MAX + 5)]
    sums = summed([(day, 1) for day in [*days[7:], *days[:7]]])
    assert sorted(sums) == [day.isoformat()[:7] for day in days[5:]]
    found = balances(len(days), sums, whole_months("2024-03-01"))
    assert list(found) == [day.isoformat()[:7] for day in reversed(days[5:14])]
    assert [one.closing_minor for one in found.values()] == list(range(14, 5, -1))


def test_every_whole_month_is_known_where_postings_are_booked_as_far_ahead_as_intake_lets_them():
    today = date(2026, 1, 31)
    months = [date(2024 + number // 12, number % 12 + 1, 15) for number in range(today.month + 24)]
    sums = summed([(day, 1) for day in [*months, date(2026, 2, 28), today + timedelta(days=31)]])
    wanted = whole_months(today.isoformat())
    found = balances(len(months) + 2, sums, wanted)
    assert [month for month, _ in wanted] == list(found)
    assert found["2024-12"].closing_minor == 12


@pytest.mark.parametrize("old", [True, False])
def test_a_month_that_one_account_does_not_keep_is_no_figure_of_its_owner(old):
    teller = Teller()
    account, events = opened(teller, 1, "deposit")
    other, told = opened(teller, 2, "deposit")
    ahead = [teller.posting(account, 1, f"{2030 + number}-01-01") for number in range(MONTHS_SUMMED_MAX)]
    there = documents([*events, *told, teller.posting(other, 7, "2024-01-01"), *ahead])
    if old:
        there = documents([*events, *told, teller.posting(other, 7, "2024-01-01")])
        del there[1]["months"]
    of_it = facts(customer(), there, "2024-03-01")
    assert (of_it["aum_month_end"], of_it["aum_month_average"]) == ({}, {})
    assert set(of_it["ago"].values()) == {"2024-03", None}
    assert of_it["aum"] == {"CNY": 7 if old else 7 + MONTHS_SUMMED_MAX}


@pytest.mark.requirement("R054")
@pytest.mark.parametrize(
    ("averages", "falling"),
    [
        ([700, 650, 600, 590], 3),
        ([700, 650, 660, 600], 1),
        ([590, 700, 650, 600, 590], 3),
        ([700, 650, 600, 600], 0),
        ([700, 650, 600], 2),
    ],
)
def test_months_in_a_row_that_the_average_fell_are_counted_to_the_last_one(averages, falling):
    """Balances of ten thousand times as many yuan. Where the earliest months had nothing, the first of these rose."""
    teller = Teller()
    account, events = opened(teller, 1, "deposit")
    before = 0
    for month, average in enumerate(averages, 12 - len(averages) + 1):
        events.append(teller.posting(account, (average - before) * 1_000_000, f"2025-{month:02d}-01"))
        before = average
    of_it = facts(customer(), documents(events), "2026-01-05")
    assert next(iter(of_it["aum_month_average"].values())) == {"CNY": averages[-1] * 1_000_000}
    assert of_it["aum_months_falling"] == falling


@given(st.lists(st.integers(0, 3), max_size=13))
def test_months_falling_are_those_that_a_reader_of_the_series_counts(series):
    expected = 0
    for at in range(len(series) - 1, 0, -1):
        if series[at] >= series[at - 1]:
            break
        expected += 1
    latest_first = [{"CNY": one, "USD": 9 - one} if one else {} for one in reversed(series)]
    assert months_falling({str(at): one for at, one in enumerate(latest_first)}) == expected


def test_facts_change_when_a_month_begins():
    for day, following in (("2024-02-29", "2024-03-01"), ("2024-12-31", "2025-01-01")):
        assert month_after(day) == following
        assert facts(customer(), [], day)["changes_on"] == following
