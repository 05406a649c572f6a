"""Other words for the values of one field in a condition: what a person calls a value, and what the facts hold."""

from collections.abc import Mapping

from chassis.conditions.language import And, Condition, Has, IsAmong, Not, Or


def values_of(condition: Condition, field: str) -> frozenset[str]:
    """The values of a choice or a set that a condition asks for."""
    match condition:
        case Not():
            return values_of(condition.condition, field)
        case And() | Or():
            return frozenset[str]().union(*(values_of(each, field) for each in condition.conditions))
        case IsAmong() | Has() if condition.field == field:
            return frozenset(condition.values)
        case _:
            return frozenset()


def replaced(condition: Condition, field: str, instead: Mapping[str, str]) -> Condition:
    """The condition with other values of a field; a value that `instead` does not name stays."""
    match condition:
        case Not():
            return Not(condition=replaced(condition.condition, field, instead))
        case And():
            return And(conditions=tuple(replaced(each, field, instead) for each in condition.conditions))
        case Or():
            return Or(conditions=tuple(replaced(each, field, instead) for each in condition.conditions))
        case IsAmong() | Has() if condition.field == field:
            values = tuple(dict.fromkeys(instead.get(one, one) for one in condition.values))
            return condition.model_copy(update={"values": values})
        case _:
            return condition
