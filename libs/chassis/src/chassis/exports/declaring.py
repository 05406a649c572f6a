"""A list of which files are made: its columns, who may have which of its rows, and when it takes two persons."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, NamedTuple

from chassis.conditions import Fields, Label, Type
from chassis.conditions.predicate import value_at
from chassis.exports.rows import Cell, exact, joined
from chassis.lists import Counted, Listing, Question, Scope
from chassis.privacy.tokens import Caller
from chassis.read.documents import Document

FILE_LIVES: Final = timedelta(days=7)

Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column of a list, or one for each currency. `cells` takes a row as it is shown, masked; `permission` as of a field."""

    name: str
    labels: tuple[Label, ...]
    cells: Callable[[Row], Sequence[Cell]]
    permission: str | None = None


class Rights(NamedTuple):
    """What a caller may see of a list now: which rows, and which fields beyond those of everybody."""

    scope: Scope
    may: frozenset[str]


@dataclass(frozen=True, slots=True)
class Exportable:
    """A list of which files are made.

    `documents` are all that a question finds, in its order, some at a time; `counted` counts up to so many. `shown` gives what
    the page of the list shows of them, with personal values masked. `rights` says what a caller may see now; it raises
    ExportNotPermitted. One person asks alone for up to `alone_rows_max` rows; more is approved by one of the `approvers`
    within `lives`, under `title`. Days are counted from `today`, unless the question names a day. A file is kept for
    `file_lives`.
    """

    listing: Listing
    columns: tuple[Column, ...]
    documents: Callable[[Scope, Question], AsyncIterator[list[Document]]]
    counted: Callable[[Scope, Question, int], Awaitable[Counted]]
    shown: Callable[[Sequence[Document]], Awaitable[Sequence[Row]]]
    rights: Callable[[Caller], Rights]
    today: Callable[[], date]
    alone_rows_max: int
    approvers: frozenset[str]
    lives: timedelta
    title: str
    file_lives: timedelta = FILE_LIVES


def columns_of(fields: Fields, names: Sequence[str], currencies: Sequence[str] = ()) -> tuple[Column, ...]:
    """Columns of declared fields, for rows that are the documents of the list. An amount has one for each of the currencies,
    and one for the amounts in others."""
    return tuple(_column(fields, name, tuple(currencies)) for name in names)


def plain(name: str, label: Label, permission: str | None = None) -> Column:
    """A column of a value that rows have under its name."""
    return Column(name, (label,), lambda row: [row.get(name)], permission)


def _column(fields: Fields, name: str, currencies: tuple[str, ...]) -> Column:
    field = fields[name]
    zh, en = field.label
    match field.type:
        case Type.AMOUNT:
            labels = [Label(f"{zh} {each}", f"{en} {each}") for each in currencies]
            others = Label(f"{zh} 其他币种", f"{en} in other currencies")

            def amounts(row: Row) -> Sequence[Cell]:
                found: Mapping[str, int] = value_at(row, field.path) or {}
                rest = [
                    f"{code} {exact(found[code], code)}" for code in sorted(found.keys() - set(currencies))
                ]
                known = [exact(found[code], code) if code in found else None for code in currencies]
                return [*known, joined(rest)]

            return Column(name, (*labels, others), amounts, field.permission)
        case Type.SET:
            return Column(
                name,
                (field.label,),
                lambda row: [joined(value_at(row, field.path) or ())],
                field.permission,
            )
        case Type.NUMBER | Type.DAY | Type.CHOICE:
            return Column(name, (field.label,), lambda row: [value_at(row, field.path)], field.permission)
        case Type.MONTHLY | Type.TRAIL:
            raise ValueError(f"{name}: there is no cell for a {field.type}")
