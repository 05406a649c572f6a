"""Makes proposals, and decides on them. An approval is stored in the transaction of what it approves.

Two approvers at once therefore give one effect, and no crash leaves an approval without its effect.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec
from msgspec import structs

from chassis.privacy.keys import ERASED, DataKey, KeyRing, Origin, seal, unseal
from chassis.privacy.personal import TRANSACTION
from chassis.proposals.deciding import (
    PROPOSAL,
    ApprovalForbidden,
    Approve,
    Expire,
    Proposal,
    ProposalCommand,
    ProposalEvent,
    ProposalMade,
    ProposalUnknown,
    Propose,
    Reject,
    Status,
    Withdraw,
)
from chassis.proposals.persons import persons
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import (
    Approved,
    CommandContext,
    CommandKeyReused,
    Outcome,
    Refusal,
    TooManyConflicts,
)
from chassis.write.handling import CONFLICT_RETRIES_MAX, ApprovalOvertaken, CommandHandler
from chassis.write.store import Appended, CommandSeen, EventStore

_NAMESPACE: Final = UUID("0b2f6a3e-6a0f-5f0d-9f5e-1b7b3f0f6a10")
REASON_CHARACTERS_MAX: Final = 500
_PLACE: Final = "command"


class ReasonMissing(Refusal):
    """A proposal and a decision on it say why."""

    code = "reason-missing"
    status = 422
    title = "A reason is needed"
    title_zh = "必须说明理由"


class SubjectErased(Refusal):
    """The key of the subject is destroyed, so what was proposed cannot be read any more."""

    code = "subject-erased"
    title = "The subject of this proposal was erased"
    title_zh = "该提议的对象已被销毁"


@dataclass(frozen=True, slots=True)
class Proposable:
    """A kind of command that needs two persons.

    `command` is its type, which msgspec can write and read. `approvers` are the roles that may decide on it, `lives`
    how long it waits, `title` what it is called where people are told of it. `carry_out(subject, command, context)` does it
    through one `CommandHandler.handle` with exactly this context: with it the approval is stored. `purpose` is what its values
    are kept for; of several, the one that is erased first.
    """

    command: type[msgspec.Struct]
    approvers: frozenset[str]
    lives: timedelta
    carry_out: Callable[[UUID, Any, CommandContext], Awaitable[Outcome[Any]]]
    title: str
    purpose: str = TRANSACTION


class Carried(msgspec.Struct, frozen=True):
    """What an approval came to: the subject, its version after it, and the position in the store."""

    proposal_id: UUID
    subject: UUID
    version: int
    position: int


class ProposalShown(msgspec.Struct, frozen=True):
    """A proposal as those see it who decide on it; `command` is None once its subject was erased."""

    proposal_id: UUID
    kind: str
    subject: UUID
    status: Status
    digest: str
    proposed_by: str
    on_behalf_of: str | None
    reason: str
    expires_at: datetime
    approved_by: str | None
    command: dict[str, Any] | None
    position: int


class FourEyes:
    """The proposals of one context; use it from one event loop.

    `kinds` are the commands that need two persons, by a name that never changes. `reached` is called at the points
    `before-append` and `after-append` of a proposal.
    """

    def __init__(
        self,
        store: EventStore,
        catalogue: Catalogue,
        keys: KeyRing,
        kinds: Mapping[str, Proposable],
        *,
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._kinds = dict(kinds)
        self._of_store = catalogue.store
        self._purposes = catalogue.purposes
        self._handler = CommandHandler[ProposalCommand, Proposal, ProposalEvent](
            PROPOSAL, store, catalogue, keys, reached=reached
        )

    @property
    def kinds(self) -> Mapping[str, Proposable]:
        """The commands that need two persons, by name."""
        return self._kinds

    async def proposed_before(
        self, kind: str, subject: UUID, context: CommandContext
    ) -> ProposalShown | None:
        """What was proposed under this key; None where nothing was. Raises CommandKeyReused where it was something else.

        For who would propose something else now, because what it comes to has changed since.
        """
        seen = (await self._store.commands([context.key])).get(context.key)
        if seen is None:
            return None
        if seen.stream_id != self._proposal(context):
            raise CommandKeyReused
        shown = await self.shown(seen.stream_id)
        said = shown.kind, shown.subject, shown.reason, shown.on_behalf_of
        if said != (kind, subject, worded(context.reason), context.on_behalf_of):
            raise CommandKeyReused
        return shown

    async def propose(
        self, kind: str, subject: UUID, command: msgspec.Struct, context: CommandContext
    ) -> ProposalShown:
        """Proposes a command; the same key gives the same proposal. Raises ReasonMissing, SubjectErased.

        Who proposes has checked that the command would be carried out now.
        """
        found, reason = self._kinds[kind], worded(context.reason)
        if not isinstance(command, found.command):
            raise TypeError(f"{kind} is a {found.command.__name__}")
        proposal = self._proposal(context)
        of_subject = await self._key_of(subject, create=True)
        key = None if of_subject is None else of_subject.of(found.purpose)
        if key is None:
            raise SubjectErased
        content = msgspec.json.encode(command, order="deterministic")
        digest = _digest(key, kind, subject, content, context)
        made = ProposalMade(
            kind=kind,
            subject=subject,
            command=seal(key, self._origin(proposal).aad(_PLACE, key), content.decode()),
            digest=digest,
            proposed_by=context.actor,
            reason=reason,
            expires_at=context.now + found.lives,
            on_behalf_of=context.on_behalf_of,
            effective_at=context.effective_at,
        )
        high = structs.replace(context, privilege="high")
        await self._handler.handle(proposal, Propose(made), high, asked=("propose", kind, subject, digest))
        return await self.shown(proposal)

    async def approve(
        self, proposal: UUID, digest: str, context: CommandContext, roles: Collection[str]
    ) -> Carried:
        """Carries out exactly what was proposed. Raises what `decide` or the command refuses; nothing is stored then.

        The same person again gets the answer of the first time.
        """
        worded(context.reason)
        for _ in range(1 + CONFLICT_RETRIES_MAX):
            state = await self._current(proposal)
            made = self._made(state)
            self._require_role(made, roles)
            if self._repeats(state, digest, context):
                return await self._carried_before(proposal, made, context)
            try:
                return await self._carried(
                    proposal, made, Approve(digest, *_who(context), context.now), context
                )
            except ApprovalOvertaken:
                continue
        raise TooManyConflicts

    async def reject(self, proposal: UUID, context: CommandContext, roles: Collection[str]) -> ProposalShown:
        """Refuses the proposal of another person."""
        self._require_role(self._made(await self._current(proposal)), roles)
        return await self._settled(proposal, Reject(*_who(context), context.now), context, "reject")

    async def withdraw(self, proposal: UUID, context: CommandContext) -> ProposalShown:
        """Takes the own proposal back."""
        return await self._settled(proposal, Withdraw(*_who(context), context.now), context, "withdraw")

    async def expire(self, proposal: UUID, context: CommandContext) -> ProposalShown:
        """Ends the waiting of a proposal whose time is over by `context.now`. A second time changes nothing."""
        await self._handler.handle(proposal, Expire(context.now), context, asked="expire")
        return await self.shown(proposal)

    async def shown(self, proposal: UUID) -> ProposalShown:
        """A proposal as it is now; raises ProposalUnknown."""
        self._handler.forget(proposal)
        loaded = await self._handler.load(proposal)
        made = self._made(loaded.state)
        content = await self._content(proposal, made)
        return ProposalShown(
            proposal_id=proposal,
            kind=made.kind,
            subject=made.subject,
            status=loaded.state.status,
            digest=made.digest,
            proposed_by=made.proposed_by,
            on_behalf_of=made.on_behalf_of,
            reason=made.reason,
            expires_at=made.expires_at,
            approved_by=loaded.state.approved_by,
            command=None if content is None else msgspec.json.decode(content, type=dict[str, Any]),
            position=loaded.position,
        )

    async def _carried(
        self, proposal: UUID, made: ProposalMade, approve: Approve, context: CommandContext
    ) -> Carried:
        high = structs.replace(context, privilege="high", causation_id=proposal)
        asked = ("approve", approve.digest)
        append = await self._handler.drafted(proposal, approve, high, asked=asked)
        content = await self._content(proposal, made)
        if content is None:
            raise SubjectErased
        kind = self._kinds[made.kind]
        effect = structs.replace(
            high,
            command_id=effect_id(proposal),
            idempotency_key=None,
            reason=made.reason,
            effective_at=made.effective_at,
            approved=Approved(proposal, made.proposed_by, append),
        )
        command = msgspec.json.decode(content, type=kind.command)
        outcome = await kind.carry_out(made.subject, command, effect)
        if (await self._store.stream_heads([proposal])).get(proposal) == append.first - 1:
            # There was nothing to do, so nothing was stored: the approval stands alone.
            result = await self._store.append_one(append)
            if isinstance(result, CommandSeen):
                raise CommandKeyReused
            if not isinstance(result, Appended):
                raise ApprovalOvertaken
        elif outcome.replayed and context.key not in await self._store.commands([context.key]):
            # The effect is that of another approval. Who is not in the event is not told that he approved.
            raise ApprovalOvertaken
        self._handler.forget(proposal)
        return Carried(proposal, outcome.stream_id, outcome.version, outcome.position)

    async def _carried_before(self, proposal: UUID, made: ProposalMade, context: CommandContext) -> Carried:
        seen = await self._store.commands([str(effect_id(proposal)), context.key])
        mine = seen.get(context.key)
        if mine is not None and mine.stream_id != proposal:
            raise CommandKeyReused
        effect = seen.get(str(effect_id(proposal)))
        subject = made.subject if effect is None else effect.stream_id
        version, position = (await self._store.stream_ends([subject])).get(subject, (0, 0))
        return Carried(proposal, subject, version if effect is None else effect.version, position)

    async def _settled(
        self, proposal: UUID, command: ProposalCommand, context: CommandContext, asked: str
    ) -> ProposalShown:
        worded(context.reason)
        high = structs.replace(context, privilege="high")
        await self._handler.handle(proposal, command, high, asked=asked)
        return await self.shown(proposal)

    def _repeats(self, state: Proposal, digest: str, context: CommandContext) -> bool:
        made, by = state.made, state.approved_by
        return (
            made is not None
            and by is not None
            and digest == made.digest
            and persons(by, None) == persons(context.actor, None)
        )

    def _require_role(self, made: ProposalMade, roles: Collection[str]) -> None:
        if self._kinds[made.kind].approvers.isdisjoint(roles):
            raise ApprovalForbidden

    async def _current(self, proposal: UUID) -> Proposal:
        self._handler.forget(proposal)
        return (await self._handler.load(proposal)).state

    def _made(self, state: Proposal) -> ProposalMade:
        if state.made is None or state.made.kind not in self._kinds:
            raise ProposalUnknown
        return state.made

    async def _content(self, proposal: UUID, made: ProposalMade) -> bytes | None:
        of_subject = await self._key_of(made.subject, create=False)
        key = None if of_subject is None else of_subject.opening(made.command)
        aad = b"" if key is None else self._origin(proposal).aad(_PLACE, key)
        plain = unseal(key, aad, made.command)
        return None if plain == ERASED else plain.encode()

    def _proposal(self, context: CommandContext) -> UUID:
        return uuid5(_NAMESPACE, f"{self._of_store}|{context.key}")

    async def _key_of(self, subject: UUID, *, create: bool) -> DataKey | None:
        keys_for = self._keys.keys_for
        keys = await asyncio.to_thread(keys_for, [subject], create=create, purposes=self._purposes)
        return keys.get(subject)

    def _origin(self, proposal: UUID) -> Origin:
        return Origin(self._of_store, proposal, 1, "proposal-made")


def worded(reason: str | None) -> str:
    """The reason, if it says something that can be stored and shown; raises ReasonMissing."""
    text = (reason or "").strip()
    if not text or not text.isprintable() or len(text) > REASON_CHARACTERS_MAX:
        raise ReasonMissing(f"1 to {REASON_CHARACTERS_MAX} printable characters")
    return text


def _who(context: CommandContext) -> tuple[str, str | None]:
    return context.actor, context.on_behalf_of


def effect_id(proposal: UUID) -> UUID:
    """The id of the command that an approval carries out. It is the same for every approver, so it is done once."""
    return uuid5(proposal, "carried out")


def _digest(key: DataKey, kind: str, subject: UUID, content: bytes, context: CommandContext) -> str:
    said = (
        kind,
        str(subject),
        content.decode(),
        context.reason,
        context.on_behalf_of,
        context.effective_at,
    )
    return blake2b(msgspec.json.encode(said), key=key.derived("proposal"), digest_size=32).hexdigest()
