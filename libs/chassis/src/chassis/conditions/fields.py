"""What conditions can ask for: fields that a context declares once, with type, label and data class.

The facts of a subject are one document. A field says at which path of it the value stands, and of which type
the value is there:

- `AMOUNT`: a mapping from currency to integer minor units; a currency that is missing counts as zero.
- `MONTHLY`: a mapping from month (YYYY-MM) to such amounts; a month that is missing is unknown.
- `NUMBER`: an integer.
- `DAY`: a day of the bank's calendar as text, YYYY-MM-DD.
- `CHOICE`: a text, one of the declared values where the field declares any.
- `SET`: a list of texts, each once.
- `TRAIL`: a list of what happened: `{"action": text, "object": text, "on": day, "times": integer}`.

A value that is missing or null is unknown: every comparison with it is false. An unknown set or trail is empty.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from typing_extensions import override

ACTION: Final = "action"
OBJECT: Final = "object"
ON: Final = "on"
TIMES: Final = "times"


class Type(StrEnum):
    """The type of a field's value in the facts."""

    AMOUNT = "amount"
    MONTHLY = "monthly"
    NUMBER = "number"
    DAY = "day"
    CHOICE = "choice"
    SET = "set"
    TRAIL = "trail"


class DataClass(StrEnum):
    """How far a value may go, from the least to the most protected."""

    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    PERSONAL = "personal"


class Label(NamedTuple):
    """What people call it."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the facts.

    `path`: where the value stands, names with dots between. `values`: of a choice or a set, its values with
    their labels; of a trail, its actions. Empty: any value. `permission`: what a caller needs to ask for the
    field; None: nothing beyond the list itself.
    """

    name: str
    type: Type
    label: Label
    path: str
    data_class: DataClass
    values: Mapping[str, Label] = field(default_factory=dict)
    permission: str | None = None


class Fields(Mapping[str, Field]):
    """The fields of a context by name; found by their labels too."""

    def __init__(self, fields: Iterable[Field]) -> None:
        """Raises ValueError where two fields, or two values of a field, have one name or label, or a trail has no actions."""
        declared = tuple(fields)
        self._fields: Mapping[str, Field] = MappingProxyType({each.name: each for each in declared})
        self._found = dict[str, Field]()
        for each in declared:
            for called in (each.name, *each.label):
                if self._found.setdefault(called, each) is not each:
                    raise ValueError(f"two fields are called {called!r}")
            values = dict[str, str]()
            for value, label in each.values.items():
                for called in (value, *label):
                    if values.setdefault(called, value) != value:
                        raise ValueError(f"{each.name}: two values are called {called!r}")
            if each.type is Type.TRAIL and not each.values:
                raise ValueError(f"{each.name}: a trail declares its actions")

    @override
    def __getitem__(self, name: str) -> Field:
        return self._fields[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    @override
    def __len__(self) -> int:
        return len(self._fields)

    def called(self, text: str) -> Field | None:
        """The field of this name or label."""
        return self._found.get(text)

    def for_caller(self, permissions: frozenset[str]) -> "Fields":
        """The fields that a caller with these permissions may ask for."""
        return Fields(
            [
                each
                for each in self._fields.values()
                if each.permission is None or each.permission in permissions
            ]
        )
