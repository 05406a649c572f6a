"""How personal values are shown: enough to recognise what one knows already, never enough to learn it."""

import re
from typing import Final

from chassis.privacy import ERASED

_COMPOUND_SURNAMES: Final = frozenset(
    [
        "欧阳",
        "司马",
        "上官",
        "诸葛",
        "夏侯",
        "慕容",
        "司徒",
        "东方",
        "皇甫",
        "尉迟",
        "公孙",
        "令狐",
        "宇文",
        "长孙",
    ]
)
_DISTRICT: Final = re.compile(r".*?[省市](?:.*?市)?(?:.{1,8}?[区县旗])?")
_ADDRESS_KEPT_MAX: Final = 6


def masked_name(name: str | None, kind: str = "person") -> str | None:
    """`张*`, `欧阳*`, `G*** Bennett`: the surname stays. The name of a company is public and stays as it is."""
    if not name or name == ERASED or kind == "company":
        return name
    if name[0].isascii():
        first, _, last = name.rpartition(" ")
        return f"{first[0]}*** {last}" if first else f"{last[0]}***"
    return f"{name[:2] if name[:2] in _COMPOUND_SURNAMES else name[0]}*"


def masked_company(name: str | None) -> str | None:
    """The name of a company, as `masked_name` shows it."""
    return masked_name(name, "company")


def masked_number(number: str | None, first: int, last: int) -> str | None:
    """The first and last characters of a number; of a short one less, and never more than half of it."""
    if not number or number == ERASED:
        return number
    if len(number) < 2 * (first + last):
        first, last = 0, min(last, len(number) // 2)
    return f"{number[:first]}{'*' * (len(number) - first - last)}{number[len(number) - last :]}"


def masked_phone(phone: str | None) -> str | None:
    """`138****1234` of eleven digits, the last four of others."""
    if phone and len(phone) == 11 and phone.isdigit():
        return f"{phone[:3]}****{phone[-4:]}"
    return masked_number(phone, 0, 4)


def masked_identity_number(number: str | None) -> str | None:
    """`110***********1234`: six leading digits would name the county."""
    return masked_number(number, 3, 4)


def masked_account(number: str | None) -> str | None:
    """`622202******6789`: accounts and cards."""
    if number and len(number) >= 16 and number != ERASED:
        return f"{number[:6]}{'*' * (len(number) - 10)}{number[-4:]}"
    return masked_number(number, 0, 4)


def masked_email(email: str | None) -> str | None:
    """`z***@qq.com`."""
    if not email or email == ERASED:
        return email
    local, at, domain = email.rpartition("@")
    return f"{local[0]}***@{domain}" if at and local else "***"


def masked_address(address: str | None) -> str | None:
    """Down to the district, or a few characters where none can be told."""
    if not address or address == ERASED:
        return address
    found = _DISTRICT.match(address)
    kept = found.group() if found else address[: min(_ADDRESS_KEPT_MAX, len(address) // 3)]
    return f"{kept}***"


def masked_birthday(born_on: str | None) -> str | None:
    """The year."""
    return born_on if not born_on or born_on == ERASED else f"{born_on[:4]}-**-**"


def masked_text(text: str | None) -> str | None:
    """Free text of a posting may hold anything; it is told that there is one."""
    return text if not text or text == ERASED else "***"
