"""The indexes that conditions on declared fields use."""

from collections.abc import Sequence

from chassis.conditions.fields import ACTION, OBJECT, ON, Field, Fields, Type
from chassis.read.documents import ID
from chassis.read.projecting import Index


def indexed(fields: Fields, currencies: Sequence[str]) -> tuple[Index, ...]:
    """An index for each field, and for an amount one for each of the currencies; conditions on others read the
    documents. The id is in each, so that a page in the order of ids of one value needs no sorting. Amounts of months have
    one index for all months and currencies, in which there can be no id. What happened has its day before its object, which
    a clause need not name."""
    return tuple(
        Index(tuple((path, 1) for path in paths))
        for each in fields.values()
        for paths in _paths(each, currencies)
    )


def _paths(field: Field, currencies: Sequence[str]) -> list[tuple[str, ...]]:
    match field.type:
        case Type.AMOUNT:
            return [(f"{field.path}.{currency}", ID) for currency in currencies]
        case Type.MONTHLY:
            return [(f"{field.path}.$**",)]
        case Type.TRAIL:
            return [(*(f"{field.path}.{name}" for name in (ACTION, ON, OBJECT)), ID)]
        case _:
            return [(field.path, ID)]
