"""Masks of personal values.

A reader who knows a value can recognise it; a reader who does not cannot learn it.

Each mask lists the parts that may be shown and hides the rest. A value that does not have the format of
its field is hidden whole, because it may hold any personal data.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from chassis.privacy.keys import ERASED

Mask = Callable[[str | None], str | None]
"""From a value to what is shown of it; None and ERASED stay as they are."""
HIDDEN: Final = ERASED
MAIL_DOMAINS_SHOWN: Final = frozenset(
    [
        "126.com",
        "139.com",
        "163.com",
        "189.cn",
        "21cn.com",
        "aliyun.com",
        "foxmail.com",
        "gmail.com",
        "hotmail.com",
        "icloud.com",
        "live.com",
        "outlook.com",
        "qq.com",
        "sina.cn",
        "sina.com",
        "sohu.com",
        "tom.com",
        "vip.163.com",
        "vip.qq.com",
        "vip.sina.com",
        "wo.cn",
        "yahoo.com",
        "yeah.net",
    ]
)
"""Providers whose domain does not identify their user. The domain of a firm or a family does."""
_COMPOUND_SURNAMES: Final = frozenset(
    [
        "欧阳",
        "太史",
        "端木",
        "上官",
        "司马",
        "东方",
        "独孤",
        "南宫",
        "万俟",
        "闻人",
        "夏侯",
        "诸葛",
        "尉迟",
        "公羊",
        "赫连",
        "澹台",
        "皇甫",
        "宗政",
        "濮阳",
        "公冶",
        "太叔",
        "申屠",
        "公孙",
        "慕容",
        "仲孙",
        "钟离",
        "长孙",
        "宇文",
        "司徒",
        "鲜于",
        "司空",
        "闾丘",
        "子车",
        "亓官",
        "司寇",
        "巫马",
        "公西",
        "颛孙",
        "壤驷",
        "公良",
        "漆雕",
        "乐正",
        "宰父",
        "谷梁",
        "拓跋",
        "夹谷",
        "轩辕",
        "令狐",
        "段干",
        "百里",
        "呼延",
        "东郭",
        "南门",
        "羊舌",
        "微生",
        "梁丘",
        "左丘",
        "东门",
        "西门",
        "第五",
    ]
)
_MAINLAND_MOBILE: Final = re.compile(r"(?:\+86)?(1[0-9]{10})", re.ASCII)
_PHONE: Final = re.compile(r"[0-9+() ./-]{1,40}", re.ASCII)
NUMBER: Final = re.compile(r"[0-9A-Za-z -]{1,128}", re.ASCII)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def masked_name(name: str | None) -> str | None:
    """`张*`, `欧阳*`: the surname of a Chinese name.

    `G***`: one letter of other names, whose surname cannot be recognised.
    """
    if not name or name == ERASED:
        return name
    if len(name) > 2 and name[:2] in _COMPOUND_SURNAMES:
        return f"{name[:2]}*"
    if unicodedata.name(name[0], "").startswith("CJK UNIFIED IDEOGRAPH"):
        return f"{name[0]}*"
    return f"{name[0]}{HIDDEN}" if name[0].isalpha() else HIDDEN


def masked_number(number: str | None, first: int, last: int) -> str | None:
    """The first and last characters of a number; of a short one less, and never more than half of it."""
    if not number or number == ERASED:
        return number
    if not NUMBER.fullmatch(number):
        return HIDDEN
    if len(number) < 2 * (first + last):
        first, last = 0, min(last, len(number) // 2)
    return f"{number[:first]}{'*' * (len(number) - first - last)}{number[len(number) - last :]}"


def masked_phone(phone: str | None) -> str | None:
    """`138****1234` of a mobile number of the mainland, with or without +86; the last four digits of others."""
    if not phone or phone == ERASED:
        return phone
    if mobile := _MAINLAND_MOBILE.fullmatch(phone):
        return f"{mobile[1][:3]}****{mobile[1][-4:]}"
    if not _PHONE.fullmatch(phone):
        return HIDDEN
    return masked_number("".join(each for each in phone if each.isdigit()), 0, 4) or HIDDEN


def masked_identity_number(number: str | None) -> str | None:
    """`110***********1234`: six leading digits would name the county."""
    return masked_number(number, 3, 4)


def masked_email(email: str | None) -> str | None:
    """`z***@qq.com`; `z***@***` where the domain may identify a person."""
    if not email or email == ERASED:
        return email
    local, _, domain = email.rpartition("@")
    if not local or not local[0].isalnum():
        return HIDDEN
    shown = domain.lower() if domain.lower() in MAIL_DOMAINS_SHOWN else HIDDEN
    return f"{local[0]}{HIDDEN}@{shown}"


def masked_birthday(born_on: str | None) -> str | None:
    """The year of birth."""
    if not born_on or born_on == ERASED:
        return born_on
    return f"{born_on[:4]}-**-**" if _DAY.fullmatch(born_on) else HIDDEN


def masked_text(text: str | None) -> str | None:
    """Free text of a posting may hold any personal data. Only its presence is shown."""
    return text if not text else HIDDEN
