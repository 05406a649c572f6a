"""Notices: messages to persons by SMS, e-mail and push, and to staff in an inbox, from templates, each sent once."""

from chassis.notices.deciding import NOTICES, NoticeDiffers, NoticeUnknown
from chassis.notices.inbox import Inboxes, InboxTable
from chassis.notices.requesting import (
    Notices,
    RecipientUnfit,
    SubjectGone,
    Wanted,
    inboxes_of,
    of_person,
    of_role,
)
from chassis.notices.role import NoticesRole, Opened, receipt_secrets
from chassis.notices.settings import NoticeSettings
from chassis.notices.templates import Template, ValuesUnfit

__all__ = [
    "NOTICES",
    "InboxTable",
    "Inboxes",
    "NoticeDiffers",
    "NoticeSettings",
    "NoticeUnknown",
    "Notices",
    "NoticesRole",
    "Opened",
    "RecipientUnfit",
    "SubjectGone",
    "Template",
    "ValuesUnfit",
    "Wanted",
    "inboxes_of",
    "of_person",
    "of_role",
    "receipt_secrets",
]
