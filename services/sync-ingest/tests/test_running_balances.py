"""Running balances as a fold over days: the verdict is the same in whatever order the rows come."""

from collections import defaultdict
from datetime import date, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sync_ingest.domain.balances import Day, judge

FIRST = date(2026, 1, 5)


def ledger(chance, days, opening=0, unprinted=0.0, amounts=(-3, -2, -1, 1, 2, 3, 50)):
    """Rows (day, amount, balance after or None) of one account in the order in which they happened."""
    rows, balance = [], opening
    for day in range(days):
        for _ in range(chance.randrange(1, 6)):
            amount = chance.choice(amounts) * chance.choice((1, 1, 100))
            balance += amount
            rows.append((day, amount, None if chance.random() < unprinted else balance))
    return rows


def verdict(rows, tolerance=10):
    days = defaultdict(lambda: Day(surplus={}, unprinted={}, steps=[]))
    for day, amount, balance in rows:
        days[day].add(amount, balance)
    end, before, judged = 0, False, {}
    for day in sorted(days):
        judged[day] = judge(days[day], end, printed_before=before, tolerance_minor=tolerance)
        end, before = judged[day].end_minor, judged[day].printed_before
    return judged


def breaks(rows, **options):
    return {day: judged.breaks for day, judged in verdict(rows, **options).items() if judged.breaks}


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.2, 0.7]))
def test_rows_that_follow_are_never_a_break_in_whatever_order_they_come(seed, unprinted):
    chance = Random(seed)
    rows = ledger(chance, 6, unprinted=unprinted)
    ordered = verdict(rows, tolerance=0)
    assert not breaks(rows, tolerance=0)
    chance.shuffle(rows)
    assert verdict(rows, tolerance=0) == ordered


@settings(max_examples=1_000)
@given(st.integers(0, 2**32))
def test_one_row_that_is_missing_is_a_break_until_it_comes(seed):
    chance = Random(seed)
    rows = ledger(chance, 5, amounts=(-30, -20, 20, 30, 50))
    rows.append(
        (5, 20, rows[-1][2] + 20)
    )  # a day whose rows can be followed without one of them shows on the next
    at = chance.randrange(len(rows) - 1)
    rest = [*rows[:at], *rows[at + 1 :]]
    chance.shuffle(rest)
    assert breaks(rest, tolerance=0)
    assert not breaks([*rest, rows[at]], tolerance=0)


def test_a_missing_row_is_named_by_its_day_and_amount():
    rows = [(0, 100, 100), (1, 50, 150), (1, -30, 120), (2, 5, 125)]
    assert breaks([rows[0], *rows[2:]]) == {1: ((150, 100),)}
    assert breaks(rows[1:]) == {1: ((100, 0),)}
    assert breaks([rows[0], rows[3]]) == {2: ((120, 100),)}


def test_a_day_that_ends_where_it_begins_must_still_be_where_the_day_before_ended():
    assert breaks([(0, 100, 1100), (0, -100, 1000)]) == {0: ((1000, 0),)}
    assert breaks([(0, 10, 10), (1, 50, 250), (1, -50, 200)]) == {1: ((200, 10),)}
    assert not breaks([(0, 10, 10), (1, 50, 60), (1, -50, 10)])


def test_rows_without_a_running_balance_stand_anywhere_in_their_day():
    rows = [(0, 100, 100), (1, 7, None), (1, -30, 77), (1, 9, None), (1, 1, None), (2, 3, 90)]
    assert not breaks(rows, tolerance=0)
    assert breaks([row for row in rows if row[1] != 9], tolerance=0) == {2: ((87, 78),)}


def test_a_day_that_is_too_crowded_is_said_not_to_be_compared():
    rows = [(0, amount, None) for amount in range(1, 70)] + [(0, 1, 5)]
    assert [judged.uncompared for judged in verdict(rows).values()] == [1]
    hard = [(0, 2**n, None) for n in range(40)] + [(0, 0, 10**15 + n * 1_000) for n in range(3)]
    assert [judged.uncompared for judged in verdict([*hard, (0, 2, 7)]).values()] == [1 + 3]


@pytest.mark.parametrize("off", [10, -10])
def test_differences_within_the_tolerance_are_added_up(off):
    rows = [(day, 100, (day + 1) * (100 + off)) for day in range(12)]
    judged = verdict(rows).values()
    assert sum(each.drift_minor for each in judged) == 12 * off
    assert sum(each.within for each in judged) == 12


def test_very_many_balances_that_do_not_follow_are_one_break():
    rows = [(0, 1, 1_000 * n) for n in range(1, 5_000)]
    (judged,) = verdict(rows).values()
    assert len(judged.breaks) == 1


def test_a_day_whose_rows_are_all_there_is_kept_as_two_balances():
    day, chance = Day(surplus={}, unprinted={}, steps=[]), Random(1)
    rows = [(0, n % 97 - 40, sum(k % 97 - 40 for k in range(n + 1))) for n in range(1, 2_000)]
    chance.shuffle(rows)
    for _, amount, balance in rows:
        day.add(amount, balance)
    assert len(day.surplus) <= 2
    assert FIRST + timedelta(days=len(day.steps)) < date(2027, 1, 1)
