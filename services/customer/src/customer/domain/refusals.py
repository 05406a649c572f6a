"""The refusals of a customer, and the limits that some of them state."""

from typing import ClassVar, Final

from chassis.write.deciding import Refusal

REFERENCES_MAX: Final = 50
LEGAL_HOLDS_MAX: Final = 20
NEEDS_OPEN_MAX: Final = 100
PROFILE_CHANGES_MAX: Final = 200
"""Instants from which on a field of a profile has a value of its own."""
TAGS_MAX: Final = 100
"""Tags that a customer may have."""


class CustomerNotRegistered(Refusal):
    """There is no such customer."""

    code: ClassVar[str] = "customer-not-registered"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such customer"
    title_zh: ClassVar[str] = "客户不存在"


class CustomerIsErased(Refusal):
    """The customer's personal values are no longer kept, and none are taken in again."""

    code: ClassVar[str] = "customer-erased"
    title: ClassVar[str] = "The customer is erased"
    title_zh: ClassVar[str] = "客户信息已销毁"


class CustomerAlreadyRegistered(Refusal):
    """The customer is registered and cannot be so again."""

    code: ClassVar[str] = "customer-already-registered"
    title: ClassVar[str] = "The customer is registered already"
    title_zh: ClassVar[str] = "客户已登记"


class TooManyReferences(Refusal):
    """A customer has a bounded number of external ids, because a read of the panorama joins over them."""

    code: ClassVar[str] = "too-many-references"
    title: ClassVar[str] = f"A customer has at most {REFERENCES_MAX} references"
    title_zh: ClassVar[str] = f"每位客户最多 {REFERENCES_MAX} 个外部编号"


class ReferenceNotLinked(Refusal):
    """The number is not this customer's."""

    code: ClassVar[str] = "reference-not-linked"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "The customer has no such reference"
    title_zh: ClassVar[str] = "该客户没有此外部编号"


class ReferenceSettled(Refusal):
    """The reference is confirmed or unlinked already, so the command no longer applies."""

    code: ClassVar[str] = "reference-settled"
    title: ClassVar[str] = "The reference is settled already"
    title_zh: ClassVar[str] = "该外部编号已处理"


class NotAKeyCustomer(Refusal):
    """Only key customers are reviewed."""

    code: ClassVar[str] = "not-a-key-customer"
    title: ClassVar[str] = "The customer is no key customer"
    title_zh: ClassVar[str] = "该客户不是重点客户"


class ErasurePreparationOver(Refusal):
    """The preparation of the erasure was ended, or another one has begun."""

    code: ClassVar[str] = "erasure-preparation-over"
    title: ClassVar[str] = "The preparation of the erasure is over"
    title_zh: ClassVar[str] = "该销毁准备已结束"


class LegalHoldStands(Refusal):
    """A legal hold forbids the erasure; the text says until when."""

    code: ClassVar[str] = "legal-hold-stands"
    title: ClassVar[str] = "A legal hold forbids the erasure of the customer"
    title_zh: ClassVar[str] = "客户资料处于法定冻结保全中"


class LegalHoldUnknown(Refusal):
    """The customer has no such legal hold, or it was lifted."""

    code: ClassVar[str] = "legal-hold-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such legal hold"
    title_zh: ClassVar[str] = "没有此法定冻结保全"


class LegalHoldEnded(Refusal):
    """A legal hold that would have ended already."""

    code: ClassVar[str] = "legal-hold-ended"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The legal hold would have ended already"
    title_zh: ClassVar[str] = "法定冻结保全的期限已过"


class TooManyLegalHolds(Refusal):
    """A customer has a bounded number of legal holds."""

    code: ClassVar[str] = "too-many-legal-holds"
    title: ClassVar[str] = f"A customer has at most {LEGAL_HOLDS_MAX} legal holds"
    title_zh: ClassVar[str] = f"每位客户最多 {LEGAL_HOLDS_MAX} 项法定冻结保全"


class TooManyTags(Refusal):
    """A customer has a bounded number of tags."""

    code: ClassVar[str] = "too-many-tags"
    title: ClassVar[str] = f"A customer has at most {TAGS_MAX} tags"
    title_zh: ClassVar[str] = f"每位客户最多 {TAGS_MAX} 个标签"


class TagOfAnother(Refusal):
    """A rule added the tag and a person would remove it, or the other way round. The text names the tags."""

    code: ClassVar[str] = "tag-of-another"
    title: ClassVar[str] = "Who added the tag did not remove it"
    title_zh: ClassVar[str] = "标签由他方添加，不能直接移除"


class TierOverrideTermInvalid(Refusal):
    """An override of a tier that would have ended already, or that would stand too long. The text names the days."""

    code: ClassVar[str] = "tier-override-term-invalid"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "An override of a tier ends after today, and within its longest term"
    title_zh: ClassVar[str] = "人工调整层级的有效期须晚于今日且不超过最长期限"


class TierOverrideNeedsApproval(Refusal):
    """The tier is a privileged one: one person proposes the override, and another one approves it."""

    code: ClassVar[str] = "tier-override-needs-approval"
    title: ClassVar[str] = "It takes two persons to put a customer into this tier"
    title_zh: ClassVar[str] = "人工调整至该层级须双人复核"


class TierOverrideChanged(Refusal):
    """Another override stands than the one that was to be replaced."""

    code: ClassVar[str] = "tier-override-changed"
    title: ClassVar[str] = "The override of the tier was changed since"
    title_zh: ClassVar[str] = "客户层级的人工调整此后已变更"


class ConsentTermInvalid(Refusal):
    """A consent that would have ended before it was given."""

    code: ClassVar[str] = "consent-term-invalid"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "A consent ends after the day on which it was given"
    title_zh: ClassVar[str] = "同意的有效期须晚于作出同意之日"


class ProfileOfCompany(Refusal):
    """Only persons have a profile."""

    code: ClassVar[str] = "profile-of-company"
    title: ClassVar[str] = "The customer is a company, which has no profile of a person"
    title_zh: ClassVar[str] = "企业客户没有个人扩展资料"


class ProfileValueUnknown(Refusal):
    """The dictionary of a field has no such code today. The text names the field."""

    code: ClassVar[str] = "profile-value-unknown"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The dictionary of the field has no such code"
    title_zh: ClassVar[str] = "字典中没有此代码"


class TooManyProfileChanges(Refusal):
    """A field of a profile changes a bounded number of times. The text names the field."""

    code: ClassVar[str] = "too-many-profile-changes"
    title: ClassVar[str] = f"A field of a profile changes at most {PROFILE_CHANGES_MAX} times"
    title_zh: ClassVar[str] = f"每项扩展资料最多变更 {PROFILE_CHANGES_MAX} 次"


class NeedKindUnknown(Refusal):
    """No kind of need has this code on that day."""

    code: ClassVar[str] = "need-kind-unknown"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "There is no such kind of need"
    title_zh: ClassVar[str] = "没有此需求类型"


class NeedTooOld(Refusal):
    """The need came up before the earliest time from which one is still recorded."""

    code: ClassVar[str] = "need-too-old"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "The need came up too long ago to be recorded"
    title_zh: ClassVar[str] = "需求发生时间过早，不能登记"


class NeedNotOpen(Refusal):
    """The customer has no open need of this id: it was closed, or there never was one."""

    code: ClassVar[str] = "need-not-open"
    title: ClassVar[str] = "The customer has no open need of this id"
    title_zh: ClassVar[str] = "该客户没有此未办结需求"


class NeedChanged(Refusal):
    """Somebody else has corrected the need since it was read."""

    code: ClassVar[str] = "need-changed"
    title: ClassVar[str] = "The need was corrected since"
    title_zh: ClassVar[str] = "该需求此后已更正"


class TooManyNeeds(Refusal):
    """A customer has a bounded number of open needs."""

    code: ClassVar[str] = "too-many-needs"
    title: ClassVar[str] = f"A customer has at most {NEEDS_OPEN_MAX} open needs"
    title_zh: ClassVar[str] = f"每位客户最多 {NEEDS_OPEN_MAX} 项未办结需求"


class ContradictionUnknown(Refusal):
    """This field has no open contradiction."""

    code: ClassVar[str] = "contradiction-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such contradiction"
    title_zh: ClassVar[str] = "没有此数据冲突"


class BranchUnknownBefore(Refusal):
    """The customer had no branch before, so there is none to go back to."""

    code: ClassVar[str] = "branch-unknown-before"
    title: ClassVar[str] = "The customer had no branch before"
    title_zh: ClassVar[str] = "客户此前没有所属网点"
