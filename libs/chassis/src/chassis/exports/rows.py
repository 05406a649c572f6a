"""Rows of a CSV file (RFC 4180) that any program reads, and that no program that calculates takes for formulas. Pure.

A file is UTF-8 with a byte order mark, by which Excel knows it. What a text would begin with as a formula stands behind an
apostrophe: `=`, `+`, `-`, `@` and what looks like them, a tab, an end of line. So does what follows a semicolon, a tab or an
end of line within a text, where a program set to another separator begins a cell. So does an apostrophe, and `text_in`
gives every text back. Control characters other than tabs and ends of lines are replaced: no CSV file has them.
"""

import csv
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from io import StringIO
from typing import Final, assert_never

from chassis.money import decimal_text

BEGIN: Final = b"\xef\xbb\xbf"
REPLACED: Final = "\ufffd"
_MARK: Final = "'"
_FORMULA: Final = frozenset("=+-@'")
_ENDS: Final = frozenset("\t\r\n")
_SEPARATOR: Final = re.compile("([;\t\r\n])")
_MARKED: Final = re.compile("([;\t\r\n])'")
_LOOKALIKES: Final = frozenset("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\uff07\u2018\u2019")
"""Dashes and apostrophes that compatibility decomposition does not make plain, but a program that corrects may."""


class Exact(str):
    """A number that we wrote ourselves: it is no formula, although it may begin with a minus."""

    __slots__ = ()


Cell = str | int | date | None


def exact(amount_minor: int, currency: str) -> Exact:
    """An amount as an exact decimal number."""
    return Exact(decimal_text(amount_minor, currency))


def row(cells: Iterable[Cell]) -> bytes:
    """A record, with its end of line."""
    written = StringIO()
    csv.writer(written, lineterminator="\r\n").writerow([_written(cell) for cell in cells])
    return written.getvalue().encode()


def text_cell(text: str) -> str:
    """A text as a cell has it."""
    clean = "".join(map(_clean, text))
    first, *rest = _SEPARATOR.split(clean)
    pieces = [_MARK + first if _is_risky(clean) else first]
    pieces += [_MARK + piece if _is_risky(piece) and piece not in _ENDS else piece for piece in rest]
    return "".join(pieces)


def text_in(cell: str) -> str:
    """The text that a cell has, but for the control characters that were replaced."""
    return _MARKED.sub(r"\1", cell[1:] if cell.startswith(_MARK) else cell)


def joined(texts: Sequence[str]) -> str:
    """Several texts in one cell."""
    return "; ".join(texts)


def _written(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case Exact():
            return cell
        case str():
            return text_cell(cell)
        case bool() | float():
            raise TypeError(f"a cell is no {type(cell).__name__}")
        case int():
            return str(cell)
        case datetime() | date():
            return cell.isoformat()
        case _:
            assert_never(cell)


def _clean(character: str) -> str:
    if character in _ENDS:
        return character
    return REPLACED if unicodedata.category(character) in {"Cc", "Cs"} else character


def _is_risky(text: str) -> bool:
    """Whether a program may take it for a formula, also one that drops blanks and invisible characters first."""
    for character in text:
        if character in _ENDS:
            return True
        if character in (REPLACED, '"') or unicodedata.category(character)[0] in "ZC":
            continue
        plain = unicodedata.normalize("NFKC", character)[:1]
        return plain in _FORMULA or character in _LOOKALIKES
    return False
