from datetime import date
from uuid import UUID

import pytest
from chassis.money import AmountUnreadable, minor_units
from hypothesis import given
from hypothesis import strategies as st
from sync_ingest.domain.balances import PrintedRow, compare
from sync_ingest.domain.certificate import StoreFold, certify
from sync_ingest.domain.totals import ControlTotals, Purse

purses = st.builds(Purse, st.integers(1, 4).map(lambda n: UUID(int=n)), st.sampled_from(["CNY", "USD"]))
movements = st.lists(st.tuples(purses, st.integers(-(10**9), 10**9)), max_size=40)


def both(rows):
    feed, store = ControlTotals(), StoreFold()
    closings: dict[Purse, int] = {}
    for purse, amount_minor in rows:
        feed.count_posted(feed.tally(purse), amount_minor)
        store.add(purse, amount_minor)
        closings[purse] = closings.get(purse, 0) + amount_minor
    return feed, store, closings


@given(movements, st.integers(0, 9), st.integers(0, 9))
def test_what_was_read_and_is_held_is_green_and_adds_up(rows, duplicates, quarantined):
    feed, store, closings = both(rows)
    for _ in range(duplicates):
        feed.count_duplicate(feed.tally(Purse(UUID(int=1), "CNY")), 5, first_in_feed=False)
    for _ in range(quarantined):
        feed.count_quarantined()
    findings = certify(feed, store, {}, closings, {})
    assert findings.status == "GREEN"
    assert findings.records == findings.posted + findings.duplicates + findings.quarantined
    for line in findings.lines:
        assert line.opening_minor + line.credits_minor - line.debits_minor == line.closing_minor


@given(movements.filter(bool), st.data())
def test_a_posting_that_is_lost_doubled_or_changed_is_red_and_its_account_is_named(rows, data):
    at = data.draw(st.integers(0, len(rows) - 1))
    harm = data.draw(st.sampled_from(["lost", "doubled", "changed", "sign"]))
    feed, _, _ = both(rows)
    purse, amount_minor = rows[at]
    if harm == "sign" and amount_minor == 0:
        return
    kept = rows[:at] + rows[at + 1 :]
    held = {
        "lost": kept,
        "doubled": [*rows, rows[at]],
        "changed": [*kept, (purse, amount_minor + 1)],
        "sign": [*kept, (purse, -amount_minor)],
    }[harm]
    _, store, closings = both(held)
    findings = certify(feed, store, {}, closings, {})
    assert findings.status == "RED"
    assert {(p.account_id, p.currency) for p in findings.problems} == {(purse.account, purse.currency)}


def test_two_errors_that_cancel_in_the_sum_are_still_found():
    purse = Purse(UUID(int=1), "CNY")
    feed, _, _ = both([(purse, 500), (purse, -200)])
    _, store, closings = both([(purse, 700), (purse, -400)])
    assert [p.code for p in certify(feed, store, {}, closings, {}).problems] == ["turnover-differs"]


def test_a_closing_that_moved_between_two_runs_is_red():
    purse = Purse(UUID(int=1), "CNY")
    feed, store, closings = both([(purse, 500)])
    findings = certify(feed, store, {purse: 100}, closings, {})
    assert [(p.code, p.expected, p.found) for p in findings.problems] == [("closing-differs", 600, 500)]


def test_printed_balances_are_compared_row_by_row():
    day = date(2026, 1, 5)
    rows = [
        PrintedRow(day, 100, 100),
        PrintedRow(day, 50, 160),
        PrintedRow(day, -20, 140),
        PrintedRow(day, 1, 200),
    ]
    result = compare(rows, "as-read")
    assert (result.rows, result.exact, result.within, result.beyond) == (4, 2, 1, 1)
    assert (result.largest_minor, result.difference_minor, result.breaks_on) == (59, 69, [day])


def test_an_opening_that_no_movement_explains_is_one_break():
    rows = [PrintedRow(date(2026, 1, n), 10, 1000 + 10 * n) for n in range(1, 5)]
    result = compare(rows, "as-read")
    assert (result.beyond, result.opening_minor, result.exact) == (1, 1000, 3)


def test_a_history_that_begins_in_the_middle_is_told_from_rows_that_do_not_follow():
    purse = Purse(UUID(int=1), "CNY")
    rows = [PrintedRow(date(2026, 1, n), 10, 1000 + 10 * n) for n in range(1, 5)]
    missing = [PrintedRow(date(2026, 1, 5), 10, 2000)]
    feed, store, closings = both([(purse, 50)])

    def problems(*printed):
        found = certify(feed, store, {}, closings, {purse: compare(printed, "as-read")})
        assert found.status == "RED"
        return [(p.code, p.found, p.detail) for p in found.problems]

    opening = ("opening-missing", 1000, "2026-01-01")
    assert problems(*rows) == [opening]
    assert problems(*rows, *missing) == [opening, ("printed-balance-differs", 1, "2026-01-05")]


def test_a_row_without_a_printed_balance_moves_the_next_expectation():
    day = date(2026, 1, 5)
    rows = [PrintedRow(day, 10, 10), PrintedRow(day, 5, None), PrintedRow(day, 5, 20)]
    assert compare(rows, "as-read").exact == 2


@given(st.integers(-(10**15), 10**15), st.sampled_from([0, 2, 3, 4]))
def test_an_amount_reads_back_as_it_was_written(amount_minor, decimals):
    digits = str(abs(amount_minor)).rjust(decimals + 1, "0")
    whole, fraction = digits[: len(digits) - decimals], digits[len(digits) - decimals :]
    text = ("-" if amount_minor < 0 else "") + whole + (f".{fraction}" if decimals else "")
    assert minor_units(text, decimals) == amount_minor


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("12..34", "amount-malformed"),
        ("1e5", "amount-malformed"),
        ("NaN", "amount-malformed"),
        ("١٢", "amount-malformed"),
        (".5", "amount-malformed"),
        ("1,5", "amount-malformed"),
        ("--1", "amount-malformed"),
        ("", "amount-missing"),
        ("0.001", "amount-precision"),
        ("9999999999999999", "amount-out-of-range"),
    ],
)
def test_what_is_no_amount_has_a_code(text, code):
    with pytest.raises(AmountUnreadable) as refused:
        minor_units(text, 2)
    assert refused.value.code == code


def test_zero_decimals_beyond_the_exponent_lose_nothing():
    assert minor_units("12.50000", 2) == 1250
