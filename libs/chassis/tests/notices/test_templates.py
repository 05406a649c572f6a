"""Templates, the values that they take, and the segments of an SMS. Pure."""

import pytest
from chassis.notices import Template, ValuesUnfit
from chassis.notices.deciding import Channel
from chassis.notices.segments import segments
from hypothesis import given
from hypothesis import strategies as st

LETTER = Template(
    "letter", 1, "email", "Dear ${name},\n\n${what} is there.\n", {"name": 20, "what": 10}, "For ${name}"
)


def test_a_template_puts_each_value_where_it_is_named() -> None:
    content = LETTER.rendered({"name": "$what ${what}", "what": "it"})
    assert content.title == "For $what ${what}"
    assert content.text == "Dear $what ${what},\n\nit is there.\n"


@pytest.mark.parametrize(
    "values",
    [
        {"name": "Li"},
        {"name": "Li", "what": "it", "more": "x"},
        {"name": "", "what": "it"},
        {"name": " ", "what": "it"},
        {"name": "L" * 21, "what": "it"},
        *(
            {"name": f"Li{character}x", "what": "it"}
            for character in "\r\n\0\t\x1b\x85\u2028\u2029\u202e\u2066\u200b\ufeff\ud800"
        ),
    ],
)
def test_a_value_that_is_missing_unknown_too_long_or_unfit_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValuesUnfit) as refused:
        LETTER.rendered(values)
    assert "Li" not in str(refused.value)


@given(st.text(max_size=30))
def test_no_value_adds_a_line_to_a_title(value: str) -> None:
    try:
        content = LETTER.rendered({"name": value, "what": "it"})
    except ValuesUnfit:
        return
    assert len(content.title.splitlines()) == 1
    assert len(content.text.splitlines()) == 3


@pytest.mark.parametrize(
    ("channel", "text", "fields", "title"),
    [
        ("sms", "for ${name}", {}, ""),
        ("sms", "for nobody", {"name": 5}, ""),
        ("sms", "costs $5", {}, ""),
        ("sms", "for ${name}", {"name": 0}, ""),
        ("sms", "for ${name}", {"name": 501}, ""),
        ("sms", "for ${name}", {"name": 80}, ""),
        ("sms", "for all", {}, "a title"),
        ("email", "for all", {}, ""),
        ("email", "for all", {}, "two\nlines"),
        ("push", "for\u202e all", {}, "a title"),
    ],
)
def test_a_template_that_cannot_be_sent_is_not_declared(
    channel: Channel, text: str, fields: dict[str, int], title: str
) -> None:
    with pytest.raises(ValueError, match=r"template|SMS|value"):
        Template("some", 1, channel, text, fields, title)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("a" * 152 + "€" + "a" * 152, 3),
        ("汉" * 70, 1),
        ("汉" * 71, 2),
        ("汉" * 134, 2),
        ("汉" * 135, 3),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("汉" * 66 + "😀" + "汉" * 66, 3),
        ("a" * 100 + "ç", 2),
    ],
)
def test_the_segments_of_an_sms_are_those_of_the_networks(text: str, count: int) -> None:
    assert segments(text) == count
