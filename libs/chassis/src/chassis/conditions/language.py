"""The language of conditions: what one can say of a subject's facts, as JSON.

A condition is a tree. Its leaves are clauses about one field each. A clause about days counts from the day as of
which the condition is asked, never from the day on which the query runs:

- the last N days are the N days that end with that day;
- the next N days are the N days that begin with it;
- the month that is N months ago is counted from the month of that day: one month ago is the last month.
"""

from collections.abc import Iterable, Iterator
from datetime import date
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, TypeAdapter
from typing_extensions import TypeAliasType

from chassis.conditions.fields import DataClass, Fields, Type
from chassis.money import AMOUNT_MINOR_MAX, BALANCE_MINOR_MAX, CurrencyCode
from chassis.web.formats import StatedDay

DEPTH_MAX: Final = 8
"""Levels of a tree; a clause alone is one."""
CLAUSES_MAX: Final = 40
WORDS_MAX: Final = 200
"""Values that one clause lists."""
DAYS_MAX: Final = 3_660
DAY_MIN: Final = date(1900, 1, 1)
DAY_MAX: Final = date(2199, 12, 31)
"""Days that are compared with, and days as of which it is asked: windows begin and end within the calendar."""
TIMES_MAX: Final = 10_000
MONTHS_AGO_MAX: Final = 24
NUMBER_MAX: Final = AMOUNT_MINOR_MAX

FieldName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Beginning = Annotated[str, StringConstraints(min_length=1, max_length=100)]
"""Compared as it is, whatever its characters."""
Words = Annotated[tuple[Word, ...], Field(min_length=1, max_length=WORDS_MAX)]
Days = Annotated[int, Field(ge=1, le=DAYS_MAX, strict=True)]
Month = Annotated[str, StringConstraints(pattern=r"^(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])$")]
"""A month of the bank's calendar, YYYY-MM."""
CalendarDay = Annotated[StatedDay, Field(ge=DAY_MIN, le=DAY_MAX)]
MonthsAgo = Annotated[int, Field(ge=1, le=MONTHS_AGO_MAX, strict=True)]


class ConditionRefused(ValueError):
    """A condition that cannot be asked; `code` says why, `at` is the place in it: `conditions.1.field`."""

    def __init__(self, code: str, detail: str, at: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.at = at


class Relation(StrEnum):
    """How a value stands to another."""

    ABOVE = "above"
    AT_LEAST = "at_least"
    EQUAL = "equal"
    AT_MOST = "at_most"
    BELOW = "below"


def _op_required(schema: dict[str, Any]) -> None:
    """States that a node says what it is: without its `op` it is none."""
    schema["required"] = ["op", *schema.get("required", ())]


class _Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_op_required)


class AmountIs(_Node):
    """An amount in one currency compares so with a limit, in integer minor units."""

    op: Literal["amount"] = "amount"
    field: FieldName
    relation: Relation
    currency: CurrencyCode
    amount_minor: Annotated[int, Field(ge=-BALANCE_MINOR_MAX, le=BALANCE_MINOR_MAX, strict=True)]


class MonthAmountIs(_Node):
    """An amount of a month in one currency compares so with a limit, in integer minor units.

    The month is named, or it is so many months ago.
    """

    op: Literal["month_amount"] = "month_amount"
    field: FieldName
    month: Annotated[
        Annotated[Month, Tag("named")] | Annotated[MonthsAgo, Tag("months_ago")],
        Discriminator(lambda month: "months_ago" if isinstance(month, int) else "named"),
    ]
    relation: Relation
    currency: CurrencyCode
    amount_minor: Annotated[int, Field(ge=-BALANCE_MINOR_MAX, le=BALANCE_MINOR_MAX, strict=True)]


class NumberIs(_Node):
    """A number compares so with another."""

    op: Literal["number"] = "number"
    field: FieldName
    relation: Relation
    number: Annotated[int, Field(ge=-NUMBER_MAX, le=NUMBER_MAX, strict=True)]


class DayIs(_Node):
    """A day compares so with another: above is after it."""

    op: Literal["day"] = "day"
    field: FieldName
    relation: Relation
    day: CalendarDay


class DayWithin(_Node):
    """A day is among the last or the next days."""

    op: Literal["day_within"] = "day_within"
    field: FieldName
    which: Literal["last", "next"]
    days: Days


class IsAmong(_Node):
    """A choice is one of these values."""

    op: Literal["is"] = "is"
    field: FieldName
    values: Words


class Begins(_Node):
    """A choice begins with this text, in the same case. The field is not personal and has no declared values."""

    op: Literal["begins"] = "begins"
    field: FieldName
    text: Beginning


class Has(_Node):
    """A set has any, or all, of these values."""

    op: Literal["has"] = "has"
    field: FieldName
    how: Literal["any", "all"] = "any"
    values: Words


class Happened(_Node):
    """Something happened so often, or oftener, in the last days: to this object, or to any."""

    op: Literal["happened"] = "happened"
    field: FieldName
    action: Word
    object: Word | None = None
    days: Days
    times: Annotated[int, Field(ge=1, le=TIMES_MAX, strict=True)] = 1


class IsKnown(_Node):
    """A number, day or choice has a value."""

    op: Literal["known"] = "known"
    field: FieldName


class Not(_Node):
    """The condition does not hold."""

    op: Literal["not"] = "not"
    condition: "Condition"


class And(_Node):
    """All of them hold."""

    op: Literal["and"] = "and"
    conditions: Annotated[tuple["Condition", ...], Field(min_length=1, max_length=CLAUSES_MAX)]


class Or(_Node):
    """At least one of them holds."""

    op: Literal["or"] = "or"
    conditions: Annotated[tuple["Condition", ...], Field(min_length=1, max_length=CLAUSES_MAX)]


Clause = AmountIs | MonthAmountIs | NumberIs | DayIs | DayWithin | IsAmong | Begins | Has | Happened | IsKnown
Condition = TypeAliasType(
    "Condition",
    Annotated[Clause | Not | And | Or, Field(discriminator="op")],
)
for _each in (Not, And, Or):
    _each.model_rebuild()
CONDITION: Final[TypeAdapter[Any]] = TypeAdapter(Condition)
"""Reads and writes a condition as JSON, and gives its schema."""

CLAUSE_TYPES: Final[dict[type[Any], tuple[Type, ...]]] = {
    AmountIs: (Type.AMOUNT,),
    MonthAmountIs: (Type.MONTHLY,),
    NumberIs: (Type.NUMBER,),
    DayIs: (Type.DAY,),
    DayWithin: (Type.DAY,),
    IsAmong: (Type.CHOICE,),
    Begins: (Type.CHOICE,),
    Has: (Type.SET,),
    Happened: (Type.TRAIL,),
    IsKnown: (Type.NUMBER, Type.DAY, Type.CHOICE),
}
"""The types of the fields that each clause is about."""


def checked(condition: "Condition", fields: Fields) -> "Condition":
    """The condition, if it is within the limits and asks only what these fields have; raises ConditionRefused."""
    found = 0
    for path, node in _walk(condition):
        if len(path) >= DEPTH_MAX:
            raise ConditionRefused("too-deep", f"more than {DEPTH_MAX} levels", _at(path))
        if not isinstance(node, Not | And | Or):
            found += 1
            if found > CLAUSES_MAX:
                raise ConditionRefused("too-many-clauses", f"more than {CLAUSES_MAX} clauses", _at(path))
            _check(node, fields, _at(path))
    return condition


def _check(clause: Clause, fields: Fields, at: str) -> None:
    declared = fields.get(clause.field)
    if declared is None:
        raise ConditionRefused("field-unknown", unknown_field(clause.field, fields), f"{at}field")
    if declared.type not in CLAUSE_TYPES[type(clause)]:
        raise ConditionRefused("field-type", f"{declared.name} is of type {declared.type}", f"{at}op")
    if isinstance(clause, Begins) and (declared.values or declared.data_class is DataClass.PERSONAL):
        said = f"of {declared.name} only whole values can be asked for"
        raise ConditionRefused("field-whole", said, f"{at}op")
    for place, word in _words(clause):
        if declared.values and word not in declared.values:
            said = f"{declared.name} has no value {word!r}{_nearest(word, declared.values)}"
            raise ConditionRefused("value-unknown", said, f"{at}{place}")


def _words(clause: Clause) -> Iterator[tuple[str, str]]:
    match clause:
        case IsAmong() | Has():
            yield from ((f"values.{at}", word) for at, word in enumerate(clause.values))
        case Happened():
            yield "action", clause.action
        case _:
            return


def unknown_field(name: str, fields: Fields) -> str:
    """What to say of a field that is none, with the nearest name."""
    return f"no field {name!r}{_nearest(name, fields)}"


def _nearest(word: str, known: Iterable[str]) -> str:
    """The end of a refusal: the known word that is nearest, where one is near."""
    near = get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _walk(condition: "Condition") -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each node with its path, from left to right; no recursion, because a caller chooses the depth."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), condition)]
    while waiting:
        path, node = waiting.pop()
        yield path, node
        match node:
            case Not():
                waiting.append(((*path, "condition"), node.condition))
            case And() | Or():
                inner = [((*path, f"conditions.{at}"), each) for at, each in enumerate(node.conditions)]
                waiting += reversed(inner)
            case _:
                pass


def _at(path: tuple[str, ...]) -> str:
    return "".join([f"{step}." for step in path])
