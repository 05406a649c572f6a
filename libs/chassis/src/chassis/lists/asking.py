"""What a caller asks of a list: read, and refused where the caller may not ask it."""

from dataclasses import dataclass, replace
from datetime import date
from typing import Any, ClassVar, Final

from pydantic import ValidationError

from chassis.conditions import (
    CONDITION,
    Condition,
    ConditionRefused,
    Fields,
    Type,
    as_text,
    checked,
    from_text,
)
from chassis.lists.declaring import Listing
from chassis.lists.ordering import BY_ID, Order
from chassis.write.deciding import Refusal

WHERE_CHARACTERS_MAX: Final = 4_000
SORT_CHARACTERS_MAX: Final = 100


class ConditionInvalid(Refusal):
    """The condition cannot be read, or asks for what there is not."""

    code: ClassVar[str] = "condition-invalid"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The condition cannot be asked"
    title_zh: ClassVar[str] = "条件无法查询"


class SortInvalid(Refusal):
    """The list cannot be sorted so; the text names what it can be sorted by."""

    code: ClassVar[str] = "sort-invalid"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The list cannot be sorted by this"
    title_zh: ClassVar[str] = "列表无法按此排序"


class FieldNotPermitted(Refusal):
    """The question filters or sorts by a field that the caller may not ask for."""

    code: ClassVar[str] = "field-not-permitted"
    status: ClassVar[int] = 403
    title: ClassVar[str] = "You may not ask for this field"
    title_zh: ClassVar[str] = "您无权按此字段查询"


@dataclass(frozen=True, slots=True)
class Question:
    """A filter, an order, and the day from which days are counted (None: the business date). All of it may be asked."""

    condition: Condition | None = None
    order: Order = BY_ID
    as_of: date | None = None

    def named(self) -> Any:
        """What distinguishes it from other questions, as JSON."""
        said = None if self.condition is None else CONDITION.dump_python(self.condition, mode="json")
        return [said, *self.order, None if self.as_of is None else self.as_of.isoformat()]

    def on(self, day: date) -> "Question":
        """The same question, with its days counted from this day where it names none."""
        return self if self.as_of is not None else replace(self, as_of=day)

    def worded(self) -> str:
        """The condition in words that mean the same on every day: with the day from which its days are counted. Empty where
        it has none."""
        if self.condition is None:
            return ""
        return (
            as_text(self.condition) if self.as_of is None else f"{as_text(self.condition)} as of {self.as_of}"
        )


def question(
    listing: Listing,
    may: frozenset[str],
    where: str | None = None,
    sort: str | None = None,
    as_of: date | None = None,
) -> Question:
    """The question of a caller with these permissions.

    `where` is a line of text or JSON. `sort` is the name of a sort of the list, with a minus before it where it
    descends. Raises ConditionInvalid, SortInvalid, FieldNotPermitted.
    """
    condition = None if where is None else _condition(where, listing.fields, listing.fields.for_caller(may))
    return Question(condition, BY_ID if sort is None else _order(sort, listing, may), as_of)


def _condition(where: str, fields: Fields, permitted: Fields) -> Condition:
    try:
        return _read(where, permitted)
    except ConditionRefused as refused:
        try:
            _read(where, fields)
        except ConditionRefused:
            raise ConditionInvalid(str(refused)) from refused
        raise FieldNotPermitted from refused


def _read(where: str, fields: Fields) -> Condition:
    if not where.lstrip().startswith("{"):
        return from_text(where, fields)
    try:
        condition: Condition = CONDITION.validate_json(where)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ConditionRefused(
            "json-malformed", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
    return checked(condition, fields)


def _order(sort: str, listing: Listing, may: frozenset[str]) -> Order:
    name = sort.removeprefix("-")
    path = listing.path_of(name)
    if path is None:
        raise SortInvalid(f"by {', '.join(listing.sorts)}" if listing.sorts else "it is in the order of ids")
    field = listing.fields[name.partition(".")[0]]
    if field.name not in listing.fields.for_caller(may):
        raise FieldNotPermitted
    return Order(path, field.type is Type.AMOUNT, descending=sort.startswith("-"))
