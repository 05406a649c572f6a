"""How many segments an SMS takes (3GPP TS 23.038, 23.040): what networks count, and charge for."""

from typing import Final

_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED: Final = frozenset("^{}\\[~]|€\f")
"""Each takes two septets, which one segment holds together."""
SEPTETS_ALONE: Final = 160
SEPTETS_OF_SEVERAL: Final = 153
UNITS_ALONE: Final = 70
UNITS_OF_SEVERAL: Final = 67


def segments(text: str) -> int:
    """The segments of a text: 160 characters of the basic alphabet or 70 others in one, 153 or 67 in each of several."""
    if all(character in _BASIC or character in _EXTENDED for character in text):
        sizes = [2 if character in _EXTENDED else 1 for character in text]
        return _packed(sizes, SEPTETS_ALONE, SEPTETS_OF_SEVERAL)
    return _packed([2 if ord(character) > 0xFFFF else 1 for character in text], UNITS_ALONE, UNITS_OF_SEVERAL)


def _packed(sizes: list[int], alone: int, of_several: int) -> int:
    """No segment ends within a character."""
    if sum(sizes) <= alone:
        return 1
    count, left = 1, of_several
    for size in sizes:
        if size > left:
            count, left = count + 1, of_several
        left -= size
    return count
