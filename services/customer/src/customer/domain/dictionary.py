"""A dictionary of the bank (字典): codes with their names, each from a business date on and before another."""

from collections.abc import Iterable
from datetime import date
from typing import NamedTuple


class Entry(NamedTuple):
    """A code of a dictionary, from the business date `since` on and before `until`. It is never used for something else.

    An entry that is given up gets an `until` and stays: what was stored before has its code.
    """

    code: str
    zh: str
    en: str
    since: date = date(2026, 1, 1)
    until: date | None = None

    def stands_on(self, day: date) -> bool:
        """Whether something may be stored with this code on a business date."""
        return self.since <= day and (self.until is None or day < self.until)


def stands(code: str, on: date, entries: Iterable[Entry]) -> bool:
    """Whether one of the entries has this code on a business date."""
    return any(one.code == code and one.stands_on(on) for one in entries)
