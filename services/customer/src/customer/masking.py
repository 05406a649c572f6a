"""Masks of what only a bank has, beside those of the chassis: accounts, companies, addresses by district."""

import re
from typing import Final

from chassis.privacy.keys import ERASED
from chassis.privacy.masking import HIDDEN, NUMBER, masked_number

from customer.districts import district_of

_BETWEEN: Final = r"[ \u00a0\u3000./\-\u2010-\u2015\u2212\uff0d\uff0e]"
"""What stands between groups of digits, also as Chinese input methods write it."""
_LONG_NUMBER: Final = re.compile(rf"\d{{5,}}|\d(?:{_BETWEEN}?\d){{6,}}")
"""Five digits together, or seven in groups, as people write phone numbers."""
_EMAIL: Final = re.compile(r"[^\s@\uff20]+[@\uff20][^\s@\uff20]+")


def masked_company(name: str | None) -> str | None:
    """The name of a company is public. A number in it is masked, because it may be personal."""
    return name if not name or name == ERASED else _LONG_NUMBER.sub(HIDDEN, name)


def masked_note(text: str | None) -> str | None:
    """A text that staff wrote for staff who serve the customer. Numbers and e-mail addresses in it are masked."""
    return text if not text or text == ERASED else _EMAIL.sub(HIDDEN, _LONG_NUMBER.sub(HIDDEN, text))


def masked_account(number: str | None) -> str | None:
    """`622202******6789`: accounts and cards."""
    if number and number != ERASED and len(number) >= 16 and NUMBER.fullmatch(number):
        return f"{number[:6]}{'*' * (len(number) - 10)}{number[-4:]}"
    return masked_number(number, 0, 4)


def masked_address(address: str | None) -> str | None:
    """Down to the district: only the divisions with which the address begins, by their official names."""
    if not address or address == ERASED:
        return address
    return f"{district_of(address)}{HIDDEN}"
