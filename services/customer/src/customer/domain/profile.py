"""The extended profile of a person (扩展资料): fields that are noted after the basic information, each with a history of its own (R016).

A field has codes of a dictionary. What is effective last stands, whenever it was recorded; of two at the same instant what was recorded
later.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec import structs

from customer.domain.commands import ExtendProfile
from customer.domain.dictionary import Entry, stands
from customer.domain.events import PROFILE_FIELDS, ProfileExtended, ProfileField
from customer.domain.refusals import (
    PROFILE_CHANGES_MAX,
    ProfileOfCompany,
    ProfileValueUnknown,
    TooManyProfileChanges,
)
from customer.domain.state import Customer, Stated

DICTIONARIES: Final[Mapping[ProfileField, tuple[Entry, ...]]] = MappingProxyType(
    {
        "occupation": (
            Entry("civil-servant", "公务员", "civil servant"),
            Entry("public-institution", "事业单位人员", "staff of a public institution"),
            Entry("executive", "企业负责人", "head of an enterprise"),
            Entry("business-owner", "私营企业主", "owner of a private business"),
            Entry("self-employed", "个体工商户", "self-employed"),
            Entry("teacher", "教师", "teacher"),
            Entry("medical", "医护人员", "medical staff"),
            Entry("engineer", "工程技术人员", "engineer"),
            Entry("information-technology", "信息技术人员", "information technology"),
            Entry("finance", "金融从业人员", "finance"),
            Entry("legal", "法律专业人员", "legal profession"),
            Entry("arts", "文体传媒人员", "arts, sports and media"),
            Entry("clerk", "办事人员", "clerk"),
            Entry("services", "商业服务人员", "commerce and services"),
            Entry("production", "生产制造人员", "production and manufacturing"),
            Entry("agriculture", "农林牧渔人员", "agriculture, forestry and fishing"),
            Entry("military", "军人", "military"),
            Entry("freelance", "自由职业者", "freelance"),
            Entry("student", "学生", "student"),
            Entry("homemaker", "家务劳动者", "homemaker"),
            Entry("retired", "离退休人员", "retired"),
            Entry("unemployed", "待业人员", "unemployed"),
            Entry("other", "其他职业", "other occupation"),
        ),
        "marital_status": (
            Entry("unmarried", "未婚", "unmarried"),
            Entry("married", "已婚", "married"),
            Entry("widowed", "丧偶", "widowed"),
            Entry("divorced", "离婚", "divorced"),
        ),
        "family_structure": (
            Entry("alone", "独居", "lives alone"),
            Entry("couple", "夫妻家庭", "couple"),
            Entry("nuclear", "核心家庭", "couple with children"),
            Entry("single-parent", "单亲家庭", "single parent"),
            Entry("three-generations", "三代同堂", "three generations"),
            Entry("other", "其他家庭", "other family"),
        ),
        "children": (
            Entry("none", "无子女", "no children"),
            Entry("one", "一个子女", "one child"),
            Entry("two", "两个子女", "two children"),
            Entry("three-or-more", "三个及以上子女", "three or more children"),
        ),
        "education": (
            Entry("doctorate", "博士研究生", "doctorate"),
            Entry("master", "硕士研究生", "master"),
            Entry("bachelor", "大学本科", "bachelor"),
            Entry("college", "大学专科", "college"),
            Entry("vocational", "中等职业教育", "secondary vocational school"),
            Entry("high-school", "普通高中", "senior high school"),
            Entry("middle-school", "初中", "junior high school"),
            Entry("primary", "小学及以下", "primary school or less"),
        ),
    }
)
"""The dictionary of each field."""


class ProfileChange(NamedTuple):
    """That a field has a value from `at` on, which was recorded at `recorded_at` as the event `sequence`; None: it is not known.

    `erased`: it is an erasure, which ends what is known whatever the clocks say.
    """

    field: ProfileField
    value: str | None
    at: datetime
    recorded_at: datetime
    sequence: int
    erased: bool = False

    @property
    def order(self) -> tuple[bool, datetime, int]:
        """Of the changes of one field the last in this order stands."""
        return (self.erased, self.at, self.sequence)


def decide_profile(command: ExtendProfile, customer: Customer) -> Sequence[ProfileExtended]:
    """The event of the fields that change; none where there are none.

    What stands is no change. Where the caller states from when on it is so, it is one all the same, unless that was stated before: a later
    statement about an earlier time must not reach beyond it.

    Raises ProfileOfCompany, ProfileValueUnknown, TooManyProfileChanges.
    """
    if customer.kind == "company":
        raise ProfileOfCompany
    since = command.since
    if not command.stated:
        since = max(
            [since, *(one.since for field in command.changes for one in customer.profile.get(field, ()))]
        )
    changes = dict[ProfileField, str | None]()
    for field in PROFILE_FIELDS:
        if field not in command.changes:
            continue
        value, had = command.changes[field], customer.profile.get(field, ())
        at_once = [one for one in had if one.since == since]
        if Stated(since, value) in at_once or (not command.stated and stated_at(had, since) == value):
            continue
        if value is not None and not stands(value, command.on, DICTIONARIES[field]):
            raise ProfileValueUnknown(field)
        if len(had) >= PROFILE_CHANGES_MAX and not at_once:
            raise TooManyProfileChanges(field)
        changes[field] = value
    return [ProfileExtended(since, command.channel, tuple(changes), **changes)] if changes else []


def evolve_profile(customer: Customer, event: ProfileExtended) -> Customer:
    """The customer after an event."""
    profile = dict(customer.profile)
    for field in event.changed:
        others = [one for one in profile.get(field, ()) if one.since != event.since]
        new = Stated(event.since, getattr(event, field))
        profile[field] = tuple(sorted([*others, new], key=lambda one: one.since))
    return structs.replace(customer, profile=profile)


def stated_at(stated: Sequence[Stated], at: datetime) -> str | None:
    """The value of a field at an instant; None where it is not known."""
    return next((one.value for one in reversed(stated) if one.since <= at), None)


def profile_at(customer: Customer, at: datetime | None) -> dict[str, str | None]:
    """The value of each field at an instant; the one that is effective last where none is named."""
    return {
        field: stated_at(stated, stated[-1].since if at is None else at)
        for field, stated in customer.profile.items()
    }


def standing(
    changes: Iterable[ProfileChange], at: datetime, known_at: datetime
) -> dict[ProfileField, ProfileChange]:
    """By field the change that stood at `at`, of what was recorded up to `known_at`."""
    found = dict[ProfileField, ProfileChange]()
    for one in changes:
        if one.at <= at and one.recorded_at <= known_at:
            found[one.field] = max(found.get(one.field, one), one, key=lambda each: each.order)
    return found
