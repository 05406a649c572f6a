"""Balances of an account at the end of months, and their daily average. Pure, from the account's document.

Of each currency and month an account's document keeps two integers:

- the net of the month's postings;
- the day-weighted sum (积数): each posting times the days of the month that are left, its own day included.

With the balance of now they give the balance at the end of every kept month and the sum of its daily closing balances,
exactly and whatever the order of arrival: a late posting changes its own month, and through the net all months after it.
A posting counts on its business date, a reversal on that of the posting that it reverses.
"""

from calendar import monthrange
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Final, NamedTuple

MONTHS_SHOWN: Final = 13
"""Whole months before the running one that are known: a year, and the same month of the year before."""
MONTHS_SUMMED_MAX: Final = MONTHS_SHOWN + 3
"""Months with postings that an account keeps in each currency, the latest ones: those, the running one, and two ahead. A
posting may be booked 31 days ahead, which is the month after the next at the end of January."""
DAYS_CACHED_MAX: Final = 4_096
_INTEGER_MAX: Final = 2**63 - 1
"""The largest integer of the database."""

Sums = dict[str, list[int | str]]
"""By month, YYYY-MM: the net and the day-weighted sum. The latter is a text where it is larger than an integer of the
database: a month's days times a turnover within its limit may be."""


class Wanted(NamedTuple):
    """A month and how many of its days count, from the first on."""

    month: str
    days: int


class MonthBalance(NamedTuple):
    """The closing balance of a month, and the sum of the closing balances of those of its days that count."""

    closing_minor: int
    daily_minor: int


def add_posting(sums: Sums, day: str, amount_minor: int) -> None:
    """Counts a posting of a business date in its month. The earliest month goes where there are too many."""
    month = day[:7]
    kept = sums.get(month)
    if kept is None:
        kept = sums[month] = [0, 0]
        if len(sums) > MONTHS_SUMMED_MAX:
            del sums[min(sums)]
    weighted = int(kept[1]) + amount_minor * _days_left(day)
    kept[0] += amount_minor  # type: ignore[operator]  # the net is never a text
    kept[1] = weighted if -_INTEGER_MAX <= weighted <= _INTEGER_MAX else str(weighted)


def balances(balance_minor: int, sums: Sums, wanted: Sequence[Wanted]) -> dict[str, MonthBalance]:
    """The balances of these months, which are given from the latest to the earliest; a month that is not kept any more
    is left out.

    `balance_minor` is the balance of now. Where only some days of a month count, no posting of the month may be booked
    later than the day after them.
    """
    kept = sorted(sums, reverse=True)
    earliest = kept[-1] if len(kept) >= MONTHS_SUMMED_MAX else ""
    found = dict[str, MonthBalance]()
    closing, at = balance_minor, 0
    for month, days in wanted:
        if month < earliest:
            break
        while at < len(kept) and kept[at] > month:
            closing -= int(sums[kept[at]][0])
            at += 1
        daily = closing * days
        if month in sums:
            net, weighted = map(int, sums[month])
            daily += weighted - net * days_of(month)
        found[month] = MonthBalance(closing, daily)
    return found


@lru_cache(DAYS_CACHED_MAX)
def whole_months(day: str) -> tuple[Wanted, ...]:
    """The months that are shown on a business date, from the latest to the earliest."""
    found = list[Wanted]()
    year, month = int(day[:4]), int(day[5:7])
    for _ in range(MONTHS_SHOWN):
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
        found.append(Wanted(f"{year:04d}-{month:02d}", monthrange(year, month)[1]))
    return tuple(found)


def month_after(day: str) -> str:
    """The first day of the month after that of a day."""
    year, month = int(day[:4]), int(day[5:7])
    return date(year + month // 12, month % 12 + 1, 1).isoformat()


@lru_cache(DAYS_CACHED_MAX)
def days_of(month: str) -> int:
    """The days of a month, YYYY-MM."""
    return monthrange(int(month[:4]), int(month[5:7]))[1]


@lru_cache(DAYS_CACHED_MAX)
def _days_left(day: str) -> int:
    return days_of(day[:7]) - int(day[8:]) + 1
