"""Amounts in integer minor units, with the exponent that ISO 4217 gives each currency.

Codes and exponents come from the package `iso4217`, which carries the standard's own list.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import iso4217

AMOUNT_MINOR_MAX: Final = 10**15
"""One amount."""
BALANCE_MINOR_MAX: Final = 9 * 10**15
"""The sum of one account and currency, either side of zero: below 2^53, so that every reader of JSON has it
exactly."""
TURNOVER_MINOR_MAX: Final = 9 * 10**18
"""The sum of absolute amounts, of one account or of many: below 2^63, so that every database holds it."""
DECIMALS_MAX: Final = 12
DIGITS_MAX: Final = 40
GROUP_SIZE_MAX: Final = 9
DECIMAL_MARKS: Final = (".", ",")
GROUP_MARKS: Final = ("", ".", ",", "'", " ", "_")

EXPONENTS: Final[Mapping[str, int]] = {
    currency.code: currency.exponent for currency in iso4217.Currency if currency.exponent is not None
}
"""The currencies that money can be booked in: those with minor units, so no gold (XAU), no test code (XTS,
XXX)."""

if TYPE_CHECKING:
    CurrencyCode = str
else:
    CurrencyCode = Literal[tuple(sorted(EXPONENTS))]
"""A closed set for msgspec and pydantic: a pattern would accept codes that ISO 4217 does not have."""

_TWO_DECIMALS: Final = 2


class AmountUnreadable(ValueError):
    """A text that is not an amount of this currency; `code` is the reason a quarantine names."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def exponent(currency: str) -> int:
    """The number of decimals of `currency`; raises KeyError for an unknown currency."""
    return EXPONENTS[currency]


def is_currency(text: str) -> bool:
    """Whether `text` is an ISO 4217 code of a currency that has minor units."""
    return text in EXPONENTS


class NumberFormat:
    """How decimal numbers are written: the mark before the decimals, the mark between groups, and the groups'
    sizes.

    `group_sizes` counts from the right and repeats its last size: (3,) is 1,234,567 and (3, 2) is
    12,34,567. Groups may be left out of a number; a number that has a group mark has all of them, each in
    its place.
    """

    def __init__(
        self, decimal_mark: str = ".", group_mark: str = "", group_sizes: Sequence[int] = (3,)
    ) -> None:
        """Raises ValueError where a mark is none, or where both are the same."""
        if decimal_mark not in DECIMAL_MARKS:
            raise ValueError(f"a decimal mark is one of {_listed(DECIMAL_MARKS)}")
        if group_mark not in GROUP_MARKS:
            raise ValueError(f"a group mark is one of {_listed(GROUP_MARKS)}")
        if group_mark == decimal_mark:
            raise ValueError("the decimal mark and the group mark are the same")
        if not group_sizes or not all(1 <= size <= GROUP_SIZE_MAX for size in group_sizes):
            raise ValueError(f"group sizes are 1 to {GROUP_SIZE_MAX}")
        self._group_mark = group_mark
        self._decimals = f"(?:{re.escape(decimal_mark)}([0-9]+))?"
        whole = "|".join([f"[0-9]{{1,{DIGITS_MAX}}}", *_grouped(group_mark, group_sizes)])
        self._signed = re.compile(f"([+-]?)({whole}){self._decimals}")

    def minor_units(self, text: str, decimals: int, minor_max: int = AMOUNT_MINOR_MAX) -> int:
        """`text` as minor units of a currency with `decimals`, at most `minor_max`; never rounds, never
        guesses.

        Raises AmountUnreadable. A sign stands before the number.
        """
        match = self._signed.fullmatch(text)
        if match is None:
            raise AmountUnreadable("amount-malformed" if text else "amount-missing", "not a decimal number")
        sign, whole, fraction = match.groups()
        if self._group_mark:
            whole = whole.replace(self._group_mark, "")
        if fraction is None:
            fraction = ""
        elif len(fraction) > decimals and (len(fraction) > DECIMALS_MAX or fraction[decimals:].strip("0")):
            raise AmountUnreadable("amount-precision", f"more than {decimals} decimals")
        minor = int(whole + fraction[:decimals].ljust(decimals, "0"))
        if minor > minor_max:
            raise AmountUnreadable("amount-out-of-range", f"more than {minor_max} minor units")
        return -minor if sign == "-" else minor


def _listed(marks: Sequence[str]) -> str:
    return ", ".join([repr(mark) for mark in marks])


def _grouped(mark: str, sizes: Sequence[int]) -> list[str]:
    """Patterns of whole numbers with all their group marks: one by how many groups there are, up to the
    repeating one."""
    if not mark:
        return []
    escaped, patterns, tail = re.escape(mark), list[str](), ""
    for at, size in enumerate(sizes):
        group = f"{escaped}[0-9]{{{size}}}"
        above = sizes[min(at + 1, len(sizes) - 1)]
        repeated = f"(?:{group})*" if at == len(sizes) - 1 else ""
        patterns.append(f"[1-9][0-9]{{0,{above - 1}}}{repeated}{group}{tail}")
        tail = group + tail
    return patterns


_PLAIN: Final = NumberFormat()


def minor_units(text: str, decimals: int) -> int:
    """A number with a decimal point and without groups as minor units; see `NumberFormat.minor_units`."""
    return _PLAIN.minor_units(text.strip(), decimals)


def decimal_text(amount_minor: int, currency: str) -> str:
    """Minor units as a decimal text: -543210 fen is "-5432.10"."""
    places = EXPONENTS.get(currency, _TWO_DECIMALS)
    if places == _TWO_DECIMALS and amount_minor >= 0:
        return f"{amount_minor // 100}.{amount_minor % 100:02d}"
    sign = "-" if amount_minor < 0 else ""
    if not places:
        return str(amount_minor)
    whole, fraction = divmod(abs(amount_minor), 10**places)
    return f"{sign}{whole}.{fraction:0{places}d}"
