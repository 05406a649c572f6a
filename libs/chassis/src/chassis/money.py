"""Amounts in integer minor units, with the exponent that ISO 4217 gives each currency."""

import re
from typing import Final

AMOUNT_MINOR_MAX: Final = 10**15
"""One amount."""
BALANCE_MINOR_MAX: Final = 9 * 10**15
"""The sum of one account and currency, either side of zero: below 2^53, so that every reader of JSON has it exactly."""
TURNOVER_MINOR_MAX: Final = 9 * 10**18
"""The sum of absolute amounts, of one account or of many: below 2^63, so that every database holds it."""
DECIMALS_MAX: Final = 12

_NO_DECIMALS: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DECIMALS: Final = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_DECIMALS: Final = "CLF UYW"
_TWO_DECIMALS: Final = 2
_EXPONENTS: Final = {
    currency: exponent
    for currencies, exponent in ((_NO_DECIMALS, 0), (_THREE_DECIMALS, 3), (_FOUR_DECIMALS, 4))
    for currency in currencies.split()
}
_AMOUNT = re.compile(r"([+-]?)([0-9]{1,16})(?:\.([0-9]+))?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class AmountUnreadable(ValueError):
    """A text that is not an amount of this currency; `code` is the reason a quarantine names."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def exponent(currency: str) -> int:
    """How many decimals one unit of `currency` has."""
    return _EXPONENTS.get(currency, _TWO_DECIMALS)


def is_currency(text: str) -> bool:
    """Whether `text` has the form of an ISO 4217 code."""
    return _CURRENCY.fullmatch(text) is not None


def minor_units(text: str, decimals: int, *, decimal_mark: str = ".", group_mark: str = "") -> int:
    """`text` as minor units of a currency with `decimals`; never rounds, never guesses."""
    plain = text.strip()
    if group_mark:
        plain = plain.replace(group_mark, "")
    if decimal_mark != ".":
        if "." in plain:
            raise AmountUnreadable("amount-malformed", f"a point where the decimal mark is {decimal_mark!r}")
        plain = plain.replace(decimal_mark, ".")
    match = _AMOUNT.fullmatch(plain)
    if match is None:
        raise AmountUnreadable("amount-malformed" if plain else "amount-missing", "not a decimal number")
    sign, whole, fraction = match.groups()
    fraction = fraction or ""
    if len(fraction) > DECIMALS_MAX or fraction[decimals:].strip("0"):
        raise AmountUnreadable("amount-precision", f"more than {decimals} decimals")
    minor = int(whole + fraction[:decimals].ljust(decimals, "0"))
    if minor > AMOUNT_MINOR_MAX:
        raise AmountUnreadable("amount-out-of-range", f"more than {AMOUNT_MINOR_MAX} minor units")
    return -minor if sign == "-" else minor


def decimal_text(amount_minor: int, currency: str) -> str:
    """Minor units as people write them: -543210 fen is "-5432.10"."""
    places = _EXPONENTS.get(currency, _TWO_DECIMALS)
    if places == _TWO_DECIMALS and amount_minor >= 0:
        return f"{amount_minor // 100}.{amount_minor % 100:02d}"
    sign = "-" if amount_minor < 0 else ""
    if not places:
        return str(amount_minor)
    whole, fraction = divmod(abs(amount_minor), 10**places)
    return f"{sign}{whole}.{fraction:0{places}d}"
