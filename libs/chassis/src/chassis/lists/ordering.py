"""The order of a list, as ranges of an index that are read one after the other.

The documents are in the order of one value, and of their ids where they have the same. An amount that is missing
counts as zero. Any other value that is missing comes last, whether the order ascends or descends.

Each range is answered from the index of the value, because it says one thing of it: a filter with `$or` would have
the database sort.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from chassis.conditions import Facts
from chassis.conditions.predicate import value_at
from chassis.read.documents import ID


class Order(NamedTuple):
    """`path`: where the value stands; that of the ids, if the list is in the order of ids."""

    path: str = ID
    amounts: bool = False
    descending: bool = False


BY_ID: Final = Order()


class Place(NamedTuple):
    """Where a page ended: the value and the id of its last document."""

    value: Any
    id: str


class Range(NamedTuple):
    """A filter, and the order in which it is read."""

    where: dict[str, Any]
    order: list[tuple[str, int]]


class _Part(NamedTuple):
    """The values of a part of the order, as operators; `same` where all of them count as the same."""

    where: dict[str, Any]
    same: bool


def place_of(document: Facts, order: Order) -> Place:
    """The place of a document in the order."""
    value = None if order.path == ID else value_at(document, order.path)
    return Place(0 if order.amounts and value is None else value, str(document[ID]))


def ranges(order: Order, after: Place | None) -> Iterator[Range]:
    """What comes after a place, in order; all of it where there is none."""
    beyond = "$lt" if order.descending else "$gt"
    if order.path == ID:
        yield _by_id(order, {} if after is None else {ID: {beyond: after.id}})
        return
    parts = _parts(order)
    if after is not None:
        at = _number_of(after.value, order)
        here, parts = parts[at], parts[at + 1 :]
        value = here.where if here.same else {"$eq": after.value}
        yield _by_id(order, {order.path: value, ID: {beyond: after.id}})
        if not here.same:
            yield _by_value(order, {order.path: {**here.where, beyond: after.value}})
    for part in parts:
        yield (_by_id if part.same else _by_value)(order, {order.path: part.where})


def _parts(order: Order) -> list[_Part]:
    if not order.amounts:
        return [_Part({"$ne": None}, same=False), _Part({"$eq": None}, same=True)]
    parts = [
        _Part({"$lt": 0}, same=False),
        _Part({"$in": [0, None]}, same=True),
        _Part({"$gt": 0}, same=False),
    ]
    return parts[::-1] if order.descending else parts


def _number_of(value: Any, order: Order) -> int:
    """The number of the part in which a value is."""
    if not order.amounts:
        return int(value is None)
    sign = int(value > 0) - int(value < 0)
    return 1 - sign if order.descending else 1 + sign


def _by_id(order: Order, where: dict[str, Any]) -> Range:
    return Range(where, [(ID, _direction(order))])


def _by_value(order: Order, where: dict[str, Any]) -> Range:
    return Range(where, [(order.path, _direction(order)), (ID, _direction(order))])


def _direction(order: Order) -> int:
    return -1 if order.descending else 1
