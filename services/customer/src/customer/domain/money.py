"""Amounts people write, as integer minor units of their currency (ISO 4217 exponents)."""

import re
from typing import Final

AMOUNT_MINOR_MAX: Final = 10**15
_NO_DECIMALS: Final = frozenset(
    "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split()  # noqa: SIM905
)
_THREE_DECIMALS: Final = frozenset(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"])
_FOUR_DECIMALS: Final = frozenset(("CLF", "UYW"))
_TWO_DECIMALS: Final = 2
_DECIMALS: Final = (
    dict.fromkeys(_NO_DECIMALS, 0) | dict.fromkeys(_THREE_DECIMALS, 3) | dict.fromkeys(_FOUR_DECIMALS, 4)
)
_AMOUNT: Final = re.compile(r"([0-9]{1,16})(?:\.([0-9]{1,4}))?", re.ASCII)


class AmountNotReadable(ValueError):
    """A text that is no amount of zero or more in this currency."""


def exponent(currency: str) -> int:
    """How many decimals one unit of `currency` has."""
    return _DECIMALS.get(currency, _TWO_DECIMALS)


def minor_units(text: str, currency: str) -> int:
    """`text`, such as "5432.10", in minor units; refuses what would have to be rounded."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise AmountNotReadable("not a decimal number of zero or more")
    whole, fraction = match[1], match[2] or ""
    places = exponent(currency)
    if fraction[places:].strip("0"):
        raise AmountNotReadable(f"{currency} has {places} decimals")
    minor = int(whole + fraction[:places].ljust(places, "0"))
    if minor > AMOUNT_MINOR_MAX:
        raise AmountNotReadable(f"more than {AMOUNT_MINOR_MAX} minor units")
    return minor


def decimal_text(amount_minor: int, currency: str) -> str:
    """Minor units as people write them: -543210 fen is "-5432.10"."""
    places = _DECIMALS.get(currency, _TWO_DECIMALS)
    if places == _TWO_DECIMALS:
        whole, fraction = divmod(abs(amount_minor), 100)
        return f"{'-' if amount_minor < 0 else ''}{whole}.{fraction:02d}"
    if not places:
        return str(amount_minor)
    whole, fraction = divmod(abs(amount_minor), 10**places)
    return f"{'-' if amount_minor < 0 else ''}{whole}.{fraction:0{places}d}"
