"""Normalises the details of customers, or refuses them with the reason. It uses maintained libraries.

An invalid value from staff is refused (`normalised` raises). An invalid value from master data is kept
unchanged and its field marked invalid (`normalised_or_kept`): a statement of the core bank is a fact,
right or wrong.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache, partial
from typing import ClassVar, Final, Literal, NamedTuple

import msgspec
import phonenumbers
from chassis.write.deciding import Refusal
from email_validator import EmailNotValidError, validate_email
from stdnum.cn import ric, uscc
from stdnum.exceptions import ValidationError

from customer.domain.commands import Details
from customer.domain.events import DETAILS, CustomerKind, Detail
from customer.domain.spelling import DOTS

REGION: Final = "CN"
"""The country of a phone number without a country code."""
BORN_FIRST: Final = date(1850, 1, 1)
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""`Cn` is not among them: a character that this Unicode table lacks may be in a newer table, and in a
person's name."""
_NO_CHARACTERS: Final = frozenset(
    [*range(0xFDD0, 0xFDF0), *(plane << 16 | last for plane in range(17) for last in (0xFFFE, 0xFFFF))]
)
"""Code points that are never a character (Unicode, 23.7)."""
_OLD_DIGITS: Final = 15
_MOBILE: Final = re.compile(r"1[0-9]{10}")
_MOBILE_DIGITS: Final = 11
_MOBILE_PREFIX: Final = 5
_RIC_DIGITS: Final = 18


class Unfit(ValueError):
    """A value that cannot be right. The text names the reason and never the value."""


class IdentityNumber(NamedTuple):
    """A normalised number; `proven` where it has the valid checksum of its kind of identity number."""

    number: str
    proven: bool
    born_on: str | None = None
    gender: Literal["female", "male"] | None = None


def text(value: str) -> str:
    """NFC, without blanks around it; raises Unfit where control or invisible characters are in it."""
    composed = unicodedata.normalize("NFC", value.strip())
    if not composed:
        raise Unfit("it is empty")
    if any(unicodedata.category(one) in _INVISIBLE or ord(one) in _NO_CHARACTERS for one in composed):
        raise Unfit("control or invisible characters")
    return composed


def name(value: str) -> str:
    """A name: NFC, one blank between its parts, the middle dot U+00B7. Rare characters stay as they are."""
    return " ".join(text(value).translate(DOTS).split())


def phone(value: str) -> str:
    """A phone number as E.164 (ITU-T), full-width digits and numbers of mainland China without country code
    included."""
    if _MOBILE.fullmatch(value) and _mobile_prefix(value[:_MOBILE_PREFIX]):
        return f"+86{value}"
    try:
        found = phonenumbers.parse(text(value), REGION)
    except phonenumbers.NumberParseException:
        raise Unfit("not a phone number") from None
    if not phonenumbers.is_valid_number(found) or found.extension:
        raise Unfit("not a phone number that exists")
    return phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)


@lru_cache(maxsize=10_000)
def _mobile_prefix(prefix: str) -> bool:
    """Whether mobile numbers of the mainland begin with these digits.

    No later digit matters in the number plan.

    A first load has a hundred thousand numbers, and the library takes longer for each than for all other
    fields.
    """
    found = phonenumbers.parse(prefix.ljust(_MOBILE_DIGITS, "0"), REGION)
    return phonenumbers.is_valid_number(found)


def email(value: str) -> str:
    """An e-mail address by RFC 5321 and 6531, its domain in lower case. Whether it exists is not checked."""
    try:
        found = validate_email(text(value), check_deliverability=False)
    except EmailNotValidError:
        raise Unfit("not an e-mail address") from None
    return found.normalized


def born_on(value: str, today: date) -> str:
    """A date of birth, ISO 8601, between 1850 and today by the calendar."""
    try:
        day = date.fromisoformat(text(value))
    except ValueError:
        raise Unfit("not a date") from None
    if not BORN_FIRST <= day <= today:
        raise Unfit("not a day on which a customer can have been born")
    return day.isoformat()


def identity_number(value: str, kind: CustomerKind = "person") -> IdentityNumber:
    """A resident ID (GB 11643) or a unified social credit code (GB 32100) in its one form; others as they
    are.

    A person's number of 15 or 18 digits must be a resident ID: raises Unfit where it is not. The older
    form of 15 digits becomes 18. Numbers of other countries are kept in upper case, without `proven`.
    """
    compact = unicodedata.normalize("NFKC", text(value)).replace(" ", "").upper()
    compact = unicodedata.normalize("NFKC", compact)  # a mark that stood on a blank stands on a letter now
    try:
        if kind == "company":
            is_code = len(compact) == _RIC_DIGITS
            return IdentityNumber(uscc.validate(compact), proven=True) if is_code else _other(compact)
        if len(compact) == _OLD_DIGITS and compact.isascii() and compact.isdigit():
            compact = _of_18_digits(compact)
        elif not (len(compact) == _RIC_DIGITS and compact[:-1].isascii() and compact[:-1].isdigit()):
            return _other(compact)
        # The list of counties is not used: it lacks dissolved counties, whose codes are still in identity numbers.
        if compact[-1] != ric.calc_check_digit(compact):
            raise Unfit("its check digit is wrong")
        born = ric.get_birth_date(compact).isoformat()
        gender: Literal["female", "male"] = "male" if int(compact[16]) % 2 else "female"
        return IdentityNumber(compact, proven=True, born_on=born, gender=gender)
    except ValidationError:
        raise Unfit("its check digit or a part of it is wrong") from None


def spellings(field: str, value: str) -> list[str]:
    """The forms in which a customer may have what somebody types: as it is, and normalised where it can be."""
    if field not in _SPELLED:
        raise ValueError(field)
    return list(
        dict.fromkeys([value, *(found for rule in _SPELLED[field] if (found := _or_none(rule, value)))])
    )


class DetailInvalid(Refusal):
    """A detail that staff enter cannot be right.

    The text names the field and the reason, and never the value.
    """

    code: ClassVar[str] = "detail-invalid"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "A detail of the customer cannot be right"
    title_zh: ClassVar[str] = "客户资料有误"


def normalised(details: Details, today: date) -> Details:
    """Details that staff enter; raises DetailInvalid with the first field that is to be corrected."""
    found = normalised_or_kept(details, today)
    if found.invalid:
        field = found.invalid[0]
        raise DetailInvalid(f"{field}: {_REASONS[field]}")
    return found


def edited(
    changes: Mapping[Detail, str | None], stands: str | None, kind: CustomerKind, today: date
) -> tuple[Details, dict[Detail, str | None]]:
    """The details that staff change, normalised, and the value of each that changes. An identity number that names the date of birth
    changes that date too.

    `stands`: the identity number that stands. Where it names the date, no date without a number is taken, whether it is right or not: a
    refusal of the wrong ones alone would tell a date that is shown masked, and leave no event. Raises DetailInvalid.
    """
    stated = {field: changes.get(field) for field in DETAILS}
    found = normalised(Details(kind=kind, **stated), today)  # type: ignore[arg-type]
    fit = {field: getattr(found, field) for field in DETAILS if field in changes}
    if "identity_number" not in changes:
        number = _number(Details(None, kind, identity_number=stands))
        if "born_on" in changes and number is not None and number.born_on is not None:
            raise DetailInvalid("born_on: the identity number names it, and is to be stated with it")
    elif found.identity_number is not None and found.born_on is not None:
        fit["born_on"] = found.born_on
    return found, fit


def normalised_or_kept(details: Details, today: date) -> Details:
    """Details of master data: each field normalised, or unchanged and named in `invalid`."""
    number = _number(details)
    values = {
        "name": _or_none(name, details.name),
        "phone": _or_none(phone, details.phone),
        "email": _or_none(email, details.email),
        "address": _or_none(text, details.address),
        "born_on": _or_none(partial(born_on, today=today), details.born_on),
        "identity_number": None if number is None else number.number,
        "branch": _or_none(text, details.branch),
    }
    invalid = {field for field in DETAILS if values[field] is None and getattr(details, field) is not None}
    if number is not None and number.born_on is not None:
        if not BORN_FIRST.isoformat() <= number.born_on <= today.isoformat():
            invalid.add("identity_number")
        elif values["born_on"] is None and "born_on" not in invalid:
            values["born_on"] = number.born_on
        elif values["born_on"] != number.born_on:
            invalid.add("born_on")
        if None not in {number.gender, details.gender} and number.gender != details.gender:
            invalid.add("identity_number")
    kept = {field: getattr(details, field) if values[field] is None else values[field] for field in DETAILS}
    return msgspec.structs.replace(
        details,
        **kept,
        invalid=tuple(field for field in DETAILS if field in invalid),
        proven=number is not None and number.proven and "identity_number" not in invalid,
    )


_REASONS: Final = {
    "name": "empty, or with control or invisible characters",
    "phone": "not a phone number that can exist; outside mainland China it begins with + and the country",
    "email": "not an e-mail address",
    "address": "empty, or with control or invisible characters",
    "born_on": f"not between {BORN_FIRST} and today, or not the day of the identity number",
    "identity_number": "its check digit, its date or its length is wrong",
    "branch": "empty, or with control or invisible characters",
}


_SPELLED: Final[dict[str, list[Callable[[str], str]]]] = {
    "phone": [phone],
    "email": [email],
    "identity_number": [
        lambda value: identity_number(value).number,
        lambda value: identity_number(value, "company").number,
    ],
}
"""The fields of which the whole value can be searched for."""


def _or_none(rule: Callable[[str], str], value: str | None) -> str | None:
    """The normalised value; None where there is none."""
    if value is None:
        return None
    try:
        return rule(value)
    except Unfit:
        return None


def _number(details: Details) -> IdentityNumber | None:
    if details.identity_number is None:
        return None
    try:
        return identity_number(details.identity_number, details.kind)
    except Unfit:
        return None


def _other(compact: str) -> IdentityNumber:
    return IdentityNumber(compact, proven=False)


def _of_18_digits(old: str) -> str:
    """The older form has a year of two digits, of the twentieth century, and no check digit (GB 11643-1989)."""
    number = f"{old[:6]}19{old[6:]}"
    return number + ric.calc_check_digit(number + "0")
