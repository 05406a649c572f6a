"""Rows of a file: what any reader reads back, and what no program takes for a formula."""

import csv
from datetime import UTC, date, datetime
from io import StringIO

import pytest
from chassis.conditions import Fields, Label, Type
from chassis.conditions.fields import DataClass, Field
from chassis.exports import columns_of
from chassis.exports.rows import BEGIN, REPLACED, Exact, exact, row, text_cell, text_in
from hypothesis import example, given
from hypothesis import strategies as st

ATTACKS = (
    "=cmd|' /C calc'!A0",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "＋1",
    "－1",
    "＠SUM(A1)",
    "﹦1",
    "\u22121",
    " =1",
    "\u3000=1",
    "\u200b=1",
    "\ufeff=1",
    "\x00=1",
    "'=1",
)
PLAIN = ("张伟", "a=b", 'a "b", c', "支行\r\n二", "139****5678", "", "a'b", "1-2", "a; b;\tc")


def read(content: bytes) -> list[list[str]]:
    return list(csv.reader(StringIO(content.decode("utf-8-sig"), newline=""), strict=True))


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=4))
@example([['"', "\r\n"], [",", "\n"], ["\r", "=1"], ["\x00", "\ud800"]])
def test_a_reader_reads_back_every_text_but_for_its_control_characters(rows: list[list[str]]) -> None:
    content = BEGIN + b"".join(row(each) for each in rows)
    found = [[text_in(cell) for cell in each] for each in read(content)]
    assert len(found) == len(rows)
    for texts, cells in zip(rows, found, strict=True):
        for text, cell in zip(texts, cells, strict=True):
            assert len(text) == len(cell)
            assert all(a in (b, REPLACED) for a, b in zip(cell, text, strict=True))
            assert not any(c < " " and c not in "\t\r\n" for c in cell)


@given(st.text())
def test_no_two_texts_have_one_cell_unless_they_differ_in_control_characters(text: str) -> None:
    assert text_cell(text_in(text_cell(text))) == text_cell(text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_could_be_a_formula_is_a_text(attack: str) -> None:
    [[cell, _]] = read(row([attack, None]))
    assert cell.startswith("'")


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("attack", [*ATTACKS, '"=1+1', '"=1', '" =1'])
def test_a_program_set_to_another_separator_finds_no_formula_within_a_text(
    attack: str, separator: str
) -> None:
    content = row([f"a{separator}{attack}{separator}b", "c"]).decode().removesuffix("\r\n")
    for cell in content.split(separator):
        bare = cell.lstrip('" \u3000\u200b\ufeff\ufffd')
        assert bare[:1] not in set("=+-@＝＋－＠﹦\u2212"), content


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    assert read(row([text, 1])) == [[text, "1"]]


@given(st.integers(-(9 * 10**15), 9 * 10**15), st.sampled_from(["CNY", "JPY", "KWD"]))
def test_an_amount_is_the_exact_number(minor: int, currency: str) -> None:
    [[cell, _]] = read(row([exact(minor, currency), None]))
    whole, _, fraction = cell.removeprefix("-").partition(".")
    assert len(fraction) == {"CNY": 2, "JPY": 0, "KWD": 3}[currency]
    assert int(whole + fraction) == abs(minor)
    assert cell.startswith("-") == (minor < 0)


def test_an_amount_has_a_column_for_each_currency_of_the_list_and_one_for_all_others() -> None:
    balance = Field("balance", Type.AMOUNT, Label("余额", "balance"), "balance", DataClass.CONFIDENTIAL)
    [column] = columns_of(Fields([balance]), ["balance"], ["CNY", "EUR"])
    assert [label.en for label in column.labels] == [
        "balance CNY",
        "balance EUR",
        "balance in other currencies",
    ]
    minor = {"CNY": -150, "USD": 200, "JPY": -7}
    [cells, none] = read(row(column.cells({"balance": minor})) + row(column.cells({})))
    assert cells == ["-1.50", "", "JPY -7; USD 2.00"]
    assert none == ["", "", ""]


def test_days_and_instants_are_iso_and_what_is_no_cell_is_refused() -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert read(row([date(2026, 3, 1), at])) == [["2026-03-01", "2026-03-01T12:00:00+00:00"]]
    assert read(row([Exact("-1.50"), -2])) == [["-1.50", "-2"]]
    for wrong in (1.5, True):
        with pytest.raises(TypeError):
            row([wrong])  # type: ignore[list-item]
    with pytest.raises(AssertionError):
        row([["a list"]])  # type: ignore[list-item]
