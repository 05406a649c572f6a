"""Running balances that a feed prints beside its postings: compared in no order, reported, never booked.

Within an account and currency the business date gives the order of days. Inside a day the balances themselves give it:
a row leads from the balance before it to the balance after it, and the rows of a day are one way through these
balances. Such a way exists where every balance is left as often as it is reached, apart from where the day begins and
where it ends. So a day is kept as what is left when both are counted against each other, which is the same in whatever
order the rows come, and is two numbers for a day whose rows are all there.

A row without a printed balance may stand anywhere in its day. Rows that cancel each other and hang together with no
other row of their day are a break too: what leads to them is missing. In a day of very many rows, and in one with rows
that print no balance, that is seen on the next day that prints one.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

TOLERANCE_MINOR: Final = 10
"""A row may differ by this much: sources round interest apart from the balance (0.10 in the Berka tables)."""
DRIFT_MINOR_MAX: Final = 100
"""Differences within the tolerance may add up to this much on one account in one currency, and no more."""
DRIFT_TOLERANCES: Final = 3
DRIFT_MINOR_PER_ROW: Final = 1
"""And to no more than a few tolerances and this much per row: rounding is on few rows, a drift on each of them."""
BALANCES_PER_DAY_MAX: Final = 4_096
"""Balances of one day that do not fit together; with more, the day is a break as a whole."""
STEPS_PER_DAY_MAX: Final = 256
"""Different rows of one day that are remembered to tell whether they hang together."""
UNPRINTED_PER_DAY_MAX: Final = 64
"""Different amounts without a printed balance in one day; with more, the day is not compared."""
STEPS_MAX: Final = 20_000
"""Steps of the search for where rows without a printed balance stand; beyond them the day is not compared."""


Amounts = tuple[tuple[int, int], ...]
"""Different amounts, and how often each is there."""
Way = tuple[list[tuple[int, int]], int]
"""Pairs of balances that lead to each other, and the balance at the end."""


class Link(NamedTuple):
    """Two balances that should be equal: a row starts from the one, the rows before lead to the other; they differ by more
    than the tolerance."""

    found_minor: int
    expected_minor: int


class Judged(msgspec.Struct, frozen=True, array_like=True):
    """What comparing one day gives: where it ends, how many rows differ, and what their differences add up to."""

    end_minor: int = 0
    printed_before: bool = False
    within: int = 0
    uncompared: int = 0
    drift_minor: int = 0
    largest_minor: int = 0
    breaks: tuple[tuple[int, int], ...] = ()

    @property
    def off_minor(self) -> int:
        """Everything by which the day is off, breaks included."""
        return self.drift_minor + sum(found - expected for found, expected in self.breaks)


class Day(msgspec.Struct, array_like=True):
    """One day of an account in one currency: rows in no order, and how they were judged last."""

    printed: int = 0
    net_minor: int = 0
    surplus: dict[int, int] = {}
    """How much more often a balance is reached than left; only where the two differ."""
    unprinted: dict[int, int] = {}
    steps: list[tuple[int, int]] = []
    """From which balance to which its rows lead; none where there are very many."""
    many: bool = False
    tangled: bool = False
    crowded: bool = False
    judged: Judged = Judged()

    def add(self, amount_minor: int, balance_after_minor: int | None) -> None:
        """Adds one row."""
        self.net_minor += amount_minor
        if balance_after_minor is None:
            self._unprinted(amount_minor)
            return
        self.printed += 1
        if self.tangled:
            return
        self._count(balance_after_minor, 1)
        self._count(balance_after_minor - amount_minor, -1)
        self._step(balance_after_minor - amount_minor, balance_after_minor)
        if len(self.surplus) > BALANCES_PER_DAY_MAX:
            self.tangled, self.surplus = True, {}

    def _unprinted(self, amount_minor: int) -> None:
        if amount_minor and not self.crowded:
            self.unprinted[amount_minor] = self.unprinted.get(amount_minor, 0) + 1
            if len(self.unprinted) > UNPRINTED_PER_DAY_MAX:
                self.crowded, self.unprinted = True, {}

    def _count(self, balance_minor: int, times: int) -> None:
        left = self.surplus.get(balance_minor, 0) + times
        if left:
            self.surplus[balance_minor] = left
        else:
            self.surplus.pop(balance_minor, None)

    def _step(self, before_minor: int, after_minor: int) -> None:
        step = before_minor, after_minor
        at = bisect_left(self.steps, step)
        if not self.many and self.steps[at : at + 1] != [step]:
            self.steps.insert(at, step)
            if len(self.steps) > STEPS_PER_DAY_MAX:
                self.many, self.steps = True, []


def judge(day: Day, start_minor: int, *, printed_before: bool, tolerance_minor: int) -> Judged:
    """Compares a day that begins with `start_minor`, which is zero where nothing was before."""
    if not day.printed:
        return Judged(start_minor + day.net_minor, printed_before)
    if day.tangled:
        return Judged(start_minor + day.net_minor, True, breaks=((day.printed, 0),))
    way = None if day.crowded else _ways(day, start_minor, tolerance_minor)
    if way is None:
        return Judged(start_minor + day.net_minor, True, uncompared=day.printed)
    return _judged(*way, tolerance_minor)


def _ways(day: Day, start_minor: int, tolerance_minor: int) -> "Way | None":
    """The way through a day that fits best; None where it was not found within a bounded number of steps."""
    surplus = dict(day.surplus)
    surplus[start_minor] = surplus.get(start_minor, 0) + 1
    reached = sorted(b for b, times in surplus.items() for _ in range(times) if times > 0)
    wanted = sorted(b for b, times in surplus.items() for _ in range(-times) if times < 0)
    if day.unprinted:
        way = _way(reached, wanted, day.unprinted, tolerance_minor)
        if way is None or way:
            return way[0] if way else None
    pairs, end_minor = _paired(reached, wanted, start_minor, tolerance_minor)
    if not day.unprinted:
        for places in _apart(day.steps, pairs, start_minor, tolerance_minor):
            nearest = min(places, key=lambda place: (abs(place - end_minor), place))
            pairs, end_minor = [*pairs, (end_minor, nearest)], nearest
    return pairs, end_minor


def _apart(
    steps: Sequence[tuple[int, int]],
    pairs: Sequence[tuple[int, int]],
    start_minor: int,
    tolerance_minor: int,
) -> list[list[int]]:
    """Balances that rows and pairs do not connect with the beginning of the day, those that hang together as one."""
    places = sorted({start_minor, *(place for step in (*steps, *pairs) for place in step)})
    parent = {place: place for place in places}

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    near = [(low, high) for low, high in pairwise(places) if high - low <= tolerance_minor]
    for one, other in (*steps, *pairs, *near):
        parent[root(one)] = root(other)
    groups: dict[int, list[int]] = {}
    for place in places:
        groups.setdefault(root(place), []).append(place)
    del groups[root(start_minor)]
    return list(groups.values())


def _judged(pairs: Sequence[tuple[int, int]], end_minor: int, tolerance_minor: int) -> Judged:
    within = drift_minor = largest_minor = 0
    breaks = []
    for expected, found in pairs:
        off = found - expected
        largest_minor = max(largest_minor, abs(off))
        if abs(off) > tolerance_minor:
            breaks.append(Link(found, expected))
        elif off:
            within += 1
            drift_minor += off
    return Judged(end_minor, True, within, 0, drift_minor, largest_minor, tuple(sorted(breaks)))


def _paired(reached: Sequence[int], wanted: Sequence[int], start_minor: int, tolerance_minor: int) -> Way:
    """Each balance that a row starts from with the one that leads to it, in order, and the one that is left: the end.

    Of the balances that could be left out, the one with the fewest pairs beyond the tolerance, and then the smallest
    differences; what is sorted is paired best in its order. Where the day begins is left out only where nothing else
    is there, because some row follows it.
    """

    def cost(expected: int, found: int) -> tuple[int, int]:
        off = abs(found - expected)
        return int(off > tolerance_minor), off

    before = [(0, 0)]
    for expected, found in zip(reached, wanted, strict=False):
        breaks, off = cost(expected, found)
        before.append((before[-1][0] + breaks, before[-1][1] + off))
    behind = [(0, 0)]
    for expected, found in zip(reached[:0:-1], reversed(wanted), strict=True):
        breaks, off = cost(expected, found)
        behind.append((behind[-1][0] + breaks, behind[-1][1] + off))
    behind.reverse()
    costs = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(before, behind, strict=True)]
    ends = [at for at, balance in enumerate(reached) if balance != start_minor] or range(len(reached))
    left = min(ends, key=lambda at: costs[at])
    rest = [*reached[:left], *reached[left + 1 :]]
    return list(zip(rest, wanted, strict=True)), reached[left]


class _TooManySteps(Exception):
    """The search is given up."""


class _Search:
    """Where rows without a printed balance stand so that everything follows; a bounded number of steps."""

    def __init__(self, tolerance_minor: int) -> None:
        self._tolerance_minor = tolerance_minor
        self._steps = 0

    def way(self, sources: Sequence[int], targets: Sequence[int], amounts: Amounts) -> Way | None:
        """One way, always the same one, or None; raises _TooManySteps."""
        if not targets:
            return [], sources[0] + _sum(amounts)
        target = targets[0]
        nearest = sorted(range(len(sources)), key=lambda at: (abs(sources[at] - target), at))
        for moved, rest in self._some(amounts):
            for at in nearest:
                self._step()
                if abs(sources[at] + moved - target) <= self._tolerance_minor:
                    others = [*sources[:at], *sources[at + 1 :]]
                    found = self.way(others, targets[1:], rest)
                    if found is not None:
                        return [(sources[at] + moved, target), *found[0]], found[1]
        return None

    def _some(self, amounts: Amounts) -> Iterator[tuple[int, Amounts]]:
        """Every sum of some of these amounts with those that are left: all of them first, then none."""
        yield _sum(amounts), ()
        yield 0, amounts
        yield from self._part(amounts, 0, 0, ())

    def _part(self, amounts: Amounts, at: int, moved: int, left: Amounts) -> Iterator[tuple[int, Amounts]]:
        if at == len(amounts):
            yield moved, left
            return
        self._step()
        amount, times = amounts[at]
        for taken in range(times, -1, -1):
            rest = (*left, (amount, times - taken)) if taken < times else left
            yield from self._part(amounts, at + 1, moved + amount * taken, rest)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise _TooManySteps


def _sum(amounts: Amounts) -> int:
    return sum(amount * times for amount, times in amounts)


def _way(
    reached: Sequence[int], wanted: Sequence[int], unprinted: dict[int, int], tolerance_minor: int
) -> list[Way] | None:
    """The way through a day, exactly if there is one, else within the tolerance; nothing: none; None: given up."""
    amounts = tuple(sorted(unprinted.items()))
    try:
        for tolerance in (0, tolerance_minor):
            found = _Search(tolerance).way(reached, wanted, amounts)
            if found is not None:
                return [found]
    except _TooManySteps:
        return None
    return []
