"""Conditions as a sentence, in Chinese and in English."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, assert_never

from chassis.conditions.fields import Field, Fields, Label
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
from chassis.conditions.text import quoted, word
from chassis.money import decimal_text


class _Words(NamedTuple):
    """The words of one language: templates by the kind of clause, and the names of the relations."""

    and_: str
    or_: str
    brackets: str
    listed: str
    relations: Mapping[Relation, str]
    day_relations: Mapping[Relation, str]
    templates: Mapping[str, str]


def _relations(*names: str) -> dict[Relation, str]:
    """The names of the relations, from above to below."""
    return dict(zip(Relation, names, strict=True))


_ZH: Final = _Words(
    and_="，且",
    or_="，或",
    brackets="（{}）",
    listed="、",
    relations=_relations("高于", "不低于", "等于", "不高于", "低于"),
    day_relations=_relations("晚于", "不早于", "为", "不晚于", "早于"),
    templates={
        "not": "非（{}）",
        "amount": "{field}{relation}{currency} {value}",
        "month": "{field}（{month}）{relation}{currency} {value}",
        "last month": "上月",
        "months ago": "{months}个月前",
        "compares": "{field}{relation}{value}",
        "last": "{field}在最近{days}天内",
        "next": "{field}在未来{days}天内",
        "is": "{field}为{values}",
        "begins": "{field}以{value}开头",
        "any": "{field}含{values}之一",
        "all": "{field}含全部{values}",
        "happened": "{field}：最近{days}天内{action}不少于{times}次",
        "happened to": "{field}：最近{days}天内{action}{object}不少于{times}次",
        "known": "{field}有值",
    },
)
_EN: Final = _Words(
    and_=", and ",
    or_=", or ",
    brackets="({})",
    listed=", ",
    relations=_relations("above", "at least", "equal to", "at most", "below"),
    day_relations=_relations("after", "on or after", "on", "on or before", "before"),
    templates={
        "not": "not ({})",
        "amount": "{field} is {relation} {currency} {value}",
        "month": "{field} of {month} is {relation} {currency} {value}",
        "last month": "last month",
        "months ago": "{months} months ago",
        "compares": "{field} is {relation} {value}",
        "last": "{field} is within the last {days} days",
        "next": "{field} is within the next {days} days",
        "is": "{field} is {values}",
        "begins": "{field} begins with {value}",
        "any": "{field} has any of {values}",
        "all": "{field} has all of {values}",
        "happened": "{field}: {action} at least {times} times within the last {days} days",
        "happened to": "{field}: {action} {object} at least {times} times within the last {days} days",
        "known": "{field} is known",
    },
)


def sentence(condition: Condition, fields: Fields) -> Label:
    """The condition as people say it.

    A value that has no label is quoted as in a line of text, so it cannot read as another part of the condition.
    """
    return Label(_said(condition, fields, 0), _said(condition, fields, 1))


def _said(condition: Condition, fields: Fields, language: int) -> str:
    words = (_ZH, _EN)[language]
    match condition:
        case Not():
            return words.templates["not"].format(_said(condition.condition, fields, language))
        case And():
            return words.and_.join([_part(each, fields, language, words) for each in condition.conditions])
        case Or():
            return words.or_.join([_part(each, fields, language, words) for each in condition.conditions])
        case _:
            template, values = _clause(condition, fields[condition.field], language, words)
            return words.templates[template].format(field=fields[condition.field].label[language], **values)


def _part(condition: Condition, fields: Fields, language: int, words: _Words) -> str:
    said = _said(condition, fields, language)
    return words.brackets.format(said) if isinstance(condition, And | Or) else said


def _clause(  # noqa: PLR0911 (one arm per clause)
    clause: Clause, declared: Field, language: int, words: _Words
) -> tuple[str, dict[str, Any]]:
    """The template of a clause and the values that go into it."""

    def called(value: str) -> str:
        return declared.values[value][language] if value in declared.values else word(value)

    def listed(values: Sequence[str]) -> str:
        return words.listed.join([called(each) for each in values])

    match clause:
        case AmountIs(relation=relation, currency=currency, amount_minor=amount):
            value = decimal_text(amount, currency)
            return "amount", {
                "relation": words.relations[relation],
                "currency": currency,
                "value": value,
            }
        case MonthAmountIs(month=month, relation=relation, currency=currency, amount_minor=amount):
            return "month", {
                "month": _month(month, words),
                "relation": words.relations[relation],
                "currency": currency,
                "value": decimal_text(amount, currency),
            }
        case NumberIs(relation=relation, number=number):
            return "compares", {"relation": words.relations[relation], "value": number}
        case DayIs(relation=relation, day=day):
            return "compares", {"relation": words.day_relations[relation], "value": day.isoformat()}
        case DayWithin(which=which, days=days):
            return which, {"days": days}
        case IsAmong(values=values):
            return "is", {"values": listed(values)}
        case Begins(text=text):
            return "begins", {"value": quoted(text)}
        case Has(how=how, values=values):
            return how, {"values": listed(values)}
        case Happened(action=action, object=item, days=days, times=times):
            template = "happened" if item is None else "happened to"
            to = None if item is None else quoted(item)
            return template, {"action": called(action), "object": to, "days": days, "times": times}
        case IsKnown():
            return "known", {}
    assert_never(clause)


def _month(month: str | int, words: _Words) -> str:
    if isinstance(month, str):
        return month
    return words.templates["last month" if month == 1 else "months ago"].format(months=month)
