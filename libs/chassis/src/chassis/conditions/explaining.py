"""Why a subject is in or out, how many subjects each clause leaves, and which clauses leave none."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from itertools import combinations
from typing import Final, NamedTuple

from chassis.conditions.fields import Fields, Label
from chassis.conditions.filtering import Filter, as_filter
from chassis.conditions.language import And, Clause, Condition, ConditionRefused, Not, Or
from chassis.conditions.predicate import Facts, clause_holds, holds, value_at
from chassis.conditions.sentences import sentence

PARTS_MAX: Final = 12
"""Parts of a conjunction that are counted, and among which a smallest emptying set is looked for: there are 2^12."""
LOOKED_AT_MAX: Final = 200
"""Subjects that are asked for, one after the other, until the set is known."""

Count = Callable[[Filter], Awaitable[int]]
"""How many subjects match a filter."""
Find = Callable[[Filter], Awaitable[Facts | None]]
"""The facts of one subject that matches a filter, or None where nobody does."""


class Reason(NamedTuple):
    """A clause, and whether it holds."""

    clause: Clause
    sentence: Label
    holds: bool


class Explanation(NamedTuple):
    """Whether a subject meets a condition, and the clauses that decide it."""

    holds: bool
    reasons: tuple[Reason, ...]


class Step(NamedTuple):
    """A part of a condition: how many subjects meet it alone, and how many meet it and all parts before it."""

    part: Condition
    sentence: Label
    alone: int
    so_far: int


def explained(condition: Condition, facts: Facts, fields: Fields, as_of: date) -> Explanation:
    """Why the facts meet the condition, or do not.

    Only clauses that decide are named: the result stays what it is whatever the others say.
    """
    return Explanation(
        holds(condition, facts, fields, as_of), tuple(_reasons(condition, facts, fields, as_of))
    )


def _reasons(condition: Condition, facts: Facts, fields: Fields, as_of: date) -> list[Reason]:
    match condition:
        case Not():
            return _reasons(condition.condition, facts, fields, as_of)
        case And() | Or():
            results = [holds(each, facts, fields, as_of) for each in condition.conditions]
            settled = isinstance(condition, Or)  # one part that is so settles the whole
            deciding = [
                each
                for each, result in zip(condition.conditions, results, strict=True)
                if settled not in results or result is settled
            ]
            return [reason for each in deciding for reason in _reasons(each, facts, fields, as_of)]
        case _:
            value = value_at(facts, fields[condition.field].path)
            return [Reason(condition, sentence(condition, fields), clause_holds(condition, value, as_of))]


def parts(condition: Condition) -> tuple[Condition, ...]:
    """The parts that must all hold: those of a conjunction, nested ones too, or the condition alone."""
    if not isinstance(condition, And):
        return (condition,)
    return tuple(part for each in condition.conditions for part in parts(each))


async def funnel(condition: Condition, fields: Fields, as_of: date, count: Count) -> list[Step]:
    """The parts of the condition in order, each with how many subjects it leaves. Raises ConditionRefused where there
    are more than `PARTS_MAX`."""
    steps = list[Step]()
    filters = list[Filter]()
    for part in _parts_counted(condition):
        alone = as_filter(part, fields, as_of)
        filters.append(alone)
        found = await count(alone)
        so_far = found if len(filters) == 1 else await count({"$and": list(filters)})
        steps.append(Step(part, sentence(part, fields), found, so_far))
    return steps


async def emptying(
    condition: Condition, fields: Fields, as_of: date, find: Find
) -> tuple[Condition, ...] | None:
    """The smallest set of parts that nobody meets together; None where somebody meets the whole condition.

    Raises ConditionRefused where there are more than `PARTS_MAX` parts, or it is not known after `LOOKED_AT_MAX`
    subjects.

    Each subject that is found fails some parts. A set that nobody meets has, for each subject, a part that the
    subject fails. The smallest set that does so for the subjects found so far is asked for: either nobody meets
    it, or one more subject is found that does.
    """
    conjunction = _parts_counted(condition)
    filters = [as_filter(part, fields, as_of) for part in conjunction]
    failed = list[frozenset[int]]()
    for _ in range(LOOKED_AT_MAX):
        candidate = _smallest_hitting(failed, len(conjunction))
        if candidate is None:
            return None
        wanted = [filters[at] for at in candidate]
        facts = await find({"$and": wanted} if wanted else {})
        if facts is None:
            return tuple(conjunction[at] for at in candidate)
        failed.append(
            frozenset(at for at, part in enumerate(conjunction) if not holds(part, facts, fields, as_of))
        )
    raise ConditionRefused("undecided", f"not known after {LOOKED_AT_MAX} subjects")


def _parts_counted(condition: Condition) -> tuple[Condition, ...]:
    """The parts; raises ConditionRefused where they are too many to ask for each of them."""
    found = parts(condition)
    if len(found) > PARTS_MAX:
        raise ConditionRefused("too-many-parts", f"more than {PARTS_MAX} parts")
    return found


def _smallest_hitting(sets: Sequence[frozenset[int]], size: int) -> tuple[int, ...] | None:
    """The smallest numbers below `size` with one in each set; None where a set is empty."""
    if not all(sets):
        return None
    for length in range(size + 1):
        for candidate in combinations(range(size), length):
            if all(not each.isdisjoint(candidate) for each in sets):
                return candidate
    return None
