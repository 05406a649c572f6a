"""The stream of a notice: requested, handed over or refused, delivered or bounced, given up, read. Pure; no I/O.

Its events are not published: the stream is the record of what was sent to whom, and of what the provider said.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Final, Literal, assert_never
from uuid import UUID

import msgspec
from msgspec import structs

from chassis.write.deciding import Decider, Refusal
from chassis.write.events import Event

Channel = Literal["sms", "email", "push", "inbox"]
INBOX: Final = "inbox"
SENT: Final[tuple[Channel, ...]] = ("sms", "email", "push")
"""The channels that have a provider."""
Status = Literal["none", "requested", "handed-over", "refused", "given-up", "delivered", "bounced"]
ReceiptOutcome = Literal["delivered", "bounced"]
GivenUpBecause = Literal["expired", "tries", "erased"]

RECEIPTS_MAX: Final = 20
"""Receipts of one notice that are kept; what comes after them says nothing new."""
READERS_MAX: Final = 5_000
"""Persons who have marked one notice as read."""


class NoticeRequested(Event, frozen=True):
    """A notice is to be sent, with exactly this content.

    `to` and `content` are sealed under the key of `subject`, and so is what the provider answers: no key, no notice.
    `content` is JSON of title and text. `digest` is keyed too, and names recipient and content. `inbox` says in whose
    inbox it is, `person:` or `role:` and a name; such a notice has no recipient and no provider.
    `segments` are those of an SMS.
    """

    sealed_under: ClassVar[str] = "subject"

    subject: UUID
    channel: Channel
    template: str
    template_version: int
    to: str
    content: str
    digest: str
    requested_at: datetime
    expires_at: datetime
    inbox: str | None = None
    segments: int = 0


class NoticeHandedOver(Event, frozen=True):
    """The provider has accepted it, under its own id where it gives one. `answer` is sealed under the key of `subject`."""

    sealed_under: ClassVar[str] = "subject"

    provider: str
    provider_id: str | None
    answer: str
    subject: UUID | None = None


class NoticeRefused(Event, frozen=True):
    """The provider refused it for good. `answer` is sealed under the key of `subject`."""

    sealed_under: ClassVar[str] = "subject"

    provider: str
    code: str
    answer: str
    subject: UUID | None = None


class NoticeGivenUp(Event, frozen=True):
    """It is not tried any more; whether the provider has it is not known where it was tried."""

    because: GivenUpBecause
    tries: int


class NoticeDelivered(Event, frozen=True):
    """The provider says that it has arrived."""

    receipt: str
    occurred_at: datetime


class NoticeBounced(Event, frozen=True):
    """The provider says that it cannot arrive, or came back."""

    receipt: str
    code: str
    occurred_at: datetime


class NoticeRead(Event, frozen=True):
    """A member of staff has read it in the inbox."""

    by: str


NoticeEvent = (
    NoticeRequested
    | NoticeHandedOver
    | NoticeRefused
    | NoticeGivenUp
    | NoticeDelivered
    | NoticeBounced
    | NoticeRead
)

REQUESTED: Final = "notice-requested"
READ: Final = "notice-read"
NOTICES: Final[dict[str, type[Event]]] = {
    REQUESTED: NoticeRequested,
    "notice-handed-over": NoticeHandedOver,
    "notice-refused": NoticeRefused,
    "notice-given-up": NoticeGivenUp,
    "notice-delivered": NoticeDelivered,
    "notice-bounced": NoticeBounced,
    READ: NoticeRead,
}
"""Their stored names, for the catalogue of a context."""
SETTLING: Final = frozenset(NOTICES) - {REQUESTED, READ}
"""After any of these nothing is left to send."""


class Request(msgspec.Struct, frozen=True):
    """Requests a notice; nothing where the same one was requested."""

    requested: NoticeRequested


class HandOver(msgspec.Struct, frozen=True):
    """The provider accepted it; nothing where that is known."""

    provider: str
    provider_id: str | None
    answer: str


class Refuse(msgspec.Struct, frozen=True):
    """The provider refused it; nothing where it is settled."""

    provider: str
    code: str
    answer: str


class GiveUp(msgspec.Struct, frozen=True):
    """It is not tried any more; nothing where it is settled."""

    because: GivenUpBecause
    tries: int


class Receive(msgspec.Struct, frozen=True):
    """A receipt came for a notice of `channel`; nothing where it came before."""

    receipt: str
    channel: Channel
    outcome: ReceiptOutcome
    code: str
    occurred_at: datetime


class MarkRead(msgspec.Struct, frozen=True):
    """A member of staff has read it; nothing where that is known."""

    by: str


NoticeCommand = Request | HandOver | Refuse | GiveUp | Receive | MarkRead


class Notice(msgspec.Struct, frozen=True):
    """A notice as it stands. Of several receipts the one that occurred last counts."""

    status: Status = "none"
    requested: NoticeRequested | None = None
    handed_over: bool = False
    provider_id: str | None = None
    code: str | None = None
    because: str | None = None
    receipts: frozenset[str] = frozenset()
    received_at: datetime | None = None
    readers: frozenset[str] = frozenset()


class NoticeUnknown(Refusal):
    """There is no notice of that id on that channel."""

    code: ClassVar[str] = "notice-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such notice"
    title_zh: ClassVar[str] = "没有该通知"


class NoticeDiffers(Refusal):
    """A notice of that id was requested with another recipient or content."""

    code: ClassVar[str] = "notice-differs"
    title: ClassVar[str] = "The id was used for another notice"
    title_zh: ClassVar[str] = "该编号已用于另一条通知"


class NoticeReadByMany(Refusal):
    """More persons have read the notice than are counted."""

    code: ClassVar[str] = "notice-read-by-many"
    title: ClassVar[str] = "Too many persons have marked the notice as read"
    title_zh: ClassVar[str] = "已阅人数超出上限"


def decide(  # noqa: PLR0911 (one arm per command)
    command: NoticeCommand, notice: Notice
) -> Sequence[NoticeEvent]:
    """The events of a command; raises NoticeUnknown, NoticeDiffers, NoticeReadByMany."""
    if isinstance(command, Request):
        return _requested(command.requested, notice.requested)
    if notice.requested is None:
        raise NoticeUnknown
    subject = notice.requested.subject
    match command:
        case HandOver(provider, provider_id, answer):
            return [] if notice.handed_over else [NoticeHandedOver(provider, provider_id, answer, subject)]
        case Refuse(provider, code, answer):
            return [NoticeRefused(provider, code, answer, subject)] if notice.status == "requested" else []
        case GiveUp(because, tries):
            return [NoticeGivenUp(because, tries)] if notice.status == "requested" else []
        case Receive():
            return _received(command, notice, notice.requested.channel)
        case MarkRead(by):
            if notice.requested.inbox is None:
                raise NoticeUnknown
            if by in notice.readers:
                return []
            if len(notice.readers) >= READERS_MAX:
                raise NoticeReadByMany
            return [NoticeRead(by)]
        case _:
            assert_never(command)


def _requested(wanted: NoticeRequested, before: NoticeRequested | None) -> Sequence[NoticeEvent]:
    """A template that has a newer version meanwhile makes another content: the first one stands."""
    if before is None:
        return [wanted]
    same = (before.subject, before.channel, before.template, before.inbox) == (
        wanted.subject,
        wanted.channel,
        wanted.template,
        wanted.inbox,
    )
    versions_differ = before.template_version != wanted.template_version
    if same and (versions_differ or before.digest == wanted.digest):
        return []
    raise NoticeDiffers


def _received(command: Receive, notice: Notice, channel: Channel) -> Sequence[NoticeEvent]:
    if command.channel != channel or channel == INBOX:
        raise NoticeUnknown
    if command.receipt in notice.receipts or len(notice.receipts) >= RECEIPTS_MAX:
        return []
    if command.outcome == "delivered":
        return [NoticeDelivered(command.receipt, command.occurred_at)]
    return [NoticeBounced(command.receipt, command.code, command.occurred_at)]


def evolve(notice: Notice, event: NoticeEvent) -> Notice:  # noqa: PLR0911 (one arm per event)
    """The notice after an event."""
    replaced = structs.replace
    match event:
        case NoticeRequested(inbox=inbox):
            return replaced(notice, status="requested" if inbox is None else "delivered", requested=event)
        case NoticeHandedOver(provider_id=provider_id):
            status: Status = "handed-over" if notice.received_at is None else notice.status
            return replaced(notice, status=status, handed_over=True, provider_id=provider_id)
        case NoticeRefused(code=code):
            return replaced(notice, status="refused", code=code)
        case NoticeGivenUp(because=because):
            return replaced(notice, status="given-up", because=because)
        case NoticeDelivered(receipt, occurred_at):
            return _with_receipt(notice, receipt, "delivered", None, occurred_at)
        case NoticeBounced(receipt, code, occurred_at):
            return _with_receipt(notice, receipt, "bounced", code, occurred_at)
        case NoticeRead(by):
            return replaced(notice, readers=notice.readers | {by})
        case _:
            assert_never(event)


def _with_receipt(
    notice: Notice, receipt: str, status: ReceiptOutcome, code: str | None, occurred_at: datetime
) -> Notice:
    known = structs.replace(notice, receipts=notice.receipts | {receipt})
    last = notice.received_at
    if last is not None and (last > occurred_at or (last == occurred_at and status == "delivered")):
        return known
    return structs.replace(known, status=status, code=code, received_at=occurred_at)


NOTICE: Final = Decider[NoticeCommand, Notice, NoticeEvent](Notice(), decide, evolve, NoticeEvent)
