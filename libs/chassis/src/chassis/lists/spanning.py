"""What a condition asks of values that are compared: ranges, of which an index has each in one piece.

Such an index is in the order of its values. A page in the order of ids is therefore either sorted from all documents of a
range, or read along the ids until enough meet the condition. `finding` decides between the two.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import takewhile
from typing import Final, NamedTuple

from chassis.conditions import Condition, Fields, Filter, as_filter
from chassis.conditions.language import (
    AmountIs,
    And,
    DayIs,
    DayWithin,
    IsAmong,
    IsKnown,
    MonthAmountIs,
    Not,
    NumberIs,
    Or,
    Relation,
)
from chassis.conditions.predicate import compares
from chassis.read.documents import ID
from chassis.read.projecting import Index

_EVERY_PATH: Final = "$**"

Compared = AmountIs | MonthAmountIs | NumberIs | DayIs | DayWithin


class Span(NamedTuple):
    """A range, and the fields of the index that has it. `besides`: ranges of the same index with documents of which this one
    says nothing."""

    where: Filter
    indexed: tuple[tuple[str, int], ...]
    besides: tuple[Filter, ...] = ()

    @property
    def read(self) -> Filter:
        """The documents that are read where it is chosen."""
        return {"$or": [self.where, *self.besides]} if self.besides else self.where

    def among(self, asked: Filter) -> Filter:
        """What is asked, in a form that is read by this index."""
        if not self.besides:
            return asked
        return {"$or": [{"$and": [each, asked]} for each in (self.where, *self.besides)]}


def spans(
    condition: Condition, fields: Fields, indexes: Sequence[Index], as_of: date
) -> tuple[Span, ...] | None:
    """The ranges that an index has, where a condition asks that values be within ranges, and for something else beside each. None
    where it asks for no range, or that a value be equal to something, for which there may be a better index. A range that
    has what is missing is left out: it has more than an index says."""
    compared = _compared(condition) if isinstance(condition, And) else None
    if not compared:
        return None
    tests = defaultdict[str, list[Filter]](list)
    for each in compared:
        if isinstance(each, AmountIs | MonthAmountIs) and compares(0, each.relation, each.amount_minor):
            continue
        [(path, test)] = as_filter(each, fields, as_of).items()
        tests[path].append({path: test})
    return tuple(
        Span({"$and": tests[path]}, index.fields) for path in tests for index in indexes if _has(index, path)
    )


def _compared(condition: Condition) -> list[Compared] | None:
    """The comparisons of which all are to hold; None where a value is to be equal to something. What is negated or one of
    several is passed over: it makes the rest fewer."""
    match condition:
        case And():
            parts = [_compared(each) for each in condition.conditions]
            return None if None in parts else [each for part in parts if part for each in part]
        case Not() | Or():
            return []
        case DayWithin():
            return [condition]
        case AmountIs() | MonthAmountIs() | NumberIs() | DayIs() if condition.relation is not Relation.EQUAL:
            return [condition]
        case _:
            return None


def _has(index: Index, path: str) -> bool:
    """Whether an index is in the order of this path alone. Behind the id it may have more."""
    names = list(takewhile(lambda name: name != ID, (name for name, _ in index.fields)))
    return len(names) == 1 and any(names[0] in {path, f"{each}{_EVERY_PATH}"} for each in _above(path))


def _above(path: str) -> Iterator[str]:
    """A path, and what it lies in, each with a point at its end."""
    for at, letter in enumerate(f"{path}."):
        if letter == ".":
            yield f"{path[:at]}."


def values_span(condition: Condition, fields: Fields, indexes: Sequence[Index]) -> Span | None:
    """The documents that meet a condition which asks one value alone to be one of some, or to be missing, as places in the
    index of that value; None for every other condition, and where there is no index."""
    found = _values(condition)
    if found is None:
        return None
    path = fields[found[0]].path
    of_path = (index for index in indexes if _has(index, path))
    return next((Span({path: {"$in": found[1]}}, index.fields) for index in of_path), None)


def _values(condition: Condition) -> tuple[str, list[str | None]] | None:
    """The field that is asked for, and the values that it may have; None is one that is missing."""
    match condition:
        case IsAmong():
            return condition.field, list(condition.values)
        case Not(condition=IsKnown(field=field)):
            return field, [None]
        case Or():
            parts = [_values(each) for each in condition.conditions]
            names = {part[0] for part in parts if part is not None}
            if None in parts or len(names) != 1:
                return None
            return names.pop(), list({value: None for part in parts if part is not None for value in part[1]})
        case _:
            return None
