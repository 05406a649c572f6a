"""The facts of a customer that a condition can ask for, and who may ask."""

from collections.abc import Mapping
from typing import Final

from chassis.conditions import DataClass, Field, Fields, Label, Type
from chassis.lists.declaring import BLIND
from contracts.roles import ADMINISTRATOR, ANALYST, COMPLIANCE, MARKETER, RELATIONSHIP_MANAGER, TELLER

from customer.domain.events import ProfileField
from customer.domain.profile import DICTIONARIES

AMOUNTS: Final = "amounts"
"""To ask for money."""
QUALITY: Final = "quality"
"""To ask for open data-quality questions."""
PROFILE: Final = "profile"
"""To see the extended profile of a person, and to ask for it."""

PERMISSIONS: Final[Mapping[str, frozenset[str]]] = {
    RELATIONSHIP_MANAGER: frozenset({AMOUNTS, QUALITY, PROFILE}),
    ADMINISTRATOR: frozenset({AMOUNTS, QUALITY, PROFILE}),
    COMPLIANCE: frozenset({AMOUNTS, QUALITY, PROFILE}),
    ANALYST: frozenset({AMOUNTS, PROFILE}),
    MARKETER: frozenset(),
    TELLER: frozenset({QUALITY}),
}
"""What each role may ask for beyond the fields that everybody may ask for who may list customers."""

_PRODUCTS: Final = {
    "deposit": Label("存款", "deposit"),
    "wealth": Label("理财", "wealth"),
    "loan": Label("贷款", "loan"),
    "card": Label("信用卡", "card"),
}


def _amount(name: str, zh: str, en: str) -> Field:
    return Field(name, Type.AMOUNT, Label(zh, en), name, DataClass.CONFIDENTIAL, permission=AMOUNTS)


def _monthly(name: str, zh: str, en: str) -> Field:
    return Field(name, Type.MONTHLY, Label(zh, en), name, DataClass.CONFIDENTIAL, permission=AMOUNTS)


def _number(name: str, zh: str, en: str) -> Field:
    return Field(name, Type.NUMBER, Label(zh, en), name, DataClass.INTERNAL)


def _day(name: str, zh: str, en: str) -> Field:
    return Field(name, Type.DAY, Label(zh, en), name, DataClass.INTERNAL)


def _of_profile(name: ProfileField, zh: str, en: str) -> Field:
    """A field of the extended profile. The facts hold the digest of its code."""
    values = {one.code: Label(one.zh, one.en) for one in DICTIONARIES[name]}
    label = Label(zh, en)
    return Field(name, Type.CHOICE, label, f"{BLIND}.{name}", DataClass.PERSONAL, values, PROFILE)


CONSENTS: Final = "consents"
"""The field of the consents that are valid: channel and purpose."""
_CHANNELS: Final = {
    "sms": Label("短信", "SMS"),
    "phone": Label("电话", "phone"),
    "email": Label("电子邮件", "e-mail"),
    "push": Label("推送", "push"),
}
_PURPOSES: Final = {
    "marketing": Label("营销", "marketing"),
    "profiling": Label("画像", "profiling"),
    "sharing": Label("共享", "sharing"),
}
TAGS: Final = "tags"
"""The field of a customer's tags: codes of tags that are not merged."""

FIELDS: Final = Fields(
    [
        Field(
            "kind",
            Type.CHOICE,
            Label("客户类型", "kind of customer"),
            "kind",
            DataClass.INTERNAL,
            {"person": Label("个人", "person"), "company": Label("企业", "company")},
        ),
        Field(
            "origin",
            Type.CHOICE,
            Label("来源", "origin of the customer"),
            "origin",
            DataClass.INTERNAL,
            {"staff": Label("员工登记", "staff"), "master-data": Label("主数据", "master data")},
        ),
        Field(
            "branch", Type.CHOICE, Label("所属支行", "branch of the customer"), "branch", DataClass.INTERNAL
        ),
        Field(TAGS, Type.SET, Label("标签", "tags"), "tags", DataClass.INTERNAL),
        Field(
            CONSENTS,
            Type.SET,
            Label("有效同意", "valid consents"),
            CONSENTS,
            DataClass.INTERNAL,
            {
                f"{channel}-{purpose}": Label(f"{over.zh}{why.zh}", f"{over.en} for {why.en}")
                for channel, over in _CHANNELS.items()
                for purpose, why in _PURPOSES.items()
            },
        ),
        Field(
            "tier",
            Type.CHOICE,
            Label("客户层级", "tier"),
            "tier",
            DataClass.INTERNAL,
            {
                "mass": Label("大众", "mass"),
                "potential": Label("财富潜力", "wealth potential"),
                "wealth": Label("财富", "wealth"),
                "private": Label("私行", "private banking"),
            },
        ),
        _of_profile("occupation", "职业", "occupation"),
        _of_profile("marital_status", "婚姻状况", "marital status"),
        _of_profile("family_structure", "家庭结构", "family structure"),
        _of_profile("children", "子女", "children"),
        _of_profile("education", "学历", "education"),
        _amount("aum", "管理资产", "assets under management"),
        _monthly("aum_month_end", "月末AUM", "month-end AUM"),
        _monthly("aum_month_average", "月日均AUM", "average daily AUM"),
        Field(
            "aum_months_falling",
            Type.NUMBER,
            Label("月日均AUM连续下降月数", "months in a row that average daily AUM fell"),
            "aum_months_falling",
            DataClass.CONFIDENTIAL,
            permission=AMOUNTS,
        ),
        _amount("liabilities", "负债", "sum of liabilities"),
        _amount("net_worth", "净资产", "net worth"),
        _amount("deposits", "存款余额", "deposit balance"),
        _amount("wealth", "理财余额", "wealth balance"),
        _amount("loans", "贷款余额", "loan balance"),
        Field(
            "products",
            Type.SET,
            Label("持有产品", "products held"),
            "products",
            DataClass.INTERNAL,
            _PRODUCTS,
        ),
        Field("currencies", Type.SET, Label("持有币种", "currencies held"), "currencies", DataClass.INTERNAL),
        _number("accounts", "账户数", "number of accounts"),
        _number("cards", "卡数", "number of cards"),
        _number("standing_orders", "自动转账数", "number of standing orders"),
        _day("first_opened_on", "首次开户日期", "day of the first account"),
        _day("last_movement_on", "最近交易日期", "day of the last movement"),
        Field(
            "relations",
            Type.TRAIL,
            Label("业务往来", "business relations"),
            "relations",
            DataClass.INTERNAL,
            {
                "opened": Label("开立", "opened"),
                "closed": Label("关闭", "closed"),
                "issued": Label("发卡", "issued"),
                "granted": Label("放款", "granted"),
            },
        ),
        Field(
            "questions",
            Type.SET,
            Label("数据质量问题", "open data-quality questions"),
            "questions",
            DataClass.INTERNAL,
            {
                "contradiction": Label("数据矛盾", "contradiction"),
                "invalid": Label("数据无效", "invalid"),
                "reference": Label("编号待确认", "reference to confirm"),
                "identity-number": Label("证件号重复", "shared identity number"),
            },
            permission=QUALITY,
        ),
    ]
)
"""The fields of a customer's facts."""


def allowed(roles: frozenset[str]) -> frozenset[str]:
    """What a caller with these roles may ask for beyond what everybody may."""
    return frozenset[str]().union(*(PERMISSIONS.get(role, frozenset()) for role in roles))
