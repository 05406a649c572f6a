"""Which days are worked, apart from the weekends: the public holidays of China and the bank's own file.

The State Council announces the holidays of a year, and the make-up working days (调休) for them, late in the year
before. `chinesecalendar` has what was announced. A year that it does not have, and that the bank has not entered, is
unknown: its weekdays are worked and its weekends are not, and `DaysKnown.knows` says that this may change.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from chinese_calendar import constants  # type: ignore[import-untyped]

FILE_BYTES_MAX: Final = 256 * 1024
FIRST_YEAR, LAST_YEAR = 1970, 2199
SATURDAY: Final = 5
_HOLIDAYS: Final = "holidays"
_WORKED: Final = "working_days"
_ANNOUNCED: Final = "announced_years"
_KEYS: Final = (_HOLIDAYS, _WORKED, _ANNOUNCED)


class CalendarInvalid(ValueError):
    """The bank's file of days cannot be used; the text says which entry is wrong, and why."""

    own_words = True


@dataclass(frozen=True, slots=True)
class DaysKnown:
    """The days on which it differs from the weekday whether they are worked, and the years whose days are announced."""

    worked: Mapping[date, bool]
    years: frozenset[int]

    def is_working_day(self, day: date) -> bool:
        """Whether the day is worked."""
        return self.worked.get(day, day.weekday() < SATURDAY)

    def knows(self, day: date) -> bool:
        """Whether the holidays of the day's year are announced. Of another year only the weekends are known."""
        return day.year in self.years

    def digest(self) -> str:
        """Equal for equal days."""
        days = ",".join(f"{day}{'+' if worked else '-'}" for day, worked in sorted(self.worked.items()))
        text = f"{days}|{','.join(map(str, sorted(self.years)))}"
        return blake2b(text.encode(), digest_size=8).hexdigest()


def public_holidays() -> DaysKnown:
    """The public holidays and make-up working days of China, as announced."""
    holidays: Iterable[date] = constants.holidays
    made_up: Iterable[date] = constants.workdays
    worked = {**dict.fromkeys(holidays, False), **dict.fromkeys(made_up, True)}
    return DaysKnown(worked, frozenset(day.year for day in holidays))


def read_days(path: Path, before: DaysKnown) -> DaysKnown:
    """The days of `before` with those of the bank's file over them; raises CalendarInvalid.

    The file is TOML: `holidays` and `working_days` are lists of days, `announced_years` the years all of whose
    holidays and make-up working days are known.
    """
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise CalendarInvalid(f"{path}: {error.strerror}") from error
    if len(text) > FILE_BYTES_MAX:
        raise CalendarInvalid(f"{path}: larger than {FILE_BYTES_MAX} bytes")
    try:
        content = tomllib.loads(text.decode())
    except ValueError as error:  # no UTF-8, or no TOML
        raise CalendarInvalid(f"{path}: {error}") from error
    return _over(str(path), content, before)


def _over(path: str, content: Mapping[str, Any], before: DaysKnown) -> DaysKnown:
    for key in content:
        if key not in _KEYS:
            raise CalendarInvalid(f"{path}: {key!r} is none of {', '.join(_KEYS)}")
    holidays, worked = _days(path, content, _HOLIDAYS), _days(path, content, _WORKED)
    for day in worked:
        if day in holidays:
            raise CalendarInvalid(f"{path}: {day} is in {_HOLIDAYS} and in {_WORKED}")
        if before.is_working_day(day):
            raise CalendarInvalid(f"{path}: {_WORKED}: {day} is a working day without this entry")
    years = _years(path, content)
    after = {**before.worked, **dict.fromkeys(holidays, False), **dict.fromkeys(worked, True)}
    for year in years:
        if not any(day.year == year and not is_worked for day, is_worked in after.items()):
            raise CalendarInvalid(f"{path}: {_ANNOUNCED}: {year} has no holiday")
    return DaysKnown(after, before.years | years)


def _listed(path: str, content: Mapping[str, Any], key: str) -> list[Any]:
    found = content.get(key, [])
    if not isinstance(found, list):
        raise CalendarInvalid(f"{path}: {key} is a list")
    return found


def _days(path: str, content: Mapping[str, Any], key: str) -> frozenset[date]:
    found = _listed(path, content, key)
    for entry in found:
        if not isinstance(entry, date) or isinstance(entry, datetime):
            raise CalendarInvalid(f"{path}: {key}: {str(entry)[:40]!r} is no day; write 2027-01-01")
        if not FIRST_YEAR <= entry.year <= LAST_YEAR:
            raise CalendarInvalid(f"{path}: {key}: {entry} is not in {FIRST_YEAR} to {LAST_YEAR}")
        if found.count(entry) > 1:
            raise CalendarInvalid(f"{path}: {key}: {entry} stands there twice")
    return frozenset(found)


def _years(path: str, content: Mapping[str, Any]) -> frozenset[int]:
    found = _listed(path, content, _ANNOUNCED)
    for entry in found:
        if not isinstance(entry, int) or isinstance(entry, bool) or not FIRST_YEAR <= entry <= LAST_YEAR:
            raise CalendarInvalid(
                f"{path}: {_ANNOUNCED}: {str(entry)[:40]!r} is no year of {FIRST_YEAR} to {LAST_YEAR}"
            )
    return frozenset(found)
