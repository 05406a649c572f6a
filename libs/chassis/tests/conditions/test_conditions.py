"""Conditions: their interpreters agree on generated conditions and facts, and what cannot be asked is refused."""

import json
import re
from collections.abc import Callable
from datetime import date, timedelta
from random import Random
from typing import Any

import pytest
from chassis.conditions import (
    CONDITION,
    Condition,
    ConditionRefused,
    DataClass,
    Facts,
    Field,
    Fields,
    Label,
    Type,
    as_filter,
    as_text,
    checked,
    emptying,
    explained,
    from_text,
    funnel,
    holds,
    sentence,
)
from chassis.conditions.explaining import LOOKED_AT_MAX, PARTS_MAX, parts
from chassis.conditions.language import (
    CLAUSE_TYPES,
    CLAUSES_MAX,
    DAYS_MAX,
    DEPTH_MAX,
    NUMBER_MAX,
    TIMES_MAX,
    WORDS_MAX,
    AmountIs,
    And,
    Begins,
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
from chassis.lists.describing import condition_schema
from chassis.money import BALANCE_MINOR_MAX
from chassis.read.mongo import Mongo
from jsonschema import Draft202012Validator
from pydantic import ValidationError

TODAY = date(2026, 3, 1)
TIERS = {
    "basic": Label("普通层", "basic"),
    "wealth": Label("财富层", "wealth"),
    "private": Label("私行层", "private"),
}
ACTIONS = {
    "viewed": Label("浏览", "viewed"),
    "bought": Label("购买", "bought"),
    "$each.times": Label("退货", "returned"),
}
TAGS = ("学生", "房贷客户", "VIP 2026", "and", '$a"\\b', "a.b")
BRANCHES = (
    "a.*",
    "a",
    "a.",
    "ab",
    "A",
    "a\nb",
    "a\x00b",
    'a"',
    "\ud7ff",
    "\ud7ffz",
    "\ue000",
    "\U0010fffe",
    "\U0010fffez",
    "\U0010ffff",
    "\U0010ffffz",
    "支行",
)
OBJECTS = ("贵金属", "$$ROOT", "card (gold)")
FIELDS = Fields(
    [
        Field("aum", Type.AMOUNT, Label("资产", "assets"), "sums.aum", DataClass.CONFIDENTIAL),
        Field("average", Type.MONTHLY, Label("月均", "average"), "sums.months", DataClass.CONFIDENTIAL),
        Field("age", Type.NUMBER, Label("年龄", "age in years"), "age", DataClass.PERSONAL),
        Field("matures_on", Type.DAY, Label("到期日", "maturity"), "matures_on", DataClass.CONFIDENTIAL),
        Field("tier", Type.CHOICE, Label("分层", "level"), "tier", DataClass.INTERNAL, TIERS),
        Field("city", Type.CHOICE, Label("城市", "town"), "profile.city", DataClass.PERSONAL, {}, "profile"),
        Field("branch", Type.CHOICE, Label("网点", "branch"), "branch", DataClass.INTERNAL),
        Field("tags", Type.SET, Label("标签", "labels"), "tags", DataClass.INTERNAL),
        Field("behaviour", Type.TRAIL, Label("行为", "actions"), "trail", DataClass.INTERNAL, ACTIONS),
    ]
)
MONTHS = ("2025-11", "2025-12", "2026-01", "2026-02")
EDGES = (0, 1, 499, 500, 2**31 - 1, 2**31, 9 * 10**15 - 1, 9 * 10**15)


def some_facts(chance: Random) -> dict[str, Any]:
    """Facts with every part at times missing, null or empty."""

    def at_times(value: Any) -> Any:
        return value if chance.random() < 0.8 else None

    def amounts() -> dict[str, int]:
        return {c: chance.choice((1, -1)) * chance.choice(EDGES) for c in ("CNY", "USD") if at_times(1)}

    facts = {
        "sums": {"aum": amounts(), "months": {month: at_times(amounts()) for month in MONTHS if at_times(1)}},
        "age": at_times(chance.choice((-1, 0, 17, 18, 65))),
        "matures_on": at_times((TODAY + timedelta(days=chance.randint(-8, 8))).isoformat()),
        "tier": at_times(chance.choice(tuple(TIERS))),
        "branch": at_times(chance.choice(BRANCHES)),
        "profile": {"city": chance.choice(("北京", "上海", 'a"b'))} if at_times(1) else {},
        "tags": at_times(chance.sample(TAGS, chance.randint(0, 3))),
        "trail": at_times(
            [
                {
                    "action": chance.choice(tuple(ACTIONS)),
                    "object": chance.choice(OBJECTS),
                    "on": (TODAY - timedelta(days=chance.randint(-2, 9))).isoformat(),
                    "times": chance.randint(1, 3),
                }
                for _ in range(chance.randint(0, 4))
            ]
        ),
    }
    return {name: value for name, value in facts.items() if chance.random() < 0.9}


def some_clause(chance: Random) -> Condition:
    relation = chance.choice(tuple(Relation))
    makers: tuple[Callable[[], Condition], ...] = (
        lambda: AmountIs(
            field="aum",
            relation=relation,
            currency=chance.choice(("CNY", "USD", "JPY")),
            amount_minor=chance.choice((1, -1)) * chance.choice(EDGES),
        ),
        lambda: MonthAmountIs(
            field="average",
            month=chance.choice((*MONTHS, "2025-02", 1, 2, 3, 12, 24)),
            relation=relation,
            currency=chance.choice(("CNY", "USD", "JPY")),
            amount_minor=chance.choice((1, -1)) * chance.choice(EDGES),
        ),
        lambda: NumberIs(field="age", relation=relation, number=chance.choice((-1, 0, 17, 18, 65))),
        lambda: DayIs(
            field="matures_on", relation=relation, day=TODAY + timedelta(days=chance.randint(-8, 8))
        ),
        lambda: DayWithin(
            field="matures_on", which=chance.choice(("last", "next")), days=chance.choice((1, 2, 7, 9))
        ),
        lambda: IsAmong(field="tier", values=tuple(chance.sample(tuple(TIERS), chance.randint(1, 3)))),
        lambda: IsAmong(field="city", values=(chance.choice(("北京", "天津", 'a"b')),)),
        lambda: Begins(field="branch", text=chance.choice(BRANCHES)),
        lambda: Has(
            field="tags",
            how=chance.choice(("any", "all")),
            values=tuple(chance.sample(TAGS, chance.randint(1, 3))),
        ),
        lambda: Happened(
            field="behaviour",
            action=chance.choice(tuple(ACTIONS)),
            object=chance.choice((None, *OBJECTS)),
            days=chance.choice((1, 2, 7, 9)),
            times=chance.choice((1, 1, 2, 4)),
        ),
        lambda: IsKnown(field=chance.choice(("age", "matures_on", "tier", "city"))),
    )
    return chance.choice(makers)()


def some_condition(chance: Random, depth: int = 3) -> Condition:
    if depth == 0 or chance.random() < 0.3:
        return some_clause(chance)
    if chance.random() < 0.3:
        return Not(condition=some_condition(chance, depth - 1))
    inner = tuple(some_condition(chance, depth - 1) for _ in range(chance.randint(2, 3)))
    return And(conditions=inner) if chance.random() < 0.5 else Or(conditions=inner)


async def test_the_filter_of_the_database_finds_those_for_whom_the_predicate_holds(mongo: Mongo) -> None:
    chance = Random(1)
    population = [some_facts(chance) | {"_id": number} for number in range(150)]
    for facts in population:
        await mongo.insert_new("facts", facts)
    sizes = set[int]()
    for _ in range(400):
        condition = some_condition(chance)
        found = await mongo.find("facts", as_filter(condition, FIELDS, TODAY), fields={"_id": 1})
        expected = {facts["_id"] for facts in population if holds(condition, facts, FIELDS, TODAY)}
        assert {each["_id"] for each in found} == expected, as_text(condition)
        sizes.add(len(expected))
    assert len(sizes) > 40, "conditions that nearly all find the same show nothing"


def test_text_and_json_give_the_condition_back() -> None:
    chance = Random(2)
    for _ in range(1_000):
        condition = some_condition(chance)
        assert from_text(as_text(condition), FIELDS) == condition
        assert CONDITION.validate_json(CONDITION.dump_json(condition)) == condition


LANGUAGE = (
    "and or not is begins has any all known within last next days times in month months ago ( ) , > >= = <= <"
)


@pytest.mark.parametrize("value", [*LANGUAGE.split(), "1", "万", "a-b", '"', "\u2028"])
def test_a_value_may_be_a_word_of_the_language(value: str) -> None:
    for condition in (
        IsAmong(field="city", values=(value,)),
        IsAmong(field="city", values=("北京", value)),
        Begins(field="branch", text=value),
        Has(field="tags", how="any", values=(value,)),
        Has(field="tags", how="all", values=(value, value)),
        Happened(field="behaviour", action="viewed", object=value, days=1, times=2),
    ):
        assert from_text(as_text(condition), FIELDS) == condition


def test_conditions_that_read_alike_mean_the_same() -> None:
    chance = Random(3)
    population = [some_facts(chance) for _ in range(40)]
    said = dict[Label, tuple[bool, ...]]()
    for _ in range(800):
        condition = some_condition(chance, 1)
        meets = tuple(holds(condition, facts, FIELDS, TODAY) for facts in population)
        assert said.setdefault(sentence(condition, FIELDS), meets) == meets
    assert len(said) > 300


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('tags has ("a, b", c)', 'tags has (a, "b, c")'),
        ('tags has ("a、b", c)', 'tags has (a, "b、c")'),
        ('tags has "a, and age in years is above 1"', "tags has a and age > 1"),
        (
            'behaviour viewed "a\\" at least 1 times within the last 2 days, or actions: viewed \\"b" within last 2 days',
            "behaviour viewed a within last 2 days or behaviour viewed b within last 2 days",
        ),
        (
            'behaviour viewed "a”不少于1次，或行为：最近2天内浏览“b" within last 2 days',
            "behaviour viewed a within last 2 days or behaviour viewed b within last 2 days",
        ),
        ('branch begins "a\\", or branch begins with \\"b"', "branch begins a or branch begins b"),
        ('branch begins "a”开头，或网点以“b"', "branch begins a or branch begins b"),
    ],
)
def test_no_value_reads_as_another_part_of_the_condition(one: str, other: str) -> None:
    said, said_of_other = (sentence(from_text(each, FIELDS), FIELDS) for each in (one, other))
    assert said.zh != said_of_other.zh
    assert said.en != said_of_other.en


def test_an_explanation_names_clauses_that_decide_whatever_the_others_say() -> None:
    chance = Random(4)
    for _ in range(500):
        condition, facts = some_condition(chance), some_facts(chance)
        explanation = explained(condition, facts, FIELDS, TODAY)
        assert explanation.holds is holds(condition, facts, FIELDS, TODAY)
        assert explanation.reasons
        decided = {reason.clause: reason.holds for reason in explanation.reasons}
        for _ in range(5):
            assert _with_answers(condition, decided, chance) is explanation.holds


def _with_answers(condition: Condition, decided: dict[Condition, bool], chance: Random) -> bool:
    """The condition where the clauses that are decided hold as said, and all others by chance."""
    match condition:
        case Not():
            return not _with_answers(condition.condition, decided, chance)
        case And():
            return all(_with_answers(each, decided, chance) for each in condition.conditions)
        case Or():
            return any(_with_answers(each, decided, chance) for each in condition.conditions)
        case _:
            return decided[condition] if condition in decided else chance.random() < 0.5


async def test_the_smallest_emptying_set_is_what_trying_all_sets_finds(mongo: Mongo) -> None:
    chance = Random(5)
    population = [some_facts(chance) | {"_id": number} for number in range(40)]
    for facts in population:
        await mongo.insert_new("facts", facts)

    async def find(wanted: dict[str, Any]) -> Facts | None:
        return await mongo.find_one("facts", wanted)

    lengths = list[int]()
    for _ in range(120):
        condition = And(conditions=tuple(some_condition(chance, 1) for _ in range(chance.randint(2, 4))))
        found = await emptying(condition, FIELDS, TODAY, find)
        failing = [
            {at for at, part in enumerate(parts(condition)) if not holds(part, facts, FIELDS, TODAY)}
            for facts in population
        ]
        if found is None:
            assert not all(failing)
            continue
        chosen = {parts(condition).index(part) for part in found}
        assert all(failed & chosen for failed in failing)
        lengths.append(len(found))
        smaller = _sets_below(len(parts(condition)), len(found))
        assert not any(all(failed & smaller_set for failed in failing) for smaller_set in smaller)
    assert set(lengths) >= {1, 2, 3}


async def test_more_parts_than_can_be_compared_are_refused_and_not_left_out() -> None:
    async def find(_: dict[str, Any]) -> Facts | None:
        return {"age": 2}

    older = NumberIs(field="age", relation=Relation.ABOVE, number=1)
    younger = NumberIs(field="age", relation=Relation.BELOW, number=1)
    assert await emptying(And(conditions=(older,) * PARTS_MAX), FIELDS, TODAY, find) is None
    with pytest.raises(ConditionRefused, match=f"more than {PARTS_MAX} parts"):
        await emptying(And(conditions=(*(older,) * PARTS_MAX, younger)), FIELDS, TODAY, find)


async def test_a_set_that_is_not_known_after_so_many_subjects_is_refused() -> None:
    """Subjects change between the question and the answer, so each that is found fails what was asked for."""
    asked = list[dict[str, Any]]()

    async def find(wanted: dict[str, Any]) -> Facts | None:
        asked.append(wanted)
        return {"age": 0}

    older = NumberIs(field="age", relation=Relation.ABOVE, number=1)
    with pytest.raises(ConditionRefused, match=str(LOOKED_AT_MAX)) as refused:
        await emptying(And(conditions=(older, older)), FIELDS, TODAY, find)
    assert (refused.value.code, len(asked)) == ("undecided", LOOKED_AT_MAX)


def _sets_below(size: int, length: int) -> list[set[int]]:
    every = [{at for at in range(size) if bits >> at & 1} for bits in range(1 << size)]
    return [each for each in every if len(each) < length]


async def test_assets_and_students_that_never_meet_are_named_as_the_culprits(mongo: Mongo) -> None:
    for number in range(20):
        student = number % 2 == 0
        await mongo.insert_new(
            "facts",
            {
                "_id": number,
                "sums": {"aum": {"CNY": 100_00 if student else 600_000_00}},
                "tags": ["学生"] if student else [],
                "tier": "wealth",
            },
        )

    async def find(wanted: dict[str, Any]) -> Facts | None:
        return await mongo.find_one("facts", wanted)

    async def count(wanted: dict[str, Any]) -> int:
        return await mongo.count("facts", wanted)

    for typed, left in (
        ("tier is wealth and (资产 >= CNY 50万 and 标签 has 学生)", [(20, 20), (10, 10), (10, 0)]),
        ("资产 >= CNY 50万 and 标签 has 学生 and tier is wealth", [(10, 10), (10, 0), (20, 0)]),
    ):
        asked = from_text(typed, FIELDS)
        culprits = await emptying(asked, FIELDS, TODAY, find)
        assert culprits is not None
        assert [as_text(each) for each in culprits] == ["aum >= CNY 500000.00", "tags has any 学生"]
        steps = await funnel(asked, FIELDS, TODAY, count)
        assert [(step.alone, step.so_far) for step in steps] == left
    assert steps[0].sentence == Label("资产不低于CNY 500000.00", "assets is at least CNY 500000.00")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("aum >= CNY 500,000.00", "aum >= CNY 500000.00"),
        ("资产 > USD 1,234,567", "aum > USD 1234567.00"),
        ("aum < CNY 1.5 亿", "aum < CNY 150000000.00"),
        ("aum = CNY -0.01", "aum = CNY -0.01"),
        ("average in 2026-02 >= CNY 50万", "average in 2026-02 >= CNY 500000.00"),
        ("月均 in last month < USD 1", "average in last month < USD 1.00"),
        ("average in 1 months ago > CNY 0", "average in last month > CNY 0.00"),
        ("average in 13 months ago = CNY 0", "average in 13 months ago = CNY 0.00"),
        ("tier is 财富层", "tier is wealth"),
        ('branch begins "a.*"', 'branch begins "a.*"'),
        ("网点 begins 支", "branch begins 支"),
        ('tags has (学生, "VIP 2026")', 'tags has any (学生, "VIP 2026")'),
        ("behaviour 浏览 贵金属 within last 7 days", "behaviour viewed 贵金属 within last 7 days"),
        (
            "behaviour bought >= 2 times within last 90 days",
            "behaviour bought >= 2 times within last 90 days",
        ),
        (
            "not age is known or matures_on within next 7 days",
            "not age is known or matures_on within next 7 days",
        ),
        ("(age > 1 or age < 0) and tier is basic", "(age > 1 or age < 0) and tier is basic"),
        ("age > 1 and tier is basic or age < 0", "age > 1 and tier is basic or age < 0"),
    ],
)
def test_what_people_type_is_understood(typed: str, meant: str) -> None:
    assert as_text(from_text(typed, FIELDS)) == meant


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        ("", "text-malformed", "a field is expected, not the end"),
        ("tire is wealth", "field-unknown", "did you mean 'tier'?"),
        ("tier is welth", "value-unknown", "did you mean 'wealth'?"),
        ("tier >= wealth", "text-malformed", "\"is\" is expected, not '>='"),
        ("aum >= CNY 12,50", "text-malformed", "not a decimal number"),
        ("aum >= CNY 1, 000", "text-malformed", '"and" or "or" is expected'),
        ('aum >= CNY ""', "text-malformed", "column 12: '': not a decimal number"),
        ('aum >= CNY "" 万', "text-malformed", "not a decimal number"),
        ("aum >= CNX 5", "text-malformed", "'CNX' is no currency of ISO 4217"),
        ("aum >= CNY 0.001", "text-malformed", "more than 2 decimals"),
        ("aum >= CNY 90000000000000.01", "value-out-of-range", "less than or equal to 9000000000000000"),
        ("average >= CNY 1", "text-malformed", "\"in\" is expected, not '>='"),
        ("average in 2026-13 > CNY 1", "value-out-of-range", "match pattern"),
        ("average in 0 months ago > CNY 1", "value-out-of-range", "greater than or equal to 1"),
        ("average in 25 months ago > CNY 1", "value-out-of-range", "less than or equal to 24"),
        ("average in next month > CNY 1", "text-malformed", "'next'"),
        ("average in last months > CNY 1", "text-malformed", '"month" is expected'),
        ("average in 2026-02-01 > CNY 1", "text-malformed", "'2026-02-01' is no number"),
        ("matures_on > 2026-02-30", "text-malformed", "the calendar has no day 2026-02-30"),
        ("matures_on within last 0 days", "value-out-of-range", "greater than or equal to 1"),
        ("matures_on within last 3661 days", "value-out-of-range", "less than or equal to 3660"),
        ("tags has (学生", "text-malformed", '")" is expected, not the end'),
        ('tags has "学生', "text-malformed", "a quotation mark without its end"),
        ('branch begins ""', "value-out-of-range", "at least 1 character"),
        ("tags has and", "text-malformed", "a value is expected, not 'and'"),
        ("age > 1 age < 2", "text-malformed", '"and" or "or" is expected, not \'age\''),
        ("(" * 60 + "age > 1" + ")" * 60, "too-deep", "open brackets"),
        ("not " * 20 + "age > 1", "too-deep", "more than 8 levels"),
        (" or ".join(["age > 1"] * 41), "value-out-of-range", "at most 40 items"),
        ("tags has 学生" + " " * 20_000, "text-too-long", "20000"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_place(typed: str, code: str, said: str) -> None:
    with pytest.raises(ConditionRefused, match=re.escape(said)) as refused:
        from_text(typed, FIELDS)
    assert refused.value.code == code


def test_a_tree_is_held_to_the_limits_and_to_the_fields_of_the_caller() -> None:
    clause = NumberIs(field="age", relation=Relation.ABOVE, number=1)
    deepest: Condition = clause
    for _ in range(DEPTH_MAX - 1):
        deepest = Not(condition=deepest)
    assert checked(deepest, FIELDS) is deepest
    wide = And(conditions=(clause,) * (CLAUSES_MAX // 2))
    assert checked(Or(conditions=(wide, wide)), FIELDS)
    city = IsAmong(field="city", values=("北京",))
    nobody = FIELDS.for_caller(frozenset())
    for refused, fields, code, at in (
        (Not(condition=deepest), FIELDS, "too-deep", "condition." * DEPTH_MAX),
        (Or(conditions=(wide, wide, clause)), FIELDS, "too-many-clauses", "conditions.2."),
        (And(conditions=(clause, city)), nobody, "field-unknown", "conditions.1.field"),
        (IsKnown(field="aum"), FIELDS, "field-type", "op"),
        (Has(field="tier", values=("wealth",)), FIELDS, "field-type", "op"),
        (IsAmong(field="tier", values=("wealth", "x")), FIELDS, "value-unknown", "values.1"),
        (Happened(field="behaviour", action="sold", days=1), FIELDS, "value-unknown", "action"),
        (Begins(field="city", text="北"), FIELDS, "field-whole", "op"),
        (Begins(field="tier", text="w"), FIELDS, "field-whole", "op"),
    ):
        with pytest.raises(ConditionRefused) as error:
            checked(refused, fields)
        assert (error.value.code, error.value.at) == (code, at)
    assert checked(city, FIELDS.for_caller(frozenset({"profile"})))


@pytest.mark.parametrize(
    "body",
    [
        '{"op":"amount","field":"aum","relation":"above","currency":"CNX","amount_minor":1}',
        '{"op":"amount","field":"aum","relation":"above","currency":"CNY","amount_minor":9000000000000001}',
        '{"op":"amount","field":"aum","relation":"above","currency":"CNY","amount_minor":1.5}',
        '{"op":"amount","field":"$where","relation":"above","currency":"CNY","amount_minor":1}',
        '{"op":"has","field":"tags","values":["a\\u0000"]}',
        '{"op":"has","field":"tags","values":[]}',
        '{"op":"day","field":"matures_on","relation":"above","day":0}',
        '{"op":"day","field":"matures_on","relation":"above","day":"0"}',
        '{"op":"day","field":"matures_on","relation":"above","day":"2026-01-01T00:00:00Z"}',
        '{"op":"day","field":"matures_on","relation":"above","day":"1899-12-31"}',
        '{"op":"day","field":"matures_on","relation":"above","day":"2200-01-01"}',
        '{"op":"and","conditions":[]}',
        '{"op":"known","field":"age","more":1}',
        '{"op":"not","condition":' * 5_000,
    ],
)
def test_json_that_is_no_condition_is_refused(body: str) -> None:
    with pytest.raises(ValidationError):
        CONDITION.validate_json(body)


def test_the_published_schema_is_one_and_takes_every_condition() -> None:
    schema = condition_schema()
    Draft202012Validator.check_schema(schema)
    taken = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    chance, seen = Random(11), set[str]()
    for _ in range(500):
        written = json.loads(CONDITION.dump_json(some_condition(chance)))
        taken.validate(written)
        seen.add(written["op"])
        assert not taken.is_valid({**written, "more": 1})
        assert not taken.is_valid({name: value for name, value in written.items() if name != "op"})
        assert not taken.is_valid({**written, "op": f"{written['op']}s"})
    assert seen == {each.model_fields["op"].default for each in (*CLAUSE_TYPES, Not, And, Or)}


def test_a_schema_that_says_less_takes_what_is_no_condition() -> None:
    """The validator is asked for what it does: without its bounds the schema takes an amount beyond them."""
    schema = condition_schema()
    beyond: dict[str, Any] = {"op": "amount", "field": "aum", "relation": "above", "currency": "CNY"}
    beyond["amount_minor"] = BALANCE_MINOR_MAX + 1
    assert not Draft202012Validator(schema).is_valid(beyond)
    del schema["$defs"]["AmountIs"]["properties"]["amount_minor"]["maximum"]
    assert Draft202012Validator(schema).is_valid(beyond)


def test_the_largest_of_everything_is_taken_and_one_more_is_refused() -> None:
    trail: dict[str, Any] = {"op": "happened", "field": "behaviour", "action": "viewed", "days": 1}
    amount = {"op": "amount", "field": "aum", "relation": "above", "currency": "CNY"}
    day = {"op": "day", "field": "matures_on", "relation": "above"}
    has, begins = {"op": "has", "field": "tags"}, {"op": "begins", "field": "branch"}
    number = {"op": "number", "field": "age", "relation": "above"}
    for clause, name, taken, refused in (
        (number, "number", NUMBER_MAX, NUMBER_MAX + 1),
        (number, "number", -NUMBER_MAX, -NUMBER_MAX - 1),
        (number, "number", 1, "1"),
        (amount, "amount_minor", -BALANCE_MINOR_MAX, -BALANCE_MINOR_MAX - 1),
        (trail, "times", TIMES_MAX, TIMES_MAX + 1),
        (trail, "times", 1, 0),
        (trail, "times", 2, "2"),
        (trail, "days", DAYS_MAX, DAYS_MAX + 1),
        (trail, "object", "x" * 100, "x" * 101),
        (day, "day", "2199-12-31", "2200-01-01"),
        (day, "day", "1900-01-01", "1899-12-31"),
        (has, "values", ["x"] * WORDS_MAX, ["x"] * (WORDS_MAX + 1)),
        (has, "values", ["\x80"], ["\x7f"]),
        (begins, "text", "x" * 100, "x" * 101),
    ):
        assert checked(CONDITION.validate_json(json.dumps({**clause, name: taken})), FIELDS)
        with pytest.raises(ValidationError):
            CONDITION.validate_json(json.dumps({**clause, name: refused}))
    assert from_text(" and ".join(["not (age > 1)"] * CLAUSES_MAX), FIELDS)


def test_a_clause_is_asked_of_fields_of_its_type_alone() -> None:
    taken = {
        "amount": {"aum"},
        "month_amount": {"average"},
        "number": {"age"},
        "day": {"matures_on"},
        "day_within": {"matures_on"},
        "is": {"tier", "city", "branch"},
        "begins": {"tier", "city", "branch"},
        "has": {"tags"},
        "happened": {"behaviour"},
        "known": {"age", "matures_on", "tier", "city", "branch"},
    }
    chance = Random(6)
    for clause in [some_clause(chance) for _ in range(300)]:
        for name in FIELDS.keys() - taken[clause.op]:
            with pytest.raises(ConditionRefused, match="is of type"):
                checked(clause.model_copy(update={"field": name}), FIELDS)


@pytest.mark.parametrize(
    ("typed", "zh", "en"),
    [
        ("age > 1", "年龄高于1", "age in years is above 1"),
        ("age >= 1", "年龄不低于1", "age in years is at least 1"),
        ("age = 1", "年龄等于1", "age in years is equal to 1"),
        ("age <= 1", "年龄不高于1", "age in years is at most 1"),
        ("age < 1", "年龄低于1", "age in years is below 1"),
        ("matures_on > 2026-03-01", "到期日晚于2026-03-01", "maturity is after 2026-03-01"),
        ("matures_on >= 2026-03-01", "到期日不早于2026-03-01", "maturity is on or after 2026-03-01"),
        ("matures_on = 2026-03-01", "到期日为2026-03-01", "maturity is on 2026-03-01"),
        ("matures_on <= 2026-03-01", "到期日不晚于2026-03-01", "maturity is on or before 2026-03-01"),
        ("matures_on < 2026-03-01", "到期日早于2026-03-01", "maturity is before 2026-03-01"),
        (
            "matures_on within last 7 days",
            "到期日在最近7天内",
            "maturity is within the last 7 days",
        ),
        ("matures_on within next 7 days", "到期日在未来7天内", "maturity is within the next 7 days"),
        ("tier is (wealth, basic)", "分层为财富层、普通层", "level is wealth, basic"),
        ("tags has (a, b)", "标签含a、b之一", "labels has any of a, b"),
        ("tags has all (a, b)", "标签含全部a、b", "labels has all of a, b"),
        (
            "average in 2 months ago > JPY -5",
            "月均（2个月前）高于JPY -5",
            "average of 2 months ago is above JPY -5",
        ),
        (
            "behaviour viewed >= 2 times within last 7 days",
            "行为：最近7天内浏览不少于2次",
            "actions: viewed at least 2 times within the last 7 days",
        ),
        (
            "not (age > 1 and (age < 2 or age = 3)) or (age = 5 and age = 6)",
            "非（年龄高于1，且（年龄低于2，或年龄等于3）），或（年龄等于5，且年龄等于6）",
            "not (age in years is above 1, and (age in years is below 2, or age in years is equal to 3)), or "
            "(age in years is equal to 5, and age in years is equal to 6)",
        ),
        ("tier is known", "分层有值", "level is known"),
    ],
)
def test_a_condition_reads_as_people_say_it(typed: str, zh: str, en: str) -> None:
    assert sentence(from_text(typed, FIELDS), FIELDS) == Label(zh, en)


def test_json_that_nests_deeper_than_any_condition_is_refused_in_bounded_work() -> None:
    for depth in (DEPTH_MAX + 1, 150, 10_000):
        body = '{"op":"not","condition":' * depth + '{"op":"known","field":"age"}' + "}" * depth
        with pytest.raises((ValidationError, ConditionRefused)):
            checked(CONDITION.validate_json(body), FIELDS)


def test_a_field_has_one_name_and_a_trail_has_actions() -> None:
    tier = FIELDS["tier"]
    with pytest.raises(ValueError, match="two fields are called '分层'"):
        Fields([tier, Field("rank", Type.NUMBER, Label("分层", "rank"), "level", DataClass.INTERNAL)])
    with pytest.raises(ValueError, match="two fields are called 'level'"):
        Fields([tier, Field("rank", Type.NUMBER, Label("级别", "level"), "level", DataClass.INTERNAL)])
    for other in (Label("财富层", "rich"), Label("富裕层", "wealth")):
        values = {**TIERS, "rich": other}
        with pytest.raises(ValueError, match="tier: two values are called"):
            Fields([Field("tier", Type.CHOICE, Label("分层", "level"), "tier", DataClass.INTERNAL, values)])
    with pytest.raises(ValueError, match="a trail declares its actions"):
        Fields([Field("seen", Type.TRAIL, Label("看过", "seen"), "seen", DataClass.INTERNAL)])


def test_the_last_month_is_the_one_before_that_of_the_day() -> None:
    for day, last in (
        (date(2026, 1, 1), "2025-12"),
        (date(2026, 1, 31), "2025-12"),
        (date(2024, 3, 1), "2024-02"),
    ):
        facts = {"sums": {"months": {last: {"CNY": 100}}}}
        assert holds(from_text("average in last month >= CNY 1", FIELDS), facts, FIELDS, day)
        assert holds(from_text(f"average in {last} >= CNY 1", FIELDS), facts, FIELDS, day)
        assert not holds(from_text("average in 2 months ago < CNY 1", FIELDS), facts, FIELDS, day)
        assert holds(from_text("not average in 2 months ago < CNY 1", FIELDS), facts, FIELDS, day)
    said = sentence(from_text("average in last month >= CNY 50万", FIELDS), FIELDS)
    assert said == Label("月均（上月）不低于CNY 500000.00", "average of last month is at least CNY 500000.00")


def test_a_window_does_not_depend_on_the_day_on_which_it_is_asked() -> None:
    seen = from_text("behaviour viewed within last 7 days", FIELDS)
    due = from_text("matures_on within next 7 days", FIELDS)
    for day, last, following in (
        (TODAY - timedelta(days=7), False, False),
        (TODAY - timedelta(days=6), True, False),
        (TODAY, True, True),
        (TODAY + timedelta(days=1), False, True),
        (TODAY + timedelta(days=6), False, True),
        (TODAY + timedelta(days=7), False, False),
    ):
        happened = {"action": "viewed", "object": "贵金属", "on": day.isoformat(), "times": 1}
        facts = {"trail": [happened], "matures_on": day.isoformat()}
        assert holds(seen, facts, FIELDS, TODAY) is last
        assert holds(due, facts, FIELDS, TODAY) is following
