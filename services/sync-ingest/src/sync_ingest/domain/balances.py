"""Balances that a feed prints beside its postings: compared row by row, reported, never booked."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal, NamedTuple

TOLERANCE_MINOR: Final = 10
"""A row may differ by this much: sources round interest apart from the balance (0.10 in the Berka tables)."""


class PrintedRow(NamedTuple):
    """One stored movement of a purse in the order it was stored; `printed_minor` where the feed printed one."""

    booked_on: date
    amount_minor: int
    printed_minor: int | None


@dataclass(slots=True)
class PrintedBalances:
    """How the printed balances of one purse follow from its movements."""

    rows: int = 0
    exact: int = 0
    within: int = 0
    beyond: int = 0
    largest_minor: int = 0
    difference_minor: int = 0
    opening_minor: int = 0
    breaks_on: list[date] = field(default_factory=list)


BREAKS_NAMED_MAX: Final = 20


def compare(
    rows: Iterable[PrintedRow],
    order: Literal["as-read", "credits-first"],
    tolerance_minor: int = TOLERANCE_MINOR,
) -> PrintedBalances:
    """Each printed balance against the one before it plus what moved between; the first against zero.

    `difference_minor` is last printed balance less fold at that row: what rounding added up to. A break is a row
    beyond the tolerance; the chain goes on from what it printed, so one missing row is one break and not many.
    """
    result = PrintedBalances()
    expected = fold = 0
    for row in sorted(rows, key=_credits_first if order == "credits-first" else _as_read):
        expected += row.amount_minor
        fold += row.amount_minor
        if row.printed_minor is None:
            continue
        off = row.printed_minor - expected
        if result.rows == 0 and abs(off) > tolerance_minor:
            result.opening_minor = off
        result.rows += 1
        result.largest_minor = max(result.largest_minor, abs(off))
        if off == 0:
            result.exact += 1
        elif abs(off) <= tolerance_minor:
            result.within += 1
        else:
            result.beyond += 1
            if len(result.breaks_on) < BREAKS_NAMED_MAX:
                result.breaks_on.append(row.booked_on)
        expected = row.printed_minor
        result.difference_minor = row.printed_minor - fold
    return result


def _as_read(row: PrintedRow) -> date:
    return row.booked_on


def _credits_first(row: PrintedRow) -> tuple[date, bool, int]:
    """Within a day all credits come before all debits; among each, the balances themselves give the order."""
    debit = row.amount_minor < 0
    printed = row.printed_minor or 0
    return row.booked_on, debit, -printed if debit else printed
