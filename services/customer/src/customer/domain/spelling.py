"""Spellings of a name: what is taken for the same by who reads it is the same name."""

import unicodedata
from typing import Final

MIDDLE_DOT: Final = "\u00b7"
DOTS: Final = dict.fromkeys(map(ord, "\u2022\u2027\u22c5\u30fb\uff65\u2219\u0387\u16eb\u2e31"), MIDDLE_DOT)
"""Characters that people type instead of the middle dot between the parts of a name."""
_FOLDED: Final = DOTS | dict.fromkeys(
    [
        *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0x200B, 0x2010),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2070),
        *range(0xFE00, 0xFE10),
        *range(0xFFF0, 0xFFF9),
        *range(0x1BCA0, 0x1BCA4),
        *range(0x1D173, 0x1D17B),
        *range(0xE0000, 0xE1000),
    ]
)
"""The dots as one, and nothing in place of what is not seen, or chooses among the forms of the character before (Unicode,
Default_Ignorable_Code_Point)."""


def key_of(name: str) -> str:
    """What the spellings of one name have in common: wide letters are plain ones, capitals are small, blanks are one, dots
    between the parts are one, and what is not seen is not there (Unicode, NFKC_Casefold). Letters of two scripts that look
    alike are two."""
    plain = unicodedata.normalize("NFKC", name.translate(DOTS)).translate(_FOLDED)
    return " ".join(unicodedata.normalize("NFKC", plain.casefold()).split())
