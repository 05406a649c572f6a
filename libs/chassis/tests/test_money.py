"""Amounts as people write them."""

import pytest
from chassis.money import AmountUnreadable, decimal_text, exponent, minor_units
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(-(10**15), 10**15), st.sampled_from(["CNY", "JPY", "KWD", "CLF"]))
def test_what_is_written_is_read_the_same(amount_minor, currency):
    assert minor_units(decimal_text(amount_minor, currency), exponent(currency)) == amount_minor


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("12..34", "CNY"),
        ("--1", "CNY"),
        ("1.005", "CNY"),
        ("1.5", "JPY"),
        ("", "CNY"),
        ("１", "CNY"),
        ("9" * 16, "CNY"),
    ],
)
def test_nothing_is_guessed_or_rounded(text, currency):
    with pytest.raises(AmountUnreadable):
        minor_units(text, exponent(currency))


def test_debts_and_small_amounts_are_written_in_full():
    assert [decimal_text(n, "CNY") for n in (-543210, -5, 0, 7)] == ["-5432.10", "-0.05", "0.00", "0.07"]
