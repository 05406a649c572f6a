"""Conditions as a line of text that a person types, and back.

    aum >= CNY 500,000.00 and tier is (wealth, private) and tags has any (房贷客户, "VIP 2026")
    and behaviour viewed 贵金属 within last 7 days and not behaviour bought within last 90 days

    condition  = "not" condition | "(" condition ")" | clause | condition "and" condition | condition "or" condition
    clause     = FIELD RELATION CURRENCY AMOUNT            an amount; 万 and 亿 may follow it
               | FIELD "in" MONTH RELATION CURRENCY AMOUNT
               | FIELD RELATION NUMBER | FIELD RELATION DAY
               | FIELD "within" ("last" | "next") N "days"
               | FIELD "is" VALUES | FIELD "is" "known" | FIELD "begins" VALUE
               | FIELD "has" ["any" | "all"] VALUES
               | FIELD ACTION [OBJECT] [">=" N "times"] "within" "last" N "days"
    MONTH      = YYYY-MM | "last" "month" | N "months" "ago"
    VALUES     = VALUE | "(" VALUE {"," VALUE} ")"
    RELATION   = ">" | ">=" | "=" | "<=" | "<"

`not` binds closest, then `and`, then `or`. A value with blanks or marks in it, or one that is a word of the
language, stands in double quotes, as a string of JSON. A field is named by its name or its label.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, assert_never

from pydantic import ValidationError

from chassis.conditions.fields import Field, Fields, Type
from chassis.conditions.language import (
    AmountIs,
    And,
    Begins,
    Clause,
    Condition,
    ConditionRefused,
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
    checked,
    unknown_field,
)
from chassis.money import AmountUnreadable, NumberFormat, decimal_text, exponent, is_currency

CHARACTERS_MAX: Final = 20_000
NESTING_MAX: Final = 50
"""Open brackets and negations, before the limit of the language is asked."""

_RELATIONS: Final = {
    ">": Relation.ABOVE,
    ">=": Relation.AT_LEAST,
    "=": Relation.EQUAL,
    "<=": Relation.AT_MOST,
    "<": Relation.BELOW,
}
_SIGNS: Final = {relation: sign for sign, relation in _RELATIONS.items()}
_RESERVED: Final = frozenset(
    [
        "and",
        "or",
        "not",
        "is",
        "begins",
        "has",
        "any",
        "all",
        "known",
        "within",
        "last",
        "next",
        "days",
        "times",
    ]
)
_MARKS: Final = frozenset(["(", ")", ",", *_RELATIONS])
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<quoted>"(?:[^"\\\x00-\x1f]|\\.)*")
      | (?P<mark>[(),]|>=|<=|>|<|=)
      | (?P<word>[^\s(),"<>=]+)
    )""",
    re.VERBOSE,
)
_BARE: Final = re.compile(r"[^\W\d][\w-]*")
_WHOLE: Final = re.compile(r"-?[0-9]{1,16}")
_MONTH: Final = re.compile(r"[0-9]{4}-[0-9]{2}")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_AMOUNTS: Final = NumberFormat(group_mark=",")
_MULTIPLES: Final = {"万": 4, "亿": 8}


N = TypeVar(
    "N",
    AmountIs,
    MonthAmountIs,
    NumberIs,
    DayIs,
    DayWithin,
    IsAmong,
    Begins,
    Has,
    Happened,
    IsKnown,
    And,
    Or,
)


class _Token(NamedTuple):
    """A token; `at` is its first column, `end` the one behind it."""

    text: str
    quoted: bool
    at: int
    end: int


class TextRefused(ConditionRefused):
    """A text that is not a condition; `column` counts from 1."""

    def __init__(self, detail: str, column: int, code: str = "text-malformed") -> None:
        super().__init__(code, f"column {column}: {detail}")
        self.column = column


def from_text(text: str, fields: Fields) -> Condition:
    """The condition that a line of text says; raises ConditionRefused."""
    if len(text) > CHARACTERS_MAX:
        raise ConditionRefused("text-too-long", f"more than {CHARACTERS_MAX} characters")
    reader = _Reader(_tokens(text), len(text) + 1, fields)
    return checked(reader.whole(), fields)


def as_text(condition: Condition) -> str:
    """The line of text that says the condition; `from_text` gives it back."""
    match condition:
        case Not():
            return f"not {_inner(condition.condition, And, Or)}"
        case And():
            return " and ".join([_inner(each, And, Or) for each in condition.conditions])
        case Or():
            return " or ".join([_inner(each, Or) for each in condition.conditions])
        case _:
            return _clause(condition)


def _inner(condition: Condition, *bracketed: type[Any]) -> str:
    text = as_text(condition)
    return f"({text})" if isinstance(condition, bracketed) else text


def _clause(clause: Clause) -> str:  # noqa: PLR0911 (one arm per clause)
    match clause:
        case AmountIs():
            return f"{clause.field} {_compared(clause)}"
        case MonthAmountIs():
            return f"{clause.field} in {_month(clause.month)} {_compared(clause)}"
        case NumberIs():
            return f"{clause.field} {_SIGNS[clause.relation]} {clause.number}"
        case DayIs():
            return f"{clause.field} {_SIGNS[clause.relation]} {clause.day.isoformat()}"
        case DayWithin():
            return f"{clause.field} within {clause.which} {clause.days} days"
        case IsAmong():
            return f"{clause.field} is {_values(clause.values)}"
        case Begins():
            return f"{clause.field} begins {word(clause.text)}"
        case Has():
            return f"{clause.field} has {clause.how} {_values(clause.values)}"
        case Happened():
            item = "" if clause.object is None else f" {word(clause.object)}"
            often = "" if clause.times == 1 else f" >= {clause.times} times"
            return f"{clause.field} {word(clause.action)}{item}{often} within last {clause.days} days"
        case IsKnown():
            return f"{clause.field} is known"
    assert_never(clause)


def _compared(clause: AmountIs | MonthAmountIs) -> str:
    sign, amount = _SIGNS[clause.relation], decimal_text(clause.amount_minor, clause.currency)
    return f"{sign} {clause.currency} {amount}"


def _month(month: str | int) -> str:
    if isinstance(month, str):
        return month
    return "last month" if month == 1 else f"{month} months ago"


def _values(values: Sequence[str]) -> str:
    return word(values[0]) if len(values) == 1 else f"({', '.join([word(each) for each in values])})"


def word(text: str) -> str:
    """A value as a line of text has it: quoted where it is not one plain word, or is one of the language."""
    bare = _BARE.fullmatch(text) and text not in _RESERVED
    return text if bare else quoted(text)


def quoted(text: str) -> str:
    """A value in quotes, as a string of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _tokens(text: str) -> list[_Token]:
    tokens, at, end = list[_Token](), 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            column = at + len(text[at:]) - len(text[at:].lstrip()) + 1
            raise TextRefused("a quotation mark without its end", column)
        kind = found.lastgroup or ""
        start, said = found.start(kind) + 1, found.group(kind)
        if kind == "quoted":
            tokens.append(_Token(_unquoted(said, start), True, start, found.end() + 1))
        else:
            tokens.append(_Token(said, False, start, found.end() + 1))
        at = found.end()
    return tokens


def _unquoted(said: str, column: int) -> str:
    try:
        return str(json.loads(said))
    except ValueError:
        raise TextRefused("not a string of JSON", column) from None


@dataclass(slots=True)
class _Reader:
    """Reads tokens from left to right."""

    tokens: list[_Token]
    end: int
    fields: Fields
    at: int = 0
    nesting: int = 0

    def whole(self) -> Condition:
        condition = self.alternatives()
        if self.at < len(self.tokens):
            self.refuse('"and" or "or"')
        return condition

    def alternatives(self) -> Condition:
        parts = [self.together()]
        while self.takes("or"):
            parts.append(self.together())
        return parts[0] if len(parts) == 1 else self.made(Or, conditions=tuple(parts))

    def together(self) -> Condition:
        parts = [self.one()]
        while self.takes("and"):
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else self.made(And, conditions=tuple(parts))

    def one(self) -> Condition:
        self.nesting += 1
        if self.nesting > NESTING_MAX:
            raise ConditionRefused("too-deep", f"more than {NESTING_MAX} open brackets and negations")
        condition: Condition
        if self.takes("not"):
            condition = Not(condition=self.one())
        elif self.takes("("):
            condition = self.alternatives()
            self.expect(")")
        else:
            condition = self.clause()
        self.nesting -= 1
        return condition

    def clause(self) -> Condition:  # noqa: PLR0911 (one arm per type)
        column = self.column()
        name = self.word("a field")
        field = self.fields.called(name)
        if field is None:
            raise TextRefused(unknown_field(name, self.fields), column, "field-unknown")
        match field.type:
            case Type.AMOUNT:
                return self.made(AmountIs, field=field.name, **self.amount())
            case Type.MONTHLY:
                self.expect("in")
                month = self.month()
                return self.made(MonthAmountIs, field=field.name, month=month, **self.amount())
            case Type.NUMBER:
                return self.number(field)
            case Type.DAY:
                return self.day(field)
            case Type.CHOICE:
                return self.choice(field)
            case Type.SET:
                self.expect("has")
                how = "all" if self.takes("all") else "any"
                if how == "any":
                    self.takes("any")
                return self.made(Has, field=field.name, how=how, values=self.values(field))
            case Type.TRAIL:
                return self.happened(field)
        assert_never(field.type)

    def amount(self) -> dict[str, Any]:
        """How an amount compares, with which one."""
        relation, column = self.relation(), self.column()
        currency = self.word("a currency")
        if not is_currency(currency):
            raise TextRefused(f"{currency!r} is no currency of ISO 4217", column)
        column = self.column()
        said = self.grouped("an amount")
        if said[-1:] in _MULTIPLES:
            number, zeros = said[:-1], _MULTIPLES[said[-1:]]
        else:
            number, zeros = said, _MULTIPLES[self.take().text] if self.next_is(*_MULTIPLES) else 0
        try:
            minor = _AMOUNTS.minor_units(number, exponent(currency) + zeros, 10**24)
        except AmountUnreadable as error:
            raise TextRefused(f"{said!r}: {error}", column) from None
        return {"relation": relation, "currency": currency, "amount_minor": minor}

    def month(self) -> str | int:
        """A month that is named, or how many months ago it is."""
        if self.takes("last"):
            self.expect("month")
            return 1
        if self.at < len(self.tokens) and _MONTH.fullmatch(self.tokens[self.at].text):
            return self.take().text
        months = self.whole_number()
        self.expect("months")
        self.expect("ago")
        return months

    def grouped(self, wanted: str) -> str:
        """A number that may have commas between its groups, without blanks."""
        said = self.word(wanted)
        while self.next_is(",") and self._adjoins(self.at) and self._adjoins(self.at + 1):
            self.take()
            said = f"{said},{self.word(wanted)}"
        return said

    def number(self, field: Field) -> Condition:
        if self.takes("is"):
            return self.known(field) or self.refuse('"known"')
        relation = self.relation()
        return self.made(NumberIs, field=field.name, relation=relation, number=self.whole_number())

    def day(self, field: Field) -> Condition:
        if self.takes("is"):
            return self.known(field) or self.refuse('"known"')
        if self.takes("within"):
            which = "next" if self.takes("next") else "last"
            if which == "last":
                self.expect("last")
            return self.made(DayWithin, field=field.name, which=which, days=self.days())
        relation, column = self.relation(), self.column()
        said = self.word("a day, YYYY-MM-DD")
        if not _DAY.fullmatch(said):
            raise TextRefused(f"{said!r} is no day, YYYY-MM-DD", column)
        try:
            day = date.fromisoformat(said)
        except ValueError:
            raise TextRefused(f"the calendar has no day {said}", column) from None
        return self.made(DayIs, field=field.name, relation=relation, day=day)

    def choice(self, field: Field) -> Condition:
        if self.takes("begins"):
            return self.made(Begins, field=field.name, text=self.word("a text"))
        self.expect("is")
        return self.known(field) or self.made(IsAmong, field=field.name, values=self.values(field))

    def happened(self, field: Field) -> Condition:
        action = self.value(field)
        item = None if self.next_is(">=", "within") else self.word("an object")
        times = 1
        if self.takes(">="):
            times = self.whole_number()
            self.expect("times")
        self.expect("within")
        self.expect("last")
        return self.made(
            Happened, field=field.name, action=action, object=item, days=self.days(), times=times
        )

    def known(self, field: Field) -> Condition | None:
        return self.made(IsKnown, field=field.name) if self.takes("known") else None

    def days(self) -> int:
        days = self.whole_number()
        self.expect("days")
        return days

    def values(self, field: Field) -> tuple[str, ...]:
        if not self.takes("("):
            return (self.value(field),)
        values = [self.value(field)]
        while self.takes(","):
            values.append(self.value(field))
        self.expect(")")
        return tuple(values)

    def value(self, field: Field) -> str:
        """A value, or the label of one."""
        said = self.word("a value")
        return next((value for value, label in field.values.items() if said in (value, *label)), said)

    def relation(self) -> Relation:
        if not self.next_is(*_RELATIONS):
            self.refuse("one of > >= = <= <")
        return _RELATIONS[self.take().text]

    def whole_number(self) -> int:
        column = self.column()
        said = self.word("a number")
        if not _WHOLE.fullmatch(said):
            raise TextRefused(f"{said!r} is no number", column)
        return int(said)

    def made(self, node: type[N], **parts: Any) -> N:
        """The node; raises TextRefused where a limit of the language does not allow it."""
        column = self.tokens[max(self.at - 1, 0)].at
        try:
            return node(**parts)
        except ValidationError as error:
            place, reason = error.errors()[0]["loc"], error.errors()[0]["msg"]
            raise TextRefused(
                f"{'.'.join(map(str, place))}: {reason}", column, "value-out-of-range"
            ) from None

    def word(self, wanted: str) -> str:
        """A word that is no mark and, unless it is quoted, none of the language's own."""
        if self.at >= len(self.tokens) or self._own(self.tokens[self.at]):
            self.refuse(wanted)
        return self.take().text

    def take(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def next_is(self, *texts: str) -> bool:
        if self.at >= len(self.tokens):
            return False
        token = self.tokens[self.at]
        return not token.quoted and token.text in texts

    def takes(self, text: str) -> bool:
        found = self.next_is(text)
        self.at += found
        return found

    def expect(self, text: str) -> None:
        if not self.takes(text):
            self.refuse(json.dumps(text))

    def column(self) -> int:
        return self.tokens[self.at].at if self.at < len(self.tokens) else self.end

    def refuse(self, wanted: str) -> NoReturn:
        found = repr(self.tokens[self.at].text) if self.at < len(self.tokens) else "the end"
        raise TextRefused(f"{wanted} is expected, not {found}", self.column())

    def _adjoins(self, at: int) -> bool:
        """Whether a token follows the one before it without a blank."""
        return 0 < at < len(self.tokens) and self.tokens[at].at == self.tokens[at - 1].end

    @staticmethod
    def _own(token: _Token) -> bool:
        return not token.quoted and (token.text in _RESERVED or token.text in _MARKS)
