"""Dates as banks write them: in one of the formats of a mapping, with or without a time of day after the
date."""

import re
from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache, partial
from typing import Final

from typing_extensions import override

from sync_ingest.adapters.amounts import spelled

DAYS_CACHED_MAX: Final = 16_384
_TIME: Final = re.compile(
    r"(?P<day>.*\S)(?:[ T]+[0-9]{1,2}[:.][0-9]{2}(?:[:.][0-9]{2}(?:[.,][0-9]{1,9})?)?(?: ?[AaPp][Mm])?|[ T][0-9]{6})"
)
_TOUCHING: Final = re.compile(r"%[A-Za-z]%[A-Za-z]")
_DIRECTIVE: Final = re.compile(r"%[A-Za-z%]")
_PROBES: Final = (date(2024, 12, 31), date(2001, 2, 3))


class DateFormats:
    """Reads dates. A text that two formats read as different days is refused."""

    def __init__(self, formats: Sequence[str], *, times_ignored: bool) -> None:
        """Raises ValueError for a format that does not give back the day that was written with it."""
        for each in formats:
            if any(_written_and_read(each, probe) != probe for probe in _PROBES):
                raise ValueError(f"no day can be read that is written {each!r}: it needs year, month and day")
        self._formats = tuple(formats)
        self._times_ignored = times_ignored
        # Not a method: a reference to itself would keep the object until cycles are collected.
        self.days = lru_cache(maxsize=DAYS_CACHED_MAX)(partial(_days, self._formats, times_ignored))
        """The days that a text can mean: none, one, or several where the formats contradict each other."""

    @override
    def __str__(self) -> str:
        return " or ".join(self._formats)


def _days(formats: tuple[str, ...], times_ignored: bool, text: str) -> frozenset[date]:
    plain = spelled(text)
    found = frozenset(day for each in formats if (day := _read(each, plain)) is not None)
    if not found and times_ignored and (match := _TIME.fullmatch(plain)):
        return frozenset(day for each in formats if (day := _read(each, match["day"])) is not None)
    return found


def _read(date_format: str, text: str) -> date | None:
    try:
        found = datetime.strptime(text, date_format).date()  # noqa: DTZ007 - a business date
    except (ValueError, re.error):
        return None
    if _TOUCHING.search(date_format) and len(text) != len(written(date_format, found)):
        return None
    return found


def _written_and_read(date_format: str, day: date) -> date | None:
    try:
        return _read(date_format, written(date_format, day))
    except ValueError:
        return None


def written(date_format: str, day: date) -> str:
    """The day in that format; letters beside the directives do not depend on the machine's locale."""
    return _DIRECTIVE.sub(lambda directive: day.strftime(directive[0]), date_format)
