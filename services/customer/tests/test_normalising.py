"""Details in the one form in which they are kept, and what cannot be right."""

from datetime import date, timedelta

import phonenumbers
import pytest
from customer.domain.commands import Details
from customer.normalising import (
    BORN_FIRST,
    DetailInvalid,
    Unfit,
    email,
    identity_number,
    name,
    normalised,
    normalised_or_kept,
    phone,
    spellings,
    text,
)
from hypothesis import example, given
from hypothesis import strategies as st
from stdnum.cn import ric

TODAY = date(2026, 2, 1)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("13800001234", "+8613800001234"),
        ("+86 138-0000-1234", "+8613800001234"),
        ("１３８００００１２３４", "+8613800001234"),
        ("010-65051234", "+861065051234"),
        ("+852 2345 6789", "+85223456789"),
        ("+1 212 555 0100", "+12125550100"),
        ("+49 30 901820", "+4930901820"),
    ],
)
def test_a_phone_number_is_kept_as_e164(typed, kept):
    assert phone(typed) == kept
    assert phone(kept) == kept


@pytest.mark.parametrize(
    "typed",
    ["", "12", "138000012345", "phone", "+86 138", "1380000123\u200b4", "+999 1234", "010-65051234 ext 5"],
)
def test_an_invalid_phone_number_is_refused(typed):
    with pytest.raises(Unfit):
        phone(typed)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("11010519491231002X", "11010519491231002X"),
        ("11010519491231002x", "11010519491231002X"),
        ("110105 19491231 002X", "11010519491231002X"),
        ("１１０１０５１９４９１２３１００２Ｘ", "11010519491231002X"),
        ("110105491231002", "11010519491231002X"),
    ],
)
def test_a_resident_id_is_proven_and_has_one_form(typed, kept):
    found = identity_number(typed)
    assert (found.number, found.proven, found.born_on, found.gender) == (kept, True, "1949-12-31", "female")


@pytest.mark.parametrize("typed", ["110105194912310021", "110105194913310021", "110105491331002"])
def test_a_resident_id_with_a_wrong_digit_or_date_is_refused(typed):
    with pytest.raises(Unfit):
        identity_number(typed)


def test_numbers_of_other_countries_and_of_companies_are_kept():
    assert identity_number("e 1234567").number == "E1234567"
    assert not identity_number("701231").proven
    arabic = "11010519491231002".translate({48 + digit: 0x660 + digit for digit in range(10)})
    assert identity_number(f"{arabic}X") == (f"{arabic}X", False, None, None)
    assert identity_number("91110000600037341l".upper(), "company").proven
    with pytest.raises(Unfit):
        identity_number("911100006000373410", "company")


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("  张  伟 ", "张 伟"),
        ("阿依古丽\u2022买买提", "阿依古丽·买买提"),
        ("阿依古丽\u30fb买买提", "阿依古丽·买买提"),
        ("𠀾某", "𠀾某"),
        ("\U00031350某", "\U00031350某"),
        ("Jose\u0301", "José"),
        ("O'Brien", "O'Brien"),
        ("ＡＢＣ㈱", "ＡＢＣ㈱"),
    ],
)
def test_a_name_has_one_form_and_keeps_its_rare_characters(typed, kept):
    assert name(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "张\x00伟",
        "张\u200b伟",
        "张\u202e伟",
        "a\nb",
        "a\u2028b",
        "\ue000",
        " ",
        "\ud800",
        "\ufdd0",
        "\U0002ffff",
    ],
)
def test_control_and_invisible_characters_are_refused(typed):
    with pytest.raises(Unfit):
        name(typed)


def test_an_address_of_mail_is_checked_without_asking_anybody():
    assert email("Zhang@EXAMPLE.com") == "Zhang@example.com"
    for wrong in ("zhang", "a@b", "a b@example.com", "a@example.com\n@x"):
        with pytest.raises(Unfit):
            email(wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("phone", "12"),
        ("email", "zhang"),
        ("name", "张\u200b"),
        ("born_on", "2026-02-02"),
        ("born_on", "1492-01-01"),
        ("identity_number", "110105194912310021"),
        ("address", "\u202e"),
    ],
)
def test_a_refusal_names_the_field_and_never_the_value_and_master_data_is_kept(field, value):
    details = Details(**{"name": "张伟", field: value})
    with pytest.raises(DetailInvalid) as told:
        normalised(details, TODAY)
    assert str(told.value).startswith(f"{field}: ")
    assert value not in str(told.value).partition(": ")[2]
    kept = normalised_or_kept(details, TODAY)
    assert (getattr(kept, field), kept.invalid, kept.proven) == (value, (field,), False)


def test_a_detail_that_contradicts_the_identity_number_is_refused():
    number = "11010519491231002X"
    assert normalised(Details("张伟", identity_number=number), TODAY).born_on == "1949-12-31"
    with pytest.raises(DetailInvalid, match="born_on"):
        normalised(Details("张伟", identity_number=number, born_on="1950-01-01"), TODAY)
    with pytest.raises(DetailInvalid, match="identity_number"):
        normalised(Details("张伟", identity_number=number, gender="male"), TODAY)


def resident_id(day, order=2):
    """A resident ID with a right check digit."""
    number = f"110105{day:%Y%m%d}{order:03d}".replace(" ", "0")
    return number + ric.calc_check_digit(number + "0")


@pytest.mark.parametrize("day", [BORN_FIRST, TODAY])
def test_the_first_and_the_last_day_on_which_a_customer_can_be_born_are_taken(day):
    beyond = day - timedelta(1) if day == BORN_FIRST else day + timedelta(1)
    for details in (
        Details("张伟", born_on=day.isoformat()),
        Details("张伟", identity_number=resident_id(day)),
    ):
        kept = normalised_or_kept(details, TODAY)
        assert (kept.born_on, kept.invalid) == (day.isoformat(), ())
    assert normalised_or_kept(Details("张伟", born_on=beyond.isoformat()), TODAY).invalid == ("born_on",)
    kept = normalised_or_kept(Details("张伟", identity_number=resident_id(beyond)), TODAY)
    assert (kept.born_on, kept.invalid, kept.proven) == (None, ("identity_number",), False)


def test_a_date_of_birth_that_cannot_be_right_is_kept_beside_a_number_that_names_another():
    details = Details("张伟", identity_number="11010519491231002X", born_on="31.12.1949")
    kept = normalised_or_kept(details, TODAY)
    assert (kept.born_on, kept.invalid, kept.proven) == ("31.12.1949", ("born_on",), True)


def test_a_number_whose_sex_is_another_proves_nothing():
    details = Details("张伟", identity_number="11010519491231002X", gender="male")
    kept = normalised_or_kept(details, TODAY)
    assert (kept.invalid, kept.proven) == (("identity_number",), False)


@pytest.mark.parametrize(("order", "gender"), [(1, "male"), (2, "female"), (998, "female"), (999, "male")])
def test_the_gender_of_a_resident_id_is_odd_or_even(order, gender):
    number = resident_id(date(1980, 2, 29), order)
    assert identity_number(number).gender == gender
    other = {"male": "female", "female": "male"}[gender]
    for stated, invalid in ((gender, ()), (other, ("identity_number",)), (None, ())):
        assert (
            normalised_or_kept(Details("张伟", identity_number=number, gender=stated), TODAY).invalid
            == invalid
        )


@given(
    st.dates(date(1000, 1, 1), date(2100, 1, 1)),
    st.integers(0, 999),
    st.one_of(st.none(), st.dates().map(str)),
    st.sampled_from([None, "male", "female"]),
)
def test_normalising_a_resident_id_again_changes_nothing(day, order, born, gender):
    details = Details("张伟", identity_number=resident_id(day, order), born_on=born, gender=gender)
    kept = normalised_or_kept(details, TODAY)
    again = normalised_or_kept(kept, TODAY)
    assert (again.stated(), again.invalid, again.proven) == (kept.stated(), kept.invalid, kept.proven)


texts = st.text(max_size=30)


@example(Details("", identity_number="A´"))
@given(
    st.builds(
        Details, name=texts, phone=texts, email=texts, address=texts, born_on=texts, identity_number=texts
    )
)
def test_normalising_master_data_again_changes_nothing(details):
    kept = normalised_or_kept(details, TODAY)
    again = normalised_or_kept(kept, TODAY)
    assert (again.stated(), again.invalid) == (kept.stated(), kept.invalid)
    for field in kept.invalid:
        assert getattr(kept, field) == getattr(details, field)


def test_a_value_is_searched_for_in_each_form_in_which_it_may_be_kept():
    assert spellings("phone", "138-0000-1234") == ["138-0000-1234", "+8613800001234"]
    assert spellings("email", "Zhang@EXAMPLE.com") == ["Zhang@EXAMPLE.com", "Zhang@example.com"]
    assert spellings("identity_number", "110105491231002") == ["110105491231002", "11010519491231002X"]
    code = "91110000600037341L"
    assert spellings("identity_number", code.lower()) == [code.lower(), code]
    assert spellings("phone", "x") == ["x"]
    with pytest.raises(ValueError, match="name"):
        spellings("name", "张伟")


@given(texts)
def test_a_text_that_is_kept_has_one_form(value):
    try:
        kept = text(value)
    except Unfit:
        return
    assert text(kept) == kept


@example(11_167_008_705)  # the library cannot read it at all
@given(st.integers(10**10, 2 * 10**10 - 1))
def test_a_mobile_number_is_judged_as_the_library_judges_it(number):
    try:
        found = phonenumbers.parse(str(number), "CN")
    except phonenumbers.NumberParseException:
        found = phonenumbers.PhoneNumber()
    try:
        kept = phone(str(number))
    except Unfit:
        assert not phonenumbers.is_valid_number(found)
        return
    assert phonenumbers.is_valid_number(found)
    assert kept == phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)
