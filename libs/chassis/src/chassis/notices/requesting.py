"""Requests notices, and keeps what becomes of them.

A notice holds its content from the moment it is requested. Handed over again it is therefore the same, byte for byte,
also by a newer template, and what was sent can be shown.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import ClassVar, Final, NamedTuple
from uuid import UUID, uuid5

import msgspec

from chassis.notices.deciding import (
    INBOX,
    NOTICE,
    Channel,
    GivenUpBecause,
    GiveUp,
    HandOver,
    MarkRead,
    Notice,
    NoticeCommand,
    NoticeEvent,
    NoticeRequested,
    NoticeUnknown,
    ReceiptOutcome,
    Receive,
    Refuse,
    Request,
    decide,
)
from chassis.notices.providers import Accepted, Answer, Message
from chassis.notices.segments import segments
from chassis.notices.templates import Content, Template, by_name, unfit
from chassis.privacy.keys import ERASED, DataKey, KeyRing, Origin, seal, unseal
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Outcome, Refusal
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

TO_CHARACTERS_MAX: Final = 254
_RECIPIENTS: Final[Mapping[Channel, re.Pattern[str]]] = {
    "sms": re.compile(r"\+?[0-9]{3,20}"),
    "email": re.compile(r"[^\s@<>,;:\"\\()\[\]]{1,64}@[^\s@<>,;:\"\\()\[\]]{1,189}"),
    "push": re.compile(r"[!-~]{1,254}"),
    "inbox": re.compile(r"(person|role):.{1,247}"),
}


class RecipientUnfit(Refusal):
    """The recipient cannot be one of this channel."""

    code: ClassVar[str] = "notice-recipient-unfit"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "Nobody can be reached like that"
    title_zh: ClassVar[str] = "收件地址无效"


class SubjectGone(Refusal):
    """The subject was erased: nothing is sent about it."""

    code: ClassVar[str] = "notice-subject-erased"
    title: ClassVar[str] = "The subject was erased"
    title_zh: ClassVar[str] = "该主体已被销毁"


class Wanted(NamedTuple):
    """A notice that is wanted: what it is about, to whom, from which template and with which values.

    `to` is a telephone number, an e-mail address, what a push provider knows a device by, or an inbox: `of_person(...)`
    or `of_role(...)`, with the unit where what it is about is to be known there alone.
    """

    subject: UUID
    to: str
    template: str
    values: Mapping[str, str]


class Notices:
    """The notices of one context; use it from one event loop.

    `templates` are the newest versions; what was requested with an older one keeps its content. What is sent is sealed
    under the subject's key for `purpose`, what is in an inbox under that of the subject. `reached` is as of
    `CommandHandler`.
    """

    def __init__(
        self,
        store: EventStore,
        catalogue: Catalogue,
        keys: KeyRing,
        templates: Iterable[Template],
        *,
        purpose: str | None = None,
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._keys = keys
        self._purpose = purpose
        self._purposes = catalogue.purposes
        self._of_store = catalogue.store
        self._templates = by_name(templates)
        self._handler = CommandHandler[NoticeCommand, Notice, NoticeEvent](
            NOTICE, store, catalogue, keys, reached=reached
        )

    async def request(self, id: UUID, wanted: Wanted, context: CommandContext) -> None:
        """Requests a notice under an id that follows from its cause; a second time changes nothing.

        Raises ValuesUnfit, RecipientUnfit, SubjectGone, and NoticeDiffers where the id is another notice's.
        """
        template = self._templates[wanted.template]
        content = template.rendered(wanted.values)
        to = _checked(template.channel, wanted.to)
        of_staff = template.channel == INBOX
        of_subject = (await self._keys_of([wanted.subject], create=True)).get(wanted.subject)
        key = of_subject if of_subject is None or of_staff else self._part(of_subject)
        if key is None:
            raise SubjectGone
        digest = _digest(key, to, content)
        requested = NoticeRequested(
            subject=wanted.subject,
            channel=template.channel,
            template=template.name,
            template_version=template.version,
            to=self._sealed(key, id, "to", "" if of_staff else to),
            content=self._sealed(key, id, "content", msgspec.json.encode(content).decode()),
            digest=digest,
            requested_at=context.now,
            expires_at=context.now + template.lives,
            inbox=to if of_staff else None,
            segments=segments(content.text) if template.channel == "sms" else 0,
        )
        if (before := await self.current(id)).requested is None:
            # Without the content: another version of the template makes another one of the same notice.
            asked = ("request", wanted.subject, template.channel, template.name)
            if not (await self._handler.handle(id, Request(requested), context, asked=asked)).replayed:
                return
            before = await self.current(id)
        decide(Request(requested), before)

    async def current(self, id: UUID) -> Notice:
        """A notice as it is now; one without a request where there is none."""
        self._handler.forget(id)
        return (await self._handler.load(id)).state

    async def message(self, id: UUID, requested: NoticeRequested) -> Message | None:
        """What is handed over; None where the subject was erased."""
        key = (await self._keys_of([requested.subject])).get(requested.subject)
        content = None if key is None else self._content(key, id, requested)
        to = ERASED if key is None else self._opened(key, id, "to", requested.to)
        if content is None or to == ERASED:
            return None
        return Message(id, requested.channel, to, content.title, content.text, requested.requested_at)

    async def answered(
        self, id: UUID, subject: UUID, provider: str, answer: Answer, now: datetime
    ) -> Outcome[NoticeEvent]:
        """Keeps what the provider answered; the answer is sealed, for it may name the recipient."""
        key = (await self._keys_of([subject])).get(subject)
        key = None if key is None else self._part(key)
        said = ERASED if key is None else self._sealed(key, id, "answer", answer.answer)
        if isinstance(answer, Accepted):
            accepted = HandOver(provider, answer.provider_id, said)
            return await self._settled(id, accepted, "handed-over", now)
        return await self._settled(id, Refuse(provider, answer.code, said), "refused", now)

    async def given_up(
        self, id: UUID, because: GivenUpBecause, tries: int, now: datetime
    ) -> Outcome[NoticeEvent]:
        """Keeps that a notice is not tried any more."""
        return await self._settled(id, GiveUp(because, tries), "given-up", now)

    async def receive(
        self,
        id: UUID,
        receipt: str,
        channel: Channel,
        outcome: ReceiptOutcome,
        code: str,
        occurred_at: datetime,
        now: datetime,
    ) -> Outcome[NoticeEvent]:
        """Keeps a receipt, in any order with our own events; raises NoticeUnknown."""
        # Who has a wrong clock does not have the last word for ever.
        at = min(occurred_at, now)
        asked = ("receipt", channel, outcome, code, occurred_at)
        context = _context(id, f"receipt:{receipt}", now, at)
        said = Receive(receipt, channel, outcome, code, at)
        return await self._handler.handle(id, said, context, asked=asked)

    async def mark_read(
        self, id: UUID, inboxes: frozenset[str], context: CommandContext
    ) -> Outcome[NoticeEvent]:
        """The caller has read a notice that is in one of `inboxes`; raises NoticeUnknown where it is in another."""
        requested = (await self.current(id)).requested
        if requested is None or requested.inbox not in inboxes:
            raise NoticeUnknown
        return await self._handler.handle(id, MarkRead(context.actor), context)

    async def contents(self, notices: Mapping[UUID, NoticeRequested]) -> dict[UUID, Content | None]:
        """What these notices say; None where the subject was erased."""
        keys = await self._keys_of({one.subject for one in notices.values()})
        return {
            id: None if (key := keys.get(one.subject)) is None else self._content(key, id, one)
            for id, one in notices.items()
        }

    async def requested(self, ids: Iterable[UUID]) -> dict[UUID, NoticeRequested]:
        """The requests of notices; of one that was not requested, nothing."""
        wanted = list(ids)
        loaded = await asyncio.gather(*[self._handler.load(id) for id in wanted])
        states = dict(zip(wanted, (one.state for one in loaded), strict=True))
        return {id: state.requested for id, state in states.items() if state.requested is not None}

    async def _settled(
        self, id: UUID, command: NoticeCommand, what: str, now: datetime
    ) -> Outcome[NoticeEvent]:
        return await self._handler.handle(id, command, _context(id, what, now), asked=what)

    async def _keys_of(self, subjects: Iterable[UUID], *, create: bool = False) -> dict[UUID, DataKey]:
        return await asyncio.to_thread(
            self._keys.keys_for, list(subjects), create=create, purposes=self._purposes
        )

    def _content(self, key: DataKey, id: UUID, requested: NoticeRequested) -> Content | None:
        plain = self._opened(key, id, "content", requested.content)
        return None if plain == ERASED else msgspec.json.decode(plain, type=Content)

    def _sealed(self, key: DataKey, id: UUID, place: str, plain: str) -> str:
        return seal(key, self._origin(id).aad(place, key), plain)

    def _opened(self, key: DataKey, id: UUID, place: str, token: str) -> str:
        part = key.opening(token)
        return unseal(part, b"" if part is None else self._origin(id).aad(place, part), token)

    def _part(self, key: DataKey) -> DataKey | None:
        return key if self._purpose is None else key.of(self._purpose)

    def _origin(self, id: UUID) -> Origin:
        return Origin(self._of_store, id, 1, "notice")


def inboxes_of(person: str, roles: Iterable[str], unit: str | None = None) -> frozenset[str]:
    """The inboxes that a member of staff reads: the own one, and those of the roles, everywhere and in the own unit."""
    return frozenset({of_person(person), *(of_role(role, each) for role in roles for each in {None, unit})})


def of_person(name: str) -> str:
    """The inbox of a member of staff; of nobody else, whatever a role is called."""
    return f"person:{name}"


def of_role(role: str, unit: str | None = None) -> str:
    """The inbox that all read who have a role, or those of them in one unit of the organisation."""
    return f"role:{role}" if unit is None else f"role:{role}@{unit}"


def _checked(channel: Channel, to: str) -> str:
    if len(to) > TO_CHARACTERS_MAX or unfit(to) or not _RECIPIENTS[channel].fullmatch(to):
        raise RecipientUnfit(channel)
    return to


def _context(id: UUID, what: str, now: datetime, effective_at: datetime | None = None) -> CommandContext:
    return CommandContext(
        actor="notices",
        now=now,
        command_id=uuid5(id, what),
        effective_at=effective_at,
        correlation_id=id,
        causation_id=id,
    )


def _digest(key: DataKey, to: str, content: Content) -> str:
    said = msgspec.json.encode((to, content.title, content.text))
    return blake2b(said, key=key.derived("notice"), digest_size=16).hexdigest()
