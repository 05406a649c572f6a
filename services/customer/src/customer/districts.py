"""Names of administrative divisions (行政区划, GB/T 2260), the part of an address that may be shown.

The names are those of `stdnum.cn`, past ones included: provinces, and below each its prefectures and
counties.
"""

import re
from functools import lru_cache
from importlib.resources import files
from typing import Final

NAME_CHARACTERS_MAX: Final = 20
_PROVINCE: Final = re.compile(r'\d{2} province="(.+)"')
_DIVISION: Final = re.compile(r' +(\d{4}) county="(.+)"')
_YEARS: Final = re.compile(r"\[[0-9-]*\]")
_NAMELESS: Final = frozenset({"市辖区", "县", "市区", "郊区", "城区", "矿区"})
"""Divisions whose name in the list is only their kind and not a place."""
_SHORT: Final = re.compile(r"(?:省|市|壮族自治区|回族自治区|维吾尔自治区|自治区|特别行政區)\Z")
_STEPS: Final = 3


def district_of(address: str) -> str:
    """The beginning of an address that consists of divisions only, at most province, prefecture and county;
    or ""."""
    found, province = 0, ""
    for _ in range(_STEPS):
        names = _names(province)
        length = next(
            (n for n in range(NAME_CHARACTERS_MAX, 1, -1) if address[found : found + n] in names), 0
        )
        if not length:
            break
        province = province or _provinces().get(address[found : found + length], "")
        found += length
    return address[:found]


@lru_cache(maxsize=64)
def _names(province: str) -> frozenset[str]:
    """The names that may follow: of one province, or of all where the province is not known yet."""
    divisions = _divisions()
    if province:
        return divisions[province]
    return frozenset(_provinces()).union(*divisions.values())


@lru_cache(maxsize=1)
def _provinces() -> dict[str, str]:
    """Every way to write a province, with its name in the list."""
    return {way: name for name in _divisions() for way in (name, _SHORT.sub("", name))}


@lru_cache(maxsize=1)
def _divisions() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    names: set[str] = set()
    for line in (files("stdnum.cn") / "loc.dat").read_text(encoding="utf-8").splitlines():
        if province := _PROVINCE.fullmatch(line):
            names = found.setdefault(province[1], set())
        elif division := _DIVISION.fullmatch(line):
            names |= {_YEARS.sub("", name) for name in division[2].split(",")} - _NAMELESS
    return {province: frozenset(of) for province, of in found.items()}
