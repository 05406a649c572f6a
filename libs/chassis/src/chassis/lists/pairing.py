"""Pairs of values that are asked for together, of which one at least is an amount of a month.

An index has no path for a month that is named by how long ago it is: its name is another one each month. So a document that
is derived anew when a month begins also has such amounts under names that stay, beside the month in which it was derived.
What was derived in another month is asked as it always is.

Of two ranges, an index has only the first in one piece. The first is therefore asked for by its magnitude, of which there are
few: within each, the second is in one piece.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any, Final, NamedTuple

from chassis.conditions import Condition, Facts, Fields, Filter, as_filter
from chassis.conditions.filtering import OPERATORS
from chassis.conditions.language import And, MonthAmountIs, Relation
from chassis.conditions.predicate import month_of, value_at
from chassis.lists.spanning import Span
from chassis.read.documents import ID
from chassis.read.projecting import Index

AGO: Final = "ago"
"""Where a document has its amounts of months by how long ago they are."""
_OF: Final = "of"
OF: Final = f"{AGO}.{_OF}"
"""The month in which a document was derived."""
_OF_MAGNITUDES: Final = {**OPERATORS, Relation.ABOVE: "$gte", Relation.BELOW: "$lte"}
"""A smaller amount has no larger magnitude, and may have the same."""


class Ago(NamedTuple):
    """An amount of the month that is so many months before that in which a document was derived."""

    field: str
    months: int
    currency: str

    @property
    def path(self) -> str:
        """Where a document has it: zero where the month is known and has none in this currency, null where it is not."""
        return f"{AGO}.{self._name}"

    @property
    def magnitude_path(self) -> str:
        """Where a document has its magnitude."""
        return f"{self.path}-magnitude"

    @property
    def _name(self) -> str:
        return f"{self.field}-{self.months}-{self.currency}"

    def among(self, facts: Facts, fields: Fields, day: date) -> dict[str, int | None]:
        """The amount and its magnitude, by name, of what is derived on this day."""
        amounts = value_at(facts, f"{fields[self.field].path}.{month_of(self.months, day)}")
        minor = None if amounts is None else amounts.get(self.currency, 0)
        return {self._name: minor, f"{self._name}-magnitude": None if minor is None else magnitude(minor)}

    def asked_by(self, clause: Condition, as_of: date, today: date) -> bool:
        """Whether a clause asks for this amount of what is derived today."""
        return (
            isinstance(clause, MonthAmountIs)
            and (clause.field, clause.currency) == (self.field, self.currency)
            and month_of(clause.month, as_of) == month_of(self.months, today)
        )


class Pair(NamedTuple):
    """`leading` is asked for by its magnitude; `other` is a path of an amount, number, day or choice where it is no amount of a month."""

    leading: Ago
    other: Ago | str

    @property
    def indexed(self) -> Index:
        """The index that has both."""
        other = self.other if isinstance(self.other, str) else self.other.path
        names = (OF, self.leading.magnitude_path, other, self.leading.path, ID)
        return Index(tuple((name, 1) for name in names))


class Paired(NamedTuple):
    """What a condition asks of a pair, as a range. `alone`: it asks for nothing else."""

    span: Span
    alone: bool

    def counted(self, asked: Filter, *, alone: bool) -> Filter:
        """What is asked, in a form that is counted by the index of the pair; from its keys where nothing else is asked for."""
        if not alone:
            return self.span.among(asked)
        return {"$or": [self.span.where, *({"$and": [each, asked]} for each in self.span.besides)]}


def months_ago(pairs: tuple[Pair, ...], facts: Facts, fields: Fields, day: date) -> dict[str, Any]:
    """What a document that is derived on this day has besides its facts, for these pairs."""
    if not pairs:
        return {}
    found: dict[str, Any] = {_OF: month_of(0, day)}
    for each in (each for pair in pairs for each in pair if isinstance(each, Ago)):
        found |= each.among(facts, fields, day)
    return {AGO: found}


def paired(
    condition: Condition | None, pairs: tuple[Pair, ...], fields: Fields, as_of: date, today: date
) -> Paired | None:
    """The range of an index of a pair, where a condition asks for both of one; None where none has what is asked for.

    Of a document that was not derived in the month of today the range says nothing."""
    clauses = _clauses(condition)
    for pair in pairs:
        asked = [_asked(each, clauses, fields, as_of, today) for each in pair]
        if not all(asked):
            continue
        now = month_of(0, today)
        tests: list[Filter] = [{OF: now}, *_magnitudes(pair.leading, clauses, as_of, today)]
        tests += [test for of_one in asked for test in of_one.values()]
        others = tuple({OF: {beyond: now}} for beyond in ("$lt", "$gt"))
        return Paired(
            Span({"$and": tests}, pair.indexed.fields, others),
            alone={at for of_one in asked for at in of_one} == set(range(len(clauses))),
        )
    return None


def _clauses(condition: Condition | None) -> list[Condition]:
    """The conditions of which all are to hold."""
    if isinstance(condition, And):
        return [each for one in condition.conditions for each in _clauses(one)]
    return [] if condition is None else [condition]


def _asked(
    one: Ago | str, clauses: list[Condition], fields: Fields, as_of: date, today: date
) -> Mapping[int, Filter]:
    """What clauses ask of one of a pair, by the place of the clause."""
    found = dict[int, Filter]()
    for at, clause in enumerate(clauses):
        if isinstance(one, Ago):
            if one.asked_by(clause, as_of, today) and isinstance(clause, MonthAmountIs):
                found[at] = {one.path: {OPERATORS[clause.relation]: clause.amount_minor}}
        elif list(asked := as_filter(clause, fields, as_of)) == [one]:
            found[at] = asked
    return found


def _magnitudes(one: Ago, clauses: list[Condition], as_of: date, today: date) -> list[Filter]:
    return [
        {one.magnitude_path: {_OF_MAGNITUDES[each.relation]: magnitude(each.amount_minor)}}
        for each in clauses
        if isinstance(each, MonthAmountIs) and one.asked_by(each, as_of, today)
    ]


def magnitude(minor: int) -> int:
    """How many binary digits an amount has, negative where it is below zero. It never falls where the amount rises."""
    return minor.bit_length() if minor >= 0 else -minor.bit_length()
