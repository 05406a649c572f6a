"""Running numbers of postings, as intervals: which were read, which were stored, and which are missing."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Final

import msgspec

INTERVALS_PER_SERIES_MAX: Final = 1_000
"""Gaps that one series remembers; the oldest are forgotten first, and stay contradictions until acknowledged."""


def _add(held: list[tuple[int, int]], first: int, last: int) -> None:
    """Adds the numbers from `first` to `last` to intervals."""
    if held and held[-1][0] <= first <= held[-1][1] + 1:
        if last > held[-1][1]:
            held[-1] = (held[-1][0], last)
        return
    at = bisect_right(held, (first, last))
    if at and held[at - 1][1] >= first - 1:
        at -= 1
        first = held[at][0]
    end = at
    while end < len(held) and held[end][0] <= last + 1:
        last = max(last, held[end][1])
        end += 1
    held[at:end] = [(first, last)]
    if len(held) > INTERVALS_PER_SERIES_MAX:
        del held[0]


def shared(some: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The numbers that are in both, as intervals; both are in order."""
    found, at = list[tuple[int, int]](), 0
    for first, last in some:
        while at < len(others) and others[at][1] < first:
            at += 1
        each = at
        while each < len(others) and others[each][0] <= last:
            found.append((max(first, others[each][0]), min(last, others[each][1])))
            each += 1
    return found


first_of: Final = itemgetter(0)


def many(intervals: Iterable[tuple[int, int]]) -> int:
    """How many numbers intervals hold."""
    return sum(last - first + 1 for first, last in intervals)


class NumberSeries(msgspec.Struct, array_like=True):
    """The running numbers of one account or branch that were read so far, as intervals, and what was stated
    of them.

    `booked` are those of postings that are stored: another posting under one of them is a contradiction.
    """

    intervals: list[tuple[int, int]] = []
    first: int | None = None
    last: int | None = None
    booked: list[tuple[int, int]] = []

    def state(self, first: int | None, last: int | None) -> None:
        """Notes between which numbers a control record says that they run."""
        if first is not None:
            self.first = first if self.first is None else min(self.first, first)
        if last is not None:
            self.last = last if self.last is None else max(self.last, last)

    def include(self, other: "NumberSeries") -> None:
        """Adds all that another knows."""
        for first, last in other.intervals:
            self.add(first, last)
        for first, last in other.booked:
            _add(self.booked, first, last)
        self.state(other.first, other.last)

    def add(self, first: int, last: int) -> None:
        """Adds the numbers from `first` to `last`."""
        _add(self.intervals, first, last)

    def book(self, number: int) -> bool:
        """Adds the number of a posting that was stored; whether no other one had it."""
        at = bisect_right(self.booked, number, key=first_of)
        if at and self.booked[at - 1][1] >= number:
            return False
        _add(self.booked, number, number)
        return True

    def gaps(self) -> list[tuple[int, int]]:
        """First and last number of each run of numbers that is missing."""
        held = list(self.intervals)
        if self.first is not None and (not held or self.first < held[0][0]):
            held.insert(0, (self.first, self.first - 1))
        if self.last is not None and held and self.last > held[-1][1]:
            held.append((self.last + 1, self.last))
        return [(before[1] + 1, after[0] - 1) for before, after in pairwise(held)]
