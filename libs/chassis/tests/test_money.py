"""Amounts as people write them, and the currencies they are in."""

import re
from typing import Annotated

import pytest
from chassis.money import (
    AMOUNT_MINOR_MAX,
    EXPONENTS,
    AmountUnreadable,
    CurrencyCode,
    NumberFormat,
    decimal_text,
    exponent,
    is_currency,
    minor_units,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import StringConstraints, TypeAdapter, ValidationError


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
        ("9" * 100_000, "CNY"),
        ("12\n.50", "CNY"),
    ],
)
def test_nothing_is_guessed_or_rounded(text, currency):
    with pytest.raises(AmountUnreadable):
        minor_units(text, exponent(currency))


def test_debts_and_small_amounts_are_written_in_full():
    assert [decimal_text(n, "CNY") for n in (-543210, -5, 0, 7)] == ["-5432.10", "-0.05", "0.00", "0.07"]


ThreeLetters = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
FORMATS = [
    (".", ",", (3,)),
    (",", ".", (3,)),
    (",", " ", (3,)),
    (".", "'", (3,)),
    (".", ",", (3, 2)),
    (".", ",", (4,)),
    (",", "", (3,)),
]


def written(minor, decimals, decimal_mark, group_mark, sizes):
    """A formatter of its own: groups from the right, the last size repeated."""
    digits = str(abs(minor)).rjust(decimals + 1, "0")
    whole, fraction = digits[: len(digits) - decimals], digits[len(digits) - decimals :]
    groups, at = [], 0
    while whole:
        size = sizes[min(at, len(sizes) - 1)]
        groups.append(whole[-size:])
        whole, at = whole[:-size], at + 1
    sign = "-" if minor < 0 else ""
    return sign + group_mark.join(reversed(groups)) + (decimal_mark + fraction if decimals else "")


minors = st.integers(-AMOUNT_MINOR_MAX, AMOUNT_MINOR_MAX)


@given(minors, st.sampled_from([0, 2, 3, 4]), st.sampled_from(FORMATS))
def test_what_a_formatter_writes_with_its_marks_is_read_back(minor, decimals, marks):
    assert NumberFormat(*marks).minor_units(written(minor, decimals, *marks), decimals) == minor


@given(minors, st.sampled_from([0, 2]), st.sampled_from(FORMATS[:-1]), st.data())
def test_any_other_place_of_a_mark_is_refused(minor, decimals, marks, data):
    good = written(minor, decimals, *marks)
    mark, at = data.draw(st.sampled_from(marks[:2])), data.draw(st.integers(0, len(good)))
    moved = good[:at] + mark + good[at:]
    try:
        found = NumberFormat(*marks).minor_units(moved, decimals)
    except AmountUnreadable:
        return
    places = len(moved.partition(marks[0])[2])
    scaled = found * 10**places // 10**decimals
    assert moved == written(scaled, places, *marks), f"{good} became {moved} and was read as {found}"


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("12,50", (".", ",")),
        ("12.50", (",", ".")),
        ("12.50", (",", "")),
        ("1,2,3", (".", ",")),
        ("1,0000", (".", ",")),
        ("1234,567", (".", ",")),
        (",123", (".", ",")),
        ("0,123", (".", ",")),
        ("1,234,", (".", ",")),
        ("1,234.567,8", (".", ",")),
        ("123,456", (".", ",", (3, 2))),
        ("1,234", (".", ",", (4,))),
    ],
)
def test_a_mark_in_another_place_is_no_amount(text, marks):
    with pytest.raises(AmountUnreadable) as refused:
        NumberFormat(*marks).minor_units(text, 2)
    assert refused.value.code == "amount-malformed"


@pytest.mark.parametrize(
    "marks",
    [
        *((".", mark) for mark in ("-", "1", "a", "+", ".", ",,")),
        *((mark, ",") for mark in ("", "-", ",")),
        *((".", ",", sizes) for sizes in ((), (0,), (3, -1))),
    ],
)
def test_what_is_no_mark_is_refused(marks):
    with pytest.raises(ValueError, match=r"mark|group"):
        NumberFormat(*marks)


@pytest.mark.parametrize(
    "code", ["CNX", "CNY\n", "cny", "", "CN", "CNYY", "ＣＮＹ", "XAU", "XXX", "XTS", "XDR"]
)
def test_what_is_no_currency_with_minor_units_is_none(code):
    assert not is_currency(code)
    with pytest.raises(KeyError):
        exponent(code)
    with pytest.raises(ValidationError):
        TypeAdapter(CurrencyCode).validate_python(code)


def test_exponents_are_those_of_the_standard():
    wanted = {"CNY": 2, "USD": 2, "JPY": 0, "KRW": 0, "KWD": 3, "TND": 3, "CLF": 4, "HUF": 2, "ISK": 0}
    assert {code: EXPONENTS[code] for code in wanted} == wanted


def test_where_a_dollar_ends_a_pattern():
    """Python's `$` lets a line end follow, pydantic's engine does not: the house rules rely on both."""
    assert re.search("^[A-Z]{3}$", "CNY\n")
    with pytest.raises(ValidationError):
        TypeAdapter(ThreeLetters).validate_python("CNY\n")
