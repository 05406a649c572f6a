"""Amounts as banks print them: signs before or after, parentheses, currency signs and codes, blanks that are
dashes.

Signs, parentheses and currency are removed first. The rest is a number with the mapping's own marks. Each
of them may occur once. A contradictory amount, such as a minus in parentheses or a sign of another
currency, is refused.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from chassis.money import AMOUNT_MINOR_MAX, AmountUnreadable, NumberFormat, is_currency

_FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_BLANKS: Final = dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " ")
_MINUSES: Final = dict.fromkeys([0x2212, 0xFE63, 0x207B], "-")
_OTHERS: Final = {0x2018: "'", 0x2019: "'", 0x02BC: "'", 0xFFE5: "¥", 0xFFE1: "£", 0xFFE6: "₩", 0xFE62: "+"}
_PLAIN: Final[dict[int, int | str]] = {**_FULL_WIDTH, **_BLANKS, **_MINUSES, **_OTHERS}

_DOLLARS: Final = (
    "USD AUD BBD BMD BND BSD BZD CAD FJD GYD HKD JMD KYD LRD MXN NAD NZD SBD SGD SRD TTD TWD XCD"
)
_SIGNS: Final[Mapping[str, frozenset[str]]] = {
    sign: frozenset(codes.split())
    for sign, codes in {
        "¥": "CNY JPY",
        "元": "CNY TWD HKD",
        "圆": "CNY",
        "人民币": "CNY",
        "RMB": "CNY",
        "円": "JPY",
        "€": "EUR",
        "$": _DOLLARS,
        "US$": "USD",
        "HK$": "HKD",
        "NT$": "TWD",
        "A$": "AUD",
        "C$": "CAD",
        "S$": "SGD",
        "R$": "BRL",
        "£": "GBP EGP FKP GIP SHP",
        "₩": "KRW",
        "₹": "INR",
        "₽": "RUB",
        "₺": "TRY",
        "₫": "VND",
        "฿": "THB",
        "₱": "PHP",
        "₴": "UAH",
        "₪": "ILS",
        "zł": "PLN",
        "Kč": "CZK",
        "Ft": "HUF",
        "Fr.": "CHF",
        "SFr.": "CHF",
        "kr": "DKK NOK SEK ISK",
        "Rp": "IDR",
        "RM": "MYR",
    }.items()
}
DASHES: Final = "-–—−－﹣"
_DASHES_MAX: Final = 3


def spelled(text: str) -> str:
    """Full-width digits, signs and letters, blanks of every width and every Unicode minus, in their ASCII
    form."""
    return text if text.isascii() else text.translate(_PLAIN)


class PrintedAmounts:
    """Reads amounts of one mapping."""

    def __init__(
        self,
        number: NumberFormat,
        *,
        minus_signs: str = "",
        currency_signs: Mapping[str, str] | None = None,
        credit_words: Iterable[str] = (),
        debit_words: Iterable[str] = (),
        words_required: bool = False,
        blanks: Iterable[str] = (),
    ) -> None:
        self._number = number
        self._minus = frozenset("-" + minus_signs)
        self._signs = {**_SIGNS, **{sign: frozenset([code]) for sign, code in (currency_signs or {}).items()}}
        signs = "|".join(re.escape(sign) for sign in sorted(self._signs, key=len, reverse=True))
        self._currency_first = re.compile(f"({signs}|[A-Za-z]{{3}})(?![A-Za-z])")
        self._currency_last = re.compile(f"(?<![A-Za-z])({signs}|[A-Za-z]{{3}})\\Z")
        self._words_required = words_required
        self._words = {spelled(word): 1 for word in credit_words} | {
            spelled(word): -1 for word in debit_words
        }
        self._blank = frozenset(
            ["", *(dash * times for dash in DASHES for times in range(1, _DASHES_MAX + 1)), *blanks]
        )

    def is_blank(self, text: str) -> bool:
        """Whether an amount is absent: an empty text, or a text that the bank writes for no amount."""
        return text in self._blank

    def minor_units(self, text: str, currency: str, decimals: int, minor_max: int = AMOUNT_MINOR_MAX) -> int:
        """`text` as minor units, negative for a debit; raises AmountUnreadable."""
        plain = spelled(text)
        try:
            if not self._words:
                return self._number.minor_units(plain, decimals, minor_max)
        except AmountUnreadable as error:
            if error.code != "amount-malformed":
                raise
        return self._undressed(plain, currency, decimals, minor_max)

    def _undressed(self, text: str, currency: str, decimals: int, minor_max: int) -> int:
        rest, sign, direction, enclosed, named = text.strip(), "", 0, False, False
        while True:
            first, last = rest[:1], rest[-1:]
            if first == "(" and last == ")" and not enclosed:
                enclosed, rest = True, rest[1:-1].strip()
            elif not sign and (first == "+" or first in self._minus):
                sign, rest = first, rest[1:].strip()
            elif not sign and (last == "+" or last in self._minus):
                sign, rest = last, rest[:-1].strip()
            elif not direction and (found := self._word(rest)):
                direction, rest = found
            elif not named and (match := self._currency(rest)):
                named, rest = True, f"{rest[: match.start()]}{rest[match.end() :]}".strip()
                self._check_currency(match[1], currency)
            else:
                break
        if not rest[:1].isdigit():
            raise AmountUnreadable("amount-malformed" if text else "amount-missing", "not an amount")
        minor = self._number.minor_units(rest, decimals, minor_max)
        if enclosed and sign:
            raise AmountUnreadable("amount-malformed", "a sign and parentheses")
        negative = enclosed or sign in self._minus
        if self._words_required and not direction:
            raise AmountUnreadable("word-unknown", "an amount without one of the mapping's direction words")
        if direction and (negative or sign):
            raise AmountUnreadable("amount-negative", "the direction is in the word, not in the sign")
        return -minor if negative or direction < 0 else minor

    def _word(self, text: str) -> tuple[int, str] | None:
        for word, direction in self._words.items():
            rest = text.removesuffix(word)
            if rest != text and not (rest[-1:].isalpha() and word[0].isalpha()):
                return direction, rest.strip()
            rest = text.removeprefix(word)
            if rest != text and not (rest[:1].isalpha() and word[-1].isalpha()):
                return direction, rest.strip()
        return None

    def _currency(self, text: str) -> "re.Match[str] | None":
        return self._currency_first.match(text) or self._currency_last.search(text)

    def _check_currency(self, printed: str, currency: str) -> None:
        of_sign = self._signs.get(printed)
        if of_sign is None:
            if not is_currency(printed.upper()):
                raise AmountUnreadable("amount-malformed", "a word that is no currency")
            of_sign = frozenset([printed.upper()])
        if currency not in of_sign:
            raise AmountUnreadable("currency-differs", "an amount printed with the sign of another currency")
