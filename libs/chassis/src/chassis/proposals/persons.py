"""Whether two names of actors name the same person."""

import re
import unicodedata
from typing import Final

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Marks and letters that show nothing (Unicode, Default_Ignorable_Code_Point). Others are controls, which go too."""


def person(name: str) -> str:
    """The one form of a name: two spellings of it are the same person.

    Case, width and composition do not distinguish persons, nor do blanks and invisible characters. Two identities of
    one human cannot be told apart here: the issuer of tokens gives each person one.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = _INVISIBLE.sub("", folded)
    return "".join(each for each in seen if unicodedata.category(each)[0] not in "ZC")


def persons(actor: str, on_behalf_of: str | None) -> frozenset[str]:
    """The persons behind an act: who acts, and for whom."""
    return frozenset(person(name) for name in (actor, on_behalf_of) if name is not None)
