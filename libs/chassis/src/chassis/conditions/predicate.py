"""Conditions in Python: whether the facts of one subject meet a condition."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, assert_never

from chassis.conditions.fields import ACTION, OBJECT, ON, TIMES, Fields
from chassis.conditions.language import (
    AmountIs,
    And,
    Begins,
    Clause,
    Condition,
    DayIs,
    DayWithin,
    Happened,
    Has,
    IsAmong,
    IsKnown,
    MonthAmountIs,
    Not,
    NumberIs,
    Or,
    Relation,
)

Facts = Mapping[str, Any]


def holds(condition: Condition, facts: Facts, fields: Fields, as_of: date) -> bool:
    """Whether the facts meet the condition as of a day of the bank's calendar."""
    match condition:
        case Not():
            return not holds(condition.condition, facts, fields, as_of)
        case And():
            return all(holds(each, facts, fields, as_of) for each in condition.conditions)
        case Or():
            return any(holds(each, facts, fields, as_of) for each in condition.conditions)
        case _:
            return clause_holds(condition, value_at(facts, fields[condition.field].path), as_of)


def clause_holds(clause: Clause, value: Any, as_of: date) -> bool:  # noqa: PLR0911 (one arm per clause)
    """Whether a value meets a clause."""
    match clause:
        case AmountIs():
            return compares((value or {}).get(clause.currency, 0), clause.relation, clause.amount_minor)
        case MonthAmountIs():
            amounts = (value or {}).get(month_of(clause.month, as_of))
            if amounts is None:
                return False
            return compares(amounts.get(clause.currency, 0), clause.relation, clause.amount_minor)
        case NumberIs():
            return value is not None and compares(value, clause.relation, clause.number)
        case DayIs():
            return value is not None and compares(value, clause.relation, clause.day.isoformat())
        case DayWithin():
            first, after = within(clause.which, clause.days, as_of)
            return value is not None and first <= value < after
        case IsAmong():
            return value in clause.values
        case Begins():
            return value is not None and value.startswith(clause.text)
        case Has():
            return (any if clause.how == "any" else all)([each in (value or ()) for each in clause.values])
        case Happened():
            return _times(clause, value or (), as_of) >= clause.times
        case IsKnown():
            return value is not None
    assert_never(clause)


def value_at(facts: Facts, path: str) -> Any:
    """The value at a path with dots; None where there is none."""
    value: Any = facts
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def within(which: str, days: int, as_of: date) -> tuple[str, str]:
    """The last or the next days as a half-open range: the first day, and the day after the last."""
    first = as_of if which == "next" else as_of - timedelta(days=days - 1)
    return first.isoformat(), (first + timedelta(days=days)).isoformat()


def month_of(month: str | int, as_of: date) -> str:
    """A month, YYYY-MM, that is named or so many months before that of a day."""
    if isinstance(month, str):
        return month
    year, zero_based = divmod(as_of.year * 12 + as_of.month - 1 - month, 12)
    return f"{year:04d}-{zero_based + 1:02d}"


def compares(value: Any, relation: Relation, limit: Any) -> bool:
    """Whether two values of one type stand in this relation."""
    match relation:
        case Relation.ABOVE:
            return bool(value > limit)
        case Relation.AT_LEAST:
            return bool(value >= limit)
        case Relation.EQUAL:
            return bool(value == limit)
        case Relation.AT_MOST:
            return bool(value <= limit)
        case Relation.BELOW:
            return bool(value < limit)
    assert_never(relation)


def _times(clause: Happened, trail: Any, as_of: date) -> int:
    first, after = within("last", clause.days, as_of)
    return sum(
        each[TIMES]
        for each in trail
        if each[ACTION] == clause.action
        and clause.object in (None, each[OBJECT])
        and first <= each[ON] < after
    )
