"""Details of customers in the one form in which they are kept, or refused with the reason; by kept libraries.

Staff entry is refused where it does not fit (`normalised` raises). Master data is kept as it came and its field marked
invalid (`normalised_or_kept`), because what a core bank says is a fact, right or wrong.
"""

import unicodedata
from collections.abc import Callable
from datetime import date
from typing import Final, Literal, NamedTuple

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from stdnum.cn import ric, uscc
from stdnum.exceptions import ValidationError

from customer.domain.customer import CustomerKind, Details

REGION: Final = "CN"
"""Where a phone number without a country code is."""
BORN_FIRST: Final = date(1850, 1, 1)
MIDDLE_DOT: Final = "\u00b7"
_DOTS: Final = dict.fromkeys(map(ord, "\u2022\u2027\u22c5\u30fb\uff65\u2219\u0387\u16eb\u2e31"), MIDDLE_DOT)
"""What is typed instead of the middle dot between the parts of a name."""
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_OLD_DIGITS: Final = 15
_RIC_DIGITS: Final = 18

Field = Literal["name", "phone", "email", "address", "born_on", "identity_number"]


class Unfit(ValueError):
    """A value that cannot be right. The text names the reason and never the value."""


class IdentityNumber(NamedTuple):
    """A number in its one form; `proven` where its checksum says that it is an identity number of its kind."""

    number: str
    proven: bool
    born_on: str | None = None
    gender: Literal["female", "male"] | None = None


def text(value: str) -> str:
    """NFC, without blanks around it; raises Unfit where control or invisible characters are in it."""
    composed = unicodedata.normalize("NFC", value.strip())
    if not composed:
        raise Unfit("it is empty")
    if any(unicodedata.category(letter) in _INVISIBLE for letter in composed):
        raise Unfit("control or invisible characters")
    return composed


def name(value: str) -> str:
    """A name: NFC, one blank between its parts, the middle dot U+00B7. Rare characters stay as they are."""
    return " ".join(text(value).translate(_DOTS).split())


def phone(value: str) -> str:
    """A phone number as E.164 (ITU-T), full-width digits and numbers of mainland China without country code included."""
    try:
        found = phonenumbers.parse(text(value), REGION)
    except phonenumbers.NumberParseException:
        raise Unfit("not a phone number") from None
    if not phonenumbers.is_valid_number(found) or found.extension:
        raise Unfit("not a phone number that exists")
    return phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)


def email(value: str) -> str:
    """An e-mail address as RFC 5321 and 6531 write it, its domain in small letters; nobody is asked whether it exists."""
    try:
        found = validate_email(text(value), check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        raise Unfit("not an e-mail address") from None
    return found.normalized


def born_on(value: str, today: date) -> str:
    """A date of birth, ISO 8601, between 1850 and today."""
    try:
        day = date.fromisoformat(text(value))
    except ValueError:
        raise Unfit("not a date") from None
    if not BORN_FIRST <= day <= today:
        raise Unfit("not a day on which a customer can have been born")
    return day.isoformat()


def identity_number(value: str, kind: CustomerKind = "person") -> IdentityNumber:
    """A resident ID (GB 11643) or a unified social credit code (GB 32100) in its one form; others as they are.

    A number of 15 or 18 digits of a person claims to be a resident ID: raises Unfit where it is none. The older form of
    15 digits becomes 18. Other countries' numbers are kept in large letters, without a proof.
    """
    compact = unicodedata.normalize("NFKC", text(value)).replace(" ", "").upper()
    try:
        if kind == "company":
            is_code = len(compact) == _RIC_DIGITS
            return IdentityNumber(uscc.validate(compact), proven=True) if is_code else _other(compact)
        if len(compact) == _OLD_DIGITS and compact.isascii() and compact.isdigit():
            compact = _of_18_digits(compact)
        elif not (len(compact) == _RIC_DIGITS and compact[:-1].isascii() and compact[:-1].isdigit()):
            return _other(compact)
        number = ric.validate(compact)
        gender: Literal["female", "male"] = "male" if ric.get_gender(number) == "M" else "female"
        return IdentityNumber(number, proven=True, born_on=ric.get_birth_date(number).isoformat(), gender=gender)
    except ValidationError:
        raise Unfit("its check digit or a part of it is wrong") from None


def normalised(details: Details, today: date) -> Details:
    """Details that staff enter; raises UnfitField with the field that is to be corrected."""
    found, unfit = _each(details, today)
    for field, reason in unfit.items():
        raise UnfitField(field, reason)
    return found


def normalised_or_kept(details: Details, today: date) -> Details:
    """Details of master data: each field in its one form, or as it came and named in `invalid`."""
    found, unfit = _each(details, today)
    return Details(**{**_fields(found), "invalid": tuple(sorted(unfit))})


class UnfitField(Unfit):
    """A field that cannot be right."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def _each(details: Details, today: date) -> tuple[Details, dict[str, str]]:
    values = _fields(details)
    unfit: dict[str, str] = {}
    number: IdentityNumber | None = None

    def identity(value: str) -> str:
        nonlocal number
        number = identity_number(value, details.kind)
        return number.number

    rules: dict[str, Callable[[str], str]] = {
        "name": name,
        "phone": phone,
        "email": email,
        "address": text,
        "born_on": lambda value: born_on(value, today),
        "identity_number": identity,
        "branch": text,
    }
    for field, rule in rules.items():
        if values[field] is not None:
            try:
                values[field] = rule(values[field])
            except Unfit as error:
                unfit[field] = str(error)
    if number is not None and number.born_on is not None:
        if number.born_on > today.isoformat():
            unfit["identity_number"] = "its day of birth is yet to come"
        elif values["born_on"] is None:
            values["born_on"] = number.born_on
        elif "born_on" not in unfit and values["born_on"] != number.born_on:
            unfit["born_on"] = "it contradicts the identity number"
    if number is not None and None not in {number.gender, details.gender} and number.gender != details.gender:
        unfit["gender"] = "it contradicts the identity number"
    values["proven"] = number is not None and number.proven and "identity_number" not in unfit
    return Details(**values), unfit


def _other(compact: str) -> IdentityNumber:
    return IdentityNumber(compact, proven=False)


def _of_18_digits(old: str) -> str:
    """The older form has a year of two digits, of the twentieth century, and no check digit (GB 11643-1989)."""
    number = f"{old[:6]}19{old[6:]}"
    return number + ric.calc_check_digit(number + "0")


def _fields(details: Details) -> dict[str, object]:
    return {field: getattr(details, field) for field in Details.__struct_fields__}
