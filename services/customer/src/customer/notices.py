"""The texts that customers and staff are told. Raise the version of a template with every change of its text."""

from datetime import timedelta
from typing import Final

from chassis.notices import Template

_WHAT_CHARACTERS_MAX: Final = 20

CONTACT_CHANGED_SMS: Final = Template(
    "contact-changed-sms",
    1,
    "sms",
    "您在我行登记的${what}已变更。如非本人申请，请尽快联系开户网点。",
    {"what": _WHAT_CHARACTERS_MAX},
    lives=timedelta(days=3),
)
CONTACT_CHANGED_EMAIL: Final = Template(
    "contact-changed-email",
    1,
    "email",
    "尊敬的客户：\n\n您在我行登记的${what}已变更。如非本人申请，请尽快联系开户网点。\n\n本邮件由系统自动发送，请勿回复。\n",
    {"what": _WHAT_CHARACTERS_MAX},
    title="联系方式变更提醒",
    lives=timedelta(days=3),
)
CONTACT_CHANGED_PUSH: Final = Template(
    "contact-changed-push",
    1,
    "push",
    "您在我行登记的${what}已变更。如非本人申请，请尽快联系开户网点。",
    {"what": _WHAT_CHARACTERS_MAX},
    title="联系方式变更提醒",
    lives=timedelta(days=3),
)
PROPOSAL_WAITS: Final = Template(
    "proposal-waits",
    1,
    "inbox",
    "有一项提议等待复核：${what}。提议编号：${proposal}。",
    {"what": _WHAT_CHARACTERS_MAX, "proposal": 36},
    title="待复核的提议",
)
CLAIM_WAITS: Final = Template(
    "claim-waits",
    1,
    "inbox",
    "客户 ${customer} 有一个待确认编号已等待四个工作小时，请核实。",
    {"customer": 36},
    title="待确认的客户编号",
)
TEMPLATES: Final = (
    CONTACT_CHANGED_SMS,
    CONTACT_CHANGED_EMAIL,
    CONTACT_CHANGED_PUSH,
    PROPOSAL_WAITS,
    CLAIM_WAITS,
)
