"""The routes of a context's notices: the inbox of the caller, and the receipts of providers."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from chassis.notices.deciding import NoticeEvent, NoticeReadByMany, NoticeUnknown
from chassis.notices.inbox import UNREAD_COUNTED_MAX, Inboxes, InboxItem
from chassis.notices.providers import CODE_CHARACTERS_MAX
from chassis.notices.requesting import inboxes_of
from chassis.notices.signing import ID, SIGNATURE, TIMESTAMP, SignatureInvalid
from chassis.privacy.tokens import Caller
from chassis.web import (
    CommandBody,
    CursorInvalid,
    Dependencies,
    Page,
    Paging,
    consistency_token,
    cursor,
    cursor_values,
    paging,
    refusals,
)
from chassis.web.formats import Instant, StatedInstant
from chassis.write.deciding import CommandContext, CommandKeyReused, Outcome, TooManyConflicts

NEWEST: Final = 2**63 - 1
EXAMPLES: Final[Mapping[str, Any]] = {
    "template": "proposal-waits",
    "title": "待复核的提议",
    "inbox": "role:compliance",
    "outcome": "delivered",
    ID: "r-1",
    TIMESTAMP: "1767600000",
    SIGNATURE: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
"""Examples of the names of fields here, for the `EXAMPLES` of a service."""

Paged = Annotated[Paging, Depends(paging)]
NoticePath = Annotated[UUID, Path(description="the notice")]
Sent = Literal["sms", "email", "push"]
_READ: Final = refusals(NoticeUnknown, NoticeReadByMany, TooManyConflicts)
_RECEIVED: Final[dict[int | str, dict[str, Any]]] = {
    204: {
        "description": "The receipt is kept",
        "headers": {"Consistency-Token": {"schema": {"type": "string"}}},
    },
    **refusals(NoticeUnknown),
    **refusals(SignatureInvalid),
    **refusals(CommandKeyReused),
    **refusals(TooManyConflicts),
}


class InboxNotice(BaseModel):
    """A notice in the caller's inbox or in that of one of its roles; title and text are null once its subject was erased."""

    notice_id: UUID
    subject_id: UUID
    template: str
    inbox: str
    requested_at: Instant
    title: str | None
    text: str | None
    read: bool = Field(description="the caller has marked it as read")


class Unread(BaseModel):
    """How many notices the caller has not read; `more`: there are more than were counted."""

    unread: int
    more: bool


class ReceiptBody(BaseModel):
    """What a provider says became of a notice; `code` says why it did not arrive."""

    model_config = ConfigDict(extra="forbid")

    notice_id: UUID
    outcome: Literal["delivered", "bounced"]
    code: Annotated[
        str, StringConstraints(pattern=rf"^[a-z0-9][a-z0-9._-]{{0,{CODE_CHARACTERS_MAX - 1}}}$")
    ] = "unknown"
    occurred_at: StatedInstant


def add_notices(
    router: APIRouter,
    inboxes: Callable[[], Inboxes],
    dependencies: Dependencies,
    context: str,
    unit: Callable[[Caller], str | None] = lambda _: None,
) -> None:
    """Adds the routes of the notices of `context`; `permissions.py` names them. `unit`: that of the organisation in which a
    caller works, whose inboxes it reads too.

    They are `list_<context>_inbox`, `count_<context>_inbox`, `read_<context>_notice` and `receive_<context>_receipt`.
    """
    Commanding = Annotated[CommandContext, Depends(dependencies.commanding)]
    Asking = Annotated[Caller, Depends(dependencies.caller)]

    def read_by(caller: Caller) -> frozenset[str]:
        return inboxes_of(caller.subject, caller.roles, unit(caller))

    @router.get(f"/inbox/{context}", name=f"list_{context}_inbox", responses=refusals(CursorInvalid))
    async def list_inbox(
        asking: Asking,
        page: Paged,
        unread: Annotated[bool, Query(description="only what the caller has not read")] = False,
    ) -> Page[InboxNotice]:
        """The newest notices in the caller's inbox and in those of its roles."""
        before = NEWEST if page.after is None else cursor_values(page.after, int)[0]
        mine = read_by(asking)
        found = await inboxes().page(mine, asking.subject, before, page.limit, unread=unread)
        following = cursor(found[-1].notice.position) if len(found) == page.limit else None
        return Page(items=[_shown(one) for one in found], next=following)

    @router.get(f"/inbox/{context}/unread", name=f"count_{context}_inbox")
    async def count_inbox(asking: Asking) -> Unread:
        """How many notices the caller has not read."""
        count = await inboxes().unread(read_by(asking), asking.subject)
        return Unread(unread=min(count, UNREAD_COUNTED_MAX), more=count > UNREAD_COUNTED_MAX)

    @router.post(
        f"/inbox/{context}/{{notice_id}}/read",
        name=f"read_{context}_notice",
        status_code=204,
        responses=_READ,
    )
    async def read_notice(
        asking: Asking, given: Commanding, notice_id: NoticePath, body: CommandBody
    ) -> Response:
        """Marks a notice as read by the caller. A second time changes nothing."""
        return done(await inboxes().mark_read(notice_id, read_by(asking), given))

    @router.post(
        f"/notices/{context}/{{channel}}/receipts",
        name=f"receive_{context}_receipt",
        status_code=204,
        responses=_RECEIVED,
    )
    async def receive_receipt(
        request: Request,
        asking: Asking,
        channel: Annotated[Sent, Path(description="how the notice went")],
        body: ReceiptBody,
        receipt: Annotated[
            str, Header(alias=ID, min_length=1, max_length=100, pattern=r"^[!-~]+$", description="its id")
        ],
        timestamp: Annotated[
            str, Header(alias=TIMESTAMP, pattern=r"^[0-9]{1,12}$", description="when it was signed")
        ],
        signature: Annotated[
            str, Header(alias=SIGNATURE, min_length=1, max_length=500, description="as of Standard Webhooks")
        ],
    ) -> Response:
        """Keeps a provider's receipt. The same receipt again, and one that comes too early, do no harm."""
        signed = {ID: receipt, TIMESTAMP: timestamp, SIGNATURE: signature}
        outcome = await inboxes().receive(
            channel,
            signed,
            await request.body(),
            body.notice_id,
            body.outcome,
            body.code,
            body.occurred_at,
        )
        return done(outcome)

    def done(outcome: Outcome[NoticeEvent]) -> Response:
        token = consistency_token(context, outcome.position)
        return Response(status_code=204, headers={"Consistency-Token": token})


def _shown(item: InboxItem) -> InboxNotice:
    notice, content = item.notice, item.content
    return InboxNotice(
        notice_id=notice.id,
        subject_id=notice.subject,
        template=item.template,
        inbox=notice.inbox,
        requested_at=notice.requested_at.isoformat(),
        title=None if content is None else content.title,
        text=None if content is None else content.text,
        read=notice.read,
    )
