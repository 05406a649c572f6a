"""The patterns of texts mean the same to who validates and to who reads the document."""

import re
import unicodedata
from typing import Annotated

import pytest
from chassis.web.formats import LINE, LINES, stating
from hypothesis import given
from hypothesis import strategies as st
from pydantic import StringConstraints, TypeAdapter, ValidationError

SEEN_OF_CF = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"
"""Format characters of the Arabic and Syriac scripts that are drawn."""
BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"


def taken(pattern: str, text: str) -> bool:
    adapter: TypeAdapter[str] = TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
    try:
        adapter.validate_python(text)
    except ValidationError:
        return False
    return True


def test_a_text_of_characters_that_nobody_sees_states_nothing() -> None:
    pattern = re.compile(stating(LINES))
    unseen = [
        chr(code)
        for code in range(0x10000)
        if unicodedata.category(chr(code)) in {"Cc", "Cf", "Zs", "Zl", "Zp"} or chr(code) in BLANK_LETTERS
    ]
    assert "".join(one for one in unseen if pattern.fullmatch(one * 3)) == SEEN_OF_CF
    assert not pattern.fullmatch("".join(one for one in unseen if one not in SEEN_OF_CF))


@pytest.mark.parametrize("text", ["x", "银", " é ", "❤️", "\u200b.", "\U0001d7d9", "ب", "a\u0301"])
def test_a_text_with_one_character_that_is_seen_states_something(text: str) -> None:
    for characters in (LINE, LINES):
        assert taken(stating(characters), text)


@given(st.text(st.sampled_from("ax银\u200b\u3000\u3164\ufeff \t\n\r\0\x1b\x7f\x85\U000e0041")))
def test_the_validator_takes_what_the_pattern_of_the_document_says(text: str) -> None:
    for characters in (LINE, LINES):
        # `$` of the document is the end of the text; that of Python's `re` is also before a last line end.
        assert taken(stating(characters), text) == bool(re.fullmatch(stating(characters), text))
