"""Conditions as filters of MongoDB, in a form that its indexes answer.

A negation is carried down to the clauses, because the database uses no index for `$nor`.
"""

from datetime import date
from typing import Any, Final, assert_never

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
from chassis.conditions.predicate import compares, month_of, within

Filter = dict[str, Any]
_CODE_POINT_MAX: Final = 0x10FFFF

OPERATORS: Final = {
    Relation.ABOVE: "$gt",
    Relation.AT_LEAST: "$gte",
    Relation.EQUAL: "$eq",
    Relation.AT_MOST: "$lte",
    Relation.BELOW: "$lt",
}
_OPPOSITES: Final = {
    Relation.ABOVE: Relation.AT_MOST,
    Relation.AT_LEAST: Relation.BELOW,
    Relation.AT_MOST: Relation.ABOVE,
    Relation.BELOW: Relation.AT_LEAST,
}


def as_filter(condition: Condition, fields: Fields, as_of: date, *, negated: bool = False) -> Filter:
    """The filter of the documents whose facts meet the condition (negated: do not meet it)."""
    match condition:
        case Not():
            return as_filter(condition.condition, fields, as_of, negated=not negated)
        case And() | Or():
            parts = [as_filter(each, fields, as_of, negated=negated) for each in condition.conditions]
            return {"$and" if isinstance(condition, And) is not negated else "$or": parts}
        case _:
            return _clause(condition, fields[condition.field].path, as_of, negated)


def _clause(clause: Clause, path: str, as_of: date, negated: bool) -> Filter:  # noqa: PLR0911 (one arm per clause)
    match clause:
        case AmountIs():
            return _amount(f"{path}.{clause.currency}", clause.relation, clause.amount_minor, negated)
        case MonthAmountIs():
            month = f"{path}.{month_of(clause.month, as_of)}"
            return _amount_if_known(month, clause.currency, clause.relation, clause.amount_minor, negated)
        case NumberIs():
            return _negatable(path, {OPERATORS[clause.relation]: clause.number}, negated)
        case DayIs():
            return _negatable(path, {OPERATORS[clause.relation]: clause.day.isoformat()}, negated)
        case DayWithin():
            first, after = within(clause.which, clause.days, as_of)
            return _negatable(path, {"$gte": first, "$lt": after}, negated)
        case IsAmong() | Has(how="any"):
            return {path: {"$nin" if negated else "$in": list(clause.values)}}
        case Begins():
            return _negatable(path, _beginning(clause.text), negated)
        case Has():
            return _negatable(path, {"$all": list(clause.values)}, negated)
        case Happened():
            return _happened(clause, path, as_of, negated)
        case IsKnown():
            return {path: {"$eq" if negated else "$ne": None}}
    assert_never(clause)


def _beginning(text: str) -> Filter:
    """A range instead of a pattern: no character of the text has a meaning, and an index answers it.

    The database orders texts by their bytes in UTF-8, which is the order of their code points."""
    for at in range(len(text) - 1, -1, -1):
        following = ord(text[at]) + 1
        if following <= _CODE_POINT_MAX:
            # Half characters are no text: after U+D7FF comes U+E000.
            after = text[:at] + chr(0xE000 if following == 0xD800 else following)
            return {"$gte": text, "$lt": after}
    return {"$gte": text}


def _negatable(path: str, test: Filter, negated: bool) -> Filter:
    """The test, or its negation: of a range, one of its ends does not hold. The database has no bounds of an index for a
    range that is negated as a whole."""
    if not negated:
        return {path: test}
    ends = [{path: {"$not": {operator: value}}} for operator, value in test.items()]
    return ends[0] if len(ends) == 1 else {"$or": ends}


def _amount(path: str, relation: Relation, limit: int, negated: bool) -> Filter:
    """A currency that is missing counts as zero: where zero meets the relation, what is missing meets it too."""
    if negated and relation is not Relation.EQUAL:
        return _amount(path, _OPPOSITES[relation], limit, negated=False)
    if relation is Relation.EQUAL:
        values = [limit, None] if limit == 0 else [limit]
        return {path: {"$nin" if negated else "$in": values}}
    if compares(0, relation, limit):
        return {path: {"$not": {OPERATORS[_OPPOSITES[relation]]: limit}}}
    return {path: {OPERATORS[relation]: limit}}


def _amount_if_known(path: str, currency: str, relation: Relation, limit: int, negated: bool) -> Filter:
    """An amount among amounts that may be unknown: then no comparison is true. Where zero does not meet the relation, the
    amount itself says that it is known, and an index of it answers."""
    test = _amount(f"{path}.{currency}", relation, limit, negated)
    if negated:
        return {"$or": [{path: None}, test]}
    return {"$and": [test, {path: {"$ne": None}}]} if compares(0, relation, limit) else test


def _happened(clause: Happened, path: str, as_of: date, negated: bool) -> Filter:
    first, after = within("last", clause.days, as_of)
    wanted: Filter = {ACTION: clause.action, ON: {"$gte": first, "$lt": after}}
    if clause.object is not None:
        wanted[OBJECT] = clause.object
    at_all = {path: {"$elemMatch": wanted}}
    if clause.times == 1:
        return {path: {"$not": {"$elemMatch": wanted}}} if negated else at_all
    often = {"$expr": {"$gte": [_times(clause, path, first, after), clause.times]}}
    return {"$nor": [{"$and": [at_all, often]}]} if negated else {"$and": [at_all, often]}


def _times(clause: Happened, path: str, first: str, after: str) -> Filter:
    """How often it happened, as an expression. What a caller says is a literal in it: `$` has no meaning there."""
    tests: list[Filter] = [
        {"$eq": [f"$$each.{ACTION}", {"$literal": clause.action}]},
        {"$gte": [f"$$each.{ON}", first]},
        {"$lt": [f"$$each.{ON}", after]},
    ]
    if clause.object is not None:
        tests.append({"$eq": [f"$$each.{OBJECT}", {"$literal": clause.object}]})
    counted = {"$filter": {"input": {"$ifNull": [f"${path}", []]}, "as": "each", "cond": {"$and": tests}}}
    return {"$sum": {"$map": {"input": counted, "as": "each", "in": f"$$each.{TIMES}"}}}
