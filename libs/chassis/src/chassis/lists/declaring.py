"""A list, declared once: where its documents lie, what it can be filtered and sorted by, and the indexes of both."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from chassis.conditions import Facts, Fields, Type
from chassis.conditions.indexing import indexed
from chassis.conditions.predicate import value_at
from chassis.lists.pairing import Ago, Pair, months_ago
from chassis.read.documents import ID
from chassis.read.projecting import Index

BLIND: Final = "blind"
"""Where a document has the digests by which sealed values of it are found (`chassis.read.blind`)."""
_SORTABLE: Final = frozenset({Type.AMOUNT, Type.NUMBER, Type.DAY, Type.CHOICE})


@dataclass(frozen=True, slots=True)
class Listing:
    """A list over one collection of a view.

    `name` distinguishes its cursors from those of other lists. `sorts` are names of fields; an amount is named with
    one of the `currencies`: `balance.EUR`. Each field has an index, and an amount one for each of the currencies.
    `together`: pairs named as sorts are, which are often asked for together: an index has both, so that documents that meet
    one of them only are not read. Where one of a pair is an amount of a month (`Ago`), the documents have what `months_ago`
    gives, and are derived anew when a month begins.
    `behind`: a value, and others that its index has behind the id, named as sorts are. Where few documents have the value in
    the range that is asked for, this serves as a pair does, and there is one index less to change with the value.
    `searched`: fields that are sealed, and found by their whole value; the documents have their digests.
    """

    name: str
    view: str
    collection: str
    fields: Fields
    sorts: tuple[str, ...] = ()
    currencies: tuple[str, ...] = ()
    together: tuple[tuple[str | Ago, str | Ago], ...] = ()
    behind: tuple[tuple[str, ...], ...] = ()
    searched: tuple[str, ...] = ()
    monthly_pairs: tuple[Pair, ...] = field(init=False)
    _sorts: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Raises ValueError where a sort has no index, or `together` or `behind` names what is none."""
        paths = {name: self._path(name) for name in self.sorts}
        object.__setattr__(self, "_sorts", paths)
        object.__setattr__(self, "monthly_pairs", tuple(self._monthly_pairs()))
        for name in {
            each for some in (*self.together, *self.behind) for each in some if isinstance(each, str)
        }:
            self._path(name)

    def _monthly_pairs(self) -> Iterator[Pair]:
        for one, other in self.together:
            for each in (one, other):
                declared = self.fields.get(each.field) if isinstance(each, Ago) else None
                if isinstance(each, Ago) and (declared is None or declared.type is not Type.MONTHLY):
                    raise ValueError(f"{self.name}: {each.field!r} has no months")
            if isinstance(one, Ago):
                yield Pair(one, other if isinstance(other, Ago) else self._path(other))
            elif isinstance(other, Ago):
                yield Pair(other, self._path(one))

    def _path(self, sort: str) -> str:
        name, _, currency = sort.partition(".")
        declared = self.fields.get(name)
        amount = declared is not None and declared.type is Type.AMOUNT
        if declared is None or declared.type not in _SORTABLE or amount != bool(currency):
            raise ValueError(f"{self.name}: {sort!r} is nothing to sort by")
        if amount and currency not in self.currencies:
            raise ValueError(f"{self.name}: there is no index of {sort!r}")
        return f"{declared.path}.{currency}" if amount else declared.path

    def path_of(self, sort: str) -> str | None:
        """Where the values of a sort stand; None where it is none of this list's."""
        return self._sorts.get(sort)

    @property
    def indexes(self) -> tuple[Index, ...]:
        """The indexes that filters, sorts and searches use."""
        blind = [Index(((f"{BLIND}.{name}", 1), (ID, 1))) for name in self.searched]
        pairs = [
            Index(((self._path(one), 1), (self._path(other), 1), (ID, 1)))
            for one, other in self.together
            if isinstance(one, str) and isinstance(other, str)
        ]
        monthly = [pair.indexed for pair in self.monthly_pairs]
        behind = {self._path(one): [(self._path(each), 1) for each in others] for one, *others in self.behind}
        of_fields = [
            Index((*index.fields, *behind.get(index.fields[0][0], ())))
            for index in indexed(self.fields, self.currencies)
        ]
        return (*of_fields, *pairs, *monthly, *blind)

    def months_ago(self, document: Facts, day: date) -> dict[str, Any]:
        """What a document that is derived on this day has for the pairs with amounts of months, besides its facts."""
        return months_ago(self.monthly_pairs, document, self.fields, day)

    def shown(self, document: Facts, may: frozenset[str]) -> dict[str, Any]:
        """The values of a document by field; null where a caller with these permissions may not ask for the field."""
        visible = self.fields.for_caller(may)
        return {
            name: value_at(document, each.path) if name in visible else None
            for name, each in self.fields.items()
        }
