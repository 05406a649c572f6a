from datetime import date
from uuid import UUID

import msgspec
import pytest
from chassis.money import AmountUnreadable, minor_units
from chassis.write.store import EVENT_BYTES_MAX
from hypothesis import given
from hypothesis import strategies as st
from sync_ingest.domain.certificate import (
    INTAKES_MAX,
    PROBLEMS_NAMED_MAX,
    Comparison,
    Judgement,
    Problem,
    certify,
)
from sync_ingest.domain.events import ReconciliationCertified
from sync_ingest.domain.totals import AccountCurrency, AccountTotal, ControlTotals

DAY = date(2026, 1, 5)

account_currencies = st.builds(
    AccountCurrency, st.integers(1, 4).map(lambda n: UUID(int=n)), st.sampled_from(["CNY", "USD"])
)
movements = st.lists(st.tuples(account_currencies, st.integers(-(10**9), 10**9)), max_size=40)


def both(rows):
    feed, ledger = ControlTotals(), {}
    for account_currency, amount_minor in rows:
        feed.count_posted([(feed.run_total(account_currency), amount_minor)])
        ledger.setdefault(account_currency, AccountTotal()).add(amount_minor, DAY, certified=False)
    return feed, ledger


def compared(feed, ledger):
    comparison = Comparison(feed)
    comparison.add(
        feed.run_totals,
        ledger,
        {account_currency: total.movement for account_currency, total in ledger.items()},
    )
    return comparison


@given(movements, st.integers(0, 9), st.integers(0, 9))
def test_what_was_read_and_is_held_adds_up(rows, duplicates, quarantined):
    feed, ledger = both(rows)
    for _ in range(duplicates):
        feed.count_duplicate(feed.run_total(AccountCurrency(UUID(int=1), "CNY")), 5, first_in_feed=False)
    for _ in range(quarantined):
        feed.count_quarantined()
    comparison = compared(feed, ledger)
    assert comparison.problems == []
    findings = certify(feed, comparison, Judgement())
    moved = feed.accounts > 0
    assert findings.status == ("GREEN" if moved and not quarantined else "AMBER")
    assert findings.records == findings.posted + findings.duplicates + findings.quarantined
    for line in findings.lines:
        assert line.opening_minor + line.credits_minor - line.debits_minor == line.closing_minor


@given(movements.filter(bool), st.data())
def test_a_posting_that_is_lost_doubled_or_changed_is_a_difference_and_its_account_is_named(rows, data):
    at = data.draw(st.integers(0, len(rows) - 1))
    harm = data.draw(st.sampled_from(["lost", "doubled", "changed", "sign"]))
    feed, _ = both(rows)
    account_currency, amount_minor = rows[at]
    if harm == "sign" and amount_minor == 0:
        return
    kept = rows[:at] + rows[at + 1 :]
    held = {
        "lost": kept,
        "doubled": [*rows, rows[at]],
        "changed": [*kept, (account_currency, amount_minor + 1)],
        "sign": [*kept, (account_currency, -amount_minor)],
    }[harm]
    problems = compared(feed, both(held)[1]).problems
    assert {(p.account_id, p.currency) for p in problems} == {
        (account_currency.account, account_currency.currency)
    }


def test_two_errors_that_cancel_in_the_sum_are_still_found():
    account_currency = AccountCurrency(UUID(int=1), "CNY")
    feed, _ = both([(account_currency, 500), (account_currency, -200)])
    problems = compared(feed, both([(account_currency, 700), (account_currency, -400)])[1]).problems
    assert [p.code for p in problems] == ["turnover-differs"]


@pytest.mark.parametrize(
    ("judgement", "status", "reasons"),
    [
        (Judgement(), "GREEN", ()),
        (Judgement(waiting=1), "AMBER", ("quarantine-waiting",)),
        (Judgement(unchecked=1), "AMBER", ("nothing-to-check-against",)),
        (Judgement(uncompared=3), "AMBER", ("running-balance-not-compared",)),
        (
            Judgement(open_total=1, codes=("running-balance-differs",), waiting=1),
            "RED",
            ("running-balance-differs", "quarantine-waiting"),
        ),
    ],
)
def test_a_status_says_why_it_is_not_green(judgement, status, reasons):
    feed, ledger = both([(AccountCurrency(UUID(int=1), "CNY"), 500)])
    findings = certify(feed, compared(feed, ledger), judgement)
    assert (findings.status, findings.reasons) == (status, reasons)


def test_what_was_not_read_at_all_is_amber():
    feed = ControlTotals()
    findings = certify(feed, compared(feed, {}), Judgement())
    assert (findings.status, findings.reasons) == ("AMBER", ("nothing-read", "nothing-to-check-against"))


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


def test_a_certificate_of_most_intakes_and_worst_problems_can_be_stored():
    worst = Problem(
        "running-numbers-have-gaps",
        -(10**18),
        10**18,
        UUID(int=1),
        "CNY",
        "行" * 200,
        UUID(int=2),
        known=True,
    )
    judgement = Judgement(open=(worst,) * PROBLEMS_NAMED_MAX, open_total=5_000)
    for count in (1, INTAKES_MAX // 2, INTAKES_MAX):
        findings = certify(ControlTotals(), Comparison(ControlTotals()), judgement, count)
        event = ReconciliationCertified(
            source="branch", certificate=UUID(int=3), intakes=(UUID(int=4),) * count, findings=findings
        )
        assert len(msgspec.json.encode(event)) < EVENT_BYTES_MAX - 16_384
        assert findings.problems_total == 5_000
        assert len(findings.problems) > 100
    few = certify(
        ControlTotals(), Comparison(ControlTotals()), Judgement(open=(Problem("x", 1, 2),) * 900), 1
    )
    assert len(few.problems) == 900
